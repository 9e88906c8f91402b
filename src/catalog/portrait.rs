//! What hangs on one column.

use serde::{Deserialize, Serialize};

use super::{Column, Constraint, ForeignKey, Index, Statistics, Table};
use crate::error::Result;

/// A column with all that goes silently when it is dropped: what a rollback must rebuild.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Portrait {
    /// The column itself: type, default, identity, sequence, comment, grants and the rest.
    pub column: Column,
    /// Indexes that use it in any way and back no constraint.
    pub indexes: Vec<Index>,
    /// CHECK, UNIQUE, PRIMARY KEY and EXCLUDE constraints that name it.
    pub constraints: Vec<Constraint>,
    /// The indexes behind those constraints.
    pub backing: Vec<Index>,
    /// Foreign keys from it.
    pub outgoing: Vec<ForeignKey>,
    /// Foreign keys to it, its own table's included.
    pub incoming: Vec<ForeignKey>,
    /// Extended statistics that name it.
    pub statistics: Vec<Statistics>,
    /// Its NOT NULL, where that is a constraint with a name (18 and newer).
    #[serde(default)]
    pub not_null: Option<Constraint>,
}

impl Portrait {
    /// The portrait of `column`.
    ///
    /// # Errors
    ///
    /// [`Kind::Missing`](crate::Kind::Missing) if there is no such column.
    pub fn of(table: &Table, column: &str) -> Result<Self> {
        use super::ConstraintKind::{Check, Exclude, Primary, Unique};
        let named = |columns: &[String]| columns.iter().any(|name| name == column);
        let (backing, indexes): (Vec<Index>, _) = table
            .indexes
            .iter()
            .filter(|index| named(&index.uses))
            .cloned()
            .partition(|index| index.constraint.is_some());
        // A constraint does not name what its index INCLUDEs, and goes with it all the same.
        let behind = |name: &str| backing.iter().any(|index| index.constraint.as_deref() == Some(name));
        Ok(Self {
            column: table.column(column)?.clone(),
            indexes,
            constraints: table
                .constraints
                .iter()
                .filter(|found| matches!(found.kind, Check | Unique | Primary | Exclude))
                .filter(|found| named(&found.columns) || behind(&found.name))
                .cloned()
                .collect(),
            backing,
            outgoing: table.outgoing.iter().filter(|key| named(&key.columns)).cloned().collect(),
            incoming: table.incoming.iter().filter(|key| named(&key.ref_columns)).cloned().collect(),
            statistics: table.statistics.iter().filter(|found| named(&found.columns)).cloned().collect(),
            not_null: table.not_null(column).cloned(),
        })
    }

    /// What refuses writes or cascades; plain indexes and statistics do neither.
    pub(crate) fn enforcing(&self) -> Self {
        let indexes = self.indexes.iter().filter(|index| index.unique).cloned().collect();
        Self { indexes, statistics: Vec::new(), ..self.clone() }
    }

    /// The index behind one of its constraints.
    #[must_use]
    pub fn behind(&self, constraint: &Constraint) -> Option<&Index> {
        self.backing.iter().find(|index| index.constraint.as_deref() == Some(constraint.name.as_str()))
    }
}
