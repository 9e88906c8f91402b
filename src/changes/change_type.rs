//! Changing a column's type: a new column, a conversion each way, and the phases of a rename.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use super::replaced;
use crate::change::{Change, Touches};
use crate::error::Result;
use crate::expr::Expr;
use crate::phase::{Context, DeployPhase};
use crate::phases::replace::{
    self, AddTarget, Backfill, ByApplication, DropSource, InstallSync, KeptInSync, RemoveSync, Replace,
    Retype, StopOldWrites, SwitchOver, SwitchReads, WriteBoth,
};

/// Gives a column another type under a new name, while old and new code run side by side.
///
/// The phases are those of [`RenameColumn`](crate::RenameColumn), with a conversion each way. Both expressions must
/// be immutable or stable, without subqueries, null where the column is null, and must not fail on anything that the
/// other side writes; where `down` has no value it yields NULL, and the old column's NOT NULL is relaxed for that.
/// Old values are archived before the drop, so that a rollback gives back exactly what was there.
///
/// An index or check that cannot be built on the new type is refused by name, unless it is left behind with
/// [`without`](ChangeType::without).
///
/// ```
/// use phasewise::{ChangeType, Migration, Migrations, migrations};
///
/// static MIGRATIONS: Migrations = migrations![
///     Migration::new(
///         "20261123_orders_amount",
///         ChangeType::new("orders", "amount", "amount_big", "bigint")
///             .up("{amount}::bigint")
///             .down("case when {amount_big} > 2147483647 then null else {amount_big}::int end")
///             .kept_in_sync(),
///     )
///     .not_deployed(),
/// ];
/// # assert_eq!(MIGRATIONS.iter().next().unwrap().phases()[3].name, "SwitchOver");
/// ```
#[derive(Clone, Copy)]
pub struct ChangeType<W = ByApplication, Up = Missing, Down = Missing> {
    replace: Replace,
    data_type: &'static str,
    up: Option<Expr>,
    down: Option<Expr>,
    state: PhantomData<(W, Up, Down)>,
}

/// Marks a direction that was not given: a type change needs both `.up(…)` and `.down(…)`.
#[derive(Clone, Copy, Debug)]
pub struct Missing(());

/// Marks a direction that was given.
#[derive(Clone, Copy, Debug)]
pub struct Given(());

impl ChangeType {
    /// `source` of `table` is to be `target`, of type `data_type` (SQL).
    #[must_use]
    pub const fn new(
        table: &'static str,
        source: &'static str,
        target: &'static str,
        data_type: &'static str,
    ) -> Self {
        assert!(!data_type.is_empty(), "a type is empty: write SQL such as \"bigint\"");
        Self {
            replace: Replace::new(table, source, target),
            data_type,
            up: None,
            down: None,
            state: PhantomData,
        }
    }
}

impl<W, Up, Down> ChangeType<W, Up, Down> {
    const fn becomes<W2, Up2, Down2>(self) -> ChangeType<W2, Up2, Down2> {
        ChangeType {
            replace: self.replace,
            data_type: self.data_type,
            up: self.up,
            down: self.down,
            state: PhantomData,
        }
    }

    /// The new value from the old one: `"{amount}::bigint"`.
    #[must_use]
    pub const fn up(mut self, expr: &'static str) -> ChangeType<W, Given, Down> {
        self.up = Some(Expr::new(expr));
        self.becomes()
    }

    /// The old value from the new one, NULL where there is none.
    #[must_use]
    pub const fn down(mut self, expr: &'static str) -> ChangeType<W, Up, Given> {
        self.down = Some(Expr::new(expr));
        self.becomes()
    }

    /// Triggers keep both columns equal, so that the application changes over in one deploy.
    #[must_use]
    pub const fn kept_in_sync(mut self) -> ChangeType<KeptInSync, Up, Down> {
        self.replace.synced = true;
        self.becomes()
    }

    /// How long the old column stays after its last use, where the migrator's own soak time is not right.
    #[must_use]
    pub const fn soak(mut self, soak: Duration) -> Self {
        self.replace.soak = Some(soak);
        self
    }

    /// Leaves these indexes and checks of the old column behind.
    #[must_use]
    pub const fn without(mut self, names: &'static [&'static str]) -> Self {
        self.replace.without = names;
        self
    }
}

impl<W> ChangeType<W, Given, Given> {
    /// With both directions; `Given` says that they are there.
    const fn replace(self) -> Replace {
        match (self.up, self.down) {
            (Some(up), Some(down)) => {
                Replace { retype: Some(Retype { data_type: self.data_type, up, down }), ..self.replace }
            }
            _ => self.replace,
        }
    }
}

impl ChangeType<ByApplication, Given, Given> {
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
        replaced::by_application(self.replace())
    }
}

impl ChangeType<KeptInSync, Given, Given> {
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
        replaced::kept_in_sync(self.replace())
    }
}

macro_rules! change {
    ($writer:ty, $phases:ty) => {
        impl Change for ChangeType<$writer, Given, Given> {
            type Phases = $phases;

            fn phases(&self) -> Self::Phases {
                ChangeType::<$writer, Given, Given>::phases(*self)
            }

            fn definition(&self) -> String {
                replaced::definition("change type", &self.replace())
            }

            fn touches(&self) -> Touches {
                replaced::touches(&self.replace())
            }

            fn check(&self, cx: &Context<'_>) -> Result<()> {
                replace::check(&self.replace(), cx)
            }

            fn warnings(&self, cx: &Context<'_>) -> Result<Vec<String>> {
                replace::warnings(&self.replace(), cx)
            }
        }
    };
}

change!(ByApplication, replaced::ByApplicationPhases);
change!(KeptInSync, replaced::KeptInSyncPhases);

impl DeployPhase<ChangeType<ByApplication, Given, Given>> for WriteBoth {}
impl DeployPhase<ChangeType<ByApplication, Given, Given>> for SwitchReads {}
impl DeployPhase<ChangeType<ByApplication, Given, Given>> for StopOldWrites {}
impl DeployPhase<ChangeType<KeptInSync, Given, Given>> for SwitchOver {}

impl<W, Up, Down> fmt::Debug for ChangeType<W, Up, Down> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&replaced::definition("change type", &self.replace))
    }
}
