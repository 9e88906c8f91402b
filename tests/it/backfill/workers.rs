//! Several workers on one backfill, and what becomes of it when their connections are cut.

use phasewise::Migrator;
use tokio_postgres::NoTls;

use super::*;

/// Enough pages to be shared, and a count of what the backfill writes.
const ROWS: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, a int, pad text) WITH (autovacuum_enabled = off)",
    "INSERT INTO t SELECT i, i, repeat('x', 300) FROM generate_series(1, 6000) i",
    "CREATE TABLE writes (id int)",
    "CREATE FUNCTION count_writes() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO writes VALUES (NEW.id); RETURN NULL; END$$",
    "CREATE TRIGGER count_writes AFTER UPDATE ON t FOR EACH ROW
     WHEN (current_setting('phasewise.backfill', true) <> '') EXECUTE FUNCTION count_writes()",
];
const ONCE: &str = "SELECT count(*) = 6000 AND count(DISTINCT id) = 6000 FROM writes";
/// The sessions that batches run on.
const SESSIONS: &str =
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'phasewise'";

fn parts(batches: &[Batch]) -> Vec<u32> {
    let mut parts: Vec<u32> = batches.iter().map(|batch| batch.part).collect();
    parts.sort_unstable();
    parts.dedup();
    parts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_share_a_table() {
    let (database, client) = tables(ROWS).await;
    let (watched, mut ears) = stepwise(migrator(&database, &FILL, fixed(50).workers(3)));
    let other = migrator(&database, &FILL, fixed(50));
    let running = filling(watched);
    let mut heard = vec![ears.batch().await];
    while parts(&heard) != [0, 1, 2] {
        ears.go();
        heard.push(ears.batch().await);
    }
    let status = under_way(&other).await;
    assert_eq!(status.workers, 3, "{status}");
    assert!(status.to_string().contains(", 3 workers"), "{status}");
    assert_eq!(one::<i64>(&client, &format!("SELECT count(*) FROM ({SESSIONS}) s")).await, 3);
    let (report, rest) = tokio::join!(filled(running), ears.rest());
    assert_eq!(report.migrations[0].rows, 6_000);
    heard.extend(batches(&rest));
    for part in 0..3 {
        let done: u64 = heard.iter().filter(|batch| batch.part == part).map(|batch| batch.rows).sum();
        assert!((1_500..=2_500).contains(&done), "part {part} has {done} rows");
    }
    assert!(one::<bool>(&client, ONCE).await, "a row was written twice");
    assert_filled(&client).await;
}

#[tokio::test]
async fn three_share_partitions() {
    let (database, client) = tables(&[
        "CREATE TABLE t (id int PRIMARY KEY, a int, pad text) PARTITION BY HASH (id)",
        "CREATE TABLE t0 PARTITION OF t FOR VALUES WITH (MODULUS 4, REMAINDER 0)",
        "CREATE TABLE t1 PARTITION OF t FOR VALUES WITH (MODULUS 4, REMAINDER 1)",
        "CREATE TABLE t2 PARTITION OF t FOR VALUES WITH (MODULUS 4, REMAINDER 2)",
        "CREATE TABLE t3 PARTITION OF t FOR VALUES WITH (MODULUS 4, REMAINDER 3)",
        "INSERT INTO t SELECT i, i FROM generate_series(1, 6000) i",
        ROWS[2],
        ROWS[3],
        ROWS[4],
    ])
    .await;
    let (migrator, ears) = ears(migrator(&database, &FILL, fixed(50).workers(3)));
    assert_eq!(fill(&migrator).await.expect("filled").migrations[0].rows, 6_000);
    drop(migrator);
    // Partitions this small are not shared.
    assert_eq!(parts(&batches(&ears.rest().await)), [0, 1, 2, 3]);
    assert!(one::<bool>(&client, ONCE).await, "a row was written twice");
    assert_filled(&client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fewer_work_where_connections_are_few() {
    let (database, client) = tables(ROWS).await;
    let role = format!("few_{}", database.name());
    for sql in [
        format!("CREATE ROLE \"{role}\" LOGIN CONNECTION LIMIT 4"),
        format!("ALTER TABLE t OWNER TO \"{role}\""),
        "GRANT ALL ON writes TO PUBLIC".to_owned(),
        format!("GRANT CREATE ON DATABASE \"{}\" TO \"{role}\"", database.name()),
        format!("GRANT ALL ON SCHEMA public TO \"{role}\""),
    ] {
        run(&client, &sql).await;
    }
    let mut config = database.config();
    config.user(&role);
    let migrator = Migrator::connect(config, NoTls, &FILL).assume_fresh().backfill(fixed(50).workers(8));
    let (migrator, mut ears) = stepwise(migrator);
    let running = tokio::spawn(async move { migrator.run_to("fill", "Backfill").await });
    ears.batch().await;
    ears.go();
    ears.batch().await;
    let sessions: i64 = one(&client, &format!("SELECT count(*) FROM ({SESSIONS}) s")).await;
    assert!((2..=3).contains(&sessions), "{sessions} work, beside the monitor");
    let (report, rest) = tokio::join!(filled(running), ears.rest());
    assert_eq!(report.migrations[0].rows, 6_000);
    assert_eq!(parts(&batches(&rest)), (0..8).collect::<Vec<_>>(), "they do the others' share");
    assert!(one::<bool>(&client, ONCE).await, "a row was written twice");
    run(&client, &format!("DROP OWNED BY \"{role}\" CASCADE; DROP ROLE \"{role}\"")).await;
}

/// Every loop must have walked each part once, however often it was cut off.
fn assert_never_went_back(batches: &[Batch]) {
    for part in parts(batches) {
        let done: Vec<u64> =
            batches.iter().filter(|batch| batch.part == part).map(|batch| batch.done).collect();
        assert!(done.is_sorted(), "part {part} began again: {done:?}");
    }
}

#[tokio::test]
async fn a_worker_whose_backend_is_terminated_goes_on() {
    let (database, client) = tables(ROWS).await;
    let (migrator, mut ears) =
        ears(migrator(&database, &FILL, fixed(50).workers(3).pause(Duration::from_millis(10))));
    let running = filling(migrator);
    let mut heard = batches(&ears.until(|heard| heard.batch().is_some_and(|batch| batch.done >= 200)).await);
    let killed: i64 = one(
        &client,
        &format!("SELECT count(pg_terminate_backend(pid)) FROM ({SESSIONS} ORDER BY pid DESC LIMIT 2) s"),
    )
    .await;
    assert_eq!(killed, 2);
    let (_, rest) = tokio::join!(filled(running), ears.rest());
    heard.extend(batches(&rest));
    assert_never_went_back(&heard);
    assert!(one::<bool>(&client, ONCE).await, "a row was written twice");
    assert_filled(&client).await;
}

/// Cut off again while it connects again, and so on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_are_terminated_all_the_time_go_on_in_between() {
    let (database, client) = tables(ROWS).await;
    let (migrator, mut ears) =
        ears(migrator(&database, &FILL, fixed(50).workers(2).pause(Duration::from_millis(5))));
    let running = filling(migrator);
    let mut heard = vec![ears.batch().await];
    let mut killed = 0;
    let begun = Instant::now();
    while (begun.elapsed() < Duration::from_secs(2) || killed <= 5) && !running.is_finished() {
        assert!(begun.elapsed() < Duration::from_secs(60), "only {killed} sessions in a minute");
        killed +=
            one::<i64>(&client, &format!("SELECT count(pg_terminate_backend(pid)) FROM ({SESSIONS}) s"))
                .await;
    }
    assert!(killed > 5, "{killed}");
    let (_, rest) = tokio::join!(filled(running), ears.rest());
    heard.extend(batches(&rest));
    assert_never_went_back(&heard);
    assert!(one::<bool>(&client, ONCE).await, "a row was written twice");
    assert_filled(&client).await;
}
