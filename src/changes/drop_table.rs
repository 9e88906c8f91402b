//! `DropTable`.

use std::marker::PhantomData;
use std::time::Duration;

use super::refuse;
use crate::change::{Change, Touches};
use crate::error::Result;
use crate::ident::TableName;
use crate::phase::{Context, DeployPhase};
use crate::phases::drop_table::{DropSpec, Free, Quarantine, SetAside, StopUse};
use crate::phases::way::{Direct, Quarantined, Way};

/// Drops a table, when nobody uses it any more.
///
/// Release 0 uses the table, 1 neither reads nor writes it.
///
/// | # | phase | enter | gate | window |
/// |---|---|---|---|---|
/// | 1 | `StopUse` | – | fleet ≥ 1 | 0, 1 |
/// | 2 | `Free` | save its foreign keys to other tables; drop them, one by one | soak, no references | 1 |
/// | 3 | `SetAside` | rename the table: it is its own archive | – | 1 |
///
/// With [`quarantine`](DropTable::quarantine) a phase `Quarantine` comes before `SetAside`: the table is renamed away and
/// soaks again.
///
/// The table itself is dropped when its archive is purged, by [`purge_archive`](crate::Migrator::purge_archive) or after
/// [`keep_archives`](crate::Migrator::keep_archives).
///
/// **Locks:** a rename takes `ACCESS EXCLUSIVE` on the table alone, its partitions left out; a foreign key's drop takes it
/// on both tables, and so runs alone. All for changes of the catalog, under the stall budget.
///
/// **Rollback:** `SetAside` and `Quarantine` rename the table back, with its rows, indexes, constraints, triggers,
/// grants, sequences and partitions as they were. `Free` adds the foreign keys again, `NOT VALID` and then validated.
///
/// Refused before anything is touched, by name: foreign keys of other tables that refer to it, views, rules,
/// functions, publications and policies of others that use it.
///
/// ```
/// use phasewise::{DropTable, Migration, Migrations, drop_table::StopUse, migrations};
///
/// static MIGRATIONS: Migrations = migrations![
///     Migration::new("20261201_faxes", DropTable::new("faxes").quarantine()).deployed::<StopUse>(),
/// ];
/// # assert_eq!(MIGRATIONS.iter().next().unwrap().phases().len(), 4);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct DropTable<W = Direct> {
    spec: DropSpec,
    way: PhantomData<W>,
}

impl DropTable {
    /// That table.
    #[must_use]
    pub const fn new(table: &'static str) -> Self {
        Self {
            spec: DropSpec { table: TableName::new(table), soak: None, quarantined: false },
            way: PhantomData,
        }
    }

    /// Renames the table away before it is set aside, and soaks a second time: the phase `Quarantine`. A query that
    /// names the table fails there, and rolling the phase back renames it back.
    #[must_use]
    pub const fn quarantine(self) -> DropTable<Quarantined> {
        let Self { mut spec, way: _ } = self;
        spec.quarantined = true;
        DropTable { spec, way: PhantomData }
    }
}

impl<W: Copy> DropTable<W> {
    /// How long the table stays after its last use, in place of the migrator's soak time. With a quarantine it is
    /// soaked twice, so long each time: under its own name, and renamed.
    #[must_use]
    pub const fn soak(mut self, time: Duration) -> Self {
        self.spec.soak = Some(time);
        self
    }
}

impl<W: Way> DropTable<W> {
    fn text(&self) -> String {
        let DropSpec { table, quarantined, .. } = self.spec;
        format!("drop table {table}{}", if quarantined { "\n after a quarantine" } else { "" })
    }

    fn refuse(&self, cx: &Context<'_>) -> Result<()> {
        let table = refuse::changeable(cx, self.spec.table)?;
        self.spec.refuse(cx, table)
    }

    fn warn(&self, cx: &Context<'_>) -> Result<Vec<String>> {
        Ok(self.spec.warnings(cx.snapshot.table(self.spec.table)?))
    }
}

macro_rules! change {
    ($way:ty, $phases:ty, $this:ident => $expanded:expr) => {
        impl Change for DropTable<$way> {
            type Phases = $phases;

            fn phases(&self) -> Self::Phases {
                let $this = self;
                $expanded
            }

            fn definition(&self) -> String {
                self.text()
            }

            fn touches(&self) -> Touches {
                Touches::nothing().table(self.spec.table)
            }

            fn check(&self, cx: &Context<'_>) -> Result<()> {
                self.refuse(cx)
            }

            fn warnings(&self, cx: &Context<'_>) -> Result<Vec<String>> {
                self.warn(cx)
            }
        }

        impl DeployPhase<DropTable<$way>> for StopUse {}
    };
}

change!(Direct, (StopUse, Free, SetAside), this => {
    let spec = this.spec;
    (StopUse, Free { spec }, SetAside { spec })
});

change!(Quarantined, (StopUse, Free, Quarantine, SetAside), this => {
    let spec = this.spec;
    (StopUse, Free { spec }, Quarantine { spec }, SetAside { spec })
});
