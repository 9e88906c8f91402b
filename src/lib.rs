//! Zero-downtime Postgres migrations, as a typed library.
//!
//! > Never change schema and code at the same time. Split every migration into phases where the old code and new code
//! > can both run against the same schema.
//!
//! A *change* ([`RenameColumn`], [`AddColumn`], …) is a `const` builder that expands, at compile time, into a tuple of
//! *phases*. Each phase has its steps, the *releases* of the application that may run beside it (its *window*), the
//! *gate* to leave it by, and its rollback. A *migration* is a named change with the release that this build's code
//! speaks. The [`Migrator`] takes migrations from phase to phase, and back.
//!
//! ```no_run
//! use phasewise::{Migration, Migrations, Migrator, RenameColumn, migrations, rename_column::WriteBoth};
//!
//! // users.name becomes users.full_name. This build writes both columns: the next deploy edits one word.
//! static MIGRATIONS: Migrations = migrations![
//!     Migration::new("20261122_users_full_name", RenameColumn::new("users", "name", "full_name"))
//!         .deployed::<WriteBoth>(),
//! ];
//!
//! # async fn example(pool: deadpool_postgres::Pool) -> phasewise::Result<()> {
//! let migrator = Migrator::new(pool, &MIGRATIONS);
//! println!("{}", migrator.plan().await?); // every statement, with its locks and its rollback; changes nothing
//!
//! // Joins the fleet, or says why this build must not serve. The instances drive the migration in the background, from
//! // gate to gate, as the deploy of each release is out everywhere.
//! let schema = migrator.instance("api").start().await?;
//! // … serve …
//! schema.leave().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Changes
//!
//! | change | releases | phases |
//! |---|---|---|
//! | [`AddColumn`] | 0 to 2, by its options | [`add_column`] |
//! | [`RenameColumn`] | 0 to 3; 0 and 1 with `.kept_in_sync()` | [`rename_column`] |
//! | [`ChangeType`] | 0 to 3; 0 and 1 with `.kept_in_sync()` | [`change_type`] |
//! | [`DropColumn`] | 0 to 2 | [`drop_column`] |
//! | [`DropTable`] | 0 and 1 | [`drop_table`] |
//! | [`AddIndex`], [`CreateTable`], [`RunSql`] | 0 | [`add_index`], [`create_table`], [`run_sql`] |
//!
//! A change with more than one release must be marked, [`deployed`](Migration::deployed) or
//! [`not_deployed`](Migration::not_deployed): forgetting it does not compile, because a build that claims too much loses
//! data. [`Change`] and [`Phase`] are open: a change of your own is a first-class one.
//!
//! # Behaviour
//!
//! * **Locks.** No step reads or rewrites a table under a lock that blocks reads or writes. Blocking locks are tried for
//!   briefly and tried again, so that no client waits longer than the
//!   [stall budget](Migrator::stall_budget).
//! * **Resuming.** Every step has a [`Probe`]. A run that was killed goes on where it was; a future that is dropped
//!   leaves no statement running.
//! * **The fleet is the gate.** Instances that [`start`](Migrator::start) register the release that they speak. A gate opens
//!   when every live instance speaks the release that it waits for; a build that the schema has no room for is refused.
//! * **One driver.** Any number of instances may drive at once; a lease with a fencing token makes one of them the driver.
//! * **Backfills** go in batches that pause, watch replication lag, keep their cursor in the batch's own transaction, and
//!   are verified: see [`BackfillPolicy`] and [`Throttle`].
//! * **Rollback.** Every phase can be undone, after a drop too; what cannot is [`Irreversible`], and is refused before
//!   anything is touched.
//! * **Silence.** Nothing is printed. An [`Observer`] hears of every [`Event`]; spans and events of `tracing` have the
//!   target `phasewise`.
//!
//! Postgres 14 or newer. The migrator needs a session of its own: a direct connection, not a pooler in transaction mode.
//!
//! # Features
//!
//! * `testing`: throwaway servers and databases for the tests of applications.
//! * `source`: looks for what is to be dropped in the application's own source (with Rust 1.85, keep `ignore` at 0.4.23).
//! * `docker`: lets `testing` start its server in Docker (needs Rust 1.88).
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
#[cfg(doctest)]
mod pages;
mod phase;
mod phases;
mod plan;
mod reference;
#[cfg(feature = "source")]
pub mod source;
mod step;
mod steps;
#[cfg(feature = "testing")]
pub mod testing;
mod tokens;

pub use change::{Change, Touches};
pub use changes::add_column::AddColumn;
pub use changes::add_index::AddIndex;
pub use changes::change_type::ChangeType;
pub use changes::create_table::CreateTable;
pub use changes::drop_column::DropColumn;
pub use changes::drop_table::DropTable;
pub use changes::rename_column::RenameColumn;
pub use changes::run_sql::RunSql;
pub use error::{Error, Kind, Result};
pub use expr::Expr;
pub use ident::{Ident, TableName};
pub use migration::{Entry, Marked, Migration, Migrations, Unmarked};
pub use migrator::{
    ArchiveStatus, BackfillPolicy, BackfillStatus, Blocker, Confirmation, Event, Health, InTheWay,
    InstanceStatus, MigrationReport, MigrationStatus, Migrator, Observer, OnFailingRow, Order, Report,
    RowSetAside, Schema, State, Status, Throttle, To, Unregistered,
};
pub use phase::{
    Context, DeployPhase, Dropped, Gate, Irreversible, Phase, PhaseInfo, PhaseSeq, Rollback, Window,
};
pub use phases::{
    add_column, add_index, change_type, create_table, drop_column, drop_table, rename_column, run_sql,
};
pub use plan::{Loss, Plan, PlannedMigration, PlannedPhase, PlannedRollback, PlannedStep, Steps};
pub use reference::{Acknowledgement, Reference, ReferenceKind};
pub use step::{Action, Batches, BuildIndex, DropIndex, Lock, LockMode, Marker, Probe, Step, Work};
