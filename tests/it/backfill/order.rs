//! In which order rows are walked, on every kind of table and key.

use phasewise::{ChangeType, Kind, Migration, Migrations, Order, migrations};

use super::*;

/// 100 rows, in an order on disk that is not the key's, walked by seven.
async fn by_key(setup: &[&str], key: &str) {
    let (database, client) = tables(setup).await;
    let (migrator, mut ears) = stepwise(migrator(&database, &FILL, fixed(7).order(Order::Key)));
    let running = filling(migrator);
    assert_eq!(ears.batch().await.done, 7);
    let first = format!("SELECT bool_and(b IS NOT NULL) FROM (SELECT b FROM t ORDER BY {key} LIMIT 7) x");
    assert!(one::<bool>(&client, &first).await, "not the first ones by the key");
    assert_eq!(one::<i64>(&client, "SELECT count(b) FROM t").await, 7);
    let rest = ears.rest();
    let (report, rest) = tokio::join!(filled(running), rest);
    assert_eq!(report.migrations[0].rows, 100);
    let rest = batches(&rest);
    assert_eq!(rest.len(), 14);
    assert!(rest[..13].iter().all(|batch| batch.rows == 7) && rest[13].rows == 2, "{rest:?}");
    assert_filled(&client).await;
}

/// Values of a key's type for `i` from 1 to 100.
async fn by_key_of(data_type: &str, value: &str) {
    let create = format!("CREATE TABLE t (a int NOT NULL, \"the Key %\" {data_type} PRIMARY KEY)");
    let insert =
        format!("INSERT INTO t SELECT i, {value} FROM generate_series(1, 100) i ORDER BY md5(i::text)");
    by_key(&[&create, &insert], "\"the Key %\"").await;
}

macro_rules! keys {
    ($($name:ident: $data_type:expr, $value:expr;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            by_key_of($data_type, $value).await;
        }
    )+};
}

keys! {
    by_bigint: "bigint", "i * 100000000000";
    by_text: "text", r#"CASE i % 7 WHEN 0 THEN 'it''s ' WHEN 1 THEN '\' WHEN 2 THEN '"' WHEN 3 THEN 'é, 日本' WHEN 4 THEN E'a\nb\t' WHEN 5 THEN '$1 %s {a}' ELSE '' END || i"#;
    by_char: "char(5)", "'a' || i";
    by_uuid: "uuid", "md5(i::text)::uuid";
    by_timestamptz: "timestamptz", "'2026-03-29 00:00:00.000001+00'::timestamptz + i * '17 min'::interval";
    by_date: "date", "'2026-01-01'::date - i * 400000 / 20";
    by_numeric: "numeric", "CASE i WHEN 1 THEN 'NaN' WHEN 2 THEN '-Infinity' WHEN 3 THEN 1e100 ELSE i / 7.0 END";
    by_float: "float8", "CASE i WHEN 1 THEN 'NaN' ELSE sqrt(i) END";
    by_one_char: "\"char\"", "(i + 20)::\"char\"";
    by_bytes: "bytea", "decode(md5(i::text), 'hex')";
    by_interval: "interval", "i * '31 hours'::interval";
    by_inet: "inet", "'10.0.0.0'::inet + i";
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_an_enum() {
    let labels: Vec<String> = (0..100).rev().map(|i| format!("'it''s {i}'")).collect();
    let create = format!("CREATE TYPE \"Mood\" AS ENUM ({})", labels.join(", "));
    by_key(
        &[
            &create,
            "CREATE TABLE t (a int NOT NULL, k \"Mood\" PRIMARY KEY)",
            "INSERT INTO t SELECT row_number() OVER (), e FROM unnest(enum_range(NULL::\"Mood\")) e ORDER BY md5(e::text)",
        ],
        "k",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_a_domain() {
    by_key(
        &[
            "CREATE DOMAIN short AS varchar(8) CHECK (VALUE <> '')",
            "CREATE TABLE t (a int NOT NULL, k short PRIMARY KEY)",
            "INSERT INTO t SELECT i, 'k' || i FROM generate_series(1, 100) i ORDER BY md5(i::text)",
        ],
        "k",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_a_text_of_another_collation() {
    by_key(
        &[
            "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
            "CREATE TABLE t (a int NOT NULL, k text COLLATE ci PRIMARY KEY)",
            "INSERT INTO t SELECT i, CASE WHEN i % 2 = 0 THEN 'ä' ELSE 'Z' END || i FROM generate_series(1, 100) i ORDER BY md5(i::text)",
        ],
        "k",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_several_columns() {
    by_key(
        &[
            "CREATE TABLE t (a int NOT NULL, \"K 1\" text, k2 timestamptz, k3 int, PRIMARY KEY (k3, \"K 1\", k2))",
            "INSERT INTO t SELECT i, 'it''s \\ ' || i % 5, 'epoch'::timestamptz + i % 3 * '1 day'::interval, i / 15
               FROM generate_series(1, 100) i ORDER BY md5(i::text)",
        ],
        "k3, \"K 1\", k2",
    )
    .await;
}

/// An index that runs the other way, or both ways, is as good as any.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_a_descending_index() {
    by_key(
        &[
            "CREATE TABLE t (a int NOT NULL, k1 int NOT NULL, k2 text NOT NULL)",
            "CREATE UNIQUE INDEX ON t (k1 DESC, k2 ASC)",
            "INSERT INTO t SELECT i, i % 9, 'k' || i FROM generate_series(1, 100) i ORDER BY md5(i::text)",
        ],
        "k1, k2",
    )
    .await;
}

/// Compared as texts they would come in another order than their index has.
#[tokio::test]
async fn a_key_whose_operators_are_out_of_reach_is_refused() {
    let (database, client) = tables(&[
        "CREATE SCHEMA ext",
        "CREATE EXTENSION citext SCHEMA ext",
        "CREATE TABLE t (id ext.citext PRIMARY KEY, a int)",
        "INSERT INTO t SELECT CASE WHEN i % 2 = 0 THEN 'a' ELSE 'B' END || i, i FROM generate_series(1, 100) i",
    ])
    .await;
    let by_key = migrator(&database, &FILL, fixed(7).order(Order::Key));
    let error = fill(&by_key).await.expect_err("operators that are not to be seen");
    assert_eq!(error.kind(), Kind::Unsupported);
    let said = error.to_string();
    assert!(
        said.contains("the operators of ext.citext, the type of \"id\"") && said.contains("Order::Physical"),
        "{said}"
    );
    assert_eq!(fill(&migrator(&database, &FILL, fixed(7))).await.expect("filled").migrations[0].rows, 100);
    assert_filled(&client).await;
}

#[tokio::test]
async fn no_key_to_walk_by_is_said() {
    let (database, client) = tables(&[
        "CREATE TABLE t (a int, k int UNIQUE)",
        "INSERT INTO t SELECT i, i FROM generate_series(1, 9) i",
    ])
    .await;
    let error = fill(&migrator(&database, &FILL, fixed(2).order(Order::Key))).await.expect_err("no key");
    assert_eq!(error.kind(), Kind::Unsupported);
    let said = error.to_string();
    assert!(
        said.contains("public.t cannot be walked by its key") && said.contains("Order::Physical"),
        "{said}"
    );
    // The same run goes on in the order that needs none.
    fill(&migrator(&database, &FILL, fixed(2))).await.expect("filled");
    assert_filled(&client).await;
}

/// What an order began is ended in the other: no row is left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_may_change_between_two_runs() {
    let (database, client) = tables(&[
        "CREATE TABLE t (id int PRIMARY KEY, a int)",
        "INSERT INTO t SELECT i, i FROM generate_series(1, 100) i",
    ])
    .await;
    let (first, mut ears) = stepwise(migrator(&database, &FILL, fixed(7).order(Order::Key)));
    let running = filling(first);
    ears.batch().await;
    running.abort();
    ears.run();
    assert!(running.await.expect_err("dropped").is_cancelled());
    fill(&migrator(&database, &FILL, fixed(7))).await.expect("filled");
    assert_filled(&client).await;
}

#[tokio::test]
async fn a_table_without_a_key_is_walked_as_it_lies() {
    let (database, client) =
        tables(&["CREATE TABLE t (a int)", "INSERT INTO t SELECT i FROM generate_series(1, 1000) i"]).await;
    let (migrator, ears) = ears(migrator(&database, &FILL, fixed(300)));
    assert_eq!(fill(&migrator).await.expect("filled").migrations[0].rows, 1000);
    drop(migrator);
    let rows: Vec<u64> = batches(&ears.rest().await).iter().map(|batch| batch.rows).collect();
    assert_eq!(rows, [300, 300, 300, 100]);
    assert_filled(&client).await;
}

const NESTED: &[&str] = &[
    "CREATE TABLE t (id int NOT NULL, a int, region text NOT NULL, PRIMARY KEY (region, id)) PARTITION BY LIST (region)",
    "CREATE TABLE \"t North\" PARTITION OF t FOR VALUES IN ('north')",
    "CREATE TABLE south PARTITION OF t FOR VALUES IN ('south') PARTITION BY RANGE (id)",
    "CREATE TABLE south_1 PARTITION OF south FOR VALUES FROM (0) TO (50)",
    // Its columns lie in another order.
    "CREATE TABLE south_2 (region text NOT NULL, junk int, id int NOT NULL, a int)",
    "ALTER TABLE south_2 DROP COLUMN junk",
    "ALTER TABLE south ATTACH PARTITION south_2 FOR VALUES FROM (50) TO (1000)",
    "CREATE TABLE rest PARTITION OF t DEFAULT",
    "INSERT INTO t SELECT i, i, (ARRAY['north', 'south'])[1 + i % 2] FROM generate_series(1, 200) i",
];

async fn partitions(policy: BackfillPolicy) {
    let (database, client) = tables(NESTED).await;
    let (migrator, ears) = ears(migrator(&database, &FILL, policy));
    assert_eq!(fill(&migrator).await.expect("filled").migrations[0].rows, 200);
    drop(migrator);
    let mut walked: Vec<String> =
        batches(&ears.rest().await).into_iter().map(|batch| batch.relation).collect();
    walked.sort();
    walked.dedup();
    assert_eq!(
        walked,
        ["public.\"t North\"", "public.south_1", "public.south_2"],
        "the empty one is not walked"
    );
    assert_filled(&client).await;
}

#[tokio::test]
async fn partitions_of_partitions_as_they_lie() {
    partitions(fixed(30)).await;
}

#[tokio::test]
async fn partitions_of_partitions_by_key() {
    partitions(fixed(30).order(Order::Key)).await;
}

/// Rows that lie mostly elsewhere: what is kept out of line is not rewritten.
#[tokio::test]
async fn rows_with_much_toast() {
    let (database, client) = tables(&[
        "CREATE TABLE t (id int PRIMARY KEY, a int, doc text)",
        "ALTER TABLE t ALTER doc SET STORAGE EXTERNAL",
        "INSERT INTO t SELECT i, i, repeat(md5(i::text), 1000) FROM generate_series(1, 300) i",
    ])
    .await;
    let toast = "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = 't'::regclass";
    let before: i64 = one(&client, toast).await;
    fill(&migrator(&database, &FILL, fixed(50))).await.expect("filled");
    assert_filled(&client).await;
    assert_eq!(one::<i64>(&client, toast).await, before);
    assert!(one::<bool>(&client, "SELECT bool_and(doc = repeat(md5(id::text), 1000)) FROM t").await);
}

/// A long stretch of nothing is crossed in steps, none of which is long.
#[tokio::test]
async fn a_bloated_table() {
    let (database, client) = tables(&[
        "CREATE TABLE t (id int PRIMARY KEY, a int, pad text) WITH (fillfactor = 10, autovacuum_enabled = off)",
        "ALTER TABLE t ALTER pad SET STORAGE PLAIN",
        "INSERT INTO t SELECT i, i, repeat('x', 700) FROM generate_series(1, 3500) i",
        "DELETE FROM t WHERE id BETWEEN 5 AND 3490",
    ])
    .await;
    assert!(one::<i64>(&client, "SELECT pg_relation_size('t') / 8192").await > 3_400);
    let (migrator, ears) = ears(migrator(&database, &FILL, fixed(100)));
    assert_eq!(fill(&migrator).await.expect("filled").migrations[0].rows, 14);
    drop(migrator);
    let batches = batches(&ears.rest().await);
    assert_eq!(batches.len(), 4, "a thousand pages at the most: {batches:?}");
    assert_filled(&client).await;
}

/// Rows that come while it runs are filled by those who write them: it does not run after them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_doubles_under_the_new_release() {
    let (database, client) = tables(&[
        "CREATE TABLE t (id int PRIMARY KEY, a int)",
        "INSERT INTO t SELECT i, i FROM generate_series(1, 5000) i",
    ])
    .await;
    let (migrator, mut ears) = stepwise(migrator(&database, &FILL, fixed(500)));
    let running = filling(migrator);
    for nth in 1..=8 {
        ears.batch().await;
        run(
            &client,
            &format!(
                "INSERT INTO t SELECT i, i, i FROM generate_series({nth} * 10000, {nth} * 10000 + 799) i"
            ),
        )
        .await;
        ears.go();
    }
    let (report, rest) = tokio::join!(filled(running), ears.rest());
    assert_eq!(report.migrations[0].rows, 5_000);
    let done = batches(&rest).last().expect("more batches").done;
    assert!(done < 5_500, "it went after the new rows: {done}");
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t").await, 5_000 + 8 * 800);
    assert_filled(&client).await;
}

static RETYPE: Migrations = migrations![
    Migration::new(
        "retype",
        ChangeType::new("t", "a", "b", "bigint").up("{a}::bigint").down("{b}::int").kept_in_sync()
    )
    .not_deployed()
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_doubles_under_the_trigger() {
    let (database, client) = tables(&[
        "CREATE TABLE t (id int PRIMARY KEY, a int)",
        "INSERT INTO t SELECT i, i FROM generate_series(1, 5000) i",
    ])
    .await;
    let (migrator, mut ears) = stepwise(migrator(&database, &RETYPE, fixed(500)));
    let running = filling(migrator);
    for nth in 1..=8 {
        ears.batch().await;
        let (from, to) = (nth * 10_000, nth * 10_000 + 399);
        run(&client, &format!("INSERT INTO t (id, a) SELECT i, i FROM generate_series({from}, {to}) i"))
            .await;
        run(&client, &format!("INSERT INTO t (id, b) SELECT -i, i FROM generate_series({from}, {to}) i"))
            .await;
        ears.go();
    }
    let (report, rest) = tokio::join!(filled(running), ears.rest());
    assert_eq!(report.migrations[0].rows, 5_000);
    assert!(batches(&rest).last().expect("more batches").done < 5_500);
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t WHERE b = a").await, 5_000 + 8 * 800);
}

#[tokio::test]
async fn rows_that_are_right_already_are_not_written() {
    let (database, client) = tables(&[
        "CREATE TABLE t (id int PRIMARY KEY, a int)",
        "INSERT INTO t SELECT i, i FROM generate_series(1, 1000) i",
    ])
    .await;
    let migrator = migrator(&database, &FILL, fixed(100));
    migrator.run_to("fill", "WriteNew").await.expect("the column is there");
    run(&client, "UPDATE t SET b = -a WHERE id % 3 = 0").await;
    run(
        &client,
        "CREATE TABLE before AS SELECT id, ctid::text AS tuple, xmin::text AS writer FROM t WHERE b < 0",
    )
    .await;
    assert_eq!(fill(&migrator).await.expect("filled").migrations[0].rows, 667);
    let same = "SELECT count(*) FROM t JOIN before USING (id) WHERE t.ctid::text = tuple AND t.xmin::text = writer AND b = -a";
    assert_eq!(one::<i64>(&client, same).await, 333);
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t WHERE b = a").await, 667);
}

/// User triggers fire as for anybody; one that asks whose transaction it is may keep out.
#[tokio::test]
async fn user_triggers_fire_unless_they_say_otherwise() {
    let (database, client) = tables(&[
        "CREATE TABLE t (id int PRIMARY KEY, a int)",
        "CREATE TABLE seen (who text, id int)",
        "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
         $$BEGIN INSERT INTO seen VALUES (TG_ARGV[0], NEW.id); RETURN NEW; END$$",
        "CREATE TRIGGER everybody AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION see('everybody')",
        "CREATE TRIGGER clients AFTER UPDATE ON t FOR EACH ROW
         WHEN (coalesce(current_setting('phasewise.backfill', true), '') = '') EXECUTE FUNCTION see('clients')",
        "INSERT INTO t SELECT i, i FROM generate_series(1, 100) i",
    ])
    .await;
    let migrator = migrator(&database, &FILL, fixed(30));
    fill(&migrator).await.expect("filled");
    let saw = "SELECT string_agg(format('%s %s', who, n), ', ' ORDER BY who) FROM (SELECT who, count(*) AS n FROM seen GROUP BY who) x";
    assert_eq!(one::<String>(&client, saw).await, "everybody 100");
    run(&client, "UPDATE t SET a = a").await;
    assert_eq!(one::<String>(&client, saw).await, "clients 100, everybody 200");
}

/// A table of nothing costs one look at it: no transaction, no pass in the ledger, no read of it.
#[tokio::test]
async fn an_empty_table_costs_one_look() {
    let server =
        own_server(&[("log_statement", "all"), ("log_destination", "csvlog"), ("logging_collector", "on")])
            .await;
    let database = server.database().await.expect("a database");
    let client = database.connect().await.expect("a connection");
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, a int)").await;
    let (migrator, ears) = ears(migrator(&database, &FILL, fixed(100)));
    migrator.run_to("fill", "WriteNew").await.expect("the column is there");
    fill(&migrator).await.expect("filled");
    drop(migrator);
    assert_eq!(ears.rest().await, [], "no batch");
    let log = "SELECT pg_read_file(pg_current_logfile('csvlog'))";
    let log: String = one(&client, log).await;
    // The first of these begins the step; the BEGIN that follows ends the phase.
    let step = log.rfind("WITH RECURSIVE tree AS").expect("a look at the table");
    let end = step + log[step..].find("BEGIN").expect("the end of the phase");
    let (asked, sent) = (log[step..end].matches("execute <unnamed>"), log[step..end].matches("statement: "));
    assert_eq!((asked.count(), sent.count()), (2, 1), "more than the look, and what the ledger knows: {log}");
    assert!(
        !log[step..].contains("UPDATE ONLY") && !log[step..].contains("FROM public.t"),
        "{}",
        &log[step..]
    );
}
