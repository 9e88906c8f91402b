//! Rows that fail: named by their key, or set aside.

use phasewise::{
    BackfillPolicy, ChangeType, Kind, Migration, Migrations, OnFailingRow, RowSetAside, To, migrations,
};

use super::*;

/// Fails on a row whose `a` is no number.
static PARSE: Migrations =
    migrations![Migration::new("parse", AddColumn::new("t", "b", "int").backfill("{a}::int")).not_deployed()];

const ROWS: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, a text)",
    "INSERT INTO t SELECT i, i FROM generate_series(1, 100) i",
];

fn aside(rows: u32) -> BackfillPolicy {
    fixed(20).on_failing_row(OnFailingRow::SetAside(rows))
}

async fn set_aside(migrator: &Migrator) -> Vec<RowSetAside> {
    migrator.status().await.expect("a status").migrations[0].set_aside.clone()
}

async fn keys_aside(migrator: &Migrator) -> Vec<String> {
    let mut keys: Vec<String> = set_aside(migrator).await.into_iter().map(|row| row.key).collect();
    keys.sort();
    keys
}

async fn poison(client: &Client, ids: &str) {
    run(client, &format!("UPDATE t SET a = 'x' || id WHERE id IN ({ids})")).await;
}

async fn unfilled(client: &Client) -> String {
    one(client, "SELECT coalesce(string_agg(id::text, ' ' ORDER BY id), '') FROM t WHERE b IS NULL").await
}

#[tokio::test]
async fn one_is_named_and_what_is_done_stays_done() {
    let (database, client) = tables(ROWS).await;
    run(&client, "CREATE TABLE seen (id int)").await;
    run(
        &client,
        "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO seen VALUES (NEW.id); RETURN NULL; END$$",
    )
    .await;
    run(
        &client,
        "CREATE TRIGGER see AFTER UPDATE ON t FOR EACH ROW WHEN (current_setting('phasewise.backfill', true) <> '') EXECUTE FUNCTION see()",
    )
    .await;
    // In place: as it lies it is the 57th.
    run(&client, "UPDATE t SET a = 'x' || id WHERE id = 57").await;
    run(&client, "VACUUM FULL t").await;
    let migrator = migrator(&database, &PARSE, fixed(20));
    let error = fill(&migrator).await.expect_err("a row that is no number");
    assert_eq!(error.kind(), Kind::Backfill);
    let said = error.to_string();
    assert!(said.contains("id = 57") && said.contains("invalid input syntax for type integer"), "{said}");
    let before: i64 = one(&client, "SELECT count(*) FROM t WHERE b IS NOT NULL").await;
    assert!(before > 40, "{before}");
    assert_eq!(under_way(&migrator).await.done, u64::try_from(before).expect("a count"));

    run(&client, "UPDATE t SET a = 57 WHERE id = 57").await;
    fill(&migrator).await.expect("filled");
    assert_eq!(unfilled(&client).await, "");
    assert_eq!(
        one::<i64>(&client, "SELECT count(*) - count(DISTINCT id) FROM seen").await,
        0,
        "written twice"
    );
}

#[tokio::test]
async fn as_many_are_set_aside_as_the_policy_says() {
    let (database, client) = tables(ROWS).await;
    poison(&client, "7, 8, 57").await;
    let (migrator, ears) = ears(migrator(&database, &PARSE, aside(3)));
    let report = fill(&migrator).await.expect("filled but for three");
    assert_eq!(report.migrations[0].rows, 97);
    assert_eq!(unfilled(&client).await, "7 8 57");
    let rows = set_aside(&migrator).await;
    assert_eq!(keys_aside(&migrator).await, ["id = 57", "id = 7", "id = 8"]);
    for row in &rows {
        assert_eq!(row.relation, "\"public\".\"t\"");
        assert!(
            row.error.contains("invalid input syntax for type integer") && row.error.contains("22P02"),
            "{row:?}"
        );
    }
    let line = migrator.status().await.expect("a status").to_string();
    assert!(line.contains("; 3 rows are set aside, the one with id = "), "{line}");
    drop(migrator);
    let heard = ears.rest().await;
    assert_eq!(heard.iter().filter(|heard| matches!(heard, Heard::Aside { .. })).count(), 3, "{heard:?}");
}

#[tokio::test]
async fn one_more_stops_it_and_mended_ones_are_filled_next_time() {
    let (database, client) = tables(ROWS).await;
    poison(&client, "7, 8, 57").await;
    let migrator = migrator(&database, &PARSE, aside(2));
    let error = fill(&migrator).await.expect_err("a third one");
    assert_eq!(error.kind(), Kind::Backfill);
    let said = error.to_string();
    assert!(said.contains("2 rows are set aside already") && said.contains("the row with id = "), "{said}");
    assert_eq!(set_aside(&migrator).await.len(), 2);

    run(&client, "UPDATE t SET a = id WHERE id IN (8, 57)").await;
    fill(&migrator).await.expect("filled but for one");
    assert_eq!(unfilled(&client).await, "7");
    assert_eq!(keys_aside(&migrator).await, ["id = 7"]);
}

#[tokio::test]
async fn they_are_known_after_a_crash() {
    let (database, client) = tables(ROWS).await;
    poison(&client, "7").await;
    run(&client, "VACUUM FULL t").await;
    let (first, mut ears) =
        ears(migrator(&database, &PARSE, aside(1).fixed(1).pause(Duration::from_millis(5))));
    let running = filling(first);
    ears.until(|heard| matches!(heard, Heard::Aside { .. })).await;
    running.abort();
    assert!(running.await.expect_err("dropped").is_cancelled());
    assert!(ears.rest().await.len() < 90, "it was done by then");
    let second = migrator(&database, &PARSE, aside(1));
    assert_eq!(keys_aside(&second).await, ["id = 7"]);
    fill(&second).await.expect("filled but for one");
    assert_eq!(unfilled(&client).await, "7");
    assert_eq!(keys_aside(&second).await, ["id = 7"]);
}

#[tokio::test]
async fn a_rollback_forgets_them() {
    let (database, client) = tables(ROWS).await;
    poison(&client, "7, 8").await;
    let migrator = migrator(&database, &PARSE, aside(5));
    fill(&migrator).await.expect("filled but for two");
    assert_eq!(set_aside(&migrator).await.len(), 2);
    migrator.rollback("parse", To::Start).await.expect("back");
    assert_eq!(set_aside(&migrator).await.len(), 0);
    run(&client, "UPDATE t SET a = id").await;
    fill(&migrator).await.expect("filled");
    assert_eq!(unfilled(&client).await, "");
}

#[tokio::test]
async fn a_trigger_of_the_users_that_raises() {
    let (database, client) = tables(ROWS).await;
    run(&client, "CREATE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'row % is sacred', NEW.id; END$$").await;
    run(
        &client,
        "CREATE TRIGGER veto BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.id = 30) EXECUTE FUNCTION veto()",
    )
    .await;
    let error = fill(&migrator(&database, &PARSE, fixed(20))).await.expect_err("a veto");
    assert!(
        error.to_string().contains("id = 30") && error.to_string().contains("row 30 is sacred"),
        "{error}"
    );
    let migrator = migrator(&database, &PARSE, aside(1));
    fill(&migrator).await.expect("filled but for one");
    assert_eq!(keys_aside(&migrator).await, ["id = 30"]);
    assert_eq!(unfilled(&client).await, "30");
}

/// What fails at the commit only is found all the same.
#[tokio::test]
async fn a_constraint_that_is_checked_at_the_commit() {
    let (database, client) = tables(ROWS).await;
    run(&client, "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'too late for %', NEW.id; END$$").await;
    run(
        &client,
        "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW WHEN (NEW.id = 30) EXECUTE FUNCTION late()",
    )
    .await;
    let migrator = migrator(&database, &PARSE, aside(1));
    fill(&migrator).await.expect("filled but for one");
    assert_eq!(keys_aside(&migrator).await, ["id = 30"]);
    assert_eq!(unfilled(&client).await, "30");
}

/// A value that an index has no room for.
#[tokio::test]
async fn a_value_that_is_too_long_for_an_index() {
    static LONG: Migrations = migrations![
        Migration::new(
            "long",
            AddColumn::new("t", "b", "text").backfill("CASE {id} WHEN 30 THEN {a} ELSE 'short' END")
        )
        .not_deployed()
    ];
    let (database, client) = tables(ROWS).await;
    run(
        &client,
        "UPDATE t SET a = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 300) i) WHERE id = 30",
    )
    .await;
    let migrator = migrator(&database, &LONG, aside(1));
    migrator.run_to("long", "WriteNew").await.expect("the column is there");
    run(&client, "CREATE INDEX ON t (b)").await;
    fill(&migrator).await.expect("filled but for one");
    assert_eq!(keys_aside(&migrator).await, ["id = 30"]);
    assert_eq!(unfilled(&client).await, "30");
}

#[tokio::test]
async fn of_a_key_of_several_columns_all_are_named() {
    let (database, client) = tables(&[
        "CREATE TABLE t (id int, \"the %s\" text, a text, PRIMARY KEY (\"the %s\", id))",
        "INSERT INTO t SELECT i, 'it''s \\', i FROM generate_series(1, 100) i",
    ])
    .await;
    poison(&client, "30").await;
    let migrator = migrator(&database, &PARSE, aside(1));
    fill(&migrator).await.expect("filled but for one");
    assert_eq!(keys_aside(&migrator).await, ["the %s = it's \\, id = 30"]);
    assert_eq!(unfilled(&client).await, "30");
}

#[tokio::test]
async fn without_a_key_none_can_be_set_aside() {
    let (database, client) = tables(&["CREATE TABLE t (id int, a text)", ROWS[1]]).await;
    poison(&client, "30").await;
    let error = fill(&migrator(&database, &PARSE, aside(5))).await.expect_err("no key");
    assert_eq!(error.kind(), Kind::Backfill);
    let tuple: String = one(&client, "SELECT 't ' || ctid FROM t WHERE id = 30").await;
    let said = error.to_string();
    assert!(said.contains("there is no key to find it by again") && said.contains(&tuple), "{said}");
}

/// Written behind the walk, where only the verification meets it.
async fn behind_the_walk(policy: BackfillPolicy) -> (Client, Migrator, Result<Report, Error>) {
    let (database, client) = tables(ROWS).await;
    let (watched, mut ears) = stepwise(migrator(&database, &PARSE, policy));
    let running = filling(watched);
    ears.batch().await;
    while !one::<bool>(&client, "SELECT bool_and(ended) FROM phasewise.backfills").await {
        ears.go();
        ears.batch().await;
    }
    run(&client, "INSERT INTO t VALUES (101, 'x'), (102, 102)").await;
    ears.run();
    let ended = running.await.expect("no panic");
    drop(ears);
    (client, migrator(&database, &PARSE, policy), ended)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_only_the_verification_meets_is_named() {
    let (client, migrator, ended) = behind_the_walk(fixed(20)).await;
    let error = ended.expect_err("a row that is no number");
    assert_eq!(error.kind(), Kind::Backfill, "{error}");
    assert!(error.to_string().contains("id = 101"), "{error}");
    run(&client, "UPDATE t SET a = id WHERE id = 101").await;
    fill(&migrator).await.expect("filled");
    assert_eq!(unfilled(&client).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_only_the_verification_meets_is_set_aside() {
    let (client, migrator, ended) = behind_the_walk(aside(1)).await;
    ended.expect("filled but for one");
    assert_eq!(keys_aside(&migrator).await, ["id = 101"]);
    assert_eq!(unfilled(&client).await, "101");
}

/// Left out of its batch because it was locked; it fails when it is come back to.
#[tokio::test]
async fn one_that_was_locked_is_set_aside() {
    let (database, client) = tables(ROWS).await;
    migrator(&database, &PARSE, aside(1)).run_to("parse", "WriteNew").await.expect("the column is there");
    let holder = database.connect().await.expect("a connection");
    run(&holder, "BEGIN; UPDATE t SET a = a WHERE id = 30").await;
    let (migrator, mut ears) = ears(migrator(&database, &PARSE, aside(1)));
    let running = filling(migrator.clone());
    let mut done = 0;
    while done < 100 {
        done = ears.batch().await.done;
    }
    // The row as its batch saw it was a number.
    run(&holder, "UPDATE t SET a = 'x' WHERE id = 30; COMMIT").await;
    filled(running).await;
    assert_eq!(keys_aside(&migrator).await, ["id = 30"]);
    assert_eq!(unfilled(&client).await, "30");
}

/// The way back must not take "not filled" for "empty".
#[tokio::test]
async fn a_rollback_keeps_what_could_not_be_carried_over() {
    static RETYPE: Migrations = migrations![
        Migration::new(
            "retype",
            ChangeType::new("t", "a", "b", "int").up("{a}::int").down("{b}::text").kept_in_sync()
        )
        .not_deployed()
    ];
    let (database, client) = tables(ROWS).await;
    poison(&client, "30").await;
    run(&client, "CREATE TABLE before AS SELECT * FROM t").await;
    let migrator = migrator(&database, &RETYPE, aside(1));
    fill(&migrator).await.expect("filled but for one");
    assert_eq!(keys_aside(&migrator).await, ["id = 30"]);
    run(&client, "UPDATE t SET b = 1000 WHERE id = 40").await;
    // The column that is to be given up has the only value of that row.
    migrator.run_to("retype", "RemoveSync").await.expect_err("a row that is not carried over");
    migrator.rollback("retype", To::Start).await.expect("back");
    assert_eq!(one::<String>(&client, "SELECT a FROM t WHERE id = 40").await, "1000");
    assert_eq!(one::<Option<String>>(&client, "SELECT a FROM t WHERE id = 30").await.as_deref(), Some("x30"));
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t JOIN before USING (id, a)").await, 99);
}

/// What a batch failed on may be gone by the time that its row is named.
#[tokio::test]
async fn one_that_does_not_fail_again_is_filled() {
    let (database, client) = tables(ROWS).await;
    for sql in [
        "CREATE SEQUENCE tries",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
           IF nextval('tries') <= 6 THEN RAISE 'not now'; END IF; RETURN NEW; END$$",
        "CREATE TRIGGER refuse BEFORE UPDATE ON t FOR EACH ROW WHEN (current_setting('phasewise.backfill', true) <> '')
         EXECUTE FUNCTION refuse()",
    ] {
        run(&client, sql).await;
    }
    // Of 16, 8, 4, 2 and of one; the sixth time it is asked for by its name, and set aside.
    let migrator = migrator(&database, &PARSE, fixed(16).on_failing_row(OnFailingRow::SetAside(5)));
    fill(&migrator).await.expect("filled");
    assert_eq!(keys_aside(&migrator).await, ["id = 1"]);
    assert_eq!(unfilled(&client).await, "1");
    run(&client, "ALTER SEQUENCE tries RESTART 2").await;
    run(&client, "UPDATE t SET b = NULL").await;
    migrator.rollback("parse", To::Start).await.expect("a rollback");
    run(&client, "ALTER SEQUENCE tries RESTART 2").await;
    fill(&migrator).await.expect("filled");
    assert_eq!(keys_aside(&migrator).await, [""; 0]);
    assert_eq!(unfilled(&client).await, "");
}

/// However many workers meet one at the same time.
#[tokio::test]
async fn workers_together_set_aside_no_more_than_the_policy_says() {
    let (database, client) = tables(&[
        "CREATE TABLE t (id int PRIMARY KEY, a text, pad text) WITH (autovacuum_enabled = off)",
        "INSERT INTO t SELECT i, CASE WHEN i % 700 = 1 THEN 'x' ELSE i::text END, repeat('x', 300) FROM generate_series(1, 6000) i",
    ])
    .await;
    let policy = fixed(20).workers(4).on_failing_row(OnFailingRow::SetAside(2));
    let error = fill(&migrator(&database, &PARSE, policy)).await.expect_err("more rows fail");
    assert!(error.to_string().contains(" 2 rows are set aside already."), "{error}");
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM phasewise.set_aside").await, 2);
}

/// A client that holds one of them keeps nothing else from being filled.
#[tokio::test]
async fn one_that_is_locked_is_tried_again_another_time() {
    let (database, client) = tables(ROWS).await;
    poison(&client, "7").await;
    let (first, mut ears) = ears(migrator(&database, &PARSE, aside(1).pause(Duration::from_millis(50))));
    let running = filling(first);
    ears.until(|heard| matches!(heard, Heard::Aside { .. })).await;
    running.abort();
    assert!(running.await.expect_err("dropped").is_cancelled());
    let holder = database.connect().await.expect("a connection");
    run(&holder, "BEGIN; SELECT FROM t WHERE id = 7 FOR UPDATE").await;
    let migrator = migrator(&database, &PARSE, aside(1));
    fill(&migrator).await.expect("filled but for one");
    assert_eq!(keys_aside(&migrator).await, ["id = 7"]);
    assert_eq!(unfilled(&client).await, "7");
}
