//! What cannot be done is refused before the first phase, by name, and nothing is left behind.

use phasewise::{
    AddColumn, AddIndex, ChangeType, CreateTable, DropColumn, Kind, Migration, Migrations, Migrator,
    RenameColumn, migrations,
};

use crate::harness::{Case, Stage, catalog, migrator, one, run, same};

/// `name: extra setup, change => kind, what the message must name;`
macro_rules! refused {
    ($($name:ident: $setup:expr, $change:expr => $kind:ident, $named:expr;)+) => {$(
        #[tokio::test]
        async fn $name() {
            static MIGRATIONS: Migrations = migrations![Migration::new(stringify!($name), $change).not_deployed()];
            static CASE: Case = Case { setup: TABLES, migrations: &MIGRATIONS, schema: "public" };
            refused(&CASE, $setup, Kind::$kind, $named).await;
        }
    )+};
}

const TABLES: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL DEFAULT 1, b text, doubled int GENERATED ALWAYS AS (id * 2) STORED)",
    "CREATE TABLE other (id int PRIMARY KEY)",
    "INSERT INTO t (id, a, b) SELECT i, i, 'b' || i FROM generate_series(1, 20) i",
];

async fn refused(case: &'static Case, extra: &[&str], kind: Kind, named: &[&str]) {
    let stage = Stage::set(case).await;
    for sql in extra {
        run(&stage.client, sql).await;
    }
    let before = catalog::dump(&stage.client).await;
    let migrator = stage.migrator();
    // The plan says so too, before anybody runs it.
    let planned = migrator.plan().await.expect_err("a plan that is refused");
    assert_eq!(planned.kind(), kind, "{planned}");
    let error = migrator.run().await.expect_err("a run that is refused");
    assert_eq!(error.kind(), kind, "{error}");
    for name in named {
        assert!(error.to_string().contains(name), "{name} is not named: {error}");
    }
    same(&before, &catalog::dump(&stage.client).await, "something was left behind");
    assert_eq!(stage.at().await, 0);
    let leftover = "SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'phasewise'";
    assert_eq!(one::<i64>(&stage.client, leftover).await, 0);
}

refused! {
    no_table: &[], RenameColumn::new("nowhere", "a", "c") => Missing, &["nowhere"];
    no_table_add: &[], AddColumn::new("nowhere", "a", "int") => Missing, &["nowhere"];
    no_table_drop: &[], DropColumn::new("nowhere", "a") => Missing, &["nowhere"];
    no_table_index: &[], AddIndex::new("nowhere", "i").columns(&["a"]) => Missing, &["nowhere"];
    no_column: &[], RenameColumn::new("t", "A", "c") => Missing, &["\"A\"", "\"a\""];
    no_column_synced: &[], RenameColumn::new("t", "A", "c").kept_in_sync() => Missing, &["\"A\""];
    no_column_retype: &[], ChangeType::new("t", "zzz", "c", "bigint").up("{zzz}::bigint").down("{c}::int") => Missing, &["\"zzz\""];
    no_column_drop: &[], DropColumn::new("t", "zzz") => Missing, &["\"zzz\""];
    no_column_index: &[], AddIndex::new("t", "i").columns(&["zzz"]) => Missing, &["\"zzz\""];
    no_column_backfill: &[], AddColumn::new("t", "c", "int").backfill("{zzz} + 1") => Missing, &["\"zzz\""];
    target_exists: &[], RenameColumn::new("t", "a", "b") => Conflict, &["\"b\""];
    target_exists_retype: &[], ChangeType::new("t", "a", "b", "bigint").up("{a}::bigint").down("{b}::int").kept_in_sync() => Conflict, &["\"b\""];
    target_exists_add: &[], AddColumn::new("t", "b", "int") => Conflict, &["\"b\""];
    table_exists: &[], CreateTable::new("other").columns([phasewise::create_table::Column::new("x", "text")]) => Conflict, &["other"];
    index_exists: &["CREATE INDEX taken ON t (b)"], AddIndex::new("t", "taken").columns(&["a"]) => Conflict, &["taken"];

    no_type: &[], ChangeType::new("t", "a", "c", "biggint").up("{a}::bigint").down("{c}::int") => Definition, &["biggint"];
    no_type_add: &[], AddColumn::new("t", "c", "biggint") => Definition, &["biggint"];
    up_does_not_compile: &[], ChangeType::new("t", "a", "c", "text").up("no_such({a})").down("{c}::int") => Definition, &["no_such"];
    down_does_not_compile: &[], ChangeType::new("t", "a", "c", "text").up("{a}::text").down("{c} +").kept_in_sync() => Definition, &["syntax"];
    down_gives_another_type: &[], ChangeType::new("t", "a", "c", "text").up("{a}::text").down("{c}").kept_in_sync() => Definition, &["integer"];
    backfill_does_not_compile: &[], AddColumn::new("t", "c", "int").backfill("{b} + 1 +") => Definition, &["c"];
    backfill_gives_another_type: &[], AddColumn::new("t", "c", "point").backfill("{b}") => Definition, &["point"];
    check_does_not_compile: &[], AddColumn::new("t", "c", "int").check("c_check", "{c} ~ 1") => Definition, &["operator"];
    default_does_not_compile: &[], AddColumn::new("t", "c", "int").default("no_such()") => Definition, &["no_such"];
    predicate_does_not_compile: &[], AddIndex::new("t", "i").columns(&["a"]).where_("{b} > 1 1") => Definition, &["syntax"];
    volatile_up: &[], ChangeType::new("t", "a", "c", "float8").up("{a} * random()").down("{c}::int") => Definition, &["up", "volatile"];
    subquery_up: &[], ChangeType::new("t", "a", "c", "bigint").up("{a} + (SELECT count(*) FROM other)").down("{c}::int") => Definition, &["up", "subquery"];
    not_null_on_null: &[], ChangeType::new("t", "a", "c", "bigint").up("coalesce({a}, 0)").down("{c}::int") => Definition, &["up", "null"];
    reads_a_generated_column: &[], ChangeType::new("t", "b", "c", "int").up("length({b}) + {doubled}").down("{c}::text").kept_in_sync() => Definition, &["doubled"];

    view: &["CREATE VIEW seen AS SELECT a FROM t"], RenameColumn::new("t", "a", "c") => Unsupported, &["seen"];
    view_drop: &["CREATE VIEW seen AS SELECT a FROM t"], DropColumn::new("t", "a") => Unsupported, &["seen"];
    materialized_view: &["CREATE MATERIALIZED VIEW kept AS SELECT a + 1 AS x FROM t"], RenameColumn::new("t", "a", "c").kept_in_sync() => Unsupported, &["kept"];
    rule: &["CREATE RULE loud AS ON UPDATE TO t WHERE NEW.a <> OLD.a DO ALSO INSERT INTO other VALUES (NEW.a)"], RenameColumn::new("t", "a", "c") => Unsupported, &["loud"];
    policy: &["CREATE POLICY mine ON t USING (a > 0)"], RenameColumn::new("t", "a", "c") => Unsupported, &["mine"];
    generated: &["ALTER TABLE t ADD twice int GENERATED ALWAYS AS (a * 2) STORED"], RenameColumn::new("t", "a", "c") => Unsupported, &["twice"];
    is_generated: &[], RenameColumn::new("t", "doubled", "c") => Unsupported, &["doubled", "generated"];
    trigger: &["CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'", "CREATE TRIGGER watching BEFORE UPDATE OF a ON t FOR EACH ROW EXECUTE FUNCTION f()"],
        RenameColumn::new("t", "a", "c") => Unsupported, &["watching"];
    trigger_when: &["CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'", "CREATE TRIGGER watching AFTER UPDATE ON t FOR EACH ROW WHEN (NEW.a > 0) EXECUTE FUNCTION f()"],
        DropColumn::new("t", "a") => Unsupported, &["watching"];
    primary_key: &[], RenameColumn::new("t", "id", "c") => Unsupported, &["t_pkey"];
    primary_key_drop: &[], DropColumn::new("other", "id") => Unsupported, &["id"];
    exclusion: &["ALTER TABLE t ADD CONSTRAINT apart EXCLUDE USING btree (a WITH =)"], RenameColumn::new("t", "a", "c") => Unsupported, &["apart"];
    replica_identity: &["CREATE UNIQUE INDEX told ON t (a)", "ALTER TABLE t REPLICA IDENTITY USING INDEX told"], RenameColumn::new("t", "a", "c") => Unsupported, &["told"];
    partition_key: &["DROP TABLE t", "CREATE TABLE t (id int, a int) PARTITION BY RANGE (a)"], RenameColumn::new("t", "a", "c") => Unsupported, &["partition key"];
    inheritance: &["CREATE TABLE heir () INHERITS (t)"], RenameColumn::new("t", "a", "c") => Unsupported, &["inherit"];
    volatile_default: &["ALTER TABLE t ADD at timestamptz DEFAULT clock_timestamp()"], RenameColumn::new("t", "at", "c") => Unsupported, &["kept_in_sync"];
    check_does_not_survive: &["ALTER TABLE t ADD CONSTRAINT odd CHECK (a % 2 >= 0)"], ChangeType::new("t", "a", "c", "text").up("{a}::text").down("{c}::int") => Unsupported, &["odd", "without"];
    foreign_key_does_not_survive: &["ALTER TABLE t ADD CONSTRAINT points FOREIGN KEY (a) REFERENCES other NOT VALID"],
        ChangeType::new("t", "a", "c", "text").up("{a}::text").down("{c}::int") => Unsupported, &["points"];
    domain_that_rewrites: &["CREATE DOMAIN small AS int CHECK (VALUE < 1000)"], ChangeType::new("t", "a", "c", "small").up("{a}").down("{c}::int") => Unsupported, &["small"];
    domain_renamed: &["CREATE DOMAIN small AS int CHECK (VALUE < 1000)", "ALTER TABLE t ADD d small"], RenameColumn::new("t", "d", "c") => Unsupported, &["small"];
    without_what_is_not_there: &[], RenameColumn::new("t", "a", "c").without(&["no_such_index"]) => Missing, &["no_such_index"];
    without_what_a_foreign_key_needs: &["ALTER TABLE t ADD CONSTRAINT lone UNIQUE (a)", "CREATE TABLE child (a int CONSTRAINT child_fk REFERENCES t (a))"],
        RenameColumn::new("t", "a", "c").without(&["lone"]) => Unsupported, &["child_fk", "lone"];
    rewriting_default: &[], AddColumn::new("t", "c", "float8").default("random()") => Unsupported, &["volatile_default"];
    a_view_is_no_table: &["CREATE VIEW seen AS SELECT a FROM t"], AddColumn::new("seen", "c", "int") => Unsupported, &["seen"];
}

#[tokio::test]
async fn publication_column_list() {
    static MIGRATIONS: Migrations =
        migrations![Migration::new("published", RenameColumn::new("t", "a", "c")).not_deployed()];
    static CASE: Case = Case { setup: TABLES, migrations: &MIGRATIONS, schema: "public" };
    let stage = Stage::set(&CASE).await;
    // Column lists are of 15.
    if one::<i32>(&stage.client, "SELECT current_setting('server_version_num')::int").await >= 150_000 {
        refused(&CASE, &["CREATE PUBLICATION told FOR TABLE t (id, a)"], Kind::Unsupported, &["told"]).await;
    }
}

#[tokio::test]
async fn foreign_key_from_a_partitioned_table() {
    static MIGRATIONS: Migrations =
        migrations![Migration::new("referred", RenameColumn::new("t", "a", "c")).not_deployed()];
    static CASE: Case = Case { setup: TABLES, migrations: &MIGRATIONS, schema: "public" };
    let stage = Stage::set(&CASE).await;
    // From 18 on it can be added NOT VALID.
    if one::<i32>(&stage.client, "SELECT current_setting('server_version_num')::int").await < 180_000 {
        let setup: &[&str] = &[
            "ALTER TABLE t ADD UNIQUE (a)",
            "CREATE TABLE parts (a int CONSTRAINT parts_fk REFERENCES t (a)) PARTITION BY RANGE (a)",
        ];
        refused(&CASE, setup, Kind::Unsupported, &["parts_fk", "parts"]).await;
    }
}

#[tokio::test]
async fn an_owner_who_lacks_a_right_is_told_before_the_backfill() {
    static RENAME: Migrations =
        migrations![Migration::new("rename", RenameColumn::new("t", "a", "c")).not_deployed()];
    static CASE: Case = Case { setup: TABLES, migrations: &RENAME, schema: "public" };
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    let role = format!("{}_owner", stage.database.name());
    run(client, &format!("CREATE ROLE \"{role}\" LOGIN PASSWORD 'x'")).await;
    run(client, &format!("GRANT CREATE ON DATABASE \"{}\" TO \"{role}\"", stage.database.name())).await;
    run(client, &format!("GRANT ALL ON SCHEMA public TO \"{role}\"")).await;
    run(client, "ALTER TABLE t ADD CONSTRAINT t_other FOREIGN KEY (a) REFERENCES other NOT VALID").await;
    run(client, &format!("ALTER TABLE t OWNER TO \"{role}\"")).await;
    let mut config = stage.database.config();
    config.user(&role).password("x");
    let owner = Migrator::connect(config, tokio_postgres::NoTls, &RENAME).schema("public");
    let error = owner.run().await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Permission, "{error}");
    assert!(error.to_string().contains("GRANT REFERENCES ON \"public\".\"other\""), "{error}");
    run(client, &format!("GRANT REFERENCES ON other TO \"{role}\"")).await;
    run(client, "ALTER TABLE t ENABLE ROW LEVEL SECURITY").await;
    run(client, "ALTER TABLE t FORCE ROW LEVEL SECURITY").await;
    let error = owner.run().await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Permission, "{error}");
    assert!(error.to_string().contains("BYPASSRLS"), "{error}");
    run(client, "ALTER TABLE t NO FORCE ROW LEVEL SECURITY").await;
    owner.run().await.expect("nothing is in the way any more");
    run(client, &format!("DROP OWNED BY \"{role}\"")).await;
    run(client, &format!("DROP ROLE \"{role}\"")).await;
}

#[tokio::test]
async fn a_role_without_the_right_to_do_it() {
    static RENAME: Migrations =
        migrations![Migration::new("rename", RenameColumn::new("t", "a", "c").kept_in_sync()).not_deployed()];
    static ADD: Migrations = migrations![Migration::new("add", AddColumn::new("t", "c", "int"))];
    static INDEX: Migrations = migrations![Migration::new("index", AddIndex::new("t", "i").columns(&["a"]))];
    static DROP: Migrations = migrations![Migration::new("drop", DropColumn::new("t", "a")).not_deployed()];
    static CASE: Case = Case { setup: TABLES, migrations: &RENAME, schema: "public" };
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    // Roles belong to the server: this one is named like the database, which is the test's own.
    let role = stage.database.name();
    run(client, &format!("CREATE ROLE \"{role}\" LOGIN PASSWORD 'x'")).await;
    run(client, &format!("GRANT CREATE ON DATABASE \"{role}\" TO \"{role}\"")).await;
    run(client, &format!("GRANT ALL ON t TO \"{role}\"")).await;
    run(client, &format!("GRANT ALL ON SCHEMA public TO \"{role}\"")).await;
    let before = catalog::dump(client).await;
    for migrations in [&RENAME, &ADD, &INDEX, &DROP] {
        let mut config = stage.database.config();
        config.user(role).password("x");
        let poor = Migrator::connect(config, tokio_postgres::NoTls, migrations).schema("public");
        let error = poor.run().await.expect_err("refused");
        assert_eq!(error.kind(), Kind::Permission, "{error}");
        assert!(error.to_string().contains("\"t\""), "{error}");
        same(&before, &catalog::dump(client).await, "something was left behind");
    }
    // A role that may do nothing at all is told so before a ledger is there.
    run(client, "DROP SCHEMA phasewise CASCADE").await;
    run(client, &format!("REVOKE CREATE ON DATABASE \"{role}\" FROM \"{role}\"")).await;
    let mut config = stage.database.config();
    config.user(role).password("x");
    let error = Migrator::connect(config, tokio_postgres::NoTls, &RENAME).run().await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Permission, "{error}");
    assert!(!one::<bool>(client, "SELECT to_regnamespace('phasewise') IS NOT NULL").await);
    run(client, &format!("DROP OWNED BY \"{role}\"")).await;
    run(client, &format!("DROP ROLE \"{role}\"")).await;
}

#[tokio::test]
async fn unknown_names() {
    static RENAME: Migrations =
        migrations![Migration::new("rename", RenameColumn::new("t", "a", "c")).not_deployed()];
    let database = crate::harness::database().await;
    let migrator = migrator(&database, &RENAME);
    assert_eq!(migrator.run_to("renam", "AddTarget").await.expect_err("unknown").kind(), Kind::Unknown);
    let error = migrator.run_to("rename", "AddTargets").await.expect_err("unknown");
    assert_eq!(error.kind(), Kind::Unknown);
    assert!(error.to_string().contains("AddTarget, WriteBoth"), "{error}");
}
