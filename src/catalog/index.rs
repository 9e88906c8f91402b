//! Indexes.

use serde::{Deserialize, Serialize};

/// One index of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Index {
    /// Its name; it lives in its table's schema.
    pub name: String,
    /// `UNIQUE`.
    pub unique: bool,
    /// Whether it is the primary key's.
    pub primary: bool,
    /// `indisvalid`: false for one that a failed `CONCURRENTLY` left behind.
    pub valid: bool,
    /// Whether a backend is building it right now (`pg_stat_progress_create_index`).
    pub in_progress: bool,
    /// The constraint that it backs.
    pub constraint: Option<String>,
    /// Every column that it uses: keys, `INCLUDE`, expressions, predicate.
    pub uses: Vec<String>,
    /// The key columns in order; `None` where the key is an expression.
    pub keys: Vec<Option<String>>,
    /// What follows `USING ` in `pg_get_indexdef`: method, columns, options, predicate.
    pub tail: String,
    /// Whether it is partitioned, on a partitioned table.
    pub partitioned: bool,
    /// The comment.
    pub comment: Option<String>,
    /// `CLUSTER … USING` this one.
    pub clustered: bool,
    /// Statistics targets of expression keys, by position (`ALTER INDEX … ALTER COLUMN … SET STATISTICS`).
    pub statistics: Vec<(i16, i32)>,
    /// The indexes below a partitioned one, at any depth: (schema, table, index).
    #[serde(default)]
    pub children: Vec<(String, String, String)>,
}
