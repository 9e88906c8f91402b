//! The executor: the only part that talks to Postgres.

pub(crate) mod planning;
pub(crate) mod snapshot;
