//! Whether a batch loop has reached its end: decided by one snapshot.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_postgres::types::Type;

use super::batches::Leaf;
use super::connect::{Sql as _, get};
use super::driver::Driver;
use super::ledger::At;
use crate::error::{Error, Result};
use crate::ident::quote;
use crate::step::{Batches, Work};

/// A row that is wrong.
#[derive(Debug)]
pub(super) struct Wrong {
    /// Its key, for people.
    pub(super) key: String,
    /// Its key as SQL: `'1', 'a'`. `None` where the table has no key.
    pub(super) row: Option<String>,
}

impl Driver<'_> {
    /// Whether a first pass would find a row. A resumed phase whose batches are done need not walk the table again
    /// at the backfill's pace.
    pub(super) async fn anything_to_do(&self, batches: &Batches) -> bool {
        if !matches!(batches.work, Work::Update { from: None, .. }) {
            return true;
        }
        let sql = format!(
            "SELECT FROM {} AS t WHERE ({}) OR ({}) LIMIT 1",
            batches.table_sql(),
            batches.condition,
            batches.verify
        );
        // A row on which the expression fails is named better by its batch.
        self.session.query_typed(&sql, &[]).await.map_or(true, |rows| !rows.is_empty())
    }

    /// Rows that are wrong, by one snapshot; at most as many as one batch takes.
    pub(super) async fn verify(&self, at: At<'_>, batches: &Batches, leaves: &[Leaf]) -> Result<Vec<Wrong>> {
        self.outlive_writers(leaves).await?;
        let key = if batches.keys.is_empty() {
            "format('%s %s', t.tableoid::regclass, t.ctid)".to_owned()
        } else {
            let parts: Vec<String> = batches.keys.iter().map(|key| format!("t.{}", quote(key))).collect();
            let formats: Vec<String> =
                batches.keys.iter().map(|key| format!("{} = %s", key.replace('%', "%%"))).collect();
            format!("format({}, {})", crate::ident::literal(&formats.join(", ")), parts.join(", "))
        };
        let values: Vec<String> =
            batches.keys.iter().map(|key| format!("quote_literal(t.{})", quote(key))).collect();
        let row = if values.is_empty() { "NULL".to_owned() } else { values.join(" || ', ' || ") };
        let sql = format!(
            "SELECT {key} AS key, {row} AS row FROM {} AS t WHERE ({}) LIMIT {}",
            batches.table_sql(),
            batches.verify,
            self.migrator.policy.batch.max(1)
        );
        let rows = self.session.query_typed(&sql, &[]).await.map_err(|error| {
            Error::postgres_said(
                format_args!(
                    "migration {}, phase {}: verifying {}",
                    at.migration,
                    at.phase,
                    batches.table_sql()
                ),
                error,
            )
        })?;
        rows.iter().map(|row| Ok(Wrong { key: get(row, "key")?, row: get(row, "row")? })).collect()
    }

    /// A writer that wrote before the snapshot may commit after it. Waits a while for those there are; what one
    /// that stays open still leaves wrong is found by the next verification.
    async fn outlive_writers(&self, leaves: &[Leaf]) -> Result<()> {
        let oids: Vec<String> = leaves.iter().map(|leaf| leaf.oid.to_string()).collect();
        let sql = format!(
            "SELECT coalesce(array_agg(DISTINCT l.virtualtransaction), '{{}}') AS writers FROM pg_catalog.pg_locks l
              WHERE l.locktype = 'relation' AND l.relation IN ({}) AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
                AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
                AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
                AND ($1::text[] IS NULL OR l.virtualtransaction = ANY ($1))",
            oids.join(", ")
        );
        let begun = Instant::now();
        let mut known: Option<Vec<String>> = None;
        loop {
            let rows = self.session.ask(&sql, &[(&known, Type::TEXT_ARRAY)]).await?;
            let Some(row) = rows.first() else { return Ok(()) };
            let writers: Vec<String> = get(row, "writers")?;
            if writers.is_empty() || begun.elapsed() > Duration::from_secs(5) {
                return Ok(());
            }
            known = Some(writers);
            sleep(Duration::from_millis(20)).await;
        }
    }
}
