//! Tests against real servers.

mod server;
mod ui;
