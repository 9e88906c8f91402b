//! Status: where every migration stands.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::fleet::InTheWay;
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
    /// At a deploy phase's gate: the release that it names is not spoken by every service yet, nor confirmed; or an
    /// instance speaks less.
    #[non_exhaustive]
    Waiting {
        /// What must hold, in words.
        gate: String,
        /// Since when it stands in its phase.
        since: DateTime<Utc>,
        /// Whom it waits for.
        by: Vec<InTheWay>,
    },
    /// The whole fleet speaks the release that the gate names, but has not done so for the settle time.
    #[non_exhaustive]
    Settling {
        /// When it has.
        until: DateTime<Utc>,
    },
    /// Behind another migration that touches the same and is not done: an earlier one, or one in flight.
    #[non_exhaustive]
    HeldUp {
        /// The other migration.
        by: String,
        /// Since when that one stands in its phase; `None` if it has not begun.
        since: Option<DateTime<Utc>>,
    },
    /// The gate is open once the soak time is over.
    #[non_exhaustive]
    Soaking {
        /// When.
        until: DateTime<Utc>,
        /// Since when nobody uses the old thing any more.
        since: DateTime<Utc>,
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
            Self::Waiting { gate, since, by: _ } => write!(f, "waits since {} for {gate}", time(*since)),
            Self::Settling { until } => write!(f, "settles until {}", time(*until)),
            Self::HeldUp { by, since } => {
                write!(f, "waits for migration {by}, which touches the same")?;
                since.map_or(Ok(()), |since| write!(f, " and stands where it does since {}", time(since)))
            }
            Self::Soaking { until, since } => {
                write!(f, "soaks until {}, unused since {}", time(*until), time(*since))
            }
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
    /// The instances that are registered.
    pub instances: Vec<InstanceStatus>,
    /// Sessions on this database that belong to no registered instance, by what is known of them: clients of a release
    /// that does not register, jobs, people. Gates do not see them.
    pub unregistered: Vec<Unregistered>,
}

/// A registered instance.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct InstanceStatus {
    /// Its id.
    pub id: String,
    /// Its service.
    pub service: String,
    /// The release that it speaks of each migration that it lists; those that it names as retired apart.
    pub releases: BTreeMap<String, u16>,
    /// When it registered.
    pub started: DateTime<Utc>,
    /// When it was last heard of.
    pub seen: DateTime<Utc>,
    /// Whether its heartbeat is in time.
    pub live: bool,
    /// Why its background driver could not go on when it last tried.
    pub failed: Option<String>,
}

/// Sessions that belong to no registered instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Unregistered {
    /// Their `application_name`.
    pub application: String,
    /// Their role.
    pub role: String,
    /// Where they come from, as far as this role may see it.
    pub address: Option<String>,
    /// How many there are.
    pub sessions: u64,
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
    /// Until when its drop can be rolled back, where [`keep_archives`](crate::Migrator::keep_archives) ends that.
    pub restorable_until: Option<DateTime<Utc>>,
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
            f.write_str("no migrations")?;
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
            if let Some(until) = migration.restorable_until {
                write!(f, "; can be rolled back until {}", time(until))?;
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
        for instance in &self.instances {
            write!(f, "\ninstance {} of {}", instance.id, instance.service)?;
            if !instance.live {
                write!(f, ", not heard of since {}", time(instance.seen))?;
            }
            if let Some(error) = &instance.failed {
                write!(f, ", could not go on: {error}")?;
            }
        }
        // Only where a gate may be fooled by them.
        let waits = |migration: &MigrationStatus| {
            matches!(migration.state, State::Waiting { .. } | State::Settling { .. } | State::Soaking { .. })
        };
        if self.migrations.iter().any(waits) {
            for found in &self.unregistered {
                let Unregistered { application, role, address, sessions } = found;
                let address = address.as_deref().map(|address| format!(" at {address}")).unwrap_or_default();
                write!(
                    f,
                    "\nunregistered: {sessions} session{} of role {role}{address}, application \"{application}\"",
                    if *sessions == 1 { "" } else { "s" }
                )?;
            }
        }
        Ok(())
    }
}
