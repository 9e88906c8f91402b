//! Every change on every kind of table: forward, back from everywhere, forward again; every step twice; its locks.

mod setups;

mod others;
mod replace;
