//! Driving a migration back.

use std::time::Instant;

use tracing::Instrument as _;

use super::To;
use super::driver::Driver;
use super::events::Event;
use super::gates::{Goal, unchanged};
use super::ledger::{At, Book, Direction, Record};
use super::monitor::Monitor;
use super::planning;
use super::reach::Reach;
use super::report::Report;
use super::settings::{Migrator, phase_of};
use crate::error::{Error, Kind, Result};
use crate::migration::Entry;
use crate::phase::Rollback;

impl Migrator {
    pub(super) async fn take_back(&self, name: &str, to: To<'_>) -> Result<Report> {
        let span = tracing::info_span!(target: "phasewise", "rollback", name);
        Box::pin(self.take_back_in_span(name, to).instrument(span)).await
    }

    async fn take_back_in_span(&self, name: &str, to: To<'_>) -> Result<Report> {
        let begun = Instant::now();
        let entry = self.entry(name)?;
        let mut look = self.look().await?;
        let record = look.ledger.listed(look.book.record(name), name)?;
        unchanged(entry, record)?;
        // Wrong names and targets are refused before waiting for anybody.
        target(entry, record, to)?;
        let monitor = Monitor::new(self.connector.clone());
        let Some(lease) = self.take_lease(&mut look, &monitor, None).await? else {
            return Ok(Report::default());
        };
        let mut driver = self.driver(look, monitor, lease, Report::default()).await?;
        let driven = driver.back(entry, to, begun).await.map_err(|error| error.met_by(name));
        let mut report = driver.end(driven).await?;
        report.took = begun.elapsed();
        Ok(report)
    }
}

/// How many phases stay entered.
fn target(entry: &Entry, record: &Record, to: To<'_>) -> Result<usize> {
    let target = match to {
        To::Start => 0,
        To::Previous => match record.moving {
            // What was half entered is undone; what was half undone is undone wholly.
            Some(Direction::Forward) => record.entered,
            _ => record.entered.saturating_sub(1),
        },
        To::Phase(phase) => phase_of(entry, phase)? + 1,
    };
    if target > record.entered {
        return Err(Error::new(
            Kind::Unknown,
            format!(
                "migration {} cannot be rolled back to a phase that it has not entered: it stands in {}; run_to goes forward",
                entry.name(),
                entry.standing(record.entered).map_or("none", |info| info.name)
            ),
        ));
    }
    Ok(target)
}

impl Driver<'_> {
    async fn back(&mut self, entry: &'static Entry, to: To<'_>, begun: Instant) -> Result<()> {
        let name = entry.name();
        let book = self.ledger.read(&self.session).await?;
        let record = self.ledger.listed(book.record(name), name)?.clone();
        unchanged(entry, &record)?;
        let target = target(entry, &record, to)?;
        let top = match record.moving {
            Some(Direction::Forward) => record.entered + 1,
            _ => record.entered,
        };
        if top > target {
            self.refuse_back(entry, &record, &book, top, target).await?;
            for entered in (target + 1..=top).rev() {
                let phase = entry.phases().get(entered - 1).map_or("?", |info| info.name);
                let span = tracing::info_span!(target: "phasewise", "phase", name = phase);
                self.leave(entry, entered, target).instrument(span).await?;
            }
        }
        let book = self.ledger.read(&self.session).await?;
        let state = self.judge(&book, Goal::Open).state(entry, self.migrator.assume_fresh);
        let report = self.report.of(name);
        report.phase = entry.standing(target).map(|info| info.name.to_owned());
        report.state = state;
        report.took = begun.elapsed();
        Ok(())
    }

    /// Refuses, with nothing touched, what cannot be undone all the way.
    async fn refuse_back(
        &self,
        entry: &'static Entry,
        record: &Record,
        book: &Book,
        top: usize,
        target: usize,
    ) -> Result<()> {
        self.nothing_above(entry, record, book)?;
        for entered in (target + 1..=top).rev() {
            self.stand(entry, record, book, entered, entered - 1)?;
        }
        let saved = self.ledger.saved(&self.session, entry.name()).await?;
        let scope = &self.session.facts.scope;
        for entered in (target + 1..=top).rev() {
            let (name, phase) = (entry.name(), entry.phases().get(entered - 1).map_or("?", |info| info.name));
            let half = entered > record.entered;
            // Also where it is being rolled back already, as one of which nothing ran.
            let under_way = entered == top && record.moving.is_some();
            match planning::rollback(&self.session, scope, entry, entered - 1, &saved).await {
                Ok(Rollback::Irreversible(_))
                    if under_way && self.nothing_ran(entry, entered - 1).await? => {}
                Ok(Rollback::Irreversible(why)) => {
                    let advice = if half {
                        format!(
                            "it is half entered, and part of it is done: mend what failed, and go on with run_to(\"{name}\", \"{phase}\"); where its definition is at fault, correct what is not done yet, and call dangerous_accept_changed(\"{name}\") before"
                        )
                    } else {
                        "write a new migration that goes forward".to_owned()
                    };
                    return Err(Error::new(
                        Kind::Irreversible,
                        format!(
                            "migration {name}, phase {phase} cannot be undone: {}. Nothing was touched; {advice}",
                            why.reason()
                        ),
                    ));
                }
                Ok(Rollback::Steps(steps)) if half => {
                    self.never_happened(entry, entered - 1, &steps).await?;
                }
                Ok(Rollback::Steps(_)) => {}
                // No schema that later rollbacks will have changed makes it reversible.
                Err(error) if entered == top || error.kind() == Kind::Irreversible => return Err(error),
                // Computed over a schema that later rollbacks will have changed: it is asked again in its turn.
                Err(error) => {
                    tracing::debug!(target: "phasewise", phase, %error, "its rollback cannot be computed yet")
                }
            }
        }
        Ok(())
    }

    /// Refuses while a later migration stands on what would be undone.
    fn nothing_above(&self, entry: &'static Entry, record: &Record, book: &Book) -> Result<()> {
        let (name, touches) = (entry.name(), entry.touches());
        let schema = &self.session.facts.scope.schema;
        let later = self
            .migrator
            .migrations
            .iter()
            .skip_while(|other| other.name() != name)
            .skip(1)
            .filter(|later| book.record(later.name()).is_some_and(Record::begun))
            .find(|later| later.touches().overlaps(&touches, schema));
        if let Some(later) = later {
            let vague = match (touches.everything, later.touches().everything) {
                (true, _) => Some(name),
                (_, true) => Some(later.name()),
                _ => None,
            };
            let around = vague.map_or_else(String::new, |vague| {
                format!(
                    ". {vague} does not say what it touches, so it touches everything: if it has nothing to do with the other, add .touches(&[…]) to it"
                )
            });
            return Err(Error::new(
                Kind::HeldBack,
                format!(
                    "migration {name} cannot be rolled back under {later}, which came later, has begun, and touches the same: roll that one back first, rollback(\"{later}\", To::Start){around}",
                    later = later.name()
                ),
            ));
        }
        let reach = Reach::of(&touches, schema);
        let unknown = book.records.values().find(|other| {
            other.begun()
                && other.first_seen > record.first_seen
                && self.migrator.migrations.get(&other.name).is_none()
                && (reach.everything || other.reach.everything || other.reach.overlaps(&reach))
        });
        if let Some(unknown) = unknown {
            return Err(Error::new(
                Kind::HeldBack,
                format!(
                    "migration {name} cannot be rolled back under {unknown}, which came later, has begun, and touches the same: roll that one back first, with a build that lists it",
                    unknown = unknown.name
                ),
            ));
        }
        Ok(())
    }

    /// Rolls back the last of `entered` phases.
    async fn leave(&mut self, entry: &'static Entry, entered: usize, target: usize) -> Result<()> {
        let Some(info) = entry.phases().get(entered - 1) else { return Ok(()) };
        let (migration, phase) = (entry.name(), info.name);
        let begun = Instant::now();
        let at = At { migration, phase, direction: Direction::Back };
        let saved = self.ledger.saved(&self.session, migration).await?;
        let scope = self.session.facts.scope.clone();
        let book = self.ledger.read(&self.session).await?;
        let moving = self.ledger.listed(book.record(migration), migration)?.moving;
        let half = moving == Some(Direction::Forward);
        let steps = match planning::rollback(&self.session, &scope, entry, entered - 1, &saved).await? {
            Rollback::Steps(steps) => steps,
            Rollback::Irreversible(_) if moving.is_some() && self.nothing_ran(entry, entered - 1).await? => {
                Vec::new()
            }
            Rollback::Irreversible(why) => {
                return Err(Error::new(
                    Kind::Irreversible,
                    format!(
                        "migration {migration}, phase {phase} cannot be undone: {}. The phases after it were rolled back; run_to goes forward again",
                        why.reason()
                    ),
                ));
            }
        };

        let unneeded = if half { self.never_happened(entry, entered - 1, &steps).await? } else { Vec::new() };

        self.begin(self.own_timeouts()).await?;
        let moved = async {
            // As if they were done: there is nothing for them to undo.
            for step in &unneeded {
                self.ledger.note(&self.session, at, step).await?;
            }
            self.turn(entry, entered, target).await
        }
        .await;
        self.finish(moved).await?;
        tracing::info!(target: "phasewise", migration, phase, "rolling back");
        self.migrator.tell(&Event::PhaseRollingBack { migration, phase });

        self.run_steps(at, &steps).await?;

        let took = begun.elapsed();
        self.begin(self.own_timeouts()).await?;
        let arrived = self.ledger.arrive(&self.session, at, entered - 1, took.as_secs_f64()).await;
        self.finish(arrived).await?;
        self.report.of(migration).left.push(phase.to_owned());
        tracing::info!(target: "phasewise", migration, phase, "rolled back");
        self.migrator.tell(&Event::PhaseRolledBack { migration, phase, took });
        Ok(())
    }

    /// Says in the ledger that a phase is being rolled back, and that the migration is held.
    async fn turn(&self, entry: &Entry, entered: usize, target: usize) -> Result<()> {
        let name = entry.name();
        self.ledger.lock(&self.session).await?;
        let book = self.ledger.read(&self.session).await?;
        let record = self.ledger.listed(book.record(name), name)?;
        let resumed = record.entered == entered && record.moving == Some(Direction::Back);
        if !resumed {
            self.stand(entry, record, &book, entered, entered - 1)?;
            self.ledger.set_moving(&self.session, name, entered, Direction::Back).await?;
        }
        self.ledger.set_paused(&self.session, name, true).await?;
        // They vouched for a fleet that the way back has to send away again.
        for info in entry.phases().iter().skip(target.saturating_sub(1)) {
            self.ledger.withdraw(&self.session, name, info.name).await?;
        }
        self.ledger.forget_references(&self.session, name).await?;
        Ok(())
    }
}
