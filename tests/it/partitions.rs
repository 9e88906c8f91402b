//! What single partitions have of their own is not lost in silence.

use phasewise::{
    AddColumn, ChangeType, DropColumn, Kind, Migration, Migrations, RenameColumn, add_column, migrations,
};

use crate::harness::rounds::there_and_back;
use crate::harness::{Case, Stage, catalog, one, run, same};

const TABLES: &[&str] = &[
    "CREATE TABLE t (id int NOT NULL, a int, c int DEFAULT 3) PARTITION BY LIST (id)",
    "CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)",
    "CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2) PARTITION BY LIST (id)",
    "CREATE SCHEMA attic",
    "CREATE TABLE attic.t2a PARTITION OF t2 FOR VALUES IN (2)",
    "CREATE INDEX t_a ON t (a)",
    "CREATE UNIQUE INDEX t_id ON t (id, a)",
    "INSERT INTO t VALUES (1, 1), (2, 2)",
];

static RENAME: Migrations =
    migrations![Migration::new("rename", RenameColumn::new("t", "a", "b")).not_deployed()];
static RETYPE: Migrations = migrations![
    Migration::new("retype", ChangeType::new("t", "a", "b", "bigint").up("{a}::bigint").down("{b}::int"))
        .not_deployed()
];
static DROP: Migrations = migrations![Migration::new("drop", DropColumn::new("t", "a")).not_deployed()];

macro_rules! local {
    ($($name:ident: $setup:expr => $named:expr;)+) => {$(
        #[tokio::test]
        async fn $name() {
            local($setup, $named).await;
        }
    )+};
}

/// All three changes refuse, by the partition's and the object's name, with nothing touched.
async fn local(extra: &[&str], named: &[&str]) {
    static CASE: Case = Case { setup: TABLES, migrations: &RENAME, schema: "public" };
    let stage = Stage::set(&CASE).await;
    for sql in extra {
        run(&stage.client, sql).await;
    }
    let before = catalog::dump(&stage.client).await;
    for migrations in [&RENAME, &RETYPE, &DROP] {
        let migrator = crate::harness::migrator(&stage.database, migrations);
        let planned = migrator.plan().await.expect_err("a plan that is refused");
        assert_eq!(planned.kind(), Kind::Unsupported, "{planned}");
        let error = migrator.run().await.expect_err("a run that is refused");
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        for name in named {
            assert!(error.to_string().contains(name), "{name} is not named: {error}");
        }
        same(&before, &catalog::dump(&stage.client).await, "something was left behind");
    }
}

local! {
    an_index: &["CREATE INDEX of_its_own ON t1 (a)"] => &["public.t1", "of_its_own"];
    an_index_that_includes_it: &["CREATE INDEX of_its_own ON attic.t2a (id) INCLUDE (a)"] => &["attic.t2a", "of_its_own"];
    a_check: &["ALTER TABLE attic.t2a ADD CONSTRAINT of_its_own CHECK (a > 0)"] => &["attic.t2a", "of_its_own"];
    a_not_null: &["ALTER TABLE t1 ALTER a SET NOT NULL"] => &["public.t1", ""];
    a_default: &["ALTER TABLE t1 ALTER a SET DEFAULT 5"] => &["public.t1", "a default"];
    grants: &["GRANT SELECT (a) ON t1 TO PUBLIC"] => &["public.t1", "grants"];
    a_comment: &["COMMENT ON COLUMN t1.a IS 'here'"] => &["public.t1", "comment"];
    a_statistics_target: &["ALTER TABLE t1 ALTER a SET STATISTICS 55"] => &["public.t1", "statistics target"];
    statistics: &["CREATE STATISTICS of_its_own ON a, c FROM t1"] => &["public.t1", "of_its_own"];
    a_unique_constraint: &["ALTER TABLE t1 ADD CONSTRAINT of_its_own UNIQUE (a)"] => &["public.t1", "of_its_own"];
    a_replica_identity: &["ALTER TABLE t1 ALTER a SET NOT NULL", "ALTER TABLE t1 REPLICA IDENTITY USING INDEX t1_id_a_idx"] => &["public.t1", "replica identity"];
    a_clustering: &["ALTER TABLE t1 CLUSTER ON t1_a_idx"] => &["public.t1", "t1_a_idx"];
    a_foreign_key: &["CREATE TABLE r (a int PRIMARY KEY)", "INSERT INTO r VALUES (1), (2)", "ALTER TABLE t1 ADD CONSTRAINT of_its_own FOREIGN KEY (a) REFERENCES r"] => &["public.t1", "of_its_own"];
    an_incoming_foreign_key: &["ALTER TABLE t1 ADD CONSTRAINT t1_u UNIQUE (a)", "CREATE TABLE r (a int CONSTRAINT of_another REFERENCES t1 (a))"] => &["public.t1", "of_another"];
    a_view: &["CREATE VIEW seen AS SELECT a FROM attic.t2a"] => &["attic.t2a", "seen"];
    a_view_of_the_whole_row: &["CREATE VIEW seen AS SELECT t1 FROM t1"] => &["public.t1", "seen"];
    a_policy: &["CREATE POLICY mine ON t1 USING (a > 1)"] => &["public.t1", "mine"];
    a_trigger: &["CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TRIGGER watching BEFORE UPDATE OF a ON t1 FOR EACH ROW EXECUTE FUNCTION f()"] => &["public.t1", "watching"];
}

#[tokio::test]
async fn what_stands_on_another_column_of_a_partition_stays() {
    static CASE: Case = Case {
        setup: &[
            "CREATE TABLE t (id int NOT NULL, a int, c int) PARTITION BY LIST (id)",
            "CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)",
            "CREATE INDEX own ON t1 (c)",
            "CREATE VIEW seen AS SELECT c FROM t1",
            "COMMENT ON COLUMN t1.c IS 'here'",
            "CREATE FUNCTION takes(t1) RETURNS int LANGUAGE sql AS 'select 1'",
            "CREATE TABLE t2 (c int, a int, id int NOT NULL)",
            "ALTER TABLE t ATTACH PARTITION t2 FOR VALUES IN (2)",
            "CREATE INDEX ON t (a)",
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "CREATE TRIGGER watching BEFORE UPDATE OF c ON t FOR EACH ROW EXECUTE FUNCTION f()",
            "INSERT INTO t VALUES (1, 1, 1), (2, 2, 2)",
        ],
        migrations: &RENAME,
        schema: "public",
    };
    there_and_back(&CASE).await;
}

#[tokio::test]
async fn foreign_partitions_are_refused_by_all_that_walk_rows() {
    static FILL: Migrations = migrations![
        Migration::new("fill", AddColumn::new("t", "f", "int").backfill("{c}"))
            .deployed::<add_column::WriteNew>()
    ];
    static DRAW: Migrations =
        migrations![Migration::new("draw", AddColumn::new("t", "f", "float8").volatile_default("random()"))];
    static CASE: Case = Case {
        setup: &[
            "CREATE TABLE t (id int NOT NULL, a int, c int) PARTITION BY LIST (id)",
            "CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)",
            "CREATE FOREIGN DATA WRAPPER nowhere",
            "CREATE SERVER far FOREIGN DATA WRAPPER nowhere",
            "CREATE FOREIGN TABLE t2 PARTITION OF t FOR VALUES IN (2) SERVER far",
        ],
        migrations: &RENAME,
        schema: "public",
    };
    let stage = Stage::set(&CASE).await;
    for migrations in [&RENAME, &RETYPE, &DROP, &FILL, &DRAW] {
        let migrator = crate::harness::migrator(&stage.database, migrations);
        let error = migrator.run().await.expect_err("refused");
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        assert!(error.to_string().contains("\"t2\""), "{error}");
    }
    let columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0";
    assert_eq!(one::<i64>(&stage.client, columns).await, 3);
}
