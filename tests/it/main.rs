//! Tests against real servers.

mod crowds;
mod exec;
mod harness;
mod locks;
mod matrix;
mod plan;
mod server;
mod ui;
