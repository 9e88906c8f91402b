//! Stretches of pages that are filled by thirds: what that saves, and that nothing else changes by it.

use phasewise::{ChangeType, OnFailingRow};

use super::*;

/// A hundred and some rows a page, and one index: its rows can stay on their pages.
const ROWS: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, a int, pad text) WITH (autovacuum_enabled = off)",
    "INSERT INTO t SELECT i, i, repeat('x', 30) FROM generate_series(1, 20000) i",
];
const PAGES: &str = "SELECT pg_relation_size('t') / current_setting('block_size')::int8";
/// What the statistics of tables say, once its session has told them.
const IN_PLACE: &str = "SELECT n_tup_upd >= 20000 AND n_tup_hot_upd * 2 > n_tup_upd FROM pg_stat_user_tables WHERE relname = 't'";

#[tokio::test]
async fn rows_stay_on_their_pages() {
    // What writes in another database of a server may keep Postgres from noticing that old versions can go.
    let server = own_server(&[("autovacuum", "off")]).await;
    let database = server.database().await.expect("a database");
    let client = database.connect().await.expect("a connection");
    for sql in ROWS {
        run(&client, sql).await;
    }
    let migrator = migrator(&database, &FILL, fixed(1_000));
    migrator.run_to("fill", "WriteNew").await.expect("the column is there");
    let before: i64 = one(&client, PAGES).await;
    assert_eq!(fill(&migrator).await.expect("filled").migrations[0].rows, 20_000);
    assert_filled(&client).await;
    let after: i64 = one(&client, PAGES).await;
    assert!(after * 10 < before * 16, "{before} pages became {after}: one UPDATE makes them twice as many");
    until(&client, IN_PLACE).await;
}

#[tokio::test]
async fn each_row_counts_once() {
    let (database, _client) = tables(ROWS).await;
    let (migrator, ears) = ears(migrator(&database, &FILL, fixed(1_000)));
    fill(&migrator).await.expect("filled");
    drop(migrator);
    let batches = batches(&ears.rest().await);
    assert!(batches.is_sorted_by_key(|batch| batch.done), "{batches:?}");
    assert_eq!(batches.iter().map(|batch| batch.rows).sum::<u64>(), 20_000);
    // What lies behind the rows of the beginning are new versions of theirs, if any.
    assert!((20_000..24_000).contains(&batches[batches.len() - 1].done), "{batches:?}");
    let thirds: Vec<&Batch> = batches.iter().filter(|batch| batch.rows > 0).collect();
    assert!(thirds.iter().all(|batch| batch.rows < 1_200), "{batches:?}");
    assert!(thirds.len() >= 18, "{batches:?}");
}

/// As long as somebody's snapshot shows the old versions they cannot be pruned, and a stretch is one batch.
#[tokio::test]
async fn an_old_snapshot_keeps_stretches_whole() {
    let (database, client) = tables(ROWS).await;
    let migrator = migrator(&database, &FILL, fixed(1_000));
    migrator.run_to("fill", "WriteNew").await.expect("the column is there");
    let reader = database.connect().await.expect("a connection");
    run(&reader, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t").await;
    let (migrator, ears) = ears(migrator);
    fill(&migrator).await.expect("filled");
    drop(migrator);
    assert_filled(&client).await;
    let batches = batches(&ears.rest().await);
    let whole = batches.iter().filter(|batch| batch.rows == 1_000).count();
    assert!(whole >= 15, "{batches:?}");
    assert_eq!(one::<i64>(&reader, "SELECT count(*) FROM t").await, 20_000);
}

/// An index on the column that is written keeps every new version out of reach of the old one's entries.
#[tokio::test]
async fn an_index_on_the_column_keeps_stretches_whole() {
    static DOWN: Migrations = migrations![
        Migration::new("big", ChangeType::new("t", "a", "b", "bigint").up("{a}::bigint").down("{b}::int"))
            .not_deployed()
    ];
    let (database, client) = tables(ROWS).await;
    let migrator = migrator(&database, &DOWN, fixed(1_000));
    migrator.run_to("big", "WriteBoth").await.expect("the column is there");
    run(&client, "CREATE INDEX ON t (b)").await;
    let (migrator, ears) = ears(migrator);
    fill(&migrator).await.expect("filled");
    drop(migrator);
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t WHERE b IS DISTINCT FROM a").await, 0);
    let batches = batches(&ears.rest().await);
    assert!(batches.iter().filter(|batch| batch.rows == 1_000).count() >= 15, "{batches:?}");
}

#[tokio::test]
async fn a_row_that_fails_in_one_is_found() {
    static PARSE: Migrations = migrations![
        Migration::new("parse", AddColumn::new("t", "b", "int").backfill("100000 / ({a} - 7777)"))
            .not_deployed()
    ];
    let (database, client) = tables(ROWS).await;
    let policy = fixed(1_000).on_failing_row(OnFailingRow::SetAside(1));
    let (migrator, ears) = ears(migrator(&database, &PARSE, policy));
    let report = fill(&migrator).await.expect("filled but for one");
    assert_eq!(report.migrations[0].rows, 19_999);
    let status = migrator.status().await.expect("a status");
    assert_eq!(status.migrations[0].set_aside[0].key, "id = 7777");
    drop(migrator);
    let asides = ears.rest().await.into_iter().filter(|heard| matches!(heard, Heard::Aside { .. })).count();
    assert_eq!(asides, 1);
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t WHERE b IS NULL").await, 1);
}

/// Pauses, and whatever else is asked of batches, count between two thirds as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_is_paused_in_its_midst_and_resumed_by_another_driver() {
    let (database, client) = tables(ROWS).await;
    let (watched, mut ears) = stepwise(migrator(&database, &FILL, fixed(1_000)));
    let running = filling(watched);
    let first = ears.batch().await;
    assert!(first.rows < 1_200, "{first:?}");
    let other = migrator(&database, &FILL, fixed(1_000));
    other.pause("fill").await.expect("paused");
    ears.run();
    ears.until(|heard| matches!(heard, Heard::Throttled(_))).await;
    assert_eq!(
        one::<i64>(&client, "SELECT count(b) FROM t").await,
        i64::try_from(first.rows).expect("small")
    );
    running.abort();
    assert!(running.await.expect_err("dropped").is_cancelled());
    other.resume("fill").await.expect("resumed");
    let report = fill(&other).await.expect("filled");
    assert_eq!(report.migrations[0].rows, 20_000 - first.rows);
    assert_filled(&client).await;
}

/// Rows that somebody holds are left out of their third, and come back to.
#[tokio::test]
async fn rows_that_are_locked_in_one() {
    let (database, client) = tables(ROWS).await;
    let migrator = migrator(&database, &FILL, fixed(1_000));
    migrator.run_to("fill", "WriteNew").await.expect("the column is there");
    let holder = database.connect().await.expect("a connection");
    run(&holder, "BEGIN; SELECT FROM t WHERE id % 2000 < 5 FOR UPDATE").await;
    let running = filling(migrator);
    until(&client, "SELECT count(b) = 19950 AND bool_and(ended) FROM t, phasewise.backfills").await;
    run(&holder, "COMMIT").await;
    assert_eq!(filled(running).await.migrations[0].rows, 20_000);
    assert_filled(&client).await;
}

#[tokio::test]
async fn three_workers_fill_each_row_once() {
    let (database, client) = tables(ROWS).await;
    for sql in [
        "CREATE TABLE writes (id int)",
        "CREATE FUNCTION count_writes() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO writes VALUES (NEW.id); RETURN NULL; END$$",
        "CREATE TRIGGER count_writes AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION count_writes()",
    ] {
        run(&client, sql).await;
    }
    let report = fill(&migrator(&database, &FILL, fixed(500).workers(3))).await.expect("filled");
    assert_eq!(report.migrations[0].rows, 20_000);
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM writes").await, 20_000);
    assert_filled(&client).await;
}
