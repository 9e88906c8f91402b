//! Tests against real servers.

mod exec;
mod server;
