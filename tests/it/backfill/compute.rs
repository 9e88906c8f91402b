//! Values that Rust computes.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use phasewise::{Kind, Migration, Migrations, OnFailingRow, State, migrations};
use tokio_postgres::Row;
use tokio_postgres::types::{IsNull, Kind as TypeKind, ToSql, Type, private::BytesMut};

use super::*;

const ROWS: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, a text)",
    "INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 100) i",
];

/// Values that tokio-postgres has no type for: their binary form.
#[derive(Debug)]
struct Raw(Vec<u8>);

impl ToSql for Raw {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID || matches!(ty.kind(), TypeKind::Enum(_))
    }

    tokio_postgres::types::to_sql_checked!();
}

macro_rules! types {
    ($($name:ident: $setup:expr, $data_type:expr, $value:expr, $expected:expr;)+) => {$(
        #[tokio::test]
        async fn $name() {
            static COMPUTED: Migrations = migrations![
                Migration::new("computed", AddColumn::new("t", "b", $data_type).computed_from(&["id", "a"]).not_null())
                    .not_deployed()
            ];
            let (database, client) = tables(ROWS).await;
            run(&client, $setup).await;
            let value = $value;
            let migrator = migrator(&database, &COMPUTED, fixed(7)).compute("computed", move |row: Row| {
                let value = value(row.get::<_, i32>("id"), row.get::<_, String>("a"));
                async move {
                    // A service takes its time, and answers in no order.
                    tokio::time::sleep(Duration::from_micros(fastrand::u64(0..500))).await;
                    Ok::<_, Infallible>(Some(value))
                }
            });
            let report = fill(&migrator).await.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(report.migrations[0].rows, 100);
            let wrong = format!("SELECT count(*) FROM t WHERE b IS DISTINCT FROM {}", $expected);
            assert_eq!(one::<i64>(&client, &wrong).await, 0);
        }
    )+};
}

types! {
    texts: "SELECT", "text", |_, a: String| format!("{a}'s \\"), r"a || '''s \'";
    varchars: "SELECT", "varchar(40)", |_, a: String| a, "a";
    bigints: "SELECT", "bigint", |id, _| i64::from(id) << 33, "id::bigint << 33";
    uuids: "SELECT", "uuid", |id: i32, _| Raw([[7_u8; 12].as_slice(), &id.to_be_bytes()].concat()), "('07070707-0707-0707-0707-0707' || lpad(to_hex(id), 8, '0'))::uuid";
    enums: "CREATE TYPE mood AS ENUM ('good', 'it''s bad')", "mood", |id, _| Raw(if id % 2 == 0 { b"good".to_vec() } else { b"it's bad".to_vec() }), "CASE id % 2 WHEN 0 THEN 'good' ELSE 'it''s bad' END::mood";
    domains: "CREATE DOMAIN pos AS int; CREATE DOMAIN small AS pos", "small", |id, _| id * 2, "id * 2";
    jsonbs: "SELECT", "jsonb", |id, a: String| serde_json::json!({ "id": id, "a": [a] }), "jsonb_build_object('id', id, 'a', jsonb_build_array(a))";
    byteas: "SELECT", "bytea", |_, a: String| a.into_bytes(), "convert_to(a, 'utf8')";
    timestamps: "SELECT", "timestamptz", |id: i32, _| chrono::DateTime::from_timestamp(i64::from(id), 0), "to_timestamp(id)";
}

static TEXT: Migrations = migrations![
    Migration::new("text", AddColumn::new("t", "b", "text").computed_from(&["id", "a"])).not_deployed()
];
static NOT_NULL: Migrations = migrations![
    Migration::new("text", AddColumn::new("t", "b", "text").computed_from(&["id", "a"]).not_null())
        .not_deployed()
];

fn upper(row: &Row) -> String {
    row.get::<_, String>("a").to_uppercase()
}

/// No value for each tenth row.
fn nine_of_ten(database: &Database) -> Migrator {
    migrator(database, &TEXT, fixed(7)).compute("text", |row: Row| {
        let value = (row.get::<_, i32>("id") % 10 > 0).then(|| upper(&row));
        async move { Ok::<_, Infallible>(value) }
    })
}

#[tokio::test]
async fn a_missing_function_is_refused_before_anything() {
    let (database, client) = tables(ROWS).await;
    let migrator = migrator(&database, &TEXT, fixed(7));
    let error = migrator.run().await.expect_err("no function");
    assert_eq!(error.kind(), Kind::Definition);
    assert!(error.to_string().contains("add .compute(\"text\", …)"), "{error}");
    let columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0";
    assert_eq!(one::<i64>(&client, columns).await, 2, "the column was added all the same");
    let status = migrator.status().await.expect("a status");
    assert_eq!(status.migrations[0].state, State::Pending);
}

#[tokio::test]
async fn a_type_that_does_not_fit_is_refused_before_a_row_is_written() {
    let (database, client) = tables(ROWS).await;
    let called = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&called);
    let migrator = migrator(&database, &TEXT, fixed(7)).compute("text", move |_: Row| {
        counter.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, Infallible>(Some(1_i64)) }
    });
    let error = fill(&migrator).await.expect_err("a number is no text");
    assert_eq!(error.kind(), Kind::Definition);
    assert!(error.to_string().contains("type text of column \"b\""), "{error}");
    assert_eq!(called.load(Ordering::SeqCst), 0);
    assert_eq!(one::<i64>(&client, "SELECT count(b) FROM t").await, 0);
}

#[tokio::test]
async fn none_leaves_the_column_null() {
    let (database, client) = tables(ROWS).await;
    let migrator = nine_of_ten(&database);
    assert_eq!(fill(&migrator).await.expect("filled").migrations[0].rows, 90);
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t WHERE b = upper(a)").await, 90);
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t WHERE b IS NULL AND id % 10 = 0").await, 10);
}

#[tokio::test]
async fn none_is_reported_where_the_column_must_not_be_null() {
    let (database, client) = tables(ROWS).await;
    let migrator = migrator(&database, &NOT_NULL, fixed(7)).compute("text", |row: Row| {
        let value = (row.get::<_, i32>("id") != 30).then(|| upper(&row));
        async move { Ok::<_, Infallible>(value) }
    });
    let error = fill(&migrator).await.expect_err("a row without a value");
    assert_eq!(error.kind(), Kind::Backfill);
    assert!(error.to_string().contains(": id = 30. "), "{error}");
    run(&client, "UPDATE t SET b = 'by hand' WHERE id = 30").await;
    fill(&migrator).await.expect("filled");
}

/// The function itself changes rows, as a client might just then: one gets another input, one its value, one goes.
#[tokio::test]
async fn a_row_that_changes_meanwhile_is_not_overwritten() {
    let (database, client) = tables(ROWS).await;
    let other = Arc::new(database.connect().await.expect("a connection"));
    let migrator = migrator(&database, &NOT_NULL, fixed(7)).compute("text", move |row: Row| {
        let other = Arc::clone(&other);
        async move {
            match (row.get::<_, i32>("id"), row.get::<_, &str>("a")) {
                (30, "row 30") => run(&other, "UPDATE t SET a = 'changed' WHERE id = 30").await,
                (40, _) => run(&other, "UPDATE t SET b = 'mine' WHERE id = 40").await,
                (50, _) => run(&other, "DELETE FROM t WHERE id = 50").await,
                _ => {}
            }
            Ok::<_, Infallible>(Some(upper(&row)))
        }
    });
    fill(&migrator).await.expect("filled");
    let wrong =
        "SELECT count(*) FROM t WHERE b IS DISTINCT FROM CASE id WHEN 40 THEN 'mine' ELSE upper(a) END";
    assert_eq!(one::<i64>(&client, wrong).await, 0);
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t WHERE a = 'changed'").await, 1);
}

/// A column that may stay null has no condition that says which rows are left out.
#[tokio::test]
async fn the_same_where_the_column_may_stay_null() {
    let (database, client) = tables(ROWS).await;
    let other = Arc::new(database.connect().await.expect("a connection"));
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    let migrator = migrator(&database, &TEXT, fixed(7)).compute("text", move |row: Row| {
        let other = Arc::clone(&other);
        counter.fetch_add(1, Ordering::SeqCst);
        async move {
            if row.get::<_, i32>("id") == 30 && row.get::<_, &str>("a") == "row 30" {
                run(&other, "UPDATE t SET a = 'changed' WHERE id = 30").await;
            }
            Ok::<_, Infallible>(Some(upper(&row)))
        }
    });
    fill(&migrator).await.expect("filled");
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t WHERE b IS DISTINCT FROM upper(a)").await, 0);
    assert_eq!(calls.load(Ordering::SeqCst), 101, "others were computed again, too");
}

#[tokio::test]
async fn a_row_that_changes_all_the_time_is_named() {
    let (database, client) = tables(ROWS).await;
    let other = Arc::new(database.connect().await.expect("a connection"));
    let migrator = migrator(&database, &TEXT, fixed(50).passes(2)).compute("text", move |row: Row| {
        let other = Arc::clone(&other);
        async move {
            if row.get::<_, i32>("id") == 30 {
                run(&other, "UPDATE t SET a = a || '!' WHERE id = 30").await;
            }
            Ok::<_, Infallible>(Some(upper(&row)))
        }
    });
    let error = fill(&migrator).await.expect_err("a row that is never still");
    assert_eq!(error.kind(), Kind::Backfill);
    assert!(error.to_string().contains("id = 30"), "{error}");
    assert_eq!(one::<i64>(&client, "SELECT count(b) FROM t WHERE b = upper(a)").await, 99);
}

/// Rows that an update moves behind the walk still need their value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_hop_behind_the_walk_are_computed() {
    let (database, client) = tables(&[
        "CREATE TABLE t (id int PRIMARY KEY, a text, pad text) WITH (autovacuum_enabled = off)",
        "INSERT INTO t SELECT i, 'row ' || i, repeat('p', 1000) FROM generate_series(1, 60) i",
        "DELETE FROM t WHERE id <= 14",
        "VACUUM t",
    ])
    .await;
    let migrator = nine_of_ten(&database);
    let (migrator, mut ears) = stepwise(migrator);
    let running = filling(migrator);
    ears.batch().await;
    let hops = "WITH hop AS (UPDATE t SET pad = pad || '.' WHERE id > 55 RETURNING ctid)
                SELECT count(*) FROM hop WHERE (ctid::text::point)[0] < 2";
    assert!(one::<i64>(&client, hops).await > 0, "no row moved");
    ears.run();
    filled(running).await;
    let wrong = "SELECT count(*) FROM t WHERE b IS DISTINCT FROM CASE WHEN id % 10 > 0 THEN upper(a) END";
    assert_eq!(one::<i64>(&client, wrong).await, 0);
}

fn failing(migrator: Migrator) -> Migrator {
    migrator.compute("text", |row: Row| {
        let value = match row.get::<_, i32>("id") {
            30 | 31 | 60 => Err(format!("no key for {}", row.get::<_, &str>("a"))),
            _ => Ok(Some(upper(&row))),
        };
        async move { value }
    })
}

#[tokio::test]
async fn a_row_that_the_function_fails_for_stops_it() {
    let (database, client) = tables(ROWS).await;
    let error = fill(&failing(migrator(&database, &TEXT, fixed(20)))).await.expect_err("no value");
    assert_eq!(error.kind(), Kind::Backfill);
    let said = error.to_string();
    assert!(said.contains("the row with id = 30 ") && said.contains("no key for row 30"), "{said}");
    assert_eq!(one::<i64>(&client, "SELECT count(b) FROM t").await, 20);
}

#[tokio::test]
async fn rows_that_the_function_fails_for_are_set_aside() {
    let (database, client) = tables(ROWS).await;
    let policy = fixed(20).on_failing_row(OnFailingRow::SetAside(2));
    let error = fill(&failing(migrator(&database, &TEXT, policy))).await.expect_err("a third one");
    assert!(error.to_string().contains("id = 60"), "{error}");
    let policy = fixed(20).on_failing_row(OnFailingRow::SetAside(3));
    let migrator = failing(migrator(&database, &TEXT, policy));
    fill(&migrator).await.expect("filled but for three");
    assert_eq!(one::<i64>(&client, "SELECT count(b) FROM t").await, 97);
    let aside = migrator.status().await.expect("a status").migrations[0].set_aside.clone();
    let mut keys: Vec<&str> = aside.iter().map(|row| row.key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["id = 30", "id = 31", "id = 60"]);
    assert!(aside[0].error.contains("no key for row "), "{aside:?}");
}

/// Locked while the others are computed.
#[tokio::test]
async fn a_row_that_is_locked_is_come_back_to() {
    let (database, client) = tables(ROWS).await;
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    let migrator = migrator(&database, &TEXT, fixed(20)).compute("text", move |row: Row| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move { Ok::<_, Infallible>(Some(upper(&row))) }
    });
    migrator.run_to("text", "WriteNew").await.expect("the column is there");
    let holder = database.connect().await.expect("a connection");
    run(&holder, "BEGIN; SELECT FROM t WHERE id = 30 FOR UPDATE").await;
    let running = filling(migrator);
    until(&client, "SELECT count(b) = 99 FROM t").await;
    run(&holder, "COMMIT").await;
    filled(running).await;
    assert_eq!(one::<i64>(&client, "SELECT count(b) FROM t WHERE b = upper(a)").await, 100);
    // The batch that met the lock once more without it, and the row itself: no second pass over the rest.
    let calls = calls.load(Ordering::SeqCst);
    assert!(calls <= 100 + 20 + 20, "{calls} calls");
}

/// Nobody waits for the function; but pauses and the like count after a batch only, so that it must not grow for ever.
#[tokio::test]
async fn a_slow_function_keeps_batches_small() {
    let (database, client) = tables(&[
        "CREATE TABLE t (id int PRIMARY KEY, a text)",
        "INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 4000) i",
    ])
    .await;
    let policy =
        BackfillPolicy::unthrottled().between(1, 10_000).batch(100).target(Duration::from_millis(20));
    let migrator = migrator(&database, &TEXT, policy).compute("text", |row: Row| async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok::<_, Infallible>(Some(upper(&row)))
    });
    let (migrator, ears) = ears(migrator);
    fill(&migrator).await.expect("filled");
    drop(migrator);
    // 16 at once take 5 ms: 640 rows in 200 ms.
    let batches = batches(&ears.rest().await);
    assert!(batches.iter().filter(|batch| batch.rows > 0).all(|batch| batch.next <= 700), "{batches:?}");
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t WHERE b = upper(a)").await, 4_000);
}

/// Rows that come to lie behind the walk all at once, without being written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_rewritten_meanwhile() {
    let (database, client) = tables(&[
        "CREATE TABLE t (id int PRIMARY KEY, a text, pad text) WITH (autovacuum_enabled = off)",
        "INSERT INTO t SELECT i, 'row ' || i, repeat('p', 1000) FROM generate_series(1, 140) i",
        "DELETE FROM t WHERE id <= 70",
    ])
    .await;
    let migrator = nine_of_ten(&database);
    let (migrator, mut ears) = stepwise(migrator);
    let running = filling(migrator);
    ears.batch().await;
    run(&client, "VACUUM FULL t").await;
    ears.run();
    filled(running).await;
    let wrong = "SELECT count(*) FROM t WHERE b IS DISTINCT FROM CASE WHEN id % 10 > 0 THEN upper(a) END";
    assert_eq!(one::<i64>(&client, wrong).await, 0);
}

/// Rows that rightly have no value, and that clients write all the time, are no rows that are wrong.
async fn rows_without_a_value_that_are_written(key: &str) {
    let (database, client) = tables(&[
        &format!("CREATE TABLE t (id int {key}, a text, n int) WITH (autovacuum_enabled = off)"),
        "INSERT INTO t SELECT i, 'row ' || i, 0 FROM generate_series(1, 3000) i",
    ])
    .await;
    let migrator = migrator(&database, &TEXT, fixed(300).passes(1)).compute("text", |row: Row| {
        let value = (row.get::<_, i32>("id") % 2 > 0).then(|| upper(&row));
        async move { Ok::<_, Infallible>(value) }
    });
    let (migrator, mut ears) = stepwise(migrator);
    let running = filling(migrator);
    ears.batch().await;
    run(&client, "UPDATE t SET n = n + 1").await;
    ears.run();
    filled(running).await;
    let wrong = "SELECT count(*) FROM t WHERE b IS DISTINCT FROM CASE WHEN id % 2 > 0 THEN upper(a) END";
    assert_eq!(one::<i64>(&client, wrong).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_rows_without_a_value_that_are_written() {
    rows_without_a_value_that_are_written("PRIMARY KEY").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_without_a_key_or_a_value_that_are_written() {
    rows_without_a_value_that_are_written("").await;
}

/// A row moves to a partition that had none when the pass began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_moves_to_an_empty_partition() {
    let (database, client) = tables(&[
        "CREATE TABLE t (id int, a text, part int, PRIMARY KEY (id, part)) PARTITION BY LIST (part)",
        "CREATE TABLE t0 PARTITION OF t FOR VALUES IN (0)",
        "CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)",
        "INSERT INTO t SELECT i, 'row ' || i, 0 FROM generate_series(1, 100) i",
    ])
    .await;
    let migrator = migrator(&database, &TEXT, fixed(7).passes(1))
        .compute("text", |row: Row| async move { Ok::<_, Infallible>(Some(upper(&row))) });
    let (migrator, mut ears) = stepwise(migrator);
    let running = filling(migrator);
    ears.batch().await;
    run(&client, "UPDATE t SET part = 1 WHERE id = 90").await;
    ears.run();
    filled(running).await;
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t WHERE b IS DISTINCT FROM upper(a)").await, 0);
}

/// A row that fails is named as well where only the rows that have moved are computed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_moves_and_fails() {
    let (database, client) = tables(ROWS).await;
    run(
        &client,
        "CREATE FUNCTION fits(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT $1 <> 'ROW 90'$$",
    )
    .await;
    let policy = fixed(7).on_failing_row(OnFailingRow::SetAside(1));
    let migrator = migrator(&database, &TEXT, policy)
        .compute("text", |row: Row| async move { Ok::<_, Infallible>(Some(upper(&row))) });
    let (migrator, mut ears) = stepwise(migrator);
    let other = migrator.clone();
    let running = filling(migrator);
    ears.batch().await;
    run(&client, "ALTER TABLE t ADD CONSTRAINT fits CHECK (fits(b)) NOT VALID").await;
    // In front of the walk there is room.
    run(&client, "DELETE FROM t WHERE id <= 5").await;
    run(&client, "VACUUM t").await;
    run(&client, "UPDATE t SET a = a WHERE id = 90").await;
    ears.run();
    filled(running).await;
    let aside = other.status().await.expect("a status").migrations[0].set_aside.clone();
    assert_eq!(aside.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), ["id = 90"]);
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t WHERE b IS NULL").await, 1);
}
