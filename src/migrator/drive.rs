//! Driving migrations forward.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::Instrument as _;

use super::connect::Conn;
use super::driver::Driver;
use super::events::Event;
use super::gates::{Goal, Judge, Next};
use super::lease::Lease;
use super::ledger::{Book, Ledger};
use super::monitor::Monitor;
use super::report::Report;
use super::session::{Facts, Session};
use super::settings::Migrator;
use super::status::State;
use super::worker::Worker;
use crate::error::{Error, Kind, Result};
use crate::migration::Entry;

/// A connection, and what was read through it.
pub(super) struct Look {
    pub(super) conn: Conn,
    pub(super) facts: Facts,
    pub(super) ledger: Ledger,
    pub(super) book: Book,
}

impl Migrator {
    /// Reads where everything stands.
    pub(super) async fn look(&self) -> Result<Look> {
        let conn = self.connector.open().await?;
        let facts = Facts::read(&conn, self).await?;
        let ledger = Ledger::new(&self.ledger_schema);
        let book = if facts.has_ledger { ledger.read(&conn).await? } else { Book::empty() };
        Ok(Look { conn, facts, ledger, book })
    }

    /// Makes sure of a ledger. Says whether the database is fresh.
    pub(super) async fn found(&self, look: &mut Look) -> Result<bool> {
        let fresh = look.ledger.ensure(&look.conn, &mut look.facts, self.migrations).await?;
        look.book = look.ledger.read(&look.conn).await?;
        Ok(fresh)
    }

    pub(super) async fn drive(&self, goal: Goal<'_>) -> Result<Report> {
        let span = tracing::info_span!(target: "phasewise", "run");
        Box::pin(self.drive_in_span(goal).instrument(span)).await
    }

    async fn drive_in_span(&self, goal: Goal<'_>) -> Result<Report> {
        let begun = Instant::now();
        let mut look = self.look().await?;
        self.judge(&look, goal).unchanged()?;
        goal.lifts(&look.book, self.migrations)?;
        let mut report = Report { unknown: self.unknown(&look.book), ..Report::default() };
        if !report.unknown.is_empty() && !self.quiet {
            tracing::info!(target: "phasewise", names = ?report.unknown, "the ledger has migrations that this build does not know");
            self.tell(&Event::UnknownMigrations { names: &report.unknown });
        }
        let purges = matches!(goal, Goal::Open)
            && look.facts.has_ledger
            && self.any_expired(&look.conn, &look.ledger).await?;
        if !purges && !self.anything_next(&look, goal, false) {
            self.conclude(&mut report, &look, goal, false);
            report.took = begun.elapsed();
            return Ok(report);
        }
        let created = self.found(&mut look).await?;
        let fresh = created || self.assume_fresh;
        report.fresh = fresh;

        let monitor = Monitor::new(self.connector.clone());
        let Some(lease) = self.take_lease(&mut look, &monitor, Some((goal, fresh))).await? else {
            self.conclude(&mut report, &look, goal, fresh);
            report.took = begun.elapsed();
            return Ok(report);
        };
        let mut driver = self.driver(look, monitor, lease, report).await?;
        let driven = driver.go(goal, fresh).await;
        let mut report = driver.end(driven).await?;
        report.took = begun.elapsed();
        Ok(report)
    }

    /// A driver over what was looked at; the lease is given back if its session cannot be.
    pub(super) async fn driver(
        &self,
        look: Look,
        monitor: Arc<Monitor>,
        lease: Lease,
        report: Report,
    ) -> Result<Driver<'_>> {
        let Look { conn, facts, ledger, book: _ } = look;
        match Session::new(conn, facts).await {
            Ok(session) => {
                self.tell(&Event::LeaseTaken { token: lease.fence.token });
                tracing::info!(target: "phasewise", token = lease.fence.token, "driving");
                Ok(Driver {
                    worker: Worker {
                        migrator: self,
                        session,
                        monitor,
                        lease: lease.fence.clone(),
                        ledger,
                        brief: false,
                        cut_off: None,
                    },
                    held: lease,
                    report,
                    created: Default::default(),
                })
            }
            Err(error) => {
                lease.release().await;
                Err(error)
            }
        }
    }

    pub(super) fn judge<'a>(&'a self, look: &'a Look, goal: Goal<'a>) -> Judge<'a> {
        Judge { migrator: self, book: &look.book, schema: &look.facts.scope.schema, goal }
    }

    pub(super) fn unknown(&self, book: &Book) -> Vec<String> {
        book.records.keys().filter(|name| self.migrations.get(name).is_none()).cloned().collect()
    }

    /// The migrations that a goal is about.
    pub(super) fn aims<'a>(&self, goal: Goal<'a>) -> impl Iterator<Item = &'static Entry> + use<'a> {
        let mut over = false;
        self.migrations.iter().take_while(move |entry| {
            let last = over;
            over |= matches!(goal, Goal::To(name, _) if name == entry.name());
            !last
        })
    }

    /// Whether a run would do anything.
    pub(super) fn anything_next(&self, look: &Look, goal: Goal<'_>, fresh: bool) -> bool {
        let lifts = goal.lifts(&look.book, self.migrations);
        // What is refused is refused by the driver.
        lifts.map_or(true, |lifted| lifted.is_some()) || self.anything_to_enter(self.judge(look, goal), fresh)
    }

    /// Whether there is a phase to enter, or a soak at whose beginning statements are counted.
    pub(super) fn anything_to_enter(&self, judge: Judge<'_>, fresh: bool) -> bool {
        let fresh = fresh || self.assume_fresh;
        self.aims(judge.goal).any(|entry| match judge.next(entry, fresh) {
            Next::Enter(_) => true,
            Next::Stop(State::Soaking { .. }) => judge.is_to_be_counted(entry),
            Next::Stop(_) => false,
        })
    }

    /// Whether it is worth waiting for the lease: a build that is about to serve does so only for what it needs.
    fn worth_waiting(&self, look: &Look, goal: Goal<'_>, fresh: bool) -> bool {
        if goal.candidate().is_none() {
            return self.anything_next(look, goal, fresh);
        }
        let judge = self.judge(look, goal);
        let (needed, fresh) = (judge.needed(), fresh || self.assume_fresh);
        self.aims(goal)
            .filter(|entry| needed.contains(entry.name()))
            .any(|entry| matches!(judge.next(entry, fresh), Next::Enter(_)))
    }

    /// Reports where everything stands, without having done anything.
    pub(super) fn conclude(&self, report: &mut Report, look: &Look, goal: Goal<'_>, fresh: bool) {
        let judge = self.judge(look, goal);
        for entry in self.aims(goal) {
            let state = match judge.next(entry, fresh || self.assume_fresh) {
                Next::Stop(state) => state,
                Next::Enter(_) => State::InProgress,
            };
            note(self, report, entry, &look.book, state);
        }
    }

    /// Takes the lease, or waits for it. `None` once another driver has done all that `work` would do.
    pub(super) async fn take_lease(
        &self,
        look: &mut Look,
        monitor: &Arc<Monitor>,
        work: Option<(Goal<'_>, bool)>,
    ) -> Result<Option<Lease>> {
        // Opened first: a pool without a connection to spare must not let the lease expire.
        monitor.conn().await?;
        let begun = Instant::now();
        let mut first = true;
        loop {
            if let Some(lease) =
                Lease::try_take(&look.conn, &look.ledger, monitor, self.lease_time, &self.watch).await?
            {
                return Ok(Some(lease));
            }
            if let Some((goal, fresh)) = work {
                look.book = look.ledger.read(&look.conn).await?;
                if !self.worth_waiting(look, goal, fresh) {
                    return Ok(None);
                }
            }
            if begun.elapsed() >= self.lease_wait {
                let holder = Lease::held_by(&look.conn, &look.ledger).await?;
                return Err(Error::new(
                    Kind::Busy,
                    format!(
                        "another driver holds the lease ({holder}) and did not finish in {:.0} s: wait for it and run again, or raise .lease_wait(…)",
                        self.lease_wait.as_secs_f64()
                    ),
                ));
            }
            // Again and again: a driver that begins to wait for a person only now must hear of it too.
            if work.is_none_or(|(goal, _)| goal.candidate().is_some()) {
                look.ledger.want(&look.conn).await?;
            }
            if first {
                // It is there, if somebody holds it.
                Lease::held_by(&look.conn, &look.ledger).await?;
                tracing::info!(target: "phasewise", "another driver is at work; waiting for it");
                first = false;
            }
            sleep(Duration::from_millis(fastrand::u64(50..250))).await;
        }
    }
}

/// Puts a migration's standing into the report.
pub(super) fn note(migrator: &Migrator, report: &mut Report, entry: &Entry, book: &Book, state: State) {
    if matches!(
        state,
        State::Waiting { .. }
            | State::Settling { .. }
            | State::HeldUp { .. }
            | State::Soaking { .. }
            | State::Referenced { .. }
            | State::Paused
    ) && !migrator.quiet
    {
        tracing::info!(target: "phasewise", migration = entry.name(), %state, "not further for now");
        migrator.tell(&Event::Waiting { migration: entry.name(), state: &state });
    }
    let standing = report.of(entry.name());
    let here = book.record(entry.name()).and_then(|record| entry.standing(record.entered));
    standing.phase = here.map(|info| info.name.to_owned());
    standing.state = state;
}
