//! Tests against real servers.

mod exec;
mod plan;
mod round_trips;
mod server;
mod ui;
