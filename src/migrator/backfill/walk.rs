//! Passes over a table: workers that claim parts of it, and walk them batch by batch.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};

use super::batch::Done;
use super::job::Job;
use super::leaves::Leaf;
use super::pace::{Lap, Pace};
use super::stretch::Stretch;
use crate::error::{Error, Result};
use crate::migrator::driver::Driver;
use crate::migrator::events::Event;
use crate::migrator::ledger::{Part, Spot};
use crate::migrator::session::Session;
use crate::migrator::worker::Worker;

/// A relation with fewer pages than this is not worth being shared.
const WORTH_SHARING: i64 = 64;

/// The parts of a pass: one a relation, or as many as there are workers, where it is walked in physical order.
pub(super) fn parts(job: &Job<'_>, pass: i32, workers: u32) -> Vec<Part> {
    let mut parts = Vec::new();
    for leaf in job.leaves.iter().filter(|leaf| leaf.pages > 0) {
        let shared = !leaf.by_key && leaf.pages >= WORTH_SHARING;
        let ways = if shared { i64::from(workers.max(1)) } else { 1 };
        for way in 0..ways {
            let first = leaf.pages * way / ways;
            let spot = if leaf.by_key {
                Spot::Key(None)
            } else {
                Spot::Tuple { first, page: first, item: 0, until: leaf.pages * (way + 1) / ways }
            };
            parts.push(Part {
                number: i32::try_from(parts.len()).unwrap_or(i32::MAX),
                relation: leaf.sql.clone(),
                oid: leaf.oid,
                pass,
                spot,
                ended: false,
                done: 0,
                written: 0,
                estimate: leaf.estimate.map(|rows| rows / ways),
                size: None,
                rate: None,
                token: None,
                reason: None,
            });
        }
    }
    parts
}

impl Driver<'_> {
    /// Walks the parts of the pass that have not ended. The driver's own session is one of the workers.
    pub(super) async fn walk(&mut self, job: &mut Job<'_>, open: usize) -> Result<()> {
        let wanted = usize::try_from(job.policy.workers).unwrap_or(1).min(open).max(1);
        let mut others = Vec::new();
        while others.len() + 1 < wanted {
            match self.worker.another().await {
                Ok(worker) => others.push(worker),
                // The server, or the pool, has none to spare: the others do its share.
                Err(error) => {
                    tracing::warn!(target: "phasewise", %error, workers = others.len() + 1, "fewer workers than the policy asks for");
                    break;
                }
            }
        }
        job.workers = u32::try_from(others.len() + 1).unwrap_or(1);
        let job: &Job<'_> = job;
        let crew = join_all(others.iter_mut().map(|worker| worker.work(job)));
        let (own, crew) = join(self.worker.work(job), crew).await;
        others.into_iter().for_each(|worker| worker.session.close());
        crew.into_iter().fold(own, Result::and)
    }
}

impl<'m> Worker<'m> {
    /// One more worker under the same lease.
    async fn another(&self) -> Result<Worker<'m>> {
        let conn = self.migrator.connector.open().await?;
        let session = Session::new(conn, self.session.facts.clone()).await?;
        Ok(Worker {
            migrator: self.migrator,
            session,
            monitor: std::sync::Arc::clone(&self.monitor),
            lease: self.lease.clone(),
            ledger: self.ledger.clone(),
            brief: self.brief,
            cut_off: None,
        })
    }
}

impl Worker<'_> {
    /// Claims parts and walks them, until none is left or another worker has failed.
    async fn work(&mut self, job: &Job<'_>) -> Result<()> {
        let worked = async {
            while !job.is_stopped() {
                let Some(part) = self.claim(job).await? else { return Ok(()) };
                self.part(job, part).await?;
            }
            Ok(())
        }
        .await;
        if worked.is_err() {
            job.stop();
        }
        worked
    }

    async fn claim(&mut self, job: &Job<'_>) -> Result<Option<Part>> {
        loop {
            let claimed = async {
                self.begin(self.own_timeouts()).await?;
                let part = self.ledger.claim(&self.session, job.at, job.id, self.lease.token).await;
                self.finish(part).await
            }
            .await;
            match claimed {
                Err(error) if self.is_cut_off(&error) => self.reconnect(error).await?,
                claimed => return claimed,
            }
        }
    }

    /// Walks a part to its end, whatever becomes of the connection.
    async fn part(&mut self, job: &Job<'_>, mut part: Part) -> Result<()> {
        // One that is gone since (a detached partition), or was rewritten (VACUUM FULL), says nothing of its rows:
        // the verification does.
        let leaf = job.leaves.iter().find(|leaf| leaf.oid == part.oid).cloned();
        let fits = |leaf: &Leaf| match part.spot {
            Spot::Tuple { page, .. } => !leaf.by_key && page <= leaf.pages,
            Spot::Key(_) => leaf.by_key,
        };
        let Some(leaf) = leaf.filter(fits) else {
            part.ended = true;
            self.begin(self.own_timeouts()).await?;
            let ended = self.ledger.set_part(&self.session, job.at, job.id, &part).await;
            return self.finish(ended).await;
        };
        let mut pace = Pace::new(&job.policy, job.workers, part.size);
        let (mut rest, mut stretch, mut asked) = (None, None, None);
        while !part.ended && !job.is_stopped() {
            let number = part.number;
            let worked = async {
                if let Some((rest, control, crowd)) = rest.take() {
                    if crowd > 0 {
                        self.note_crowd(job, number, crowd).await?;
                    }
                    self.rest(job, rest, control).await?;
                }
                self.next_batch(job, &leaf, &part, &mut pace, &mut stretch).await
            };
            match worked.await {
                Ok(done) => {
                    self.cut_off = None;
                    let now = Instant::now();
                    let lap = Lap { busy: job.is_busy(), ..done.lap };
                    let pause = pace.done(lap, done.control, now);
                    let crowd = if job.policy.yield_to_clients { done.lap.crowd } else { 0 };
                    rest = Some((pause, done.control, crowd));
                    part = Part { rate: pace.rate(), size: Some(pace.size()), ..done.part };
                    self.tell_batch(job, &leaf, &part, done.done, (done.wrote, done.lap.took));
                    job.wrote(done.wrote);
                    if crowd > 0 {
                        self.tell_crowd(job, crowd, pause);
                    }
                    let before = asked.replace((done.control, lap.busy));
                    if crowd > 0 || before.is_some_and(|before| before != (done.control, lap.busy)) {
                        // What is left of it was made for another pace.
                        stretch = None;
                    }
                }
                Err(error) if self.is_cut_off(&error) => {
                    stretch = None;
                    // Whether the last batch was committed is what the ledger says.
                    let kept = self.kept(job, &part, error).await?;
                    part = Part { size: Some(pace.size()), ..kept };
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Connects again, and looks where the ledger says that a part is.
    async fn kept(&mut self, job: &Job<'_>, part: &Part, mut cause: Error) -> Result<Part> {
        loop {
            self.reconnect(cause).await?;
            cause = match self.ledger.parts(&self.session, job.at, job.id).await {
                Ok(parts) => {
                    let kept = parts.into_iter().find(|kept| kept.number == part.number);
                    return kept.ok_or_else(|| self.lease.lost());
                }
                Err(error) if self.is_cut_off(&error) => error,
                Err(error) => return Err(error),
            };
        }
    }

    async fn next_batch(
        &self,
        job: &Job<'_>,
        leaf: &Leaf,
        part: &Part,
        pace: &mut Pace,
        stretch: &mut Option<Stretch>,
    ) -> Result<Done> {
        loop {
            self.hold(job).await?;
            if let Some(done) = self.batch(job, leaf, part, pace, stretch).await? {
                return Ok(done);
            }
            self.wait_while_paused(job).await?;
        }
    }

    fn tell_crowd(&self, job: &Job<'_>, crowd: i64, rest: Duration) {
        tracing::debug!(target: "phasewise", migration = job.at.migration, phase = job.at.phase, crowd, ?rest, "clients waited for a batch");
        self.migrator.tell(&Event::ClientsWaited {
            migration: job.at.migration,
            phase: job.at.phase,
            clients: u64::try_from(crowd).unwrap_or(0),
            rest,
        });
    }

    fn tell_batch(&self, job: &Job<'_>, leaf: &Leaf, part: &Part, done: i64, (rows, took): (u64, Duration)) {
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        self.migrator.tell(&Event::BatchDone {
            migration: job.at.migration,
            phase: job.at.phase,
            relation: &leaf.sql,
            part: u32::try_from(part.number).unwrap_or(0),
            rows,
            done: count(done),
            estimate: part.estimate.map(count),
            next: count(part.size.unwrap_or(0)),
            rate: part.rate,
            took,
        });
    }
}
