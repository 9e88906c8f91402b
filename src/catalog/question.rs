//! Questions that only the server can answer, asked in a transaction that is rolled back.

use serde::{Deserialize, Serialize};

/// A trial: statements that run in a transaction which is always rolled back, and a query whose one value, as
/// JSON, is the answer.
///
/// Statements take no lock on the user's tables beyond `ACCESS SHARE`: they work on temporary copies
/// (`CREATE TEMP TABLE … (LIKE …)`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Names the answer in [`Snapshot::answers`](super::Snapshot::answers); equal keys are asked once.
    pub key: String,
    /// The statements, sent one at a time.
    pub statements: Vec<String>,
    /// A query that returns one row with one `json` or `jsonb` value.
    pub query: String,
}

/// What the server said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The value.
    Value(serde_json::Value),
    /// The statements or the query failed: SQLSTATE and message.
    Refused {
        /// The SQLSTATE.
        code: String,
        /// What Postgres said.
        message: String,
    },
}
