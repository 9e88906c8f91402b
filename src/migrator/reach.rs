//! Which tables a migration touches, as the ledger keeps it: what decides which services take part in it.

use crate::change::Touches;
use crate::ident::quote;

/// Tables by their whole names, columns apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// As qualified SQL.
    pub(super) tables: Vec<String>,
    /// Columns of these tables, qualified too; a table without any is touched as a whole.
    pub(super) columns: Vec<String>,
    /// Who knows.
    pub(super) everything: bool,
}

impl Reach {
    /// Unqualified tables are taken to be in `schema`.
    pub(super) fn of(touches: &Touches, schema: &str) -> Self {
        let (mut tables, mut columns, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        for touched in &touches.tables {
            let schema = touched.table.schema().map_or(schema, |schema| schema.as_str());
            let table = format!("{}.{}", quote(schema), quote(touched.table.name().as_str()));
            if touched.columns.is_empty() {
                whole.push(table.clone());
            }
            columns.extend(touched.columns.iter().map(|column| (table.clone(), column.quoted())));
            tables.push(table);
        }
        columns.retain(|(table, _)| !whole.contains(table));
        let mut columns: Vec<_> =
            columns.into_iter().map(|(table, column)| format!("{table}.{column}")).collect();
        for list in [&mut tables, &mut columns] {
            list.sort();
            list.dedup();
        }
        Self { tables, columns, everything: touches.everything }
    }

    /// Whether both touch one table. That somebody may touch anything says nothing of a table.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.tables.iter().any(|table| other.tables.contains(table))
    }

    /// Whether both touch one column, or one of them a table of the other's as a whole. That somebody may touch anything
    /// says nothing of either.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.tables.iter().filter(|table| other.tables.contains(table)).any(|table| {
            let (one, two) = (self.columns_of(table), other.columns_of(table));
            one.is_empty() || two.is_empty() || one.iter().any(|column| two.contains(column))
        })
    }

    fn columns_of(&self, table: &str) -> Vec<&String> {
        let prefix = format!("{table}.");
        self.columns.iter().filter(|column| column.starts_with(&prefix)).collect()
    }
}
