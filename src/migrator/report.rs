//! Reports: what one run did, and what it left for later.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::status::State;

/// What a run did.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The migrations that the run looked at, in order.
    pub migrations: Vec<MigrationReport>,
    /// Migrations that the ledger knows and this build does not.
    pub unknown: Vec<String>,
    /// Whether the database was taken to be fresh, so that nothing waited for gates or soaks.
    pub fresh: bool,
    /// How long it took.
    pub took: Duration,
    /// Why [`start`](super::Migrator::start) could not migrate as far as the gates are open, where that kept it from
    /// nothing else. `None` where nothing failed.
    pub failed: Option<String>,
}

/// What a run did for one migration.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct MigrationReport {
    /// Its name.
    pub name: String,
    /// The phases that were entered, in order.
    pub entered: Vec<String>,
    /// The phases that were rolled back, in order.
    pub left: Vec<String>,
    /// Steps that were run.
    pub steps_run: usize,
    /// Steps that were found to be done already.
    pub steps_skipped: usize,
    /// Rows that batches wrote.
    pub rows: u64,
    /// How long the run worked on it.
    pub took: Duration,
    /// The phase that the schema stands in now.
    pub phase: Option<String>,
    /// What it is doing now, or waits for.
    pub state: State,
}

impl MigrationReport {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            entered: Vec::new(),
            left: Vec::new(),
            steps_run: 0,
            steps_skipped: 0,
            rows: 0,
            took: Duration::ZERO,
            phase: None,
            state: State::Pending,
        }
    }
}

impl Report {
    /// One migration's.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&MigrationReport> {
        self.migrations.iter().find(|migration| migration.name == name)
    }

    /// Whether every migration of this build is in its last phase.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.migrations.iter().all(|migration| migration.state == State::Applied)
    }

    pub(super) fn of(&mut self, name: &str) -> &mut MigrationReport {
        let at = self.migrations.iter().position(|migration| migration.name == name).unwrap_or_else(|| {
            self.migrations.push(MigrationReport::new(name));
            self.migrations.len() - 1
        });
        &mut self.migrations[at]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.migrations.is_empty() {
            f.write_str("no migrations")?;
        }
        for (i, migration) in self.migrations.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}: ", migration.name)?;
            if !migration.left.is_empty() {
                write!(f, "rolled back {}; ", migration.left.join(", "))?;
            }
            if !migration.entered.is_empty() {
                write!(f, "entered {}; ", migration.entered.join(", "))?;
            }
            if migration.steps_run + migration.steps_skipped > 0 {
                write!(
                    f,
                    "{} step{} run",
                    migration.steps_run,
                    if migration.steps_run == 1 { "" } else { "s" }
                )?;
                if migration.steps_skipped > 0 {
                    write!(f, ", {} found done", migration.steps_skipped)?;
                }
                if migration.rows > 0 {
                    write!(f, ", {} rows written", migration.rows)?;
                }
                write!(f, " in {:.1} s; ", migration.took.as_secs_f64())?;
            }
            write!(f, "{}", migration.state)?;
        }
        if let Some(error) = &self.failed {
            write!(f, "\nfailed: {error}")?;
        }
        if !self.unknown.is_empty() {
            write!(f, "\nunknown to this build: {}", self.unknown.join(", "))?;
        }
        Ok(())
    }
}
