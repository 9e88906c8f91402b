//! Whether a batch loop has reached its end: decided by one snapshot.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_postgres::types::Type;

use super::job::{Job, key_list, names, table_sql};
use super::leaves::{Leaves, leaves};
use crate::error::{Error, Kind, Result};
use crate::migrator::connect::{Sql as _, get};
use crate::migrator::events::Event;
use crate::migrator::monitor::blocker;
use crate::migrator::worker::Worker;
use crate::step::Work;

/// The most rows that one verification looks for: as many as single repairs are good for.
pub(super) const MOST: usize = 1_000;

/// A row that is wrong.
#[derive(Clone, Debug)]
pub(super) struct Wrong {
    /// Its key, for people.
    pub(super) key: String,
    /// Its key as SQL: `'1', 'a'`. `None` where the table has no key.
    pub(super) row: Option<String>,
}

impl Wrong {
    /// Of rows that nobody can name.
    pub(super) fn unknown() -> Self {
        Self { key: "rows that were locked or moved all the time".to_owned(), row: None }
    }
}

impl Worker<'_> {
    /// Whether a first pass would find a row. A resumed phase whose batches are done need not walk the table again
    /// at the backfill's pace.
    pub(super) async fn anything_to_do(&self, job: &Job<'_>) -> bool {
        let batches = job.batches();
        if !matches!(batches.work, Work::Update { from: None, .. }) {
            return true;
        }
        let sql = format!(
            "SELECT FROM {} AS t WHERE ({}) OR ({}) LIMIT 1",
            table_sql(&batches),
            batches.condition,
            batches.verify
        );
        // A row on which the expression fails is named better by its batch.
        self.session.query_typed(&sql, &[]).await.map_or(true, |rows| !rows.is_empty())
    }

    /// Rows that are wrong, by one snapshot; so many at the most.
    pub(super) async fn verify(&self, job: &Job<'_>) -> Result<Vec<Wrong>> {
        self.outlive_writers(job).await?;
        self.rows(job, &job.batches().verify, "").await
    }

    /// Whether rows that nothing verifies may have been missed by a pass, so that only another one finds them.
    pub(super) async fn is_unsure(&self, job: &Job<'_>) -> Result<bool> {
        let batches = job.batches();
        if batches.verify != "false" {
            return Ok(false);
        }
        let Some(begun) = job.begun() else { return Ok(true) };
        let now = leaves(&self.session, &batches, job.policy.order).await?;
        Ok(now.files() != begun.files())
    }

    /// Rows without a value that may have moved behind the pass before they were computed: some of them, those of the
    /// smallest keys after `after`.
    ///
    /// Where the column may stay null, only the function knows which rows are wrong; but a row that was not written
    /// since the pass began lies where it lay. Of a row that changes later, the version that was seen is computed, or
    /// it is missed and known.
    pub(super) async fn hopped(
        &self,
        job: &Job<'_>,
        since: &Leaves,
        after: Option<&str>,
    ) -> Result<Vec<Wrong>> {
        let batches = job.batches();
        let keys = key_list(&batches.keys);
        let after = after.map_or_else(String::new, |after| format!(" AND ({keys}) > ({after})"));
        let predicate = format!("({}) AND {}{after}", batches.condition, since.later());
        self.rows(job, &predicate, &format!(" ORDER BY {keys}")).await
    }

    async fn rows(&self, job: &Job<'_>, predicate: &str, order: &str) -> Result<Vec<Wrong>> {
        let (at, batches) = (job.at, job.batches());
        let (key, row) = names(&batches.keys);
        let sql = format!(
            "SELECT {key} AS key, {row} AS row FROM {} AS t WHERE ({predicate}){order} LIMIT {MOST}",
            table_sql(&batches)
        );
        let rows = self.session.query_typed(&sql, &[]).await.map_err(|error| {
            Error::postgres_said(
                format_args!(
                    "migration {}, phase {}: verifying {}",
                    at.migration,
                    at.phase,
                    table_sql(&batches)
                ),
                error,
            )
        })?;
        rows.iter().map(|row| Ok(Wrong { key: get(row, "key")?, row: get(row, "row")? })).collect()
    }

    /// A writer that wrote before the snapshot may commit after it, and what it leaves wrong would be seen by nobody.
    /// So every transaction that has written to the table must end first. One that has locked nothing yet writes
    /// after the phases so far, as one of the releases that may run now.
    async fn outlive_writers(&self, job: &Job<'_>) -> Result<()> {
        let at = job.at;
        let oids: Vec<String> = job.leaves.iter().map(|leaf| leaf.oid.to_string()).collect();
        // A leaf may have been written to through the lock on it alone.
        let sql = format!(
            "SELECT DISTINCT ON (l.virtualtransaction) l.virtualtransaction AS writer, coalesce(l.pid, 0) AS pid,
                    coalesce(a.application_name, '') AS application,
                    coalesce(a.state, a.backend_type, 'unknown') AS state,
                    coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float8 AS age,
                    coalesce(left(regexp_replace(a.query, '\\s+', ' ', 'g'), 120), '') AS query
               FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
              WHERE l.locktype = 'relation' AND l.relation IN ({}) AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
                AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
                AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
                AND ($1::text[] IS NULL OR l.virtualtransaction = ANY ($1))",
            oids.join(", ")
        );
        let begun = Instant::now();
        let mut known: Option<Vec<String>> = None;
        let mut told = false;
        loop {
            let rows = self.session.ask(&sql, &[(&known, Type::TEXT_ARRAY)]).await?;
            if rows.is_empty() {
                return Ok(());
            }
            let waited = begun.elapsed();
            if waited >= self.migrator.lock_deadline {
                let writers: Vec<String> =
                    rows.iter().map(|row| blocker(row).map(|b| b.to_string())).collect::<Result<_>>()?;
                return Err(Error::new(
                    Kind::Locked,
                    format!(
                        "migration {}, phase {}: the rows cannot be verified while transactions that wrote to the table are open (waited {:.1} s): {}. End them (SELECT pg_terminate_backend(pid)) or wait for them, then run again: it resumes here",
                        at.migration,
                        at.phase,
                        waited.as_secs_f64(),
                        writers.join("; ")
                    ),
                ));
            }
            if !told && waited > Duration::from_secs(5) {
                told = true;
                tracing::info!(target: "phasewise", migration = at.migration, phase = at.phase, writers = rows.len(), "waiting for open writers before verifying");
            }
            if self.lease.is_lost() {
                self.migrator.tell(&Event::LeaseLost);
                return Err(self.lease.lost());
            }
            known = Some(rows.iter().map(|row| get(row, "writer")).collect::<Result<_>>()?);
            sleep(Duration::from_millis(20)).await;
        }
    }
}
