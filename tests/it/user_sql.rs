//! SQL of users' own, and settings that roles and databases have: neither gets in the migrator's way.

use std::time::{Duration, Instant};

use phasewise::testing::Server;
use phasewise::{
    Action, Change, Context, Event, Kind, LockMode, Migration, Migrations, Migrator, Phase, Result, Rollback,
    RunSql, Step, TableName, To, Touches, Window, migrations,
};
use tokio_postgres::{Client, NoTls};

use crate::harness::{database, migrator, one, run};

#[tokio::test]
async fn equal_statements_run_as_often_as_they_are_written() {
    const INSERT: &str = "INSERT INTO s VALUES (1)";
    const DELETE: &str = "DELETE FROM s WHERE ctid = (SELECT min(ctid) FROM s)";
    static TWICE: Migrations =
        migrations![Migration::new("twice", RunSql::new(&[INSERT, INSERT]).rollback(&[DELETE, DELETE]))];
    static HALF: Migrations = migrations![Migration::new(
        "half",
        RunSql::new(&[INSERT, INSERT, "SELECT * FROM absent", INSERT])
            .rollback(&[DELETE, "SELECT 1", DELETE, DELETE])
    )];
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE s (n int)").await;
    let rows = "SELECT count(*) FROM s";
    let m = migrator(&database, &TWICE);
    m.run().await.unwrap();
    assert_eq!(one::<i64>(&client, rows).await, 2);
    m.rollback("twice", To::Start).await.unwrap();
    assert_eq!(one::<i64>(&client, rows).await, 0);

    let m = migrator(&database, &HALF);
    m.run().await.unwrap_err();
    m.run().await.unwrap_err();
    assert_eq!(one::<i64>(&client, rows).await, 2, "those that ran are noted");
    m.rollback("half", To::Start).await.unwrap();
    assert_eq!(one::<i64>(&client, rows).await, 0, "and undone");
    run(&client, "CREATE TABLE absent ()").await;
    m.run_to("half", "Run").await.unwrap();
    assert_eq!(one::<i64>(&client, rows).await, 3);
}

/// `(statement, whether it is sent outside a transaction)`, each followed by a look at the session.
macro_rules! meddlers {
    ($($name:ident: $sql:expr;)+) => {
        static MEDDLERS: Migrations = migrations![$(
            Migration::new(
                stringify!($name),
                RunSql::new(&[
                    $sql,
                    "INSERT INTO seen SELECT current_schema(), current_setting('search_path'), current_setting('TimeZone'), current_user, session_user, current_setting('session_replication_role'), current_setting('standard_conforming_strings')",
                ])
                .irreversible("a test")
            ),
            Migration::new(
                concat!(stringify!($name), " outside"),
                RunSql::new(&[$sql]).outside_transaction().done_when("SELECT false").irreversible("a test")
            ),
            Migration::new(
                concat!(stringify!($name), " after"),
                RunSql::new(&["INSERT INTO seen SELECT current_schema(), current_setting('search_path'), current_setting('TimeZone'), current_user, session_user, current_setting('session_replication_role'), current_setting('standard_conforming_strings')"])
                    .irreversible("a test")
            ),
        )+];
    };
}

meddlers! {
    path: "SELECT set_config('search_path', '', false)";
    zone: "SET TimeZone = 'Asia/Tokyo'";
    reset: "RESET ALL";
    role: "SET ROLE phasewise_nobody";
    user: "SET SESSION AUTHORIZATION phasewise_nobody";
    triggers: "SET session_replication_role = replica";
    strings: "SET standard_conforming_strings = off";
    patience: "SET statement_timeout = '20ms'";
    default: "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY";
    mark: "SET phasewise.session = 'mine'";
}

/// Roles are the server's: several tests, and runs, make the same one.
const ROLE: &str = "DO $$ BEGIN CREATE ROLE phasewise_nobody; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$";

#[tokio::test]
async fn sql_changes_the_session_for_itself_alone() {
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, ROLE).await;
    run(&client, "CREATE TABLE seen (schema text, path text, zone text, who text, login text, triggers text, strings text)")
        .await;
    // What the connection had before is what comes back.
    let mut config = database.config();
    config.options("-c extra_float_digits=2");
    let m = Migrator::connect(config, NoTls, &MEDDLERS);
    let report = m.run().await.unwrap();
    assert!(report.is_complete(), "{report}");
    let seen = "SELECT string_agg(DISTINCT seen::text, ' / ') FROM seen";
    let user: String = one(&client, "SELECT current_user::text").await;
    assert_eq!(
        one::<String>(&client, seen).await,
        format!("(public,\"\"\"public\"\", pg_temp\",UTC,{user},{user},origin,on)")
    );
    let rows: i64 = one(&client, "SELECT count(*) FROM seen").await;
    assert_eq!(usize::try_from(rows).unwrap(), MEDDLERS.iter().count() / 3 * 2);
}

#[tokio::test]
async fn a_role_that_the_connection_had_is_kept() {
    static WHO: Migrations = migrations![Migration::new(
        "who",
        RunSql::new(&["RESET ROLE", "INSERT INTO seen VALUES (current_user, session_user)"])
            .irreversible("a test")
    ),];
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, ROLE).await;
    run(&client, "CREATE TABLE seen (who text, login text)").await;
    run(&client, "GRANT ALL ON seen TO phasewise_nobody").await;
    let grant = format!("GRANT CREATE ON DATABASE \"{}\" TO phasewise_nobody", database.name());
    run(&client, &grant).await;
    let manager = deadpool_postgres::Manager::new(database.config(), NoTls);
    let pool = deadpool_postgres::Pool::builder(manager)
        .post_create(deadpool_postgres::Hook::async_fn(|client, _| {
            Box::pin(async move {
                client
                    .batch_execute("SET ROLE phasewise_nobody")
                    .await
                    .map_err(deadpool_postgres::HookError::Backend)
            })
        }))
        .build()
        .unwrap();
    Migrator::new(pool, &WHO).run().await.unwrap();
    assert_eq!(one::<String>(&client, "SELECT who FROM seen").await, "phasewise_nobody");
    assert_ne!(one::<String>(&client, "SELECT login FROM seen").await, "phasewise_nobody");
}

#[tokio::test]
async fn defaults_that_forbid_to_write_forbid_nothing() {
    static ONE: Migrations = migrations![Migration::new(
        "one",
        RunSql::new(&["CREATE TABLE a (x int)"]).rollback(&["DROP TABLE a"]).touches(&["a"])
    )];
    let database = database().await;
    let client = database.connect().await.unwrap();
    for setting in ["default_transaction_read_only = on", "default_transaction_isolation = 'serializable'"] {
        run(&client, &format!("ALTER DATABASE \"{}\" SET {setting}", database.name())).await;
    }
    let m = migrator(&database, &ONE);
    m.pause("one").await.unwrap();
    m.resume("one").await.unwrap();
    m.run().await.unwrap();
    m.start().await.unwrap().leave().await.unwrap();
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM phasewise.instances").await, 0);
    m.rollback("one", To::Start).await.unwrap();
    assert!(one::<bool>(&client, "SELECT expires_at < clock_timestamp() FROM phasewise.lease").await);
}

#[tokio::test]
async fn timeouts_that_end_sessions_are_lifted_and_named() {
    static SLOW: Migrations = migrations![Migration::new(
        "slow",
        RunSql::new(&["SELECT pg_sleep(0.6)"]).long_running().irreversible("a test")
    )];
    static ENDED: Migrations = migrations![Migration::new(
        "ended",
        RunSql::new(&[
            "DO $$ BEGIN PERFORM set_config('transaction_timeout', '50ms', true); PERFORM pg_sleep(5); END $$"
        ])
        .long_running()
        .irreversible("a test")
    )];
    let server = Server::version(18).await.unwrap();
    let database = server.database().await.unwrap();
    let client = database.connect().await.unwrap();
    for setting in ["transaction_timeout = '300ms'", "idle_session_timeout = '300ms'"] {
        run(&client, &format!("ALTER DATABASE \"{}\" SET {setting}", database.name())).await;
    }
    // Idle for longer than the one, and in a transaction for longer than the other.
    let m = migrator(&database, &SLOW).observe(|event: &Event<'_>| {
        if let Event::StepStarted { .. } = event {
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    m.run().await.unwrap();
    let error = migrator(&database, &ENDED).run().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Connection, "{error}");
    assert_eq!(error.code().map(|code| code.code()), Some("25P04"));
}

#[tokio::test]
async fn a_commit_does_not_wait_for_replicas() {
    static SYNC: Migrations = migrations![Migration::new(
        "sync",
        RunSql::new(&["INSERT INTO seen SELECT current_setting('synchronous_commit')"])
            .irreversible("a test")
    )];
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE seen (sync text)").await;
    migrator(&database, &SYNC).run().await.unwrap();
    assert_eq!(one::<String>(&client, "SELECT sync FROM seen").await, "local");
}

#[tokio::test]
async fn several_statements_to_undo_outside_a_transaction_are_refused() {
    static SEVERAL: Migrations = migrations![Migration::new(
        "several",
        RunSql::new(&["VACUUM t"])
            .outside_transaction()
            .done_when("SELECT false")
            .rollback(&["SELECT 1", "SELECT 2"])
    )];
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE t (id int)").await;
    let error = migrator(&database, &SEVERAL).run().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Definition);
    assert!(error.to_string().contains("one statement"), "{error}");
}

/// Several statements of one transaction, the first of which locks out everybody.
#[derive(Clone, Copy)]
struct Slow;

impl Phase for Slow {
    const NAME: &'static str = "Slow";
    const WINDOW: Window = Window::new(0, 0);
    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        let mut statements = vec!["LOCK TABLE t".to_owned()];
        statements.extend(std::iter::repeat_n("SELECT pg_sleep(0.8)".to_owned(), 6));
        Ok(vec![
            Step::new("lock and sleep", Action::Transaction(statements))
                .locks("\"public\".\"t\"", LockMode::AccessExclusive),
        ])
    }
    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }
}

impl Change for Slow {
    type Phases = (Slow,);
    fn phases(&self) -> Self::Phases {
        (Slow,)
    }
    fn definition(&self) -> String {
        "slow".into()
    }
    fn touches(&self) -> Touches {
        Touches::nothing().table(TableName::new("t"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stall_budget_is_a_transactions_not_a_statements() {
    static SLOW: Migrations = migrations![Migration::new("slow", Slow)];
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE t (id int)").await;
    let budget = Duration::from_secs(1);
    let m = migrator(&database, &SLOW).stall_budget(budget).lock_deadline(Duration::from_millis(500));
    let run = tokio::spawn(async move { m.run().await });
    let worst = worst_wait(&client, "SELECT * FROM t", &run).await;
    assert_eq!(run.await.unwrap().unwrap_err().kind(), Kind::Locked);
    assert!(worst > budget / 2, "the lock was never had: {worst:?}");
    // All that it sleeps, and no statement longer than the budget, is nearly five seconds.
    assert!(worst < budget * 3, "{worst:?}");
}

/// The longest that a request took until `run` was over.
async fn worst_wait<T>(client: &Client, sql: &str, run: &tokio::task::JoinHandle<T>) -> Duration {
    let mut worst = Duration::ZERO;
    while !run.is_finished() {
        let sent = Instant::now();
        client.batch_execute(sql).await.unwrap();
        worst = worst.max(sent.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    worst
}
