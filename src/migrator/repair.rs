//! Mends the rows that verification finds, by their keys.
//!
//! A row that clients write all the time can hop out of every batch's range, pass after pass. Its key stays.

use std::time::{Duration, Instant};

use futures_util::future::join;
use tokio_postgres::SimpleQueryMessage;

use super::batches::{Leaf, Walk, failed_row};
use super::connect::{Sql as _, text};
use super::driver::Driver;
use super::events::Event;
use super::locks::Tries;
use super::transaction::Timeouts;
use super::verification::Wrong;
use crate::error::Result;
use crate::ident::quote;

impl Driver<'_> {
    /// Runs the batches' statement on just these rows, one transaction per leaf. `false` where that cannot be done:
    /// without a key, or with so many rows that a pass is the better way.
    pub(super) async fn repair(&self, walk: &mut Walk<'_>, leaves: &[Leaf], wrong: &[Wrong]) -> Result<bool> {
        let most = usize::try_from(self.migrator.policy.batch.max(1)).unwrap_or(usize::MAX);
        let rows: Vec<String> =
            wrong.iter().filter_map(|wrong| wrong.row.as_ref().map(|row| format!("({row})"))).collect();
        if rows.is_empty() || rows.len() < wrong.len() || (wrong.len() >= most && most > 1) {
            return Ok(false);
        }
        let columns: Vec<String> = walk.batches.keys.iter().map(|key| format!("t.{}", quote(key))).collect();
        let range = format!("({}) IN ({})", columns.join(", "), rows.join(", "));
        for leaf in leaves.iter().filter(|leaf| leaf.pages > 0) {
            let begun = Instant::now();
            let mut tries = Tries::new(self.migrator, "a repair");
            let written = loop {
                let budget = self.migrator.stall_budget;
                let timeouts = Timeouts {
                    lock: tries.timeout(),
                    statement: Some(budget),
                    idle: budget.max(Duration::from_secs(1)),
                };
                let attempt = self.attempt_repair(walk, leaf, &range, timeouts);
                match self.watch(&mut tries, timeouts.lock, attempt).await {
                    Ok(written) => break written,
                    Err(error) => self.again(&mut tries, walk.at, error).await?,
                }
            };
            walk.written += written;
            if written > 0 {
                self.migrator.tell(&Event::BatchDone {
                    migration: walk.at.migration,
                    phase: walk.at.phase,
                    relation: &leaf.sql,
                    rows: written,
                    done: walk.written,
                    estimate: leaf.estimate.and_then(|rows| u64::try_from(rows).ok()),
                    took: begun.elapsed(),
                });
            }
        }
        Ok(true)
    }

    async fn attempt_repair(
        &self,
        walk: &Walk<'_>,
        leaf: &Leaf,
        range: &str,
        timeouts: Timeouts,
    ) -> Result<u64> {
        self.begin(timeouts).await?;
        let marker = walk.batches.marker.map_or("", |marker| marker.value());
        let marked = [text(&marker)];
        let set = self.session.ask("SELECT set_config('phasewise.backfill', $1, true)", &marked).await;
        if set.is_err() {
            return self.finish(set.map(|_| 0)).await;
        }
        let sql = walk.batches.sql(&leaf.sql, range);
        let (wrote, committed) =
            join(self.session.simple_query(&sql), self.session.send("committing a repair", "COMMIT")).await;
        let wrote = wrote.map_err(|error| failed_row(walk, leaf, range, error))?;
        committed?;
        Ok(wrote
            .iter()
            .map(|message| if let SimpleQueryMessage::CommandComplete(rows) = message { *rows } else { 0 })
            .sum())
    }
}
