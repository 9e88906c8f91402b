//! Who may serve beside the schema as it stands, and what to tell the others.

use super::fleet::{Candidate, Subject};
use super::gates::{Goal, Judge, Next};
use super::ledger::{Book, Record};
use super::settings::Migrator;
use super::status::State;
use crate::error::{Error, Kind};
use crate::migration::Entry;

/// How an instance stands to a migration that it may not serve beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// The schema has gone beyond it: nothing that it could wait for.
    TooOld,
    /// The schema has not come to it yet.
    TooNew,
}

/// Why an instance may not serve.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) misfit: Misfit,
    pub(super) error: Error,
}

impl Refusal {
    fn new(misfit: Misfit, name: &str, why: impl std::fmt::Display) -> Self {
        let error = Error::new(Kind::OutsideWindow, format!("this build may not serve: {why}")).met_by(name);
        Self { misfit, error }
    }

    /// With what else went wrong.
    pub(super) fn besides(self, failed: &Error) -> Error {
        let error = Error::new(self.error.kind(), format!("{}. Besides: {failed}", self.error));
        match self.error.migration() {
            Some(name) => error.met_by(name),
            None => error,
        }
    }
}

impl Migrator {
    /// The first migration beside which an instance may not serve.
    pub(super) fn refusal(&self, book: &Book, candidate: &Candidate) -> Option<Refusal> {
        let judge = self.judge_for(book, candidate);
        let mut unlisted = book.records.values().filter(|record| self.migrations.get(&record.name).is_none());
        self.migrations
            .iter()
            .find_map(|entry| judge.refuse_listed(entry, candidate))
            .or_else(|| unlisted.find_map(|record| judge.refuse_unlisted(record, candidate)))
    }

    /// The first migration that has no room for this instance yet, and waits for what the instance cannot bring about.
    pub(super) fn waits_in_vain(&self, book: &Book, candidate: &Candidate) -> Option<Refusal> {
        let judge = self.judge_for(book, candidate);
        self.migrations.iter().find_map(|entry| {
            let refusal = judge.refuse_listed(entry, candidate);
            let up_to = (!entry.is_counted_on()).then_some(entry.release());
            refusal.filter(|refusal| refusal.misfit == Misfit::TooNew && judge.is_stuck(entry, up_to))
        })
    }

    fn judge_for<'a>(&'a self, book: &'a Book, candidate: &'a Candidate) -> Judge<'a> {
        Judge { migrator: self, book, schema: candidate.schema.as_str(), goal: Goal::Serve(candidate) }
    }
}

impl Judge<'_> {
    /// Whether the build that is about to serve may do so, as far as `entry` is concerned.
    pub(super) fn has_room(&self, entry: &Entry) -> bool {
        self.goal.candidate().is_none_or(|candidate| self.refuse_listed(entry, candidate).is_none())
    }

    /// Whether gates between here and `release`, or the end, are shut by others than this instance.
    fn is_stuck(&self, entry: &Entry, release: Option<u16>) -> bool {
        let fresh = self.migrator.assume_fresh;
        let shut = |state: &State| {
            matches!(state, State::Waiting { .. } | State::Soaking { .. } | State::Paused | State::Changed)
        };
        match self.next(entry, fresh) {
            Next::Stop(State::HeldUp { by, .. }) => {
                let other = self.migrator.migrations.get(&by);
                if other.is_none_or(|other| self.is_stuck(other, None)) {
                    return true;
                }
            }
            Next::Stop(state) if shut(&state) => return true,
            _ => {}
        }
        let entered = self.book.record(entry.name()).map_or(0, |record| record.entered);
        let ahead = (entered + 1..entry.phases().len()).take_while(|at| {
            let window = entry.standing(*at).map(|info| info.window);
            !release.zip(window).is_some_and(|(release, window)| window.contains(release))
        });
        ahead.into_iter().any(|at| self.gate_ahead(entry, at, fresh).is_some_and(|state| shut(&state)))
    }

    fn refuse_listed(&self, entry: &Entry, candidate: &Candidate) -> Option<Refusal> {
        let release = self.fleet().release(&Subject::of(entry, self.schema), &candidate.instance)?;
        let name = entry.name();
        let record = self.book.record(name);
        let (phase, window) = (standing(record), self.book.window(name));
        if release < window.lo {
            let lo = window.lo;
            return Some(Refusal::new(
                Misfit::TooOld,
                name,
                format_args!(
                    "migration {name} stands in {phase}, where releases {window} may run, and this build speaks release {release}: deploy a build that speaks release {lo} or newer; or roll the migration back until its window has release {release} in it"
                ),
            ));
        }
        let state = || self.state(entry, self.migrator.assume_fresh);
        if release > window.hi {
            let advice = advice(&state(), window.hi);
            return Some(Refusal::new(
                Misfit::TooNew,
                name,
                format_args!(
                    "migration {name} stands in {phase}, where releases {window} may run, and this build speaks release {release}: {advice}"
                ),
            ));
        }
        let missed = entry.is_counted_on() && !record.is_some_and(Record::done);
        missed.then(|| {
            let advice = advice(&state(), window.hi);
            Refusal::new(
                Misfit::TooNew,
                name,
                format_args!(
                    "migration {name} stands in {phase}, and code of a build that lists it counts on all of it: {advice}"
                ),
            )
        })
    }

    fn refuse_unlisted(&self, record: &Record, candidate: &Candidate) -> Option<Refusal> {
        let release = self.fleet().release(&Subject::recorded(record), &candidate.instance)?;
        let window = record.window();
        if window.contains(release) {
            return None;
        }
        let (name, retired) = (&record.name, self.migrator.migrations.is_retired(&record.name));
        let advice = if retired {
            "Let it come to its end with a build that lists it, then deploy this one".to_owned()
        } else if record.done() {
            format!(
                "Deploy a build that lists it; or, if the code needs nothing old of it, name it: migrations![…].retired(&[\"{name}\"])"
            )
        } else {
            format!(
                "Deploy a build that lists it and speaks release {} or newer; or roll it back, with a build that lists it, until release {release} may run",
                window.lo
            )
        };
        let says = if retired {
            format!("names migration {name} as retired, which it is not yet")
        } else {
            format!("does not know migration {name}, and not knowing it is release 0")
        };
        let phase = standing(Some(record));
        Some(Refusal::new(
            Misfit::TooOld,
            name,
            format_args!("it {says}. It stands in {phase}, where releases {window} may run. {advice}"),
        ))
    }
}

/// What to do about a migration that has not come far enough for a build.
fn advice(state: &State, newest: u16) -> String {
    let first = "Let it move on first, then deploy this build";
    match state {
        State::Pending => format!("it has not begun. {first}"),
        State::InProgress => format!("it is under way. {first}"),
        State::Paused => {
            "it is paused. Resume it and let it move on first, then deploy this build".to_owned()
        }
        State::Soaking { .. } | State::HeldUp { .. } => format!("it {state}. {first}"),
        state => format!(
            "it {state}. Deploy a build that speaks release {newest} everywhere first, and let the migration move on, then this one"
        ),
    }
}

fn standing(record: Option<&Record>) -> &str {
    record.and_then(Record::here).map_or("no phase yet", |place| &place.name)
}
