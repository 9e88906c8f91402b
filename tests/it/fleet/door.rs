//! A build is let in once the schema has all that its code counts on, and not before; and is not kept waiting for more.

use std::time::Duration;

use phasewise::{
    AddColumn, AddIndex, BackfillPolicy, CreateTable, Kind, Migration, Migrations, Migrator, RenameColumn,
    RunSql, State, Throttle, To, create_table::Column, migrations, rename_column,
};
use tokio_postgres::Client;

use super::{RENAME, build, heard, listened, phase, stage};
use crate::harness::{migrator, one, run, until};

static ADD: Migrations = migrations![Migration::new("add", AddColumn::new("t", "more", "text"))];

#[tokio::test]
async fn not_while_another_driver_keeps_it_from_adding_its_column() {
    let (database, client) = stage().await;
    run(&client, "CREATE TABLE u (id int PRIMARY KEY, name text)").await;
    static OTHER: Migrations = migrations![Migration::new("other", AddColumn::new("u", "more", "text"))];
    let holder = database.connect().await.unwrap();
    run(&holder, "BEGIN").await;
    run(&holder, "SELECT * FROM u").await;
    let other = migrator(&database, &OTHER);
    let job = tokio::spawn(async move { other.run().await });
    until(&client, "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'u'::regclass AND NOT granted").await;

    let error = migrator(&database, &ADD).start_wait(Duration::from_millis(300)).start().await.unwrap_err();
    assert_eq!((error.kind(), error.migration()), (Kind::OutsideWindow, Some("add")), "{error}");
    assert!(error.to_string().contains("counts on all of it: it has not begun"), "{error}");
    assert!(error.to_string().contains("Besides: another driver holds the lease"), "{error}");

    let waits = migrator(&database, &ADD).start_wait(Duration::from_secs(60));
    let waits = tokio::spawn(async move { waits.start().await });
    run(&holder, "COMMIT").await;
    assert!(job.await.unwrap().unwrap().is_complete());
    let schema = waits.await.unwrap().unwrap();
    run(&client, "SELECT more FROM t").await;
    schema.leave().await.unwrap();
}

#[tokio::test]
async fn a_build_that_leaves_driving_to_jobs_waits_for_them() {
    static LIST: Migrations = migrations![
        Migration::new("new", CreateTable::new("u").columns([Column::new("id", "int")])),
        Migration::new("ren", RENAME).deployed::<rename_column::WriteBoth>(),
    ];
    let (database, client) = stage().await;
    let role = format!("{}_poor", database.name());
    run(&client, &format!("CREATE ROLE \"{role}\" LOGIN PASSWORD 'x'")).await;
    let mut config = database.config();
    config.user(&role).password("x");
    let poor = Migrator::connect(config, tokio_postgres::NoTls, &LIST)
        .drive_in_background(false)
        .drive_at_start(false)
        .settle(Duration::ZERO);
    let error = poor.clone().start_wait(Duration::ZERO).start().await.unwrap_err();
    assert_eq!((error.kind(), error.migration()), (Kind::OutsideWindow, Some("new")), "{error}");

    for rights in ["USAGE ON SCHEMAS", "SELECT, INSERT, UPDATE, DELETE ON TABLES"] {
        run(&client, &format!("ALTER DEFAULT PRIVILEGES GRANT {rights} TO \"{role}\"")).await;
    }
    let waits = tokio::spawn(async move { poor.start().await });
    let job = migrator(&database, &LIST);
    job.run_to("ren", "WriteBoth").await.unwrap();
    let schema = waits.await.unwrap().unwrap();
    assert_eq!(schema.report().get("new").unwrap().state, State::Applied);
    // It was counted, and has driven nothing.
    let driven = "SELECT count(*) FROM phasewise.history WHERE by LIKE '%_poor%'";
    assert_eq!(one::<i64>(&client, driven).await, 0);
    job.run().await.unwrap();
    assert_eq!(phase(&job).await, "SwitchReads");
    schema.leave().await.unwrap();
    run(&client, &format!("DROP OWNED BY \"{role}\"")).await;
    run(&client, &format!("DROP ROLE \"{role}\"")).await;
}

#[tokio::test]
async fn an_index_is_not_waited_for() {
    static INDEX: Migrations =
        migrations![Migration::new("index", AddIndex::new("t", "t_name").columns(&["name"]))];
    let (database, client) = stage().await;
    // Not even a small one: it would wait for this.
    let holder = database.connect().await.unwrap();
    run(&holder, "BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    run(&holder, "SELECT 1").await;
    until(&client, "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND xact_start < clock_timestamp() - interval '1 s' AND pid <> pg_backend_pid()").await;
    let schema = migrator(&database, &INDEX)
        .drive_in_background(true)
        .poll(Duration::from_millis(20))
        .start()
        .await
        .unwrap();
    assert_ne!(schema.report().get("index").unwrap().state, State::Applied);
    run(&holder, "COMMIT").await;
    until(
        &client,
        "SELECT count(*) = 1 AND bool_and(entered = 1 AND moving IS NULL) FROM phasewise.migrations",
    )
    .await;
    schema.leave().await.unwrap();
}

/// There is always a reason to wait.
struct Always;

#[async_trait::async_trait]
impl Throttle for Always {
    async fn hold(&self, _: &Client) -> phasewise::Result<Option<String>> {
        Ok(Some("a test".to_owned()))
    }
}

#[tokio::test]
async fn nor_batches_that_something_holds_back() {
    const SECOND: RenameColumn = RenameColumn::new("u", "name", "label");
    static FIRST: Migrations = migrations![
        Migration::new("ren", RENAME).deployed::<rename_column::WriteBoth>(),
        Migration::new("second", SECOND).not_deployed(),
        // Behind both, for as long as they soak; and no reason to go through their batches.
        Migration::new("sql", RunSql::new(&["SELECT 1"]).irreversible("a test")),
    ];
    static BOTH: Migrations = migrations![
        Migration::new("ren", RENAME).deployed::<rename_column::WriteBoth>(),
        Migration::new("second", SECOND).deployed::<rename_column::WriteBoth>(),
    ];
    let (database, client) = stage().await;
    run(&client, "CREATE TABLE u (id int PRIMARY KEY, name text)").await;
    let held = |migrations| migrator(&database, migrations).backfill(BackfillPolicy::new()).throttle(Always);
    held(&FIRST).run_to("ren", "WriteBoth").await.unwrap();
    let schema = held(&FIRST).start().await.unwrap();
    assert_eq!(schema.report().get("ren").unwrap().state, State::InProgress);
    // What comes after it is not held back.
    assert_eq!(phase(&build(&database, 1)).await, "WriteBoth");
    assert_eq!(schema.report().get("second").unwrap().phase.as_deref(), Some("WriteBoth"));
    schema.leave().await.unwrap();
    held(&BOTH).start().await.unwrap().leave().await.unwrap();
}

/// Who founds the ledger knows whether the database is fresh, and nobody does afterwards.
#[tokio::test]
async fn a_build_that_leaves_driving_to_jobs_leaves_a_fresh_database_to_them() {
    static LIST: Migrations = migrations![
        Migration::new(
            "create",
            CreateTable::new("t").columns([Column::new("id", "int"), Column::new("name", "text")])
        ),
        Migration::new("ren", RENAME).deployed::<rename_column::StopOldWrites>(),
    ];
    let database = crate::harness::database().await;
    let waits = migrator(&database, &LIST).drive_at_start(false);
    let error = waits.clone().start().await.unwrap_err();
    assert_eq!((error.kind(), error.migration()), (Kind::OutsideWindow, Some("create")), "{error}");
    let waits = waits.start_wait(Duration::from_secs(60));
    let waits = tokio::spawn(async move { waits.start().await });
    assert!(migrator(&database, &LIST).run().await.unwrap().fresh);
    waits.await.unwrap().unwrap().leave().await.unwrap();
}

#[tokio::test]
async fn an_edited_definition_is_named_at_once() {
    static FIRST: Migrations =
        migrations![Migration::new("sql", RunSql::new(&["SELEC 1"]).irreversible("a test"))];
    static THEN: Migrations =
        migrations![Migration::new("sql", RunSql::new(&["SELECT 1"]).irreversible("a test"))];
    let (database, _client) = stage().await;
    migrator(&database, &FIRST).run().await.unwrap_err();
    let then = migrator(&database, &THEN).start_wait(Duration::from_secs(3600));
    let error = then.start().await.unwrap_err();
    assert_eq!((error.kind(), error.migration()), (Kind::Changed, Some("sql")), "{error}");
    then.dangerous_accept_changed("sql").await.unwrap();
    then.start().await.unwrap().leave().await.unwrap();
}

#[tokio::test]
async fn what_a_build_did_without_a_moment_ago_does_not_shut_it_out() {
    let (database, client) = stage().await;
    let (schema, events) = listened(migrator(&database, &ADD).heartbeat(Duration::from_millis(200))).await;
    migrator(&database, &ADD).rollback("add", To::Start).await.unwrap();
    run(&client, "DELETE FROM phasewise.instances").await;
    heard(&events, "returned").await;
    assert!(!events.lock().unwrap().contains(&"shut out"));
    schema.leave().await.unwrap();
    // A new one counts on it.
    let error = migrator(&database, &ADD).start().await.unwrap_err();
    assert!(error.to_string().contains("it is paused"), "{error}");
}

#[tokio::test]
async fn what_waits_behind_another_migration_is_waited_for_if_it_says_what_it_is_about() {
    static BEHIND: [Migrations; 2] = [
        migrations![
            Migration::new("ren", RENAME).deployed::<rename_column::WriteBoth>(),
            Migration::new("sql", RunSql::new(&["SELECT 1"]).irreversible("a test"))
        ],
        migrations![
            Migration::new("ren", RENAME).deployed::<rename_column::WriteBoth>(),
            Migration::new("sql", RunSql::new(&["SELECT 1"]).irreversible("a test").touches(&["t"]))
        ],
    ];
    let (database, _client) = stage().await;
    let schema = migrator(&database, &BEHIND[0]).start().await.unwrap();
    assert!(matches!(schema.report().get("sql").unwrap().state, State::HeldUp { .. }));
    schema.leave().await.unwrap();
    let error = migrator(&database, &BEHIND[1]).start().await.unwrap_err();
    assert_eq!((error.kind(), error.migration()), (Kind::OutsideWindow, Some("sql")), "{error}");
    assert!(error.to_string().contains("it waits for migration ren, which touches the same"), "{error}");
}

#[tokio::test]
async fn a_build_that_comes_too_early_is_told_of_those_that_do_not_know_the_migration() {
    static ELSEWHERE: Migrations =
        migrations![Migration::new("seen", AddIndex::new("t", "t_id").columns(&["id"]))];
    static EARLY: Migrations = migrations![
        Migration::new("seen", AddIndex::new("t", "t_id").columns(&["id"])),
        Migration::new("ren", RENAME).deployed::<rename_column::SwitchReads>(),
    ];
    let (database, _client) = stage().await;
    let old = migrator(&database, &ELSEWHERE).start().await.unwrap();
    let error = migrator(&database, &EARLY).start().await.unwrap_err();
    assert_eq!(error.kind(), Kind::OutsideWindow, "{error}");
    for said in
        [format!("instance {} of default speaks 0", old.id()), "speaks release 1 everywhere".to_owned()]
    {
        assert!(error.to_string().contains(&said), "{error}");
    }
    old.leave().await.unwrap();
}

#[tokio::test]
async fn a_build_from_the_past_adds_nothing_before_it_is_refused() {
    let (database, client) = stage().await;
    let done = migrator(&database, &super::RELEASE[3]);
    done.run().await.unwrap();
    run(&client, "UPDATE phasewise.migrations SET entered = 6, moving = NULL").await;
    let error = migrator(&database, &ADD).start_wait(Duration::from_secs(3600)).start().await.unwrap_err();
    assert_eq!((error.kind(), error.migration()), (Kind::OutsideWindow, Some("ren")), "{error}");
    let added = "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'more'";
    assert_eq!(one::<i64>(&client, added).await, 0);
}

/// It waits for nothing but its turn.
#[tokio::test]
async fn sql_that_is_merely_next_is_waited_for() {
    static LIST: Migrations = migrations![
        Migration::new("index", AddIndex::new("t", "t_name").columns(&["name"])),
        Migration::new("sql", RunSql::new(&["CREATE TABLE audit (id int)"]).irreversible("a test")),
    ];
    let (database, client) = stage().await;
    migrator(&database, &ADD).run().await.unwrap();
    let error = migrator(&database, &LIST).drive_at_start(false).start().await.unwrap_err();
    assert_eq!((error.kind(), error.migration()), (Kind::OutsideWindow, Some("sql")), "{error}");
    migrator(&database, &LIST).start().await.unwrap().leave().await.unwrap();
    run(&client, "SELECT id FROM audit").await;
}
