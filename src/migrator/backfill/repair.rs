//! Mends single rows: those that were locked, those that were set aside, and those that the verification finds.
//!
//! A row that clients write all the time can hop out of every batch's range, pass after pass. Its key stays.

use super::job::{Job, key_list};
use super::verification::Wrong;
use crate::error::{Kind, Result};
use crate::migrator::worker::Worker;

/// The most rows that one statement mends.
const MOST: usize = 1_000;

impl Worker<'_> {
    /// Comes back to the ranges with rows that were locked.
    pub(super) async fn revisit(&self, job: &Job<'_>) -> Result<()> {
        for skipped in job.skipped() {
            self.write(job, &skipped.leaf, &skipped.predicate, "coming back to rows that were locked")
                .await?;
        }
        Ok(())
    }

    /// Tries the rows that an earlier loop of this migration set aside: somebody may have mended them.
    pub(super) async fn try_aside_again(&self, job: &Job<'_>) -> Result<()> {
        for aside in job.aside() {
            job.take_back_in(&aside);
            let predicate = format!("({}) IN (({}))", key_list(&job.batches().keys), aside.row);
            let mut tried = Ok(0);
            for leaf in &job.leaves {
                tried = self.write(job, leaf, &predicate, "trying a row again that was set aside").await;
                if tried.is_err() {
                    break;
                }
            }
            match tried {
                // The values that Rust computes are set aside where they are computed.
                Ok(_) if job.aside().iter().any(|still| still.row == aside.row) => {}
                Ok(_) => self.ledger.take_back_in(&self.session, &aside).await?,
                Err(error) if super::batch::is_of_a_row(&error) || error.kind() == Kind::Backfill => {
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
            if wrong.is_empty() || !self.repair(job, &wrong).await? {
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

    /// Runs the batches' statement on just these rows, one transaction per leaf. `false` where that cannot be done:
    /// without a key, or with so many rows that a pass is the better way.
    pub(super) async fn repair(&self, job: &Job<'_>, wrong: &[Wrong]) -> Result<bool> {
        let rows: Vec<String> =
            wrong.iter().filter_map(|wrong| wrong.row.as_ref().map(|row| format!("({row})"))).collect();
        if rows.is_empty() || rows.len() < wrong.len() || rows.len() >= MOST {
            return Ok(false);
        }
        let predicate = format!("({}) IN ({})", key_list(&job.batches().keys), rows.join(", "));
        for leaf in job.leaves.iter().filter(|leaf| leaf.pages > 0) {
            self.write(job, leaf, &predicate, "a repair").await?;
        }
        Ok(true)
    }
}
