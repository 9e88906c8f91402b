//! The driver's way forward: from phase to phase.

use std::time::Instant;

use tracing::Instrument as _;

use super::backfill::unregistered;
use super::connect::{Sql as _, get, text};
use super::drive::note;
use super::driver::Driver;
use super::events::Event;
use super::gates::{Goal, Judge, Next};
use super::ledger::{At, Book, Direction, Record};
use super::planning;
use super::report::Report;
use super::status::State;
use crate::error::{Error, Kind, Result};
use crate::migration::Entry;

impl Driver<'_> {
    /// Gives the lease back and closes, whatever came out.
    pub(super) async fn end(self, result: Result<()>) -> Result<Report> {
        let Self { worker, held, report, .. } = self;
        worker.session.close();
        held.release().await;
        result.map(|()| report)
    }

    pub(super) async fn go(&mut self, goal: Goal<'_>, fresh: bool) -> Result<()> {
        let book = self.ledger.read(&self.session).await?;
        self.judge(&book, goal).unchanged()?;
        if let Some(name) = goal.lifts(&book, self.migrator.migrations)? {
            self.begin(self.own_timeouts()).await?;
            let lifted = self.ledger.set_paused(&self.session, name, false).await;
            self.finish(lifted).await?;
        }
        let migrator = self.migrator;
        for entry in migrator.aims(goal) {
            let span = tracing::info_span!(target: "phasewise", "migration", name = entry.name());
            self.advance(entry, goal, fresh).instrument(span).await?;
        }
        Ok(())
    }

    pub(super) fn judge<'a>(&'a self, book: &'a Book, goal: Goal<'a>) -> Judge<'a> {
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
                    let shut = if fresh { None } else { self.referenced(entry, index, &book).await? };
                    if let Some(state) = shut {
                        note(self.migrator, &mut self.report, entry, &book, state);
                        self.report.of(entry.name()).took = begun.elapsed();
                        return Ok(());
                    }
                    if index == 0 && !book.record(entry.name()).is_some_and(Record::begun) {
                        absent = self.absent(entry).await?;
                        let scope = &self.session.facts.scope;
                        let computes = planning::refuse_early(&self.session, scope, entry).await?;
                        let given = self.migrator.functions.contains_key(entry.name());
                        if let Some(column) = computes.first().filter(|_| !given) {
                            return Err(unregistered(entry.name(), column));
                        }
                    }
                    let phase = entry.phases().get(index).map_or("?", |info| info.name);
                    let span = tracing::info_span!(target: "phasewise", "phase", name = phase);
                    self.enter(entry, index).instrument(span).await?;
                }
                Next::Stop(state) => {
                    if matches!(state, State::Soaking { .. }) {
                        self.begin_to_compare(entry, &book).await?;
                    }
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

        let book = self.ledger.read(&self.session).await?;
        let turned = book.record(migration).is_some_and(|record| record.moving == Some(Direction::Back));
        let stale = if turned { self.given_up(entry, index, at).await? } else { Vec::new() };

        self.begin(self.own_timeouts()).await?;
        let moved = self.set_off(entry, index, at, &stale).await;
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
    async fn set_off(
        &self,
        entry: &Entry,
        index: usize,
        at: At<'_>,
        stale: &[(Direction, String)],
    ) -> Result<()> {
        self.ledger.put(&self.session, entry).await?;
        self.ledger.lock(&self.session, entry.name(), "UPDATE").await?;
        let book = self.ledger.read(&self.session).await?;
        let record = self.ledger.listed(book.record(entry.name()), entry.name())?;
        if record.entered == index && record.moving == Some(Direction::Forward) {
            return Ok(());
        }
        if record.moving == Some(Direction::Back) {
            // The rollback is given up.
            self.ledger.forget_loops(&self.session, at).await?;
            for (direction, step) in stale {
                self.ledger.forget_note(&self.session, At { direction: *direction, ..at }, step).await?;
            }
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
