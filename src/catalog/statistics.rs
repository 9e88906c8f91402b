//! Extended statistics.

use serde::{Deserialize, Serialize};

/// One statistics object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Statistics {
    /// Its qualified name as SQL, quoted only where that is needed.
    pub name: String,
    /// Every column that it reads.
    pub columns: Vec<String>,
    /// `pg_get_statisticsobjdef`.
    pub definition: String,
    /// `ALTER STATISTICS … SET STATISTICS`, where it was chosen.
    pub target: Option<i32>,
    /// The comment.
    pub comment: Option<String>,
}
