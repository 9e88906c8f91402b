//! Zero-downtime Postgres migrations.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod catalog;
mod change;
mod changes;
mod error;
mod expr;
pub mod ident;
mod migration;
mod migrator;
mod phase;
mod phases;
mod plan;
mod step;
mod steps;
#[cfg(feature = "testing")]
pub mod testing;

/// The phases of [`RenameColumn`].
pub mod rename_column {
    pub use crate::phases::replace::{
        AddTarget, Backfill, ByApplication, DropSource, InstallSync, KeptInSync, RemoveSync, StopOldWrites,
        SwitchOver, SwitchReads, WriteBoth,
    };
}

/// The phases of [`ChangeType`]: those of a rename, with a conversion each way.
pub mod change_type {
    pub use crate::changes::{Given, Missing};
    pub use crate::phases::replace::{
        AddTarget, Backfill, ByApplication, DropSource, InstallSync, KeptInSync, RemoveSync, StopOldWrites,
        SwitchOver, SwitchReads, WriteBoth,
    };
}

pub use change::{Change, Touches};
pub use changes::{ChangeType, RenameColumn};
pub use error::{Error, Kind, Result};
pub use expr::Expr;
pub use ident::{Ident, TableName};
pub use migration::{Entry, Marked, Migration, Migrations, Unmarked};
pub use migrator::{
    BackfillPolicy, BackfillStatus, Blocker, Confirmation, Event, MigrationReport, MigrationStatus, Migrator,
    Observer, Report, Schema, State, Status, Throttle, To,
};
pub use phase::{Context, DeployPhase, Gate, Irreversible, Phase, PhaseInfo, PhaseSeq, Rollback, Window};
pub use plan::{Plan, PlannedMigration, PlannedPhase, PlannedRollback, PlannedStep, Steps};
pub use step::{Action, Batches, BuildIndex, DropIndex, Lock, LockMode, Marker, Probe, Step, Work};
