//! Batch loops: small transactions in physical order, with the cursor in the same transaction.
//!
//! The walk goes by tuple id, so it needs no key and reads each page once. Rows that an update moves behind the
//! cursor were written by a release or a trigger that fills them; what slips through all the same is found by the
//! verification, and mended by another pass.

use std::time::{Duration, Instant};

use futures_util::future::{join, join3};
use tokio::time::sleep;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use super::connect::{Sql as _, get, text};
use super::driver::Driver;
use super::events::Event;
use super::ledger::{At, Cursor};
use super::locks::Tries;
use super::steps::Outcome;
use super::throttle::ReplicationLag;
use super::transaction::Timeouts;
use crate::error::{Error, Kind, Result};
use crate::ident::quote;
use crate::step::Batches;

/// A batch looks no further than this many pages: a bloated stretch must not make one transaction long.
const PAGES: i64 = 1_000;

/// Repairs of single rows between two passes.
const REPAIRS: u32 = 5;

/// A relation that holds rows.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) oid: u32,
    pub(super) sql: String,
    pub(super) pages: i64,
    pub(super) estimate: Option<i64>,
}

/// One loop under way.
pub(super) struct Walk<'a> {
    pub(super) at: At<'a>,
    pub(super) batches: &'a Batches,
    id: &'a str,
    size: i64,
    pub(super) written: u64,
    asked: Option<Instant>,
    lag: Option<ReplicationLag>,
}

impl Driver<'_> {
    pub(super) async fn batches(&self, at: At<'_>, batches: &Batches, id: &str) -> Result<Outcome> {
        let policy = self.migrator.policy;
        let mut walk = Walk {
            at,
            batches,
            id,
            size: i64::from(policy.batch.max(1)),
            written: 0,
            asked: None,
            lag: policy.max_lag.map(ReplicationLag::new),
        };
        let mut cursor = self.ledger.cursor(&self.session, at, id).await?;
        let first = cursor.as_ref().map_or(1, |cursor| cursor.pass.max(1));
        let last = first.saturating_add(i32::try_from(policy.passes.max(1)).unwrap_or(i32::MAX) - 1);
        let mut wrong = Vec::new();
        for pass in first..=last {
            let leaves = self.leaves(batches).await?;
            if leaves.iter().all(|leaf| leaf.pages == 0) {
                return Ok(Outcome { ran: pass > 1, rows: walk.written });
            }
            if cursor.is_some() || pass > first || self.anything_to_do(batches).await {
                self.pass(&mut walk, pass, &leaves, cursor.take()).await?;
            }
            wrong = self.verify(at, batches, &leaves).await?;
            for _ in 0..REPAIRS {
                if wrong.is_empty() || !self.repair(&mut walk, &leaves, &wrong).await? {
                    break;
                }
                wrong = self.verify(at, batches, &leaves).await?;
            }
            if wrong.is_empty() {
                self.begin(self.own_timeouts()).await?;
                let forgotten = self.ledger.forget_cursor(&self.session, at, id).await;
                self.finish(forgotten).await?;
                return Ok(Outcome { ran: true, rows: walk.written });
            }
            tracing::info!(target: "phasewise", migration = at.migration, phase = at.phase, pass, rows = ?wrong, "rows are still wrong; another pass");
        }
        // The next run begins with a full pass of its own.
        self.begin(self.own_timeouts()).await?;
        let forgotten = self.ledger.forget_cursor(&self.session, at, id).await;
        self.finish(forgotten).await?;
        Err(Error::new(
            Kind::Backfill,
            format!(
                "migration {}, phase {}: rows of {} are still wrong after {} passes: {}. Either the expression gives NULL for them, or the application goes on writing values that do not agree; mend those rows or that, then run again (wrong means: {})",
                at.migration,
                at.phase,
                batches.table_sql(),
                last - first + 1,
                wrong.iter().take(10).map(|wrong| wrong.key.as_str()).collect::<Vec<_>>().join(", "),
                batches.verify
            ),
        ))
    }

    /// Walks every leaf from the cursor on.
    async fn pass(
        &self,
        walk: &mut Walk<'_>,
        pass: i32,
        leaves: &[Leaf],
        resumed: Option<Cursor>,
    ) -> Result<()> {
        let mut done = resumed.as_ref().map_or(0, |cursor| cursor.done);
        // A leaf that is gone since (a detached partition) resumes nothing: begin again.
        let from = resumed
            .as_ref()
            .and_then(|cursor| leaves.iter().position(|leaf| leaf.oid == cursor.oid))
            .unwrap_or(0);
        let mut moved = false;
        for leaf in leaves.iter().skip(from).filter(|leaf| leaf.pages > 0) {
            let mut cursor = match &resumed {
                // A rewrite (VACUUM FULL) moves rows: then nothing is known of what was done.
                Some(resumed) if resumed.oid == leaf.oid && resumed.page <= leaf.pages => {
                    Cursor { pages: resumed.pages.min(leaf.pages), ..resumed.clone() }
                }
                _ => Cursor {
                    relation: leaf.sql.clone(),
                    oid: leaf.oid,
                    pass,
                    page: 0,
                    item: 0,
                    pages: leaf.pages,
                    done,
                    estimate: leaf.estimate,
                },
            };
            while cursor.page < cursor.pages {
                if moved {
                    sleep(self.migrator.policy.pause).await;
                }
                self.throttle(walk).await?;
                moved = true;
                cursor = self.batch(walk, leaf, cursor).await?;
            }
            done = cursor.done;
        }
        Ok(())
    }

    /// One batch, tried until it gets its row locks.
    async fn batch(&self, walk: &mut Walk<'_>, leaf: &Leaf, cursor: Cursor) -> Result<Cursor> {
        let mut tries = Tries::new(self.migrator, "a batch");
        loop {
            let begun = Instant::now();
            let budget = self.migrator.stall_budget;
            let timeouts = Timeouts {
                lock: tries.timeout(),
                // Clients wait for the rows that a batch has written until it commits.
                statement: Some(budget),
                idle: budget.max(Duration::from_secs(1)),
            };
            let size = walk.size;
            let attempt = self.attempt_batch(walk, leaf, &cursor, size, timeouts);
            match self.watch(&mut tries, timeouts.lock, attempt).await {
                Ok((next, rows)) => {
                    walk.written += rows;
                    self.migrator.tell(&Event::BatchDone {
                        migration: walk.at.migration,
                        phase: walk.at.phase,
                        relation: &leaf.sql,
                        rows,
                        done: u64::try_from(next.done).unwrap_or(0),
                        estimate: next.estimate.and_then(|rows| u64::try_from(rows).ok()),
                        took: begun.elapsed(),
                    });
                    return Ok(next);
                }
                Err(error) => {
                    if error.own_code() == Some(&SqlState::QUERY_CANCELED) {
                        // Longer than the stall budget: half as much may fit.
                        walk.size = (walk.size / 2).max(1);
                    }
                    self.again(&mut tries, walk.at, error).await?;
                }
            }
        }
    }

    async fn attempt_batch(
        &self,
        walk: &Walk<'_>,
        leaf: &Leaf,
        cursor: &Cursor,
        size: i64,
        timeouts: Timeouts,
    ) -> Result<(Cursor, u64)> {
        self.begin(timeouts).await?;
        let bound = self.bound(walk, leaf, cursor, size).await;
        let next = match bound {
            Ok(next) => next,
            Err(error) => return self.finish(Err(error)).await,
        };
        let range = format!(
            "t.ctid > '({},{})'::tid AND t.ctid <= '({},{})'::tid",
            cursor.page, cursor.item, next.page, next.item
        );
        let sql = walk.batches.sql(&leaf.sql, &range);
        tracing::trace!(target: "phasewise", sql, "batch");
        let (noted, wrote, committed) = join3(
            self.ledger.set_cursor(&self.session, walk.at, walk.id, &next),
            self.session.simple_query(&sql),
            self.session.send("committing a batch", "COMMIT"),
        )
        .await;
        noted?;
        let wrote = wrote.map_err(|error| failed_row(walk, leaf, &range, error))?;
        committed?;
        let rows = wrote
            .iter()
            .map(|message| if let SimpleQueryMessage::CommandComplete(rows) = message { *rows } else { 0 })
            .sum();
        Ok((next, rows))
    }

    /// Where the batch that begins at the cursor ends.
    async fn bound(&self, walk: &Walk<'_>, leaf: &Leaf, cursor: &Cursor, size: i64) -> Result<Cursor> {
        let marker = walk.batches.marker.map_or("", |marker| marker.value());
        let until = (cursor.page + PAGES).min(cursor.pages);
        // Physical order, whatever the plan: no synchronized scan that starts in the middle, no parallel workers.
        let settings = "SELECT set_config('phasewise.backfill', $1, true), set_config('synchronize_seqscans', 'off', true),
                               set_config('max_parallel_workers_per_gather', '0', true)";
        let sql = format!(
            "SELECT count(*) AS rows, max(ctid)::text AS last FROM (
                SELECT ctid FROM ONLY {} WHERE ctid > '({},{})'::tid AND ctid < '({until},0)'::tid LIMIT {size}
             ) b",
            leaf.sql, cursor.page, cursor.item
        );
        let marked = [text(&marker)];
        let (set, rows) = join(self.session.ask(settings, &marked), self.session.ask(&sql, &[])).await;
        set?;
        let rows = rows?;
        let (mut count, mut last) = (0_i64, None::<String>);
        if let Some(row) = rows.first() {
            (count, last) = (get(row, "rows")?, get(row, "last")?);
        }
        let mut next = Cursor { done: cursor.done + count, page: until, item: 0, ..cursor.clone() };
        if let Some((page, item)) = last.as_deref().filter(|_| count >= size).and_then(tuple_id) {
            (next.page, next.item) = (page, item);
        }
        Ok(next)
    }

    /// Waits while there is a reason to.
    async fn throttle(&self, walk: &mut Walk<'_>) -> Result<()> {
        let mut said = false;
        loop {
            if !said && walk.asked.is_some_and(|asked| asked.elapsed() < Duration::from_secs(1)) {
                return Ok(());
            }
            walk.asked = Some(Instant::now());
            let mut reason = match &mut walk.lag {
                Some(lag) => lag.hold(&self.session).await?,
                None => None,
            };
            for throttle in &self.migrator.throttles {
                if reason.is_none() {
                    reason = throttle.hold(&self.session).await?;
                }
            }
            let Some(reason) = reason else {
                if said {
                    self.migrator.tell(&Event::Resumed);
                }
                return Ok(());
            };
            if !said {
                tracing::info!(target: "phasewise", reason, "batches pause");
                self.migrator.tell(&Event::Throttled { reason: &reason });
                said = true;
            }
            if self.lease.is_lost() {
                self.migrator.tell(&Event::LeaseLost);
                return Err(self.lease.lost());
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// The relations that hold the table's rows.
    async fn leaves(&self, batches: &Batches) -> Result<Vec<Leaf>> {
        let rows = self
            .session
            .ask(
                "WITH RECURSIVE tree AS (
                    SELECT c.oid, c.relkind FROM pg_catalog.pg_class c
                      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                     WHERE n.nspname = $1 AND c.relname = $2
                    UNION ALL
                    SELECT c.oid, c.relkind FROM tree
                      JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid AND tree.relkind = 'p'
                      JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
                 )
                 SELECT c.oid::int8 AS oid, format('%I.%I', n.nspname, c.relname) AS sql, c.relkind::text AS kind,
                        CASE WHEN c.relkind = 'r' THEN pg_catalog.pg_relation_size(c.oid)
                             / current_setting('block_size')::int8 ELSE 0 END AS pages,
                        nullif(greatest(c.reltuples, -1), -1)::int8 AS estimate
                   FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                  ORDER BY c.oid",
                &[text(&batches.schema), text(&batches.table)],
            )
            .await?;
        if rows.is_empty() {
            return Err(Error::new(
                Kind::Missing,
                format!(
                    "table {} does not exist any more: it was dropped or renamed since the step was planned; run again",
                    batches.table_sql()
                ),
            ));
        }
        let mut leaves = Vec::new();
        for row in &rows {
            let (kind, sql): (String, String) = (get(row, "kind")?, get(row, "sql")?);
            match kind.as_str() {
                "p" => {}
                "r" => {
                    let oid: i64 = get(row, "oid")?;
                    leaves.push(Leaf {
                        oid: u32::try_from(oid).unwrap_or(0),
                        sql,
                        // Gone between two looks.
                        pages: get::<Option<i64>>(row, "pages")?.unwrap_or(0),
                        estimate: get(row, "estimate")?,
                    });
                }
                _ => {
                    return Err(Error::new(
                        Kind::Unsupported,
                        format!(
                            "{sql}, of table {}, is no ordinary table: its rows cannot be walked. Detach it, or fill it where it lives",
                            batches.table_sql()
                        ),
                    ));
                }
            }
        }
        Ok(leaves)
    }
}

impl Batches {
    pub(super) fn table_sql(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.table))
    }
}

fn tuple_id(text: &str) -> Option<(i64, i32)> {
    let (page, item) = text.trim_matches(['(', ')']).split_once(',')?;
    Some((page.parse().ok()?, item.parse().ok()?))
}

/// What Postgres said of a row, with the range that it is in.
pub(super) fn failed_row(walk: &Walk<'_>, leaf: &Leaf, range: &str, error: tokio_postgres::Error) -> Error {
    let doing = format!("migration {}, phase {}: backfill of {}", walk.at.migration, walk.at.phase, leaf.sql);
    // Data exceptions, constraints, and whatever a user's trigger raises.
    let data = error
        .as_db_error()
        .filter(|db| ["22", "23", "P0"].iter().any(|class| db.code().code().starts_with(class)))
        .map(|db| format!("{} (SQLSTATE {})", db.message(), db.code().code()));
    match data {
        None => Error::postgres_said(doing, error),
        Some(said) => Error::new(
            Kind::Backfill,
            format!(
                "{doing}: {said}. The row is among: SELECT * FROM ONLY {} t WHERE {range}. Mend it or the expression, then run again",
                leaf.sql
            ),
        )
        .with_source(error),
    }
}
