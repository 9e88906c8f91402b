//! Tables, built alike for everybody.

use phasewise::testing::Database;
use tokio_postgres::Client;

use crate::Result;

/// The primary key's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Bigint,
    Uuid,
}

impl Key {
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Bigint => "bigint",
            Self::Uuid => "uuid",
        }
    }
}

/// The rows, once, as all tables get them.
pub(crate) async fn source(database: &Database, key: Key, rows: i64) -> Result {
    let client = database.connect().await?;
    let id = match key {
        Key::Bigint => "g",
        Key::Uuid => "gen_random_uuid()",
    };
    client
        .batch_execute(&format!(
            "CREATE UNLOGGED TABLE source AS
             SELECT {id}::{} AS id, 'user number ' || g AS name, (g * 7919::bigint) % {rows} AS score,
                    timestamptz '2026-01-01' + g * interval '1 second' AS at
               FROM generate_series(1, {rows}) g",
            key.sql()
        ))
        .await?;
    Ok(())
}

/// The column that has an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Indexed {
    /// A time of creation: in the order of the rows.
    InOrder,
    /// A score: in no order.
    AtRandom,
}

/// A fresh `item`: a primary key, a column with an index, and one to be copied. Vacuumed, warm, and nothing left to be
/// written for it.
pub(crate) async fn item(client: &Client, key: Key, indexed: Indexed) -> Result {
    let key = key.sql();
    let indexed = match indexed {
        Indexed::InOrder => "at",
        Indexed::AtRandom => "score",
    };
    for sql in [
        "DROP TABLE IF EXISTS item".to_owned(),
        "DROP SCHEMA IF EXISTS phasewise CASCADE".to_owned(),
        format!("CREATE TABLE item (id {key} NOT NULL, name text, score bigint, at timestamptz)"),
        "INSERT INTO item SELECT * FROM source".to_owned(),
        "ALTER TABLE item ADD PRIMARY KEY (id)".to_owned(),
        format!("CREATE INDEX item_indexed ON item ({indexed})"),
        "VACUUM (ANALYZE, FREEZE) item".to_owned(),
        "SELECT count(*), max(name) FROM item".to_owned(),
        "CHECKPOINT".to_owned(),
    ] {
        client.batch_execute(&sql).await?;
    }
    Ok(())
}
