//! Passes over a table: workers that claim parts of it, and walk them batch by batch.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use tokio::time::sleep;
use tokio_postgres::error::SqlState;

use super::batch::Done;
use super::job::Job;
use super::leaves::Leaf;
use super::pace::{Lap, Pace};
use super::stretch::Stretch;
use crate::error::{Error, Kind, Result};
use crate::migrator::connect::{Conn, Sql as _, get};
use crate::migrator::driver::Driver;
use crate::migrator::events::Event;
use crate::migrator::ledger::{Control, Direction, Part, Spot};
use crate::migrator::session::{Facts, Session};
use crate::migrator::throttles;
use crate::migrator::worker::Worker;

/// How often a loop that somebody has paused looks whether it may go on.
const PAUSED: Duration = Duration::from_millis(200);

/// How often a long rest is interrupted for a look at what people ask for.
const LOOK: Duration = Duration::from_secs(1);

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
        let (mut rest, mut stretch) = (None, None);
        while !part.ended && !job.is_stopped() {
            let worked = async {
                if let Some((rest, control, crowd)) = rest.take() {
                    if crowd > 0 {
                        self.note_crowd(job, crowd).await?;
                    }
                    self.rest(job, rest, control).await?;
                }
                self.next_batch(job, &leaf, &part, &mut pace, &mut stretch).await
            };
            match worked.await {
                Ok(done) => {
                    let now = Instant::now();
                    let lap = Lap { busy: job.is_busy(), ..done.lap };
                    let pause = pace.done(lap, done.control, now);
                    let crowd = if job.policy.yield_to_clients { done.lap.crowd } else { 0 };
                    rest = Some((pause, done.control, crowd));
                    part = Part { rate: pace.rate(), size: Some(pace.size()), ..done.part };
                    self.tell_batch(job, &leaf, &part, done.wrote, done.lap.took);
                    job.wrote(done.wrote);
                    if crowd > 0 {
                        self.tell_crowd(job, crowd, pause);
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

    /// Waits before a batch of single rows as the walk does, and says what people ask for.
    pub(super) async fn wait_for_leave(&self, job: &Job<'_>) -> Result<Control> {
        self.hold(job).await?;
        if job.at.direction == Direction::Forward {
            self.wait_while_paused(job).await?;
        }
        self.ledger.control(&self.session, job.at.migration).await
    }

    /// Says in the ledger why the rest before the next batch is longer; that batch takes it back.
    async fn note_crowd(&self, job: &Job<'_>, crowd: i64) -> Result<()> {
        let reason = format!("clients waited for the last batch ({crowd} were seen)");
        self.ledger.set_reason(&self.session, job.at, job.id, Some(&reason)).await
    }

    /// Rests between two batches: no longer than people want it to, by what they ask for now.
    pub(super) async fn rest(&self, job: &Job<'_>, rest: Duration, control: Control) -> Result<()> {
        let begun = Instant::now();
        while !job.is_stopped() {
            let left = rest.saturating_sub(begun.elapsed());
            sleep(left.min(LOOK)).await;
            if left <= LOOK || self.ledger.control(&self.session, job.at.migration).await? != control {
                break;
            }
        }
        Ok(())
    }

    /// Waits while there is a reason to. One worker asks; the others wait for its answer.
    async fn hold(&self, job: &Job<'_>) -> Result<()> {
        let mut throttles = job.throttles.lock().await;
        let mut said: Option<String> = None;
        loop {
            let Some(reason) = throttles.hold(&self.session).await? else { break };
            self.say(job, &mut said, &reason).await?;
            // What a person holds gives way to a rollback, whatever else it waits for.
            let held = job.at.direction == Direction::Forward
                && self.ledger.control(&self.session, job.at.migration).await?.paused;
            if held || job.is_stopped() {
                return Ok(());
            }
            sleep(throttles::EVERY).await;
        }
        job.set_busy(throttles.are_clients_about());
        self.unsay(job, said).await
    }

    /// Waits until a person lets the migration go on.
    async fn wait_while_paused(&self, job: &Job<'_>) -> Result<()> {
        let begun = Instant::now();
        let mut said: Option<String> = None;
        while self.ledger.control(&self.session, job.at.migration).await?.paused && !job.is_stopped() {
            self.say(job, &mut said, "it is paused; `resume` lets it go on").await?;
            if self.ledger.is_wanted(&self.session, begun.elapsed()).await? {
                return Err(Error::new(
                    Kind::Busy,
                    format!(
                        "migration {} is paused in phase {}, and a rollback wants the lease: it has it now. What is filled stays filled",
                        job.at.migration, job.at.phase
                    ),
                ));
            }
            sleep(PAUSED).await;
        }
        self.unsay(job, said).await
    }

    /// Says why batches pause, here and in the ledger. Once, however its figures change.
    async fn say(&self, job: &Job<'_>, said: &mut Option<String>, reason: &str) -> Result<()> {
        if self.lease.is_lost() {
            self.migrator.tell(&Event::LeaseLost);
            return Err(self.lease.lost());
        }
        if said.as_deref().map(wording) != Some(wording(reason)) {
            tracing::info!(target: "phasewise", migration = job.at.migration, phase = job.at.phase, reason, "batches pause");
            let (migration, phase) = (job.at.migration, job.at.phase);
            self.migrator.tell(&Event::Throttled { migration, phase, reason });
        }
        if said.as_deref() != Some(reason) {
            self.ledger.set_reason(&self.session, job.at, job.id, Some(reason)).await?;
            *said = Some(reason.to_owned());
        }
        Ok(())
    }

    async fn unsay(&self, job: &Job<'_>, said: Option<String>) -> Result<()> {
        if said.is_some() {
            self.ledger.set_reason(&self.session, job.at, job.id, None).await?;
            self.migrator.tell(&Event::Resumed { migration: job.at.migration, phase: job.at.phase });
        }
        Ok(())
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

    fn tell_batch(&self, job: &Job<'_>, leaf: &Leaf, part: &Part, rows: u64, took: Duration) {
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        self.migrator.tell(&Event::BatchDone {
            migration: job.at.migration,
            phase: job.at.phase,
            relation: &leaf.sql,
            part: u32::try_from(part.number).unwrap_or(0),
            rows,
            done: count(part.done),
            estimate: part.estimate.map(count),
            next: count(part.size.unwrap_or(0)),
            rate: part.rate,
            took,
        });
    }

    /// Whether the connection is gone, rather than something wrong with the statement.
    pub(super) fn is_cut_off(&self, error: &Error) -> bool {
        let ended = [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            // It was the primary.
            SqlState::READ_ONLY_SQL_TRANSACTION,
        ];
        error.kind() != Kind::LeaseLost
            && (self.session.is_closed() || error.own_code().is_some_and(|code| ended.contains(code)))
    }

    /// A new session in place of one that is gone: the server was restarted, or another one has taken over.
    pub(super) async fn reconnect(&mut self, cause: Error) -> Result<()> {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            if self.lease.is_lost() {
                self.migrator.tell(&Event::LeaseLost);
                return Err(self.lease.lost());
            }
            tracing::warn!(target: "phasewise", %cause, "the connection is gone; connecting again");
            let opened = async {
                let conn = self.migrator.connector.open().await?;
                refuse_standby(&conn).await?;
                let facts = Facts::read(&conn, self.migrator).await?;
                Session::new(conn, facts).await
            };
            let failed = match tokio::time::timeout(Duration::from_secs(10), opened).await {
                Ok(Ok(session)) => {
                    std::mem::replace(&mut self.session, session).close();
                    return Ok(());
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the server did not answer within 10 s".to_owned(),
            };
            if begun.elapsed() >= self.migrator.lock_deadline {
                return Err(Error::new(
                    Kind::Connection,
                    format!(
                        "{cause} And no new connection could be had in {:.0} s: {failed}",
                        begun.elapsed().as_secs_f64()
                    ),
                )
                .with_source(cause));
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }
}

/// A reason without its figures.
fn wording(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_ascii_digit() && *c != '.').collect()
}

/// After a failover a connection may reach a server that is not the primary yet.
async fn refuse_standby(conn: &Conn) -> Result<()> {
    let rows = conn.ask("SELECT pg_catalog.pg_is_in_recovery() AS standby", &[]).await?;
    if rows.first().map_or(Ok(false), |row| get::<bool>(row, "standby"))? {
        return Err(Error::new(
            Kind::Connection,
            "the server that answers is a standby: nothing can be written there until it is promoted",
        ));
    }
    Ok(())
}
