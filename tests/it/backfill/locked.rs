//! Rows that somebody else holds, for longer than the walk takes.

use phasewise::Kind;

use super::*;

const ROWS: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, a int)",
    "INSERT INTO t SELECT i, i FROM generate_series(1, 200) i",
];

/// The column is there, and a row is held.
async fn held(lock: &str) -> (Database, Client, Client) {
    let (database, client) = tables(ROWS).await;
    migrator(&database, &FILL, fixed(20)).run_to("fill", "WriteNew").await.expect("the column is there");
    let holder = database.connect().await.expect("a connection");
    run(&holder, &format!("BEGIN; {lock}")).await;
    (database, client, holder)
}

async fn longer_than_the_walk(lock: &str) {
    let (database, client, holder) = held(lock).await;
    let (migrator, ears) = ears(migrator(&database, &FILL, fixed(20)));
    let running = filling(migrator);
    until(&client, "SELECT count(b) = 199 AND bool_and(ended) FROM t, phasewise.backfills").await;
    assert!(!running.is_finished());
    assert_eq!(one::<Option<i32>>(&client, "SELECT b FROM t WHERE id = 30").await, None);
    run(&holder, "COMMIT").await;
    let (report, heard) = tokio::join!(filled(running), ears.rest());
    assert_eq!(report.migrations[0].rows, 200);
    assert!(heard.contains(&Heard::Mended(1)), "{heard:?}");
    assert_filled(&client).await;
}

#[tokio::test]
async fn a_row_that_is_being_updated() {
    longer_than_the_walk("UPDATE t SET a = a WHERE id = 30").await;
}

#[tokio::test]
async fn a_row_that_is_locked_for_update() {
    longer_than_the_walk("SELECT FROM t WHERE id = 30 FOR UPDATE").await;
}

#[tokio::test]
async fn a_row_that_is_being_deleted_and_stays() {
    let (database, client, holder) = held("DELETE FROM t WHERE id = 30").await;
    let running = filling(migrator(&database, &FILL, fixed(20)));
    until(&client, "SELECT count(b) = 199 FROM t").await;
    run(&holder, "ROLLBACK").await;
    filled(running).await;
    assert_filled(&client).await;
}

/// What a foreign key's check takes is in nobody's way.
#[tokio::test]
async fn a_row_that_is_referred_to_is_filled_at_once() {
    let (database, client, holder) = held("SELECT FROM t WHERE id = 30 FOR KEY SHARE").await;
    let (migrator, ears) = ears(migrator(&database, &FILL, fixed(20)));
    fill(&migrator).await.expect("filled");
    drop(migrator);
    let heard = ears.rest().await;
    assert!(heard.iter().all(|heard| heard.batch().is_some()), "{heard:?}");
    assert_filled(&client).await;
    run(&holder, "COMMIT").await;
}

#[tokio::test]
async fn a_row_that_is_held_for_too_long_names_its_holder() {
    let (database, client, holder) = held("UPDATE t SET a = a WHERE id = 30").await;
    let pid: i32 = one(&holder, "SELECT pg_backend_pid()").await;
    let migrator = migrator(&database, &FILL, fixed(20)).lock_deadline(Duration::from_secs(1));
    let error = fill(&migrator).await.expect_err("a row that is held");
    assert_eq!(error.kind(), Kind::Locked);
    assert!(error.to_string().contains(&format!("pid {pid}")), "{error}");
    assert_eq!(one::<i64>(&client, "SELECT count(b) FROM t").await, 199);
    run(&holder, "COMMIT").await;
    assert_eq!(fill(&migrator).await.expect("filled").migrations[0].rows, 1);
    assert_filled(&client).await;
}

#[tokio::test]
async fn a_table_that_is_locked_for_a_while() {
    let (database, client, holder) = held("LOCK TABLE t IN SHARE MODE").await;
    let (migrator, mut ears) = ears(migrator(&database, &FILL, fixed(20)));
    let running = filling(migrator);
    let pid: i32 = one(&holder, "SELECT pg_backend_pid()").await;
    ears.until(|heard| matches!(heard, Heard::Retry { blockers, .. } if blockers.contains(&pid))).await;
    run(&holder, "COMMIT").await;
    filled(running).await;
    assert_filled(&client).await;
}

/// The batch has what the client wants, and wants what the client has: it is the batch that gives way.
#[tokio::test]
async fn a_deadlock_is_never_the_clients() {
    let (database, client) = tables(ROWS).await;
    run(
        &client,
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(0.2); RETURN NEW; END$$",
    )
    .await;
    run(
        &client,
        "CREATE TRIGGER dawdle BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.id = 50 AND current_setting('phasewise.backfill', true) <> '')
         EXECUTE FUNCTION dawdle()",
    )
    .await;
    migrator(&database, &FILL, fixed(200)).run_to("fill", "WriteNew").await.expect("the column is there");
    let other = database.connect().await.expect("a connection");
    run(&other, "BEGIN; UPDATE t SET a = -90 WHERE id = 90").await;
    let (migrator, mut ears) = ears(migrator(&database, &FILL, fixed(200)));
    let running = filling(migrator);
    let dawdles = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep')";
    until(&client, dawdles).await;
    // It has this one by now.
    run(&other, "UPDATE t SET a = -10 WHERE id = 10; COMMIT").await;
    let heard = ears.until(|heard| heard.batch().is_some()).await;
    assert!(heard.iter().any(|heard| matches!(heard, Heard::Retry { .. })), "they never met: {heard:?}");
    filled(running).await;
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t WHERE a < 0").await, 2);
    assert_filled(&client).await;
}

/// Together they take longer than the stall budget: they are come back to a few at a time.
#[tokio::test]
async fn many_slow_rows_that_were_locked() {
    static SLOW: Migrations =
        migrations![Migration::new("slow", AddColumn::new("t", "b", "int").volatile_default("slow()"))];
    let (database, client) = tables(ROWS).await;
    run(
        &client,
        "CREATE FUNCTION slow() RETURNS int LANGUAGE plpgsql VOLATILE AS 'BEGIN PERFORM pg_sleep(0.002); RETURN 1; END'",
    )
    .await;
    let policy = BackfillPolicy::unthrottled().between(1, 200).batch(200);
    let migrator = migrator(&database, &SLOW, policy).stall_budget(Duration::from_millis(200));
    migrator.run_to("slow", "SetDefault").await.expect("the column is there");
    let holder = database.connect().await.expect("a connection");
    run(&holder, "BEGIN; SELECT FROM t WHERE id > 5 FOR UPDATE").await;
    let (migrator, ears) = ears(migrator);
    let running = filling(migrator);
    until(&client, "SELECT count(b) = 5 AND bool_and(ended) FROM t, phasewise.backfills").await;
    run(&holder, "COMMIT").await;
    filled(running).await;
    assert_eq!(one::<i64>(&client, "SELECT count(b) FROM t").await, 200);
    let mended: Vec<u64> = ears
        .rest()
        .await
        .into_iter()
        .filter_map(|heard| match heard {
            Heard::Mended(rows) => Some(rows),
            _ => None,
        })
        .collect();
    assert_eq!(mended.iter().sum::<u64>(), 195, "{mended:?}");
    assert!(mended.len() > 1, "{mended:?}");
}

/// A pause counts for them as for any batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_were_locked_wait_while_it_is_paused() {
    let (database, client, holder) = held("SELECT FROM t WHERE id IN (30, 90) FOR UPDATE").await;
    let (watched, mut ears) = stepwise(migrator(&database, &FILL, fixed(100)));
    let other = migrator(&database, &FILL, fixed(100));
    let running = filling(watched);
    let mut batch = ears.batch().await;
    while batch.done < 200 {
        ears.go();
        batch = ears.batch().await;
    }
    other.pause("fill").await.expect("paused");
    run(&holder, "COMMIT").await;
    ears.run();
    let heard = ears.until(|heard| matches!(heard, Heard::Throttled(_))).await;
    assert!(!heard.iter().any(|heard| matches!(heard, Heard::Mended(_))), "{heard:?}");
    assert_eq!(one::<i64>(&client, "SELECT count(b) FROM t").await, 198);
    other.resume("fill").await.expect("resumed");
    filled(running).await;
    assert_filled(&client).await;
}
