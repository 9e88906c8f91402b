//! The fleet in the ledger: instances, and what their services ever listed.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_postgres::types::Type;

use super::Ledger;
use crate::error::{Error, Kind, Result};
use crate::migrator::connect::{Conn, Sql as _, boolean, float8, get, jsonb, text};
use crate::migrator::reach::Reach;
use crate::migrator::status::Unregistered;

/// The release of a build that no longer lists a migration, and needs nothing old of it: its last one, whatever that is.
pub(in crate::migrator) const RETIRED: u16 = u16::MAX;

/// An instance that is registered, or about to be.
#[derive(Clone, Debug)]
pub(in crate::migrator) struct Instance {
    pub(in crate::migrator) id: String,
    pub(in crate::migrator) service: String,
    /// By migration; [`RETIRED`] where the build has taken it out of its list.
    pub(in crate::migrator) releases: BTreeMap<String, u16>,
    pub(in crate::migrator) expiry: Duration,
    pub(in crate::migrator) started: DateTime<Utc>,
    pub(in crate::migrator) seen: DateTime<Utc>,
    /// The time since its last heartbeat.
    pub(in crate::migrator) age: Duration,
    /// What its background driver failed with last, and when.
    pub(in crate::migrator) failed: Option<(String, DateTime<Utc>)>,
}

impl Instance {
    /// Whether its heartbeat is in time.
    pub(in crate::migrator) fn is_live(&self) -> bool {
        self.age <= self.expiry
    }

    /// Whether it must be reckoned with: it is live, or has not been expired for longer than `grace`.
    pub(in crate::migrator) fn counts(&self, grace: Duration) -> bool {
        self.age <= self.expiry.saturating_add(grace)
    }
}

/// A migration that a service lists, or once listed.
#[derive(Clone, Debug)]
pub(in crate::migrator) struct Listing {
    pub(in crate::migrator) service: String,
    pub(in crate::migrator) migration: String,
    pub(in crate::migrator) reach: Reach,
}

impl Ledger {
    /// Until the end of the transaction no migration moves: see [`lock`](Self::lock).
    pub(in crate::migrator) async fn share(&self, conn: &Conn) -> Result<()> {
        conn.ask(&self.sql("SELECT FROM {s}.ledger FOR SHARE"), &[]).await.map(drop)
    }

    pub(super) async fn instances(&self, conn: &Conn) -> Result<Vec<Instance>> {
        let sql = self.sql(
            "SELECT id::text AS id, service, releases::text AS releases, expiry, started, seen, failed, failed_at,
                    extract(epoch FROM clock_timestamp() - seen)::float8 AS age
               FROM {s}.instances ORDER BY started, id",
        );
        let rows = conn.ask(&sql, &[]).await?;
        rows.iter()
            .map(|row| {
                let (id, releases): (String, String) = (get(row, "id")?, get(row, "releases")?);
                let releases = serde_json::from_str(&releases)
                    .map_err(|error| self.damaged("instances", &id, &error))?;
                let (failed, at): (Option<String>, Option<DateTime<Utc>>) =
                    (get(row, "failed")?, get(row, "failed_at")?);
                Ok(Instance {
                    id,
                    service: get(row, "service")?,
                    releases,
                    expiry: seconds(get(row, "expiry")?),
                    started: get(row, "started")?,
                    seen: get(row, "seen")?,
                    // Before a clock that was set back has come as far again, it is as young as can be.
                    age: seconds(get(row, "age")?),
                    failed: failed.zip(at),
                })
            })
            .collect()
    }

    pub(super) async fn listings(&self, conn: &Conn) -> Result<Vec<Listing>> {
        let sql = self.sql("SELECT service, migration, tables, everything FROM {s}.listings");
        let rows = conn.ask(&sql, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(Listing {
                    service: get(row, "service")?,
                    migration: get(row, "migration")?,
                    // Services take part by tables.
                    reach: Reach {
                        tables: get(row, "tables")?,
                        columns: Vec::new(),
                        everything: get(row, "everything")?,
                    },
                })
            })
            .collect()
    }

    /// Registers an instance, anew or again, and what it lists. Rows of the long dead go, once no gate waits for them.
    pub(in crate::migrator) async fn register(
        &self,
        conn: &Conn,
        instance: &Instance,
        lists: &[(String, Reach)],
        grace: Duration,
    ) -> Result<()> {
        let sql = self.sql(
            "DELETE FROM {s}.instances WHERE seen < clock_timestamp() - make_interval(days => 1, secs => 3 * expiry + $1)",
        );
        // Thirty years: what an interval holds has an end.
        let grace = grace.as_secs_f64().min(1e9);
        conn.ask(&sql, &[float8(&grace)]).await?;
        let sql = self.sql(
            "INSERT INTO {s}.instances AS i (id, service, releases, expiry, by)
             VALUES ($1::text::uuid, $2, $3, $4, session_user || coalesce('@' || host(inet_client_addr()), ''))
             ON CONFLICT (id) DO UPDATE SET seen = clock_timestamp(), started = clock_timestamp()
             RETURNING id",
        );
        let releases = super::to_json(&instance.releases)?;
        let expiry = instance.expiry.as_secs_f64();
        let params = [text(&instance.id), text(&instance.service), jsonb(&releases), float8(&expiry)];
        if conn.ask(&sql, &params).await?.is_empty() {
            return Err(Error::new(
                Kind::LedgerDamaged,
                "the instance was not registered: does a trigger or rule of the ledger's tables swallow rows?",
            ));
        }
        let sql = self.sql(
            "INSERT INTO {s}.listings AS l (service, migration, tables, everything) VALUES ($1, $2, $3, $4)
             ON CONFLICT (service, migration) DO UPDATE SET tables = excluded.tables, everything = excluded.everything
             WHERE (l.tables, l.everything) IS DISTINCT FROM (excluded.tables, excluded.everything)",
        );
        // In one order for all, so that instances that start together do not lock each other out.
        let mut lists: Vec<_> = lists.iter().collect();
        lists.sort_by_key(|(name, _)| name);
        for (name, reach) in lists {
            let params = [
                text(&instance.service),
                text(name),
                (&reach.tables, Type::TEXT_ARRAY),
                boolean(&reach.everything),
            ];
            conn.ask(&sql, &params).await?;
        }
        Ok(())
    }

    /// A heartbeat. `false`: it came too late, or the row is gone.
    pub(in crate::migrator) async fn beat(&self, conn: &Conn, id: &str) -> Result<bool> {
        let sql = self.sql(
            "UPDATE {s}.instances SET seen = clock_timestamp()
              WHERE id = $1::text::uuid AND seen >= clock_timestamp() - make_interval(secs => expiry)
             RETURNING id",
        );
        conn.write(&sql, &[text(&id)]).await.map(|rows| !rows.is_empty())
    }

    /// An instance is gone, and holds nothing back any more.
    pub(in crate::migrator) async fn unregister(&self, conn: &Conn, id: &str) -> Result<()> {
        let sql = self.sql("DELETE FROM {s}.instances WHERE id = $1::text::uuid");
        conn.write(&sql, &[text(&id)]).await.map(drop)
    }

    /// Notes what an instance's background driver failed with, or that it goes again.
    pub(in crate::migrator) async fn set_failed(
        &self,
        conn: &Conn,
        id: &str,
        failed: Option<&str>,
    ) -> Result<()> {
        let sql = self.sql(
            "UPDATE {s}.instances SET failed = $2, failed_at = CASE WHEN $2 IS NOT NULL THEN clock_timestamp() END
              WHERE id = $1::text::uuid",
        );
        conn.write(&sql, &[text(&id), text(&failed)]).await.map(drop)
    }

    /// Notes, for phases (migration, phase), that an instance was seen at this moment that is older than the next phase
    /// allows: the soak counts from there.
    pub(in crate::migrator) async fn saw(&self, conn: &Conn, phases: &[(String, String)]) -> Result<()> {
        if phases.is_empty() {
            return Ok(());
        }
        let mut phases = phases.to_vec();
        phases.sort();
        let (names, phases): (Vec<_>, Vec<_>) = phases.into_iter().unzip();
        // A clock that was set back must not make a soak shorter.
        let sql = self.sql(
            "INSERT INTO {s}.older AS o (migration, phase, at)
             SELECT *, clock_timestamp() FROM unnest($1::text[], $2::text[])
             ON CONFLICT (migration, phase) DO UPDATE SET at = greatest(o.at, excluded.at)",
        );
        conn.ask(&sql, &[(&names, Type::TEXT_ARRAY), (&phases, Type::TEXT_ARRAY)]).await.map(drop)
    }

    /// Client sessions on this database that are of no live instance's role, address and application; drivers and workers
    /// of an instance bear our own name. Who shares all three with one cannot be told from it. To a role without pg_read_all_stats, sessions of other roles are all it
    /// may see of them: without application, address and type.
    pub(in crate::migrator) async fn unregistered(&self, conn: &Conn) -> Result<Vec<Unregistered>> {
        let sql = self.sql(
            "SELECT coalesce(a.application_name, '') AS application, coalesce(a.usename::text, '?') AS role,
                    host(a.client_addr) AS address, count(*) AS sessions
               FROM pg_catalog.pg_stat_activity a
              WHERE a.datname = current_database() AND a.usesysid IS NOT NULL AND coalesce(a.backend_type, 'client backend') = 'client backend' AND a.pid <> pg_backend_pid()
                AND NOT EXISTS (
                    SELECT FROM {s}.instances i
                     WHERE i.seen >= clock_timestamp() - make_interval(secs => i.expiry)
                       AND i.role = a.usename AND i.address IS NOT DISTINCT FROM host(a.client_addr)
                       AND (i.application = coalesce(a.application_name, '') OR a.application_name = 'phasewise'))
              GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3",
        );
        let rows = conn.ask(&sql, &[]).await?;
        rows.iter()
            .map(|row| {
                let sessions: i64 = get(row, "sessions")?;
                Ok(Unregistered {
                    application: get(row, "application")?,
                    role: get(row, "role")?,
                    address: get(row, "address")?,
                    sessions: u64::try_from(sessions).unwrap_or(0),
                })
            })
            .collect()
    }

    /// Whether drivers of a service in the background leave the work to another one, or rest: for `rest` at most.
    pub(in crate::migrator) async fn is_left_alone(
        &self,
        conn: &Conn,
        service: &str,
        rest: Duration,
    ) -> Result<bool> {
        // What lies further ahead is from before the clock was set back.
        let sql = self.sql(
            "SELECT coalesce(expires_at BETWEEN clock_timestamp() AND clock_timestamp() + make_interval(secs => 2 * lasts), false)
                    OR coalesce(rest_of = $2 AND rest_until BETWEEN clock_timestamp() AND clock_timestamp() + make_interval(secs => $1), false) AS alone
               FROM {s}.lease",
        );
        let rows = conn.ask(&sql, &[float8(&rest.as_secs_f64()), text(&service)]).await?;
        rows.first().map_or(Ok(false), |row| get(row, "alone"))
    }

    /// A driver in the background drove in vain: all of its service rest, twice as long each time, up to `most`.
    pub(in crate::migrator) async fn rest(
        &self,
        conn: &Conn,
        service: &str,
        first: Duration,
        most: Duration,
    ) -> Result<()> {
        let sql = self.sql(
            "UPDATE {s}.lease SET in_vain = CASE WHEN rest_of = $3 THEN least(in_vain + 1, 30) ELSE 1 END, rest_of = $3,
                    rest_until = clock_timestamp()
                        + make_interval(secs => least($1 * 2 ^ CASE WHEN rest_of = $3 THEN in_vain ELSE 0 END, $2))",
        );
        let (first, most) = (first.as_secs_f64(), most.as_secs_f64());
        conn.write(&sql, &[float8(&first), float8(&most), text(&service)]).await.map(drop)
    }

    /// Something has moved, or a person has said something.
    pub(in crate::migrator) async fn rouse(&self, conn: &Conn) -> Result<()> {
        let sql = self.sql("UPDATE {s}.lease SET in_vain = 0, rest_until = NULL WHERE in_vain > 0");
        conn.write(&sql, &[]).await.map(drop)
    }

    /// Forgets all that a service ever listed.
    pub(in crate::migrator) async fn forget_service(&self, conn: &Conn, service: &str) -> Result<u64> {
        let sql = self.sql("DELETE FROM {s}.listings WHERE service = $1 RETURNING migration");
        let rows = conn.ask(&sql, &[text(&service)]).await?;
        Ok(u64::try_from(rows.len()).unwrap_or(u64::MAX))
    }
}

fn seconds(time: f64) -> Duration {
    Duration::try_from_secs_f64(time.max(0.0)).unwrap_or(Duration::MAX)
}
