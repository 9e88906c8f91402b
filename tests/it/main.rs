//! Tests against real servers.

mod server;
