//! The executor: the only part that talks to Postgres.

mod archives;
mod backfill;
mod background;
mod connect;
mod describe;
mod door;
mod drive;
mod driver;
mod events;
mod fleet;
mod forward;
mod gates;
mod index;
mod lease;
mod ledger;
mod locks;
mod member;
mod monitor;
mod people;
pub(crate) mod planning;
mod policy;
mod reach;
mod references;
mod report;
mod rollback;
mod session;
mod settings;
pub(crate) mod snapshot;
mod start;
mod status;
mod steps;
mod throttles;
mod transaction;
mod undo;
mod worker;

pub use archives::ArchiveStatus;
pub use events::{Blocker, Event, Observer};
pub use fleet::InTheWay;
pub use member::{Health, Schema};
pub use policy::{BackfillPolicy, OnFailingRow, Order};
pub use report::{MigrationReport, Report};
pub use settings::Migrator;
pub use status::{
    BackfillStatus, Confirmation, InstanceStatus, MigrationStatus, RowSetAside, State, Status, Unregistered,
};
pub use throttles::Throttle;

/// How far a rollback goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum To<'a> {
    /// Until the schema stands in this phase.
    Phase(&'a str),
    /// One phase; of one that is half entered, what was done of it.
    Previous,
    /// To where it was before the first phase.
    Start,
}

impl<'a> From<&'a str> for To<'a> {
    fn from(phase: &'a str) -> Self {
        Self::Phase(phase)
    }
}
