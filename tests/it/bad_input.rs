//! What cannot be done is refused before the first phase, by name, and nothing is left behind.

use phasewise::create_table::{Column, Constraint};
use phasewise::{
    AddColumn, AddIndex, ChangeType, CreateTable, DropColumn, Kind, Migration, Migrations, Migrator,
    RenameColumn, RunSql, migrations,
};

use crate::harness::{Case, Stage, catalog, is_one_of, migrator, one, run, same};

/// `name: extra setup, change => kind, what the message must name;` and `name[versions]: …` where other servers can do
/// it, or know nothing of it.
macro_rules! refused {
    ($($name:ident $([$versions:expr])?: $setup:expr, $change:expr => $kind:ident, $named:expr;)+) => {$(
        #[tokio::test]
        async fn $name() {
            static MIGRATIONS: Migrations = migrations![Migration::new(stringify!($name), $change).not_deployed()];
            static CASE: Case = Case { setup: TABLES, migrations: &MIGRATIONS, schema: "public" };
            $(
                if !is_one_of($versions).await {
                    return;
                }
            )?
            refused(&CASE, $setup, Kind::$kind, $named).await;
        }
    )+};
}

const TABLES: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL DEFAULT 1, b text, doubled int GENERATED ALWAYS AS (id * 2) STORED)",
    "CREATE TABLE other (id int PRIMARY KEY)",
    "INSERT INTO t (id, a, b) SELECT i, i, 'b' || i FROM generate_series(1, 20) i",
];

const PARTED: &[&str] = &[
    "CREATE TABLE parted (id int, k int, a int CONSTRAINT parted_fk REFERENCES other, CONSTRAINT parted_key UNIQUE (id, k)) PARTITION BY RANGE (id)",
    "CREATE TABLE parted_here PARTITION OF parted FOR VALUES FROM (0) TO (100)",
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
    table_exists: &[], CreateTable::new("other").columns([Column::new("x", "text")]) => Conflict, &["other"];
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
    publication_column_list[150_000..]: &["CREATE PUBLICATION told FOR TABLE t (id, a)"], RenameColumn::new("t", "a", "c") => Unsupported, &["told"];
    foreign_key_from_a_partitioned_table[..180_000]: &["ALTER TABLE t ADD UNIQUE (a)", "CREATE TABLE parts (a int CONSTRAINT parts_fk REFERENCES t (a)) PARTITION BY RANGE (a)"],
        RenameColumn::new("t", "a", "c") => Unsupported, &["parts_fk", "parts", "drop it first"];
    foreign_key_of_a_partitioned_table[..180_000]: PARTED, RenameColumn::new("parted", "a", "c") => Unsupported, &["parted_fk", "drop it first"];
    unique_of_a_partitioned_table: PARTED, RenameColumn::new("parted", "k", "c") => Unsupported, &["parted_key", "unique index"];
    foreign_key_that_sets_the_default: &["ALTER TABLE t ADD CONSTRAINT points FOREIGN KEY (a) REFERENCES other ON DELETE SET DEFAULT NOT VALID"],
        RenameColumn::new("t", "a", "c").kept_in_sync() => Unsupported, &["points", "change the action"];
    foreign_key_that_sets_no_default: &["ALTER TABLE t ADD d int", "ALTER TABLE t ADD CONSTRAINT points FOREIGN KEY (d) REFERENCES other ON UPDATE SET DEFAULT"],
        RenameColumn::new("t", "d", "c") => Unsupported, &["points", "change the action"];
    default_under_an_up_that_reads_more: &[], ChangeType::new("t", "a", "c", "bigint").up("{a}::bigint + {id} - {id}").down("{c}::int") => Unsupported, &["\"a\"", "default 1", "drop the default"];
    volatile_default_retyped: &["ALTER TABLE t ADD at timestamptz DEFAULT clock_timestamp()"],
        ChangeType::new("t", "at", "c", "timestamp").up("{at} AT TIME ZONE 'UTC'").down("{c} AT TIME ZONE 'UTC'").kept_in_sync() => Unsupported, &["clock_timestamp()", "drop the default"];

    index_without_keys: &[], AddIndex::new("t", "keyless") => Definition, &["keyless", ".columns("];
    unique_index_without_the_partition_key: PARTED, AddIndex::new("parted", "lone").columns(&["a"]).unique() => Unsupported, &["lone", "\"id\"", "add it"];
    index_over_a_foreign_partition: &["CREATE FOREIGN DATA WRAPPER none", "CREATE SERVER away FOREIGN DATA WRAPPER none",
        "CREATE TABLE parted (id int, a int) PARTITION BY RANGE (id)", "CREATE FOREIGN TABLE parted_away PARTITION OF parted FOR VALUES FROM (0) TO (100) SERVER away"],
         AddIndex::new("parted", "everywhere").columns(&["a"]) => Unsupported, &["parted_away", "detach it"];
    index_in_no_schema: &[], AddIndex::new("nowhere.t", "i").columns(&["a"]) => Missing, &["nowhere"];
    check_name_taken: &["ALTER TABLE t ADD CONSTRAINT taken CHECK (a > 0)"], AddColumn::new("t", "c", "int").check("taken", "{c} > 0") => Conflict, &["taken", "choose another name"];
    check_over_no_column: &[], AddColumn::new("t", "c", "int").check("c_check", "{c} > {zzz}") => Missing, &["\"zzz\""];
    inheritance_add: &["CREATE TABLE heir () INHERITS (t)"], AddColumn::new("t", "c", "int") => Unsupported, &["inherit", "RunSql"];
    inheritance_drop: &["CREATE TABLE heir () INHERITS (t)"], DropColumn::new("t", "b") => Unsupported, &["inherit", "RunSql"];
    domain_added: &["CREATE DOMAIN small AS int CHECK (VALUE < 1000)"], AddColumn::new("t", "c", "small") => Unsupported, &["\"c\"", "domain", ".check("];

    drop_generated: &[], DropColumn::new("t", "doubled") => Unsupported, &["doubled", "generated", "RunSql"];
    drop_identity: &["ALTER TABLE t ADD n int GENERATED ALWAYS AS IDENTITY"], DropColumn::new("t", "n").restore_with("{id}") => Unsupported, &["\"n\"", "DROP IDENTITY"];
    drop_partition_key: PARTED, DropColumn::new("parted", "id").restore_with("1") => Unsupported, &["\"id\"", "partitioned by it", "new table"];
    drop_referred: &["ALTER TABLE t ADD UNIQUE (a)", "CREATE TABLE child (a int CONSTRAINT child_fk REFERENCES t (a))"], DropColumn::new("t", "a") => Unsupported, &["child_fk", "drop that first"];
    drop_replica_identity: &["CREATE UNIQUE INDEX told ON t (a)", "ALTER TABLE t REPLICA IDENTITY USING INDEX told"], DropColumn::new("t", "a") => Unsupported, &["told", "choose another"];
    drop_excluded: &["ALTER TABLE t ADD CONSTRAINT apart EXCLUDE USING btree (a WITH =)"], DropColumn::new("t", "a") => Unsupported, &["apart", "drop the constraint first"];
    drop_unique_of_a_partitioned_table: PARTED, DropColumn::new("parted", "k") => Unsupported, &["parted_key", "drop the constraint first"];
    drop_foreign_key_of_a_partitioned_table[..180_000]: PARTED, DropColumn::new("parted", "a") => Unsupported, &["parted_fk", "drop it first"];
    drop_under_a_policy: &["CREATE POLICY mine ON t USING (a > 0)"], DropColumn::new("t", "a") => Unsupported, &["mine", "change that first"];
    drop_under_a_generated_column: &["ALTER TABLE t ADD twice int GENERATED ALWAYS AS (a * 2) STORED"], DropColumn::new("t", "a") => Unsupported, &["twice", "change that first"];
    drop_under_a_rule: &["CREATE RULE loud AS ON UPDATE TO t WHERE NEW.a <> OLD.a DO ALSO INSERT INTO other VALUES (NEW.a)"], DropColumn::new("t", "a") => Unsupported, &["loud", "change that first"];
    restore_does_not_compile: &[], DropColumn::new("t", "a").restore_with("no_such({id})") => Definition, &["no_such"];
    restore_from_no_column: &[], DropColumn::new("t", "a").restore_with("{zzz} + 1") => Definition, &["zzz", "mend the definition"];
    restore_gives_another_type: &[], DropColumn::new("t", "a").restore_with("{b}") => Definition, &["integer"];
    restore_null_in_not_null: &[], DropColumn::new("t", "a").restore_with("null::int") => Definition, &["NOT NULL", "a value that is not"];
    drop_without_overlaps[180_000..]: &["ALTER TABLE t ADD r int4range, ADD at daterange", "ALTER TABLE t ADD CONSTRAINT apart UNIQUE (r, at WITHOUT OVERLAPS)"], DropColumn::new("t", "at") => Unsupported, &["apart", "WITHOUT OVERLAPS", "drop the constraint first"];
    drop_included_under_a_foreign_key: &["ALTER TABLE t ADD CONSTRAINT told UNIQUE (a) INCLUDE (b)", "CREATE TABLE child (a int CONSTRAINT child_fk REFERENCES t (a))"], DropColumn::new("t", "b") => Unsupported, &["child_fk", "\"told\"", "does without"];
    drop_included_beside_another_key: &["ALTER TABLE t ADD CONSTRAINT told UNIQUE (a) INCLUDE (b)", "ALTER TABLE t ADD CONSTRAINT lazy UNIQUE (a) DEFERRABLE", "CREATE TABLE child (a int CONSTRAINT child_fk REFERENCES t (a))"], DropColumn::new("t", "b") => Unsupported, &["child_fk", "\"told\""];
    drop_of_a_late_not_null[180_000..]: &["ALTER TABLE t ADD CONSTRAINT late NOT NULL b NOT VALID"], DropColumn::new("t", "b") => Unsupported, &["\"late\"", "validate it, or drop it, first"];
    rename_of_a_late_not_null[180_000..]: &["ALTER TABLE t ADD CONSTRAINT late NOT NULL b NOT VALID"], RenameColumn::new("t", "b", "c") => Unsupported, &["\"late\"", "validate it, or drop it, first"];
    drop_of_a_not_null_domain: &["CREATE DOMAIN phone AS varchar(20) NOT NULL", "CREATE DOMAIN fax AS phone", "ALTER TABLE t ADD fax fax DEFAULT ''"], DropColumn::new("t", "fax").restore_with("''") => Unsupported, &["\"fax\"", "domain fax", "NOT NULL", "TYPE character varying(20)", "RunSql"];
    drop_of_a_checked_domain: &["CREATE DOMAIN phone AS text CHECK (VALUE <> '')", "ALTER TABLE t ADD fax phone"], DropColumn::new("t", "fax") => Unsupported, &["phone", "CHECK", "TYPE text"];
    drop_of_a_domain_with_a_default: &["CREATE DOMAIN phone AS text DEFAULT 'none'", "ALTER TABLE t ADD fax phone"], DropColumn::new("t", "fax") => Unsupported, &["phone", "default", "TYPE text"];

    table_without_columns: &[], CreateTable::new("bare") => Definition, &["bare", ".columns("];
    table_in_no_schema: &[], CreateTable::new("nowhere.x").columns([Column::new("id", "int")]) => Missing, &["nowhere"];
    table_of_no_type: &[], CreateTable::new("x").columns([Column::new("id", "biggint")]) => Definition, &["biggint"];
    table_check_does_not_compile: &[], CreateTable::new("x").columns([Column::new("id", "int")]).constraints([Constraint::check("odd", "{id} ~ 1")]) => Definition, &["operator"];
    table_check_over_no_column: &[], CreateTable::new("x").columns([Column::new("id", "int")]).constraints([Constraint::check("odd", "{zzz} > 1")]) => Definition, &["zzz"];
    table_default_does_not_compile: &[], CreateTable::new("x").columns([Column::new("id", "int").default("no_such()")]) => Definition, &["no_such"];
    table_default_and_identity: &[], CreateTable::new("x").columns([Column::new("id", "int").identity().default("1")]) => Definition, &["identity", "\"id\""];
    table_generated_by_what_is_not_there: &[], CreateTable::new("x").columns([Column::new("id", "int").generated("{zzz} + 1")]) => Definition, &["zzz"];
    table_key_of_no_column: &[], CreateTable::new("x").columns([Column::new("id", "int")]).primary_key(&["zzz"]) => Definition, &["zzz"];
    table_refers_to_no_table: &[], CreateTable::new("x").columns([Column::new("id", "int")]).constraints([Constraint::foreign_key("x_fk", &["id"], "nowhere", &["id"])]) => Missing, &["nowhere"];
    table_refers_to_no_column: &[], CreateTable::new("x").columns([Column::new("id", "int")]).constraints([Constraint::foreign_key("x_fk", &["id"], "other", &["zzz"])]) => Missing, &["\"zzz\""];
    a_view_has_the_name: &["CREATE VIEW seen AS SELECT a FROM t"], CreateTable::new("seen").columns([Column::new("a", "int")]) => Conflict, &["seen", "choose another name"];

    sql_outside_a_transaction: &[], RunSql::new(&["VACUUM t"]).irreversible("it only tidies").outside_transaction() => Definition, &["VACUUM t", ".done_when("];
    rewriting_default: &[], AddColumn::new("t", "c", "float8").default("random()") => Unsupported, &["volatile_default"];
    a_view_is_no_table: &["CREATE VIEW seen AS SELECT a FROM t"], AddColumn::new("seen", "c", "int") => Unsupported, &["seen"];
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
async fn a_role_without_create_on_the_schema() {
    static INDEX: Migrations = migrations![Migration::new("index", AddIndex::new("t", "i").columns(&["b"]))];
    static RENAME: Migrations =
        migrations![Migration::new("rename", RenameColumn::new("t", "a", "c")).not_deployed()];
    static CREATE: Migrations =
        migrations![Migration::new("create", CreateTable::new("x").columns([Column::new("id", "int")]))];
    static CASE: Case = Case { setup: TABLES, migrations: &RENAME, schema: "public" };
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    let role = format!("{}_poor", stage.database.name());
    run(client, &format!("CREATE ROLE \"{role}\" LOGIN PASSWORD 'x'")).await;
    run(client, &format!("GRANT CREATE ON DATABASE \"{}\" TO \"{role}\"", stage.database.name())).await;
    run(client, "CREATE INDEX t_a ON t (a)").await;
    // So that a rename has an index to make anew.
    run(client, &format!("ALTER TABLE t OWNER TO \"{role}\"")).await;
    run(client, "REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    let before = catalog::dump(client).await;
    for migrations in [&INDEX, &RENAME, &CREATE] {
        let mut config = stage.database.config();
        config.user(&role).password("x");
        let poor = Migrator::connect(config, tokio_postgres::NoTls, migrations).schema("public");
        let error = poor.run().await.expect_err("refused");
        assert_eq!(error.kind(), Kind::Permission, "{error}");
        assert!(error.to_string().contains("public"), "{error}");
        assert!(error.to_string().contains("GRANT CREATE ON SCHEMA"), "{error}");
        same(&before, &catalog::dump(client).await, "something was left behind");
    }
    run(client, &format!("DROP OWNED BY \"{role}\" CASCADE")).await;
    run(client, &format!("DROP ROLE \"{role}\"")).await;
}

#[tokio::test]
async fn a_foreign_key_of_somebody_elses_table() {
    static RENAME: Migrations =
        migrations![Migration::new("rename", RenameColumn::new("t", "a", "c")).not_deployed()];
    static CASE: Case = Case { setup: TABLES, migrations: &RENAME, schema: "public" };
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    let role = format!("{}_half", stage.database.name());
    run(client, &format!("CREATE ROLE \"{role}\" LOGIN PASSWORD 'x'")).await;
    run(client, &format!("GRANT CREATE ON DATABASE \"{}\" TO \"{role}\"", stage.database.name())).await;
    run(client, &format!("GRANT ALL ON SCHEMA public TO \"{role}\"")).await;
    run(client, "ALTER TABLE t ADD UNIQUE (a)").await;
    run(client, "CREATE TABLE child (a int CONSTRAINT child_fk REFERENCES t (a))").await;
    run(client, &format!("ALTER TABLE t OWNER TO \"{role}\"")).await;
    let before = catalog::dump(client).await;
    let mut config = stage.database.config();
    config.user(&role).password("x");
    let half = Migrator::connect(config, tokio_postgres::NoTls, &RENAME).schema("public");
    let error = half.run().await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Permission, "{error}");
    for named in ["child_fk", "\"child\"", "run as a member of its owner"] {
        assert!(error.to_string().contains(named), "{named} is not named: {error}");
    }
    same(&before, &catalog::dump(client).await, "something was left behind");
    run(client, &format!("ALTER TABLE child OWNER TO \"{role}\"")).await;
    half.run().await.expect("nothing is in the way any more");
    run(client, &format!("DROP OWNED BY \"{role}\" CASCADE")).await;
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

#[tokio::test]
async fn a_schema_that_cannot_be_the_ledgers() {
    static ELSEWHERE: Migrations = migrations![
        Migration::new("here", AddColumn::new("t", "d", "text")),
        Migration::new("there", AddColumn::new("Away.t", "d", "text")),
    ];
    static CASE: Case = Case { setup: TABLES, migrations: &ELSEWHERE, schema: "public" };
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    run(client, "CREATE SCHEMA \"Away\"").await;
    run(client, "CREATE TABLE \"Away\".t (id int)").await;
    let before = catalog::dump(client).await;
    let long = "x".repeat(64);
    for (schema, named) in [
        ("public", "schema \"public\""),
        ("Away", "schema \"Away\""),
        ("", "1 to 63 bytes"),
        (long.as_str(), "1 to 63 bytes"),
        ("a\0b", "1 to 63 bytes"),
    ] {
        let error =
            migrator(&stage.database, &ELSEWHERE).ledger_schema(schema).run().await.expect_err("refused");
        assert_eq!(error.kind(), Kind::Definition, "{error}");
        assert!(
            error.to_string().contains(named) && error.to_string().contains(".ledger_schema("),
            "{error}"
        );
        same(&before, &catalog::dump(client).await, "something was left behind");
    }
    migrator(&stage.database, &ELSEWHERE).ledger_schema("away").run().await.expect("a name of its own");
}
