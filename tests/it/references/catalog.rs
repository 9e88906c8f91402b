//! Each kind of reference that the catalog and the bodies of functions show.

use phasewise::{Kind, Migrations, ReferenceKind as R, State};

use super::{DROP, NAME, RENAME, SYNCED, Scene, USERS, objects, shared};
use crate::harness::run;

/// One thing that comes to be during the soak.
struct Case {
    migrations: &'static Migrations,
    setup: &'static [&'static str],
    made: &'static [&'static str],
    found: &'static [(R, &'static str)],
    blocks: bool,
    removed: &'static [&'static str],
}

/// It shuts the gate under its name; one that blocks the drop cannot be acknowledged; without it the gate opens. What
/// does not block is acknowledged, one by one.
async fn check(case: &Case) {
    let scene = Scene::set(shared().await, case.migrations, case.setup).await;
    for sql in case.made {
        run(&scene.client, sql).await;
    }
    scene.vouch().await;
    let references = scene.shut_by().await;
    let found: Vec<_> = references.iter().map(|found| (found.kind, found.object.as_str())).collect();
    assert_eq!(found, case.found, "{references:?}");
    for reference in &references {
        assert_eq!(reference.blocks, case.blocks, "{reference:?}");
        let said = scene.migrator.acknowledge(NAME, &reference.object).await;
        if case.blocks {
            let error = said.expect_err("refused");
            assert_eq!(error.kind(), Kind::GateClosed, "{error}");
            assert!(error.to_string().contains(&reference.object), "{error}");
        } else {
            said.expect("an acknowledgement");
        }
    }
    if case.blocks {
        assert_eq!(
            objects(&scene.shut_by().await),
            case.found.iter().map(|found| found.1).collect::<Vec<_>>()
        );
        for sql in case.removed {
            run(&scene.client, sql).await;
        }
    }
    scene.assert_opens().await;
}

macro_rules! kinds {
    ($($name:ident: $migrations:ident, $setup:expr, $made:expr => $found:expr, $blocks:literal, $removed:expr;)+) => {$(
        #[tokio::test]
        async fn $name() {
            check(&Case {
                migrations: &$migrations,
                setup: $setup,
                made: $made,
                found: $found,
                blocks: $blocks,
                removed: $removed,
            })
            .await;
        }
    )+};
}

const FUNCTION: &str = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'";
const PARTITIONED: &[&str] = &[
    "CREATE TABLE users (id int, name text, note text) PARTITION BY RANGE (id)",
    "CREATE TABLE low PARTITION OF users FOR VALUES FROM (0) TO (100)",
];

kinds! {
    a_view: RENAME, &[USERS], &["CREATE VIEW v AS SELECT name FROM users"]
        => &[(R::View, "view public.v")], true, &["DROP VIEW v"];
    a_view_on_a_view: RENAME, &[USERS],
        &["CREATE VIEW v AS SELECT name AS n FROM users", "CREATE VIEW w AS SELECT n FROM v", "CREATE MATERIALIZED VIEW x AS SELECT n FROM w"]
        => &[(R::View, "materialized view public.x"), (R::View, "view public.v"), (R::View, "view public.w")], true,
        &["DROP VIEW v CASCADE"];
    a_view_of_the_whole_row: RENAME, &[USERS], &["CREATE VIEW v AS SELECT users FROM users"]
        => &[(R::WholeRow, "view public.v")], true, &["DROP VIEW v"];
    a_view_of_the_whole_row_and_a_column: RENAME, &[USERS], &["CREATE VIEW v AS SELECT u.id, to_jsonb(u) AS j FROM users u"]
        => &[(R::WholeRow, "view public.v")], true, &["DROP VIEW v"];
    a_rule_of_the_whole_row: RENAME, &[USERS, "CREATE TABLE log (r jsonb)"],
        &["CREATE RULE r AS ON DELETE TO users DO ALSO INSERT INTO log VALUES (to_jsonb(OLD))"]
        => &[(R::Rule, "rule r on public.users")], true, &["DROP RULE r ON users"];
    a_policy_of_the_whole_row: RENAME, &[USERS], &["CREATE POLICY p ON users USING (to_jsonb(users) ? 'name')"]
        => &[(R::Policy, "policy p on public.users")], true, &["DROP POLICY p ON users"];
    a_column_of_the_rows_type: RENAME, &[USERS], &["CREATE TABLE kept (u users)"]
        => &[(R::WholeRow, "table column public.kept.u")], true, &["DROP TABLE kept"];
    a_function_over_the_row: RENAME, &[USERS], &["CREATE FUNCTION f(users) RETURNS int LANGUAGE sql AS 'SELECT 1'"]
        => &[(R::WholeRow, "function public.f(public.users)")], false, &[];
    a_rule: RENAME, &[USERS], &["CREATE RULE r AS ON UPDATE TO users WHERE NEW.name = 'x' DO ALSO NOTHING"]
        => &[(R::Rule, "rule r on public.users")], true, &["DROP RULE r ON users"];
    a_policy: RENAME, &[USERS], &["CREATE POLICY p ON users USING (name <> '')"]
        => &[(R::Policy, "policy p on public.users")], true, &["DROP POLICY p ON users"];
    a_policy_of_another_table: RENAME, &[USERS, "CREATE TABLE o (n text)"],
        &["CREATE POLICY p ON o USING (EXISTS (SELECT FROM users WHERE name = n))"]
        => &[(R::Policy, "policy p on public.o")], true, &["DROP POLICY p ON o"];
    a_trigger_of_the_column: RENAME, &[USERS, FUNCTION],
        &["CREATE TRIGGER t BEFORE UPDATE OF name ON users FOR EACH ROW EXECUTE FUNCTION f()"]
        => &[(R::Trigger, "trigger t on public.users")], true, &["DROP TRIGGER t ON users"];
    a_trigger_when: RENAME, &[USERS, FUNCTION],
        &["CREATE TRIGGER t BEFORE UPDATE ON users FOR EACH ROW WHEN (OLD.name IS NULL) EXECUTE FUNCTION f()"]
        => &[(R::Trigger, "trigger t on public.users")], true, &["DROP TRIGGER t ON users"];
    a_triggers_argument: RENAME, &[USERS, "ALTER TABLE users ADD found tsvector"],
        &["CREATE TRIGGER t BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION tsvector_update_trigger(found, 'pg_catalog.simple', name)"]
        => &[(R::Trigger, "trigger t on public.users")], false, &[];
    a_generated_column: RENAME, &[USERS], &["ALTER TABLE users ADD g text GENERATED ALWAYS AS (upper(name)) STORED"]
        => &[(R::GeneratedColumn, "table column public.users.g")], true, &["ALTER TABLE users DROP g"];
    a_foreign_key: DROP, &[USERS], &["ALTER TABLE users ADD CONSTRAINT u UNIQUE (name)", "CREATE TABLE o (n text CONSTRAINT fk REFERENCES users (name))"]
        => &[(R::ForeignKey, "table constraint fk on public.o")], true, &["ALTER TABLE o DROP CONSTRAINT fk"];
    a_foreign_key_to_what_is_replaced: RENAME, &[USERS], &["ALTER TABLE users ADD CONSTRAINT u UNIQUE (name)", "CREATE TABLE o (n text CONSTRAINT fk REFERENCES users (name))"]
        => &[(R::ForeignKey, "table constraint fk on public.o")], false, &[];
    a_partition_key: DROP, PARTITIONED,
        &["CREATE TABLE high (id int, name text, note text) PARTITION BY LIST (name)", "ALTER TABLE users ATTACH PARTITION high FOR VALUES FROM (100) TO (200)"]
        => &[(R::PartitionKey, "partition key of public.high")], true, &["ALTER TABLE users DETACH PARTITION high"];
    a_view_of_a_partition: RENAME, PARTITIONED, &["CREATE VIEW v AS SELECT name FROM low"]
        => &[(R::View, "view public.v")], true, &["DROP VIEW v"];
    a_function_that_reads_it: RENAME, &[USERS],
        &["CREATE FUNCTION f() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT Name FROM users LIMIT 1); END'"]
        => &[(R::Function, "function public.f()")], false, &[];
    a_function_that_inserts_without_a_list: RENAME, &[USERS],
        &["CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM 1; INSERT INTO users VALUES (1); END$$"]
        => &[(R::Function, "function public.f()")], false, &[];
    a_function_that_takes_every_column: RENAME, &[USERS],
        &["CREATE FUNCTION f() RETURNS SETOF record LANGUAGE sql AS 'SELECT * FROM users'"]
        => &[(R::Function, "function public.f()")], false, &[];
    a_function_with_dollars: RENAME, &[USERS],
        &["CREATE PROCEDURE f() LANGUAGE plpgsql AS $f$BEGIN EXECUTE $$SELECT id FROM users ORDER BY name$$; END$f$"]
        => &[(R::Function, "procedure public.f()")], false, &[];
    a_triggers_function: RENAME, &[USERS],
        &["CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.note := NEW.name; RETURN NEW; END'",
          "CREATE TRIGGER t BEFORE DELETE ON users FOR EACH ROW EXECUTE FUNCTION f()"]
        => &[(R::Function, "function public.f()")], false, &[];
    a_function_that_builds_statements: RENAME, &[USERS],
        &["CREATE PROCEDURE f(t text) LANGUAGE plpgsql AS $$BEGIN EXECUTE format('UPDATE %I SET name = NULL', t); END$$"]
        => &[(R::Function, "procedure public.f(pg_catalog.text)")], false, &[];
    grants: RENAME, &[USERS], &["GRANT SELECT (name), UPDATE (name) ON users TO pg_monitor", "GRANT SELECT (name) ON users TO PUBLIC"]
        => &[
            (R::Grant, "SELECT on column name of public.users to PUBLIC"),
            (R::Grant, "SELECT on column name of public.users to pg_monitor"),
            (R::Grant, "UPDATE on column name of public.users to pg_monitor"),
        ], false, &[];
}

/// Whether the server has that number of version, or a later one.
async fn from(version: i32) -> bool {
    let database = shared().await.database().await.expect("a database");
    let client = database.connect().await.expect("a connection");
    let sql = "SELECT current_setting('server_version_num')::int";
    client.query_one(sql, &[]).await.expect("a version").get::<_, i32>(0) >= version
}

#[tokio::test]
async fn a_function_whose_body_is_parsed() {
    check(&Case {
        migrations: &RENAME,
        setup: &[USERS],
        made: &[
            "CREATE FUNCTION f() RETURNS SETOF text LANGUAGE sql BEGIN ATOMIC SELECT name FROM users; END",
        ],
        found: &[(R::Function, "function public.f()")],
        blocks: true,
        removed: &["DROP FUNCTION f"],
    })
    .await;
}

#[tokio::test]
async fn publications() {
    if !from(150_000).await {
        return;
    }
    check(&Case {
        migrations: &RENAME,
        setup: &[USERS],
        made: &[
            "CREATE PUBLICATION listed FOR TABLE users (id, name)",
            "CREATE PUBLICATION filtered FOR TABLE users WHERE (name <> '') WITH (publish = 'insert')",
            "CREATE PUBLICATION whole FOR TABLE users",
        ],
        found: &[
            (R::Publication, "publication relation public.users in publication filtered"),
            (R::Publication, "publication relation public.users in publication listed"),
        ],
        blocks: true,
        removed: &["DROP PUBLICATION listed, filtered"],
    })
    .await;
}

#[tokio::test]
async fn what_has_nothing_to_do_with_it_does_not_shut_the_gate() {
    let scene = Scene::set(shared().await, &RENAME, &[USERS, FUNCTION]).await;
    for sql in [
        "CREATE TABLE other (id int, name text)",
        "CREATE VIEW v AS SELECT id, full_name FROM users",
        "CREATE VIEW w AS SELECT name FROM other",
        "CREATE FUNCTION named() RETURNS SETOF text LANGUAGE sql AS 'SELECT name FROM other'",
        "CREATE FUNCTION full_named() RETURNS SETOF text LANGUAGE sql AS 'SELECT full_name FROM users'",
        "CREATE TRIGGER t BEFORE UPDATE OF full_name ON users FOR EACH ROW EXECUTE FUNCTION f()",
        "CREATE TRIGGER a BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION f('full_name', 'my name')",
        "CREATE POLICY p ON users USING (note <> '')",
        "CREATE VIEW c AS SELECT count(*) FROM users WHERE EXISTS (SELECT FROM users)",
        "CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql AS 'SELECT * FROM other; SELECT count(*) FROM users'",
        "CREATE INDEX ON users (name, note)",
        "CREATE STATISTICS s ON name, note FROM users",
        "ALTER TABLE users ADD CONSTRAINT c CHECK (name <> note)",
        "GRANT SELECT (full_name) ON users TO pg_monitor",
        "GRANT SELECT ON users TO pg_monitor",
    ] {
        run(&scene.client, sql).await;
    }
    scene.vouch().await;
    scene.assert_opens().await;
}

/// Its triggers name the old column in their WHEN, and foreign keys to it are carried over: both go with it.
#[tokio::test]
async fn what_phasewise_made_does_not_shut_the_gate() {
    let setup = [
        "CREATE TABLE users (id int PRIMARY KEY, name text UNIQUE, parent int, UNIQUE (name, id),
            FOREIGN KEY (name, parent) REFERENCES users (name, id))",
        "CREATE TABLE orders (buyer text REFERENCES users (name))",
        "INSERT INTO users VALUES (1, 'ann')",
    ];
    let scene = Scene::set(shared().await, &SYNCED, &setup).await;
    scene.vouch().await;
    assert_eq!(scene.standing().await.references, []);
    scene.assert_opens().await;
}

#[tokio::test]
async fn one_that_comes_later_shuts_it_again_and_names_that_need_quotes_are_found() {
    use phasewise::{DropColumn, Migration, migrations};
    static QUOTED: Migrations =
        migrations![Migration::new(NAME, DropColumn::new("My Users", "First \"Name\" (a.*)")).not_deployed()];
    let setup = ["CREATE TABLE \"My Users\" (id int PRIMARY KEY, \"First \"\"Name\"\" (a.*)\" text)"];
    let scene = Scene::set(shared().await, &QUOTED, &setup).await;
    scene.vouch().await;
    run(&scene.client, "CREATE VIEW \"V w\" AS SELECT \"First \"\"Name\"\" (a.*)\" AS n FROM \"My Users\"")
        .await;
    run(&scene.client, "CREATE FUNCTION f() RETURNS SETOF text LANGUAGE sql AS 'SELECT \"First \"\"Name\"\" (a.*)\" FROM \"My Users\"'").await;
    assert_eq!(objects(&scene.shut_by().await), ["view public.\"V w\"", "function public.f()"]);
    run(&scene.client, "DROP VIEW \"V w\"").await;
    assert_eq!(objects(&scene.shut_by().await), ["function public.f()"]);
    run(&scene.client, "DROP FUNCTION f").await;
    assert!(!matches!(scene.standing().await.state, State::Referenced { .. }));
    scene.assert_opens().await;
}
