//! Tests against real servers.

mod bad_input;
mod crash;
mod crowds;
mod custom;
mod exec;
mod executor2;
mod harness;
mod in_flight;
mod locks;
mod matrix;
mod old_server;
mod pgbench;
mod plan;
mod pooler;
mod replica;
mod round_trips;
mod server;
mod spans;
mod sync;
mod tls;
mod traps;
mod traps2;
mod ui;
mod user_sql;
mod waits;
