//! Tests against real servers.

mod bad_input;
mod crowds;
mod custom;
mod exec;
mod harness;
mod locks;
mod matrix;
mod pgbench;
mod plan;
mod round_trips;
mod server;
mod traps;
mod ui;
