//! Status: where every migration stands.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::phase::Window;
use crate::reference::Reference;

/// What a migration is doing, or waiting for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum State {
    /// Not begun.
    Pending,
    /// The next phase may be entered, is being entered, or one is being rolled back.
    InProgress,
    /// At a deploy phase's gate: the release that it names is not confirmed yet, or an instance speaks less.
    Waiting {
        /// What must hold, in words.
        gate: String,
        /// Since when it stands in its phase.
        since: DateTime<Utc>,
    },
    /// Behind another migration that touches the same and is not done: an earlier one, or one in flight.
    HeldUp {
        /// The other migration.
        by: String,
    },
    /// The gate is open once the soak time is over.
    Soaking {
        /// When.
        until: DateTime<Utc>,
    },
    /// The gate is open but for references to what is dropped behind it.
    Referenced {
        /// Those that are not acknowledged.
        references: Vec<Reference>,
    },
    /// Held by `pause` or by a rollback, until `resume` or `run_to`.
    Paused,
    /// In its last phase: done.
    Applied,
    /// In the ledger, but not in this build.
    Unknown,
    /// Begun with another definition than this build's.
    Changed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("pending"),
            Self::InProgress => f.write_str("in progress"),
            Self::Waiting { gate, since } => write!(f, "waits for {gate} since {}", time(*since)),
            Self::HeldUp { by } => write!(f, "waits for migration {by}, which touches the same"),
            Self::Soaking { until } => write!(f, "soaks until {}", time(*until)),
            Self::Referenced { references } => {
                let objects: Vec<_> = references.iter().map(|found| found.object.as_str()).collect();
                write!(f, "waits until nothing refers to what is dropped: {}", objects.join("; "))
            }
            Self::Paused => f.write_str("paused; `resume` or `run_to` lets it go on"),
            Self::Applied => f.write_str("applied"),
            Self::Unknown => f.write_str("unknown to this build"),
            Self::Changed => f.write_str("its definition was edited after it had begun"),
        }
    }
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Where every migration stands, those of this build in order, then those that only the ledger knows.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// One entry per migration.
    pub migrations: Vec<MigrationStatus>,
}

/// Where one migration stands.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct MigrationStatus {
    /// Its name.
    pub name: String,
    /// The phase that the schema stands in; `None` before the first.
    pub phase: Option<String>,
    /// The number of that phase, from 1; 0 before the first.
    pub number: usize,
    /// How many phases there are.
    pub of: usize,
    /// The releases that may run now.
    pub window: Window,
    /// The release that this build speaks; `None` where the migration is not in this build.
    pub release: Option<u16>,
    /// What it is doing.
    pub state: State,
    /// Since when it stands in its phase.
    pub since: Option<DateTime<Utc>>,
    /// The backfill that is under way.
    pub backfill: Option<BackfillStatus>,
    /// Rows that its backfills could not fill and left, as the policy said.
    pub set_aside: Vec<RowSetAside>,
    /// Deploy phases that a person vouched for.
    pub confirmations: Vec<Confirmation>,
    /// What refers now to that which is dropped behind the gate where it stands, acknowledged or not.
    pub references: Vec<Reference>,
    /// What a person should know of the search for references.
    pub notes: Vec<String>,
}

/// How far a backfill has come.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct BackfillStatus {
    /// The table, or the partition that is at its turn, as SQL.
    pub relation: String,
    /// The pass, from 1.
    pub pass: u32,
    /// Rows looked at so far, in this pass.
    pub done: u64,
    /// Rows written so far, in this pass.
    pub written: u64,
    /// Rows to look at in this pass, as far as is known.
    pub estimate: Option<u64>,
    /// Rows looked at a second, pauses included, all workers together.
    pub rate: Option<f64>,
    /// How long the rest of the pass takes at that rate.
    pub left: Option<Duration>,
    /// Rows that the next batch looks at.
    pub batch: Option<u64>,
    /// Parts that a worker has claimed and not ended.
    pub workers: u32,
    /// Why batches pause.
    pub reason: Option<String>,
}

/// A row that a backfill could not fill and left.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RowSetAside {
    /// The table, as SQL.
    pub relation: String,
    /// Its key, such as `id = 7`.
    pub key: String,
    /// Why it could not be filled.
    pub error: String,
}

/// A person's word that a deploy phase is out.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Confirmation {
    /// The deploy phase.
    pub phase: String,
    /// When it was given, by the database's clock.
    pub at: DateTime<Utc>,
    /// The database role and address that gave it.
    pub by: String,
}

impl Status {
    /// One migration's.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&MigrationStatus> {
        self.migrations.iter().find(|migration| migration.name == name)
    }
}

impl fmt::Display for BackfillStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backfill of {}: {} rows", self.relation, self.done)?;
        if let Some(estimate) = self.estimate {
            write!(f, " of about {estimate}")?;
        }
        if self.pass > 1 {
            write!(f, ", pass {}", self.pass)?;
        }
        if let Some(rate) = self.rate {
            write!(f, ", {rate:.0} a second")?;
        }
        if let Some(left) = self.left {
            write!(f, ", about {} left", span(left))?;
        }
        if let Some(batch) = self.batch {
            write!(f, ", {batch} a batch")?;
        }
        if self.workers > 1 {
            write!(f, ", {} workers", self.workers)?;
        }
        if let Some(reason) = &self.reason {
            write!(f, "; pauses: {reason}")?;
        }
        Ok(())
    }
}

/// In the two units that matter: `2 h 5 min`.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.migrations.is_empty() {
            return f.write_str("no migrations");
        }
        let place = |migration: &MigrationStatus| match &migration.phase {
            Some(phase) => format!("{}/{} {phase}", migration.number, migration.of),
            None => format!("0/{}", migration.of),
        };
        let names = self.migrations.iter().map(|m| m.name.chars().count()).max().unwrap_or(0);
        let places = self.migrations.iter().map(|m| place(m).chars().count()).max().unwrap_or(0);
        for (i, migration) in self.migrations.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(
                f,
                "{:names$}  {:places$}  window {}",
                migration.name,
                place(migration),
                migration.window
            )?;
            if let Some(release) = migration.release {
                write!(f, ", this build {release}")?;
            }
            write!(f, "  {}", migration.state)?;
            if let Some(backfill) = &migration.backfill {
                write!(f, "; {backfill}")?;
            }
            match migration.set_aside.as_slice() {
                [] => {}
                [row] => {
                    write!(f, "; the row with {} of {} is set aside: {}", row.key, row.relation, row.error)?
                }
                [row, ..] => {
                    let (rows, key, of) = (migration.set_aside.len(), &row.key, &row.relation);
                    write!(
                        f,
                        "; {rows} rows are set aside, the one with {key} of {of} first: {}",
                        row.error
                    )?;
                }
            }
            for reference in &migration.references {
                write!(f, "\n  ? {reference}")?;
            }
            for note in &migration.notes {
                write!(f, "\n  {note}")?;
            }
        }
        Ok(())
    }
}
