//! Batch loops: small transactions over the rows of a table, each with the cursor in it.
//!
//! The walk goes by tuple id, so it needs no key and reads each page once; or by a key, where that is asked for. Rows
//! that an update moves behind the cursor were written by a release or a trigger that fills them; what slips through
//! all the same is found by the verification, and mended by another pass.

mod batch;
mod compute;
mod failing;
mod job;
mod leaves;
mod pace;
mod range;
mod reconnect;
mod repair;
mod stretch;
mod verification;
mod waiting;
mod walk;

pub(super) use compute::{Compute, function, unregistered};

use std::sync::atomic::AtomicU64;

use compute::Filling;
use futures_util::future::try_join3;
use job::{Job, table_sql};
use leaves::{key_columns, leaves};
use verification::Wrong;

use super::driver::Driver;
use super::ledger::At;
use super::steps::Outcome;
use super::throttles::Throttles;
use crate::error::{Error, Kind, Result};
use crate::step::{Batches, Work};

/// Repairs of single rows between two passes.
const REPAIRS: u32 = 5;

impl Driver<'_> {
    /// A loop, whatever becomes of the connection.
    pub(super) async fn batches(&mut self, at: At<'_>, batches: &Batches, id: &str) -> Result<Outcome> {
        let written = AtomicU64::new(0);
        self.worker.cut_off = None;
        loop {
            match self.try_batches(at, batches, id, &written).await {
                Err(error) if self.is_cut_off(&error) => self.reconnect(error).await?,
                Ok(ran) => return Ok(Outcome { ran, rows: written.into_inner() }),
                Err(error) => return Err(error),
            }
        }
    }

    /// Goes on with a loop where the ledger says it is. Says whether there was anything to do.
    async fn try_batches(
        &mut self,
        at: At<'_>,
        batches: &Batches,
        id: &str,
        written: &AtomicU64,
    ) -> Result<bool> {
        let policy = self.migrator.policy;
        // An empty table costs this one round trip.
        let (found, mut open, aside) = try_join3(
            leaves(&self.session, batches, policy.order),
            self.ledger.parts(&self.session, at, id),
            self.ledger.set_aside(&self.session, Some(at.migration)),
        )
        .await?;
        if open.is_empty() && found.all.iter().all(|leaf| leaf.pages == 0) {
            return Ok(false);
        }
        let filling = match &batches.work {
            Work::Compute { column, inputs } => {
                let function = self.migrator.functions.get(at.migration);
                Some(Filling::new(&self.session, at, batches, (column, inputs), function).await?)
            }
            _ => None,
        };
        let keys = if found.all.iter().any(|leaf| leaf.by_key) {
            key_columns(&self.session, batches).await?
        } else {
            Vec::new()
        };
        let throttles = Throttles::new(
            &policy,
            &self.migrator.replicas,
            &self.migrator.throttles,
            found.all.iter().map(|leaf| leaf.oid).collect(),
        );
        let aside = aside.into_iter().filter(|aside| aside.relation == table_sql(batches)).collect();
        let mut job = Job::new(at, id, batches, policy, found.all, keys, filling, throttles, aside, written);
        self.try_aside_again(&job).await?;
        // Nobody works on them any more.
        if open.iter().any(|part| !part.ended && part.token == Some(self.lease.token)) {
            self.begin(self.own_timeouts()).await?;
            let given_up = self.ledger.unclaim(&self.session, at, id, self.lease.token).await;
            self.finish(given_up).await?;
        }

        let first = open.first().map_or(1, |part| part.pass.max(1));
        let mut passes = i32::try_from(policy.passes.max(1)).unwrap_or(i32::MAX);
        if !open.is_empty() && batches.verify == "false" {
            // What the driver that began it knew of rows to come back to is gone, and nothing else finds them.
            passes = passes.max(2);
        }
        let last = first.saturating_add(passes - 1);
        let mut wrong = Vec::new();
        for pass in first..=last {
            if open.is_empty() && (pass > first || self.anything_to_do(&job).await) {
                job.begin(leaves(&self.session, batches, policy.order).await?);
                open = walk::parts(&job, pass, policy.workers);
                self.begin(self.own_timeouts()).await?;
                let begun = self.ledger.begin_pass(&self.session, at, id, &open).await;
                self.finish(begun).await?;
            }
            let walked = !open.is_empty();
            if walked {
                self.walk(&mut job, open.iter().filter(|part| !part.ended).count()).await?;
                open.clear();
            }
            let rest = async {
                self.revisit(&job).await?;
                let wrong = self.settle_rest(&job).await?;
                if !wrong.is_empty() || !walked {
                    return Ok(wrong);
                }
                match self.catch_up(&job).await? {
                    true => self.settle_rest(&job).await,
                    false => Ok(vec![Wrong::unknown()]),
                }
            };
            wrong = match rest.await {
                Ok(wrong) => wrong,
                // Single rows are looked at by a batch, which finds out which of them it is.
                Err(error) if failing::is_of_a_row(&error) && pass < last => {
                    tracing::info!(target: "phasewise", migration = at.migration, phase = at.phase, pass, %error, "a row fails; another pass");
                    continue;
                }
                Err(error) => return Err(error),
            };
            if wrong.is_empty() {
                self.forget(&job).await?;
                return Ok(true);
            }
            tracing::info!(target: "phasewise", migration = at.migration, phase = at.phase, pass, rows = ?wrong, "rows are still wrong; another pass");
        }
        // The next run begins with a full pass of its own.
        self.forget(&job).await?;
        Err(Error::new(
            Kind::Backfill,
            format!(
                "migration {}, phase {}: rows of {} are still wrong after {} passes: {}. Either the expression gives NULL for them, or the application goes on writing values that do not agree; mend those rows or that, then run again (wrong means: {})",
                at.migration,
                at.phase,
                table_sql(batches),
                last - first + 1,
                wrong.iter().take(10).map(|wrong| wrong.key.as_str()).collect::<Vec<_>>().join(", "),
                batches.verify
            ),
        ))
    }

    async fn forget(&self, job: &Job<'_>) -> Result<()> {
        self.begin(self.own_timeouts()).await?;
        let forgotten = self.ledger.forget_parts(&self.session, job.at, job.id).await;
        self.finish(forgotten).await
    }
}
