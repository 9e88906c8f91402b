//! Fifty instances that start at the same moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use phasewise::create_table::Column;
use phasewise::testing::{Database, Server};
use phasewise::{
    AddColumn, AddIndex, CreateTable, Event, Migration, Migrations, Migrator, RenameColumn, add_column,
    migrations, rename_column,
};
use tokio_postgres::NoTls;

use crate::harness::{one, run};

const INSTANCES: usize = 50;

/// What has no release before it.
static ALL: Migrations = migrations![
    Migration::new(
        "create",
        CreateTable::new("t")
            .columns([Column::new("id", "int").not_null(), Column::new("name", "text")])
            .primary_key(&["id"])
    ),
    Migration::new("index", AddIndex::new("t", "t_name").columns(&["name"])),
    Migration::new("add", AddColumn::new("t", "size", "int").backfill("length({name})").not_null())
        .deployed::<add_column::ReadNew>(),
    Migration::new("rename", RenameColumn::new("t", "name", "label"))
        .deployed::<rename_column::StopOldWrites>(),
];

/// What is pending beside a table that was there before: the next deploy of two changes.
static NEXT: Migrations = migrations![
    Migration::new("index", AddIndex::new("t", "t_name").columns(&["name"])),
    Migration::new("add", AddColumn::new("t", "size", "int").backfill("length({name})").not_null())
        .deployed::<add_column::WriteNew>(),
    Migration::new("rename", RenameColumn::new("t", "note", "label")).not_deployed(),
];

/// Every instance has up to three connections while it starts: more than the tests' shared server need have.
async fn database() -> Database {
    let server = Server::builder().setting("max_connections", "250").start().await.expect("a server");
    server.database().await.expect("a database")
}

/// All of them at once. Returns how often each phase was entered and each step was done, by all of them together.
async fn stampede(
    database: &Database,
    migrations: &'static Migrations,
    tuned: fn(Migrator) -> Migrator,
) -> BTreeMap<String, usize> {
    let done = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let begun = Instant::now();
    let mut starting = tokio::task::JoinSet::new();
    for _ in 0..INSTANCES {
        let tell = Arc::clone(&done);
        let migrator = Migrator::connect(database.config(), NoTls, migrations);
        let migrator = tuned(migrator).observe(move |event: &Event<'_>| {
            let what = match event {
                Event::PhaseEntering { migration, phase, .. } => format!("{migration}: entering {phase}"),
                Event::PhaseEntered { migration, phase, .. } => format!("{migration}: entered {phase}"),
                Event::StepDone { migration, phase, step, .. } => {
                    format!("{migration}: {phase}: {}", step.summary)
                }
                _ => return,
            };
            *tell.lock().unwrap().entry(what).or_default() += 1;
        });
        starting.spawn(async move { migrator.start().await });
    }
    let mut serving = Vec::new();
    while let Some(started) = starting.join_next().await {
        serving.push(started.unwrap().expect("an instance that serves"));
    }
    eprintln!("{INSTANCES} instances serve after {:.2} s", begun.elapsed().as_secs_f64());

    assert!(serving.iter().all(phasewise::Schema::is_current));
    let watcher = tuned(Migrator::connect(database.config(), NoTls, migrations));
    let status = watcher.status().await.expect("a status");
    assert_eq!(status.instances.iter().filter(|found| found.live).count(), INSTANCES, "{status}");
    for schema in serving {
        schema.leave().await.expect("an instance that leaves");
    }
    Arc::into_inner(done).map_or_else(|| panic!("somebody still listens"), |done| done.into_inner().unwrap())
}

/// Each of these phases was entered once, and nothing was done twice.
fn once(done: &BTreeMap<String, usize>, phases: &[(&str, &[&str])]) {
    assert!(done.values().all(|times| *times == 1), "{done:#?}");
    let expected: Vec<String> = phases
        .iter()
        .flat_map(|(name, phases)| phases.iter().map(move |phase| format!("{name}: entered {phase}")))
        .collect();
    let mut entered: Vec<&String> = done.keys().filter(|what| what.contains(": entered ")).collect();
    entered.sort_unstable();
    let mut sorted: Vec<&String> = expected.iter().collect();
    sorted.sort_unstable();
    assert_eq!(entered, sorted);
    assert!(done.keys().any(|what| what.starts_with("index: BuildConcurrently: ")), "{done:#?}");
}

fn phases(migrations: &'static Migrations, name: &str) -> Vec<&'static str> {
    migrations.get(name).expect("it").phases().iter().map(|info| info.name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_an_empty_database_each_step_happens_once_and_nobody_waits_for_gates_or_soaks() {
    let database = database().await;
    // The defaults: fourteen days of soak, which a database with nobody in it has no use for.
    let done = stampede(&database, &ALL, |migrator| migrator).await;
    let all = ["create", "index", "add", "rename"].map(|name| (name, phases(&ALL, name)));
    let all = all.each_ref().map(|(name, phases)| (*name, phases.as_slice()));
    once(&done, &all);
    let client = database.connect().await.unwrap();
    let columns = "SELECT string_agg(attname, ' ' ORDER BY attname) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped";
    assert_eq!(one::<String>(&client, columns).await, "id label size");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_work_pending_each_step_happens_once_and_all_serve() {
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, name text, note text)").await;
    run(&client, "INSERT INTO t SELECT i, 'name ' || i FROM generate_series(1, 20000) i").await;
    let done = stampede(&database, &NEXT, |migrator| migrator.settle(std::time::Duration::ZERO)).await;
    once(
        &done,
        &[
            ("index", &["BuildConcurrently"]),
            ("add", &["AddNullable", "WriteNew", "Backfill", "ReadNew"]),
            ("rename", &["AddTarget", "WriteBoth"]),
        ],
    );
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t WHERE size = length(name)").await, 20000);
}
