//! Which tables a migration touches, as the ledger keeps it: what decides which services take part in it.

use crate::change::Touches;
use crate::ident::quote;

/// Tables by their whole names, columns apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// As qualified SQL.
    pub(super) tables: Vec<String>,
    /// Who knows.
    pub(super) everything: bool,
}

impl Reach {
    /// Unqualified tables are taken to be in `schema`.
    pub(super) fn of(touches: &Touches, schema: &str) -> Self {
        let mut tables: Vec<_> = touches
            .tables()
            .map(|table| {
                let schema = table.schema().map_or(schema, |schema| schema.as_str());
                format!("{}.{}", quote(schema), quote(table.name().as_str()))
            })
            .collect();
        tables.sort();
        tables.dedup();
        Self { tables, everything: touches.everything }
    }

    /// Whether both touch one table. That somebody may touch anything says nothing of a table.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.tables.iter().any(|table| other.tables.contains(table))
    }
}
