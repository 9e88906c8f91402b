//! A CHECK of a new column that does not hold is told of with the rows' keys, and fails no client's write.

use std::sync::Mutex;

use phasewise::{AddColumn, Event, Kind, Migration, Migrations, Observer, To, add_column, migrations};
use tokio_postgres::Client;

use crate::harness::rounds::{self, there_and_back};
use crate::harness::{Case, Stage, one, run};

const ROWS: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, a int)",
    "INSERT INTO t SELECT i, i FROM generate_series(1, 20) i",
];

static FILLED: Migrations = migrations![
    Migration::new("filled", AddColumn::new("t", "c", "int").backfill("{a} - 5").check("c_pos", "{c} > 0"))
        .deployed::<add_column::WriteNew>()
];
static DRAWN: Migrations = migrations![Migration::new(
    "drawn",
    AddColumn::new("t", "c", "float8").volatile_default("random()").check("c_pos", "{c} < {a} - 5")
)];
static DEFAULTED: Migrations = migrations![Migration::new(
    "defaulted",
    AddColumn::new("t", "c", "int").default("5").check("c_pos", "{c} < {a}")
)];
static ALONE: Migrations = migrations![Migration::new(
    "alone",
    AddColumn::new("t", "c", "int").default("0").check("c_pos", "{c} > 0")
)];
static NEVER: Migrations =
    migrations![Migration::new("never", AddColumn::new("t", "c", "int").check("c_pos", "{c} is not null"))];

const fn case(migrations: &'static Migrations) -> Case {
    Case { setup: ROWS, migrations, schema: "public" }
}

async fn nobody_fails(client: &Client) {
    run(client, "UPDATE t SET a = a").await;
    let left = "SELECT count(*) FROM pg_constraint WHERE conname = 'c_pos'";
    assert_eq!(one::<i64>(client, left).await, 0, "the check is still there");
}

/// Forward as far as it goes, which is not to the end.
async fn broken(case: &'static Case, key: &str) -> Stage {
    let stage = Stage::set(case).await;
    let migrator = stage.migrator();
    if case.phases().len() == 3 && case.name() == "filled" {
        stage.forward(2).await;
        migrator.confirm("filled", "WriteNew").await.expect("a confirmation");
    }
    let error = migrator.run().await.expect_err("rows break the check");
    assert!(error.to_string().contains("c_pos") && error.to_string().contains(key), "{error}");
    nobody_fails(&stage.client).await;
    stage
}

#[tokio::test]
async fn rows_that_a_backfill_makes_break_it() {
    static CASE: Case = case(&FILLED);
    let stage = broken(&CASE, "id = 5").await;
    run(&stage.client, "UPDATE t SET a = 50, c = 45 WHERE c <= 0").await;
    stage.migrator().run().await.expect("nothing breaks it any more");
    let valid = "SELECT convalidated FROM pg_constraint WHERE conname = 'c_pos'";
    assert!(one::<bool>(&stage.client, valid).await);
}

#[tokio::test]
async fn rows_that_a_volatile_default_makes_break_it() {
    static CASE: Case = case(&DRAWN);
    broken(&CASE, "id = 1").await;
}

#[tokio::test]
async fn rows_that_a_default_breaks_are_found_before_the_column_is_there() {
    static CASE: Case = case(&DEFAULTED);
    let stage = broken(&CASE, "id = 5").await;
    let columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'c'";
    assert_eq!(one::<i64>(&stage.client, columns).await, 0);
    stage.migrator().rollback("defaulted", To::Start).await.expect("nothing to undo");
    run(&stage.client, "DELETE FROM t WHERE a <= 5").await;
    let migrator = stage.migrator();
    migrator.resume("defaulted").await.expect("a way forward");
    migrator.run().await.expect("nothing breaks it any more");
}

#[tokio::test]
async fn a_check_that_no_row_could_keep_is_refused_at_planning() {
    static DEFAULT: Case = case(&ALONE);
    static NULL: Case = case(&NEVER);
    for case in [&DEFAULT, &NULL] {
        let stage = Stage::set(case).await;
        let error = stage.migrator().plan().await.expect_err("refused");
        assert_eq!(error.kind(), Kind::Definition, "{error}");
        assert!(error.to_string().contains("c_pos"), "{error}");
    }
}

/// Breaks the check between the look and the validation, as a client might.
struct Breaks(tokio_postgres::Config, Mutex<bool>);

impl Observer for Breaks {
    fn event(&self, event: &Event<'_>) {
        let Event::StepStarted { step, .. } = event else { return };
        if !step.summary.starts_with("add check")
            || std::mem::replace(&mut *self.1.lock().expect("no panic"), true)
        {
            return;
        }
        let config = self.0.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let (client, connection) = config.connect(tokio_postgres::NoTls).await.expect("a connection");
                let connection = tokio::spawn(connection);
                run(&client, "UPDATE t SET c = -1 WHERE id = 17").await;
                drop(client);
                let _ = connection.await;
            });
        })
        .join()
        .expect("an update");
    }
}

#[tokio::test]
async fn a_check_that_a_client_breaks_meanwhile_goes_again() {
    static HELD: Migrations = migrations![
        Migration::new("held", AddColumn::new("t", "c", "int").backfill("{a}").check("c_pos", "{c} > 0"))
            .deployed::<add_column::WriteNew>()
    ];
    static CASE: Case = case(&HELD);
    let stage = Stage::set(&CASE).await;
    stage.forward(2).await;
    let migrator = stage.migrator().observe(Breaks(stage.database.config(), Mutex::new(false)));
    migrator.confirm("held", "WriteNew").await.expect("a confirmation");
    let error = migrator.run().await.expect_err("a row breaks the check");
    assert!(error.to_string().contains("c_pos") && error.to_string().contains("id = 17"), "{error}");
    nobody_fails(&stage.client).await;
    run(&stage.client, "UPDATE t SET c = 1 WHERE id = 17").await;
    migrator.run().await.expect("nothing breaks it any more");
}

#[tokio::test]
async fn a_column_with_a_check_that_is_cut_off_anywhere_can_turn_round() {
    static FILLED: Migrations = migrations![
        Migration::new("filled", AddColumn::new("t", "c", "int").backfill("{a}").check("c_pos", "{c} > 0"))
            .deployed::<add_column::WriteNew>()
    ];
    static DEFAULTED: Migrations = migrations![Migration::new(
        "defaulted",
        AddColumn::new("t", "c", "int").default("0").check("c_pos", "{c} < {a}")
    )];
    static FIRST: Case = case(&FILLED);
    static SECOND: Case = case(&DEFAULTED);
    for case in [&FIRST, &SECOND] {
        rounds::cut_off(case).await;
        rounds::locks(case).await;
        there_and_back(case).await;
    }
}
