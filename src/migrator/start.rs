//! Instances that serve: joining the fleet, and leaving it.

use crate::error::Result;

/// This instance's membership in the fleet, from [`Migrator::start`](super::Migrator::start) to
/// [`leave`](Schema::leave).
#[derive(Debug)]
pub struct Schema {}

impl Schema {
    /// Leaves the fleet: this instance no longer holds any migration back.
    ///
    /// # Errors
    ///
    /// [`Kind::Connection`](crate::Kind::Connection); the row then expires by itself.
    pub async fn leave(self) -> Result<()> {
        Ok(())
    }
}
