//! Driving migrations forward.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::Instrument as _;

use super::connect::{Conn, Sql as _, get, text};
use super::driver::Driver;
use super::events::Event;
use super::gates::{Goal, Judge, Next};
use super::lease::Lease;
use super::ledger::{At, Book, Direction, Ledger, Record};
use super::monitor::Monitor;
use super::planning;
use super::report::Report;
use super::session::{Facts, Session};
use super::settings::Migrator;
use super::status::State;
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
        self.drive_in_span(goal).instrument(span).await
    }

    async fn drive_in_span(&self, goal: Goal<'_>) -> Result<Report> {
        let begun = Instant::now();
        let mut look = self.look().await?;
        self.judge(&look, goal).unchanged()?;
        let mut report = Report { unknown: self.unknown(&look.book), ..Report::default() };
        if !report.unknown.is_empty() {
            tracing::info!(target: "phasewise", names = ?report.unknown, "the ledger has migrations that this build does not know");
            self.tell(&Event::UnknownMigrations { names: &report.unknown });
        }
        if !self.anything_next(&look, goal, false) {
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
                self.tell(&Event::LeaseTaken { token: lease.token });
                tracing::info!(target: "phasewise", token = lease.token, "driving");
                Ok(Driver {
                    migrator: self,
                    session,
                    monitor,
                    lease,
                    ledger,
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

    fn unknown(&self, book: &Book) -> Vec<String> {
        book.records.keys().filter(|name| self.migrations.get(name).is_none()).cloned().collect()
    }

    /// The migrations that a goal is about.
    fn aims<'a>(&self, goal: Goal<'a>) -> impl Iterator<Item = &'static Entry> + use<'a> {
        let mut over = false;
        self.migrations.iter().take_while(move |entry| {
            let last = over;
            over |= matches!(goal, Goal::To(name, _) if name == entry.name());
            !last
        })
    }

    /// Whether a run would do anything.
    fn anything_next(&self, look: &Look, goal: Goal<'_>, fresh: bool) -> bool {
        let judge = self.judge(look, goal);
        let fresh = fresh || self.assume_fresh;
        let lifts =
            matches!(goal, Goal::To(name, _) if look.book.record(name).is_some_and(|record| record.paused));
        lifts || self.aims(goal).any(|entry| matches!(judge.next(entry, fresh), Next::Enter(_)))
    }

    /// Reports where everything stands, without having done anything.
    fn conclude(&self, report: &mut Report, look: &Look, goal: Goal<'_>, fresh: bool) {
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
            if let Some(lease) = Lease::try_take(&look.conn, &look.ledger, monitor, self.lease_time).await? {
                return Ok(Some(lease));
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
            if first {
                tracing::info!(target: "phasewise", "another driver is at work; waiting for it");
                first = false;
            }
            sleep(Duration::from_millis(fastrand::u64(50..250))).await;
            if let Some((goal, fresh)) = work {
                look.book = look.ledger.read(&look.conn).await?;
                if !self.anything_next(look, goal, fresh) {
                    return Ok(None);
                }
            }
        }
    }
}

/// Puts a migration's standing into the report.
fn note(migrator: &Migrator, report: &mut Report, entry: &Entry, book: &Book, state: State) {
    if matches!(state, State::Waiting { .. } | State::HeldUp { .. } | State::Soaking { .. } | State::Paused) {
        tracing::info!(target: "phasewise", migration = entry.name(), %state, "not further for now");
        migrator.tell(&Event::Waiting { migration: entry.name(), state: &state });
    }
    let standing = report.of(entry.name());
    standing.phase = book
        .record(entry.name())
        .and_then(|record| record.entered.checked_sub(1))
        .and_then(|at| entry.phases().get(at))
        .map(|info| info.name.to_owned());
    standing.state = state;
}

impl Driver<'_> {
    /// Gives the lease back and closes, whatever came out.
    pub(super) async fn end(self, result: Result<()>) -> Result<Report> {
        let Self { session, lease, report, .. } = self;
        session.close();
        lease.release().await;
        result.map(|()| report)
    }

    async fn go(&mut self, goal: Goal<'_>, fresh: bool) -> Result<()> {
        let book = self.ledger.read(&self.session).await?;
        self.judge(&book, goal).unchanged()?;
        if let Goal::To(name, _) = goal {
            self.ledger.set_paused(&self.session, name, false).await?;
        }
        let migrator = self.migrator;
        for entry in migrator.aims(goal) {
            let span = tracing::info_span!(target: "phasewise", "migration", name = entry.name());
            self.advance(entry, goal, fresh).instrument(span).await?;
        }
        Ok(())
    }

    fn judge<'a>(&'a self, book: &'a Book, goal: Goal<'a>) -> Judge<'a> {
        Judge { migrator: self.migrator, book, schema: &self.session.facts.scope.schema, goal }
    }

    /// Takes one migration as far as it may go.
    async fn advance(&mut self, entry: &'static Entry, goal: Goal<'_>, fresh: bool) -> Result<()> {
        let begun = Instant::now();
        let mut absent = Vec::new();
        loop {
            let book = self.ledger.read(&self.session).await?;
            let fresh = fresh || self.is_of_this_run(entry);
            match self.judge(&book, goal).next(entry, fresh) {
                Next::Enter(index) => {
                    if index == 0 && !book.record(entry.name()).is_some_and(Record::begun) {
                        absent = self.absent(entry).await?;
                        let scope = &self.session.facts.scope;
                        planning::refuse_early(&self.session, scope, entry).await?;
                    }
                    let phase = entry.phases().get(index).map_or("?", |info| info.name);
                    let span = tracing::info_span!(target: "phasewise", "phase", name = phase);
                    self.enter(entry, index).instrument(span).await?;
                }
                Next::Stop(state) => {
                    if state == State::Applied {
                        self.created.append(&mut absent.into_iter().collect());
                    }
                    note(self.migrator, &mut self.report, entry, &book, state);
                    self.report.of(entry.name()).took = begun.elapsed();
                    return Ok(());
                }
            }
        }
    }

    /// Whether earlier migrations of this run created all that `entry` touches.
    fn is_of_this_run(&self, entry: &Entry) -> bool {
        let touches = entry.touches();
        !touches.everything
            && touches.tables().next().is_some()
            && touches
                .tables
                .iter()
                .all(|touched| touched.created || self.created.contains(&self.place(touched.table)))
            && touches.tables.iter().any(|touched| !touched.created)
    }

    fn place(&self, table: crate::ident::TableName) -> (String, String) {
        let schema =
            table.schema().map_or(self.session.facts.scope.schema.as_str(), |schema| schema.as_str());
        (schema.to_owned(), table.name().as_str().to_owned())
    }

    /// Which of the tables that `entry` creates are not there yet.
    async fn absent(&self, entry: &Entry) -> Result<Vec<(String, String)>> {
        let mut absent = Vec::new();
        for touched in entry.touches().tables.iter().filter(|touched| touched.created) {
            let (schema, name) = self.place(touched.table);
            let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                        WHERE n.nspname = $1 AND c.relname = $2) AS found";
            let rows = self.session.ask(sql, &[text(&schema), text(&name)]).await?;
            if !rows.first().map_or(Ok(true), |row| get::<bool>(row, "found"))? {
                absent.push((schema, name));
            }
        }
        Ok(absent)
    }

    /// Enters one phase, or goes on entering it.
    async fn enter(&mut self, entry: &'static Entry, index: usize) -> Result<()> {
        let Some(info) = entry.phases().get(index) else { return Ok(()) };
        let (migration, phase) = (entry.name(), info.name);
        let begun = Instant::now();
        let at = At { migration, phase, direction: Direction::Forward };
        let saved = self.ledger.saved(&self.session, migration).await?;
        let scope = self.session.facts.scope.clone();
        let steps = planning::enter(&self.session, &scope, entry, index, &saved).await?;

        self.begin(self.own_timeouts()).await?;
        let moved = self.set_off(entry, index, at).await;
        self.finish(moved).await?;
        let (number, of) = (index + 1, entry.phases().len());
        tracing::info!(target: "phasewise", migration, phase, number, of, "entering");
        self.migrator.tell(&Event::PhaseEntering { migration, phase, number, of });

        self.run_steps(at, &steps).await?;

        let took = begun.elapsed();
        self.begin(self.own_timeouts()).await?;
        let arrived = self.ledger.arrive(&self.session, at, index + 1, took.as_secs_f64()).await;
        self.finish(arrived).await?;
        self.report.of(migration).entered.push(phase.to_owned());
        tracing::info!(target: "phasewise", migration, phase, number, of, "entered");
        self.migrator.tell(&Event::PhaseEntered { migration, phase, took });
        Ok(())
    }

    /// Says in the ledger that a phase is being entered, unless a live instance could not stand it.
    async fn set_off(&self, entry: &Entry, index: usize, at: At<'_>) -> Result<()> {
        self.ledger.put(&self.session, entry).await?;
        self.ledger.lock(&self.session, entry.name(), "UPDATE").await?;
        let book = self.ledger.read(&self.session).await?;
        let record = self.ledger.listed(book.record(entry.name()), entry.name())?;
        if record.entered == index && record.moving == Some(Direction::Forward) {
            return Ok(());
        }
        if record.moving == Some(Direction::Back) {
            // The rollback is given up: what it noted does not hold any more.
            self.ledger.forget(&self.session, at).await?;
        }
        self.stand(entry, record, &book, index, index + 1)?;
        self.ledger.set_moving(&self.session, entry.name(), index, Direction::Forward).await
    }

    /// Refuses to move between two places where an instance is live that one of them does not allow.
    pub(super) fn stand(
        &self,
        entry: &Entry,
        record: &Record,
        book: &Book,
        from: usize,
        to: usize,
    ) -> Result<()> {
        for instance in &book.instances {
            let release = instance.release(entry.name());
            if !record.window_at(from).contains(release) || !record.window_at(to).contains(release) {
                let name = |entered: usize| {
                    entered
                        .checked_sub(1)
                        .and_then(|at| entry.phases().get(at))
                        .map_or("the start", |info| info.name)
                };
                return Err(Error::new(
                    Kind::OutsideWindow,
                    format!(
                        "migration {}: instance {} of {} speaks release {release}, which cannot live between {} (window {}) and {} (window {}): stop it or deploy another release, then try again",
                        entry.name(),
                        instance.id,
                        instance.service,
                        name(from),
                        record.window_at(from),
                        name(to),
                        record.window_at(to),
                    ),
                ));
            }
        }
        Ok(())
    }
}
