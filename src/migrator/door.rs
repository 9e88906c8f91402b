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
    /// The first migration beside which an instance may not serve: one that has gone beyond it, if there is any, since
    /// nothing mends that.
    pub(super) fn refusal(&self, book: &Book, candidate: &Candidate) -> Option<Refusal> {
        let judge = self.judge_for(book, candidate);
        let unlisted = book.records.values().filter(|record| self.migrations.get(&record.name).is_none());
        let listed = self.migrations.iter().filter_map(|entry| judge.refuse_listed(entry, candidate));
        let all = listed.chain(unlisted.filter_map(|record| judge.refuse_unlisted(record, candidate)));
        // `false` comes first, and of equals the first.
        all.min_by_key(|refusal| refusal.misfit != Misfit::TooOld)
    }

    /// The first migration that has no room for this instance yet, and waits for what the instance cannot bring about.
    pub(super) fn waits_in_vain(&self, book: &Book, candidate: &Candidate) -> Option<Refusal> {
        let judge = self.judge_for(book, candidate);
        self.migrations.iter().find_map(|entry| {
            let refusal = judge.refuse_listed(entry, candidate)?;
            let up_to = (!entry.is_counted_on()).then_some(entry.release());
            let shut = judge.shut_before(entry, up_to).filter(|_| refusal.misfit == Misfit::TooNew)?;
            Some(judge.too_new(entry, &shut))
        })
    }

    fn judge_for<'a>(&'a self, book: &'a Book, candidate: &'a Candidate) -> Judge<'a> {
        Judge { migrator: self, book, schema: candidate.schema.as_str(), goal: Goal::Serve(candidate) }
    }
}

/// A gate that keeps a migration from going on.
struct Shut {
    state: State,
    /// The newest release that may run before it.
    newest: u16,
}

impl Judge<'_> {
    /// Whether code counts on it, without a word, and it is not done. What does not say what it is about must not keep builds
    /// out for as long as another one soaks.
    pub(super) fn is_missed(&self, entry: &Entry) -> bool {
        let done = self.book.record(entry.name()).is_some_and(Record::done);
        let is_held = || {
            matches!(self.next(entry, self.migrator.assume_fresh), Next::Stop(State::HeldUp { .. }))
                && self.shut_before(entry, None).is_some()
        };
        entry.is_counted_on() && !done && !(entry.touches().everything && is_held())
    }

    /// The first gate between here and `release`, or the end, that others than this instance keep shut.
    fn shut_before(&self, entry: &Entry, release: Option<u16>) -> Option<Shut> {
        let fresh = self.migrator.assume_fresh;
        let is_shut =
            |state: &State| matches!(state, State::Waiting { .. } | State::Soaking { .. } | State::Paused);
        let shut = |state: State, newest: u16| Some(Shut { state, newest });
        let here = self.book.window(entry.name()).hi;
        match self.next(entry, fresh) {
            Next::Stop(State::HeldUp { by, since }) => {
                let other = self.migrator.migrations.get(&by);
                if other.is_none_or(|other| self.shut_before(other, None).is_some()) {
                    return shut(State::HeldUp { by, since }, here);
                }
            }
            Next::Stop(state) if is_shut(&state) => return shut(state, here),
            _ => {}
        }
        let entered = self.book.record(entry.name()).map_or(0, |record| record.entered);
        let mut ahead = (entered + 1..entry.phases().len())
            .map_while(|at| entry.standing(at).map(|info| (at, info.window)))
            .take_while(|(_, window)| !release.is_some_and(|release| window.contains(release)));
        ahead.find_map(|(at, window)| {
            shut(self.gate_ahead(entry, at, fresh).filter(|state| is_shut(state))?, window.hi)
        })
    }

    fn refuse_listed(&self, entry: &Entry, candidate: &Candidate) -> Option<Refusal> {
        let release = self.fleet().release(&Subject::of(entry, self.schema), &candidate.instance)?;
        let (name, record) = (entry.name(), self.book.record(entry.name()));
        let window = self.book.window(name);
        if release < window.lo {
            let (phase, lo) = (standing(record), window.lo);
            return Some(Refusal::new(
                Misfit::TooOld,
                name,
                format_args!(
                    "migration {name} stands in {phase}, where releases {window} may run, and this build speaks release {release}: deploy a build that speaks release {lo} or newer; or roll the migration back until its window has release {release} in it"
                ),
            ));
        }
        // What it did without a moment ago, it does without now.
        let missed = !candidate.served && self.is_missed(entry);
        if release <= window.hi && !missed {
            return None;
        }
        let state = self.state(entry, self.migrator.assume_fresh);
        Some(self.too_new(entry, &Shut { state, newest: window.hi }))
    }

    fn too_new(&self, entry: &Entry, shut: &Shut) -> Refusal {
        let (name, release) = (entry.name(), entry.release());
        let phase = standing(self.book.record(name));
        let window = self.book.window(name);
        let lacks = match window.contains(release) {
            true => "and code of a build that lists it counts on all of it".to_owned(),
            false => format!("where releases {window} may run, and this build speaks release {release}"),
        };
        let advice = shut.advice();
        let why = format_args!("migration {name} stands in {phase}, {lacks}: {advice}");
        Refusal::new(Misfit::TooNew, name, why)
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

impl Shut {
    /// What to do about it.
    fn advice(&self) -> String {
        let Self { state, newest } = self;
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
}

/// Whether an error says nothing of whether this build may serve: the windows do.
pub(super) fn leaves_the_windows(book: &Book, error: &Error) -> bool {
    match error.kind() {
        Kind::Busy
        | Kind::LeaseLost
        | Kind::Locked
        | Kind::Backfill
        | Kind::Step
        | Kind::GateClosed
        | Kind::OutsideWindow
        // Those that may are others, such as a job.
        | Kind::Permission => true,
        // Planning took it once, so what it refuses now came later: no reason for those that run to be unable to start
        // again.
        Kind::Conflict | Kind::Missing | Kind::Unsupported => {
            let record = error.migration().and_then(|name| book.record(name));
            record.is_some_and(Record::begun)
        }
        _ => false,
    }
}

fn standing(record: Option<&Record>) -> &str {
    record.and_then(Record::here).map_or("no phase yet", |place| &place.name)
}
