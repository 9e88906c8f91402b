//! Definitions that the server would take, and that do something else than they say or fail later on.

use phasewise::create_table::{Column, Constraint};
use phasewise::{
    AddColumn, AddIndex, ChangeType, CreateTable, DropColumn, Kind, Migration, Migrations, Migrator,
    RenameColumn, RunSql, To, add_index::IndexKey, migrations,
};

use crate::harness::{Case, Stage, catalog, database, migrator, one, run, same};

const TABLES: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, a int DEFAULT 1, b text DEFAULT 'abc', u uuid, at timestamptz, n int)",
    "CREATE TABLE other (id int PRIMARY KEY, code text, label text, late int UNIQUE DEFERRABLE)",
    "CREATE UNIQUE INDEX other_some ON other (code) WHERE id > 3",
    "CREATE UNIQUE INDEX other_label ON other (label)",
    "CREATE DOMAIN small AS int CHECK (VALUE < 1000)",
    "INSERT INTO t SELECT i, i, i FROM generate_series(1, 20) i",
];

/// `name: change => kind, what the message must name; what it must not`
macro_rules! refused {
    ($($name:ident: $change:expr => $kind:ident, $named:expr, $unnamed:expr;)+) => {$(
        #[tokio::test]
        async fn $name() {
            static MIGRATIONS: Migrations = migrations![Migration::new(stringify!($name), $change).not_deployed()];
            static CASE: Case = Case { setup: TABLES, migrations: &MIGRATIONS, schema: "public" };
            let named: &[&str] = $named;
            let unnamed: &[&str] = $unnamed;
            let stage = Stage::set(&CASE).await;
            let before = catalog::dump(&stage.client).await;
            let error = stage.migrator().plan().await.expect_err("a plan that is refused");
            assert_eq!(error.kind(), Kind::$kind, "{error}");
            for name in named {
                assert!(error.to_string().contains(name), "{name} is not named: {error}");
            }
            for name in unnamed {
                assert!(!error.to_string().contains(name), "{name} is named: {error}");
            }
            stage.migrator().run().await.expect_err("a run that is refused");
            same(&before, &catalog::dump(&stage.client).await, "something was left behind");
        }
    )+};
}

const fn create(constraint: Constraint) -> CreateTable<3, 1> {
    CreateTable::new("new_table")
        .columns([Column::new("id", "int").not_null(), Column::new("x", "int"), Column::new("s", "text")])
        .primary_key(&["id"])
        .constraints([constraint])
}

refused! {
    a_null_default: AddColumn::new("t", "c", "int").default("null").not_null() => Definition, &["null", "\"c\""], &[];
    a_null_default_with_a_cast: AddColumn::new("t", "c", "int").default("nullif(1, 1)").not_null() => Definition, &["nullif(1, 1)"], &[];
    a_null_volatile_default: AddColumn::new("t", "c", "int").volatile_default("null::int").not_null() => Definition, &["null::int"], &[];

    a_collation_in_a_type: AddColumn::new("t", "c", "text COLLATE \"C\"") => Definition, &["more than a type", "text"], &[];
    a_collation_in_a_new_type: ChangeType::new("t", "b", "c", "varchar(40) COLLATE \"C\"").up("{b}").down("{c}") => Definition, &["more than a type"], &[];
    a_compression_in_a_type: AddColumn::new("t", "c", "text COMPRESSION pglz") => Definition, &["more than a type"], &[];
    a_collation_in_the_type_of_a_new_table: CreateTable::new("new_table").columns([Column::new("x", "text COLLATE \"C\"")]) => Definition, &["more than a type"], &[];

    a_domain_with_a_default: AddColumn::new("t", "c", "small").default("1") => Unsupported, &["the type below the domain"], &["volatile_default"];
    a_domain_with_a_volatile_default: AddColumn::new("t", "c", "small").volatile_default("1") => Unsupported, &["the type below the domain"], &["volatile_default"];

    null_on_null_by_another_column: ChangeType::new("t", "n", "c", "bigint").up("coalesce({n}, {id})").down("{c}::int") => Definition, &["coalesce({n}, {id})", "null"], &[];
    null_on_null_by_another_column_down: ChangeType::new("t", "a", "c", "bigint").up("{a}").down("coalesce({c}, length({b}), extract(epoch from {at}), length({u}::text))::int").kept_in_sync() => Definition, &["down", "null"], &[];
    a_default_that_up_cannot_convert: ChangeType::new("t", "b", "c", "int").up("{b}::int").down("{c}::text") => Definition, &["abc"], &[];
    a_default_that_up_cannot_convert_synced: ChangeType::new("t", "b", "c", "int").up("{b}::int").down("{c}::text").kept_in_sync() => Definition, &["abc"], &[];

    a_reference_to_what_is_not_unique: create(Constraint::foreign_key("new_fk", &["s"], "other", &["code"])) => Unsupported, &["new_fk", "\"code\"", "AddIndex"], &[];
    a_reference_to_what_is_unique_later: create(Constraint::foreign_key("new_fk", &["x"], "other", &["late"])) => Unsupported, &["new_fk", "deferrable"], &[];
    a_reference_between_types_that_do_not_meet: create(Constraint::foreign_key("new_fk", &["s"], "other", &["id"])) => Definition, &["new_fk", "incompatible"], &["phasewise_trial"];
    a_reference_to_its_own_column_that_is_not_unique: create(Constraint::foreign_key("new_fk", &["x"], "new_table", &["x"])) => Definition, &["no unique constraint", "new_table"], &["phasewise_trial"];
    a_unique_constraint_with_the_name_of_a_table: create(Constraint::unique("other", &["x"])) => Conflict, &["other"], &[];
    a_unique_constraint_with_the_name_of_its_table: create(Constraint::unique("new_table", &["x"])) => Conflict, &["new_table"], &[];
    a_check_on_what_is_not_there: create(Constraint::check("new_check", "{idd} > 0")) => Definition, &["\"idd\"", "new_table.id"], &["phasewise_trial"];
    a_collation_that_is_not_there: AddColumn::new("t", "c", "text").collate("\"attic\".german") => Definition, &["attic"], &[];
}

#[tokio::test]
async fn what_is_as_it_says_is_taken() {
    static GOOD: Migrations = migrations![
        Migration::new("null", AddColumn::new("t", "c1", "int").default("null")),
        Migration::new(
            "drawn",
            AddColumn::new("t", "c2", "bigint").volatile_default("nextval('s')").not_null()
        ),
        Migration::new("collated", AddColumn::new("t", "c3", "text").collate("\"attic\".german")),
        Migration::new(
            "indexed",
            AddIndex::new("t", "t_b").keys([IndexKey::column("b").collate("\"attic\".german")])
        ),
        Migration::new(
            "created",
            CreateTable::new("tree")
                .columns([
                    Column::new("id", "int").not_null(),
                    Column::new("up", "int"),
                    Column::new("l", "varchar(10)").collate("\"attic\".german"),
                ])
                .primary_key(&["id"])
                .constraints([
                    Constraint::foreign_key("tree_up", &["up"], "tree", &["id"]),
                    Constraint::foreign_key("tree_label", &["l"], "other", &["label"]),
                ])
        ),
    ];
    static CASE: Case = Case { setup: TABLES, migrations: &GOOD, schema: "public" };
    let stage = Stage::set(&CASE).await;
    run(&stage.client, "CREATE SCHEMA attic").await;
    run(&stage.client, "CREATE COLLATION attic.german FROM \"C\"").await;
    run(&stage.client, "CREATE SEQUENCE s").await;
    stage.migrator().run().await.expect("all of them");
    let drawn: i64 = one(&stage.client, "SELECT last_value FROM s").await;
    assert_eq!(drawn, 20, "planning drew from the sequence");
}

#[tokio::test]
async fn a_role_that_may_refer_to_a_table_need_not_own_it() {
    static NEW: Migrations = migrations![Migration::new(
        "new",
        create(Constraint::foreign_key("new_fk", &["x"], "other", &["id"]))
    )];
    static CASE: Case = Case { setup: TABLES, migrations: &NEW, schema: "public" };
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    let role = stage.database.name();
    run(client, &format!("CREATE ROLE \"{role}\" LOGIN PASSWORD 'x'")).await;
    run(client, &format!("GRANT CREATE ON DATABASE \"{role}\" TO \"{role}\"")).await;
    run(client, &format!("GRANT ALL ON SCHEMA public TO \"{role}\"")).await;
    let migrator = || {
        let mut config = stage.database.config();
        config.user(role).password("x");
        Migrator::connect(config, tokio_postgres::NoTls, &NEW).schema("public")
    };
    let error = migrator().run().await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Permission, "{error}");
    assert!(error.to_string().contains("GRANT REFERENCES ON \"public\".\"other\""), "{error}");
    run(client, &format!("GRANT REFERENCES (id) ON other TO \"{role}\"")).await;
    migrator().run().await.expect("the right is there");
    migrator().rollback("new", To::Start).await.expect("it may drop what it made");
    run(client, &format!("DROP OWNED BY \"{role}\"")).await;
    run(client, &format!("DROP ROLE \"{role}\"")).await;
}

#[tokio::test]
async fn a_query_that_ends_in_a_semicolon_or_a_comment_can_be_undone() {
    static SEMICOLON: Migrations = migrations![Migration::new(
        "sql",
        RunSql::new(&["create table made (x text default ';')"])
            .rollback(&["drop table made"])
            .done_when("select to_regclass('made') is not null and ';' <> '' ; -- there")
    )];
    static COMMENT: Migrations = migrations![Migration::new(
        "sql",
        RunSql::new(&["create table made (x text)"])
            .rollback(&["drop table made"])
            .done_when("select to_regclass('made') is not null -- there; really")
    )];
    static NOTHING: Migrations = migrations![Migration::new(
        "sql",
        RunSql::new(&["create table made (x text)"])
            .rollback(&["drop table made"])
            .done_when("select true from pg_class where relname = 'made'")
    )];
    for migrations in [&SEMICOLON, &COMMENT, &NOTHING] {
        let database = database().await;
        let client = database.connect().await.expect("a connection");
        let migrator = migrator(&database, migrations);
        migrator.run().await.expect("forward");
        migrator.rollback("sql", To::Start).await.expect("back");
        assert!(!one::<bool>(&client, "SELECT to_regclass('made') IS NOT NULL").await);
    }
}

#[tokio::test]
async fn braces_in_dollar_quotes_and_escape_strings_are_text_on_the_server_too() {
    static EXPR: Migrations = migrations![
        Migration::new(
            "expr",
            ChangeType::new("t", "a", "Order", "text")
                .up("case when {a} is not null then $$lit {b}$$ || E'it\\'s {b}' || {a} end")
                .down("regexp_replace({Order}, '^\\D+', '')::int")
        )
        .not_deployed()
    ];
    static CASE: Case = Case {
        setup: &["CREATE TABLE t (id int PRIMARY KEY, a int)", "INSERT INTO t VALUES (1, 7), (2, NULL)"],
        migrations: &EXPR,
        schema: "public",
    };
    let stage = Stage::set(&CASE).await;
    stage.forward(3).await;
    let value: String = one(&stage.client, "SELECT \"Order\" FROM t WHERE id = 1").await;
    assert_eq!(value, "lit {b}it's {b}7");
}

#[tokio::test]
async fn a_view_of_the_whole_row_is_in_the_way_of_a_drop_as_of_a_rename() {
    static DROP: Migrations = migrations![Migration::new("drop", DropColumn::new("t", "a")).not_deployed()];
    static RENAME: Migrations =
        migrations![Migration::new("rename", RenameColumn::new("t", "a", "c")).not_deployed()];
    static CASE: Case = Case { setup: TABLES, migrations: &DROP, schema: "public" };
    let stage = Stage::set(&CASE).await;
    run(&stage.client, "CREATE FUNCTION takes(t) RETURNS int LANGUAGE sql AS 'select 1'").await;
    migrator(&stage.database, &DROP).plan().await.expect("a function that takes the row goes on working");
    run(&stage.client, "CREATE VIEW counted AS SELECT count(*) FROM t WHERE EXISTS (SELECT FROM t)").await;
    run(&stage.client, "CREATE RULE noticed AS ON DELETE TO t DO ALSO NOTIFY t").await;
    migrator(&stage.database, &DROP).plan().await.expect("what names no column takes none");
    for view in ["SELECT t FROM t", "SELECT id, to_jsonb(t) AS json FROM t"] {
        run(&stage.client, &format!("CREATE VIEW whole AS {view}")).await;
        for migrations in [&DROP, &RENAME] {
            let error = migrator(&stage.database, migrations).plan().await.expect_err("refused");
            assert_eq!(error.kind(), Kind::Unsupported, "{error}");
            assert!(error.to_string().contains("whole"), "{error}");
        }
        run(&stage.client, "DROP VIEW whole").await;
    }
}
