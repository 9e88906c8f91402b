//! What is half done is undone, and what is not ours is left alone.

use phasewise::create_table::Column;
use phasewise::{
    AddColumn, AddIndex, ChangeType, CreateTable, DropColumn, Kind, Migration, Migrations, RenameColumn, To,
    migrations,
};
use tokio_postgres::Client;

use crate::harness::rounds::cut_off;
use crate::harness::{Case, Stage, database, migrator, one, run};

/// A column with one of each that can hang on it.
const HUNG: &[&str] = &[
    "CREATE TABLE r (id int PRIMARY KEY)",
    "INSERT INTO r SELECT generate_series(1, 10)",
    "CREATE TABLE t (id int PRIMARY KEY, name int NOT NULL DEFAULT 1 REFERENCES r CONSTRAINT t_name_check CHECK (name > 0), other int, UNIQUE (name, id))",
    "CREATE INDEX t_name_idx ON t (name)",
    "CREATE STATISTICS t_name_stats ON name, other FROM t",
    "INSERT INTO t SELECT i, i, i FROM generate_series(1, 10) i",
];
const LISTED: &[&str] = &[
    "CREATE TABLE t (id int, name text NOT NULL) PARTITION BY LIST (id)",
    "CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)",
    "CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2) PARTITION BY LIST (id)",
    "CREATE TABLE t2a PARTITION OF t2 FOR VALUES IN (2)",
    "INSERT INTO t VALUES (1, 'a'), (2, 'b')",
];

static RENAME: Migrations =
    migrations![Migration::new("rename", RenameColumn::new("t", "name", "label")).not_deployed()];
static SYNCED: Migrations = migrations![
    Migration::new("synced", RenameColumn::new("t", "name", "label").kept_in_sync()).not_deployed()
];
static RETYPE: Migrations = migrations![
    Migration::new(
        "retype",
        ChangeType::new("t", "name", "label", "bigint").up("{name}::bigint").down("{label}::int")
    )
    .not_deployed()
];
static RETYPE_SYNCED: Migrations = migrations![
    Migration::new(
        "retype",
        ChangeType::new("t", "name", "label", "bigint")
            .up("{name}::bigint")
            .down("{label}::int")
            .kept_in_sync()
    )
    .not_deployed()
];
static DROP: Migrations =
    migrations![Migration::new("drop", DropColumn::new("t", "name").restore_with("1")).not_deployed()];
static DROP_ZERO: Migrations =
    migrations![Migration::new("drop", DropColumn::new("t", "name").restore_with("0")).not_deployed()];
static FILLED: Migrations = migrations![
    Migration::new("filled", AddColumn::new("t", "more", "int").backfill("{name}").not_null()).not_deployed()
];
static INDEX: Migrations =
    migrations![Migration::new("index", AddIndex::new("t", "t_u").columns(&["id", "name"]).unique())];

const fn case(setup: &'static [&'static str], migrations: &'static Migrations) -> Case {
    Case { setup, migrations, schema: "public" }
}

macro_rules! cut_off {
    ($($name:ident: $setup:expr, $migrations:expr;)+) => {$(
        #[tokio::test]
        async fn $name() {
            static CASE: Case = case($setup, &$migrations);
            cut_off(&CASE).await;
        }
    )+};
}

cut_off! {
    a_rename_that_is_cut_off_anywhere_can_turn_round: HUNG, RENAME;
    a_synced_rename_that_is_cut_off_anywhere_can_turn_round: HUNG, SYNCED;
    a_retype_that_is_cut_off_anywhere_can_turn_round: HUNG, RETYPE;
    a_synced_retype_that_is_cut_off_anywhere_can_turn_round: HUNG, RETYPE_SYNCED;
    a_drop_that_is_cut_off_anywhere_can_turn_round: HUNG, DROP;
    a_filled_column_that_is_cut_off_anywhere_can_turn_round: HUNG, FILLED;
    an_index_of_partitions_that_is_cut_off_anywhere_can_turn_round: LISTED, INDEX;
    a_drop_on_partitions_that_is_cut_off_anywhere_can_turn_round: &[
        "CREATE TABLE t (id int PRIMARY KEY, name int NOT NULL) PARTITION BY LIST (id)",
        "CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)",
        "CREATE INDEX t_name_idx ON t (name)",
        "INSERT INTO t VALUES (1, 1)",
    ], DROP_ZERO;
}
fn number(case: &Case, phase: &str) -> usize {
    case.phases().iter().position(|info| info.name == phase).expect("a phase") + 1
}

async fn constraints(client: &Client) -> Vec<String> {
    let sql = "SELECT conrelid::regclass || ': ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1";
    client.query(sql, &[]).await.expect("constraints").iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_foreign_key_that_has_the_carried_ones_name_is_left_alone() {
    static CASE: Case = case(
        &[
            "CREATE TABLE r (id int PRIMARY KEY)",
            "INSERT INTO r VALUES (1)",
            "CREATE TABLE t (id int PRIMARY KEY, name int UNIQUE, other int, CONSTRAINT t_name_fkey FOREIGN KEY (name) REFERENCES r, CONSTRAINT t_label_fkey FOREIGN KEY (other) REFERENCES r)",
            "CREATE TABLE far (a int CONSTRAINT far_name REFERENCES t (name), b int CONSTRAINT far_label CHECK (b > 0))",
            "INSERT INTO t VALUES (1, 1, 1)",
        ],
        &SYNCED,
    );
    let stage = Stage::set(&CASE).await;
    let before = constraints(&stage.client).await;
    let last = CASE.phases().len();
    stage.forward(number(&CASE, "Backfill")).await;
    let during = constraints(&stage.client).await;
    for kept in &before {
        assert!(during.contains(kept), "{kept} is gone: {during:#?}");
    }
    stage.back(0).await;
    assert_eq!(constraints(&stage.client).await, before);
    stage.forward(last).await;
    let after = constraints(&stage.client).await;
    let keys = |columns: &str| after.iter().filter(|found| found.contains(columns)).count();
    assert_eq!(keys("FOREIGN KEY (label) REFERENCES r(id)"), 1, "{after:#?}");
    assert_eq!(keys("t: t_label_fkey FOREIGN KEY (other)"), 1, "{after:#?}");
    assert_eq!(keys("FOREIGN KEY (a) REFERENCES t(label)"), 1, "{after:#?}");
    stage.back(0).await;
    assert_eq!(constraints(&stage.client).await, before);
}

#[tokio::test]
async fn statistics_that_have_the_carried_ones_name_are_left_alone() {
    static CASE: Case = case(
        &[
            "CREATE TABLE t (id int PRIMARY KEY, name int, other int)",
            "CREATE TABLE far (a int, b int)",
            "CREATE STATISTICS name_a ON name, other FROM t",
            "CREATE STATISTICS label_a ON id, other FROM t",
            "CREATE STATISTICS name_b ON name, id FROM t",
            "CREATE STATISTICS label_b ON a, b FROM far",
        ],
        &SYNCED,
    );
    let stage = Stage::set(&CASE).await;
    let objects =
        "SELECT string_agg(pg_get_statisticsobjdef(oid), '; ' ORDER BY stxname) FROM pg_statistic_ext";
    let before: String = one(&stage.client, objects).await;
    stage.forward(number(&CASE, "Backfill")).await;
    let during: String = one(&stage.client, objects).await;
    assert_eq!(during.matches("label FROM").count(), 2, "{during}");
    stage.back(0).await;
    assert_eq!(one::<String>(&stage.client, objects).await, before);
}

#[tokio::test]
async fn what_has_the_name_of_a_new_table_column_or_index_is_refused_and_left() {
    static TABLE: Migrations = migrations![Migration::new(
        "table",
        CreateTable::new("t")
            .columns([Column::new("id", "integer").not_null(), Column::new("name", "text")])
            .primary_key(&["id"])
    )];
    static INDEX: Migrations =
        migrations![Migration::new("index", AddIndex::new("t", "t_name").columns(&["name"]))];
    static COLUMN: Migrations = migrations![Migration::new("column", AddColumn::new("t", "name", "text"))];
    let database = database().await;
    let client = database.connect().await.expect("a connection");
    run(&client, "CREATE TABLE t (id int NOT NULL, name text)").await;
    run(&client, "CREATE INDEX t_name ON t (name)").await;
    for migrations in [&TABLE, &INDEX, &COLUMN] {
        let migrator = migrator(&database, migrations);
        assert_eq!(migrator.plan().await.expect_err("a conflict").kind(), Kind::Conflict);
        let error = migrator.run().await.expect_err("a conflict");
        assert_eq!(error.kind(), Kind::Conflict, "{error}");
        assert!(error.to_string().contains("exists"), "{error}");
        let name = migrations.iter().next().expect("a migration").name();
        // Whether or not there is anything to roll back, nothing goes.
        let _ = migrator.rollback(name, To::Start).await;
        assert!(one::<bool>(&client, "SELECT to_regclass('t') IS NOT NULL").await);
        assert!(one::<bool>(&client, "SELECT to_regclass('t_name') IS NOT NULL").await);
    }
}

#[tokio::test]
async fn an_interrupted_table_is_gone_on_with_only_if_it_is_the_same() {
    static TABLE: Migrations = migrations![Migration::new(
        "table",
        CreateTable::new("t")
            .columns([Column::new("id", "integer").not_null(), Column::new("n", "integer").default("1 + 1")])
            .primary_key(&["id"])
    )];
    static CASE: Case = case(&[], &TABLE);
    let stage = Stage::set(&CASE).await;
    stage.forward(1).await;
    let crash = "UPDATE phasewise.migrations SET entered = 0, moving = 'forward'";
    run(&stage.client, crash).await;
    stage.forward(1).await;
    run(&stage.client, "ALTER TABLE t ALTER n DROP DEFAULT").await;
    run(&stage.client, crash).await;
    let error = stage.migrator().run().await.expect_err("another table");
    assert!(error.to_string().contains("already exists"), "{error}");
}

#[tokio::test]
async fn indexes_of_partitions_that_were_never_attached_go_with_the_rollback() {
    static CASE: Case = case(
        &[
            "CREATE TABLE t (id int, name text) PARTITION BY LIST (id)",
            "CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)",
            "CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2)",
            "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (2, 'b')",
        ],
        &INDEX,
    );
    let stage = Stage::set(&CASE).await;
    let migrator = stage.migrator();
    migrator.run().await.expect_err("duplicates");
    let indexes = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'";
    assert!(one::<i64>(&stage.client, indexes).await > 1);
    migrator.rollback("index", To::Start).await.expect("the way back");
    assert_eq!(one::<i64>(&stage.client, indexes).await, 0);
}

#[tokio::test]
async fn a_value_that_is_plainly_null_restores_nothing() {
    static NULL: Migrations = migrations![
        Migration::new("drop", DropColumn::new("t", "name").restore_with("NULL::int")).not_deployed()
    ];
    static CASE: Case = case(HUNG, &NULL);
    let stage = Stage::set(&CASE).await;
    let error = stage.migrator().run().await.expect_err("no value");
    assert_eq!(error.kind(), Kind::Definition, "{error}");
}
