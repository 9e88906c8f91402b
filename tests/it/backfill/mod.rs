//! Batch loops: every kind of table and key, what goes wrong with rows, locks, servers and drivers, and what people
//! ask of a loop that is under way.

mod compute;
mod control;
mod failing;
mod histories;
mod killed;
mod locked;
mod order;
mod pace;
mod stretches;
mod throttles;
mod workers;

use std::sync::Mutex;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use phasewise::testing::{Database, Server, Source};
use phasewise::{
    AddColumn, BackfillPolicy, BackfillStatus, Error, Event, Migration, Migrations, Migrator, Report,
    migrations,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::harness::{database, one, run};

const PATIENCE: Duration = Duration::from_secs(60);

/// Fills `b` with what `a` says, whatever the rest of the table is.
static FILL: Migrations =
    migrations![Migration::new("fill", AddColumn::new("t", "b", "int").backfill("{a}")).not_deployed()];

/// No pause, nothing to give way to, batches of that size.
fn fixed(rows: u32) -> BackfillPolicy {
    BackfillPolicy::unthrottled().fixed(rows)
}

/// A database with these tables, and a connection to it.
async fn tables(setup: &[&str]) -> (Database, Client) {
    let database = database().await;
    let client = database.connect().await.expect("a connection");
    for sql in setup {
        run(&client, sql).await;
    }
    (database, client)
}

/// A server of its own, for what concerns all of its databases.
async fn own_server(settings: &[(&str, &str)]) -> Server {
    let mut builder = Server::builder().source(Source::Installed);
    for (name, value) in settings {
        builder = builder.setting(*name, *value);
    }
    builder.start().await.expect("an installed server")
}

fn migrator(database: &Database, migrations: &'static Migrations, policy: BackfillPolicy) -> Migrator {
    Migrator::new(database.pool(8).expect("a pool"), migrations)
        .soak(Duration::ZERO)
        .assume_fresh()
        .backfill(policy)
        .lock_deadline(Duration::from_secs(30))
}

/// Into the phase `Backfill` of the only migration.
async fn fill(migrator: &Migrator) -> Result<Report, Error> {
    let status = migrator.status().await.expect("a status");
    migrator.run_to(&status.migrations[0].name, "Backfill").await
}

/// Filled in the background.
fn filling(migrator: Migrator) -> JoinHandle<Result<Report, Error>> {
    tokio::spawn(async move { fill(&migrator).await })
}

async fn filled(running: JoinHandle<Result<Report, Error>>) -> Report {
    let report = tokio::time::timeout(PATIENCE, running).await.expect("an end in time");
    report.expect("no panic").unwrap_or_else(|error| panic!("{error}"))
}

async fn failed(running: JoinHandle<Result<Report, Error>>) -> Error {
    let report = tokio::time::timeout(PATIENCE, running).await.expect("an end in time");
    report.expect("no panic").expect_err("an error")
}

/// The backfill that is under way.
async fn under_way(migrator: &Migrator) -> BackfillStatus {
    let status = migrator.status().await.expect("a status");
    status.migrations[0].backfill.clone().expect("a backfill under way")
}

/// Polls a fact until it is so.
async fn until(client: &Client, sql: &str) {
    let begun = Instant::now();
    while !one::<bool>(client, sql).await {
        assert!(begun.elapsed() < PATIENCE, "it never was: {sql}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// No row is left that `b` and `a` differ in.
async fn assert_filled(client: &Client) {
    let wrong = "SELECT count(*) FROM t WHERE b IS DISTINCT FROM a";
    assert_eq!(one::<i64>(client, wrong).await, 0, "rows are left");
}

/// A batch, as it was told.
#[derive(Clone, Debug, PartialEq)]
struct Batch {
    relation: String,
    part: u32,
    rows: u64,
    done: u64,
    estimate: Option<u64>,
    next: u64,
    rate: Option<f64>,
    took: Duration,
}

/// What was heard of a backfill, in order.
#[derive(Clone, Debug, PartialEq)]
enum Heard {
    Batch(Batch),
    Mended(u64),
    Aside { key: String, error: String },
    Retry { step: String, blockers: Vec<i32> },
    Throttled(String),
    Resumed,
    ClientsWaited { clients: u64, rest: Duration },
}

impl Heard {
    fn new(event: &Event<'_>) -> Option<Self> {
        Some(match event {
            Event::BatchDone { relation, part, rows, done, estimate, next, rate, took, .. } => {
                Self::Batch(Batch {
                    relation: (*relation).to_owned(),
                    part: *part,
                    rows: *rows,
                    done: *done,
                    estimate: *estimate,
                    next: *next,
                    rate: *rate,
                    took: *took,
                })
            }
            Event::RowsMended { rows, .. } => Self::Mended(*rows),
            Event::RowSetAside { key, error, .. } => {
                Self::Aside { key: (*key).to_owned(), error: (*error).to_owned() }
            }
            Event::LockRetry { step, blockers, .. } => Self::Retry {
                step: (*step).to_owned(),
                blockers: blockers.iter().map(|blocker| blocker.pid).collect(),
            },
            Event::Throttled { reason, .. } => Self::Throttled((*reason).to_owned()),
            Event::Resumed { .. } => Self::Resumed,
            Event::ClientsWaited { clients, rest, .. } => {
                Self::ClientsWaited { clients: *clients, rest: *rest }
            }
            _ => return None,
        })
    }

    fn batch(&self) -> Option<&Batch> {
        match self {
            Self::Batch(batch) => Some(batch),
            _ => None,
        }
    }
}

fn batches(heard: &[Heard]) -> Vec<Batch> {
    heard.iter().filter_map(Heard::batch).cloned().collect()
}

/// Hears a migrator; and holds it after each batch, where it was told to, until it may go on.
struct Ears {
    heard: UnboundedReceiver<Heard>,
    go: Option<mpsc::Sender<()>>,
}

fn ears(migrator: Migrator) -> (Migrator, Ears) {
    let (tell, heard) = unbounded_channel();
    let migrator = migrator.observe(move |event: &Event<'_>| {
        Heard::new(event).map(|heard| tell.send(heard));
    });
    (migrator, Ears { heard, go: None })
}

/// Stops after each batch, between two transactions, until [`Ears::go`]. Needs a runtime of several threads.
fn stepwise(migrator: Migrator) -> (Migrator, Ears) {
    let (tell, heard) = unbounded_channel();
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let migrator = migrator.observe(move |event: &Event<'_>| {
        let Some(heard) = Heard::new(event) else { return };
        let stops = heard.batch().is_some();
        let _ = tell.send(heard);
        if stops {
            // An error says that nobody wants it to stop any more.
            let _ = tokio::task::block_in_place(|| gone.lock().expect("not poisoned").recv());
        }
    });
    (migrator, Ears { heard, go: Some(go) })
}

impl Ears {
    async fn next(&mut self) -> Heard {
        let heard = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
        heard.expect("something to be heard in time").expect("a migrator")
    }

    /// The next batch, whatever is heard before it.
    async fn batch(&mut self) -> Batch {
        loop {
            if let Heard::Batch(batch) = self.next().await {
                return batch;
            }
        }
    }

    /// All up to the first that is so.
    async fn until(&mut self, is: impl Fn(&Heard) -> bool) -> Vec<Heard> {
        let mut all = Vec::new();
        loop {
            let heard = self.next().await;
            all.push(heard);
            if all.last().is_some_and(&is) {
                return all;
            }
        }
    }

    /// Lets one batch more be done.
    fn go(&self) {
        self.go.as_ref().expect("it stops after each batch").send(()).expect("a migrator");
    }

    /// Lets all be done.
    fn run(&mut self) {
        self.go = None;
    }

    /// What is left to hear, once the migrator is gone.
    async fn rest(mut self) -> Vec<Heard> {
        self.run();
        let mut all = Vec::new();
        while let Ok(Some(heard)) = tokio::time::timeout(PATIENCE, self.heard.recv()).await {
            all.push(heard);
        }
        all
    }
}
