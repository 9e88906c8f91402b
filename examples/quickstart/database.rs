//! The table, its rows, and the checks of the whole of it.

use deadpool_postgres::Pool;

use crate::Result;
use crate::model::{Model, ROWS, TEAMS, User};

/// On `name` and `amount` hangs what hangs on columns in real life; all of it is carried over to the new columns.
const TABLES: [&str; 6] = [
    "CREATE TABLE teams (id int PRIMARY KEY)",
    "CREATE TABLE users (
         id bigint PRIMARY KEY,
         team_id int NOT NULL REFERENCES teams (id),
         email text NOT NULL,
         name text NOT NULL CONSTRAINT users_name_not_empty CHECK (name <> ''),
         amount int NOT NULL DEFAULT 0 CONSTRAINT users_amount_not_negative CHECK (amount >= 0),
         CONSTRAINT users_one_name_per_team UNIQUE (team_id, name)
     )",
    "COMMENT ON COLUMN users.name IS 'as it is printed on the badge'",
    "CREATE INDEX users_lower_name ON users (lower(name))",
    "CREATE INDEX users_large_amount ON users (amount DESC) WHERE amount > 900",
    "CREATE TABLE badges (
         team_id int NOT NULL,
         holder text NOT NULL,
         PRIMARY KEY (team_id, holder),
         CONSTRAINT badges_holder_fkey FOREIGN KEY (team_id, holder)
             REFERENCES users (team_id, name) ON UPDATE CASCADE ON DELETE CASCADE
     )",
];

/// Creates the tables and fills them.
pub async fn load(pool: &Pool) -> Result<()> {
    let client = pool.get().await?;
    for table in TABLES {
        client.batch_execute(table).await?;
    }
    let rows = [
        format!("INSERT INTO teams SELECT generate_series(0, {TEAMS} - 1)"),
        format!(
            "INSERT INTO users (id, team_id, email, name, amount)
             SELECT id, id % {TEAMS}, 'user' || id || '@example.com', 'User ' || id, id % 1000
               FROM generate_series(1, {ROWS}) AS id"
        ),
        "INSERT INTO badges SELECT team_id, name FROM users WHERE id % 100 = 1".to_owned(),
        "VACUUM ANALYZE users".to_owned(),
        "VACUUM ANALYZE badges".to_owned(),
    ];
    for row in rows {
        client.batch_execute(&row).await?;
    }
    Ok(())
}

/// How many rows of the whole table, in one snapshot, have two columns that do not agree.
pub async fn disagreeing(pool: &Pool, old: &str, new: &str) -> Result<u64> {
    let sql = format!("SELECT count(*) FROM users WHERE {old} IS DISTINCT FROM {new}");
    let count: i64 = pool.get().await?.query_one(&sql, &[]).await?.get(0);
    Ok(count.unsigned_abs())
}

/// How many rows of the whole table are not as they were last written; nobody may be writing. Also says what.
pub async fn unlike(pool: &Pool, model: &Model) -> Result<(u64, String)> {
    let client = pool.get().await?;
    let sql = "SELECT id, full_name, amount_big, b.holder IS NOT NULL
                 FROM users AS u LEFT JOIN badges AS b ON (b.team_id, b.holder) = (u.team_id, u.full_name)";
    let mut expected = model.table().await;
    let (mut count, mut first) = (0, None);
    for row in client.query(sql, &[]).await? {
        let id: i64 = row.get(0);
        let found = Some(User { name: row.get(1), amount: row.get(2), badge: row.get(3) });
        let expected = expected.remove(&id);
        if found != expected {
            count += 1;
            first.get_or_insert_with(|| format!("user {id} was left as {expected:?} and is {found:?}"));
        }
    }
    count += expected.len() as u64;
    let missing = expected.keys().next().map(|id| format!("user {id} is gone"));
    Ok((count, first.or(missing).unwrap_or_default()))
}

/// What hangs on the new columns now, as Postgres writes it.
pub async fn carried_over(pool: &Pool) -> Result<Vec<String>> {
    let sql = "SELECT conrelid::regclass || ': ' || conname || ' ' || pg_get_constraintdef(oid) AS found
                 FROM pg_constraint WHERE contype IN ('c', 'f', 'u')
                  AND pg_get_constraintdef(oid) ~ '(full_name|amount_big)'
                UNION ALL
               SELECT 'index: ' || indexdef FROM pg_indexes
                WHERE tablename = 'users' AND indexdef ~ '(full_name|amount_big)'
                UNION ALL
               SELECT 'users: ' || attname || ' ' || format_type(atttypid, atttypmod)
                      || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END
                      || coalesce(' DEFAULT ' || pg_get_expr(adbin, adrelid), '')
                      || coalesce(', comment: ' || col_description(attrelid, attnum), '')
                 FROM pg_attribute LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
                WHERE attrelid = 'users'::regclass AND attname IN ('full_name', 'amount_big')
                ORDER BY found";
    let rows = pool.get().await?.query(sql, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
