//! Mends single rows: those that were locked, those that were set aside, and those that the verification finds.
//!
//! A row that clients write all the time can hop out of every batch's range, pass after pass. Its key stays.

use std::time::{Duration, Instant};

use futures_util::future::join;
use tokio_postgres::error::SqlState;

use super::batch::Aim;
use super::failing::is_of_a_row;
use super::job::{Job, key_list};
use super::leaves::{Leaf, Leaves, leaves};
use super::pace::{Lap, Pace};
use super::verification::{self, Wrong};
use crate::error::{Kind, Result};
use crate::migrator::events::Event;
use crate::migrator::worker::Worker;

/// What is done about rows that cannot be had at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Otherwise {
    /// Those that take longer than the stall budget are tried in smaller portions.
    Divide,
    /// They are left for another time, after a short while.
    Leave,
    /// They are tried until the lock deadline.
    Insist,
}

/// How long a row that may be left is tried.
const SHORTLY: Duration = Duration::from_secs(2);

/// The most rows that one statement mends.
const AT_ONCE: i64 = 1_000;

/// Pages that are looked through at once for rows that have moved.
const PAGES: i64 = 1_000;

impl Worker<'_> {
    /// Comes back to the ranges with rows that were locked.
    pub(super) async fn revisit(&self, job: &Job<'_>) -> Result<()> {
        let mut pace = Pace::new(&job.policy, 1, None);
        for skipped in job.skipped() {
            let what = "coming back to rows that were locked";
            if self
                .write(job, &skipped.leaf, &skipped.predicate, what, &mut pace, Otherwise::Divide)
                .await?
                .is_none()
            {
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
            let mut tried = Ok(None);
            for leaf in &job.leaves {
                let what = "trying a row again that was set aside";
                tried = self.write(job, leaf, &predicate, what, &mut pace, Otherwise::Leave).await;
                if tried.is_err() {
                    break;
                }
            }
            match tried {
                // The values that Rust computes are set aside where they are computed.
                Ok(_) if job.aside().iter().any(|still| still.row == aside.row) => {}
                Ok(_) => self.ledger.take_back_in(&self.session, &aside).await?,
                // One that is locked is tried again by the next loop.
                Err(error)
                    if is_of_a_row(&error) || [Kind::Backfill, Kind::Locked].contains(&error.kind()) =>
                {
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

    /// Computes the rows that may have moved behind the pass, where nothing else finds them. `false` if only another
    /// pass can.
    pub(super) async fn catch_up(&self, job: &Job<'_>) -> Result<bool> {
        if self.is_unsure(job).await? {
            return Ok(false);
        }
        let Some(since) = job.begun().filter(|_| job.filling.is_some() && job.batches().verify == "false")
        else {
            return Ok(true);
        };
        if job.batches().keys.is_empty() {
            return self.catch_up_keyless(job, since).await;
        }
        // A key stays where it is, so they can be looked for bit by bit.
        let mut after: Option<String> = None;
        loop {
            let hopped = self.hopped(job, &since, after.as_deref()).await?;
            let Some(last) = hopped.last() else { return Ok(true) };
            after.clone_from(&last.row);
            self.repair(job, &hopped).await?;
        }
    }

    /// Stretch by stretch, and again from the beginning as long as there were rows that had a value.
    async fn catch_up_keyless(&self, job: &Job<'_>, mut since: Leaves) -> Result<bool> {
        for _ in 0..super::REPAIRS {
            let now = leaves(&self.session, &job.batches(), job.policy.order).await?;
            let (later, mut pages, mut wrote) = (since.later(), PAGES, 0);
            for leaf in &now.all {
                let mut first = 0;
                while first < leaf.pages {
                    let until = (first + pages).min(leaf.pages);
                    let predicate =
                        format!("t.ctid >= '({first},0)'::tid AND t.ctid < '({until},0)'::tid AND {later}");
                    let mut pace = Pace::new(&job.policy, 1, None);
                    let what = "computing rows that have moved";
                    let otherwise = if until > first + 1 { Otherwise::Divide } else { Otherwise::Insist };
                    match self.write(job, leaf, &predicate, what, &mut pace, otherwise).await? {
                        Some(rows) => {
                            wrote += rows;
                            first = until;
                        }
                        None => pages = (pages / 2).max(1),
                    }
                }
            }
            // Those that changed meanwhile are found by what they changed into.
            if wrote == 0 && job.missed().is_empty() {
                return Ok(true);
            }
            since = now;
        }
        Ok(false)
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
            let otherwise = if now.len() > 1 { Otherwise::Divide } else { Otherwise::Insist };
            let mut done = true;
            // One that was empty may have rows by now.
            for leaf in &job.leaves {
                done &= self.write(job, leaf, &predicate, "a repair", &mut pace, otherwise).await?.is_some();
            }
            if done {
                left = later;
            }
        }
        Ok(true)
    }

    /// Writes the rows that `predicate` is true of, however their batch was walked, and says how many. `None` if they
    /// took longer than the stall budget, and are to be divided.
    async fn write(
        &self,
        job: &Job<'_>,
        leaf: &Leaf,
        predicate: &str,
        what: &str,
        pace: &mut Pace,
        otherwise: Otherwise,
    ) -> Result<Option<u64>> {
        let control = self.wait_for_leave(job).await?;
        let batches = job.batches();
        let mut tries = self.batch_tries(job, what);
        if otherwise == Otherwise::Leave {
            tries = tries.within(SHORTLY);
        }
        let begun = Instant::now();
        let filled = loop {
            let timeouts = self.batch_timeouts(&tries);
            let aim =
                Aim { leaf, predicate, batches: &batches, skipping: false, counting: false, read: None };
            let attempt = Box::pin(async {
                let (begun, marked) = join(self.begin(timeouts), self.mark(&batches)).await;
                begun?;
                if let Err(error) = marked {
                    return self.finish(Err(error)).await;
                }
                self.fill(job, &aim, timeouts, None).await
            });
            match self.watch(&mut tries, timeouts.lock, attempt).await {
                Ok(filled) => break filled,
                Err(error)
                    if otherwise == Otherwise::Divide
                        && error.own_code() == Some(&SqlState::QUERY_CANCELED) =>
                {
                    pace.too_long(pace.size());
                    return Ok(None);
                }
                Err(error) => self.again(&mut tries, job.at, error).await?,
            }
        };
        if filled.wrote == 0 {
            return Ok(Some(0));
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
            size: pace.size(),
            full: true,
            tells: true,
            took: filled.took,
            computing: filled.computing,
            crowd: tries.behind(),
            busy: job.is_busy(),
        };
        let rest = pace.done(lap, control, Instant::now());
        self.rest(job, rest, control).await?;
        Ok(Some(filled.wrote))
    }
}
