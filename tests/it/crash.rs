//! Drivers that are killed in the midst of it, in processes of their own, and the next one that goes on.

use std::io::{BufRead, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use phasewise::testing::Database;
use phasewise::{
    Action, BackfillPolicy, ChangeType, DropColumn, Event, LockMode, Migration, Migrations, Migrator, Probe,
    RenameColumn, State, To, migrations,
};
use tokio_postgres::{Client, NoTls};

use crate::harness::process::{go_on, stop};
use crate::harness::{acknowledge, catalog, data, database, one, run, same};

/// Tells the process of a driver where its database is.
const URL: &str = "PHASEWISE_CRASH_URL";
/// Which migration, which way, and the moment: `rename forward StepDone/StopOldWrites/2`.
const ORDERS: &str = "PHASEWISE_CRASH_ORDERS";
const PATIENCE: Duration = Duration::from_secs(60);

const ROWS: i64 = 400;
static SETUP: &[&str] = &[
    "CREATE TABLE parent (id int PRIMARY KEY)",
    "CREATE TABLE item (
        id int PRIMARY KEY, name text NOT NULL UNIQUE CHECK (name <> ''),
        num int NOT NULL DEFAULT 7 CHECK (num > 0) REFERENCES parent
     )",
    "CREATE INDEX item_lower ON item (lower(name), id)",
    "CREATE INDEX item_num ON item (num) WHERE num > 10",
    "INSERT INTO parent SELECT generate_series(1, 500)",
    "INSERT INTO item SELECT i, 'item ' || i, 1 + i % 400 FROM generate_series(1, 400) i",
];

static RENAME: Migrations =
    migrations![Migration::new("rename", RenameColumn::new("item", "name", "label")).not_deployed()];
static DROP: Migrations =
    migrations![Migration::new("drop", DropColumn::new("item", "num").quarantine()).not_deployed()];
static RETYPE: Migrations = migrations![
    Migration::new(
        "retype",
        ChangeType::new("item", "num", "big", "bigint")
            .up("{num}::bigint")
            .down("case when {big} <= 2147483647 then {big}::int end")
            .kept_in_sync()
    )
    .not_deployed()
];

fn migrations(name: &str) -> &'static Migrations {
    match name {
        "rename" => &RENAME,
        "drop" => &DROP,
        _ => &RETYPE,
    }
}

/// What happened, as one word and its place: what both processes count and compare.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Heard {
    event: String,
    phase: String,
    /// The step's summary, or how many rows the batches have looked at.
    what: String,
    concurrently: bool,
    /// Whether doing it twice is as good as doing it once.
    repeatable: bool,
}

impl Heard {
    fn new(event: &Event<'_>) -> Option<Self> {
        let (name, phase, what, step) = match event {
            Event::PhaseEntering { phase, .. } => ("PhaseEntering", phase, String::new(), None),
            Event::PhaseRollingBack { phase, .. } => ("PhaseRollingBack", phase, String::new(), None),
            Event::StepStarted { phase, step, .. } => {
                ("StepStarted", phase, step.summary.clone(), Some(step))
            }
            Event::StepDone { phase, step, .. } => ("StepDone", phase, step.summary.clone(), Some(step)),
            Event::StepSkipped { phase, step, .. } => {
                ("StepSkipped", phase, step.summary.clone(), Some(step))
            }
            Event::BatchDone { phase, done, .. } => ("BatchDone", phase, done.to_string(), None),
            _ => return None,
        };
        let concurrently = step.is_some_and(|step| matches!(step.action, Action::BuildIndex(_)));
        let repeatable = step.is_some_and(|step| {
            // A look at the rows is taken again while what it is for is not there.
            let looks = step.scans
                && matches!(step.probe, Probe::Sql(_))
                && step.locks.iter().all(|lock| lock.mode == LockMode::AccessShare);
            looks
                || step.probe == Probe::Repeatable
                || matches!(step.action, Action::Save { .. } | Action::Batches(_))
        });
        Some(Self { event: name.to_owned(), phase: (*phase).to_owned(), what, concurrently, repeatable })
    }

    /// What batches have looked at.
    fn rows(&self) -> u64 {
        self.what.parse().expect("a number of rows")
    }

    fn line(&self) -> String {
        let fields = [&self.event, &self.phase, &self.what].map(String::as_str).join("\t");
        format!("heard\t{fields}\t{}\t{}", self.concurrently, self.repeatable)
    }

    fn from_line(line: &str) -> Option<Self> {
        let [event, phase, what, concurrently, repeatable] =
            line.strip_prefix("heard\t")?.split('\t').collect::<Vec<_>>()[..]
        else {
            return None;
        };
        Some(Self {
            event: event.to_owned(),
            phase: phase.to_owned(),
            what: what.to_owned(),
            concurrently: concurrently == "true",
            repeatable: repeatable == "true",
        })
    }
}

fn tuned(migrator: Migrator) -> Migrator {
    migrator
        .soak(Duration::ZERO)
        .backfill(BackfillPolicy::new().fixed(40).pause(Duration::ZERO))
        .lock_deadline(Duration::from_secs(30))
        .lease_time(Duration::from_millis(600))
}

/// On standard output, where the test listens, as well.
fn fail(error: &phasewise::Error) -> ! {
    println!("\n{error}");
    panic!("{error}");
}

/// To the end, with a person's word at each gate.
async fn forward(migrator: &Migrator, name: &str) {
    loop {
        let report = migrator.run().await.unwrap_or_else(|error| fail(&error));
        let standing = report.get(name).expect("a standing");
        match &standing.state {
            State::Applied => return,
            State::Waiting { .. } => {
                let phase = standing.phase.as_deref().expect("a phase");
                migrator.confirm(name, phase).await.expect("a confirmation");
                acknowledge(migrator, name).await;
            }
            State::Referenced { .. } => acknowledge(migrator, name).await,
            State::Paused => migrator.resume(name).await.expect("a migration that may go on"),
            other => panic!("{other}"),
        }
    }
}

async fn go(migrator: &Migrator, name: &str, way: &str) {
    match way {
        "forward" => forward(migrator, name).await,
        _ => drop(migrator.rollback(name, To::Start).await.unwrap_or_else(|error| fail(&error))),
    }
}

/// The other process. Started by itself it has nothing to do.
#[tokio::test]
async fn driver() {
    let (Ok(url), Ok(orders)) = (std::env::var(URL), std::env::var(ORDERS)) else { return };
    let [name, way, moment] = orders.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{orders}") };
    let [event, phase, number] = moment.split('/').collect::<Vec<_>>()[..] else { panic!("{moment}") };
    let (event, phase) = (event.to_owned(), phase.to_owned());
    let left = Mutex::new(number.parse::<usize>().expect("a number"));

    let config: tokio_postgres::Config = url.parse().expect("a URL");
    let migrator = Migrator::connect(config, NoTls, migrations(name)).observe(move |told: &Event<'_>| {
        let Some(heard) = Heard::new(told) else { return };
        println!("\n{}", heard.line());
        let building = event == "Building" && heard.event == "StepStarted" && heard.concurrently;
        if heard.phase != phase || !(building || heard.event == event) {
            return;
        }
        let mut left = left.lock().expect("a number");
        *left = left.saturating_sub(1);
        if *left == 0 {
            println!("\nreached");
            // An index is yet to be built: the test sees how far it is. Else this is the moment.
            if !building {
                loop {
                    std::thread::park();
                }
            }
        }
    });
    go(&tuned(migrator), name, way).await;
}

/// A driver in another process.
struct Doomed {
    child: Child,
    /// Kept open: who cannot write any more fails of that.
    output: BufReader<ChildStdout>,
}

impl Doomed {
    /// Starts it; returns at its moment, with all that it told until then.
    fn reaches(database: &Database, orders: &str) -> (Self, Vec<Heard>) {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "crash::driver", "--nocapture"])
            .env(URL, database.url())
            .env(ORDERS, orders)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let mut doomed = Self { child, output };
        let mut heard = Vec::new();
        for line in doomed.output.by_ref().lines().map_while(Result::ok) {
            if line == "reached" {
                return (doomed, heard);
            }
            heard.extend(Heard::from_line(&line));
        }
        panic!("{orders}: it ended before that: {heard:#?}");
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Scene {
    name: &'static str,
    database: Database,
    client: Client,
}

impl Scene {
    async fn set(name: &'static str) -> Self {
        let database = database().await;
        let client = database.connect().await.expect("a connection");
        for sql in SETUP {
            run(&client, sql).await;
        }
        Self { name, database, client }
    }

    /// A driver is killed at a moment. Returns what it told, once nothing is left of it on the server.
    async fn killed(&self, way: &str, moment: &str) -> Vec<Heard> {
        let (doomed, told) = Doomed::reaches(&self.database, &format!("{} {way} {moment}", self.name));
        doomed.kill();
        self.nobody_else().await;
        told
    }

    /// Waits until no other backend is connected to the database, whatever it was doing.
    async fn nobody_else(&self) {
        let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                      AND backend_type = 'client backend' AND application_name <> 'test' \
                      AND pid <> pg_backend_pid()";
        self.until(others, "the dead driver's sessions end").await;
    }

    async fn until(&self, count: &str, what: &str) {
        let begun = Instant::now();
        while one::<i64>(&self.client, count).await != 0 {
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The next driver, in this process, to the end.
    async fn finish(&self, way: &str) -> Vec<Heard> {
        let events = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&events);
        let migrator = Migrator::new(self.database.pool(4).expect("a pool"), migrations(self.name));
        let migrator = tuned(migrator).observe(move |event: &Event<'_>| {
            told.lock().expect("events").extend(Heard::new(event));
        });
        go(&migrator, self.name, way).await;
        drop(migrator);
        std::mem::take(&mut *events.lock().expect("events"))
    }

    /// The catalog and the rows.
    async fn look(&self) -> (String, String) {
        (catalog::dump(&self.client).await, data::dump(&self.client, None).await)
    }

    async fn assert_looks_like(&self, other: &(String, String)) {
        let found = self.look().await;
        same(&other.0, &found.0, "the catalog");
        same(&other.1, &found.1, "the rows");
        let left = "SELECT (SELECT count(*) FROM pg_class WHERE relname LIKE 'pw\\_%')
                         + (SELECT count(*) FROM pg_index WHERE NOT (indisvalid AND indisready AND indislive))
                         + (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pw\\_%')
                         + (SELECT count(*) FROM pg_proc WHERE proname LIKE 'pw\\_%')
                         + (SELECT count(*) FROM pg_constraint WHERE conname LIKE 'pw\\_%' OR NOT convalidated)
                         + (SELECT count(*) FROM phasewise.backfills)
                         + (SELECT count(*) FROM phasewise.notes WHERE direction = 'back')";
        assert_eq!(one::<i64>(&self.client, left).await, 0, "something is left over");
        self.nobody_else().await;
    }
}

/// How it looks when nobody is killed.
async fn undisturbed(name: &'static str) -> (String, String) {
    let scene = Scene::set(name).await;
    scene.finish("forward").await;
    scene.look().await
}

/// Each driver goes on where the one before it was killed, and does nothing again that it had done.
fn assert_resumed(drivers: &[Vec<Heard>]) {
    for pair in drivers.windows(2) {
        let (killed, next) = (&pair[0], &pair[1]);
        let entering = |heard: &&Heard| ["PhaseEntering", "PhaseRollingBack"].contains(&heard.event.as_str());
        assert_eq!(killed.iter().rfind(entering), next.iter().find(entering), "{killed:#?}{next:#?}");
        let last = killed.last().expect("its end");
        if last.event == "BatchDone" {
            let mut more =
                next.iter().filter(|heard| heard.event == "BatchDone" && heard.phase == last.phase);
            let more = more.next().expect("more batches");
            assert!(more.rows() > last.rows(), "it began at row 0: {more:?} after {last:?}");
        }
    }
    let done = drivers.iter().flatten().filter(|heard| heard.event == "StepDone" && !heard.repeatable);
    let mut seen = Vec::new();
    for heard in done {
        assert!(!seen.contains(&heard), "done twice: {heard:?} in {drivers:#?}");
        seen.push(heard);
    }
}

async fn in_the_backfill(name: &'static str) {
    let scene = Scene::set(name).await;
    let killed = scene.killed("forward", "BatchDone/Backfill/3").await;
    let written = if name == "rename" { "label" } else { "big" };
    let written: i64 = one(&scene.client, &format!("SELECT count({written}) FROM item")).await;
    assert!(written > 0 && written < ROWS, "{written} of {ROWS} rows");
    let status =
        tuned(Migrator::new(scene.database.pool(4).expect("a pool"), migrations(name))).status().await;
    let status = status.expect("a status").get(name).and_then(|status| status.backfill.clone());
    let done = status.expect("a backfill under way").done;
    assert_eq!(Some(done), killed.last().map(Heard::rows));

    let heard = scene.finish("forward").await;
    assert_resumed(&[killed, heard]);
    scene.assert_looks_like(&undisturbed(name).await).await;
}

#[tokio::test]
async fn rename_in_the_backfill() {
    in_the_backfill("rename").await;
}

#[tokio::test]
async fn retype_in_the_backfill() {
    in_the_backfill("retype").await;
}

/// 0 once an index waits for a snapshot.
const WAITING: &str = "SELECT 1 - count(*) FROM pg_stat_progress_create_index \
                       WHERE phase = 'waiting for old snapshots' AND datname = current_database()";

/// While `CREATE INDEX CONCURRENTLY` waits for a snapshot that this test holds.
async fn while_an_index_is_built(name: &'static str) {
    let scene = Scene::set(name).await;
    let holder = scene.database.connect().await.expect("a connection");
    run(&holder, "SET application_name = 'test'; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await;
    let (driver, told) = Doomed::reaches(&scene.database, &format!("{name} forward Building/Backfill/1"));
    scene.until(WAITING, "the index waits").await;
    driver.kill();
    // Though the snapshot is still held, the server gives up what nobody waits for any more.
    scene.nobody_else().await;
    let remnants = "SELECT count(*) FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
                     WHERE c.relname LIKE 'pw\\_%' AND NOT i.indisvalid";
    assert_eq!(one::<i64>(&scene.client, remnants).await, 1);

    run(&holder, "COMMIT").await;
    drop(holder);
    let heard = scene.finish("forward").await;
    // The rows were done: none is looked at again.
    assert!(!heard.iter().any(|heard| heard.event == "BatchDone" && heard.phase == "Backfill"));
    let building = told.last().expect("the index");
    assert!(heard.iter().any(|heard| heard.event == "StepDone" && heard.what == building.what), "{heard:#?}");
    assert_resumed(&[told, heard]);
    scene.assert_looks_like(&undisturbed(name).await).await;
}

#[tokio::test]
async fn rename_while_an_index_is_built() {
    while_an_index_is_built("rename").await;
}

#[tokio::test]
async fn retype_while_an_index_is_built() {
    while_an_index_is_built("retype").await;
}

/// One driver after the other is killed, at one moment each.
async fn one_after_the_other(scene: &Scene, way: &str, moments: &[&str]) {
    let mut drivers = Vec::new();
    for moment in moments {
        drivers.push(scene.killed(way, moment).await);
    }
    drivers.push(scene.finish(way).await);
    assert_resumed(&drivers);
    let skipped = drivers.iter().flatten().filter(|heard| heard.event == "StepSkipped").count();
    assert!(skipped > 0, "nothing was found done: {drivers:#?}");
}

async fn between_steps(name: &'static str, moments: &[&str]) {
    let scene = Scene::set(name).await;
    one_after_the_other(&scene, "forward", moments).await;
    scene.assert_looks_like(&undisturbed(name).await).await;
}

#[tokio::test]
async fn rename_between_steps() {
    let moments =
        ["StepDone/AddTarget/1", "StepDone/Backfill/2", "StepDone/StopOldWrites/3", "StepDone/DropSource/2"];
    between_steps("rename", &moments).await;
}

#[tokio::test]
async fn retype_between_steps() {
    let moments = [
        "StepDone/InstallSync/2",
        "StepDone/Backfill/4",
        "StepDone/RemoveSync/3",
        "StepDone/DropSource/2",
        "BatchDone/DropSource/2",
    ];
    between_steps("retype", &moments).await;
}

#[tokio::test]
async fn drop_between_steps() {
    let moments = [
        "StepDone/StopWrites/2",
        "StepDone/Quarantine/1",
        "StepDone/Drop/3",
        "BatchDone/Drop/3",
        "StepDone/Drop/4",
    ];
    between_steps("drop", &moments).await;
}

async fn in_a_rollback(name: &'static str, moments: &[&str]) {
    let scene = Scene::set(name).await;
    let before = scene.look().await;
    scene.finish("forward").await;
    let after = scene.look().await;
    one_after_the_other(&scene, "back", moments).await;
    scene.assert_looks_like(&before).await;
    scene.finish("forward").await;
    scene.assert_looks_like(&after).await;
}

#[tokio::test]
async fn rename_in_a_rollback() {
    let moments = [
        "BatchDone/DropSource/3",
        "StepDone/StopOldWrites/3",
        "StepDone/StopOldWrites/4",
        "StepDone/Backfill/2",
    ];
    in_a_rollback("rename", &moments).await;
}

#[tokio::test]
async fn retype_in_a_rollback() {
    let moments = [
        "BatchDone/DropSource/3",
        "StepDone/RemoveSync/3",
        "StepDone/RemoveSync/4",
        "StepDone/Backfill/3",
        "StepDone/InstallSync/1",
    ];
    in_a_rollback("retype", &moments).await;
}

#[tokio::test]
async fn drop_in_a_rollback() {
    let moments = [
        "StepDone/Drop/1",
        "BatchDone/Drop/3",
        "StepDone/Drop/3",
        "StepDone/Quarantine/1",
        "StepDone/StopWrites/1",
        "StepDone/StopWrites/8",
    ];
    in_a_rollback("drop", &moments).await;
}

/// A driver that is stopped, not dead, keeps no lease and does no harm when it wakes up.
#[tokio::test]
async fn a_driver_that_slept_through_its_lease_changes_nothing() {
    let scene = Scene::set("rename").await;
    let holder = scene.database.connect().await.expect("a connection");
    run(&holder, "SET application_name = 'test'; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await;
    let (mut sleeper, told) = Doomed::reaches(&scene.database, "rename forward Building/Backfill/1");
    scene.until(WAITING, "the index waits").await;
    stop(&sleeper.child);
    run(&holder, "COMMIT").await;
    drop(holder);

    let heard = scene.finish("forward").await;
    assert_resumed(&[told, heard]);
    let wanted = undisturbed("rename").await;
    go_on(&sleeper.child);
    let mut rest = String::new();
    sleeper.output.read_to_string(&mut rest).expect("its output");
    assert!(!sleeper.child.wait().expect("an end").success(), "it took itself for the driver: {rest}");
    assert!(rest.contains("was taken over by another driver"), "{rest}");
    scene.assert_looks_like(&wanted).await;
}
