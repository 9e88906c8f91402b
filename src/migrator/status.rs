//! Status: where every migration stands.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::phase::Window;

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
    /// Behind an earlier migration that touches the same and is not done.
    HeldUp {
        /// The earlier migration.
        by: String,
    },
    /// The gate is open once the soak time is over.
    Soaking {
        /// When.
        until: DateTime<Utc>,
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
    /// Deploy phases that a person vouched for.
    pub confirmations: Vec<Confirmation>,
}

/// How far a backfill has come.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct BackfillStatus {
    /// The table, or partition, as SQL.
    pub relation: String,
    /// The pass, from 1.
    pub pass: u32,
    /// Rows looked at so far, in this pass.
    pub done: u64,
    /// Rows to look at in this relation, where Postgres has an estimate.
    pub estimate: Option<u64>,
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
                write!(f, "; backfill of {}: {} rows", backfill.relation, backfill.done)?;
                if let Some(estimate) = backfill.estimate {
                    write!(f, " of about {estimate}")?;
                }
                if backfill.pass > 1 {
                    write!(f, ", pass {}", backfill.pass)?;
                }
            }
        }
        Ok(())
    }
}
