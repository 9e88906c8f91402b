//! Plans: what the migrator would do, as data.

mod loss;
mod print;
mod text;

use serde::Serialize;

pub use loss::Loss;
pub(crate) use loss::losses;

use crate::phase::{Gate, PhaseInfo, Window};
use crate::reference::Reference;
use crate::step::{Lock, Step};

/// What is still to be done, in order: every statement with its locks, what they block, and how to undo it.
///
/// Its `Display` form is a table for a terminal of 140 columns; it serialises for tools. Nothing in it is guessed:
/// what depends on objects that do not exist yet says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// The migrations that have phases left, in order.
    pub migrations: Vec<PlannedMigration>,
}

impl Plan {
    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.migrations.is_empty()
    }

    /// The steps that are known, rollbacks left out, in order.
    pub fn steps(&self) -> impl Iterator<Item = &PlannedStep> {
        self.migrations.iter().flat_map(|migration| &migration.phases).flat_map(|phase| match &phase.steps {
            Steps::Known(steps) => steps.as_slice(),
            Steps::Unknown { .. } => &[],
        })
    }
}

/// What is left of one migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlannedMigration {
    /// Its name.
    pub name: String,
    /// What a person should know before it runs.
    pub warnings: Vec<String>,
    /// What would go silently with the columns that it drops, and gets a step of its own before them.
    pub losses: Vec<Loss>,
    /// What refers now to what it drops: its gate without references stays shut until there is none of it left, or each
    /// is acknowledged.
    pub references: Vec<Reference>,
    /// The phases that are not entered yet, in order.
    pub phases: Vec<PlannedPhase>,
}

/// A phase that is not entered yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlannedPhase {
    /// Its name.
    pub name: String,
    /// Its place among the change's phases, from 1.
    pub number: usize,
    /// How many phases the change has.
    pub of: usize,
    /// The releases that may run once the schema stands in it.
    pub window: Window,
    /// What must hold to leave it.
    pub gate: Gate,
    /// What is done on entering it.
    pub steps: Steps,
    /// How it is undone.
    pub rollback: PlannedRollback,
}

/// The steps of a phase, as far as the present catalog shows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Steps {
    /// These, in this order; none where the phase only waits for a deploy.
    Known(Vec<PlannedStep>),
    /// They depend on objects that do not exist yet.
    Unknown {
        /// On which, and who makes them.
        because: String,
    },
}

/// How a phase is undone, as far as the present catalog shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PlannedRollback {
    /// Nothing to do in the database: reverting the deploy is the rollback.
    RevertDeploy,
    /// By these steps, in this order.
    Steps(Vec<PlannedStep>),
    /// Not at all.
    Irreversible {
        /// Why.
        reason: String,
    },
    /// It depends on objects that do not exist yet.
    Unknown {
        /// On which, and who makes them.
        because: String,
    },
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlannedStep {
    /// What it does, in a few words.
    pub summary: String,
    /// What is sent; `{range}` stands for one batch of rows.
    pub sql: Vec<String>,
    /// The locks that it takes on tables.
    pub locks: Vec<Lock>,
    /// Whether that is all of them: not for SQL that a user wrote, of which phasewise knows neither locks nor scans.
    pub locks_known: bool,
    /// The tables whose readers wait for it.
    pub blocks_reads: Vec<String>,
    /// The tables whose writers wait for it.
    pub blocks_writes: Vec<String>,
    /// Whether it reads a whole table.
    pub scans: bool,
    /// Whether it runs in a transaction.
    pub in_transaction: bool,
}

impl PlannedMigration {
    pub(crate) fn new(name: &str, phases: Vec<PlannedPhase>) -> Self {
        Self {
            name: name.to_owned(),
            warnings: Vec::new(),
            losses: Vec::new(),
            references: Vec::new(),
            phases,
        }
    }

    pub(crate) fn losing(self, losses: Vec<Loss>) -> Self {
        Self { losses, ..self }
    }

    pub(crate) fn warning(self, warnings: Vec<String>) -> Self {
        Self { warnings, ..self }
    }
}

impl PlannedPhase {
    pub(crate) fn new(
        info: PhaseInfo,
        number: usize,
        of: usize,
        steps: Steps,
        rollback: PlannedRollback,
    ) -> Self {
        let PhaseInfo { name, window, gate } = info;
        Self { name: name.to_owned(), number, of, window, gate, steps, rollback }
    }
}

impl Steps {
    pub(crate) fn known(steps: &[Step]) -> Self {
        Self::Known(steps.iter().map(PlannedStep::from).collect())
    }
}

impl PlannedRollback {
    pub(crate) fn steps(steps: &[Step]) -> Self {
        if steps.is_empty() {
            Self::RevertDeploy
        } else {
            Self::Steps(steps.iter().map(PlannedStep::from).collect())
        }
    }
}

impl PlannedStep {
    /// Whether it reads a whole table while clients wait for one of its locks: what no step of phasewise's own does.
    #[must_use]
    pub fn stalls(&self) -> bool {
        self.scans && !(self.blocks_reads.is_empty() && self.blocks_writes.is_empty())
    }
}

impl From<&Step> for PlannedStep {
    fn from(step: &Step) -> Self {
        let on = |blocks: fn(&Lock) -> bool| {
            step.locks.iter().filter(|lock| blocks(lock)).map(|lock| lock.relation.clone()).collect()
        };
        Self {
            summary: step.summary.clone(),
            sql: step.display_sql(),
            locks: step.locks.clone(),
            locks_known: step.locks_known,
            blocks_reads: on(|lock| lock.mode.blocks_reads()),
            blocks_writes: on(|lock| lock.mode.blocks_writes()),
            scans: step.scans,
            in_transaction: step.in_transaction(),
        }
    }
}

#[cfg(test)]
mod tests;
