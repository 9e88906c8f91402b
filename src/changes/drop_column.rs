//! `DropColumn`.

use std::fmt::Write as _;
use std::marker::PhantomData;
use std::time::Duration;

use super::refuse;
use crate::change::{Change, Touches};
use crate::error::Result;
use crate::expr::Expr;
use crate::ident::{Ident, TableName};
use crate::phase::{Context, DeployPhase};
use crate::phases::drop_column::{Drop, DropSpec, Quarantine, StopReads, StopWrites};
use crate::phases::way::{Direct, Quarantined, Way};

/// Drops a column, when nobody reads or writes it any more.
///
/// Release 0 uses the column, 1 writes it and no longer reads it, 2 does neither.
///
/// | # | phase | enter | gate | window |
/// |---|---|---|---|---|
/// | 1 | `StopReads` | – | fleet ≥ 1 | 0, 1 |
/// | 2 | `StopWrites` | save the definitions of what refuses or cascades: its foreign keys, CHECKs, UNIQUE constraints, unique indexes, NOT NULL; drop them one by one | fleet ≥ 2, soak, no references | 1, 2 |
/// | 3 | `Drop` | save the definitions of the rest; archive the values; drop the indexes and statistics that use it, one by one; `DROP COLUMN` | – | 2 |
///
/// With [`quarantine`](DropColumn::quarantine) a phase `Quarantine` comes before `Drop`: the column is renamed away, so
/// that whoever still uses it fails loudly, and renamed back in an instant.
///
/// **Locks:** `ACCESS EXCLUSIVE` for changes of the catalog alone, under the stall budget; a foreign key's drop takes
/// it on both tables, and so runs alone. Indexes are dropped `CONCURRENTLY`.
///
/// **Rollback:** `Drop` adds the column again with its type, values, default and attributes, and rebuilds its indexes
/// `CONCURRENTLY`. The values come from the archive, a table beside the ledger that is found by the row's key; on a
/// table without a key `Drop` is irreversible. `StopWrites` fills what was written without the column, by
/// [`restore_with`](Self::restore_with) or else the column's default, makes it NOT NULL again, and rebuilds the rest:
/// unique indexes `CONCURRENTLY`, constraints `NOT VALID` and then validated. Rows that do not fit by then are named.
///
/// Refused before anything is touched, by name: a primary or partition key, a generated or identity column, a domain
/// with a constraint or a default, a foreign key that refers to it, and what reads it: views, rules, policies,
/// publications, triggers, generated columns.
///
/// ```
/// use phasewise::{DropColumn, Migration, Migrations, drop_column::StopWrites, migrations};
///
/// static MIGRATIONS: Migrations = migrations![
///     Migration::new("20261201_users_fax", DropColumn::new("users", "fax").restore_with("''"))
///         .deployed::<StopWrites>(),
/// ];
/// # assert_eq!(MIGRATIONS.iter().len(), 1);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct DropColumn<W = Direct> {
    spec: DropSpec,
    way: PhantomData<W>,
}

impl DropColumn {
    /// That column of `table`.
    #[must_use]
    pub const fn new(table: &'static str, column: &'static str) -> Self {
        Self {
            spec: DropSpec {
                table: TableName::new(table),
                name: Ident::new(column),
                restore_with: None,
                soak: None,
                quarantined: false,
            },
            way: PhantomData,
        }
    }

    /// Renames the column away before it is dropped, once nobody uses it: the phase `Quarantine`, with window 2, which
    /// soaks as long as `StopWrites` before it does. A query that names the column fails there, and rolling the phase
    /// back renames it back: one catalog change under the stall budget.
    #[must_use]
    pub const fn quarantine(self) -> DropColumn<Quarantined> {
        let Self { mut spec, way: _ } = self;
        spec.quarantined = true;
        DropColumn { spec, way: PhantomData }
    }
}

impl<W: Copy> DropColumn<W> {
    /// What rows get on a rollback that were written without the column, over `{column}`s: all of them if it was NOT
    /// NULL, else those that break a CHECK without it. A NOT NULL column without a default needs it. For a UNIQUE column
    /// it must differ from row to row.
    #[must_use]
    pub const fn restore_with(mut self, expression: &'static str) -> Self {
        self.spec.restore_with = Some(Expr::new(expression));
        self
    }

    /// How long the column stays after its last use, in place of the migrator's soak time. With a quarantine it is
    /// soaked twice, so long each time: under its own name, where an old release may come back as it is, and renamed.
    #[must_use]
    pub const fn soak(mut self, time: Duration) -> Self {
        self.spec.soak = Some(time);
        self
    }
}

impl<W: Way> DropColumn<W> {
    fn text(&self) -> String {
        let DropSpec { table, name, restore_with, quarantined, .. } = self.spec;
        let mut text = format!("drop column {name} of {table}");
        if let Some(expr) = restore_with {
            let _ = write!(text, "\n restore with {}", expr.as_str());
        }
        if quarantined {
            text.push_str("\n after a quarantine");
        }
        text
    }

    fn touched(&self) -> Touches {
        let mut columns = vec![self.spec.name];
        columns.extend(self.spec.restore_with.iter().flat_map(Expr::columns).map(Ident::new));
        columns.dedup();
        Touches::nothing().columns(self.spec.table, &columns)
    }

    fn refuse(&self, cx: &Context<'_>) -> Result<()> {
        let table = refuse::changeable(cx, self.spec.table)?;
        self.spec.refuse_at_first(cx, table)
    }
}

macro_rules! change {
    ($way:ty, $phases:ty, $this:ident => $expanded:expr) => {
        impl Change for DropColumn<$way> {
            type Phases = $phases;

            fn phases(&self) -> Self::Phases {
                let $this = self;
                $expanded
            }

            fn definition(&self) -> String {
                self.text()
            }

            fn touches(&self) -> Touches {
                self.touched()
            }

            fn check(&self, cx: &Context<'_>) -> Result<()> {
                self.refuse(cx)
            }

            fn warnings(&self, cx: &Context<'_>) -> Result<Vec<String>> {
                Ok(self.spec.warnings(cx.snapshot.table(self.spec.table)?))
            }
        }

        impl DeployPhase<DropColumn<$way>> for StopReads {}
        impl DeployPhase<DropColumn<$way>> for StopWrites {}
    };
}

change!(Direct, (StopReads, StopWrites, Drop), this => {
    let spec = this.spec;
    (StopReads, StopWrites { spec }, Drop { spec })
});

change!(Quarantined, (StopReads, StopWrites, Quarantine, Drop), this => {
    let spec = this.spec;
    (StopReads, StopWrites { spec }, Quarantine { spec }, Drop { spec })
});
