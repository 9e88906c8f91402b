//! Constraints.

use serde::{Deserialize, Serialize};

use crate::ident::quote;

/// One constraint of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Constraint {
    /// Its name.
    pub name: String,
    /// What kind it is.
    pub kind: ConstraintKind,
    /// The columns that it names, in its own order (a CHECK: every column that it reads).
    pub columns: Vec<String>,
    /// `pg_get_constraintdef`.
    pub definition: String,
    /// Whether it has been validated.
    pub validated: bool,
    /// `DEFERRABLE`.
    pub deferrable: bool,
    /// `INITIALLY DEFERRED`.
    pub deferred: bool,
    /// Whether it is inherited from a parent (then it can only be changed there).
    pub inherited: bool,
    /// The index behind it.
    pub index: Option<String>,
    /// The comment.
    pub comment: Option<String>,
}

impl Constraint {
    /// Its name and its comment.
    pub(crate) fn labels(&self) -> (&str, Option<&str>) {
        (&self.name, self.comment.as_deref())
    }
}

/// The kinds of constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ConstraintKind {
    /// `CHECK`.
    Check,
    /// `UNIQUE`.
    Unique,
    /// `PRIMARY KEY`.
    Primary,
    /// `FOREIGN KEY`.
    Foreign,
    /// `EXCLUDE`.
    Exclude,
    /// `NOT NULL` (a constraint of its own from 18).
    NotNull,
}

/// A foreign key, seen from either end. Column pairs are in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ForeignKey {
    /// Its name.
    pub name: String,
    /// Schema of the referencing table.
    pub schema: String,
    /// The referencing table.
    pub table: String,
    /// Whether the referencing table is partitioned.
    pub partitioned: bool,
    /// Whether this role may alter the referencing table.
    pub owned: bool,
    /// The referencing columns.
    pub columns: Vec<String>,
    /// Schema of the referenced table.
    pub ref_schema: String,
    /// The referenced table.
    pub ref_table: String,
    /// The referenced columns, paired with `columns`.
    pub ref_columns: Vec<String>,
    /// The index of the referenced table that it stands on.
    #[serde(default)]
    pub index: Option<String>,
    /// `NO ACTION`, `RESTRICT`, `CASCADE`, `SET NULL` or `SET DEFAULT`.
    pub on_update: String,
    /// The same for deletes.
    pub on_delete: String,
    /// The columns of `ON DELETE SET NULL (…)`, where it names some (15 and newer).
    pub set_columns: Vec<String>,
    /// `MATCH FULL`.
    pub match_full: bool,
    /// `DEFERRABLE`.
    pub deferrable: bool,
    /// `INITIALLY DEFERRED`.
    pub deferred: bool,
    /// Whether it has been validated.
    pub validated: bool,
    /// Whether it is enforced at all (`NOT ENFORCED`: 18 and newer).
    pub enforced: bool,
    /// Whether its last column is a `PERIOD` (18 and newer).
    pub period: bool,
    /// Whether it is inherited from a partitioned parent.
    pub inherited: bool,
    /// The comment.
    pub comment: Option<String>,
}

impl ForeignKey {
    /// Whether it cannot do without `index`, of the table that it refers to.
    pub(crate) fn stands_on(&self, index: &super::Index) -> bool {
        self.index.as_deref() == Some(index.name.as_str())
    }

    /// Whether it changes rows when the row that they refer to goes or changes.
    pub(crate) fn cascades(&self) -> bool {
        [&self.on_delete, &self.on_update]
            .iter()
            .any(|action| !["NO ACTION", "RESTRICT"].contains(&action.as_str()))
    }

    /// `FOREIGN KEY (…) REFERENCES …` with every option, but for `NOT VALID`.
    #[must_use]
    pub fn definition(&self) -> String {
        let list = |names: &[String]| names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ");
        let pairs = |names: &[String]| match names {
            [before @ .., last] if self.period => {
                let before = before.iter().map(|name| format!("{}, ", quote(name))).collect::<String>();
                format!("{before}PERIOD {}", quote(last))
            }
            _ => list(names),
        };
        let mut sql = format!(
            "FOREIGN KEY ({}) REFERENCES {}.{} ({})",
            pairs(&self.columns),
            quote(&self.ref_schema),
            quote(&self.ref_table),
            pairs(&self.ref_columns)
        );
        if self.match_full {
            sql.push_str(" MATCH FULL");
        }
        if self.on_update != "NO ACTION" {
            sql.push_str(&format!(" ON UPDATE {}", self.on_update));
        }
        if self.on_delete != "NO ACTION" {
            sql.push_str(&format!(" ON DELETE {}", self.on_delete));
            if !self.set_columns.is_empty() {
                sql.push_str(&format!(" ({})", list(&self.set_columns)));
            }
        }
        if self.deferrable {
            sql.push_str(" DEFERRABLE");
        }
        if self.deferred {
            sql.push_str(" INITIALLY DEFERRED");
        }
        if !self.enforced {
            sql.push_str(" NOT ENFORCED");
        }
        sql
    }

    /// The referencing table as SQL.
    #[must_use]
    pub fn table_sql(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.table))
    }

    /// The referenced table as SQL.
    #[must_use]
    pub fn ref_table_sql(&self) -> String {
        format!("{}.{}", quote(&self.ref_schema), quote(&self.ref_table))
    }
}
