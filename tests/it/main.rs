//! Tests against real servers.

mod bad_input;
mod carried;
mod checks;
mod crash;
mod crowds;
mod custom;
mod definitions;
mod exec;
mod executor2;
mod harness;
mod locks;
mod matrix;
mod old_server;
mod partitions;
mod pgbench;
mod plan;
mod replica;
mod round_trips;
mod server;
mod spans;
mod traps;
mod traps2;
mod ui;
