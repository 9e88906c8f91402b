//! Locks that somebody else holds, and drivers that stop while they hold one.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use phasewise::{
    Action, AddColumn, AddIndex, Change, Context, Event, Kind, Migration, Migrations, Migrator, Phase,
    Result, Rollback, RunSql, Step, TableName, Touches, Window, migrations,
};
use tokio_postgres::{Client, NoTls};

use crate::harness::process::stop;
use crate::harness::{database, migrator, one, run, until};

const SLEEPS: &str =
    "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";

/// Statements of one transaction, of which nobody knows the locks.
#[derive(Clone, Copy)]
struct Together(&'static [&'static str]);

impl Phase for Together {
    const NAME: &'static str = "Together";
    const WINDOW: Window = Window::new(0, 0);
    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        let statements = self.0.iter().map(|&sql| sql.to_owned()).collect();
        Ok(vec![Step::new("all at once", Action::Transaction(statements)).locks_unknown()])
    }
    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }
}

impl Change for Together {
    type Phases = (Together,);
    fn phases(&self) -> Self::Phases {
        (*self,)
    }
    fn definition(&self) -> String {
        self.0.join("; ")
    }
    fn touches(&self) -> Touches {
        Touches::nothing().creates(TableName::new("made"))
    }
}

#[tokio::test]
async fn the_lease_is_not_taken_from_an_open_transaction() {
    static LOCK: Migrations = migrations![Migration::new(
        "lock",
        RunSql::new(&["LOCK TABLE t"]).long_running().irreversible("a test")
    )];
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE t (id int)").await;
    let holder = database.connect().await.unwrap();
    run(&holder, "BEGIN").await;
    run(&holder, "SELECT * FROM t").await;
    // Long between two heartbeats, so that none of them gets in the way.
    let first =
        migrator(&database, &LOCK).stall_budget(Duration::from_secs(30)).lease_time(Duration::from_secs(60));
    let driven = tokio::spawn(async move { first.run().await });
    until(&client, "SELECT count(*) = 1 FROM pg_locks WHERE relation = 't'::regclass AND NOT granted").await;
    run(&client, "UPDATE phasewise.lease SET expires_at = '-infinity'").await;
    let second = migrator(&database, &LOCK).lease_wait(Duration::from_millis(300));
    let error = second.run().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    run(&holder, "COMMIT").await;
    assert!(driven.await.unwrap().unwrap().is_complete());
}

#[tokio::test]
async fn a_wait_for_autovacuum_delays_no_client() {
    static ADD: Migrations = migrations![Migration::new("add", AddColumn::new("t", "extra", "text"))];
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE t (id int)").await;
    run(&client, "INSERT INTO t VALUES (1)").await;
    let holder = database.connect().await.unwrap();
    run(&holder, "BEGIN").await;
    run(&holder, "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE").await;
    let m = migrator(&database, &ADD).stall_budget(Duration::from_secs(30));
    let driven = tokio::spawn(async move { m.run().await });
    let waits = |mode: &str| {
        format!(
            "SELECT count(*) = 1 FROM pg_locks WHERE relation = 't'::regclass AND NOT granted AND mode = '{mode}'"
        )
    };
    until(&client, &waits("ShareUpdateExclusiveLock")).await;
    // Longer than deadlock_timeout: so that a vacuum would have yielded.
    let begun = Instant::now();
    let mut worst = Duration::ZERO;
    while begun.elapsed() < Duration::from_millis(1_200) {
        let sent = Instant::now();
        run(&client, "UPDATE t SET id = id").await;
        worst = worst.max(sent.elapsed());
        assert!(!one::<bool>(&client, &waits("AccessExclusiveLock")).await, "it waits in the strong mode");
    }
    assert!(worst < Duration::from_secs(5), "{worst:?}");
    assert!(!driven.is_finished());
    run(&holder, "COMMIT").await;
    assert!(driven.await.unwrap().unwrap().is_complete());
}

/// The migration takes a, sleeps, and wants b; this test has b, and wants a. Nobody but the driver would notice.
async fn deadlock(migrations: &'static Migrations, tune: impl FnOnce(Migrator) -> Migrator) -> Client {
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE a ()").await;
    run(&client, "CREATE TABLE b ()").await;
    let holder = database.connect().await.unwrap();
    run(&holder, "SET deadlock_timeout = '1min'").await;
    run(&client, &format!("ALTER DATABASE \"{}\" SET deadlock_timeout = '10ms'", database.name())).await;
    run(&holder, "BEGIN").await;
    run(&holder, "LOCK TABLE b").await;
    let m = tune(migrator(&database, migrations));
    let driven = tokio::spawn(async move { m.run().await });
    until(&client, SLEEPS).await;
    run(&holder, "LOCK TABLE a").await;
    // Only the end of the driver's transaction can have let it.
    run(&holder, "COMMIT").await;
    assert!(driven.await.unwrap().unwrap().is_complete());
    client
}

#[tokio::test]
async fn who_waits_for_us_while_we_wait_for_it_is_no_deadlocks_victim() {
    static SHORT: Migrations = migrations![Migration::new(
        "short",
        Together(&["LOCK TABLE a", "SELECT pg_sleep(0.5)", "LOCK TABLE b"])
    )];
    // The driver gives up before anybody's deadlock_timeout is over; the other one gets its lock.
    deadlock(&SHORT, |m| m.stall_budget(Duration::from_secs(5))).await;
}

#[tokio::test]
async fn a_deadlock_after_long_work_is_tried_again() {
    static LONG: Migrations = migrations![Migration::new(
        "long",
        RunSql::new(&["DO $$ BEGIN LOCK TABLE a; PERFORM pg_sleep(1.2); LOCK TABLE b; END $$"])
            .long_running()
            .irreversible("a test")
    )];
    // Its own work takes longer than it may try for a lock.
    let client = deadlock(&LONG, |m| {
        m.stall_budget(Duration::from_millis(100)).lock_deadline(Duration::from_millis(500))
    })
    .await;
    until(&client, "SELECT deadlocks = 1 FROM pg_stat_database WHERE datname = current_database()").await;
}

/// Tells the process of a driver where its database is.
const URL: &str = "PHASEWISE_STOPPED_URL";

static HOLD: Migrations =
    migrations![Migration::new("hold", Together(&["LOCK TABLE t", "SELECT pg_sleep(1)", "SELECT 1"]))];

/// The other process. Started by itself it has nothing to do.
#[tokio::test]
async fn driver() {
    let Ok(url) = std::env::var(URL) else { return };
    let config: tokio_postgres::Config = url.parse().expect("a URL");
    let _ = Migrator::connect(config, NoTls, &HOLD).stall_budget(Duration::from_secs(2)).run().await;
}

#[tokio::test]
async fn a_stopped_driver_lets_its_locks_go() {
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE t (id int)").await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "waits::driver", "--nocapture"])
        .env(URL, database.url())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until(&client, SLEEPS).await;
    stop(&child);
    let begun = Instant::now();
    run(&client, "SET statement_timeout = '20s'").await;
    let read = client.batch_execute("SELECT * FROM t").await;
    let waited = begun.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    read.expect("the lock was let go");
    // What it slept, the budget, and what a busy machine takes; by itself it would never have let go.
    assert!(waited < Duration::from_secs(15), "{waited:?}");
}

async fn table(client: &Client) {
    run(client, "CREATE TABLE t (id int, name text)").await;
    run(client, "INSERT INTO t VALUES (1, 'a')").await;
}

/// A transaction that an index is not built before the end of.
async fn with_snapshot(database: &phasewise::testing::Database) -> Client {
    let holder = database.connect().await.unwrap();
    run(&holder, "BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    run(&holder, "SELECT * FROM t").await;
    holder
}

const BUILDING: &str = "SELECT count(*) = 1 FROM pg_stat_progress_create_index
    WHERE datname = current_database() AND phase = 'waiting for old snapshots'";

static INDEX: Migrations =
    migrations![Migration::new("index", AddIndex::new("t", "t_name").columns(&["name"]))];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_another_session_builds_is_left_alone() {
    let database = database().await;
    let client = database.connect().await.unwrap();
    table(&client).await;
    // A role that may not see what other roles' sessions build: it must take any to be this one.
    run(&client, "DO $$ BEGIN CREATE ROLE phasewise_owner LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$").await;
    run(&client, "ALTER TABLE t OWNER TO phasewise_owner").await;
    run(&client, "GRANT CREATE ON SCHEMA public TO phasewise_owner").await;
    run(&client, &format!("GRANT CREATE ON DATABASE \"{}\" TO phasewise_owner", database.name())).await;
    let holder = with_snapshot(&database).await;
    let builder = database.connect().await.unwrap();

    // It begins once the migration has been planned: one that is there before is refused.
    let (planned, wait) = std::sync::mpsc::channel();
    let (built, go) = std::sync::mpsc::channel();
    let go = std::sync::Mutex::new(go);
    let mut config = database.config();
    config.user("phasewise_owner");
    let m = Migrator::connect(config, NoTls, &INDEX).lock_deadline(Duration::from_millis(500)).observe(
        move |event: &Event<'_>| {
            // The second run hears it, too, when nobody listens any more.
            if let Event::StepStarted { .. } = event
                && planned.send(()).is_ok()
            {
                let _ = go.lock().unwrap().recv();
            }
        },
    );
    let driven = tokio::spawn({
        let m = m.clone();
        async move { m.run().await }
    });
    tokio::task::spawn_blocking(move || wait.recv()).await.unwrap().unwrap();
    let building =
        tokio::spawn(async move { run(&builder, "CREATE INDEX CONCURRENTLY t_name ON t (name)").await });
    until(&client, BUILDING).await;
    let oid: u32 = one(&client, "SELECT 't_name'::regclass::oid").await;
    built.send(()).unwrap();
    // Whoever drops it waits for the snapshot, without a limit.
    let driven = tokio::time::timeout(Duration::from_secs(30), driven).await.expect("it was left alone");
    let error = driven.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Locked);
    assert!(error.to_string().contains("is still building index"), "{error}");
    assert_eq!(one::<u32>(&client, "SELECT 't_name'::regclass::oid").await, oid);

    run(&holder, "COMMIT").await;
    building.await.unwrap();
    assert!(m.run().await.unwrap().is_complete());
    assert_eq!(one::<u32>(&client, "SELECT 't_name'::regclass::oid").await, oid);
}

#[tokio::test]
async fn an_index_that_was_built_without_the_lease_is_dropped_by_its_builder() {
    let database = database().await;
    let client = database.connect().await.unwrap();
    table(&client).await;
    let holder = with_snapshot(&database).await;
    let m = migrator(&database, &INDEX);
    let driven = tokio::spawn(async move { m.run().await });
    until(&client, BUILDING).await;
    // As if it had slept just before the statement, and the next driver had passed this step.
    run(&client, "UPDATE phasewise.lease SET token = token + 1, holder = 'another'").await;
    run(&holder, "COMMIT").await;
    assert_eq!(driven.await.unwrap().unwrap_err().kind(), Kind::LeaseLost);
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stall_budget_holds_for_a_table_of_many_partitions() {
    static ADD: Migrations = migrations![Migration::new("add", AddColumn::new("p", "extra", "text"))];
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE p (id int, name text) PARTITION BY LIST (id)").await;
    for number in 0..50 {
        run(&client, &format!("CREATE TABLE p{number} PARTITION OF p FOR VALUES IN ({number})")).await;
    }
    run(&client, "INSERT INTO p SELECT i, 'x' FROM generate_series(0, 49) i").await;
    let budget = Duration::from_millis(400);
    // One that stays, and others that come and go: each makes the migration wait for another lock.
    let holder = database.connect().await.unwrap();
    run(&holder, "BEGIN").await;
    run(&holder, "SELECT * FROM p40").await;
    let mut readers = Vec::new();
    for number in [3, 11, 19, 27, 35] {
        let reader = database.connect().await.unwrap();
        readers.push(tokio::spawn(async move {
            loop {
                run(&reader, &format!("SELECT pg_sleep(0.15) FROM p{number}")).await;
            }
        }));
    }
    let m = migrator(&database, &ADD).stall_budget(budget);
    let driven = tokio::spawn(async move { m.run().await });
    let begun = Instant::now();
    let (mut worst, mut number) = (Duration::ZERO, 0);
    while begun.elapsed() < Duration::from_secs(6) {
        let sent = Instant::now();
        run(&client, &format!("INSERT INTO p VALUES ({}, 'y')", number % 50)).await;
        worst = worst.max(sent.elapsed());
        number += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!driven.is_finished());
    for reader in readers {
        reader.abort();
    }
    run(&holder, "COMMIT").await;
    assert!(driven.await.unwrap().unwrap().is_complete());
    println!("{number} requests, worst wait {} ms", worst.as_millis());
    assert!(worst > budget / 4, "the lock was never tried for: {worst:?}");
    assert!(worst < budget + Duration::from_millis(500), "{worst:?}");
}
