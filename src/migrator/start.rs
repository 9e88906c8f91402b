//! Instances that serve: joining the fleet, and leaving it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::connect::{BEGIN, Sql as _, get, jsonb, text};
use super::drive::Look;
use super::gates::Goal;
use super::ledger::{Ledger, Record, finish, to_json};
use super::monitor::Monitor;
use super::report::Report;
use super::settings::Migrator;
use crate::error::{Error, Kind, Result};
use crate::migration::Entry;

const HEARTBEAT: Duration = Duration::from_secs(10);

/// This instance's membership in the fleet, from [`Migrator::start`](super::Migrator::start) to
/// [`leave`](Schema::leave).
///
/// A small task keeps it alive. Dropped without `leave`, the instance counts as live for 45 s more.
#[derive(Debug)]
pub struct Schema {
    id: String,
    ledger: Ledger,
    monitor: Arc<Monitor>,
    beat: JoinHandle<()>,
    report: Report,
}

impl Schema {
    /// What `start` did before it joined.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The id under which this instance is registered.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Leaves the fleet: this instance no longer holds any migration back.
    ///
    /// # Errors
    ///
    /// [`Kind::Connection`](crate::Kind::Connection); the row then expires by itself.
    pub async fn leave(mut self) -> Result<()> {
        self.beat.abort();
        // A beat that is being sent at this moment would put the row back.
        let _ = (&mut self.beat).await;
        let conn = self.monitor.conn().await?;
        conn.write(&self.ledger.saw(), &[text(&self.id)]).await?;
        let sql = self.ledger.sql("DELETE FROM {s}.instances WHERE id = $1::text::uuid");
        conn.write(&sql, &[text(&self.id)]).await?;
        Ok(())
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        self.beat.abort();
    }
}

impl Migrator {
    pub(super) async fn join(&self) -> Result<Schema> {
        let (mut report, failed) = match self.drive(Goal::Serve).await {
            Ok(report) => (report, None),
            // None of these says that this build may not serve: the windows do.
            Err(error)
                if matches!(
                    error.kind(),
                    Kind::Busy
                        | Kind::LeaseLost
                        | Kind::Locked
                        | Kind::Backfill
                        | Kind::Step
                        | Kind::GateClosed
                        | Kind::OutsideWindow
                ) =>
            {
                tracing::warn!(target: "phasewise", %error, "could not migrate; starting as far as the schema allows");
                (Report::default(), Some(error.to_string()))
            }
            Err(error) => return Err(error),
        };
        let mut look = self.look().await?;
        if failed.is_some() {
            report.unknown = self.unknown(&look.book);
            self.conclude(&mut report, &look, Goal::Serve, false);
            report.failed = failed;
        }
        // With nothing to migrate there is no ledger yet, and still a fleet to join.
        if !look.facts.has_ledger {
            self.found(&mut look).await?;
        }
        look.conn.send("begin", BEGIN).await?;
        let registered = self.register(&look).await;
        let id = finish(&look.conn, registered).await?;
        let monitor = Monitor::new(self.connector.clone());
        let beat = Beat {
            id: id.clone(),
            service: self.instance.clone(),
            releases: self.releases()?,
            ledger: look.ledger.clone(),
            monitor: Arc::clone(&monitor),
        };
        let beat = tokio::spawn(beat.run());
        tracing::info!(target: "phasewise", id, service = self.instance, "joined the fleet");
        Ok(Schema { id, ledger: look.ledger, monitor, beat, report })
    }

    fn releases(&self) -> Result<serde_json::Value> {
        let releases: BTreeMap<_, _> =
            self.migrations.iter().map(|entry| (entry.name(), entry.release())).collect();
        to_json(&releases)
    }

    /// Checks the windows and joins, in one transaction: a driver that is about to move waits, and then sees us.
    async fn register(&self, look: &Look) -> Result<String> {
        look.conn.ask(&look.ledger.sql("SELECT FROM {s}.migrations ORDER BY name FOR SHARE"), &[]).await?;
        let book = look.ledger.read(&look.conn).await?;
        for entry in self.migrations.iter() {
            let Some(record) = book.record(entry.name()) else {
                allowed(entry, crate::phase::Window { lo: 0, hi: 0 }, "no phase yet")?;
                continue;
            };
            let here = record.entered.checked_sub(1).and_then(|at| record.phases.get(at));
            allowed(entry, record.window(), here.map_or("no phase yet", |place| place.name.as_str()))?;
        }
        for record in book.records.values().filter(|record| self.migrations.get(&record.name).is_none()) {
            known(record)?;
        }
        let sql =
            look.ledger.sql("DELETE FROM {s}.instances WHERE seen < clock_timestamp() - interval '1 day'");
        look.conn.ask(&sql, &[]).await?;
        let (conn, releases) = (&look.conn, self.releases()?);
        let sql = insert(&look.ledger);
        let rows = conn.ask(&sql, &[text(&None::<&str>), text(&self.instance), jsonb(&releases)]).await?;
        let id: String = get(inserted(&rows)?, "id")?;
        conn.ask(&look.ledger.saw(), &[text(&id)]).await?;
        Ok(id)
    }
}

/// Refuses a build from before a migration that old releases cannot live in any more. One that is done may have been
/// taken out of the build's list since.
fn known(record: &Record) -> Result<()> {
    let window = record.window();
    if !record.begun() || record.done() || window.contains(0) {
        return Ok(());
    }
    Err(Error::new(
        Kind::OutsideWindow,
        format!(
            "this build may not serve: it does not know migration {}, which is under way and where releases {window} may run; not knowing it is release 0. Deploy a build that lists it and speaks release {} or newer; or roll it back, with a build that lists it, until release 0 may run",
            record.name, window.lo
        ),
    ))
}

/// Refuses a release that the schema does not allow.
fn allowed(entry: &Entry, window: crate::phase::Window, phase: &str) -> Result<()> {
    let release = entry.release();
    if window.contains(release) {
        return Ok(());
    }
    let first = if release > window.hi { window.hi } else { window.lo };
    let advice = if release > window.hi {
        format!(
            "deploy a build that speaks release {first} first, and let the migration move on (it may be paused, or wait at a gate: see status()), then this one"
        )
    } else {
        format!(
            "deploy a build that speaks release {first} or newer; or roll the migration back until its window has release {release} in it"
        )
    };
    Err(Error::new(
        Kind::OutsideWindow,
        format!(
            "this build may not serve: migration {} stands in {phase}, where releases {window} may run, and this build speaks release {release}: {advice}",
            entry.name()
        ),
    ))
}

/// The statement that registers an instance, or says that it is still there.
fn insert(ledger: &Ledger) -> String {
    ledger.sql(
        "INSERT INTO {s}.instances AS i (id, service, releases, by)
         VALUES (coalesce($1::text::uuid, gen_random_uuid()), $2, $3,
                 session_user || coalesce('@' || host(inet_client_addr()), ''))
         ON CONFLICT (id) DO UPDATE SET seen = clock_timestamp()
         RETURNING id::text AS id",
    )
}

fn inserted(rows: &[tokio_postgres::Row]) -> Result<&tokio_postgres::Row> {
    rows.first().ok_or_else(|| {
        Error::new(
            Kind::LedgerDamaged,
            "the instance was not registered: does a trigger or rule of the ledger's tables swallow rows?",
        )
    })
}

struct Beat {
    id: String,
    service: String,
    releases: serde_json::Value,
    ledger: Ledger,
    monitor: Arc<Monitor>,
}

impl Beat {
    async fn run(self) {
        loop {
            sleep(HEARTBEAT).await;
            let beat = async {
                let conn = self.monitor.conn().await?;
                let params = [text(&self.id), text(&self.service), jsonb(&self.releases)];
                let rows = conn.write(&insert(&self.ledger), &params).await?;
                inserted(&rows)?;
                conn.write(&self.ledger.saw(), &[text(&self.id)]).await.map(drop)
            };
            match tokio::time::timeout(HEARTBEAT, beat).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(target: "phasewise", %error, "the instance's heartbeat failed; trying again")
                }
                Err(_) => {
                    tracing::warn!(target: "phasewise", "the instance's heartbeat was not answered; trying again");
                    self.monitor.reset().await;
                }
            }
        }
    }
}
