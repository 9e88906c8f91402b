//! Changes: what a user writes.

use crate::error::Result;
use crate::ident::{Ident, TableName};
use crate::phase::{Context, PhaseSeq};

/// One schema change, as its user writes it: a `const` builder that expands into a tuple of phases.
///
/// The changes of this crate implement it, and so may yours: the migrator knows nothing else of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a complete change",
    label = "an option is missing, or this is no `phasewise::Change`",
    note = "a NOT NULL column needs `.default(…)`, `.volatile_default(…)` or `.backfill(…)`; a type change needs both `.up(…)` and `.down(…)`; `RunSql` needs `.rollback(…)` or `.irreversible(\"reason\")`"
)]
pub trait Change: Copy + Send + Sync + 'static {
    /// The tuple of its phases.
    type Phases: PhaseSeq;

    /// Its phases, in order.
    fn phases(&self) -> Self::Phases;

    /// Its definition in a normalised form: whatever changes what it does, and nothing else. The ledger keeps a
    /// hash of it, and says so when a migration that has begun is edited.
    fn definition(&self) -> String;

    /// What it touches. Migrations in flight hold up later ones that touch the same.
    fn touches(&self) -> Touches;

    /// Whether code that is written for it works, if slowly, while it is not done. Asked of changes with one release only,
    /// of which a build says nothing: it is not let in before those are done that are not optional, and does not wait for
    /// those that are.
    fn is_optional(&self) -> bool {
        false
    }

    /// Refuses, before the first phase and with nothing touched, what cannot be done safely. The answers to every
    /// phase's questions are there.
    ///
    /// # Errors
    ///
    /// What is wrong, with which object, and what to do.
    fn check(&self, cx: &Context<'_>) -> Result<()> {
        let _ = cx;
        Ok(())
    }

    /// What is no reason to refuse, but what a person should know before the first phase. The plan prints it.
    ///
    /// # Errors
    ///
    /// Like [`check`](Change::check).
    fn warnings(&self, cx: &Context<'_>) -> Result<Vec<String>> {
        let _ = cx;
        Ok(Vec::new())
    }
}

/// The tables and columns that a change touches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touches {
    pub(crate) tables: Vec<TouchedTable>,
    pub(crate) everything: bool,
    pub(crate) unchecked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TouchedTable {
    pub(crate) table: TableName,
    /// Empty: all of them.
    pub(crate) columns: Vec<Ident>,
    pub(crate) created: bool,
    /// Referred to, and not altered.
    pub(crate) referred: bool,
}

impl Touches {
    /// Who knows: everything.
    #[must_use]
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Nothing yet.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// And these columns of `table`.
    #[must_use]
    pub fn columns(mut self, table: TableName, columns: &[Ident]) -> Self {
        self.tables.push(TouchedTable { table, columns: columns.to_vec(), created: false, referred: false });
        self
    }

    /// And all of `table`.
    #[must_use]
    pub fn table(self, table: TableName) -> Self {
        self.columns(table, &[])
    }

    /// And `table`, which this change creates.
    #[must_use]
    pub fn creates(mut self, table: TableName) -> Self {
        self.tables.push(TouchedTable { table, columns: Vec::new(), created: true, referred: false });
        self
    }

    /// And these columns of `table`, which this change refers to and does not alter, as a foreign key does. So the table
    /// need not belong to this role; whether it may refer to it is for the change to ask.
    #[must_use]
    pub fn refers(mut self, table: TableName, columns: &[Ident]) -> Self {
        self.tables.push(TouchedTable { table, columns: columns.to_vec(), created: false, referred: true });
        self
    }

    /// What is done to them is not for phasewise to judge: they may be views or partitions, belong to another role, or
    /// not be there yet. Else a table that is not ordinary or partitioned, and this role's, is refused before the first
    /// phase.
    #[must_use]
    pub fn unchecked(mut self) -> Self {
        self.unchecked = true;
        self
    }

    /// Whether both touch one column, or one of them a table of the other's as a whole. Unqualified tables are
    /// taken to be in `schema`.
    #[must_use]
    pub fn overlaps(&self, other: &Self, schema: &str) -> bool {
        let schema_of = |table: TableName| table.schema().map_or(schema, |schema| schema.as_str());
        if self.everything || other.everything {
            return true;
        }
        self.tables.iter().any(|a| {
            other.tables.iter().any(|b| {
                a.table.name() == b.table.name()
                    && schema_of(a.table) == schema_of(b.table)
                    && (a.columns.is_empty()
                        || b.columns.is_empty()
                        || a.columns.iter().any(|column| b.columns.contains(column)))
            })
        })
    }

    /// The tables, as they were written.
    pub fn tables(&self) -> impl Iterator<Item = TableName> + '_ {
        self.tables.iter().map(|touched| touched.table)
    }
}
