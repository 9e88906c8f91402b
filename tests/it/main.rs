//! Tests against real servers.

mod exec;
mod plan;
mod server;
mod ui;
