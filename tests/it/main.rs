//! Tests against real servers.

mod crowds;
mod custom;
mod exec;
mod harness;
mod locks;
mod matrix;
mod plan;
mod round_trips;
mod server;
mod ui;
