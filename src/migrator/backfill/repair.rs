//! Mends single rows: those that were locked, those that were set aside, and those that the verification finds.
//!
//! A row that clients write all the time can hop out of every batch's range, pass after pass. Its key stays.

use std::time::Instant;

use futures_util::future::join;
use tokio_postgres::error::SqlState;

use super::batch::Aim;
use super::failing::is_of_a_row;
use super::job::{Job, key_list};
use super::leaves::Leaf;
use super::pace::{Lap, Pace};
use super::verification::{self, Wrong};
use crate::error::{Kind, Result};
use crate::migrator::events::Event;
use crate::migrator::locks::Tries;
use crate::migrator::worker::Worker;

/// The most rows that one statement mends.
const AT_ONCE: i64 = 1_000;

impl Worker<'_> {
    /// Comes back to the ranges with rows that were locked.
    pub(super) async fn revisit(&self, job: &Job<'_>) -> Result<()> {
        let mut pace = Pace::new(&job.policy, 1, None);
        for skipped in job.skipped() {
            let what = "coming back to rows that were locked";
            if !self.write(job, &skipped.leaf, &skipped.predicate, what, &mut pace, true).await? {
                job.lose_track();
            }
        }
        Ok(())
    }

    /// Tries the rows that an earlier loop of this migration set aside: somebody may have mended them.
    pub(super) async fn try_aside_again(&self, job: &Job<'_>) -> Result<()> {
        let mut pace = Pace::new(&job.policy, 1, None);
        for aside in job.aside() {
            job.take_back_in(&aside);
            let predicate = format!("({}) IN (({}))", key_list(&job.batches().keys), aside.row);
            let mut tried = Ok(false);
            for leaf in &job.leaves {
                let what = "trying a row again that was set aside";
                tried = self.write(job, leaf, &predicate, what, &mut pace, false).await;
                if tried.is_err() {
                    break;
                }
            }
            match tried {
                // The values that Rust computes are set aside where they are computed.
                Ok(_) if job.aside().iter().any(|still| still.row == aside.row) => {}
                Ok(_) => self.ledger.take_back_in(&self.session, &aside).await?,
                Err(error) if is_of_a_row(&error) || error.kind() == Kind::Backfill => {
                    job.set_aside(aside);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What is wrong once the walk is over, and single rows are mended.
    pub(super) async fn settle_rest(&self, job: &Job<'_>) -> Result<Vec<Wrong>> {
        let mut wrong = self.wrong(job).await?;
        for _ in 0..super::REPAIRS {
            // With so many a pass is the better way.
            if wrong.is_empty() || wrong.len() >= verification::MOST || !self.repair(job, &wrong).await? {
                break;
            }
            wrong = self.wrong(job).await?;
        }
        Ok(wrong)
    }

    /// Those that the verification finds, and those that changed while their values were computed.
    async fn wrong(&self, job: &Job<'_>) -> Result<Vec<Wrong>> {
        let mut wrong = self.verify(job).await?;
        for missed in job.missed() {
            if !wrong.iter().any(|wrong| wrong.key == missed.key) {
                wrong.push(missed);
            }
        }
        Ok(wrong)
    }

    /// Computes the rows that moved behind the pass, and says what is wrong then.
    pub(super) async fn catch_up(&self, job: &Job<'_>, hopped: &[Wrong]) -> Result<Vec<Wrong>> {
        if !self.repair(job, hopped).await? {
            let Some(begun) = job.begun() else { return Ok(hopped.to_vec()) };
            let mut pace = Pace::new(&job.policy, 1, None);
            for leaf in job.leaves.iter().filter(|leaf| leaf.pages > 0) {
                let what = "computing rows that have moved";
                self.write(job, leaf, &begun.later(), what, &mut pace, false).await?;
            }
        }
        self.settle_rest(job).await
    }

    /// Runs the batches' statement on just these rows, one transaction per leaf. `false` where that cannot be done:
    /// without a key.
    async fn repair(&self, job: &Job<'_>, wrong: &[Wrong]) -> Result<bool> {
        let rows: Vec<String> =
            wrong.iter().filter_map(|wrong| wrong.row.as_ref().map(|row| format!("({row})"))).collect();
        if rows.len() < wrong.len() {
            return Ok(false);
        }
        let keys = key_list(&job.batches().keys);
        let mut pace = Pace::new(&job.policy, 1, None);
        let mut left = rows.as_slice();
        while !left.is_empty() {
            let some = usize::try_from(pace.size().min(AT_ONCE)).unwrap_or(1).clamp(1, left.len());
            let (now, later) = left.split_at(some);
            let predicate = format!("({keys}) IN ({})", now.join(", "));
            let mut done = true;
            for leaf in job.leaves.iter().filter(|leaf| leaf.pages > 0) {
                done &= self.write(job, leaf, &predicate, "a repair", &mut pace, now.len() > 1).await?;
            }
            if done {
                left = later;
            }
        }
        Ok(true)
    }

    /// Writes the rows that `predicate` is true of, however their batch was walked. `false` if they took longer than
    /// the stall budget, and `divisible` says that fewer of them are of use.
    async fn write(
        &self,
        job: &Job<'_>,
        leaf: &Leaf,
        predicate: &str,
        what: &str,
        pace: &mut Pace,
        divisible: bool,
    ) -> Result<bool> {
        let control = self.wait_for_leave(job).await?;
        let batches = job.batches();
        let mut tries = Tries::new(self.migrator, what);
        let begun = Instant::now();
        let filled = loop {
            let timeouts = self.batch_timeouts(&tries);
            let aim = Aim { leaf, predicate, batches: &batches, skipping: false, counting: false };
            let attempt = async {
                let (begun, marked) = join(self.begin(timeouts), self.mark(&batches)).await;
                begun?;
                if let Err(error) = marked {
                    return self.finish(Err(error)).await;
                }
                match &job.filling {
                    None => self.fill(job, &aim, None).await,
                    Some(filling) => self.fill_computed(job, &aim, filling, timeouts, None).await,
                }
            };
            match self.watch(&mut tries, timeouts.lock, attempt).await {
                Ok(filled) => break filled,
                Err(error) if divisible && error.own_code() == Some(&SqlState::QUERY_CANCELED) => {
                    pace.too_long();
                    return Ok(false);
                }
                Err(error) => self.again(&mut tries, job.at, error).await?,
            }
        };
        if filled.wrote == 0 {
            return Ok(true);
        }
        job.wrote(filled.wrote);
        self.migrator.tell(&Event::RowsMended {
            migration: job.at.migration,
            phase: job.at.phase,
            relation: &leaf.sql,
            rows: filled.wrote,
            took: begun.elapsed(),
        });
        let lap = Lap {
            rows: i64::try_from(filled.wrote).unwrap_or(i64::MAX),
            full: true,
            took: filled.took,
            computing: filled.computing,
            crowd: tries.behind(),
            busy: job.is_busy(),
        };
        let rest = pace.done(lap, control, Instant::now());
        self.rest(job, rest, control).await?;
        Ok(true)
    }
}
