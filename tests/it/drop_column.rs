//! What hangs on a column that nobody writes any more: it refuses nothing and cascades nowhere, and comes back.

use phasewise::{DropColumn, Kind, Migration, Migrations, To, migrations};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::harness::{Case, Stage, catalog, is_one_of, one, run, same};

/// How many phases are entered.
const STOP_READS: usize = 1;
const STOP_WRITES: usize = 2;
const DROP: usize = 3;

/// `name: setup, .restore_with(…), what release 2 says with {n} for a new key, => rows then`, and
/// `name[versions]: …` where older servers know nothing of it.
macro_rules! released {
    ($($name:ident $([$versions:expr])?: $setup:expr, $restore:expr, $says:expr => $rows:expr;)+) => {$(
        #[tokio::test]
        async fn $name() {
            static MIGRATIONS: Migrations = migrations![
                Migration::new(stringify!($name), DropColumn::new("t", "fax").restore_with($restore)).not_deployed()
            ];
            static CASE: Case = Case { setup: $setup, migrations: &MIGRATIONS, schema: "public" };
            $(
                if !is_one_of($versions).await {
                    return;
                }
            )?
            released(&CASE, $says, $rows).await;
        }
    )+};
}

/// Release 1 of each may not say it; release 2 may, in every phase that it lives in. On the way back everything is as it
/// was, and the rows that were written without the column have a value.
async fn released(case: &'static Case, says: &[&str], rows: &str) {
    let stage = Stage::set(case).await;
    let client = &stage.client;
    let before = catalog::dump(client).await;
    let said = |n: i32| says.iter().map(move |sql| sql.replace("{n}", &n.to_string()));
    stage.forward(STOP_READS).await;
    let mut refused = false;
    run(client, "BEGIN").await;
    for sql in said(100) {
        refused |= client.batch_execute(&sql).await.is_err();
    }
    run(client, "ROLLBACK").await;
    assert!(refused, "nothing was in the way before");
    for last in [STOP_WRITES, DROP] {
        stage.forward(STOP_WRITES).await;
        for sql in said(100) {
            run(client, &sql).await;
        }
        if last == DROP {
            stage.forward(DROP).await;
            for sql in said(200) {
                run(client, &sql).await;
            }
        }
        stage.back(0).await;
        same(&before, &catalog::dump(client).await, "the way back left a difference");
        let written =
            "SELECT coalesce(string_agg(id || ':' || coalesce(fax, '-'), ' ' ORDER BY id), '') FROM t";
        let twice = format!("{rows} {}", rows.replace("10", "20"));
        let expected = if last == DROP { twice.as_str() } else { rows };
        assert_eq!(one::<String>(client, &format!("{written} WHERE id >= 100")).await, expected);
        assert_eq!(one::<String>(client, &format!("{written} WHERE id < 100")).await, "1:a 2:b");
        run(client, "DELETE FROM t WHERE id >= 100").await;
    }
}

const ROWS: &str = "INSERT INTO t (id, note, fax) VALUES (1, 'one', 'a'), (2, 'two', 'b')";

released! {
    a_check_that_refuses_null:
        &["CREATE TABLE t (id int PRIMARY KEY, note text, fax text CONSTRAINT sent CHECK (fax IS NOT NULL))", "COMMENT ON CONSTRAINT sent ON t IS 'always'", ROWS],
        "'none'",
        &["INSERT INTO t (id) VALUES ({n})", "UPDATE t SET note = 'new' WHERE id = {n}", "INSERT INTO t (id) VALUES ({n} + 1)", "DELETE FROM t WHERE id = {n} + 1"]
        => "100:none";
    // Only the rows that break it are filled: in the others the null is meant.
    a_check_over_two_columns:
        &["CREATE TABLE t (id int PRIMARY KEY, note text, fax text, at date, \"t\" int, CONSTRAINT \"both\" CHECK ((fax IS NULL) = (at IS NULL)))",
          "ALTER TABLE t ADD CONSTRAINT never_asked CHECK (fax <> 'b') NOT VALID", "INSERT INTO t VALUES (1, 'one', 'a', now())", "ALTER TABLE t DROP CONSTRAINT never_asked",
          "INSERT INTO t VALUES (2, 'two', 'b', now())", "ALTER TABLE t ADD CONSTRAINT never_asked CHECK (fax <> 'b') NOT VALID"],
        "'none'",
        &["INSERT INTO t (id, at) VALUES ({n}, '2026-01-01')", "INSERT INTO t (id) VALUES ({n} + 1)"]
        => "100:none 101:-";
    a_unique_index_over_two_columns:
        &["CREATE TABLE t (id int PRIMARY KEY, note text, fax text NOT NULL)", "CREATE UNIQUE INDEX once ON t (note, fax) WHERE id > 0", "CREATE UNIQUE INDEX t_lower ON t (lower(coalesce(fax, '')))", "CREATE INDEX plain ON t (fax)", ROWS],
        "'row ' || {id}",
        &["INSERT INTO t (id, note) VALUES ({n}, 'same')", "INSERT INTO t (id, note) VALUES ({n} + 1, 'same')"]
        => "100:row 100 101:row 101";
    nulls_that_are_not_distinct[150_000..]:
        &["CREATE TABLE t (id int PRIMARY KEY, note text, fax text NOT NULL CONSTRAINT once UNIQUE NULLS NOT DISTINCT)", ROWS],
        "'row ' || {id}",
        &["INSERT INTO t (id) VALUES ({n})", "INSERT INTO t (id) VALUES ({n} + 1)"]
        => "100:row 100 101:row 101";
    an_outgoing_key:
        &["CREATE TABLE lines (fax text PRIMARY KEY)", "INSERT INTO lines VALUES ('a'), ('b'), ('none'), ('unused')",
          "CREATE TABLE t (id int PRIMARY KEY, note text, fax text NOT NULL CONSTRAINT line REFERENCES lines)", ROWS],
        "'none'",
        // Tried before: one statement of them at least is refused.
        &["INSERT INTO t (id) VALUES ({n})", "DELETE FROM lines WHERE fax = 'a'", "INSERT INTO lines VALUES ('a')"]
        => "100:none";
}

static FAX: Migrations =
    migrations![Migration::new("fax", DropColumn::new("t", "fax").restore_with("''")).not_deployed()];

/// Into StopWrites again, of which a part is rolled back.
async fn again(stage: &Stage) {
    stage.migrator().run_to("fax", "StopWrites").await.expect("the way forward");
}

async fn refused(client: &Client, sql: &str) -> SqlState {
    client.batch_execute(sql).await.expect_err(sql).code().expect("a code").clone()
}

#[tokio::test]
async fn values_that_are_not_unique_are_named_and_the_rollback_goes_on() {
    static CASE: Case = Case {
        setup: &[
            "CREATE TABLE t (id int PRIMARY KEY, fax text NOT NULL DEFAULT '' CONSTRAINT once UNIQUE)",
            "INSERT INTO t VALUES (1, 'a')",
        ],
        migrations: &FAX,
        schema: "public",
    };
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    let before = catalog::dump(client).await;
    let plan = stage.migrator().plan().await.expect("a plan").to_string();
    let plan = plan.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(plan.contains("unique constraint \"once\" goes in phase StopWrites"), "{plan}");
    stage.forward(STOP_WRITES).await;
    // The default is taken as before, and forbids nothing.
    run(client, "INSERT INTO t (id) VALUES (2)").await;
    run(client, "INSERT INTO t (id) VALUES (3)").await;
    stage.forward(DROP).await;
    run(client, "INSERT INTO t (id) VALUES (4)").await;
    let error = stage.migrator().rollback("fax", To::Start).await.expect_err("duplicates");
    assert_eq!(error.kind(), Kind::Step, "{error}");
    for said in ["\"once\"", "remove or change the duplicates", "run again"] {
        assert!(error.to_string().contains(said), "{said}: {error}");
    }
    // Forward again: what was rebuilt so far goes.
    again(&stage).await;
    run(client, "INSERT INTO t (id, fax) VALUES (5, NULL)").await;
    stage.migrator().rollback("fax", To::Start).await.expect_err("duplicates");
    run(client, "UPDATE t SET fax = 'row ' || id WHERE fax = ''").await;
    stage.back(0).await;
    same(&before, &catalog::dump(client).await, "the way back left a difference");
    let found = "SELECT string_agg(fax, ' ' ORDER BY id) FROM t";
    assert_eq!(one::<String>(client, found).await, "a row 2 row 3 row 4 row 5");
}

#[tokio::test]
async fn a_stale_value_neither_keeps_a_row_that_it_refers_to_nor_goes_with_it() {
    static CASE: Case = Case {
        setup: &[
            "CREATE TABLE lines (fax text PRIMARY KEY)",
            "INSERT INTO lines VALUES ('a'), ('b'), ('c')",
            "CREATE TABLE t (id int PRIMARY KEY, fax text CONSTRAINT line REFERENCES lines ON DELETE CASCADE, CONSTRAINT kept CHECK (fax <> 'd'))",
            "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')",
        ],
        migrations: &FAX,
        schema: "public",
    };
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    let before = catalog::dump(client).await;
    stage.forward(STOP_WRITES).await;
    run(client, "DELETE FROM lines WHERE fax = 'a'").await;
    assert_eq!(one::<i64>(client, "SELECT count(*) FROM t").await, 3, "a live row was deleted");
    // What becomes of the row is for a person to say; the key stands meanwhile, for the release that tends it.
    let error =
        stage.migrator().rollback("fax", To::Start).await.expect_err("a value that refers to nothing");
    assert_eq!(error.kind(), Kind::Step, "{error}");
    assert!(error.to_string().contains("line"), "{error}");
    assert_eq!(refused(client, "UPDATE t SET fax = 'x' WHERE id = 2").await, SqlState::FOREIGN_KEY_VIOLATION);
    again(&stage).await;
    run(client, "DELETE FROM lines WHERE fax = 'b'").await;
    run(client, "UPDATE t SET fax = 'd' WHERE id = 2").await;
    stage.forward(DROP).await;
    run(client, "DELETE FROM lines WHERE fax = 'c'").await;
    assert_eq!(one::<i64>(client, "SELECT count(*) FROM t").await, 3);
    let error = stage.migrator().rollback("fax", To::Start).await.expect_err("a value that is forbidden");
    assert!(error.to_string().contains("\"kept\"") && error.to_string().contains("id = 2"), "{error}");
    run(client, "UPDATE t SET fax = NULL").await;
    stage.back(0).await;
    same(&before, &catalog::dump(client).await, "the way back left a difference");
}

/// It enforced nothing, and rows that are alike were there before: so it is no reason to stay.
#[tokio::test]
async fn an_index_that_was_never_built_does_not_come_back() {
    static CASE: Case = Case {
        setup: &["CREATE TABLE t (id int PRIMARY KEY, fax text)", "INSERT INTO t VALUES (1, 'a'), (2, 'a')"],
        migrations: &FAX,
        schema: "public",
    };
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    let built = client.batch_execute("CREATE UNIQUE INDEX CONCURRENTLY t_fax ON t (fax)").await;
    assert_eq!(built.expect_err("two are alike").code(), Some(&SqlState::UNIQUE_VIOLATION));
    stage.forward(DROP).await;
    stage.back(0).await;
    assert_eq!(one::<i64>(client, "SELECT count(fax) FROM t").await, 2);
    assert!(one::<bool>(client, "SELECT to_regclass('t_fax') IS NULL").await);
}

#[tokio::test]
async fn the_plan_says_what_no_longer_follows_a_row_that_is_referred_to() {
    static CASE: Case = Case {
        setup: &[
            "CREATE TABLE lines (number text PRIMARY KEY)",
            "CREATE TABLE t (id int PRIMARY KEY, fax text CONSTRAINT follows REFERENCES lines ON DELETE SET NULL)",
        ],
        migrations: &FAX,
        schema: "public",
    };
    let stage = Stage::set(&CASE).await;
    let plan = stage.migrator().plan().await.expect("a plan");
    let warnings = &plan.migrations[0].warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("\"follows\"") && warnings[0].contains("\"lines\""), "{warnings:?}");
}

#[tokio::test]
async fn a_domain_that_has_a_say_gives_way_to_the_type_below_it() {
    static CASE: Case = Case {
        setup: &[
            "CREATE DOMAIN refuses AS text NOT NULL",
            "CREATE DOMAIN checks AS text CHECK (VALUE <> '')",
            "CREATE DOMAIN fills AS text DEFAULT 'none'",
            "CREATE TABLE t (id int PRIMARY KEY, fax fills)",
            "INSERT INTO t VALUES (1, 'a')",
        ],
        migrations: &FAX,
        schema: "public",
    };
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    let node = || one::<u32>(client, "SELECT pg_relation_filenode('t')");
    // Why: a rollback adds the column again.
    let added = client.batch_execute("ALTER TABLE t ADD again refuses").await.expect_err("a null");
    assert_eq!(added.code(), Some(&SqlState::NOT_NULL_VIOLATION));
    let before = node().await;
    run(client, "ALTER TABLE t ADD again checks").await;
    assert_ne!(before, node().await, "it was not rewritten");
    run(client, "ALTER TABLE t ADD anew fills").await;
    assert_eq!(one::<String>(client, "SELECT anew FROM t").await, "none");
    assert_eq!(stage.migrator().plan().await.expect_err("refused").kind(), Kind::Unsupported);
    // What to do takes no more than a moment.
    let before = node().await;
    run(client, "ALTER TABLE t ALTER fax TYPE text").await;
    assert_eq!(before, node().await, "it was rewritten");
    stage.forward(DROP).await;
    stage.back(0).await;
}
