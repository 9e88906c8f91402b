//! What the ledger says, read at one moment.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures_util::future::{try_join, try_join5};
use serde::{Deserialize, Serialize};

use super::{Aside, Instance, Ledger, Listing, Part, schema};
use crate::error::{Error, Kind, Result};
use crate::migration::Entry;
use crate::migrator::connect::{Conn, Sql as _, get};
use crate::migrator::reach::Reach;
use crate::phase::{PhaseInfo, Window};

/// Which way a migration moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::migrator) enum Direction {
    Forward,
    Back,
}

impl Direction {
    pub(in crate::migrator) fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Back => "back",
        }
    }
}

/// A phase as the ledger keeps it, for builds that do not know the migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::migrator) struct Place {
    pub(in crate::migrator) name: String,
    lo: u16,
    hi: u16,
    gate: Option<u16>,
}

impl Place {
    fn new(info: &PhaseInfo) -> Self {
        Self { name: info.name.to_owned(), lo: info.window.lo, hi: info.window.hi, gate: info.gate.release() }
    }

    fn window(&self) -> Window {
        Window { lo: self.lo.min(self.hi), hi: self.hi }
    }
}

pub(super) fn places(entry: &Entry) -> Vec<Place> {
    entry.phases().iter().map(Place::new).collect()
}

/// A migration in the ledger.
#[derive(Clone, Debug)]
pub(in crate::migrator) struct Record {
    pub(in crate::migrator) name: String,
    pub(in crate::migrator) fingerprint: String,
    pub(in crate::migrator) definition: String,
    pub(in crate::migrator) phases: Vec<Place>,
    /// Phases entered, the one being rolled back included.
    pub(in crate::migrator) entered: usize,
    pub(in crate::migrator) moving: Option<Direction>,
    pub(in crate::migrator) paused: bool,
    pub(in crate::migrator) since: DateTime<Utc>,
    pub(in crate::migrator) first_seen: DateTime<Utc>,
    /// The services that take part, where it names them.
    pub(in crate::migrator) services: Vec<String>,
    pub(in crate::migrator) reach: Reach,
    /// When an instance was last seen in the phase where it stands that is older than the next phase allows.
    pub(in crate::migrator) older: Option<DateTime<Utc>>,
    /// When statements were last counted for its gate, or that was tried.
    pub(in crate::migrator) counted: Option<DateTime<Utc>>,
}

impl Record {
    pub(in crate::migrator) fn begun(&self) -> bool {
        self.entered > 0 || self.moving.is_some()
    }

    pub(in crate::migrator) fn done(&self) -> bool {
        self.entered == self.phases.len() && self.moving.is_none()
    }

    /// The releases that may run now: while it moves, those that both neighbours allow.
    pub(in crate::migrator) fn window(&self) -> Window {
        let here = self.window_at(self.entered);
        let there = match self.moving {
            None => here,
            Some(Direction::Forward) => self.window_at(self.entered + 1),
            Some(Direction::Back) => self.window_at(self.entered.saturating_sub(1)),
        };
        // Neighbours overlap by a const assertion; a damaged row is as narrow as can be.
        here.overlap(there).unwrap_or(here)
    }

    /// Where it stands once `entered` phases are entered.
    fn place_at(&self, entered: usize) -> Option<&Place> {
        self.phases.get(entered.checked_sub(1)?)
    }

    /// Where it stands; `None` before the first phase.
    pub(in crate::migrator) fn here(&self) -> Option<&Place> {
        self.place_at(self.entered)
    }

    /// The window once `entered` phases are entered.
    pub(in crate::migrator) fn window_at(&self, entered: usize) -> Window {
        self.place_at(entered).map_or(Window { lo: 0, hi: 0 }, Place::window)
    }

    fn sound(&self) -> bool {
        self.entered <= self.phases.len()
            && match self.moving {
                None => true,
                Some(Direction::Forward) => self.entered < self.phases.len(),
                Some(Direction::Back) => self.entered > 0,
            }
    }
}

/// A confirmation.
#[derive(Clone, Debug)]
pub(in crate::migrator) struct Confirmed {
    pub(in crate::migrator) migration: String,
    pub(in crate::migrator) phase: String,
    pub(in crate::migrator) at: DateTime<Utc>,
    pub(in crate::migrator) by: String,
}

/// All of it.
#[derive(Clone, Debug)]
pub(in crate::migrator) struct Book {
    pub(in crate::migrator) now: DateTime<Utc>,
    pub(in crate::migrator) records: BTreeMap<String, Record>,
    pub(in crate::migrator) confirmed: Vec<Confirmed>,
    /// Those that are registered, live or not.
    pub(in crate::migrator) instances: Vec<Instance>,
    pub(in crate::migrator) listings: Vec<Listing>,
    /// The parts of batch loops under way, with their migrations.
    pub(in crate::migrator) parts: Vec<(String, Part)>,
    pub(in crate::migrator) aside: Vec<Aside>,
}

impl Book {
    /// What a database without a ledger says.
    pub(in crate::migrator) fn empty() -> Self {
        Self {
            now: Utc::now(),
            records: BTreeMap::new(),
            confirmed: Vec::new(),
            instances: Vec::new(),
            listings: Vec::new(),
            parts: Vec::new(),
            aside: Vec::new(),
        }
    }

    pub(in crate::migrator) fn record(&self, name: &str) -> Option<&Record> {
        self.records.get(name)
    }

    /// The releases that may run now; before a migration begins only release 0.
    pub(in crate::migrator) fn window(&self, name: &str) -> Window {
        self.record(name).map_or(Window { lo: 0, hi: 0 }, Record::window)
    }

    /// When the last use of what the next phase takes away was seen, or said, to be over: soaks and the comparison of
    /// statements begin there. An old release that came back and left again may have left old rows.
    pub(in crate::migrator) fn last_use(&self, record: &Record) -> DateTime<Utc> {
        let confirmed = record
            .here()
            .and_then(|phase| self.confirmation(&record.name, &phase.name))
            .map(|found| found.at);
        [record.older, confirmed].into_iter().flatten().fold(record.since, DateTime::max)
    }

    pub(in crate::migrator) fn confirmation(&self, migration: &str, phase: &str) -> Option<&Confirmed> {
        self.confirmed.iter().find(|found| found.migration == migration && found.phase == phase)
    }
}

impl Ledger {
    /// Reads everything that decides what is next. The statements are pipelined: about one round trip.
    pub(in crate::migrator) async fn read(&self, conn: &Conn) -> Result<Book> {
        let version = self.sql("SELECT version, clock_timestamp() AS now FROM {s}.ledger");
        let migrations = self.sql(
            "SELECT name, fingerprint, definition, phases::text AS phases, entered, moving, paused, since, first_seen,
                    services, tables, columns, everything, counted_at,
                    (SELECT o.at FROM {s}.older o WHERE o.migration = m.name AND o.phase = m.phases -> (m.entered - 1) ->> 'name') AS older
               FROM {s}.migrations m",
        );
        let confirmed = self.sql("SELECT migration, phase, at, by FROM {s}.confirmations ORDER BY at");
        let read = Box::pin(try_join5(
            try_join(conn.ask(&version, &[]), conn.ask(&migrations, &[])),
            conn.ask(&confirmed, &[]),
            try_join(self.instances(conn), self.listings(conn)),
            self.all_parts(conn),
            self.set_aside(conn, None),
        ))
        .await;
        let ((version, migrations), confirmed, (instances, listings), parts, aside) = match read {
            Ok(read) => read,
            Err(error) => return Err(self.unreadable(conn, error).await),
        };

        let head = version.first().ok_or_else(|| {
            Error::new(
                Kind::LedgerDamaged,
                format!(
                    "table {}.ledger is empty: it holds one row, the version; insert it again (version {})",
                    self.s,
                    schema::VERSION
                ),
            )
        })?;
        let written: i32 = get(head, "version")?;
        if written > schema::VERSION {
            return Err(self.too_new(written));
        }
        if written < 1 {
            return Err(self.damaged("ledger", "version", &written));
        }
        let mut records = BTreeMap::new();
        for row in &migrations {
            let record = self.record(row)?;
            records.insert(record.name.clone(), record);
        }
        let confirmed = confirmed
            .iter()
            .map(|row| {
                Ok(Confirmed {
                    migration: get(row, "migration")?,
                    phase: get(row, "phase")?,
                    at: get(row, "at")?,
                    by: get(row, "by")?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Book { now: get(head, "now")?, records, confirmed, instances, listings, parts, aside })
    }

    fn record(&self, row: &tokio_postgres::Row) -> Result<Record> {
        let name: String = get(row, "name")?;
        let (phases, entered): (String, i32) = (get(row, "phases")?, get(row, "entered")?);
        let phases: Vec<Place> =
            serde_json::from_str(&phases).map_err(|error| self.damaged("migrations", &name, &error))?;
        let moving: Option<String> = get(row, "moving")?;
        let moving = match moving.as_deref() {
            None => None,
            Some("forward") => Some(Direction::Forward),
            Some("back") => Some(Direction::Back),
            Some(other) => {
                return Err(self.damaged("migrations", &name, &format_args!("moving is {other:?}")));
            }
        };
        let record = Record {
            entered: usize::try_from(entered).unwrap_or(usize::MAX),
            fingerprint: get(row, "fingerprint")?,
            definition: get(row, "definition")?,
            phases,
            moving,
            paused: get(row, "paused")?,
            since: get(row, "since")?,
            first_seen: get(row, "first_seen")?,
            services: get(row, "services")?,
            reach: Reach {
                tables: get(row, "tables")?,
                columns: get(row, "columns")?,
                everything: get(row, "everything")?,
            },
            older: get(row, "older")?,
            counted: get(row, "counted_at")?,
            name,
        };
        if !record.sound() {
            return Err(self.damaged(
                "migrations",
                &record.name,
                &format_args!(
                    "{entered} of {} phases entered, moving {}",
                    record.phases.len(),
                    record.moving.map_or("nowhere", Direction::as_str)
                ),
            ));
        }
        Ok(record)
    }

    pub(super) fn damaged(&self, table: &str, row: &str, what: &dyn std::fmt::Display) -> Error {
        Error::new(
            Kind::LedgerDamaged,
            format!(
                "row {row:?} of {}.{table} does not make sense: {what}; was it edited by hand? Restore it, comparing with {}.history",
                self.s, self.s
            ),
        )
    }

    fn too_new(&self, written: i32) -> Error {
        Error::new(
            Kind::LedgerTooNew,
            format!(
                "the ledger in schema {} has version {written}, and this build knows version {}: run a build with a newer phasewise",
                self.s,
                schema::VERSION
            ),
        )
    }

    async fn written(&self, conn: &Conn) -> Option<i32> {
        let rows = conn.ask(&self.sql("SELECT version FROM {s}.ledger"), &[]).await.ok()?;
        rows.first().and_then(|row| get(row, "version").ok())
    }

    async fn unreadable(&self, conn: &Conn, error: Error) -> Error {
        // A newer one may be laid out otherwise; its version stays where it is.
        if let Some(written) = self.written(conn).await.filter(|written| *written > schema::VERSION) {
            return self.too_new(written);
        }
        match error.kind() {
            Kind::Permission => Error::new(
                Kind::Permission,
                format!(
                    "this role may not read phasewise's ledger: run GRANT USAGE ON SCHEMA {s} TO it, and GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {s} TO it",
                    s = self.s
                ),
            )
            .with_source(error),
            Kind::Database => Error::new(
                Kind::LedgerDamaged,
                format!("the ledger in schema {} cannot be read: {error}; was a table of it dropped or altered?", self.s),
            )
            .with_source(error),
            _ => error,
        }
    }
}
