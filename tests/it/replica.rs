//! Batches and replicas: a real one, that streams from a server of its own.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use phasewise::testing::{Database, Server, Source};
use phasewise::{AddColumn, BackfillPolicy, Event, Migration, Migrations, Migrator, migrations};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_postgres::Client;

use crate::harness::{one, run};

const LIMIT: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(60);

static TOKEN: Migrations = migrations![Migration::new(
    "token",
    AddColumn::new("item", "token", "uuid").volatile_default("gen_random_uuid()").not_null()
)];

/// What was heard of batches, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Throttled(String),
    Resumed,
    Batch,
}

fn migrator(database: &Database, policy: BackfillPolicy) -> (Migrator, UnboundedReceiver<Heard>) {
    let (tell, heard): (UnboundedSender<Heard>, _) = unbounded_channel();
    let migrator = Migrator::new(database.pool(4).expect("a pool"), &TOKEN)
        .backfill(policy.max_lag(LIMIT))
        .observe(move |event: &Event<'_>| {
            let heard = match event {
                Event::Throttled { reason, .. } => Heard::Throttled((*reason).to_owned()),
                Event::Resumed { .. } => Heard::Resumed,
                Event::BatchDone { .. } => Heard::Batch,
                _ => return,
            };
            let _ = tell.send(heard);
        });
    (migrator, heard)
}

/// A server of its own: one that runs already, or in Docker, can be given no replica.
async fn server() -> Server {
    match Server::builder().source(Source::Installed).start().await {
        Ok(server) => server,
        Err(_) => Server::version(18).await.expect("a server"),
    }
}

async fn with_rows(server: &Server, rows: u32) -> (Database, Client) {
    let database = server.database().await.expect("a database");
    let client = database.connect().await.expect("a connection");
    run(&client, "CREATE TABLE item (id int PRIMARY KEY, name text)").await;
    run(&client, &format!("INSERT INTO item SELECT i, 'item ' || i FROM generate_series(1, {rows}) i")).await;
    (database, client)
}

async fn next(heard: &mut UnboundedReceiver<Heard>) -> Heard {
    let heard = tokio::time::timeout(PATIENCE, heard.recv()).await;
    heard.expect("something to be heard in time").expect("a migrator")
}

/// Writes until the primary knows that something does not replay it.
async fn until_behind(client: &Client) {
    let begun = Instant::now();
    let sql = "SELECT coalesce(max(replay_lag), '0') > '750 ms' FROM pg_stat_replication";
    while !one::<bool>(client, sql).await {
        assert!(begun.elapsed() < PATIENCE, "no lag is to be seen");
        // Each reply to it tells the lag anew.
        run(client, "SELECT pg_logical_emit_message(true, 'replica', 'a word')").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// All rows, whole.
async fn rows(client: &Client) -> (i64, String) {
    let row =
        client.query_one("SELECT count(token), md5(string_agg(i::text, ',' ORDER BY id)) FROM item i", &[]);
    let row = row.await.expect("the rows");
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn batches_wait_for_a_replica_that_does_not_replay() {
    let server = server().await;
    let (database, client) = with_rows(&server, 3_000).await;
    let replica = server.replica().await.expect("a replica");
    replica.catch_up().await.expect("a replica that replays");
    let reader = replica.connect(&database).await.expect("a connection");
    assert!(one::<bool>(&reader, "SELECT pg_is_in_recovery() AND count(*) = 3000 FROM item").await);

    run(&reader, "SELECT pg_wal_replay_pause()").await;
    until_behind(&client).await;
    let (migrator, mut heard) = migrator(&database, BackfillPolicy::new().pause(Duration::ZERO));
    let running = tokio::spawn(async move { migrator.run().await });
    let Heard::Throttled(reason) = next(&mut heard).await else { panic!("a batch was done all the same") };
    assert!(reason.starts_with("replica replica_") && reason.contains(" s behind (limit 0.5 s)"), "{reason}");
    // It asks every second: this is the answer, twice.
    let silence = tokio::time::timeout(Duration::from_millis(2_500), heard.recv()).await;
    assert!(silence.is_err(), "{silence:?} while the replica stood still");
    assert_eq!(one::<i64>(&client, "SELECT count(token) FROM item").await, 0);

    run(&reader, "SELECT pg_wal_replay_resume()").await;
    let resumed = Instant::now();
    assert_eq!(next(&mut heard).await, Heard::Resumed);
    // A replica that has caught up and then says nothing keeps its last replay_lag for ten seconds.
    assert!(resumed.elapsed() < Duration::from_secs(9), "{:?}", resumed.elapsed());
    assert_eq!(next(&mut heard).await, Heard::Batch);
    let report = running.await.expect("a run").expect("a run to its end");
    assert!(report.is_complete(), "{report}");

    replica.catch_up().await.expect("a replica that replays");
    assert_eq!(rows(&client).await.0, 3_000);
    assert_eq!(rows(&reader).await, rows(&client).await);
}

#[tokio::test]
async fn batches_wait_for_a_replica_that_has_gone_silent() {
    let server = server().await;
    let (database, client) = with_rows(&server, 3_000).await;
    let replica = server.replica().await.expect("a replica");
    replica.catch_up().await.expect("a replica that replays");
    let reader = replica.connect(&database).await.expect("a connection");
    let receiver: i32 = one(&reader, "SELECT pid FROM pg_stat_wal_receiver").await;

    // As if the network were cut: nothing is answered, and no lag is reported.
    signal("STOP", receiver);
    let policy = BackfillPolicy::new().fixed(20).pause(Duration::from_millis(30));
    let (migrator, mut heard) = migrator(&database, policy);
    let running = tokio::spawn(async move { migrator.run().await });
    let reason = loop {
        match next(&mut heard).await {
            Heard::Throttled(reason) => break reason,
            other => assert_eq!(other, Heard::Batch),
        }
    };
    assert!(reason.starts_with("replica replica_"), "{reason}");
    assert!(
        one::<bool>(&client, "SELECT coalesce(max(replay_lag), '0') < '0.5 s' FROM pg_stat_replication")
            .await
    );
    let done: i64 = one(&client, "SELECT count(token) FROM item").await;
    assert!(done < 3_000, "all was done before the silence was noticed");

    signal("CONT", receiver);
    assert_eq!(next(&mut heard).await, Heard::Resumed);
    assert!(running.await.expect("a run").expect("a run to its end").is_complete());
    replica.catch_up().await.expect("a replica that replays");
    assert_eq!(rows(&reader).await, rows(&client).await);
}

fn signal(name: &str, pid: i32) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().expect("kill");
    assert!(sent.success());
}

/// An archive that receives WAL and never replays it.
struct Archive {
    process: Child,
    directory: PathBuf,
}

impl Archive {
    fn of(server: &Server) -> Self {
        let origin = server.origin().trim_start_matches("installed server ");
        let (binaries, _) = origin.rsplit_once(" (").expect("a version");
        let directory = std::env::temp_dir().join(format!("phasewise-wal-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let process = Command::new(format!("{binaries}/pg_receivewal"))
            .args(["--no-loop", "--synchronous", "-h", "127.0.0.1", "-U", "postgres", "-p"])
            .arg(server.config().get_ports()[0].to_string())
            .arg("-D")
            .arg(&directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pg_receivewal beside the server");
        Self { process, directory }
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[tokio::test]
async fn an_archive_that_only_receives_holds_nothing_up() {
    let server = Server::builder().source(Source::Installed).start().await.expect("an installed server");
    let (database, client) = with_rows(&server, 3_000).await;
    let _archive = Archive::of(&server);
    // Postgres reports a replay lag of it that grows for ever.
    until_behind(&client).await;
    let (migrator, mut heard) = migrator(&database, BackfillPolicy::new());
    assert!(migrator.run().await.expect("a run to its end").is_complete());
    drop(migrator);
    while let Some(heard) = heard.recv().await {
        assert_eq!(heard, Heard::Batch);
    }
}

/// Both directories, printed by the other half before it is killed.
#[tokio::test]
async fn a_killed_process_takes_its_replica_with_it() {
    const CHILD: &str = "PHASEWISE_TEST_CHILD";
    const DIRECTORY: &str = "SELECT current_setting('data_directory')";
    if std::env::var_os(CHILD).is_some() {
        let server = server().await;
        let replica = server.replica().await.expect("a replica");
        let database = server.database().await.expect("a database");
        replica.catch_up().await.expect("a replica that replays");
        let (primary, reader) = (database.connect().await, replica.connect(&database).await);
        let primary: String = one(&primary.expect("a connection"), DIRECTORY).await;
        let reader: String = one(&reader.expect("a connection"), DIRECTORY).await;
        println!("\nat\t{primary}\t{reader}");
        // Until it is killed.
        std::future::pending::<()>().await;
    }
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "replica::a_killed_process_takes_its_replica_with_it", "--nocapture"])
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines().map_while(Result::ok);
    let line = lines.find(|line| line.starts_with("at\t")).expect("two servers");
    let directories: Vec<PathBuf> = line.split('\t').skip(1).map(PathBuf::from).collect();
    assert!(directories.len() == 2 && directories.iter().all(|directory| directory.exists()), "{line}");

    child.kill().expect("killed");
    child.wait().expect("gone");
    let begun = Instant::now();
    // The data goes only once the server is gone.
    while directories.iter().any(|directory| directory.exists()) {
        assert!(begun.elapsed() < PATIENCE, "something is left of {line}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The primary dies in the midst of a backfill. Its replica answers, but takes no writes until it is promoted.
#[tokio::test]
async fn a_backfill_goes_on_at_the_server_that_takes_over() {
    let server = server().await;
    let (database, client) = with_rows(&server, 3_000).await;
    let pid: String = one(&client, "SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)").await;
    let replica = server.replica().await.expect("a replica");
    replica.catch_up().await.expect("a replica that replays");
    let mut both = tokio_postgres::Config::new();
    both.user(database.config().get_user().expect("a user")).dbname(database.name());
    for config in [database.config(), replica.config(&database)] {
        both.host("127.0.0.1").port(config.get_ports()[0]);
    }
    let (tell, mut batches) = unbounded_channel();
    let policy = BackfillPolicy::unthrottled().fixed(50).pause(Duration::from_millis(20));
    let migrator = Migrator::connect(both, tokio_postgres::NoTls, &TOKEN).backfill(policy).observe(
        move |event: &Event<'_>| {
            if let Event::BatchDone { done, .. } = event {
                let _ = tell.send(*done);
            }
        },
    );
    let running = tokio::spawn(async move { migrator.run().await });
    let done = async |batches: &mut UnboundedReceiver<u64>| {
        tokio::time::timeout(PATIENCE, batches.recv()).await.expect("a batch in time").expect("a migrator")
    };
    while done(&mut batches).await < 500 {}
    replica.catch_up().await.expect("a replica that replays");
    signal("KILL", pid.parse().expect("a process"));
    let reader = replica.connect(&database).await.expect("a connection");
    // The driver has come to the standby, and does not take it for the primary.
    // More sessions than this one, and the one before it.
    let seen = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()";
    let (begun, before) = (Instant::now(), one::<i64>(&reader, seen).await);
    while one::<i64>(&reader, seen).await < before + 3 {
        assert!(begun.elapsed() < PATIENCE, "nobody has come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(one::<bool>(&reader, "SELECT pg_promote()").await);
    let report = running.await.expect("no panic").unwrap_or_else(|error| panic!("{error}"));
    assert!(report.is_complete(), "{report}");
    assert_eq!(rows(&reader).await.0, 3_000);
    let mut after = Vec::new();
    while let Some(done) = batches.recv().await {
        after.push(done);
    }
    assert!(after.iter().all(|done| *done > 500), "it began again: {after:?}");
}
