//! Traps that a naive migration falls into, one test each.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use phasewise::{
    AddColumn, AddIndex, ChangeType, DropColumn, Event, Kind, Migration, Migrations, RenameColumn, State,
    migrations,
};
use tokio_postgres::error::SqlState;

use crate::harness::{Case, Stage, one, run};

const T: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, a text NOT NULL)",
    "INSERT INTO t SELECT i, 'old ' || i FROM generate_series(1, 50) i",
];
const NUMBERS: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL UNIQUE)",
    "INSERT INTO t SELECT i, i FROM generate_series(1, 50) i",
];

static RENAME: Migrations =
    migrations![Migration::new("rename", RenameColumn::new("t", "a", "b")).not_deployed()];
static SYNCED: Migrations =
    migrations![Migration::new("synced", RenameColumn::new("t", "a", "b").kept_in_sync()).not_deployed()];
static LOSSY: Migrations = migrations![
    Migration::new(
        "lossy",
        ChangeType::new("t", "a", "b", "bigint")
            .up("{a}::bigint")
            .down("case when {b} between -2147483648 and 2147483647 then {b}::int end")
            .kept_in_sync()
    )
    .not_deployed()
];

const fn case(setup: &'static [&'static str], migrations: &'static Migrations) -> Case {
    Case { setup, migrations, schema: "public" }
}

/// The number of a phase.
fn number(case: &Case, phase: &str) -> usize {
    case.phases().iter().position(|info| info.name == phase).expect("a phase") + 1
}

#[tokio::test]
async fn dual_writing_races_and_the_backfill_repairs_it() {
    static CASE: Case = case(T, &RENAME);
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    stage.forward(number(&CASE, "WriteBoth")).await;
    // Release 1 writes both; release 0, still alive, then updates what it knows. The new column is stale, not null.
    run(client, "UPDATE t SET a = 'both', b = 'both' WHERE id = 1").await;
    run(client, "UPDATE t SET a = 'the last word' WHERE id = 1").await;
    assert_eq!(one::<String>(client, "SELECT b FROM t WHERE id = 1").await, "both");
    stage.forward(number(&CASE, "Backfill")).await;
    assert_eq!(one::<String>(client, "SELECT b FROM t WHERE id = 1").await, "the last word");
    assert_eq!(one::<i64>(client, "SELECT count(*) FROM t WHERE a IS DISTINCT FROM b").await, 0);
}

#[tokio::test]
async fn a_release_that_writes_one_column_only_is_caught_before_the_old_one_is_freed() {
    static CASE: Case = case(T, &RENAME);
    let stage = Stage::set(&CASE).await;
    stage.forward(number(&CASE, "SwitchReads")).await;
    run(&stage.client, "UPDATE t SET a = 'forgot the other' WHERE id = 1").await;
    let migrator = stage.migrator();
    migrator.confirm("rename", "SwitchReads").await.expect("confirmed");
    let error = migrator.run_to("rename", "StopOldWrites").await.expect_err("columns that disagree");
    assert!(error.to_string().contains("do not agree on every row"), "{error}");
    run(&stage.client, "UPDATE t SET b = a WHERE id = 1").await;
    stage.forward(number(&CASE, "StopOldWrites")).await;
}

#[tokio::test]
async fn sync_triggers_find_their_types_whatever_the_clients_search_path_is() {
    static MOODS: &[&str] = &[
        "CREATE TYPE mood AS ENUM ('glum', 'gay')",
        "CREATE DOMAIN feeling AS text",
        "CREATE TABLE t (id int PRIMARY KEY, a mood)",
    ];
    static FELT: Migrations = migrations![
        Migration::new(
            "felt",
            ChangeType::new("t", "a", "b", "text").up("{a}::text::feeling").down("{b}::mood").kept_in_sync()
        )
        .not_deployed(),
    ];
    static RENAMED: Case = case(MOODS, &SYNCED);
    static RETYPED: Case = case(MOODS, &FELT);
    for case in [&RENAMED, &RETYPED] {
        let stage = Stage::set(case).await;
        stage.forward(number(case, "SwitchOver")).await;
        let client = stage.database.connect().await.expect("a connection");
        run(&client, "SET search_path = pg_catalog").await;
        run(&client, "INSERT INTO public.t (id, a) VALUES (1, 'glum')").await;
        run(&client, "INSERT INTO public.t (id, b) VALUES (2, 'glum')").await;
        run(&client, "UPDATE public.t SET a = 'gay' WHERE id = 1").await;
        run(&client, "UPDATE public.t SET b = 'gay' WHERE id = 2").await;
        assert_eq!(
            one::<i64>(&client, "SELECT count(*) FROM public.t WHERE a::text = 'gay' AND b::text = 'gay'")
                .await,
            2
        );
    }
}

#[tokio::test]
async fn a_column_that_a_conversion_reads_is_not_dropped_under_its_triggers() {
    static SETUP: &[&str] = &["CREATE TABLE t (id int PRIMARY KEY, a int, unit text)"];
    static BOTH: Migrations = migrations![
        Migration::new(
            "priced",
            ChangeType::new("t", "a", "b", "text")
                .up("{a} || {unit}")
                .down("rtrim({b}, {unit})::int")
                .kept_in_sync()
        )
        .not_deployed(),
        Migration::new("no_unit", DropColumn::new("t", "unit")).not_deployed(),
    ];
    static CASE: Case = case(SETUP, &BOTH);
    let stage = Stage::set(&CASE).await;
    let report = stage.migrator().run().await.expect("as far as gates are open");
    let held = report.get("no_unit").expect("it was looked at");
    assert!(matches!(&held.state, State::HeldUp { by, .. } if by == "priced"), "{held:?}");
}

#[tokio::test]
async fn nulls_not_distinct_is_of_15() {
    static SETUP: &[&str] = &["CREATE TABLE t (id int PRIMARY KEY, a int)", "INSERT INTO t VALUES (1, NULL)"];
    static LONE: Migrations = migrations![Migration::new(
        "lone",
        AddIndex::new("t", "lone").columns(&["a"]).unique().nulls_not_distinct()
    )];
    static CASE: Case = case(SETUP, &LONE);
    let stage = Stage::set(&CASE).await;
    let ran = stage.migrator().run().await;
    if one::<i32>(&stage.client, "SELECT current_setting('server_version_num')::int").await < 150_000 {
        assert_eq!(ran.expect_err("an older server").kind(), Kind::Unsupported);
        return;
    }
    ran.expect("the index is built");
    let again =
        stage.client.batch_execute("INSERT INTO t VALUES (2, NULL)").await.expect_err("a second null");
    assert_eq!(again.code(), Some(&SqlState::UNIQUE_VIOLATION));
}

#[tokio::test]
async fn column_options_are_carried_over() {
    static SETUP: &[&str] = &[
        "CREATE TABLE t (id int PRIMARY KEY, a text)",
        "ALTER TABLE t ALTER a SET (n_distinct = 100, n_distinct_inherited = -0.5)",
    ];
    static CASE: Case = case(SETUP, &RENAME);
    let stage = Stage::set(&CASE).await;
    stage.forward(1).await;
    let options =
        "SELECT attoptions::text FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'b'";
    assert_eq!(one::<String>(&stage.client, options).await, "{n_distinct=100,n_distinct_inherited=-0.5}");
}

#[tokio::test]
async fn not_null_is_proven_without_a_scan_under_a_strong_lock() {
    static FILL: Migrations = migrations![
        Migration::new("fill", AddColumn::new("t", "b", "text").backfill("{a}").not_null()).not_deployed()
    ];
    static CASE: Case = case(T, &FILL);
    let stage = Stage::set(&CASE).await;
    let steps = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&steps);
    let migrator = stage.migrator().observe(move |event: &Event<'_>| {
        if let Event::StepStarted { step, phase: "EnforceNotNull", .. } = event {
            heard.lock().expect("not poisoned").push((*step).clone());
        }
    });
    for number in 1..=CASE.phases().len() {
        stage.enter(&migrator, number).await;
    }
    let steps = std::mem::take(&mut *steps.lock().expect("not poisoned"));
    assert!(steps.iter().any(|step| step.scans), "somebody must have looked at the rows");
    for step in steps.iter().filter(|step| step.scans) {
        assert!(step.locks.iter().all(|lock| !lock.mode.blocks_writes()), "{step:?}");
    }
    assert!(
        one::<bool>(
            &stage.client,
            "SELECT attnotnull FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'b'"
        )
        .await
    );
    // What proved it is gone.
    assert_eq!(
        one::<i64>(
            &stage.client,
            "SELECT count(*) FROM pg_constraint WHERE conrelid = 't'::regclass AND contype = 'c'"
        )
        .await,
        0
    );
}

#[tokio::test]
async fn a_not_null_that_a_row_breaks_is_reported_by_its_key() {
    static FILL: Migrations = migrations![
        Migration::new("fill", AddColumn::new("t", "b", "text").backfill("nullif({a}, 'old 7')").not_null())
            .not_deployed()
    ];
    static CASE: Case = case(T, &FILL);
    let stage = Stage::set(&CASE).await;
    stage.forward(number(&CASE, "WriteNew")).await;
    let migrator = stage.migrator();
    migrator.confirm("fill", "WriteNew").await.expect("confirmed");
    let error = migrator.run().await.expect_err("a null");
    assert_eq!(error.kind(), Kind::Backfill);
    assert!(error.to_string().contains("id = 7"), "{error}");
    run(&stage.client, "UPDATE t SET b = 'by hand' WHERE id = 7").await;
    stage.forward(number(&CASE, "Backfill")).await;
}

/// A row that an update moves behind the scan, by the very last batch.
#[tokio::test]
async fn rows_that_hop_behind_the_backfill_are_found() {
    static CASE: Case = case(
        &[
            "CREATE TABLE t (id int, a text NOT NULL, pad text) WITH (fillfactor = 100)",
            "INSERT INTO t SELECT i, 'old ' || i, repeat('p', 1000) FROM generate_series(1, 60) i",
        ],
        &RENAME,
    );
    let stage = Stage::set(&CASE).await;
    stage.forward(number(&CASE, "WriteBoth")).await;
    // Room at the front, so that what is written late lands there.
    run(&stage.client, "DELETE FROM t WHERE id <= 14").await;
    run(&stage.client, "VACUUM t").await;
    let (asks, asked) = std::sync::mpsc::channel::<std::sync::mpsc::Sender<()>>();
    let config = stage.database.config();
    let hopper = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (client, connection) = config.connect(tokio_postgres::NoTls).await.expect("a connection");
            tokio::spawn(connection);
            let mut hops = 0;
            while let Ok(done) = asked.recv() {
                // As release 1 does to rows which it does not change: the last ones move to the front, unfilled. Once:
                // who does so for ever is not to be caught up with.
                if hops == 0 {
                    let sql = "UPDATE t SET pad = pad WHERE id > 55 AND b IS NULL RETURNING (ctid::text::point)[0] < 2";
                    let hopped = client.query(sql, &[]).await.expect("hops");
                    hops += hopped.iter().filter(|row| row.get(0)).count();
                }
                done.send(()).expect("somebody waits");
            }
            hops
        })
    });
    let asks = Mutex::new(asks);
    let migrator = stage.migrator().observe(move |event: &Event<'_>| {
        if let Event::BatchDone { .. } = event {
            let (done, wait) = std::sync::mpsc::channel();
            asks.lock().expect("not poisoned").send(done).expect("a hopper");
            wait.recv().expect("a hop");
        }
    });
    stage.enter(&migrator, number(&CASE, "Backfill")).await;
    drop(migrator);
    assert!(hopper.join().expect("a hopper") > 0, "no row moved behind the scan");
    assert_eq!(one::<i64>(&stage.client, "SELECT count(*) FROM t WHERE b IS DISTINCT FROM a").await, 0);
}

#[tokio::test]
async fn what_an_insert_means_to_the_triggers() {
    static CASE: Case = case(T, &SYNCED);
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    stage.forward(number(&CASE, "SwitchOver")).await;
    let both = |id: i32| format!("SELECT a || '/' || b FROM t WHERE id = {id}");
    run(client, "INSERT INTO t (id, a) VALUES (101, 'old')").await;
    assert_eq!(one::<String>(client, &both(101)).await, "old/old");
    run(client, "INSERT INTO t (id, b) VALUES (102, 'new')").await;
    assert_eq!(one::<String>(client, &both(102)).await, "new/new");
    // The new column wins where both are given.
    run(client, "INSERT INTO t (id, a, b) VALUES (103, 'old', 'new')").await;
    assert_eq!(one::<String>(client, &both(103)).await, "new/new");
    // Neither: NOT NULL holds on both.
    let error = client.batch_execute("INSERT INTO t (id) VALUES (104)").await.expect_err("a null");
    assert_eq!(error.code(), Some(&SqlState::NOT_NULL_VIOLATION));

    run(client, "UPDATE t SET a = 'a1' WHERE id = 101").await;
    assert_eq!(one::<String>(client, &both(101)).await, "a1/a1");
    run(client, "UPDATE t SET b = 'b1' WHERE id = 101").await;
    assert_eq!(one::<String>(client, &both(101)).await, "b1/b1");
    // An update that says what is there already is none.
    run(client, "UPDATE t SET a = 'a2', b = 'b1' WHERE id = 101").await;
    assert_eq!(one::<String>(client, &both(101)).await, "a2/a2");
}

#[tokio::test]
async fn copy_merge_and_on_conflict_go_through_the_triggers() {
    static CASE: Case = case(T, &SYNCED);
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    stage.forward(number(&CASE, "SwitchOver")).await;
    for (column, id) in [("a", 200), ("b", 300)] {
        copy(&stage, column, id).await;
        run(client, &format!("INSERT INTO t (id, {column}) VALUES (1, 'upserted {column}') ON CONFLICT (id) DO UPDATE SET {column} = excluded.{column}")).await;
        assert_eq!(
            one::<String>(client, "SELECT a || b FROM t WHERE id = 1").await,
            format!("upserted {column}upserted {column}")
        );
        if one::<i32>(client, "SELECT current_setting('server_version_num')::int").await >= 150_000 {
            run(client, &format!("MERGE INTO t USING (VALUES (2), ({id} + 1)) AS v (id) ON t.id = v.id
                WHEN MATCHED THEN UPDATE SET {column} = 'merged {column}' WHEN NOT MATCHED THEN INSERT (id, {column}) VALUES (v.id, 'merged {column}')")).await;
            let sql = format!(
                "SELECT count(*) FROM t WHERE id IN (2, {id} + 1) AND a = 'merged {column}' AND b = a"
            );
            assert_eq!(one::<i64>(client, &sql).await, 2);
        }
    }
    assert_eq!(
        one::<i64>(client, "SELECT count(*) FROM t WHERE id IN (200, 300) AND a = 'copied' AND b = 'copied'")
            .await,
        2
    );
}

/// `COPY … FROM STDIN` of one line.
async fn copy(stage: &Stage, column: &str, id: i32) {
    use tokio_postgres::binary_copy::BinaryCopyInWriter;
    use tokio_postgres::types::Type;
    let sink = stage.client.copy_in(&format!("COPY t (id, {column}) FROM STDIN (FORMAT binary)")).await;
    let writer = BinaryCopyInWriter::new(sink.expect("a copy"), &[Type::INT4, Type::TEXT]);
    let mut writer = std::pin::pin!(writer);
    writer.as_mut().write(&[&id, &"copied"]).await.expect("written");
    writer.finish().await.expect("copied");
}

#[tokio::test]
async fn an_explicit_null_from_the_new_release_becomes_the_sources_default() {
    static CASE: Case = case(
        &["CREATE TABLE t (id int PRIMARY KEY, a text DEFAULT 'the default')", "INSERT INTO t VALUES (1)"],
        &SYNCED,
    );
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    stage.forward(number(&CASE, "SwitchOver")).await;
    // The trigger cannot tell it from an old release's insert; the plan says so.
    run(client, "INSERT INTO t (id, b) VALUES (2, NULL)").await;
    assert_eq!(
        one::<String>(client, "SELECT a || '/' || b FROM t WHERE id = 2").await,
        "the default/the default"
    );
    // An update to null is a change like any other.
    run(client, "UPDATE t SET b = NULL WHERE id = 2").await;
    assert!(one::<bool>(client, "SELECT a IS NULL AND b IS NULL FROM t WHERE id = 2").await);
    run(client, "UPDATE t SET a = 'back' WHERE id = 2").await;
    assert_eq!(one::<String>(client, "SELECT b FROM t WHERE id = 2").await, "back");
    run(client, "UPDATE t SET a = NULL WHERE id = 2").await;
    assert!(one::<bool>(client, "SELECT a IS NULL AND b IS NULL FROM t WHERE id = 2").await);
}

#[tokio::test]
async fn an_update_across_partitions_keeps_what_was_written() {
    static CASE: Case = case(
        &[
            "CREATE TABLE t (id int, a text, part int NOT NULL) PARTITION BY LIST (part)",
            "CREATE TABLE t0 PARTITION OF t FOR VALUES IN (0)",
            "CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)",
            "INSERT INTO t VALUES (1, 'one', 0)",
        ],
        &SYNCED,
    );
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    let both = "SELECT concat(a, '/', b) FROM t WHERE id = 1";
    // Before the backfill, too: there the new column of the moving row is null.
    stage.forward(number(&CASE, "InstallSync")).await;
    run(client, "UPDATE t SET part = 1 WHERE id = 1").await;
    assert_eq!(one::<String>(client, both).await, "one/one");
    for (set, is) in [
        ("a = 'two'", "two/two"),
        ("b = 'three'", "three/three"),
        ("a = NULL", "/"),
        ("b = 'four'", "four/four"),
        ("b = NULL", "/"),
    ] {
        run(client, &format!("UPDATE t SET {set}, part = 1 - part WHERE id = 1")).await;
        assert_eq!(one::<String>(client, both).await, is, "{set}");
    }
}

#[tokio::test]
async fn where_down_has_no_value_the_old_column_reads_null_and_is_whole_again_after_the_rollback() {
    static CASE: Case = case(NUMBERS, &LOSSY);
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    let before = crate::harness::catalog::dump(client).await;
    stage.forward(number(&CASE, "SwitchOver")).await;
    run(client, "INSERT INTO t (id, b) VALUES (100, 3000000000), (101, 3000000001)").await;
    run(client, "UPDATE t SET b = 5000000000 WHERE id = 5").await;
    assert_eq!(one::<i64>(client, "SELECT count(*) FROM t WHERE a IS NULL").await, 3);
    // Neither column takes a null of the clients' own.
    for column in ["a", "b"] {
        let error = client.batch_execute(&format!("INSERT INTO t (id, {column}) VALUES (102, NULL)")).await;
        assert_eq!(error.expect_err("a null").code(), Some(&SqlState::NOT_NULL_VIOLATION));
    }
    // What has no place in the old type keeps the way back shut, by name, until somebody decides.
    stage.forward(CASE.phases().len()).await;
    let migrator = stage.migrator();
    migrator.rollback("lossy", "RemoveSync").await.expect("the column is there again");
    assert_eq!(one::<i64>(client, "SELECT count(*) FROM t WHERE a IS NULL").await, 3);
    migrator.rollback("lossy", "Backfill").await.expect("nulls are allowed there");
    let error = migrator.rollback("lossy", "InstallSync").await.expect_err("NOT NULL cannot come back");
    assert_eq!(error.code(), Some(&SqlState::CHECK_VIOLATION), "{error}");
    run(client, "DELETE FROM t WHERE id >= 100").await;
    run(client, "UPDATE t SET a = 5 WHERE id = 5").await;
    stage.back(0).await;
    crate::harness::same(&before, &crate::harness::catalog::dump(client).await, "the catalog differs");
    assert_eq!(one::<i64>(client, "SELECT count(*) FROM t WHERE a = id").await, 50);
}

#[tokio::test]
async fn values_that_the_new_type_cannot_hold_come_back_from_the_archive() {
    static ROUNDED: Migrations = migrations![
        Migration::new(
            "rounded",
            ChangeType::new("t", "a", "b", "int")
                .up("round({a})::int")
                .down("{b}::numeric(8, 2)")
                .kept_in_sync()
        )
        .not_deployed()
    ];
    static CASE: Case = case(
        &[
            "CREATE TABLE t (id int PRIMARY KEY, a numeric(8, 2) NOT NULL)",
            "INSERT INTO t VALUES (1, 1.25), (2, 2.00), (3, 3.49)",
        ],
        &ROUNDED,
    );
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    stage.forward(CASE.phases().len()).await;
    // One row is written by the new release after the drop: there the new value counts.
    run(client, "UPDATE t SET b = 7 WHERE id = 3").await;
    stage.back(0).await;
    let found: BTreeSet<String> = client
        .query("SELECT id || '=' || a FROM t", &[])
        .await
        .expect("rows")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(found, ["1=1.25", "2=2.00", "3=7.00"].map(str::to_owned).into());
}

#[tokio::test]
async fn a_stale_source_enforces_nothing() {
    static CASE: Case = case(
        &[
            "CREATE TABLE p (code text PRIMARY KEY)",
            "CREATE TABLE t (id int PRIMARY KEY, a text NOT NULL UNIQUE REFERENCES p ON DELETE CASCADE)",
            "INSERT INTO p SELECT 'p' || i FROM generate_series(1, 9) i",
            "INSERT INTO t VALUES (1, 'p1'), (2, 'p2')",
        ],
        &RENAME,
    );
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    stage.forward(number(&CASE, "StopOldWrites")).await;
    // Release 3 writes the target only: the source still says p1.
    run(client, "UPDATE t SET b = 'p3' WHERE id = 1").await;
    run(client, "DELETE FROM p WHERE code = 'p1'").await;
    assert_eq!(one::<i64>(client, "SELECT count(*) FROM t WHERE id = 1").await, 1, "a live row was deleted");
    run(client, "INSERT INTO t (id, b) VALUES (3, 'p4')").await;
    run(client, "DELETE FROM p WHERE code = 'p2'").await;
    assert_eq!(one::<i64>(client, "SELECT count(*) FROM t").await, 2, "the target cascades");
    stage.back(0).await;
    assert_eq!(one::<String>(client, "SELECT string_agg(id || a, ' ' ORDER BY id) FROM t").await, "1p3 3p4");
}

#[tokio::test]
async fn a_dropped_column_comes_back_with_its_values_and_fills_what_was_written_without_it() {
    static DROP: Migrations = migrations![
        Migration::new("drop", DropColumn::new("t", "a").restore_with("'row ' || {id}").soak(Duration::ZERO))
            .not_deployed()
    ];
    static CASE: Case = case(T, &DROP);
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    stage.forward(number(&CASE, "StopWrites")).await;
    run(client, "INSERT INTO t (id) VALUES (100)").await;
    stage.forward(CASE.phases().len()).await;
    run(client, "INSERT INTO t (id) VALUES (101)").await;
    run(client, "DELETE FROM t WHERE id = 3").await;
    stage.back(0).await;
    assert_eq!(
        one::<i64>(
            client,
            "SELECT count(*) FROM t WHERE a = CASE WHEN id < 100 THEN 'old ' ELSE 'row ' END || id"
        )
        .await,
        51
    );
}
