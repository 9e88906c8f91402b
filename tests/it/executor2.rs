//! The executor where things go wrong: half entered phases, old builds, open writers, rollbacks under others.

use std::time::Duration;

use phasewise::create_table::Column;
use phasewise::{
    AddColumn, Change, Context, CreateTable, DeployPhase, Gate, Kind, Migration, Migrations, Migrator, Phase,
    RenameColumn, Result, Rollback, RunSql, State, Step, To, Touches, Window, migrations,
};
use tokio_postgres::Client;

use crate::harness::{database, migrator, one, run};

async fn there(client: &Client, name: &str) -> bool {
    one(client, &format!("SELECT to_regclass('{name}') IS NOT NULL")).await
}

static RENAME: Migrations =
    migrations![Migration::new("ren", RenameColumn::new("t", "name", "label")).not_deployed()];

#[test]
fn the_futures_may_move_between_threads() {
    fn send<T: Send>(_: fn(&'static Migrator) -> T) {}
    send(|m| m.run());
    send(|m| m.run_to("", ""));
    send(|m| m.status());
    send(|m| m.pending());
    send(|m| m.applied());
    send(|m| m.plan());
    send(|m| m.rollback("", To::Start));
    send(|m| m.confirm("", ""));
    send(|m| m.pause(""));
    send(|m| m.resume(""));
    send(|m| m.dangerous_accept_changed(""));
    send(|m| m.start());
}

#[tokio::test]
async fn no_rollback_under_a_later_migration() {
    static BOTH: Migrations = migrations![
        Migration::new(
            "table",
            CreateTable::new("t").columns([Column::new("id", "integer").not_null()]).primary_key(&["id"])
        ),
        Migration::new("column", AddColumn::new("t", "extra", "text")),
    ];
    static FIRST: Migrations = migrations![Migration::new(
        "table",
        CreateTable::new("t").columns([Column::new("id", "integer").not_null()]).primary_key(&["id"])
    ),];
    let database = database().await;
    let client = database.connect().await.unwrap();
    let both = migrator(&database, &BOTH);
    both.run().await.unwrap();
    let error = both.rollback("table", To::Start).await.unwrap_err();
    assert_eq!(error.kind(), Kind::HeldBack);
    assert!(error.to_string().contains("under column"), "{error}");
    // To a build that does not list the later one the ledger says so.
    let error = migrator(&database, &FIRST).rollback("table", To::Start).await.unwrap_err();
    assert_eq!(error.kind(), Kind::HeldBack);
    assert!(error.to_string().contains("with a build that lists it"), "{error}");
    assert!(there(&client, "t").await);
    both.rollback("column", To::Start).await.unwrap();
    both.rollback("table", To::Start).await.unwrap();
    assert!(!there(&client, "t").await);
}

#[tokio::test]
async fn what_another_service_did_elsewhere_holds_no_rollback_back() {
    static MINE: Migrations = migrations![Migration::new("mine", AddColumn::new("t", "extra", "text"))];
    static THEIRS: Migrations = migrations![Migration::new("theirs", AddColumn::new("u", "extra", "text"))];
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE t (id int)").await;
    run(&client, "CREATE TABLE u (id int)").await;
    let mine = migrator(&database, &MINE);
    mine.run().await.unwrap();
    migrator(&database, &THEIRS).run().await.unwrap();
    mine.rollback("mine", To::Start).await.unwrap();
    let there = "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'extra'";
    assert_eq!(one::<i64>(&client, there).await, 0);
}

#[tokio::test]
async fn sql_that_touches_nothing_known_holds_rollbacks_back_until_it_says_what() {
    static VAGUE: Migrations = migrations![
        Migration::new(
            "a",
            RunSql::new(&["CREATE TABLE a (x int)"]).rollback(&["DROP TABLE a"]).touches(&["a"])
        ),
        Migration::new("b", RunSql::new(&["CREATE TABLE b (x int)"]).irreversible("a test")),
    ];
    static CLEAR: Migrations = migrations![
        Migration::new(
            "a",
            RunSql::new(&["CREATE TABLE a (x int)"]).rollback(&["DROP TABLE a"]).touches(&["a"])
        ),
        Migration::new("b", RunSql::new(&["CREATE TABLE b (x int)"]).irreversible("a test").touches(&["b"])),
    ];
    let database = database().await;
    let client = database.connect().await.unwrap();
    let vague = migrator(&database, &VAGUE);
    vague.run().await.unwrap();
    let error = vague.rollback("a", To::Start).await.unwrap_err();
    assert_eq!(error.kind(), Kind::HeldBack);
    assert!(error.to_string().contains(".touches("), "{error}");
    migrator(&database, &CLEAR).rollback("a", To::Start).await.unwrap();
    assert!(!there(&client, "a").await);
}

#[tokio::test]
async fn what_never_ran_is_not_undone() {
    static ONE: Migrations = migrations![Migration::new(
        "one",
        RunSql::new(&["INSERT INTO s VALUES ('k')"]).rollback(&["DELETE FROM s WHERE k = 'k'"])
    )];
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE s (k text PRIMARY KEY)").await;
    run(&client, "INSERT INTO s VALUES ('k')").await;
    let m = migrator(&database, &ONE);
    m.run().await.unwrap_err();
    m.rollback("one", To::Start).await.unwrap();
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM s").await, 1);
    // And what ran is.
    run(&client, "DELETE FROM s").await;
    m.run_to("one", "Run").await.unwrap();
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM s").await, 1);
    m.rollback("one", To::Start).await.unwrap();
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM s").await, 0);
}

#[tokio::test]
async fn of_statements_that_failed_half_way_those_that_ran_are_undone() {
    static TWO: Migrations = migrations![Migration::new(
        "two",
        RunSql::new(&["CREATE TABLE a1 (x int)", "CREATE TABLE a2 (x mood)"])
            .rollback(&["DROP TABLE a2", "DROP TABLE a1"])
    )];
    static UNEVEN: Migrations = migrations![Migration::new(
        "two",
        RunSql::new(&["CREATE TABLE a1 (x int)", "CREATE TABLE a2 (x mood)"])
            .rollback(&["DROP TABLE a1, a2"])
    )];
    let database = database().await;
    let client = database.connect().await.unwrap();
    let m = migrator(&database, &TWO);
    m.run().await.unwrap_err();
    assert!(there(&client, "a1").await);
    m.rollback("two", To::Start).await.unwrap();
    assert!(!there(&client, "a1").await);
    // Forward again it begins at the first, and resumes at the one that failed.
    m.run_to("two", "Run").await.unwrap_err();
    run(&client, "CREATE TYPE mood AS ENUM ('a')").await;
    m.run_to("two", "Run").await.unwrap();
    assert!(there(&client, "a2").await);

    // A rollback that fails half way is resumed, or given up: nothing runs twice.
    run(&client, "CREATE VIEW v AS SELECT * FROM a1").await;
    m.rollback("two", To::Start).await.unwrap_err();
    assert!(!there(&client, "a2").await && there(&client, "a1").await);
    m.run_to("two", "Run").await.unwrap();
    assert!(there(&client, "a2").await);
    run(&client, "DROP VIEW v").await;
    m.rollback("two", To::Start).await.unwrap();
    assert!(!there(&client, "a1").await && !there(&client, "a2").await);

    let database = crate::harness::database().await;
    let client = database.connect().await.unwrap();
    let m = migrator(&database, &UNEVEN);
    m.run().await.unwrap_err();
    let error = m.rollback("two", To::Start).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Irreversible);
    assert!(error.to_string().contains("CREATE TABLE a1"), "{error}");
    // Nothing was touched, and forward goes on where it was.
    assert_eq!(m.status().await.unwrap().get("two").unwrap().state, State::InProgress);
    run(&client, "CREATE TYPE mood AS ENUM ('a')").await;
    m.run().await.unwrap();
    m.rollback("two", To::Start).await.unwrap();
    assert!(!there(&client, "a1").await);
}

#[tokio::test]
async fn verification_waits_for_open_writers_and_names_them() {
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, name text)").await;
    run(&client, "INSERT INTO t VALUES (1, 'a')").await;
    let m = migrator(&database, &RENAME).lock_deadline(Duration::from_secs(1));
    m.run_to("ren", "WriteBoth").await.unwrap();
    run(&client, "UPDATE t SET label = 'a'").await;
    let old = database.connect().await.unwrap();
    run(&old, "SET application_name = 'draining'").await;
    run(&old, "BEGIN").await;
    run(&old, "UPDATE t SET name = 'new' WHERE id = 1").await;
    m.confirm("ren", "WriteBoth").await.unwrap();
    let error = m.run_to("ren", "Backfill").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Locked);
    assert!(error.to_string().contains("(draining)"), "{error}");
    run(&old, "COMMIT").await;
    m.run_to("ren", "Backfill").await.unwrap();
    assert_eq!(one::<String>(&client, "SELECT label FROM t").await, "new");
}

#[tokio::test]
async fn a_build_from_before_a_migration_is_its_release_0() {
    static BEFORE: Migrations = migrations![];
    static AFTER: Migrations = migrations![].retired(&["ren"]);
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, name text)").await;
    let m = migrator(&database, &RENAME);
    m.run_to("ren", "WriteBoth").await.unwrap();
    // Its window still has release 0 in it.
    migrator(&database, &BEFORE).start().await.unwrap().leave().await.unwrap();
    // That the service lists it now is what tells that an earlier build of it is one.
    m.start().await.unwrap().leave().await.unwrap();
    m.confirm("ren", "WriteBoth").await.unwrap();
    m.run_to("ren", "Backfill").await.unwrap();
    let error = migrator(&database, &BEFORE).start().await.unwrap_err();
    assert_eq!(error.kind(), Kind::OutsideWindow);
    assert!(error.to_string().contains("does not know migration ren"), "{error}");
    let error = migrator(&database, &AFTER).start().await.unwrap_err();
    assert!(error.to_string().contains("as retired, which it is not yet"), "{error}");
    // Another service has nothing to do with it.
    migrator(&database, &BEFORE).instance("other").start().await.unwrap().leave().await.unwrap();
    for info in m.status().await.unwrap().migrations.iter().flat_map(|_| RENAME.get("ren").unwrap().phases())
    {
        if info.gate.release().is_some() {
            m.run_to("ren", info.name).await.ok();
            m.confirm("ren", info.name).await.unwrap();
        }
    }
    assert!(m.run().await.unwrap().is_complete());
    // Once it is done it may be taken out of the list, by name: not to list it is what old builds do.
    let error = migrator(&database, &BEFORE).start().await.unwrap_err();
    assert!(error.to_string().contains(".retired(&[\"ren\"])"), "{error}");
    let schema = migrator(&database, &AFTER).start().await.unwrap();
    assert_eq!(schema.report().unknown, ["ren"]);
    schema.leave().await.unwrap();
}

#[tokio::test]
async fn sql_is_held_to_the_stall_budget() {
    static SLOW: Migrations =
        migrations![Migration::new("slow", RunSql::new(&["SELECT pg_sleep(30)"]).irreversible("a test"))];
    static LONG: Migrations = migrations![
        Migration::new("slow", RunSql::new(&["SELECT pg_sleep(0.5)"]).long_running().irreversible("a test")),
        Migration::new("locks", RunSql::new(&["LOCK TABLE t"]).long_running().irreversible("a test")),
    ];
    static OUTSIDE: Migrations = migrations![Migration::new(
        "vacuum",
        RunSql::new(&["VACUUM FULL t"])
            .outside_transaction()
            .done_when("SELECT false")
            .irreversible("a test")
    )];
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE t (id int)").await;
    let quick = |migrations| {
        migrator(&database, migrations)
            .stall_budget(Duration::from_millis(200))
            .lock_deadline(Duration::from_millis(600))
    };
    let error = quick(&SLOW).run().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Locked);
    assert!(error.to_string().contains(".long_running()"), "{error}");
    assert_eq!(error.code().map(|code| code.code()), Some("57014"));
    run(&client, "DROP SCHEMA phasewise CASCADE").await;

    run(&client, "BEGIN").await;
    run(&client, "SELECT * FROM t").await;
    for migrations in [&LONG, &OUTSIDE] {
        let error = quick(migrations).run().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Locked, "{error}");
        assert_eq!(error.code().map(|code| code.code()), Some("55P03"));
    }
    run(&client, "COMMIT").await;
    assert!(quick(&LONG).run().await.unwrap().is_complete());
    assert!(quick(&OUTSIDE).run().await.unwrap().is_complete());
}

#[tokio::test]
async fn a_lock_that_cannot_be_had_keeps_nobody_from_serving() {
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, name text)").await;
    run(&client, "BEGIN").await;
    run(&client, "SELECT * FROM t").await;
    let m = migrator(&database, &RENAME).lock_deadline(Duration::from_millis(300));
    let schema = m.start().await.unwrap();
    let failed = schema.report().failed.as_deref().unwrap();
    assert!(failed.contains("idle in transaction"), "{failed}");
    assert_eq!(schema.report().get("ren").unwrap().state, State::InProgress);
    assert!(!schema.report().is_complete());
    run(&client, "COMMIT").await;
    m.run().await.unwrap();
    schema.leave().await.unwrap();
}

#[tokio::test]
async fn run_to_does_not_go_back() {
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, name text)").await;
    let m = migrator(&database, &RENAME);
    m.run_to("ren", "WriteBoth").await.unwrap();
    m.pause("ren").await.unwrap();
    let error = m.run_to("ren", RENAME.get("ren").unwrap().phases()[0].name).await.unwrap_err();
    assert!(error.to_string().contains("rollback("), "{error}");
    // Where it stands already, nothing moves, and the hold stays.
    m.run_to("ren", "WriteBoth").await.unwrap();
    assert_eq!(m.status().await.unwrap().get("ren").unwrap().state, State::Paused);
}

#[tokio::test]
async fn sql_may_touch_what_phasewise_would_not() {
    static ODD: Migrations = migrations![
        Migration::new(
            "view",
            RunSql::new(&["ALTER VIEW v RENAME TO w"])
                .rollback(&["ALTER VIEW w RENAME TO v"])
                .touches(&["v"])
        ),
        Migration::new("part", RunSql::new(&["ANALYZE p1"]).rollback(&["ANALYZE p1"]).touches(&["p1"])),
        Migration::new(
            "new",
            RunSql::new(&["CREATE TABLE n (x int)"]).rollback(&["DROP TABLE n"]).touches_columns("n", &["x"])
        ),
    ];
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE VIEW v AS SELECT 1 AS x").await;
    run(&client, "CREATE TABLE p (x int) PARTITION BY LIST (x)").await;
    run(&client, "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)").await;
    let m = migrator(&database, &ODD);
    m.plan().await.unwrap();
    assert!(m.run().await.unwrap().is_complete());
    for name in ["new", "part", "view"] {
        m.rollback(name, To::Start).await.unwrap();
    }
    assert!(there(&client, "v").await && !there(&client, "n").await);
}

/// One deploy and a soak of an hour.
#[derive(Clone, Copy)]
struct Soaked;
#[derive(Clone, Copy)]
struct Deploy;
#[derive(Clone, Copy)]
struct End;

impl Phase for Deploy {
    const NAME: &'static str = "Deploy";
    const WINDOW: Window = Window::new(0, 1);
    const GATE: Gate = Gate::fleet(1).and_soak();
    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }
    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }
    fn soak(&self) -> Option<Duration> {
        Some(Duration::from_secs(3600))
    }
}

impl Phase for End {
    const NAME: &'static str = "End";
    const WINDOW: Window = Window::new(1, 1);
    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }
    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }
}

impl DeployPhase<Soaked> for Deploy {}

impl Change for Soaked {
    type Phases = (Deploy, End);
    fn phases(&self) -> Self::Phases {
        (Deploy, End)
    }
    fn definition(&self) -> String {
        "soaked".into()
    }
    fn touches(&self) -> Touches {
        Touches::nothing()
    }
}

#[tokio::test]
async fn an_old_release_that_comes_back_begins_the_soak_anew() {
    static OLD: Migrations = migrations![Migration::new("soaked", Soaked).not_deployed()];
    static NEW: Migrations = migrations![Migration::new("soaked", Soaked).deployed::<Deploy>()];
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE t (id int)").await;
    let new = migrator(&database, &NEW);
    new.run_to("soaked", "Deploy").await.unwrap();
    let fresh = new.start().await.unwrap();
    new.confirm("soaked", "Deploy").await.unwrap();
    run(&client, "UPDATE phasewise.confirmations SET at = at - interval '59 minutes'").await;
    run(&client, "UPDATE phasewise.migrations SET since = since - interval '59 minutes'").await;
    let State::Soaking { until: first, .. } = new.run().await.unwrap().get("soaked").unwrap().state.clone()
    else {
        panic!("it does not soak")
    };
    // One of the new release changes nothing; an old one does.
    new.start().await.unwrap().leave().await.unwrap();
    let old = migrator(&database, &OLD).start().await.unwrap();
    assert!(matches!(new.run().await.unwrap().get("soaked").unwrap().state, State::Waiting { .. }));
    old.leave().await.unwrap();
    let State::Soaking { until, .. } = new.run().await.unwrap().get("soaked").unwrap().state.clone() else {
        panic!("it does not soak")
    };
    assert!((until - first).num_minutes() >= 58, "{first} {until}");
    fresh.leave().await.unwrap();
}
