//! Tests against real servers.

mod harness;
mod locks;
mod matrix;
mod server;
