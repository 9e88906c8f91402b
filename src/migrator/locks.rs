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
    /// Of a statement that may run long once it has its locks: what counts is how long it waited for them, and how
    /// often it failed only after that.
    long: Option<Long>,
    /// Whether a statement timeout of ours may cancel it.
    timed: bool,
    blockers: Vec<Blocker>,
    /// The most sessions that were seen to wait for ours, where they are counted.
    behind: Option<i64>,
}

/// How often a statement without a timeout is tried.
const RUNS: u32 = 5;

#[derive(Clone, Copy, Debug)]
struct Long {
    waited: Duration,
    runs: u32,
    /// When this attempt began, and how long it may wait for each lock.
    attempt: (Instant, Duration),
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
            long: None,
            timed: true,
            blockers: Vec::new(),
            behind: None,
        }
    }

    /// No longer than this, if the deadline is later.
    pub(super) fn within(mut self, time: Duration) -> Self {
        self.deadline = self.deadline.min(time);
        self
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
        self.times = Some(RUNS);
        self.timed(false)
    }

    /// Of a statement that has a limit on its wait for locks, and none on its own time.
    pub(super) fn long(mut self) -> Self {
        self.long = Some(Long { waited: Duration::ZERO, runs: 0, attempt: (Instant::now(), Duration::ZERO) });
        self.timed(false)
    }

    fn begin(&mut self, patience: Duration) {
        if let Some(long) = &mut self.long {
            long.attempt = (Instant::now(), patience);
        }
    }

    /// An attempt failed, after so long.
    fn failed(&mut self) {
        if let Some(long) = &mut self.long {
            let (begun, patience) = long.attempt;
            let took = begun.elapsed();
            long.waited += took.min(patience);
            long.runs += u32::from(took > patience * 2);
        }
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
        match (self.times, self.long) {
            (Some(times), _) => self.attempt >= times,
            (None, Some(long)) => long.waited >= self.deadline || long.runs >= RUNS,
            (None, None) => self.begun.elapsed() >= self.deadline,
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
        tries.begin(patience);
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
        tries.failed();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::Migrations;

    fn tries(budget: u64, deadline: u64) -> Tries {
        static NONE: Migrations = crate::migrations![];
        let migrator = Migrator::connect(tokio_postgres::Config::new(), tokio_postgres::NoTls, &NONE)
            .stall_budget(Duration::from_millis(budget))
            .lock_deadline(Duration::from_millis(deadline));
        Tries::new(&migrator, "a test")
    }

    fn timeouts(tries: &mut Tries, number: u32) -> Vec<u128> {
        (1..=number)
            .map(|attempt| {
                tries.attempt = attempt;
                tries.timeout().as_millis()
            })
            .collect()
    }

    #[test]
    fn lock_timeouts_double_up_to_the_budget() {
        assert_eq!(timeouts(&mut tries(1_000, 60_000), 7), [50, 100, 200, 400, 800, 1_000, 1_000]);
        // A budget below the first try's is kept to at once.
        assert_eq!(timeouts(&mut tries(20, 60_000), 2), [20, 20]);
        // However many there were.
        assert_eq!(timeouts(&mut tries(1_000, 60_000), 200).last(), Some(&1_000));
        // Near the deadline they end with it, but are never without a chance.
        assert_eq!(timeouts(&mut tries(1_000, 0), 6).last(), Some(&50));
    }

    #[test]
    fn pauses_are_jittered_in_full_and_grow_to_two_seconds() {
        let longest = |attempt: u32| {
            let mut tries = tries(1_000, 60_000);
            tries.attempt = attempt;
            let pauses: Vec<u128> = (0..400).map(|_| tries.pause().as_millis()).collect();
            let (least, most) = (*pauses.iter().min().unwrap_or(&0), *pauses.iter().max().unwrap_or(&0));
            // From nothing at all: of 400 one is in the first tenth, and one in the last.
            assert!(least <= most / 10, "{least} to {most}");
            most
        };
        assert!((90..=100).contains(&longest(1)));
        assert!((180..=200).contains(&longest(2)));
        assert!((1_440..=1_600).contains(&longest(5)));
        for attempt in [6, 7, 100] {
            assert!((1_800..=2_000).contains(&longest(attempt)), "{attempt}");
        }
    }

    #[test]
    fn long_work_is_no_wait_for_locks() {
        let mut tries = tries(1_000, 500).long();
        let long = |tries: &mut Tries, worked: u64| {
            let begun =
                Instant::now().checked_sub(Duration::from_millis(worked)).unwrap_or_else(Instant::now);
            if let Some(long) = &mut tries.long {
                long.attempt = (begun, Duration::from_millis(100));
            }
            tries.failed();
        };
        long(&mut tries, 60_000);
        assert!(!tries.is_over(), "one failure after long work is tried again");
        for _ in 0..3 {
            long(&mut tries, 50);
        }
        assert!(!tries.is_over());
        for _ in 0..3 {
            long(&mut tries, 60_000);
        }
        assert!(tries.is_over(), "it has waited for locks for as long as it may");
    }
}
