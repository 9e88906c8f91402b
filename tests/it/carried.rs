//! What a replaced or dropped column takes with it, and gets back.

use std::sync::Mutex;

use phasewise::testing::Database;
use phasewise::{
    ChangeType, DropColumn, Event, Kind, Migration, Migrations, Observer, RenameColumn, migrations,
};

use crate::harness::rounds::{self, there_and_back};
use crate::harness::{Case, Stage, one, run};

const fn case(setup: &'static [&'static str], migrations: &'static Migrations) -> Case {
    Case { setup, migrations, schema: "public" }
}

static RENAME: Migrations =
    migrations![Migration::new("rename", RenameColumn::new("t", "a", "b")).not_deployed()];
static SYNCED: Migrations =
    migrations![Migration::new("rename", RenameColumn::new("t", "a", "b").kept_in_sync()).not_deployed()];
static RETYPE: Migrations = migrations![
    Migration::new("retype", ChangeType::new("t", "a", "b", "bigint").up("{a}::bigint").down("{b}::int"))
        .not_deployed()
];
static DROP: Migrations =
    migrations![Migration::new("drop", DropColumn::new("t", "a").restore_with("1")).not_deployed()];

/// Sends a statement of somebody else's, once, when a step of that kind begins.
struct Meddler {
    database: tokio_postgres::Config,
    when: &'static str,
    sql: Mutex<Option<&'static str>>,
}

impl Meddler {
    fn new(database: &Database, when: &'static str, sql: &'static str) -> Self {
        Self { database: database.config(), when, sql: Mutex::new(Some(sql)) }
    }
}

impl Observer for Meddler {
    fn event(&self, event: &Event<'_>) {
        let Event::StepStarted { step, .. } = event else { return };
        if !step.summary.starts_with(self.when) {
            return;
        }
        let Some(sql) = self.sql.lock().expect("no panic").take() else { return };
        let config = self.database.clone();
        // The migrator goes on only when this is done.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let (client, connection) = config.connect(tokio_postgres::NoTls).await.expect("a connection");
                let connection = tokio::spawn(connection);
                client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
                drop(client);
                let _ = connection.await;
            });
        })
        .join()
        .expect("the statement");
    }
}

/// A cascade writes the source alone until the target has a foreign key of its own.
async fn cascade(case: &'static Case) {
    let stage = Stage::set(case).await;
    let backfill = case.phases().iter().position(|info| info.name == "Backfill").expect("a backfill") + 1;
    stage.forward(backfill - 1).await;
    let migrator = stage.migrator().observe(Meddler::new(
        &stage.database,
        "add foreign key",
        "DELETE FROM r WHERE id = 7",
    ));
    stage.enter(&migrator, backfill).await;
    let nulled: i64 = one(&stage.client, "SELECT count(*) FROM t WHERE a IS NULL").await;
    assert_eq!(nulled, 1, "the cascade came");
    let stale: i64 = one(&stage.client, "SELECT count(*) FROM t WHERE a IS DISTINCT FROM b").await;
    assert_eq!(stale, 0, "release 2 would read what is gone");
}

#[tokio::test]
async fn a_cascade_before_the_foreign_key_is_repaired() {
    static CASE: Case = case(
        &[
            "CREATE TABLE r (id int PRIMARY KEY)",
            "CREATE TABLE t (id int PRIMARY KEY, a int REFERENCES r ON DELETE SET NULL)",
            "INSERT INTO r SELECT generate_series(1, 20)",
            "INSERT INTO t SELECT i, i FROM generate_series(1, 20) i",
        ],
        &RENAME,
    );
    cascade(&CASE).await;
}

#[tokio::test]
async fn a_cascade_before_a_foreign_key_that_is_not_valid_is_repaired() {
    static CASE: Case = case(
        &[
            "CREATE TABLE r (id int PRIMARY KEY)",
            "CREATE TABLE t (id int PRIMARY KEY, a int)",
            "INSERT INTO r SELECT generate_series(1, 20)",
            "INSERT INTO t SELECT i, i FROM generate_series(1, 20) i",
            "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES r ON DELETE SET NULL NOT VALID",
            "CREATE INDEX ON t (a)",
        ],
        &RETYPE,
    );
    cascade(&CASE).await;
}

/// Everything that no test of the matrix has on a column.
const LABELLED: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL DEFAULT 1, c int)",
    "CREATE INDEX t_a_idx ON t ((a + 1), c)",
    "ALTER INDEX t_a_idx ALTER COLUMN 1 SET STATISTICS 77",
    "CREATE INDEX t_a_clustered ON t (a)",
    "ALTER TABLE t CLUSTER ON t_a_clustered",
    "CREATE STATISTICS t_a_stats ON a, c FROM t",
    "COMMENT ON STATISTICS t_a_stats IS 'it''s together'",
    "ALTER STATISTICS t_a_stats SET STATISTICS 33",
    "INSERT INTO t SELECT i, i, i FROM generate_series(1, 20) i",
];

macro_rules! labelled {
    ($($name:ident: $migrations:expr;)+) => {$(
        #[tokio::test]
        async fn $name() {
            static CASE: Case = case(LABELLED, &$migrations);
            there_and_back(&CASE).await;
        }
    )+};
}

labelled! {
    clustering_and_statistics_come_back_after_a_rename: RENAME;
    clustering_and_statistics_come_back_after_a_synced_rename: SYNCED;
    clustering_and_statistics_come_back_after_a_retype: RETYPE;
    clustering_and_statistics_come_back_after_a_drop: DROP;
}

#[tokio::test]
async fn their_locks_are_as_declared() {
    static RENAMED: Case = case(LABELLED, &SYNCED);
    static DROPPED: Case = case(LABELLED, &DROP);
    rounds::locks(&RENAMED).await;
    rounds::locks(&DROPPED).await;
}

#[tokio::test]
async fn a_rename_with_labels_that_is_cut_off_anywhere_can_turn_round() {
    static CASE: Case = case(LABELLED, &RENAME);
    rounds::cut_off(&CASE).await;
}

#[tokio::test]
async fn clustering_and_statistics_are_carried_over() {
    static CASE: Case = case(LABELLED, &RENAME);
    let stage = Stage::set(&CASE).await;
    stage.forward(CASE.phases().len()).await;
    let client = &stage.client;
    let clustered: String =
        one(client, "SELECT indexrelid::regclass::text FROM pg_index WHERE indisclustered").await;
    assert_eq!(clustered, "t_b_clustered");
    let target: i32 = one(
        client,
        "SELECT attstattarget::int FROM pg_attribute WHERE attrelid = 't_b_idx'::regclass AND attnum = 1",
    )
    .await;
    assert_eq!(target, 77);
    let labels: String = one(
        client,
        "SELECT stxstattarget || obj_description(oid, 'pg_statistic_ext') FROM pg_statistic_ext WHERE stxname = 't_b_stats'",
    )
    .await;
    assert_eq!(labels, "33it's together");
}

#[tokio::test]
async fn rights_on_the_sequence_of_an_identity_follow_it_and_come_back() {
    static CASE: Case = case(
        &[
            "CREATE TABLE t (id int PRIMARY KEY, a int GENERATED BY DEFAULT AS IDENTITY)",
            "GRANT USAGE ON SEQUENCE t_a_seq TO pg_monitor WITH GRANT OPTION",
            "GRANT SELECT ON SEQUENCE t_a_seq TO PUBLIC",
            "COMMENT ON SEQUENCE t_a_seq IS '100 % it''s'",
            "INSERT INTO t (id) SELECT generate_series(1, 5)",
        ],
        &SYNCED,
    );
    let rights = "SELECT (SELECT string_agg(x::text, ' ' ORDER BY x::text) FROM unnest(relacl) x) || obj_description(oid, 'pg_class') FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace";
    let stage = Stage::set(&CASE).await;
    let before: String = one(&stage.client, rights).await;
    stage.forward(CASE.phases().len()).await;
    assert_eq!(one::<String>(&stage.client, rights).await, before);
    stage.back(0).await;
    assert_eq!(one::<String>(&stage.client, rights).await, before);
}

async fn is_18(stage: &Stage) -> bool {
    one::<i32>(&stage.client, "SELECT current_setting('server_version_num')::int").await >= 180_000
}

#[tokio::test]
async fn a_not_null_that_kept_the_name_of_another_column_is_in_nobodys_way() {
    static CASE: Case = case(
        &[
            "CREATE TABLE t (id int PRIMARY KEY, b int NOT NULL)",
            // From 18 on the constraint goes on being called t_b_not_null.
            "ALTER TABLE t RENAME b TO a",
            "INSERT INTO t SELECT i, i FROM generate_series(1, 5) i",
        ],
        &RENAME,
    );
    there_and_back(&CASE).await;
}

#[tokio::test]
async fn a_not_null_with_a_name_and_a_comment_comes_back_with_both() {
    static DROPPED: Case = case(
        &[
            "CREATE TABLE t (id int PRIMARY KEY, a int)",
            "INSERT INTO t SELECT i, i FROM generate_series(1, 5) i",
        ],
        &DROP,
    );
    static RENAMED: Case = case(DROPPED.setup, &SYNCED);
    static RETYPED: Case = case(DROPPED.setup, &RETYPE);
    for case in [&DROPPED, &RENAMED, &RETYPED] {
        let stage = Stage::set(case).await;
        if !is_18(&stage).await {
            return;
        }
        run(&stage.client, "ALTER TABLE t ADD CONSTRAINT must NOT NULL a").await;
        run(&stage.client, "COMMENT ON CONSTRAINT must ON t IS 'always there'").await;
        let before = crate::harness::catalog::dump(&stage.client).await;
        stage.forward(case.phases().len()).await;
        if case.name() != "drop" {
            let carried = "SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE contype = 'n' AND conrelid = 't'::regclass AND conname = 'must_b'";
            assert_eq!(one::<String>(&stage.client, carried).await, "always there", "{}", case.name());
        }
        stage.back(0).await;
        crate::harness::same(&before, &crate::harness::catalog::dump(&stage.client).await, case.name());
    }
}

#[tokio::test]
async fn a_check_that_the_converted_values_break_fails_no_client() {
    static TIMES: Migrations = migrations![
        Migration::new(
            "times",
            ChangeType::new("t", "a", "b", "bigint").up("{a}::bigint * 100").down("({b} / 100)::int")
        )
        .not_deployed()
    ];
    static CASE: Case = case(
        &[
            "CREATE TABLE t (id int PRIMARY KEY, a int CONSTRAINT t_a_small CHECK (a < 1000))",
            "INSERT INTO t SELECT i, i FROM generate_series(1, 20) i",
        ],
        &TIMES,
    );
    let stage = Stage::set(&CASE).await;
    stage.forward(2).await;
    let migrator = stage.migrator();
    migrator.confirm("times", "WriteBoth").await.expect("a confirmation");
    let error = migrator.run_to("times", "Backfill").await.expect_err("rows break the check");
    assert_eq!(error.kind(), Kind::Step, "{error}");
    assert!(error.to_string().contains("t_b_small") && error.to_string().contains("id = 10"), "{error}");
    run(&stage.client, "UPDATE t SET a = a, b = b WHERE id = 20").await;
}

#[tokio::test]
async fn a_check_that_restored_rows_break_fails_no_client() {
    static CASE: Case = case(
        &[
            "CREATE TABLE t (id int PRIMARY KEY, a int CONSTRAINT t_a_known CHECK (a IS NOT NULL AND a > 1))",
            "INSERT INTO t SELECT i, i FROM generate_series(2, 5) i",
        ],
        &DROP,
    );
    let stage = Stage::set(&CASE).await;
    stage.forward(3).await;
    run(&stage.client, "INSERT INTO t VALUES (6)").await;
    // It gets what `restore_with` says, and that will not do.
    let error =
        stage.migrator().rollback("drop", phasewise::To::Start).await.expect_err("a row breaks the check");
    assert!(error.to_string().contains("t_a_known") && error.to_string().contains("id = 6"), "{error}");
    run(&stage.client, "INSERT INTO t (id) VALUES (7)").await;
    run(&stage.client, "UPDATE t SET a = id WHERE a = 1 OR a IS NULL").await;
    stage.migrator().rollback("drop", phasewise::To::Start).await.expect("nothing breaks it any more");
    let valid = "SELECT convalidated FROM pg_constraint WHERE conname = 't_a_known'";
    assert!(one::<bool>(&stage.client, valid).await);
}
