//! Tests against real servers.

mod exec;
mod round_trips;
mod server;
mod ui;
