//! Archives: listed, kept for as long as was asked, and purged.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::connect::Conn;
use super::drive::Look;
use super::driver::Driver;
use super::events::Event;
use super::ledger::{At, Direction, Kept, Ledger};
use super::monitor::Monitor;
use super::report::Report;
use super::settings::Migrator;
use crate::error::{Error, Kind, Result};
use crate::step::{Action, LockMode, Step};

/// What was dropped, and is kept so that the drop can be rolled back.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ArchiveStatus {
    /// The migration that dropped it.
    pub migration: String,
    /// The phase that did.
    pub phase: String,
    /// The archive, as SQL.
    pub relation: String,
    /// The table that was dropped, or that the column was dropped from, as SQL.
    pub table: String,
    /// The column; `None` where the whole table was dropped.
    pub column: Option<String>,
    /// Since when the drop is done, by the database's clock; `None` while it is under way, forward or back.
    pub since: Option<DateTime<Utc>>,
    /// When it is purged, by [`Migrator::keep_archives`]; `None` where it is kept until somebody says otherwise.
    pub expires: Option<DateTime<Utc>>,
    /// Its size, with its indexes.
    pub bytes: u64,
    /// Its rows, as far as Postgres has an estimate.
    pub rows: Option<u64>,
}

impl fmt::Display for ArchiveStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.migration)?;
        match &self.column {
            Some(column) => write!(f, "column \"{column}\" of {}", self.table)?,
            None => write!(f, "table {}", self.table)?,
        }
        write!(f, " in {}, {} bytes", self.relation, self.bytes)?;
        let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
        match self.since {
            Some(since) => write!(f, ", since {}", time(since))?,
            None => f.write_str(", under way")?,
        }
        self.expires.map_or(Ok(()), |expires| write!(f, ", kept until {}", time(expires)))
    }
}

impl Kept {
    fn expires(&self, keep: Option<Duration>) -> Option<DateTime<Utc>> {
        let keep = chrono::Duration::from_std(keep?).unwrap_or(chrono::Duration::MAX);
        self.since.map(|since| since.checked_add_signed(keep).unwrap_or(DateTime::<Utc>::MAX_UTC))
    }

    fn expired(&self, keep: Option<Duration>) -> bool {
        self.expires(keep).is_some_and(|expires| expires <= self.now)
    }
}

impl Migrator {
    pub(super) async fn list_archives(&self, look: &Look) -> Result<Vec<ArchiveStatus>> {
        if !look.facts.has_ledger {
            return Ok(Vec::new());
        }
        let kept = look.ledger.archives(&look.conn).await?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate, for people")]
        let rows = |estimate: f64| estimate.max(0.0) as u64;
        Ok(kept
            .into_iter()
            .map(|kept| ArchiveStatus {
                expires: kept.expires(self.keep_archives),
                migration: kept.migration,
                phase: kept.phase,
                relation: kept.relation,
                table: kept.table,
                column: kept.column,
                since: kept.since,
                bytes: u64::try_from(kept.bytes).unwrap_or(0),
                rows: kept.rows.map(rows),
            })
            .collect())
    }

    /// Whether a driver would find an archive to purge.
    pub(super) async fn any_expired(&self, conn: &Conn, ledger: &Ledger) -> Result<bool> {
        if self.keep_archives.is_none() {
            return Ok(false);
        }
        let kept = ledger.archives(conn).await?;
        Ok(kept.iter().any(|kept| self.purges(kept)))
    }

    /// Whether the time of an archive is over. Those of other services are theirs to keep.
    fn purges(&self, kept: &Kept) -> bool {
        let migrations = self.migrations;
        let own = migrations.get(&kept.migration).is_some() || migrations.is_retired(&kept.migration);
        own && kept.expired(self.keep_archives)
    }

    pub(super) async fn purge(&self, name: &str) -> Result<()> {
        let mut look = self.look().await?;
        if look.book.record(name).is_none() {
            // One that only the ledger knows may have an archive all the same.
            self.entry(name)?;
        }
        if look.facts.has_ledger {
            find(look.ledger.archives(&look.conn).await?, name)?;
        } else {
            return Err(none(name));
        }
        let monitor = Monitor::new(self.connector.clone());
        let Some(lease) = self.take_lease(&mut look, &monitor, None).await? else { return Ok(()) };
        let mut driver = self.driver(look, monitor, lease, Report::default()).await?;
        let purged = Box::pin(driver.purge_one(name)).await;
        driver.end(purged).await.map(drop)
    }
}

fn none(name: &str) -> Error {
    Error::new(
        Kind::Missing,
        format!(
            "migration {name} has no archive: it dropped nothing yet, was rolled back, or its archive was purged before; archives() lists those that there are"
        ),
    )
}

/// The archive of a migration that is done with the drop.
fn find(kept: Vec<Kept>, name: &str) -> Result<Kept> {
    let found = kept.into_iter().find(|kept| kept.migration == name).ok_or_else(|| none(name))?;
    if found.since.is_none() {
        return Err(Error::new(
            Kind::GateClosed,
            format!(
                "the archive of migration {name} cannot be purged: phase {} is under way, forward or back, and needs it. Let it end, and purge then",
                found.phase
            ),
        ));
    }
    Ok(found)
}

impl Driver<'_> {
    async fn purge_one(&mut self, name: &str) -> Result<()> {
        // Now that nobody else drives.
        let kept = find(self.ledger.archives(&self.session).await?, name)?;
        self.purge(&kept).await
    }

    /// Purges the archives that were kept long enough. One that cannot be had, or that something has come to depend on,
    /// is no reason for a run to fail: it stays in the list, past its time.
    pub(super) async fn purge_expired(&mut self) -> Result<()> {
        if self.migrator.keep_archives.is_none() {
            return Ok(());
        }
        for kept in self.ledger.archives(&self.session).await? {
            if !self.migrator.purges(&kept) {
                continue;
            }
            match self.purge(&kept).await {
                Err(error) if matches!(error.kind(), Kind::Step | Kind::Locked) => {
                    let Kept { migration, relation, .. } = &kept;
                    tracing::warn!(target: "phasewise", migration, relation, %error, "archive not purged");
                    let why = error.to_string();
                    self.migrator.tell(&Event::ArchiveNotPurged { migration, relation, why: &why });
                }
                purged => purged?,
            }
        }
        Ok(())
    }

    /// Drops an archive, and notes in the same transaction that the drop cannot be rolled back any more.
    async fn purge(&mut self, kept: &Kept) -> Result<()> {
        let Kept { migration, phase, relation, .. } = kept;
        let mut statements = vec![self.ledger.purged(kept)];
        statements.extend(kept.sequence.iter().map(|sequence| format!("DROP SEQUENCE IF EXISTS {sequence}")));
        statements.push(format!("DROP TABLE {relation}"));
        let step = Step::new(format!("purge archive {relation}"), Action::Transaction(statements.clone()))
            .locks(relation, LockMode::AccessExclusive);
        let at = At { migration, phase, direction: Direction::Forward };
        self.transaction(at, &step, &statements, None, false).await?;
        tracing::info!(target: "phasewise", migration, relation, "archive purged");
        self.migrator.tell(&Event::ArchivePurged { migration, relation });
        Ok(())
    }
}
