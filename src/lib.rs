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

pub use change::{Change, Touches};
pub use changes::add_column::AddColumn;
pub use changes::add_index::AddIndex;
pub use changes::change_type::ChangeType;
pub use changes::create_table::CreateTable;
pub use changes::drop_column::DropColumn;
pub use changes::rename_column::RenameColumn;
pub use changes::run_sql::RunSql;
pub use error::{Error, Kind, Result};
pub use expr::Expr;
pub use ident::{Ident, TableName};
pub use migration::{Entry, Marked, Migration, Migrations, Unmarked};
pub use migrator::{
    BackfillPolicy, BackfillStatus, Blocker, Confirmation, Event, MigrationReport, MigrationStatus, Migrator,
    Observer, Report, Schema, State, Status, Throttle, To,
};
pub use phase::{Context, DeployPhase, Gate, Irreversible, Phase, PhaseInfo, PhaseSeq, Rollback, Window};
pub use phases::{add_column, add_index, change_type, create_table, drop_column, rename_column, run_sql};
pub use plan::{Plan, PlannedMigration, PlannedPhase, PlannedRollback, PlannedStep, Steps};
pub use step::{Action, Batches, BuildIndex, DropIndex, Lock, LockMode, Marker, Probe, Step, Work};
