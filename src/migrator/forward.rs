//! The driver's way forward: from phase to phase.

use std::time::Instant;

use tracing::Instrument as _;

use super::backfill::unregistered;
use super::connect::{Sql as _, get, text};
use super::door::leaves_the_windows;
use super::drive::note;
use super::driver::Driver;
use super::events::Event;
use super::fleet::Subject;
use super::gates::{Goal, Judge, Next};
use super::ledger::{At, Book, Direction, Record};
use super::planning;
use super::reach::Reach;
use super::report::Report;
use super::status::State;
use crate::error::{Error, Kind, Result};
use crate::ident::quote;
use crate::migration::Entry;
use crate::step::{Action, Step};

/// Tables of no more bytes than this are gone through in a blink.
const BRIEF: i64 = 8 * 1024 * 1024;

/// What became of entering a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entered {
    Yes,
    /// Not yet: its gate has shut.
    Not,
    /// That may take long, and is left to others.
    Later,
}

fn qualified(schema: &str, table: &str) -> String {
    format!("{}.{}", quote(schema), quote(table))
}

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
        let mut failed = None;
        for entry in migrator.aims(goal) {
            let name = entry.name();
            let span = tracing::info_span!(target: "phasewise", "migration", name);
            let Err(error) = self.advance(entry, goal, fresh).instrument(span).await else { continue };
            let error = error.met_by(name);
            if !self.goes_on_after(entry, &error, goal).await {
                // That somebody else has the lease now is less to know.
                return Err(failed.filter(|_| error.kind() == Kind::Busy).unwrap_or(error));
            }
            tracing::warn!(target: "phasewise", migration = name, %error, "it stands still; those that do not touch the same go on");
            failed.get_or_insert(error);
        }
        if matches!(goal, Goal::Open) {
            // Boxed: seldom needed, and every future of a run would be as large.
            Box::pin(self.purge_expired()).await?;
        }
        if let Goal::To(name, last) = goal {
            // Those before it were to come along, no more.
            let book = self.ledger.read(&self.session).await?;
            if book.record(name).is_some_and(|record| record.entered > last) {
                return Ok(());
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Whether other migrations may move although one has failed: the failure is its own, and if a build is about to serve,
    /// it needs another one and not that. One that will not be let in must not open gates.
    async fn goes_on_after(&self, entry: &Entry, error: &Error, goal: Goal<'_>) -> bool {
        let own = matches!(
            error.kind(),
            Kind::Definition
                | Kind::Missing
                | Kind::Conflict
                | Kind::Unsupported
                | Kind::Permission
                | Kind::Locked
                | Kind::GateClosed
                | Kind::OutsideWindow
                | Kind::Backfill
                | Kind::Step
        );
        if !own || goal.candidate().is_none() {
            return own;
        }
        let Ok(book) = self.ledger.read(&self.session).await else { return false };
        let needed = self.judge(&book, goal).needed();
        leaves_the_windows(&book, error) && !needed.is_empty() && !needed.contains(entry.name())
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
                    // A build that is about to serve does not wait for what it can do without.
                    let needed = self.judge(&book, goal).needed().contains(entry.name());
                    let brief = goal.candidate().is_some() && !needed;
                    if self.enter(entry, index, goal, fresh, brief).instrument(span).await? == Entered::Later
                    {
                        note(self.migrator, &mut self.report, entry, &book, State::InProgress);
                        self.report.of(entry.name()).took = begun.elapsed();
                        return Ok(());
                    }
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

    /// Enters one phase, or goes on entering it. `brief`: not if that may take long.
    async fn enter(
        &mut self,
        entry: &'static Entry,
        index: usize,
        goal: Goal<'_>,
        fresh: bool,
        brief: bool,
    ) -> Result<Entered> {
        let Some(info) = entry.phases().get(index) else { return Ok(Entered::Later) };
        let (migration, phase) = (entry.name(), info.name);
        let begun = Instant::now();
        let at = At { migration, phase, direction: Direction::Forward };
        let saved = self.ledger.saved(&self.session, migration).await?;
        let scope = self.session.facts.scope.clone();
        let steps = planning::enter(&self.session, &scope, entry, index, &saved).await?;

        if brief && self.is_long(&steps).await? {
            return Ok(Entered::Later);
        }

        let book = self.ledger.read(&self.session).await?;
        let turned = book.record(migration).is_some_and(|record| record.moving == Some(Direction::Back));
        let stale = if turned { self.given_up(entry, index, at).await? } else { Vec::new() };

        self.begin(self.own_timeouts()).await?;
        let moved = self.set_off(entry, index, at, &stale, goal, fresh).await;
        if !self.finish(moved).await? {
            // It is judged again.
            return Ok(Entered::Not);
        }
        let (number, of) = (index + 1, entry.phases().len());
        tracing::info!(target: "phasewise", migration, phase, number, of, "entering");
        self.migrator.tell(&Event::PhaseEntering { migration, phase, number, of });

        self.worker.brief = brief;
        let ran = self.run_steps(at, &steps).await;
        self.worker.brief = false;
        match ran {
            // Its batches would have had to wait.
            Err(error) if brief && error.kind() == Kind::Busy => return Ok(Entered::Later),
            ran => ran?,
        }

        let took = begun.elapsed();
        self.begin(self.own_timeouts()).await?;
        let arrived = self.ledger.arrive(&self.session, at, index + 1, took.as_secs_f64()).await;
        self.finish(arrived).await?;
        self.report.of(migration).entered.push(phase.to_owned());
        tracing::info!(target: "phasewise", migration, phase, number, of, "entered");
        self.migrator.tell(&Event::PhaseEntered { migration, phase, took });
        Ok(Entered::Yes)
    }

    /// Whether steps may take long: they go through a table, and it is not small; or they build an index,
    /// which waits for every older snapshot in the database, and there is one.
    async fn is_long(&self, steps: &[Step]) -> Result<bool> {
        if steps.iter().any(|step| matches!(step.action, Action::BuildIndex(_))) {
            let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity
                                       WHERE datname = current_database() AND pid <> pg_backend_pid()
                                         AND coalesce(backend_type, 'client backend') = 'client backend'
                                         AND xact_start < clock_timestamp() - interval '1 s') AS found";
            let rows = self.session.ask(sql, &[]).await?;
            if rows.first().map_or(Ok(false), |row| get::<bool>(row, "found"))? {
                return Ok(true);
            }
        }
        let through = steps.iter().flat_map(|step| match &step.action {
            Action::Batches(batches) => vec![qualified(&batches.schema, &batches.table)],
            Action::BuildIndex(build) => vec![qualified(&build.schema, &build.table)],
            _ if step.scans => step.locks.iter().map(|lock| lock.relation.clone()).collect(),
            _ => Vec::new(),
        });
        let relations: Vec<String> = through.collect();
        if relations.is_empty() {
            return Ok(false);
        }
        let rows = self
            .session
            .ask(
                "SELECT coalesce(sum(pg_catalog.pg_relation_size(t.relid)), 0)::int8 AS size
                   FROM (SELECT DISTINCT unnest($1::text[]) AS relation) w,
                        LATERAL (SELECT to_regclass(w.relation) AS relid
                                  UNION SELECT p.relid FROM pg_catalog.pg_partition_tree(to_regclass(w.relation)) p) t
                  WHERE t.relid IS NOT NULL",
                &[(&relations, tokio_postgres::types::Type::TEXT_ARRAY)],
            )
            .await?;
        Ok(rows.first().map_or(Ok(0), |row| get::<i64>(row, "size"))? > BRIEF)
    }

    /// Says in the ledger that a phase is being entered. `false`: an instance has joined meanwhile, or a person said
    /// something, and it may not.
    async fn set_off(
        &self,
        entry: &Entry,
        index: usize,
        at: At<'_>,
        stale: &[(Direction, String)],
        goal: Goal<'_>,
        fresh: bool,
    ) -> Result<bool> {
        self.ledger.lock(&self.session).await?;
        let reach = Reach::of(&entry.touches(), &self.session.facts.scope.schema);
        self.ledger.put(&self.session, entry, &reach).await?;
        let book = self.ledger.read(&self.session).await?;
        if self.judge(&book, goal).next(entry, fresh) != Next::Enter(index) {
            return Ok(false);
        }
        let record = self.ledger.listed(book.record(entry.name()), entry.name())?;
        if record.entered == index && record.moving == Some(Direction::Forward) {
            return Ok(true);
        }
        if record.moving == Some(Direction::Back) {
            // The rollback is given up.
            self.ledger.forget_loops(&self.session, at).await?;
            for (direction, step) in stale {
                self.ledger.forget_note(&self.session, At { direction: *direction, ..at }, step).await?;
            }
        }
        self.stand(entry, record, &book, index, index + 1)?;
        self.ledger.set_moving(&self.session, entry.name(), index, Direction::Forward).await?;
        Ok(true)
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
        let subject = Subject::of(entry, &self.session.facts.scope.schema);
        let fleet = self.migrator.fleet(book, None);
        for (instance, release) in fleet.members(&subject) {
            if !record.window_at(from).contains(release) || !record.window_at(to).contains(release) {
                let name = |entered: usize| entry.standing(entered).map_or("the start", |info| info.name);
                return Err(Error::new(
                    Kind::OutsideWindow,
                    format!(
                        "migration {}: {}, which cannot live between {} (window {}) and {} (window {}): stop it or deploy another release, then try again",
                        entry.name(),
                        fleet.in_the_way(instance, release),
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
