//! Renaming a column, as the playbook has it: add, write both, backfill, switch reads, stop old writes, drop.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use super::replaced;
use crate::change::{Change, Touches};
use crate::error::Result;
use crate::phase::{Context, DeployPhase};
use crate::phases::replace::{
    self, AddTarget, Backfill, ByApplication, DropSource, InstallSync, KeptInSync, RemoveSync, Replace,
    StopOldWrites, SwitchOver, SwitchReads, WriteBoth,
};

/// Renames a column while old and new code run side by side.
///
/// The application writes both columns, in six phases and three deploys:
///
/// | # | phase | what happens | to leave it | releases |
/// |---|---|---|---|---|
/// | 1 | `AddTarget` | the new column, like the old one | – | 0, 1 |
/// | 2 | [`WriteBoth`](crate::rename_column::WriteBoth) | – | every instance writes both | 0, 1 |
/// | 3 | `Backfill` | differences repaired in batches; indexes and constraints built | – | 1, 2 |
/// | 4 | [`SwitchReads`](crate::rename_column::SwitchReads) | – | every instance reads the new one | 1, 2 |
/// | 5 | [`StopOldWrites`](crate::rename_column::StopOldWrites) | the old column is freed of constraints | every instance uses the new one only; soak | 2, 3 |
/// | 6 | `DropSource` | the old column goes | – | 3 |
///
/// With [`kept_in_sync`](RenameColumn::kept_in_sync) triggers write the other column, in one deploy: `AddTarget`,
/// `InstallSync`, `Backfill`, [`SwitchOver`](crate::rename_column::SwitchOver), `RemoveSync`, `DropSource`.
///
/// Carried over: default, NOT NULL, collation, storage, statistics target, comment, column grants, indexes, checks,
/// unique constraints, foreign keys from and to it, an owned sequence or identity. Refused at planning, by name: what
/// cannot be, such as a view that reads the column.
///
/// ```
/// use phasewise::{Migration, Migrations, RenameColumn, migrations, rename_column::WriteBoth};
///
/// static MIGRATIONS: Migrations = migrations![
///     Migration::new("20261122_users_full_name", RenameColumn::new("users", "name", "full_name"))
///         .deployed::<WriteBoth>(),
/// ];
/// # assert_eq!(MIGRATIONS.iter().next().unwrap().phases().len(), 6);
/// ```
#[derive(Clone, Copy)]
pub struct RenameColumn<W = ByApplication> {
    replace: Replace,
    writer: PhantomData<W>,
}

impl RenameColumn {
    /// `source` of `table` is to be called `target`.
    #[must_use]
    pub const fn new(table: &'static str, source: &'static str, target: &'static str) -> Self {
        Self { replace: Replace::new(table, source, target), writer: PhantomData }
    }

    /// Triggers keep both columns equal, so that the application changes over in one deploy.
    #[must_use]
    pub const fn kept_in_sync(self) -> RenameColumn<KeptInSync> {
        RenameColumn { replace: Replace { synced: true, ..self.replace }, writer: PhantomData }
    }

    /// The phases, in order.
    #[must_use]
    #[allow(clippy::type_complexity, reason = "the tuple is the change: each phase by its name")]
    pub const fn phases(
        self,
    ) -> (
        AddTarget<ByApplication>,
        WriteBoth,
        Backfill<ByApplication>,
        SwitchReads,
        StopOldWrites,
        DropSource<ByApplication>,
    ) {
        replaced::by_application(self.replace)
    }
}

impl RenameColumn<KeptInSync> {
    /// The phases, in order.
    #[must_use]
    #[allow(clippy::type_complexity, reason = "the tuple is the change: each phase by its name")]
    pub const fn phases(
        self,
    ) -> (
        AddTarget<KeptInSync>,
        InstallSync,
        Backfill<KeptInSync>,
        SwitchOver,
        RemoveSync,
        DropSource<KeptInSync>,
    ) {
        replaced::kept_in_sync(self.replace)
    }
}

impl<W> RenameColumn<W> {
    /// How long the old column stays after its last use, where the migrator's own soak time is not right.
    #[must_use]
    pub const fn soak(self, soak: Duration) -> Self {
        Self { replace: Replace { soak: Some(soak), ..self.replace }, ..self }
    }

    /// Leaves these indexes and checks of the old column behind.
    #[must_use]
    pub const fn without(self, names: &'static [&'static str]) -> Self {
        Self { replace: Replace { without: names, ..self.replace }, ..self }
    }
}

macro_rules! change {
    ($writer:ty, $phases:ty) => {
        impl Change for RenameColumn<$writer> {
            type Phases = $phases;

            fn phases(&self) -> Self::Phases {
                RenameColumn::<$writer>::phases(*self)
            }

            fn definition(&self) -> String {
                replaced::definition("rename column", &self.replace)
            }

            fn touches(&self) -> Touches {
                replaced::touches(&self.replace)
            }

            fn check(&self, cx: &Context<'_>) -> Result<()> {
                replace::check(&self.replace, cx)
            }

            fn warnings(&self, cx: &Context<'_>) -> Result<Vec<String>> {
                replace::warnings(&self.replace, cx)
            }
        }
    };
}

change!(ByApplication, replaced::ByApplicationPhases);
change!(KeptInSync, replaced::KeptInSyncPhases);

impl DeployPhase<RenameColumn> for WriteBoth {}
impl DeployPhase<RenameColumn> for SwitchReads {}
impl DeployPhase<RenameColumn> for StopOldWrites {}
impl DeployPhase<RenameColumn<KeptInSync>> for SwitchOver {}

impl<W> fmt::Debug for RenameColumn<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&replaced::definition("rename column", &self.replace))
    }
}
