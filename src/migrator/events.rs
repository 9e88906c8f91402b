//! Events: what the migrator does, told to whoever wants to know.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serde::Serialize;

use super::status::State;
use crate::error::Error;
use crate::step::Step;

/// Hears what the migrator does: a progress bar, metrics, a log.
///
/// It is called between transactions, never inside one, and should return quickly. A panic in it is caught and logged. Closures are observers.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync> Observer for F {
    fn event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// What happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// This run drives from now on.
    LeaseTaken {
        /// The fencing token.
        token: i64,
    },
    /// Another driver has taken over.
    LeaseLost,
    /// The ledger knows migrations that this build does not: it is an older build, or they were retired.
    UnknownMigrations {
        /// Their names.
        names: &'a [String],
    },
    /// The steps of a phase begin, or are resumed.
    PhaseEntering {
        /// The migration.
        migration: &'a str,
        /// The phase.
        phase: &'a str,
        /// Its number, from 1.
        number: usize,
        /// The number of phases.
        of: usize,
    },
    /// The schema stands in a phase.
    PhaseEntered {
        /// The migration.
        migration: &'a str,
        /// The phase.
        phase: &'a str,
        /// How long this run worked on it.
        took: Duration,
    },
    /// The rollback of a phase begins, or is resumed.
    PhaseRollingBack {
        /// The migration.
        migration: &'a str,
        /// The phase.
        phase: &'a str,
    },
    /// The schema stands in the phase before it again.
    PhaseRolledBack {
        /// The migration.
        migration: &'a str,
        /// The phase.
        phase: &'a str,
        /// How long this run worked on it.
        took: Duration,
    },
    /// An archive was dropped: what it was of cannot be brought back any more.
    ArchivePurged {
        /// The migration.
        migration: &'a str,
        /// The archive, as SQL.
        relation: &'a str,
    },
    /// An archive was to be dropped, and stays: `purge_archive` tells the same.
    ArchiveNotPurged {
        /// The migration.
        migration: &'a str,
        /// The archive, as SQL.
        relation: &'a str,
        /// Why.
        why: &'a str,
    },
    /// A step begins.
    StepStarted {
        /// The migration.
        migration: &'a str,
        /// The phase.
        phase: &'a str,
        /// The step.
        step: &'a Step,
    },
    /// A step was found to be done already.
    StepSkipped {
        /// The migration.
        migration: &'a str,
        /// The phase.
        phase: &'a str,
        /// The step.
        step: &'a Step,
    },
    /// A step is done.
    StepDone {
        /// The migration.
        migration: &'a str,
        /// The phase.
        phase: &'a str,
        /// The step.
        step: &'a Step,
        /// How long it took, retries included.
        took: Duration,
        /// Rows that its batches wrote.
        rows: u64,
    },
    /// A transaction did not get its lock, was rolled back, and is tried again after a pause.
    LockRetry {
        /// The migration.
        migration: &'a str,
        /// The phase.
        phase: &'a str,
        /// What the step does.
        step: &'a str,
        /// The attempt that failed, from 1.
        attempt: u32,
        /// The time since the first attempt.
        waited: Duration,
        /// Who held the lock, as far as could be seen.
        blockers: &'a [Blocker],
    },
    /// A batch is committed.
    BatchDone {
        /// The migration.
        migration: &'a str,
        /// The phase.
        phase: &'a str,
        /// The table, or partition, as SQL.
        relation: &'a str,
        /// The part of the pass that it belongs to, from 0: one for each relation, or for each worker in it.
        part: u32,
        /// Rows that this batch wrote.
        rows: u64,
        /// Rows looked at so far, in this part of the pass.
        done: u64,
        /// Rows to look at in this part, as far as is known.
        estimate: Option<u64>,
        /// Rows that the next batch will look at.
        next: u64,
        /// Rows looked at a second in this part, pauses included: a moving average, known as of the second batch.
        rate: Option<f64>,
        /// How long its statement took, with its commit.
        took: Duration,
    },
    /// Single rows were written that a batch had left out, or that the verification found.
    RowsMended {
        /// The migration.
        migration: &'a str,
        /// The phase.
        phase: &'a str,
        /// The table, or partition, as SQL.
        relation: &'a str,
        /// How many.
        rows: u64,
        /// How long it took, retries included.
        took: Duration,
    },
    /// A row could not be filled and is set aside, as the policy says.
    RowSetAside {
        /// The migration.
        migration: &'a str,
        /// The phase.
        phase: &'a str,
        /// The table, as SQL.
        relation: &'a str,
        /// Its key, such as `id = 7`.
        key: &'a str,
        /// Why it could not be filled.
        error: &'a str,
    },
    /// Clients had to wait for rows of a batch: the next one is smaller, and comes later.
    ClientsWaited {
        /// The migration.
        migration: &'a str,
        /// The phase.
        phase: &'a str,
        /// How many were seen.
        clients: u64,
        /// The rest before the next batch.
        rest: Duration,
    },
    /// Batches pause.
    Throttled {
        /// The migration.
        migration: &'a str,
        /// The phase.
        phase: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// Batches go on.
    Resumed {
        /// The migration.
        migration: &'a str,
        /// The phase.
        phase: &'a str,
    },
    /// This instance joined the fleet.
    Joined {
        /// Its id.
        instance: &'a str,
        /// Its service.
        service: &'a str,
    },
    /// This instance found itself expired: it was stopped, or cut off from the database. It is not current until it has
    /// registered again.
    Expired {
        /// Its id.
        instance: &'a str,
    },
    /// It registered again, and is current.
    Returned {
        /// Its id.
        instance: &'a str,
    },
    /// It was not let in again: the schema has moved on without it. It tries again with every heartbeat.
    ShutOut {
        /// Its id.
        instance: &'a str,
        /// Why.
        error: &'a Error,
    },
    /// The background driver could not go on; it tries again.
    DriveFailed {
        /// Why.
        error: &'a Error,
    },
    /// A migration goes no further for now.
    Waiting {
        /// The migration.
        migration: &'a str,
        /// What for.
        state: &'a State,
    },
}

/// A session that holds a lock which the migrator wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Blocker {
    /// Its process id; 0 stands for a prepared transaction.
    pub pid: i32,
    /// Its `application_name`.
    pub application: String,
    /// Its state, such as `idle in transaction`.
    pub state: String,
    /// How long its transaction has been open, in seconds.
    pub age: u64,
    /// The head of its last query.
    pub query: String,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pid == 0 {
            return f.write_str("a prepared transaction (see pg_prepared_xacts)");
        }
        write!(f, "pid {}", self.pid)?;
        if !self.application.is_empty() {
            write!(f, " ({})", self.application)?;
        }
        write!(f, ", {}, transaction open for {} s", self.state, self.age)?;
        if !self.query.is_empty() {
            write!(f, ", last query: {}", self.query)?;
        }
        Ok(())
    }
}

/// Tells `observer`, and survives its panic.
pub(super) fn tell(observer: Option<&dyn Observer>, event: &Event<'_>) {
    let Some(observer) = observer else { return };
    if catch_unwind(AssertUnwindSafe(|| observer.event(event))).is_err() {
        tracing::error!(target: "phasewise", "the observer panicked; the event is lost, the run goes on");
    }
}
