//! Zero-downtime Postgres migrations.

#[cfg(feature = "testing")]
pub mod testing;
