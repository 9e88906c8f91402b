//! What Postgres says of the tables that a migration touches: a snapshot, as data.

mod alike;
mod column;
mod constraint;
mod index;
mod portrait;
mod question;
mod statistics;
mod table;

pub(crate) use alike::{ALIKE, alike};
pub use column::{Column, Generated, Grant, Identity, Sequence};
pub use constraint::{Constraint, ConstraintKind, ForeignKey};
pub use index::Index;
pub use portrait::Portrait;
pub use question::{Answer, Question};
pub use statistics::Statistics;
pub use table::{Dependent, Leaf, Local, ReplicaIdentity, Table, TableKind, Trigger};

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::ident::TableName;

/// The catalog as one moment showed it: all that phases know of the database.
///
/// Made by the migrator; phases compute their steps from it, and from nothing else.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// `server_version_num`, such as 150018.
    pub server_version: u32,
    /// Where tables without a written schema are, and are created.
    pub schema: String,
    /// The ledger's schema: sync functions and archives are made there too.
    pub ledger_schema: String,
    /// The current role as SQL.
    pub role: String,
    /// Those schemas of the asked tables and their partitions that exist, and whether the role may create in them.
    pub schemas: BTreeMap<String, bool>,
    /// The tables that were asked for and exist.
    pub tables: Vec<Table>,
    /// Every relation name in the schemas of those tables, as (schema, name): what a new name must avoid.
    pub taken: BTreeSet<(String, String)>,
    /// What the server said to the phases' [`Question`]s.
    pub answers: BTreeMap<String, Answer>,
}

impl Snapshot {
    /// The schema that `table` is in.
    #[must_use]
    pub fn schema_of(&self, table: TableName) -> &str {
        table.schema().map_or(&self.schema, |schema| schema.as_str())
    }

    /// `table` as SQL: always qualified, always quoted.
    #[must_use]
    pub fn sql_name(&self, table: TableName) -> String {
        format!("{}.{}", crate::ident::quote(self.schema_of(table)), table.name().quoted())
    }

    /// `table`, if it exists.
    #[must_use]
    pub fn find(&self, table: TableName) -> Option<&Table> {
        let schema = self.schema_of(table);
        self.tables.iter().find(|found| found.schema == schema && found.name == table.name().as_str())
    }

    /// `table`, or the error that says it is missing.
    ///
    /// # Errors
    ///
    /// [`Kind::Missing`].
    pub fn table(&self, table: TableName) -> Result<&Table> {
        self.find(table).ok_or_else(|| {
            Error::new(
                Kind::Missing,
                format!(
                    "table \"{}\".\"{}\" does not exist: create it in an earlier migration, or write its schema as \"schema.table\"",
                    self.schema_of(table),
                    table.name()
                ),
            )
        })
    }

    /// Whether a relation of that name exists.
    #[must_use]
    pub fn is_taken(&self, schema: &str, name: &str) -> bool {
        self.taken.contains(&(schema.to_owned(), name.to_owned()))
    }
}
