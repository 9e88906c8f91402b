//! Migrations: named changes with the release that this build speaks.

use std::fmt;
use std::marker::PhantomData;

use crate::change::{Change, Touches};
use crate::error::Result;
use crate::phase::{Context, DeployPhase, Dropped, DynPhase, PhaseInfo, PhaseSeq, same};

/// A named change, with the release of it that this build of the application speaks.
#[derive(Clone, Copy, Debug)]
pub struct Migration<C, M = Unmarked> {
    name: &'static str,
    change: C,
    release: u16,
    services: &'static [&'static str],
    mark: PhantomData<M>,
}

/// A migration that was not marked yet.
#[derive(Clone, Copy, Debug)]
pub struct Unmarked(());

/// A migration that says which release this build speaks.
#[derive(Clone, Copy, Debug)]
pub struct Marked(());

impl<C: Change> Migration<C> {
    /// Names a change. The name is its identity in the ledger, for ever: a date and a few words serve well.
    ///
    /// # Panics
    ///
    /// On an empty name or one longer than 200 bytes: a compile error in a definition.
    #[must_use]
    pub const fn new(name: &'static str, change: C) -> Self {
        assert!(!name.is_empty(), "a migration's name is empty: write a date and a few words");
        assert!(name.len() <= 200, "a migration's name is longer than 200 bytes: shorten it");
        const { C::Phases::CHECK };
        Self { name, change, release: 0, services: &[], mark: PhantomData }
    }

    /// This build's code stands at the deploy phase `P`, and may run with the releases that `P` allows.
    ///
    /// The next deploy edits this one word. `P`'s last one means "this code needs nothing old".
    #[must_use]
    pub const fn deployed<P: DeployPhase<C>>(self) -> Migration<C, Marked> {
        let release = const {
            let Some(release) = P::GATE.release() else {
                panic!("a phase named by .deployed::<P>() has no Gate::fleet(n): it is no deploy phase")
            };
            assert!(
                stands_for(C::Phases::PHASES, P::NAME, release),
                "a phase named by .deployed::<P>() is not one of this change's phases: name one of its own deploy phases"
            );
            release
        };
        Migration {
            name: self.name,
            change: self.change,
            release,
            services: self.services,
            mark: PhantomData,
        }
    }

    /// This build carries the migration, but its code still uses the old shape only: release 0.
    #[must_use]
    pub const fn not_deployed(self) -> Migration<C, Marked> {
        Migration {
            name: self.name,
            change: self.change,
            release: 0,
            services: self.services,
            mark: PhantomData,
        }
    }

    #[doc(hidden)]
    #[must_use]
    pub const fn entry(&'static self) -> Entry {
        const {
            let phases = C::Phases::PHASES;
            assert!(
                phases[phases.len() - 1].window.hi == 0,
                "a change with several releases is not marked: add .deployed::<P>() with the deploy phase that this build's code stands at, or .not_deployed()"
            );
        }
        Entry { name: self.name, migration: self }
    }
}

impl<C: Change, M> Migration<C, M> {
    /// The services that must have deployed a release before the migration goes on, and whose instances may hold it
    /// back: the names that they give to [`Migrator::instance`](crate::Migrator::instance). Others are left alone, and do
    /// not hold it up.
    ///
    /// Without it, all services take part that list this migration, or ever listed one that touches a table of its.
    ///
    /// ```
    /// use phasewise::{DropColumn, Migration, Migrations, migrations};
    ///
    /// static MIGRATIONS: Migrations = migrations![
    ///     Migration::new("20261201_users_fax", DropColumn::new("users", "fax"))
    ///         .services(&["api", "billing"])
    ///         .not_deployed(),
    /// ];
    /// # assert_eq!(MIGRATIONS.iter().len(), 1);
    /// ```
    #[must_use]
    pub const fn services(mut self, services: &'static [&'static str]) -> Self {
        self.services = services;
        self
    }
}

impl<C: Change> Migration<C, Marked> {
    #[doc(hidden)]
    #[must_use]
    pub const fn entry(&'static self) -> Entry {
        Entry { name: self.name, migration: self }
    }
}

/// Whether a deploy phase stands for `release`: it is in the list; or none in the list gates that release, which is the
/// newest, and code that speaks it waits for no deploy but its own.
const fn stands_for(phases: &[PhaseInfo], name: &str, release: u16) -> bool {
    let mut gated = false;
    let mut i = 0;
    while i < phases.len() {
        if same(phases[i].name, name) {
            return true;
        }
        gated |= matches!(phases[i].gate.release(), Some(other) if other == release);
        i += 1;
    }
    !gated && release == phases[phases.len() - 1].window.hi
}

/// One migration of a set, whatever its change.
#[derive(Clone, Copy)]
pub struct Entry {
    name: &'static str,
    migration: &'static dyn AnyMigration,
}

impl Entry {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The release of it that this build speaks.
    #[must_use]
    pub fn release(&self) -> u16 {
        self.migration.release()
    }

    /// The services that take part, where it names them.
    #[must_use]
    pub fn services(&self) -> &'static [&'static str] {
        self.migration.services()
    }

    /// Its phases, in order.
    #[must_use]
    pub fn phases(&self) -> &'static [PhaseInfo] {
        self.migration.infos()
    }

    /// The phase that the schema stands in once `entered` phases are entered.
    pub(crate) fn standing(&self, entered: usize) -> Option<&'static PhaseInfo> {
        self.phases().get(entered.checked_sub(1)?)
    }

    /// What its phases drop, in order.
    #[must_use]
    pub fn drops(&self) -> Vec<Dropped> {
        self.boxed_phases().iter().flat_map(|phase| phase.drops()).collect()
    }

    /// What it touches.
    #[must_use]
    pub fn touches(&self) -> Touches {
        self.migration.touches()
    }

    /// Whether a build that lists it counts on all of it, without a word: it has one release only, and is not
    /// [optional](Change::is_optional).
    pub(crate) fn is_counted_on(&self) -> bool {
        self.phases().last().is_some_and(|last| last.window.hi == 0) && !self.migration.is_optional()
    }

    /// The normalised definition.
    #[must_use]
    pub fn definition(&self) -> String {
        self.migration.definition()
    }

    /// The SHA-256 of the normalised definition and the phases, in hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        use sha2::Digest as _;
        let mut hasher = sha2::Sha256::new();
        hasher.update(self.definition());
        for phase in self.phases() {
            hasher.update([0]);
            hasher.update(phase.name);
        }
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn check(&self, cx: &Context<'_>) -> Result<()> {
        self.migration.check(cx)
    }

    pub(crate) fn warnings(&self, cx: &Context<'_>) -> Result<Vec<String>> {
        self.migration.warnings(cx)
    }

    pub(crate) fn boxed_phases(&self) -> Vec<Box<dyn DynPhase>> {
        self.migration.boxed_phases()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("name", &self.name)
            .field("release", &self.release())
            .finish_non_exhaustive()
    }
}

trait AnyMigration: Sync {
    fn release(&self) -> u16;
    fn services(&self) -> &'static [&'static str];
    fn infos(&self) -> &'static [PhaseInfo];
    fn touches(&self) -> Touches;
    fn is_optional(&self) -> bool;
    fn definition(&self) -> String;
    fn check(&self, cx: &Context<'_>) -> Result<()>;
    fn warnings(&self, cx: &Context<'_>) -> Result<Vec<String>>;
    fn boxed_phases(&self) -> Vec<Box<dyn DynPhase>>;
}

impl<C: Change, M: Sync> AnyMigration for Migration<C, M> {
    fn release(&self) -> u16 {
        self.release
    }
    fn services(&self) -> &'static [&'static str] {
        self.services
    }
    fn infos(&self) -> &'static [PhaseInfo] {
        C::Phases::PHASES
    }
    fn touches(&self) -> Touches {
        self.change.touches()
    }
    fn is_optional(&self) -> bool {
        self.change.is_optional()
    }
    fn definition(&self) -> String {
        self.change.definition()
    }
    fn check(&self, cx: &Context<'_>) -> Result<()> {
        self.change.check(cx)
    }
    fn warnings(&self, cx: &Context<'_>) -> Result<Vec<String>> {
        self.change.warnings(cx)
    }
    fn boxed_phases(&self) -> Vec<Box<dyn DynPhase>> {
        self.change.phases().boxed()
    }
}

/// The ordered, duplicate-free set of migrations that an application embeds. Made by [`migrations!`](crate::migrations).
#[derive(Clone, Copy, Debug)]
pub struct Migrations {
    entries: &'static [Entry],
    retired: &'static [&'static str],
}

impl Migrations {
    #[doc(hidden)]
    #[must_use]
    pub const fn new(entries: &'static [Entry]) -> Self {
        let mut i = 0;
        while i < entries.len() {
            let mut j = 0;
            while j < i {
                assert!(
                    !same(entries[i].name, entries[j].name),
                    "two migrations have one name: the name is the identity in the ledger, so rename the newer one"
                );
                j += 1;
            }
            i += 1;
        }
        Self { entries, retired: &[] }
    }

    /// Names of finished migrations that were taken out of the list, because the code needs nothing old of them.
    ///
    /// A build that does not list a migration of its tables is taken for one from before it, release 0, and may not serve
    /// where release 0 may not. One that names it here speaks its last release.
    ///
    /// ```
    /// use phasewise::{AddIndex, Migration, Migrations, migrations};
    ///
    /// static MIGRATIONS: Migrations = migrations![
    ///     Migration::new("20261124_users_email_idx", AddIndex::new("users", "users_email_idx").columns(&["email"])),
    /// ]
    /// .retired(&["20251122_users_full_name"]);
    /// # assert!(MIGRATIONS.is_retired("20251122_users_full_name"));
    /// ```
    #[must_use]
    pub const fn retired(mut self, names: &'static [&'static str]) -> Self {
        let mut i = 0;
        while i < names.len() {
            let mut j = 0;
            while j < self.entries.len() {
                assert!(
                    !same(names[i], self.entries[j].name),
                    "a migration is listed and retired: take it out of one of the two"
                );
                j += 1;
            }
            i += 1;
        }
        self.retired = names;
        self
    }

    /// Whether that migration is named as [`retired`](Self::retired).
    #[must_use]
    pub fn is_retired(&self, name: &str) -> bool {
        self.retired.contains(&name)
    }

    pub(crate) fn retired_names(&self) -> &'static [&'static str] {
        self.retired
    }

    /// The migrations, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'static Entry> + use<> {
        self.entries.iter()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'static Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

/// Makes the set of migrations that an application embeds, checked at compile time.
///
/// ```
/// use phasewise::{AddIndex, Migration, Migrations, migrations};
///
/// pub static MIGRATIONS: Migrations = migrations![
///     Migration::new("20261124_users_email_idx", AddIndex::new("users", "users_email_key").columns(&["email"]).unique()),
/// ];
/// ```
#[macro_export]
macro_rules! migrations {
    ($($migration:expr),* $(,)?) => {
        const { $crate::Migrations::new(const { &[$({ const { &$migration }.entry() }),*] }) }
    };
}
