//! The table, its rows, and the check of the whole of it.

use deadpool_postgres::Pool;

use crate::Result;
use crate::clients::{Score, Users, loaded};
use crate::service::User;

/// Rows that are loaded before the service starts.
pub const ROWS: i64 = 100_000;

/// Creates the table and fills it.
pub async fn load(pool: &Pool) -> Result<()> {
    let sql = format!(
        "CREATE TABLE users (
             id bigint PRIMARY KEY,
             version bigint NOT NULL,
             name text NOT NULL CONSTRAINT users_name_not_empty CHECK (name <> '')
         );
         INSERT INTO users SELECT id, 0, 'User ' || id FROM generate_series(1, {ROWS}) AS id;
         CREATE INDEX users_lower_name ON users (lower(name))"
    );
    let client = pool.get().await?;
    client.batch_execute(&sql).await?;
    // Not in a transaction with the rest.
    client.batch_execute("VACUUM ANALYZE users").await?;
    Ok(())
}

/// Compares the whole table with what was last written; nobody may be writing.
pub async fn compare(pool: &Pool, written: Users, score: &Score) -> Result<()> {
    let mut expected: Users = (1..=ROWS).filter_map(|id| Some((id, loaded(id)?))).collect();
    expected.extend(written);
    let client = pool.get().await?;
    for row in client.query("SELECT id, version, full_name FROM users", &[]).await? {
        let id: i64 = row.try_get(0)?;
        let found = User { version: row.try_get(1)?, name: row.try_get(2)? };
        let expected = expected.remove(&id);
        if expected.as_ref() != Some(&found) {
            score.stale(format!("user {id} was left as {expected:?} and is {found:?}"));
        }
    }
    for id in expected.keys() {
        score.stale(format!("user {id} is gone"));
    }
    Ok(())
}

/// The columns of the table.
pub async fn columns(pool: &Pool) -> Result<Vec<String>> {
    let sql = "SELECT attname::text FROM pg_attribute
                WHERE attrelid = 'users'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let rows = pool.get().await?.query(sql, &[]).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}
