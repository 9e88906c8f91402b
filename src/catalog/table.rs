//! Tables.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Column, Constraint, ConstraintKind, ForeignKey, Index, Statistics};
use crate::error::{Error, Kind, Result};
use crate::ident::quote;

/// One table with all that hangs on it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Table {
    /// Its OID.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: TableKind,
    /// The role that owns it, as SQL.
    pub owner: String,
    /// Whether this role may alter it.
    pub owned: bool,
    /// Whether it is a partition of another table.
    pub is_partition: bool,
    /// Whether it has parents or children by plain inheritance.
    pub inherits: bool,
    /// Estimated rows, where Postgres has an estimate.
    pub rows: Option<f64>,
    /// Columns in their order, dropped ones left out.
    pub columns: Vec<Column>,
    /// Its indexes, by name.
    pub indexes: Vec<Index>,
    /// Its constraints, by name; foreign keys are in `outgoing` too.
    pub constraints: Vec<Constraint>,
    /// Foreign keys from this table.
    pub outgoing: Vec<ForeignKey>,
    /// Foreign keys to this table.
    pub incoming: Vec<ForeignKey>,
    /// Every constraint's name on the tables of `incoming`, as (schema, table, name): what a new key there must avoid.
    #[serde(default)]
    pub incoming_taken: BTreeSet<(String, String, String)>,
    /// The user's triggers: neither internal nor ours.
    pub triggers: Vec<Trigger>,
    /// Views, rules, policies, publications, functions and the like that read its columns.
    pub dependents: Vec<Dependent>,
    /// Extended statistics that name its columns.
    pub statistics: Vec<Statistics>,
    /// The name of every statistics object in its schema, whatever table it is on.
    #[serde(default)]
    pub statistics_taken: BTreeSet<String>,
    /// The columns of its partition key, those in expressions included.
    pub partition_key: Vec<String>,
    /// Every partition below a partitioned table, parents before children; empty for an ordinary one.
    pub partitions: Vec<Leaf>,
    /// What single partitions have of their own, and not from this table.
    #[serde(default)]
    pub local: Vec<Local>,
    /// Its replica identity.
    pub replica_identity: ReplicaIdentity,
}

/// What a relation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TableKind {
    /// A plain table.
    #[default]
    Ordinary,
    /// A partitioned table.
    Partitioned,
    /// A view, foreign table or another relation that is no table of ours.
    Other,
}

/// A partition at any depth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Leaf {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Schema of the table that it is a partition of.
    pub parent_schema: String,
    /// The table that it is a partition of.
    pub parent: String,
    /// Whether it is partitioned itself; then it holds no rows.
    pub partitioned: bool,
    /// Whether it is a foreign table.
    pub foreign: bool,
}

/// Something that one partition has on a column by itself: what is done to the partitioned table neither carries it
/// over nor knows of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Local {
    /// The partition as SQL, qualified.
    pub partition: String,
    /// The column; `None` for what uses the whole row.
    pub column: Option<String>,
    /// What it is: `index "a_leaf_only"`, `a default`, `view recent`.
    pub object: String,
    /// Whether the column cannot be dropped while it is there; else it goes silently with the column.
    pub blocks: bool,
}

/// A trigger of the user's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// `pg_get_triggerdef`.
    pub definition: String,
    /// Columns that its `UPDATE OF` or `WHEN` names: those cannot be dropped while it is there.
    pub columns: Vec<String>,
    /// Whether it fires before the row is written.
    pub before: bool,
    /// The body of its function, where that is source text.
    pub body: String,
}

/// Something that reads a column, and would break or block if it went.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Dependent {
    /// The column; `None` for what uses the whole row.
    pub column: Option<String>,
    /// What it is, as `pg_describe_object` says: `view active_users`.
    pub object: String,
    /// Whether it is a function: one that takes the row goes on working without a column.
    #[serde(default)]
    pub function: bool,
    /// Whether it is a query that names the table and no column of it: it needs the table, and none of its columns.
    #[serde(default)]
    pub bare: bool,
}

impl Dependent {
    /// Whether it cannot do without a column. A function that takes the row goes on working; what is stored with the whole
    /// row does not.
    pub(crate) fn reads(&self, column: &str) -> bool {
        match &self.column {
            Some(own) => own == column,
            None => !self.function && !self.bare,
        }
    }
}

/// `REPLICA IDENTITY`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ReplicaIdentity {
    /// The primary key.
    #[default]
    Default,
    /// None.
    Nothing,
    /// The whole row.
    Full,
    /// This index.
    Index(String),
}

impl Table {
    /// Its qualified name as SQL.
    #[must_use]
    pub fn sql(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }

    /// A column by its name.
    #[must_use]
    pub fn find(&self, column: &str) -> Option<&Column> {
        self.columns.iter().find(|found| found.name == column)
    }

    /// A column, or the error that says it is missing.
    ///
    /// # Errors
    ///
    /// [`Kind::Missing`].
    pub fn column(&self, column: &str) -> Result<&Column> {
        self.find(column).ok_or_else(|| {
            Error::new(
                Kind::Missing,
                format!(
                    "column \"{column}\" of table {} does not exist: check the name, case included (it has {})",
                    self.sql(),
                    self.columns.iter().map(Column::sql).collect::<Vec<_>>().join(", ")
                ),
            )
        })
    }

    /// The columns of the primary key, else of the first valid unique index on plain NOT NULL columns without a
    /// predicate: what names a row in an archive or a report.
    #[must_use]
    pub fn key(&self) -> Option<Vec<&str>> {
        let mut best: Option<&Index> = None;
        for index in &self.indexes {
            let total = index.unique && index.valid && !index.tail.contains(" WHERE ");
            let plain = index.keys.iter().all(|key| {
                key.as_deref().and_then(|name| self.find(name)).is_some_and(|column| column.not_null)
            });
            if total && plain && (best.is_none() || index.primary) {
                best = Some(index);
            }
        }
        best.map(|index| index.keys.iter().filter_map(Option::as_deref).collect())
    }

    /// The NOT NULL of a column, where that is a constraint with a name (18 and newer).
    #[must_use]
    pub fn not_null(&self, column: &str) -> Option<&Constraint> {
        self.constraints.iter().find(|found| {
            found.kind == ConstraintKind::NotNull && found.columns.iter().any(|name| name == column)
        })
    }

    /// A NOT NULL that is NOT VALID (18 and newer), as a reason to leave the column alone: rows must have a value, and those
    /// that were there before need not.
    pub(crate) fn late_not_null(&self, column: &str) -> Option<String> {
        let found =
            self.not_null(column).filter(|_| self.find(column).is_some_and(|found| !found.not_null))?;
        Some(format!(
            "constraint \"{}\" (NOT NULL, NOT VALID) refuses new rows without it, and holds for no others; validate it, or drop it, first",
            found.name
        ))
    }

    /// What single partitions have on a column of their own, as a reason to leave it alone.
    pub(crate) fn local_of(&self, column: &str) -> Option<String> {
        self.local_where(column, |_| true)
    }

    /// The same of what would block the drop.
    pub(crate) fn local_blocking(&self, column: &str) -> Option<String> {
        self.local_where(column, |found| found.blocks)
    }

    fn local_where(&self, column: &str, counts: impl Fn(&Local) -> bool) -> Option<String> {
        let uses = |found: &&Local| found.column.as_deref().is_none_or(|name| name == column);
        let all: Vec<String> = self
            .local
            .iter()
            .filter(uses)
            .filter(|found| counts(found))
            .map(|found| format!("partition {} has {} of its own on it", found.partition, found.object))
            .collect();
        if all.is_empty() {
            return None;
        }
        let more =
            if all.len() > 5 { format!(" and {} more like that", all.len() - 5) } else { String::new() };
        Some(format!(
            "{}{more}, which would be lost or in the way; make the same on the partitioned table, or remove it first",
            all.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ")
        ))
    }

    /// Whether it is partitioned.
    #[must_use]
    pub fn is_partitioned(&self) -> bool {
        self.kind == TableKind::Partitioned
    }
}
