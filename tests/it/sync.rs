//! What each clause of the sync triggers is there for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use phasewise::{ChangeType, Event, Migration, Migrations, RenameColumn, migrations};
use tokio_postgres::Client;

use crate::harness::{Case, Stage, one, run};

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
static ROUNDED: Migrations = migrations![
    Migration::new(
        "rounded",
        ChangeType::new("t", "a", "b", "int").up("round({a})::int").down("{b}::numeric(8, 2)").kept_in_sync()
    )
    .not_deployed()
];
static WRITTEN_OUT: Migrations = migrations![
    Migration::new(
        "written_out",
        ChangeType::new("t", "a", "b", "text").up("{a}::text").down("{b}::timestamptz").kept_in_sync()
    )
    .not_deployed()
];

const fn case(setup: &'static [&'static str], migrations: &'static Migrations) -> Case {
    Case { setup, migrations, schema: "public" }
}

async fn enter(stage: &Stage, phase: &str) {
    let at = stage.case.phases().iter().position(|info| info.name == phase).expect("a phase");
    stage.forward(at + 1).await;
}

const NUMBERS: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, note text)",
    "INSERT INTO t SELECT i, i FROM generate_series(1, 50) i",
];

#[tokio::test]
async fn an_update_of_other_columns_leaves_a_value_that_has_no_way_back() {
    static CASE: Case = case(NUMBERS, &LOSSY);
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    let both = "SELECT concat(a, '/', b) FROM t WHERE id = 1";
    enter(&stage, "SwitchOver").await;
    run(client, "UPDATE t SET b = 5000000000 WHERE id = 1").await;
    assert_eq!(one::<String>(client, both).await, "/5000000000");
    run(client, "UPDATE t SET note = 'touched' WHERE id = 1").await;
    assert_eq!(one::<String>(client, both).await, "/5000000000");
    // What the old release reads and writes back is no change either.
    run(client, "UPDATE t SET a = a, note = 'again' WHERE id = 1").await;
    assert_eq!(one::<String>(client, both).await, "/5000000000");
    run(client, "UPDATE t SET a = 7 WHERE id = 1").await;
    assert_eq!(one::<String>(client, both).await, "7/7");
}

/// How often a statement has a sync function called, over a session that has counted nothing yet.
async fn calls(stage: &Stage, sql: &str) -> i64 {
    let client = stage.database.connect().await.expect("a connection");
    run(&client, "BEGIN; SET LOCAL track_functions = 'all'").await;
    run(&client, sql).await;
    let count = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_xact_user_functions WHERE schemaname = 'phasewise'";
    let calls = one(&client, count).await;
    run(&client, "COMMIT").await;
    calls
}

#[tokio::test]
async fn an_update_that_changes_neither_column_calls_no_function() {
    static SETTLED: Case = case(NUMBERS, &LOSSY);
    // An expression that settings can change is evaluated by the function alone, but only where something changed.
    static UNSETTLED: Case = case(
        &[
            "CREATE TABLE t (id int PRIMARY KEY, a timestamptz NOT NULL, note text)",
            "INSERT INTO t SELECT i, '2026-01-01' FROM generate_series(1, 50) i",
        ],
        &WRITTEN_OUT,
    );
    for (case, change) in [(&SETTLED, "a = a + 1"), (&UNSETTLED, "a = a + interval '1 day'")] {
        let stage = Stage::set(case).await;
        enter(&stage, "SwitchOver").await;
        assert_eq!(calls(&stage, "UPDATE t SET note = 'touched'").await, 0);
        assert_eq!(calls(&stage, "UPDATE t SET a = a, b = b").await, 0);
        assert_eq!(calls(&stage, "DELETE FROM t WHERE id = 50").await, 0);
        assert_eq!(calls(&stage, &format!("UPDATE t SET {change}")).await, 49);
        assert_eq!(calls(&stage, "INSERT INTO t (id, a) SELECT 50, a FROM t WHERE id = 1").await, 1);
    }
}

#[tokio::test]
async fn a_batch_whose_rows_no_other_trigger_changes_calls_no_function() {
    static CASE: Case = case(NUMBERS, &LOSSY);
    let stage = Stage::set(&CASE).await;
    enter(&stage, "InstallSync").await;
    let batch = "SET LOCAL phasewise.backfill = 'forward'; UPDATE t SET b = a";
    assert_eq!(calls(&stage, batch).await, 0);
    let same = "SELECT count(*) FROM t WHERE b = id";
    assert_eq!(one::<i64>(&stage.client, same).await, 50);
}

#[tokio::test]
async fn an_update_of_other_columns_fills_a_row_that_the_backfill_has_not_reached() {
    static CASE: Case = case(NUMBERS, &LOSSY);
    let stage = Stage::set(&CASE).await;
    enter(&stage, "InstallSync").await;
    run(&stage.client, "UPDATE t SET note = 'touched' WHERE id <= 10").await;
    let filled = "SELECT count(*) FROM t WHERE b = a";
    assert_eq!(one::<i64>(&stage.client, filled).await, 10);
}

#[tokio::test]
async fn the_way_back_keeps_what_the_old_column_has_no_value_for() {
    static CASE: Case = case(
        &[
            "CREATE TABLE t (id int PRIMARY KEY, a int, note text)",
            "INSERT INTO t SELECT i, i FROM generate_series(1, 50) i",
        ],
        &LOSSY,
    );
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    enter(&stage, "RemoveSync").await;
    // The old column goes stale.
    run(client, "UPDATE t SET b = 5000000000 WHERE id = 1").await;
    run(client, "UPDATE t SET b = 77 WHERE id = 2").await;
    stage.back(stage.at().await - 1).await;
    let both = "SELECT string_agg(concat(a, '/', b), ' ' ORDER BY id) FROM t WHERE id < 4";
    assert_eq!(one::<String>(client, both).await, "/5000000000 77/77 3/3");
}

#[tokio::test]
async fn a_row_that_changes_its_partition_keeps_what_the_conversion_would_lose() {
    static CASE: Case = case(
        &[
            "CREATE TABLE t (id int, a numeric(8, 2), part int NOT NULL) PARTITION BY LIST (part)",
            "CREATE TABLE t0 PARTITION OF t FOR VALUES IN (0)",
            "CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)",
            "INSERT INTO t VALUES (1, 1.25, 0)",
        ],
        &ROUNDED,
    );
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    for phase in ["InstallSync", "Backfill", "SwitchOver"] {
        enter(&stage, phase).await;
        for (set, is) in [
            ("", "1.25/1"),
            // It arrives as an insert whose new column is there already.
            ("", "1.25/1"),
            ("a = 2.75, ", "2.75/3"),
            ("", "2.75/3"),
            ("b = 9, ", "9.00/9"),
            ("a = NULL, ", "/"),
            ("a = 1.25, ", "1.25/1"),
        ] {
            run(client, &format!("UPDATE t SET {set}part = 1 - part WHERE id = 1")).await;
            let both = "SELECT concat(a, '/', b) FROM t WHERE id = 1";
            assert_eq!(one::<String>(client, both).await, is, "{phase}: {set}");
        }
    }
}

/// Enters phases up to that one, and counts the rows that batches wrote, and those that needed more than a batch.
async fn written(stage: &Stage, until: usize) -> (u64, u64) {
    let counts = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let told = Arc::clone(&counts);
    let migrator = stage.migrator().observe(move |event: &Event<'_>| match event {
        Event::BatchDone { rows, .. } => drop(told.0.fetch_add(*rows, Ordering::Relaxed)),
        Event::RowsMended { rows, .. } => drop(told.1.fetch_add(*rows, Ordering::Relaxed)),
        _ => {}
    });
    for number in stage.at().await + 1..=until {
        stage.enter(&migrator, number).await;
    }
    (counts.0.load(Ordering::Relaxed), counts.1.load(Ordering::Relaxed))
}

#[tokio::test]
async fn the_backfill_takes_over_what_a_trigger_made_of_the_old_column_meanwhile() {
    // Where the trigger's WHEN clause decides, and where it leaves that to the function.
    static TEXT: Case = case(
        &[
            "CREATE TABLE t (id int PRIMARY KEY, a text NOT NULL)",
            "INSERT INTO t SELECT i, 'Row ' || i FROM generate_series(1, 50) i",
            "CREATE FUNCTION tidy() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.a := lower(NEW.a); RETURN NEW; END$$",
            "CREATE TRIGGER tidy BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION tidy()",
        ],
        &SYNCED,
    );
    static TIME: Case = case(
        &[
            "CREATE TABLE t (id int PRIMARY KEY, a timestamptz NOT NULL)",
            "INSERT INTO t SELECT i, '2026-01-01 10:20+00' FROM generate_series(1, 50) i",
            "CREATE FUNCTION tidy() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.a := date_trunc('hour', NEW.a); RETURN NEW; END$$",
            "CREATE TRIGGER tidy BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION tidy()",
        ],
        &WRITTEN_OUT,
    );
    for (case, tidy) in [
        (&TEXT, "a = 'row ' || id AND b = a"),
        (&TIME, "a = '2026-01-01 10:00+00' AND b = '2026-01-01 10:00:00+00'"),
    ] {
        let stage = Stage::set(case).await;
        let backfill = case.phases().iter().position(|info| info.name == "Backfill").expect("a backfill") + 1;
        // Each row once: none is found wrong afterwards.
        assert_eq!(written(&stage, backfill).await, (50, 0), "{tidy}");
        let count = format!("SELECT count(*) FROM t WHERE {tidy}");
        assert_eq!(one::<i64>(&stage.client, &count).await, 50, "{tidy}");
    }
}

#[tokio::test]
async fn a_client_with_a_clock_and_dates_of_its_own_writes_what_everybody_reads() {
    static CASE: Case = case(
        &[
            "CREATE TABLE t (id int PRIMARY KEY, a timestamptz, note text)",
            "INSERT INTO t VALUES (1, '2026-02-03 10:00+00'), (2, '2026-02-03 10:00+00')",
        ],
        &WRITTEN_OUT,
    );
    let stage = Stage::set(&CASE).await;
    let abroad = stage.database.connect().await.expect("a connection");
    run(&abroad, "SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'SQL, DMY'").await;
    let b = async |id: i32| one::<String>(&abroad, &format!("SELECT b FROM t WHERE id = {id}")).await;
    let a = async |id: i32| {
        one::<String>(
            &abroad,
            &format!("SELECT to_char(a AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') FROM t WHERE id = {id}"),
        )
        .await
    };
    enter(&stage, "InstallSync").await;
    run(&abroad, "UPDATE t SET a = '2026-03-04 10:00+00' WHERE id = 1").await;
    assert_eq!(b(1).await, "2026-03-04 10:00:00+00");
    run(&abroad, "INSERT INTO t (id, a) VALUES (3, '2026-03-04 10:00+00')").await;
    assert_eq!(b(3).await, "2026-03-04 10:00:00+00");
    // What those wrote is what a batch would have: only the row that nobody has written is left to it.
    let backfill = CASE.phases().iter().position(|info| info.name == "Backfill").expect("a backfill") + 1;
    assert_eq!(written(&stage, backfill).await, (1, 0));
    enter(&stage, "SwitchOver").await;
    // Neither the month nor the hour is the client's own.
    run(&abroad, "UPDATE t SET b = '04/05/2026 10:00' WHERE id = 1").await;
    assert_eq!(a(1).await, "2026-04-05 10:00");
    run(&abroad, "INSERT INTO t (id, b) VALUES (4, '04/05/2026 10:00')").await;
    assert_eq!(a(4).await, "2026-04-05 10:00");
    // Given both as one reads them, the row is as it was: no new release has spoken.
    run(&abroad, "INSERT INTO t (id, a, b) SELECT 5, a, b FROM t WHERE id = 3").await;
    assert_eq!(
        (a(5).await, b(5).await),
        ("2026-03-04 10:00".to_owned(), "2026-03-04 10:00:00+00".to_owned())
    );
    run(&abroad, "UPDATE t SET note = 'touched' WHERE id = 3").await;
    assert_eq!(b(3).await, "2026-03-04 10:00:00+00");
}

/// A column's type with two values that are equal and not the same.
const LOOSE: &[(&str, &str, &str)] = &[
    ("text COLLATE loose", "abc", "ABC"),
    ("varchar(9) COLLATE loose", "abc", "ABC"),
    ("numeric", "1.0", "1.00"),
    ("jsonb", "{\"k\": 1.0}", "{\"k\": 1.00}"),
    ("double precision", "0", "-0"),
    ("interval", "1 mon", "30 days"),
    ("numeric[]", "{1.0}", "{1.00}"),
    ("citext", "abc", "ABC"),
];

async fn of_type(client: &Client, data_type: &str) {
    run(client, "DROP TABLE IF EXISTS t").await;
    run(client, &format!("CREATE TABLE t (id int PRIMARY KEY, a {data_type})")).await;
}

const COLLATION: &str =
    "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";

/// The types of [`LOOSE`] that this server has, each on a stage of its own.
async fn loose(case: &'static Case) -> Vec<(Stage, &'static str, &'static str)> {
    let mut stages = Vec::new();
    for &(data_type, one_way, other) in LOOSE {
        let stage = Stage::set(case).await;
        if data_type == "citext" {
            let there = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'citext')";
            if !one::<bool>(&stage.client, there).await {
                continue;
            }
            run(&stage.client, "CREATE EXTENSION citext").await;
        }
        of_type(&stage.client, data_type).await;
        run(&stage.client, &format!("INSERT INTO t (id, a) VALUES (1, '{one_way}'), (2, '{one_way}')")).await;
        stages.push((stage, one_way, other));
    }
    assert!(stages.len() >= LOOSE.len() - 1);
    stages
}

async fn texts(client: &Client, id: i32) -> (String, String) {
    let row = client.query_one(&format!("SELECT a::text, b::text FROM t WHERE id = {id}"), &[]).await;
    let row = row.expect("a row");
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn triggers_carry_a_value_over_that_is_equal_to_what_was_there_but_not_the_same() {
    static CASE: Case = case(&[COLLATION], &SYNCED);
    for (stage, one_way, other) in loose(&CASE).await {
        let client = &stage.client;
        enter(&stage, "SwitchOver").await;
        for (written, value) in [("a", other), ("b", one_way), ("b", other), ("a", one_way)] {
            run(client, &format!("UPDATE t SET {written} = '{value}' WHERE id = 1")).await;
            assert_eq!(texts(client, 1).await, (value.to_owned(), value.to_owned()), "{written} = {value}");
        }
        // The new column wins where both are given and are not the same.
        run(client, &format!("INSERT INTO t (id, a, b) VALUES (3, '{one_way}', '{other}')")).await;
        assert_eq!(texts(client, 3).await, (other.to_owned(), other.to_owned()));
    }
}

#[tokio::test]
async fn the_backfill_repairs_a_value_that_is_equal_but_not_the_same() {
    static CASE: Case = case(&[COLLATION], &RENAME);
    for (stage, one_way, other) in loose(&CASE).await {
        let client = &stage.client;
        enter(&stage, "WriteBoth").await;
        // Release 1 writes both, then a release 0 that is still alive writes what it knows.
        run(client, &format!("UPDATE t SET a = '{one_way}', b = '{one_way}' WHERE id = 1")).await;
        run(client, &format!("UPDATE t SET a = '{other}' WHERE id = 1")).await;
        enter(&stage, "Backfill").await;
        assert_eq!(texts(client, 1).await, (other.to_owned(), other.to_owned()));
        assert_eq!(texts(client, 2).await, (one_way.to_owned(), one_way.to_owned()));
    }
}

#[tokio::test]
async fn one_direction_that_depends_on_a_setting_is_enough_to_fix_them() {
    static MIGRATIONS: Migrations = migrations![
        Migration::new(
            "dated",
            ChangeType::new("t", "a", "b", "timestamptz")
                .up("({a}::timestamp AT TIME ZONE 'UTC')")
                .down("{b}::date")
                .kept_in_sync()
        )
        .not_deployed()
    ];
    static CASE: Case = case(
        &["CREATE TABLE t (id int PRIMARY KEY, a date)", "INSERT INTO t VALUES (1, '2026-01-01')"],
        &MIGRATIONS,
    );
    let stage = Stage::set(&CASE).await;
    enter(&stage, "SwitchOver").await;
    let abroad = stage.database.connect().await.expect("a connection");
    run(&abroad, "SET TimeZone = 'Asia/Tokyo'").await;
    run(&abroad, "UPDATE t SET b = '2026-03-04 20:00+00' WHERE id = 1").await;
    run(&abroad, "INSERT INTO t (id, b) VALUES (2, '2026-03-04 20:00+00')").await;
    let days = "SELECT string_agg(to_char(a, 'MM-DD'), ' ' ORDER BY id) FROM t";
    assert_eq!(one::<String>(&abroad, days).await, "03-04 03-04");
}

#[tokio::test]
async fn a_client_with_functions_of_the_same_name_elsewhere_converts_as_everybody_does() {
    static MIGRATIONS: Migrations = migrations![
        Migration::new(
            "doubled",
            ChangeType::new("t", "a", "b", "bigint").up("doubled({a})").down("halved({b})").kept_in_sync()
        )
        .not_deployed()
    ];
    static CASE: Case = case(
        &[
            "CREATE TABLE t (id int PRIMARY KEY, a int)",
            "CREATE FUNCTION doubled(int) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT $1::bigint * 2'",
            "CREATE FUNCTION halved(bigint) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT ($1 / 2)::int'",
            "CREATE SCHEMA other",
            "CREATE FUNCTION other.doubled(int) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT -1::bigint'",
            "CREATE FUNCTION other.halved(bigint) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT -1'",
            "INSERT INTO t VALUES (1, 1), (2, 2)",
        ],
        &MIGRATIONS,
    );
    let stage = Stage::set(&CASE).await;
    enter(&stage, "SwitchOver").await;
    for path in ["other, public", "pg_catalog"] {
        let client = stage.database.connect().await.expect("a connection");
        run(&client, &format!("SET search_path = {path}")).await;
        run(&client, "UPDATE public.t SET a = 5 WHERE id = 1").await;
        run(&client, "UPDATE public.t SET b = 14 WHERE id = 2").await;
        run(&client, "INSERT INTO public.t (id, a) VALUES (3, 9)").await;
        run(&client, "INSERT INTO public.t (id, b) VALUES (4, 22)").await;
        let all = "SELECT string_agg(concat(a, '/', b), ' ' ORDER BY id) FROM public.t";
        assert_eq!(one::<String>(&client, all).await, "5/10 7/14 9/18 11/22", "{path}");
        run(&client, "DELETE FROM public.t WHERE id > 2; UPDATE public.t SET a = 1").await;
    }
}

#[tokio::test]
async fn a_value_that_the_new_type_would_cut_does_not_agree_with_what_is_left_of_it() {
    static MIGRATIONS: Migrations = migrations![
        Migration::new("cut", ChangeType::new("t", "a", "b", "varchar(3)").up("{a}").down("{b}"))
            .not_deployed()
    ];
    static CASE: Case = case(
        &["CREATE TABLE t (id int PRIMARY KEY, a text)", "INSERT INTO t VALUES (1, 'abc'), (2, 'xyz')"],
        &MIGRATIONS,
    );
    let stage = Stage::set(&CASE).await;
    enter(&stage, "WriteBoth").await;
    run(&stage.client, "UPDATE t SET b = a").await;
    // An old release that is still alive.
    run(&stage.client, "UPDATE t SET a = 'abcdef' WHERE id = 1").await;
    let migrator = stage.migrator();
    migrator.confirm("cut", "WriteBoth").await.expect("a confirmation");
    let error = migrator.run_to("cut", "Backfill").await.expect_err("a value that does not fit").to_string();
    assert!(error.contains("id = 1") && error.contains("too long"), "{error}");
}

#[tokio::test]
async fn whenever_inserts_are_kept_in_sync_updates_are_too() {
    // Between the two, an update that moves a row to another partition would pass for an insert of the new release.
    static CASE: Case = case(
        &[
            "CREATE TABLE t (id int PRIMARY KEY, a text)",
            "CREATE TABLE seen (tag text, inserts bool, updates bool)",
            "CREATE FUNCTION look() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN
                INSERT INTO public.seen SELECT tg_tag, coalesce(bool_or(tgtype & 4 > 0), false), coalesce(bool_or(tgtype & 16 > 0), false)
                  FROM pg_trigger WHERE tgrelid = 'public.t'::regclass AND NOT tgisinternal;
             END$$",
            "CREATE EVENT TRIGGER look ON ddl_command_end WHEN TAG IN ('CREATE TRIGGER', 'DROP TRIGGER') EXECUTE FUNCTION look()",
        ],
        &SYNCED,
    );
    let stage = Stage::set(&CASE).await;
    enter(&stage, "RemoveSync").await;
    stage.back(1).await;
    let seen = "SELECT string_agg(format('%s %s%s', split_part(tag, ' ', 1), inserts::int, updates::int), ', ') FROM seen";
    let once = "CREATE 01, CREATE 11, DROP 01, DROP 00";
    assert_eq!(one::<String>(&stage.client, seen).await, format!("{once}, {once}"));
}

#[tokio::test]
async fn a_role_that_may_write_the_table_need_not_and_may_not_call_the_functions() {
    static CASE: Case = case(
        &["CREATE TABLE t (id int PRIMARY KEY, a text)", "GRANT INSERT, SELECT, UPDATE ON t TO pg_monitor"],
        &SYNCED,
    );
    let stage = Stage::set(&CASE).await;
    let client = &stage.client;
    enter(&stage, "SwitchOver").await;
    run(
        client,
        "SET ROLE pg_monitor; INSERT INTO t (id, a) VALUES (1, 'x'); UPDATE t SET b = 'y'; RESET ROLE",
    )
    .await;
    assert_eq!(one::<String>(client, "SELECT concat(a, b) FROM t").await, "yy");
    let callable = "SELECT array_agg(has_function_privilege('pg_monitor', p.oid, 'EXECUTE')) FROM pg_proc p WHERE p.proname LIKE 'sync\\_%'";
    assert_eq!(one::<Vec<bool>>(client, callable).await, [false, false]);
}

#[tokio::test]
async fn a_new_type_keeps_the_collation_for_which_equal_is_not_the_same() {
    static MIGRATIONS: Migrations = migrations![
        Migration::new(
            "cut",
            ChangeType::new("t", "a", "b", "varchar(9)").up("{a}").down("{b}").kept_in_sync()
        )
        .not_deployed()
    ];
    static CASE: Case = case(
        &[
            COLLATION,
            "CREATE TABLE t (id int PRIMARY KEY, a text COLLATE loose)",
            "INSERT INTO t VALUES (1, 'abc'), (2, 'abc')",
        ],
        &MIGRATIONS,
    );
    let stage = Stage::set(&CASE).await;
    enter(&stage, "SwitchOver").await;
    run(&stage.client, "UPDATE t SET a = 'ABC' WHERE id = 1; UPDATE t SET b = 'ABC' WHERE id = 2").await;
    for id in 1..=2 {
        assert_eq!(texts(&stage.client, id).await, ("ABC".to_owned(), "ABC".to_owned()), "row {id}");
    }
}

/// Whether the trigger functions of a change carry settings of their own, which is what makes them slow.
async fn carries_settings(case: &'static Case) -> bool {
    let stage = Stage::set(case).await;
    enter(&stage, "InstallSync").await;
    let settings =
        "SELECT bool_or(proconfig IS NOT NULL) FROM pg_proc WHERE pronamespace = 'phasewise'::regnamespace";
    one(&stage.client, settings).await
}

#[tokio::test]
async fn settings_are_fixed_only_where_they_can_change_a_value() {
    static TO_TEXT: Migrations = migrations![
        Migration::new(
            "to_text",
            ChangeType::new("t", "a", "b", "text").up("({a} + 1)::text").down("{b}::int - 1").kept_in_sync()
        )
        .not_deployed()
    ];
    static DAYS: Migrations = migrations![
        Migration::new(
            "days",
            ChangeType::new("t", "a", "b", "text").up("({a} + 1)::text").down("{b}::date - 1").kept_in_sync()
        )
        .not_deployed()
    ];
    static NUMBER: Case = case(NUMBERS, &TO_TEXT);
    static DAY: Case = case(&["CREATE TABLE t (id int PRIMARY KEY, a date, note text)"], &DAYS);
    static MOMENT: Case =
        case(&["CREATE TABLE t (id int PRIMARY KEY, a timestamptz, note text)"], &WRITTEN_OUT);
    assert!(!carries_settings(&NUMBER).await, "numbers are written in one way only");
    assert!(carries_settings(&DAY).await);
    assert!(carries_settings(&MOMENT).await);
}
