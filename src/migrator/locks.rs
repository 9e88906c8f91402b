//! Lock tries: short at first, growing, jittered, until a deadline; and the names of those in the way.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::try_join;
use tokio::time::sleep;
use tokio_postgres::error::SqlState;
use tracing::Instrument as _;

use super::events::{Blocker, Event};
use super::ledger::At;
use super::settings::Migrator;
use super::worker::Worker;
use crate::error::{Error, Kind, Result};

const FIRST: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The tries of one transaction.
#[derive(Debug)]
pub(super) struct Tries {
    what: String,
    begun: Instant,
    attempt: u32,
    budget: Duration,
    deadline: Duration,
    /// For statements without a timeout: how often they are tried, however long that takes.
    times: Option<u32>,
    /// Whether a statement timeout of ours may cancel it.
    timed: bool,
    blockers: Vec<Blocker>,
    /// The most sessions that were seen to wait for ours, where they are counted.
    behind: Option<i64>,
}

impl Tries {
    pub(super) fn new(migrator: &Migrator, what: &str) -> Self {
        Self {
            what: what.to_owned(),
            begun: Instant::now(),
            attempt: 1,
            budget: migrator.stall_budget,
            deadline: migrator.lock_deadline,
            times: None,
            timed: true,
            blockers: Vec::new(),
            behind: None,
        }
    }

    /// Has those counted who wait for us meanwhile.
    pub(super) fn counting_those_behind(mut self) -> Self {
        self.behind = Some(0);
        self
    }

    /// The most sessions that were seen to wait for ours.
    pub(super) fn behind(&self) -> i64 {
        self.behind.unwrap_or(0)
    }

    /// Of a statement that takes as long as it takes: it is tried again after a deadlock only, some times.
    pub(super) fn untimed(mut self) -> Self {
        self.times = Some(5);
        self.timed(false)
    }

    /// Says whether a statement timeout is set.
    pub(super) fn timed(mut self, timed: bool) -> Self {
        self.timed = timed;
        self
    }

    fn is_transient(&self, error: &Error) -> bool {
        error.own_code().is_some_and(|code| match *code {
            SqlState::LOCK_NOT_AVAILABLE
            | SqlState::T_R_DEADLOCK_DETECTED
            | SqlState::T_R_SERIALIZATION_FAILURE => true,
            // Where no timeout is set a person cancelled it, and means it.
            SqlState::QUERY_CANCELED => self.timed,
            _ => false,
        })
    }

    fn is_over(&self) -> bool {
        match self.times {
            Some(times) => self.attempt >= times,
            None => self.begun.elapsed() >= self.deadline,
        }
    }

    /// The lock timeout of this attempt.
    pub(super) fn timeout(&self) -> Duration {
        let left = self.deadline.saturating_sub(self.begun.elapsed()).max(FIRST);
        FIRST.saturating_mul(1 << (self.attempt - 1).min(16)).min(self.budget).min(left)
    }

    /// Full jitter: clients get through between the tries, and two drivers never march in step.
    fn pause(&self) -> Duration {
        let most = FIRST.saturating_mul(1 << self.attempt.min(16)).min(LONGEST_PAUSE);
        Duration::from_millis(fastrand::u64(0..=u64::try_from(most.as_millis()).unwrap_or(2_000)))
    }
}

impl Worker<'_> {
    /// Awaits `work`, and looks meanwhile who blocks it. The last ones seen are kept.
    pub(super) async fn watch<T>(
        &self,
        tries: &mut Tries,
        patience: Duration,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let span = tracing::debug_span!(target: "phasewise", "attempt", number = tries.attempt);
        let mut work = pin!(work.instrument(span));
        let mut every = (patience / 2).max(Duration::from_millis(20));
        loop {
            let counts = tries.behind.is_some();
            let sample = async {
                sleep(every).await;
                if counts {
                    try_join(self.monitor.blockers(self.session.pid), self.monitor.behind(self.session.pid))
                        .await
                } else {
                    self.monitor.blockers(self.session.pid).await.map(|blockers| (blockers, 0))
                }
            };
            tokio::select! {
                biased;
                done = &mut work => return done,
                seen = sample => match seen {
                    Ok((blockers, behind)) => {
                        if !blockers.is_empty() {
                            tries.blockers = blockers;
                        }
                        tries.behind = tries.behind.map(|before| before.max(behind));
                    }
                    Err(error) => tracing::debug!(target: "phasewise", %error, "blockers cannot be seen"),
                },
            }
            every = (every * 2).min(Duration::from_secs(5));
        }
    }

    /// After a failed try: pauses before the next, or returns the error to give up with.
    pub(super) async fn again(&self, tries: &mut Tries, at: At<'_>, error: Error) -> Result<()> {
        if !tries.is_transient(&error) {
            return Err(error);
        }
        let waited = tries.begun.elapsed();
        tracing::warn!(
            target: "phasewise",
            migration = at.migration, phase = at.phase, step = tries.what, attempt = tries.attempt,
            waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX), %error,
            "a step did not get its lock; trying again"
        );
        self.migrator.tell(&Event::LockRetry {
            migration: at.migration,
            phase: at.phase,
            step: &tries.what,
            attempt: tries.attempt,
            waited,
            blockers: &tries.blockers,
        });
        if tries.is_over() {
            return Err(self.locked(tries, at, error));
        }
        if self.lease.is_lost() {
            self.migrator.tell(&Event::LeaseLost);
            return Err(self.lease.lost());
        }
        sleep(tries.pause()).await;
        tries.attempt += 1;
        Ok(())
    }

    fn locked(&self, tries: &Tries, at: At<'_>, error: Error) -> Error {
        let head = format!(
            "migration {}, phase {}: {}: no lock after {} tries in {:.1} s",
            at.migration,
            at.phase,
            tries.what,
            tries.attempt,
            tries.begun.elapsed().as_secs_f64()
        );
        let text = if tries.blockers.is_empty() {
            format!(
                "{head} ({error}); no blocker was seen: the statement itself may need longer than the stall budget of {} ms. Run again at a quieter time, raise .stall_budget(…), or, for SQL of your own that blocks nobody meanwhile, say .long_running()",
                self.migrator.stall_budget.as_millis()
            )
        } else {
            let names: Vec<String> = tries.blockers.iter().map(ToString::to_string).collect();
            format!(
                "{head}; in the way: {}. End that transaction (SELECT pg_terminate_backend(pid)) or wait for it, then run again: it resumes here",
                names.join("; ")
            )
        };
        Error::new(Kind::Locked, text).with_source(error)
    }
}
