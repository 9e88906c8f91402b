//! What refers to something that is to be dropped.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

/// Something that refers to what a migration drops, or may: a finding of the search before the drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Reference {
    /// What it is.
    pub kind: ReferenceKind,
    /// The name by which it is [acknowledged](crate::Migrator::acknowledge); the same whenever it is found.
    pub object: String,
    /// What it has to do with what is dropped, and what to do about it.
    pub detail: String,
    /// Whether the drop cannot be done while it is there: then it cannot be acknowledged either.
    pub blocks: bool,
    /// Who said that it may be there all the same.
    pub acknowledged: Option<Acknowledgement>,
}

/// The kinds of reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[non_exhaustive]
pub enum ReferenceKind {
    /// A view or a materialized view, also one on such a view.
    View,
    /// A rule.
    Rule,
    /// A row security policy.
    Policy,
    /// A trigger, by its `UPDATE OF` or `WHEN`.
    Trigger,
    /// A generated column.
    GeneratedColumn,
    /// A publication, by its column list or row filter, or since it lists a table that goes.
    Publication,
    /// A foreign key to it.
    ForeignKey,
    /// The partition key.
    PartitionKey,
    /// What is made of the table's whole row: functions over its row type, columns of it, views with the row.
    WholeRow,
    /// A function, by its body.
    Function,
    /// A right on the column.
    Grant,
    /// A statement that was run since the last use was said to be over.
    Statement,
    /// Statistics of statements that were lost meanwhile, or cannot be asked for: there may be uses among them.
    Evidence,
    /// Something else in the catalog that depends on it.
    Other,
}

/// A person's word that a reference does not matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Acknowledgement {
    /// The reference's object.
    pub object: String,
    /// When it was given, by the database's clock.
    pub at: DateTime<Utc>,
    /// The database role and address that gave it.
    pub by: String,
}

impl Reference {
    pub(crate) fn new(kind: ReferenceKind, object: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind, object: object.into(), detail: detail.into(), blocks: false, acknowledged: None }
    }

    pub(crate) fn blocking(self, blocks: bool) -> Self {
        Self { blocks, ..self }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.detail)?;
        if let Some(Acknowledgement { at, by, .. }) = &self.acknowledged {
            write!(f, " (acknowledged by {by} at {})", at.to_rfc3339_opts(SecondsFormat::Secs, true))?;
        }
        Ok(())
    }
}
