//! Phases: states of the schema in which neighbouring releases of the application coexist.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::catalog::{Answer, Question, Snapshot};
use crate::error::{Error, Kind, Result};
use crate::ident::{Ident, TableName};
use crate::step::Step;

/// The releases that may run while the schema stands in a phase, from `lo` to `hi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Window {
    /// The oldest release.
    pub lo: u16,
    /// The newest release.
    pub hi: u16,
}

impl Window {
    /// The releases from `lo` to `hi`, both included.
    #[must_use]
    pub const fn new(lo: u16, hi: u16) -> Self {
        assert!(lo <= hi, "a window's first release is newer than its last: write Window::new(older, newer)");
        Self { lo, hi }
    }

    /// Whether `release` may run.
    #[must_use]
    pub const fn contains(self, release: u16) -> bool {
        self.lo <= release && release <= self.hi
    }

    /// The releases that both allow.
    #[must_use]
    pub const fn overlap(self, other: Self) -> Option<Self> {
        let lo = if self.lo > other.lo { self.lo } else { other.lo };
        let hi = if self.hi < other.hi { self.hi } else { other.hi };
        if lo <= hi { Some(Self { lo, hi }) } else { None }
    }
}

impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.lo == self.hi { write!(f, "{}", self.lo) } else { write!(f, "{}–{}", self.lo, self.hi) }
    }
}

/// What must hold before a migration leaves a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Gate {
    release: Option<u16>,
    soak: bool,
    unreferenced: bool,
}

impl Gate {
    /// Nothing: the next phase follows at once.
    pub const OPEN: Self = Self { release: None, soak: false, unreferenced: false };

    /// The whole fleet speaks at least `release`. This makes the phase a deploy phase.
    #[must_use]
    pub const fn fleet(release: u16) -> Self {
        Self { release: Some(release), soak: false, unreferenced: false }
    }

    /// And has done so for the soak time.
    #[must_use]
    pub const fn and_soak(self) -> Self {
        Self { soak: true, ..self }
    }

    /// And nothing refers any more to what the phases behind this gate [drop](Phase::drops), or each reference is
    /// acknowledged.
    #[must_use]
    pub const fn and_unreferenced(self) -> Self {
        Self { unreferenced: true, ..self }
    }

    /// The release that the fleet must speak, if this is a deploy phase's gate.
    #[must_use]
    pub const fn release(self) -> Option<u16> {
        self.release
    }

    /// Whether the soak time must pass.
    #[must_use]
    pub const fn soaks(self) -> bool {
        self.soak
    }

    /// Whether references are looked for.
    #[must_use]
    pub const fn needs_unreferenced(self) -> bool {
        self.unreferenced
    }
}

impl std::fmt::Display for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts: Vec<Cow<'_, str>> = Vec::new();
        if let Some(release) = self.release {
            parts.push(format!("fleet ≥ {release}").into());
        }
        if self.soak {
            parts.push("soak".into());
        }
        if self.unreferenced {
            parts.push("no references".into());
        }
        if parts.is_empty() { f.write_str("–") } else { f.write_str(&parts.join(", ")) }
    }
}

/// What a phase knows when it computes its steps.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The catalog.
    pub snapshot: &'a Snapshot,
    /// The migration's name.
    pub migration: &'a str,
    pub(crate) saved: &'a BTreeMap<String, serde_json::Value>,
}

impl<'a> Context<'a> {
    /// A context over a snapshot and what the ledger has saved for the migration.
    #[must_use]
    pub fn new(
        snapshot: &'a Snapshot,
        migration: &'a str,
        saved: &'a BTreeMap<String, serde_json::Value>,
    ) -> Self {
        Self { snapshot, migration, saved }
    }

    /// What an earlier step saved under `key`.
    ///
    /// # Errors
    ///
    /// [`Kind::LedgerDamaged`] if it is there but no `T`.
    pub fn saved<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.saved.get(key) else { return Ok(None) };
        serde_json::from_value(value.clone()).map(Some).map_err(|error| {
            Error::new(
                Kind::LedgerDamaged,
                format!(
                    "migration {}: the definition saved as \"{key}\" cannot be read ({error}): was it written by a newer phasewise? Run with that version",
                    self.migration
                ),
            )
        })
    }

    /// The server's answer to the question of that key.
    ///
    /// # Errors
    ///
    /// [`Kind::Definition`], with what Postgres said, if the trial failed.
    pub fn answer(&self, key: &str) -> Result<&'a serde_json::Value> {
        match self.snapshot.answers.get(key) {
            Some(Answer::Value(value)) => Ok(value),
            Some(Answer::Refused { code, message }) => Err(Error::new(
                Kind::Definition,
                format!(
                    "migration {}: {key}: {message} (SQLSTATE {code}); mend the definition",
                    self.migration
                ),
            )),
            None => Err(Error::new(
                Kind::Missing,
                format!(
                    "migration {}: the server was not asked about {key}: take a fresh snapshot",
                    self.migration
                ),
            )),
        }
    }
}

/// How a phase is undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rollback {
    /// By these steps, in this order. None at all where reverting the deploy is enough.
    Steps(Vec<Step>),
    /// Not at all.
    Irreversible(Irreversible),
}

impl Rollback {
    /// Nothing to do in the database: reverting the deploy is the rollback.
    pub const NOTHING: Self = Self::Steps(Vec::new());
}

/// The statement that something cannot be undone, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Irreversible {
    reason: Cow<'static, str>,
}

impl Irreversible {
    /// `reason` completes "this cannot be undone: …".
    #[must_use]
    pub fn because(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into() }
    }

    /// The reason.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// What a phase takes away: a column, or a table as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// The table.
    pub table: TableName,
    /// The column; `None` for the table itself.
    pub column: Option<Ident>,
    /// The column of the same table that takes its place, and gets what hangs on it.
    pub successor: Option<Ident>,
    /// Names of what the successor does not get.
    pub left_behind: &'static [&'static str],
    /// Whether the column is renamed away before.
    pub quarantined: bool,
}

impl Dropped {
    /// A table.
    #[must_use]
    pub const fn table(table: TableName) -> Self {
        Self { table, column: None, successor: None, left_behind: &[], quarantined: false }
    }

    /// A column.
    #[must_use]
    pub const fn column(table: TableName, column: Ident) -> Self {
        Self { column: Some(column), ..Self::table(table) }
    }

    /// And it is renamed away before, if `quarantined`.
    #[must_use]
    pub const fn after_quarantine(self, quarantined: bool) -> Self {
        Self { quarantined, ..self }
    }

    /// And `successor`, a column of the same table, takes its place, with all that hangs on it but for what is named
    /// in `left_behind`.
    #[must_use]
    pub const fn replaced_by(self, successor: Ident, left_behind: &'static [&'static str]) -> Self {
        Self { successor: Some(successor), left_behind, ..self }
    }
}

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.column {
            Some(column) => write!(f, "column {} of {}", column.quoted(), self.table),
            None => write!(f, "table {}", self.table),
        }
    }
}

/// One phase of a change: pure data, computed from the change and a [`Snapshot`].
///
/// Implement it for phases of your own; a [`Change`](crate::Change) is a tuple of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a phase",
    label = "implement `phasewise::Phase` for it: a name, a window, a gate, the steps on entering, and a rollback"
)]
pub trait Phase: Copy + Send + Sync + 'static {
    /// Its name, unique within the change.
    const NAME: &'static str;
    /// The releases that may run once the schema stands in it.
    const WINDOW: Window;
    /// What must hold to leave it.
    const GATE: Gate = Gate::OPEN;

    /// What only the server can answer; the answers are in the context of [`enter`](Phase::enter) and
    /// [`rollback`](Phase::rollback).
    ///
    /// # Errors
    ///
    /// Where the snapshot shows already that the phase cannot be.
    fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
        let _ = cx;
        Ok(Vec::new())
    }

    /// The steps that bring the schema from the previous phase into this one. Computed afresh whenever the phase
    /// is entered or resumed, so it must allow for steps that are done already.
    ///
    /// # Errors
    ///
    /// Refuses what cannot be done safely, by name.
    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>>;

    /// The steps that bring it back into the previous phase.
    ///
    /// # Errors
    ///
    /// Like [`enter`](Phase::enter).
    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback>;

    /// The soak time that the change asks for; `None` leaves it to the migrator.
    fn soak(&self) -> Option<Duration> {
        None
    }

    /// What it takes away. Before a gate [without references](Gate::and_unreferenced) opens, references are looked for
    /// to whatever the phases behind it drop.
    fn drops(&self) -> Vec<Dropped> {
        Vec::new()
    }
}

/// A deploy phase of the change `C`: what [`deployed`](crate::Migration::deployed) takes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a deploy phase of `{C}`",
    label = "`.deployed::<P>()` takes one of the change's own deploy phases",
    note = "they are in the change's module, such as `phasewise::rename_column::WriteBoth`; code that still uses the old shape is marked `.not_deployed()`"
)]
pub trait DeployPhase<C>: Phase {}

/// A phase's name, window and gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PhaseInfo {
    /// Its name.
    pub name: &'static str,
    /// The releases that may run.
    pub window: Window,
    /// What must hold to leave it.
    pub gate: Gate,
}

/// The tuple of a change's phases, from one to eight. Sealed: write tuples.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a tuple of phases",
    label = "a change's phases are a tuple of one to eight `Phase`s, such as `(AddTarget, WriteBoth)`"
)]
pub trait PhaseSeq: Copy + Send + Sync + 'static + sealed::Sealed {
    /// Names, windows and gates, in order.
    const PHASES: &'static [PhaseInfo];
    /// Fails to compile where neighbours share no release or a gate does not match the next window.
    const CHECK: ();
    #[doc(hidden)]
    fn boxed(self) -> Vec<Box<dyn sealed::DynPhase>>;
}

pub(crate) use sealed::DynPhase;

mod sealed {
    use super::{Context, Dropped, Duration, Phase, PhaseInfo, Question, Result, Rollback, Step};

    pub trait Sealed {}

    /// `Phase` without its consts, so that the migrator can hold any.
    pub trait DynPhase: Send + Sync {
        fn info(&self) -> PhaseInfo;
        fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>>;
        fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>>;
        fn rollback(&self, cx: &Context<'_>) -> Result<Rollback>;
        fn soak(&self) -> Option<Duration>;
        fn drops(&self) -> Vec<Dropped>;
    }

    impl<P: Phase> DynPhase for P {
        fn info(&self) -> PhaseInfo {
            PhaseInfo { name: P::NAME, window: P::WINDOW, gate: P::GATE }
        }
        fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
            Phase::questions(self, cx)
        }
        fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
            Phase::enter(self, cx)
        }
        fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
            Phase::rollback(self, cx)
        }
        fn soak(&self) -> Option<Duration> {
            Phase::soak(self)
        }
        fn drops(&self) -> Vec<Dropped> {
            Phase::drops(self)
        }
    }
}

macro_rules! tuples {
    ($($($phase:ident $at:tt),+;)+) => {$(
        impl<$($phase: Phase),+> sealed::Sealed for ($($phase,)+) {}
        impl<$($phase: Phase),+> PhaseSeq for ($($phase,)+) {
            const PHASES: &'static [PhaseInfo] =
                &[$(PhaseInfo { name: $phase::NAME, window: $phase::WINDOW, gate: $phase::GATE }),+];
            const CHECK: () = check(Self::PHASES);
            fn boxed(self) -> Vec<Box<dyn DynPhase>> {
                vec![$(Box::new(self.$at)),+]
            }
        }
    )+};
}

tuples! {
    A 0;
    A 0, B 1;
    A 0, B 1, C 2;
    A 0, B 1, C 2, D 3;
    A 0, B 1, C 2, D 3, E 4;
    A 0, B 1, C 2, D 3, E 4, F 5;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7;
}

const fn check(phases: &[PhaseInfo]) {
    assert!(
        phases[0].window.contains(0),
        "the first phase does not allow release 0: before a migration begins only release 0 runs, so widen its window"
    );
    let mut i = 0;
    while i < phases.len() {
        let here = phases[i];
        let mut j = 0;
        while j < i {
            assert!(
                !same(phases[j].name, here.name),
                "two phases of a change have one name: rename one of them"
            );
            j += 1;
        }
        if i + 1 == phases.len() {
            assert!(
                here.gate.release.is_none(),
                "the last phase has a gate: nothing follows it, so give it Gate::OPEN or add the phase that the gate guards"
            );
        } else {
            let next = phases[i + 1];
            assert!(
                here.window.overlap(next.window).is_some(),
                "neighbouring phases share no release: no instance could live through the step between them, so widen a window or add a phase"
            );
            match here.gate.release {
                Some(release) => {
                    assert!(
                        release == here.window.lo + 1,
                        "a deploy phase's gate is not its own oldest release + 1: releases leave one at a time"
                    );
                    assert!(
                        release == next.window.lo,
                        "a deploy phase's gate is not the next phase's oldest release: the next window must begin with the release that the gate waits for"
                    );
                }
                None => assert!(
                    next.window.lo == here.window.lo,
                    "a phase without a fleet gate is followed by a window with another oldest release: only Gate::fleet(n) may retire a release"
                ),
            }
            assert!(
                next.window.hi >= here.window.hi,
                "a phase forbids a release that the phase before it allowed: windows only move forward"
            );
        }
        i += 1;
    }
}

/// `a == b`, in const context.
pub(crate) const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}
