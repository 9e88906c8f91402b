//! An instance whose process was stopped for longer than it counts as live, and goes on.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use phasewise::testing::Database;
use phasewise::{Event, Migrator, State};
use tokio_postgres::{Client, NoTls};

use super::{RELEASE, build, phase, stage};
use crate::harness::process::{go_on, stop};
use crate::harness::{one, run, until};

/// Tells the process of the instance where its database is.
const URL: &str = "PHASEWISE_STOPPED_URL";
/// And how often its heart beats, in milliseconds.
const HEARTBEAT: &str = "PHASEWISE_STOPPED_HEARTBEAT";
const PATIENCE: Duration = Duration::from_secs(60);

/// The other process: an application of release 0 that asks whether it is current before it writes. Started by itself
/// it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn member() {
    let (Ok(url), Ok(heartbeat)) = (std::env::var(URL), std::env::var(HEARTBEAT)) else { return };
    let heartbeat = Duration::from_millis(heartbeat.parse().expect("a number"));
    let config: tokio_postgres::Config = url.parse().expect("a URL");
    let (client, connection) = config.connect(NoTls).await.expect("a connection");
    tokio::spawn(connection);
    let schema = Migrator::connect(config, NoTls, &RELEASE[0])
        .heartbeat(heartbeat)
        .expiry(heartbeat * 3)
        .observe(|event: &Event<'_>| match event {
            Event::Expired { .. } => println!("\nit has expired"),
            Event::Returned { .. } => println!("\nit has returned"),
            Event::ShutOut { error, .. } => println!("\nshut out: {error}"),
            _ => {}
        })
        .start()
        .await
        .expect("release 0 serves");
    println!("\njoined as {}", schema.id());
    for line in std::io::stdin().lines() {
        if line.expect("an order") == "leave" {
            break;
        }
        if schema.is_current() {
            run(&client, "INSERT INTO t (id, name) SELECT max(id) + 1, 'of release 0' FROM t").await;
            println!("\nwrote");
        } else {
            println!("\nis not current: {}", schema.health().reason.unwrap_or_default());
        }
    }
    schema.leave().await.expect("it leaves");
}

struct Other {
    child: Child,
    id: String,
    /// What it says, line by line.
    lines: Receiver<String>,
}

impl Other {
    fn start(database: &Database, heartbeat: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "fleet::stopped::member", "--nocapture"])
            .env(URL, database.url())
            .env(HEARTBEAT, heartbeat.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (said, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        let mut other = Self { child, id: String::new(), lines };
        other.id = other.says("joined as ");
        other
    }

    /// Waits for a line that begins so; returns the rest of it.
    fn says(&self, wanted: &str) -> String {
        let mut heard = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("{error}, without {wanted:?}: {heard:#?}"));
            if let Some(rest) = line.strip_prefix(wanted) {
                return rest.to_owned();
            }
            heard.push(line);
        }
    }

    fn told(&mut self, order: &str) {
        writeln!(self.child.stdin.as_mut().expect("its input"), "{order}").expect("an order");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Release 0, stopped until it has expired; release 1 waits for it as long as the grace lasts.
async fn expired() -> (Database, Client, Other, phasewise::Schema) {
    let (database, client) = stage().await;
    let mut other = Other::start(&database, 300);
    other.told("write");
    other.says("wrote");
    let new = build(&database, 1).start().await.unwrap();
    assert_eq!(phase(&build(&database, 1)).await, "WriteBoth");

    stop(&other.child);
    let id = &other.id;
    until(
        &client,
        &format!(
            "SELECT clock_timestamp() > seen + make_interval(secs => expiry) FROM phasewise.instances WHERE id = '{id}'"
        ),
    )
    .await;
    let report = build(&database, 1).grace(Duration::from_secs(3600)).run().await.unwrap();
    let State::Waiting { by, .. } = &report.get("ren").unwrap().state else { panic!("{report}") };
    assert_eq!((by.len(), by[0].instance.as_ref()), (1, Some(id)), "{report}");
    assert!(by[0].silent.is_some(), "{report}");
    (database, client, other, new)
}

/// It goes on, with an order to write waiting for it, while the database takes no heartbeat: it can only know by itself.
async fn awakes(database: &Database, other: &mut Other) {
    let holder = database.connect().await.unwrap();
    run(&holder, "BEGIN; LOCK TABLE phasewise.instances IN ACCESS EXCLUSIVE MODE").await;
    other.told("write");
    go_on(&other.child);
    let reason = other.says("is not current: ");
    assert!(reason.contains("has not heard of it"), "{reason}");
    run(&holder, "ROLLBACK").await;
}

#[tokio::test]
async fn the_schema_moves_on_without_it_and_it_knows_when_it_goes_on() {
    let (database, client, mut other, new) = expired().await;
    let id = other.id.clone();
    until(
        &client,
        &format!(
            "SELECT clock_timestamp() > seen + make_interval(secs => expiry + 0.5) FROM phasewise.instances WHERE id = '{id}'"
        ),
    )
    .await;
    build(&database, 1).grace(Duration::from_millis(500)).run().await.unwrap();
    assert_eq!(phase(&build(&database, 1)).await, "SwitchReads");

    awakes(&database, &mut other).await;
    let why = other.says("shut out: ");
    assert!(why.contains("migration ren stands in SwitchReads") && why.contains("speaks release 0"), "{why}");
    other.told("write");
    let reason = other.says("is not current: ");
    assert!(reason.contains("migration ren stands in SwitchReads"), "{reason}");
    let live = format!(
        "SELECT count(*) FROM phasewise.instances WHERE id = '{id}' AND seen > clock_timestamp() - interval '0.5 s'"
    );
    assert_eq!(one::<i64>(&client, &live).await, 0, "it is registered");
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t").await, 2, "it wrote only while it was live");
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t WHERE name IS DISTINCT FROM label").await, 0);
    // It holds nothing back either.
    let newer = build(&database, 2).grace(Duration::from_millis(500)).start().await.unwrap();
    new.leave().await.unwrap();
    build(&database, 2).grace(Duration::from_millis(500)).run().await.unwrap();
    assert_eq!(phase(&build(&database, 2)).await, "StopOldWrites");
    newer.leave().await.unwrap();
    other.told("leave");
    assert!(other.child.wait().unwrap().success());
}

#[tokio::test]
async fn while_there_is_room_it_registers_again_by_itself() {
    let (database, client, mut other, new) = expired().await;
    awakes(&database, &mut other).await;
    other.says("it has returned");
    other.told("write");
    other.says("wrote");
    // And holds the gate again, as one that is live.
    let report = build(&database, 1).run().await.unwrap();
    let State::Waiting { by, .. } = &report.get("ren").unwrap().state else { panic!("{report}") };
    assert_eq!(by[0].instance.as_deref(), Some(other.id.as_str()));
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t").await, 3);
    other.told("leave");
    assert!(other.child.wait().unwrap().success());
    build(&database, 1).run().await.unwrap();
    assert_eq!(phase(&build(&database, 1)).await, "SwitchReads");
    new.leave().await.unwrap();
}

#[tokio::test]
async fn an_answer_that_it_reads_too_late_is_no_return() {
    let (database, client) = stage().await;
    let mut other = Other::start(&database, 1500);
    let holder = database.connect().await.unwrap();
    run(&holder, "BEGIN; LOCK TABLE phasewise.instances IN ACCESS EXCLUSIVE MODE").await;
    until(
        &client,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
                           AND wait_event_type = 'Lock' AND query LIKE 'UPDATE %instances SET seen%')",
    )
    .await;
    // The database takes the heartbeat, and the answer waits for a process that reads it when its time is over.
    stop(&other.child);
    run(&holder, "ROLLBACK").await;
    let silent = "SELECT clock_timestamp() > seen + make_interval(secs => expiry) FROM phasewise.instances";
    until(&client, "SELECT seen > started FROM phasewise.instances").await;
    until(&client, silent).await;
    go_on(&other.child);
    assert_eq!(other.says("it has "), "expired");
    assert_eq!(other.says("it has "), "returned");
    other.told("write");
    other.says("wrote");
    other.told("leave");
    assert!(other.child.wait().unwrap().success());
}
