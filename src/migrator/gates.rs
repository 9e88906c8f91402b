//! What is next for a migration: judged from the ledger alone.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::fleet::{Candidate, Fleet, InTheWay, Subject, list};
use super::ledger::{Book, Direction, Record};
use super::reach::Reach;
use super::settings::Migrator;
use super::status::State;
use crate::error::{Error, Kind, Result};
use crate::migration::{Entry, Migrations};

/// What is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The phase of this index, from 0, is entered or resumed.
    Enter(usize),
    /// Nothing, for this reason.
    Stop(State),
}

/// What a run asks for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal<'a> {
    /// As far as the gates are open.
    Open,
    /// As far as the gates are open for a build that is about to serve, and counts as if it did.
    Serve(&'a Candidate),
    /// One migration up to the phase of this index, and those before it.
    To(&'a str, usize),
}

impl<'a> Goal<'a> {
    pub(super) fn candidate(self) -> Option<&'a Candidate> {
        match self {
            Self::Serve(candidate) => Some(candidate),
            Self::Open | Self::To(..) => None,
        }
    }

    fn is_for(self, entry: &Entry) -> bool {
        matches!(self, Self::To(name, _) if name == entry.name())
    }

    /// The migration whose hold it lifts, if it is about to move. Refuses to go back.
    pub(super) fn lifts(self, book: &Book, migrations: &Migrations) -> Result<Option<&'a str>> {
        let Self::To(name, last) = self else { return Ok(None) };
        let Some(record) = book.record(name) else { return Ok(None) };
        let standing = record.entered.saturating_sub(usize::from(record.moving == Some(Direction::Back)));
        let beyond = standing + usize::from(record.moving == Some(Direction::Forward));
        if record.begun() && beyond > last + 1 {
            let phase = |index: usize| {
                migrations.get(name).and_then(|entry| entry.phases().get(index)).map_or("?", |info| info.name)
            };
            let (goal, here) = (phase(last), phase(beyond - 1));
            return Err(Error::new(
                Kind::Unknown,
                format!(
                    "migration {name} cannot be run to {goal}, which lies behind: it has come to {here}. Call rollback(\"{name}\", \"{goal}\") to go back to it"
                ),
            ));
        }
        Ok((record.paused && standing < last + 1).then_some(name))
    }
}

/// Whether one of two migrations that touch the same, neither of them done, goes before the other (`mine`): the one
/// that is in flight, wherever in the list it is; else the one that is listed `earlier`.
pub(super) fn goes_first(earlier: bool, begun: bool, mine: bool) -> bool {
    if begun == mine { earlier } else { begun }
}

/// Where a migration stands, or would.
#[derive(Clone, Copy, Debug)]
struct Here {
    /// Phases entered.
    entered: usize,
    since: DateTime<Utc>,
    /// When the last use was over of what the next phase takes away.
    last_use: DateTime<Utc>,
}

/// Judges the migrations of a build.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judge<'a> {
    pub(super) migrator: &'a Migrator,
    pub(super) book: &'a Book,
    pub(super) schema: &'a str,
    pub(super) goal: Goal<'a>,
}

impl Judge<'_> {
    /// What is next for `entry`. `fresh`: nothing waits for gates or soaks.
    pub(super) fn next(&self, entry: &Entry, fresh: bool) -> Next {
        let record = self.book.record(entry.name());
        let (entered, moving) = record.map_or((0, None), |record| (record.entered, record.moving));
        if let Some(record) = record.filter(|record| record.begun()) {
            if record.fingerprint != entry.fingerprint() {
                return Next::Stop(State::Changed);
            }
            if record.done() {
                return Next::Stop(State::Applied);
            }
        }
        if record.is_some_and(|record| record.paused) && !self.goal.is_for(entry) {
            return Next::Stop(State::Paused);
        }
        if let Some(by) = self.held_up_by(entry) {
            let since = self.book.record(by).filter(|record| record.begun()).map(|record| record.since);
            return Next::Stop(State::HeldUp { by: by.to_owned(), since });
        }
        match moving {
            // A phase that was begun is ended: its gate was open.
            Some(Direction::Forward) => return self.limited(entry, entered),
            Some(Direction::Back) => return self.limited(entry, entered.saturating_sub(1)),
            None => {}
        }
        match record.and_then(|record| self.gate(entry, record, fresh)) {
            Some(state) => Next::Stop(state),
            None => self.limited(entry, entered),
        }
    }

    /// The same, as a state.
    pub(super) fn state(&self, entry: &Entry, fresh: bool) -> State {
        match self.next(entry, fresh) {
            Next::Stop(state) => state,
            Next::Enter(_) if self.book.record(entry.name()).is_some_and(Record::begun) => State::InProgress,
            Next::Enter(_) => State::Pending,
        }
    }

    fn limited(&self, entry: &Entry, index: usize) -> Next {
        match self.goal {
            Goal::To(name, last) if name == entry.name() && index > last => Next::Stop(State::InProgress),
            _ => Next::Enter(index),
        }
    }

    /// What must go on before a build that is about to serve may do so: migrations whose window does not have its release
    /// yet, those that its code counts on without a word, and those that hold one of these up.
    pub(super) fn needed(&self) -> BTreeSet<&'static str> {
        let mut needed = BTreeSet::new();
        let Some(candidate) = self.goal.candidate() else { return needed };
        let fleet = self.fleet();
        let entries: Vec<_> = self.migrator.migrations.iter().collect();
        for (place, entry) in entries.iter().enumerate().rev() {
            let record = self.book.record(entry.name());
            if record.is_some_and(Record::done) {
                continue;
            }
            let window = self.book.window(entry.name());
            let release = fleet.release(&Subject::of(entry, self.schema), &candidate.instance);
            let touches = entry.touches();
            let begun = |entry: &Entry| self.book.record(entry.name()).is_some_and(Record::begun);
            let holds_up = entries.iter().enumerate().any(|(at, other)| {
                needed.contains(other.name())
                    && goes_first(place < at, begun(entry), begun(other))
                    && other.touches().overlaps(&touches, self.schema)
            });
            let lacks = release.is_some_and(|release| self.is_missed(entry) || !window.contains(release));
            if lacks || holds_up {
                needed.insert(entry.name());
            }
        }
        needed
    }

    /// The first other migration that touches the same and goes first: see [`goes_first`].
    fn held_up_by(&self, entry: &Entry) -> Option<&str> {
        self.held_up_by_listed(entry).or_else(|| self.held_up_by_unlisted(entry))
    }

    /// One that only other builds list: it goes first where it is in flight and this one is not.
    fn held_up_by_unlisted(&self, entry: &Entry) -> Option<&str> {
        if self.book.record(entry.name()).is_some_and(Record::begun) {
            return None;
        }
        let reach = Reach::of(&entry.touches(), self.schema);
        let mut unlisted =
            self.book.records.values().filter(|record| self.migrator.migrations.get(&record.name).is_none());
        let other = unlisted.find(|other| other.begun() && !other.done() && other.reach.overlaps(&reach))?;
        Some(&other.name)
    }

    fn held_up_by_listed(&self, entry: &Entry) -> Option<&'static str> {
        let touches = entry.touches();
        let begun = |name: &str| self.book.record(name).is_some_and(Record::begun);
        let mine = begun(entry.name());
        let mut earlier = true;
        self.migrator
            .migrations
            .iter()
            .filter(|other| {
                if other.name() == entry.name() {
                    earlier = false;
                    return false;
                }
                goes_first(earlier, begun(other.name()), mine)
            })
            .filter(|other| !self.book.record(other.name()).is_some_and(Record::done))
            .find(|other| other.touches().overlaps(&touches, self.schema))
            .map(Entry::name)
    }

    pub(super) fn fleet(&self) -> Fleet<'_> {
        self.migrator.fleet(self.book, self.goal.candidate())
    }

    /// What keeps the gate of the phase that `record` stands in shut.
    fn gate(&self, entry: &Entry, record: &Record, fresh: bool) -> Option<State> {
        let here =
            Here { entered: record.entered, since: record.since, last_use: self.book.last_use(record) };
        self.gate_at(entry, here, fresh)
    }

    /// What would keep the gate shut once `entered` phases are entered, if that were now.
    pub(super) fn gate_ahead(&self, entry: &Entry, entered: usize, fresh: bool) -> Option<State> {
        let now = self.book.now;
        self.gate_at(entry, Here { entered, since: now, last_use: now }, fresh)
    }

    fn gate_at(&self, entry: &Entry, here: Here, fresh: bool) -> Option<State> {
        let index = here.entered.checked_sub(1)?;
        let info = entry.phases().get(index)?;
        let next = entry.phases().get(here.entered)?;
        let subject = Subject::of(entry, self.schema);
        let fleet = self.fleet();
        let waiting = |gate: String, by: Vec<InTheWay>| Some(State::Waiting { gate, since: here.since, by });
        let older = fleet.older(&subject, next.window.lo);
        if !older.is_empty() {
            return waiting(format!("release {} everywhere: {}", next.window.lo, list(&older)), older);
        }
        let since = here.last_use;
        match (info.gate.release(), self.book.confirmation(entry.name(), info.name)) {
            (Some(release), None) if !fresh => match fleet.speaks(&subject, release) {
                Ok(spoken) => {
                    let settled = later(since.max(spoken), self.migrator.settle);
                    if settled > self.book.now {
                        return Some(State::Settling { until: settled });
                    }
                }
                Err(missing) => {
                    let who = if missing.is_empty() {
                        "no instance that takes part is registered".to_owned()
                    } else {
                        list(&missing)
                    };
                    return waiting(
                        format!(
                            "release {release}: {who}; `confirm` of {} vouches for clients that do not register",
                            info.name
                        ),
                        missing,
                    );
                }
            },
            // A fresh database must still serve the build that made it.
            (Some(release), None) if release > entry.release() && !self.goal.is_for(entry) => {
                let speaks = entry.release();
                return waiting(
                    format!("release {release}: the database is fresh, and this build speaks {speaks}"),
                    Vec::new(),
                );
            }
            _ => {}
        }
        if info.gate.soaks() && !fresh {
            let until = later(since, self.migrator.soak_of(entry, index));
            if until > self.book.now {
                return Some(State::Soaking { until, since });
            }
        }
        None
    }

    /// Whether statements are to be counted for a migration that soaks: they are compared at the end, and were not counted
    /// since the soak began, or began again.
    pub(super) fn is_to_be_counted(&self, entry: &Entry) -> bool {
        let Some(record) = self.book.record(entry.name()) else { return false };
        entry.standing(record.entered).is_some_and(|info| info.gate.needs_unreferenced())
            && record.counted.is_none_or(|at| at < self.book.last_use(record))
    }

    /// Refuses a build whose definitions differ from what was begun.
    pub(super) fn unchanged(&self) -> Result<()> {
        let listed = self.migrator.migrations.iter();
        listed
            .filter_map(|entry| self.book.record(entry.name()).map(|record| (entry, record)))
            .try_for_each(|(entry, record)| unchanged(entry, record))
    }
}

/// Refuses a definition that differs from what was begun.
pub(super) fn unchanged(entry: &Entry, record: &Record) -> Result<()> {
    if !record.begun() || record.fingerprint == entry.fingerprint() {
        return Ok(());
    }
    Err(Error::new(
        Kind::Changed,
        format!(
            "migration {name} was edited after it had begun. The ledger has: {old} ({phases}). This build has: {new} ({now}). Put the old definition back and write a new migration for the difference; or, with the old one, rollback(\"{name}\", To::Start), after which this one is taken; or, if both mean the same for what was done so far, call dangerous_accept_changed(\"{name}\")",
            name = entry.name(),
            old = record.definition,
            new = entry.definition(),
            phases = record.phases.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", "),
            now = entry.phases().iter().map(|p| p.name).collect::<Vec<_>>().join(", "),
        ),
    )
    .met_by(entry.name()))
}

impl Migrator {
    /// How long the gate of a phase soaks.
    pub(super) fn soak_of(&self, entry: &Entry, index: usize) -> Duration {
        let asked = entry.boxed_phases().get(index).and_then(|phase| phase.soak());
        asked.unwrap_or(self.soak)
    }
}

pub(super) fn later(since: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    let by = chrono::Duration::from_std(by).unwrap_or(chrono::Duration::MAX);
    since.checked_add_signed(by).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
