//! What batches give way to: each says its reason, in an event and in the status, and when it is over.

use phasewise::Migrator;
use tokio_postgres::{Config, NoTls};

use super::*;

const ROWS: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, a int)",
    "INSERT INTO t SELECT i, i FROM generate_series(1, 3000) i",
];

async fn on(server: &Server) -> (Database, Client) {
    let database = server.database().await.expect("a database");
    let client = database.connect().await.expect("a connection");
    for sql in ROWS {
        run(&client, sql).await;
    }
    (database, client)
}

/// Batches wait for this reason, and the ledger says the same.
async fn throttled(ears: &mut Ears, client: &Client, says: &[&str]) -> String {
    let heard = ears.until(|heard| matches!(heard, Heard::Throttled(_))).await;
    let Some(Heard::Throttled(reason)) = heard.last() else { unreachable!() };
    for part in says {
        assert!(reason.contains(part), "{reason}");
    }
    let noted = format!("SELECT EXISTS (SELECT FROM phasewise.backfills WHERE reason LIKE '%{}%')", says[0]);
    until(client, &noted).await;
    reason.clone()
}

async fn resumed(ears: &mut Ears, running: JoinHandle<Result<Report, Error>>, client: &Client) {
    assert_eq!(ears.next().await, Heard::Resumed);
    filled(running).await;
    assert_filled(client).await;
}

/// As on managed databases: the role that migrates is not shown what replicas say.
#[tokio::test]
async fn a_replica_that_the_server_hides_is_looked_at_itself() {
    let server = own_server(&[]).await;
    let (database, client) = on(&server).await;
    let replica = server.replica().await.expect("a replica");
    replica.catch_up().await.expect("a replica that replays");
    for sql in [
        "CREATE ROLE app LOGIN".to_owned(),
        "ALTER TABLE t OWNER TO app".to_owned(),
        format!("GRANT CREATE ON DATABASE \"{}\" TO app", database.name()),
        "GRANT ALL ON SCHEMA public TO app".to_owned(),
    ] {
        run(&client, &sql).await;
    }
    let mut config = database.config();
    config.user("app");
    let mut hidden = Config::clone(&config);
    hidden.application_name("test");
    let (app, connection) = hidden.connect(NoTls).await.expect("a connection");
    tokio::spawn(connection);
    assert_eq!(
        one::<i64>(&app, "SELECT count(replay_lsn) FROM pg_stat_replication").await,
        0,
        "it is not hidden"
    );

    let policy =
        BackfillPolicy::new().fixed(20).pause(Duration::from_millis(30)).max_lag(Duration::from_millis(500));
    let reader = replica.connect(&database).await.expect("a connection");
    let watched = Migrator::connect(config, NoTls, &FILL).assume_fresh().backfill(policy).replica(
        "eu-1",
        replica.config(&database),
        NoTls,
    );
    let (watched, mut ears) = ears(watched);
    watched.run_to("fill", "WriteNew").await.expect("the column is there");
    run(&reader, "SELECT pg_wal_replay_pause()").await;
    let running = filling(watched);
    let reason = throttled(&mut ears, &client, &["replica eu-1 is ", " s behind (limit 0.5 s)"]).await;
    assert!(!reason.contains(';'), "{reason}");
    assert!(one::<i64>(&client, "SELECT count(b) FROM t").await < 3_000);
    run(&reader, "SELECT pg_wal_replay_resume()").await;
    resumed(&mut ears, running, &client).await;
}

#[tokio::test]
async fn a_replica_out_of_reach_holds_and_is_named() {
    let (database, client) = tables(ROWS).await;
    let mut nowhere = database.config();
    // Nobody listens there: it was bound, and is not any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a port")
        .port();
    nowhere = {
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(port)
            .user(nowhere.get_user().unwrap_or("postgres"))
            .dbname(database.name());
        config
    };
    let watched = migrator(&database, &FILL, BackfillPolicy::new()).replica("eu-2", nowhere, NoTls);
    let (watched, mut ears) = ears(watched);
    let running = filling(watched);
    throttled(
        &mut ears,
        &client,
        &["replica eu-2 cannot be looked at: ", "take it off the list if it is gone"],
    )
    .await;
    assert_eq!(one::<i64>(&client, "SELECT count(b) FROM t").await, 0);
    running.abort();
    assert!(running.await.expect_err("dropped").is_cancelled());
    // Who is no replica at all says nothing of what it has replayed.
    let watched = migrator(&database, &FILL, BackfillPolicy::new()).replica("eu-3", database.config(), NoTls);
    let (watched, mut ears) = super::ears(watched);
    let running = filling(watched);
    throttled(&mut ears, &client, &["eu-3 is no streaming replica"]).await;
    running.abort();
}

const WAL: &str = "SELECT pg_logical_emit_message(true, 'test', repeat('x', 1000000))";

#[tokio::test]
async fn wal_that_a_slot_holds_back_and_wal_that_comes_too_fast() {
    let server = own_server(&[]).await;
    let (database, client) = on(&server).await;
    run(&client, "SELECT pg_create_physical_replication_slot('forgotten', true)").await;
    for _ in 0..3 {
        run(&client, WAL).await;
    }
    let (watched, mut ears) = ears(migrator(&database, &FILL, fixed(500).max_slot_wal(1 << 20)));
    let running = filling(watched);
    throttled(&mut ears, &client, &["replication slot forgotten holds back ", " MiB of WAL (limit 1 MiB)"])
        .await;
    assert_eq!(one::<i64>(&client, "SELECT count(b) FROM t").await, 0);
    run(&client, "SELECT pg_drop_replication_slot('forgotten')").await;
    resumed(&mut ears, running, &client).await;

    let (database, client) = on(&server).await;
    let writer = database.connect().await.expect("a connection");
    let policy = fixed(10).pause(Duration::from_millis(20)).max_wal_rate(1 << 20);
    let (watched, mut ears) = super::ears(migrator(&database, &FILL, policy));
    let running = filling(watched);
    ears.batch().await;
    let pump = tokio::spawn(async move {
        loop {
            run(&writer, WAL).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    throttled(&mut ears, &client, &["the server writes ", " MiB of WAL a second (limit 1.0 MiB)"]).await;
    pump.abort();
    resumed(&mut ears, running, &client).await;
}

/// More than a million: fewer bother nobody.
#[tokio::test]
async fn dead_rows_that_no_vacuum_takes_away() {
    let server = own_server(&[("autovacuum_naptime", "1d")]).await;
    let (database, client) = on(&server).await;
    run(&client, "BEGIN; INSERT INTO t SELECT i, i FROM generate_series(10001, 1050000) i; ROLLBACK").await;
    until(&client, "SELECT n_dead_tup > 1000000 FROM pg_stat_user_tables WHERE relname = 't'").await;
    let (watched, mut ears) = ears(migrator(&database, &FILL, fixed(500).max_dead(0.5)));
    let running = filling(watched);
    throttled(
        &mut ears,
        &client,
        &["t has 10", " dead rows, and autovacuum does not keep up (limit 1000000)"],
    )
    .await;
    assert_eq!(one::<i64>(&client, "SELECT count(b) FROM t").await, 0);
    run(&client, "VACUUM t").await;
    resumed(&mut ears, running, &client).await;
}

#[tokio::test]
async fn an_autovacuum_that_must_not_be_held_up() {
    let server = own_server(&[("autovacuum_naptime", "1s"), ("autovacuum_vacuum_cost_delay", "0")]).await;
    let (database, client) = on(&server).await;
    let watched = migrator(&database, &FILL, fixed(500).yield_to_wraparound(true));
    watched.run_to("fill", "WriteNew").await.expect("the column is there");
    // A row of theirs takes a tenth of a second each time that the budget of cost is spent.
    run(
        &client,
        "ALTER TABLE t SET (autovacuum_freeze_max_age = 100000, autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 10)",
    )
    .await;
    run(
        &client,
        "CREATE PROCEDURE burn() LANGUAGE plpgsql AS $$BEGIN FOR i IN 1..101000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END$$",
    )
    .await;
    run(&client, "CALL burn()").await;
    until(&client, "SELECT EXISTS (SELECT FROM pg_stat_progress_vacuum WHERE relid = 't'::regclass)").await;
    let (watched, mut ears) = ears(watched);
    let running = filling(watched);
    throttled(&mut ears, &client, &["an autovacuum to prevent wraparound works on t"]).await;
    assert_eq!(one::<i64>(&client, "SELECT count(b) FROM t").await, 0);
    // It ends by itself.
    resumed(&mut ears, running, &client).await;
}

/// Rows that a batch holds for long: the next one is smaller, and lets them through first.
#[tokio::test]
async fn clients_that_wait_behind_a_batch() {
    let (database, client) = tables(ROWS).await;
    run(
        &client,
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(0.5); RETURN NEW; END$$",
    )
    .await;
    run(
        &client,
        "CREATE TRIGGER dawdle BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.id = 90 AND current_setting('phasewise.backfill', true) <> '')
         EXECUTE FUNCTION dawdle()",
    )
    .await;
    let policy =
        BackfillPolicy::unthrottled().between(10, 100).target(Duration::from_secs(1)).yield_to_clients(true);
    let (watched, mut ears) = ears(migrator(&database, &FILL, policy));
    let running = filling(watched);
    until(
        &client,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep')",
    )
    .await;
    run(&client, "UPDATE t SET a = -10, b = -10 WHERE id = 10").await;
    let batch = ears.batch().await;
    assert!(batch.next <= 50, "{batch:?}");
    let Heard::ClientsWaited { clients, rest } = ears.next().await else { panic!("nobody was seen to wait") };
    assert_eq!(clients, 1);
    assert!(rest >= batch.took * 2, "{rest:?} after {batch:?}");
    until(
        &client,
        "SELECT EXISTS (SELECT FROM phasewise.backfills WHERE reason = 'clients waited for the last batch (1 were seen)')",
    )
    .await;
    filled(running).await;
    assert_filled(&client).await;
}

/// Says one thing after the other.
struct Moody(Mutex<Vec<Option<&'static str>>>);

#[async_trait::async_trait]
impl phasewise::Throttle for Moody {
    async fn hold(&self, _: &Client) -> Result<Option<String>, Error> {
        Ok(self.0.lock().expect("not poisoned").pop().flatten().map(str::to_owned))
    }
}

#[tokio::test]
async fn another_reason_is_said_too_and_another_figure_is_not() {
    let (database, client) = tables(ROWS).await;
    let moods = [
        None,
        Some("replica_2 is 3 s behind"),
        Some("replica_1 is 12.5 s behind"),
        Some("replica_1 is 2 s behind"),
    ];
    let watched = migrator(&database, &FILL, fixed(500)).throttle(Moody(Mutex::new(moods.to_vec())));
    let (watched, mut ears) = ears(watched);
    let running = filling(watched);
    let heard = ears.until(|heard| *heard == Heard::Resumed).await;
    let said = |reason: &str| Heard::Throttled(reason.to_owned());
    assert_eq!(heard, [said("replica_1 is 2 s behind"), said("replica_2 is 3 s behind"), Heard::Resumed]);
    filled(running).await;
    assert_filled(&client).await;
}

/// Never answers.
struct Silent;

#[async_trait::async_trait]
impl phasewise::Throttle for Silent {
    async fn hold(&self, _: &Client) -> Result<Option<String>, Error> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_throttle_without_an_answer_holds() {
    let (database, client) = tables(ROWS).await;
    let (watched, mut ears) = ears(migrator(&database, &FILL, fixed(500)).throttle(Silent));
    let running = filling(watched);
    throttled(&mut ears, &client, &["a throttle gave no answer within 10 s"]).await;
    running.abort();
    assert!(running.await.expect_err("dropped").is_cancelled());
}

/// Holds until it is told otherwise.
struct Held(std::sync::Arc<std::sync::atomic::AtomicBool>);

#[async_trait::async_trait]
impl phasewise::Throttle for Held {
    async fn hold(&self, _: &Client) -> Result<Option<String>, Error> {
        let held = self.0.load(std::sync::atomic::Ordering::SeqCst);
        Ok(held.then(|| "it rains".to_owned()))
    }
}

/// It is not said to go on where it only waits for somebody else.
#[tokio::test]
async fn a_pause_while_it_is_held() {
    let (database, client) = tables(ROWS).await;
    let rains = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let watched = migrator(&database, &FILL, fixed(500)).throttle(Held(std::sync::Arc::clone(&rains)));
    let (watched, mut ears) = ears(watched);
    let other = migrator(&database, &FILL, fixed(500));
    let running = filling(watched);
    assert_eq!(ears.next().await, Heard::Throttled("it rains".to_owned()));
    other.pause("fill").await.expect("paused");
    assert_eq!(ears.next().await, Heard::Throttled("it is paused; `resume` lets it go on".to_owned()));
    rains.store(false, std::sync::atomic::Ordering::SeqCst);
    other.resume("fill").await.expect("resumed");
    resumed(&mut ears, running, &client).await;
}
