//! Tables that are set aside, quarantine, and archives: listed, kept, purged, filled and emptied beside writers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use phasewise::testing::Database;
use phasewise::{
    ChangeType, DropColumn, DropTable, Event, Kind, Migration, Migrations, Migrator, State, To, drop_column,
    drop_table, migrations,
};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::harness::{catalog, database, migrator, one, run, same};

static TABLE: Migrations = migrations![Migration::new("no_faxes", DropTable::new("faxes")).not_deployed()];
static BOTH: Migrations = migrations![
    Migration::new("no_faxes", DropTable::new("faxes")).deployed::<drop_table::StopUse>(),
    Migration::new("no_fax", DropColumn::new("users", "fax")).deployed::<drop_column::StopWrites>(),
];
static TABLE_AWAY: Migrations =
    migrations![Migration::new("no_faxes", DropTable::new("faxes").quarantine()).not_deployed()];
static COLUMN_AWAY: Migrations =
    migrations![Migration::new("no_fax", DropColumn::new("users", "fax").quarantine()).not_deployed()];

const SETUP: &[&str] = &[
    "CREATE TABLE users (id int PRIMARY KEY, fax serial, name text)",
    "INSERT INTO users (id, name) SELECT i, 'n' || i FROM generate_series(1, 20) i",
    "CREATE TABLE faxes (id int PRIMARY KEY, owner int NOT NULL CONSTRAINT faxes_owner REFERENCES users)",
    "INSERT INTO faxes SELECT i, i FROM generate_series(1, 10) i",
];

async fn set() -> (Database, Client) {
    let database = database().await;
    let client = database.connect().await.unwrap();
    for sql in SETUP {
        run(&client, sql).await;
    }
    (database, client)
}

/// Into that phase, with a person's word at each gate before it.
async fn to(migrator: &Migrator, migrations: &'static Migrations, name: &str, phase: &str) {
    let entry = migrations.get(name).unwrap();
    let infos = entry.phases();
    let last = infos.iter().position(|info| info.name == phase).unwrap();
    let entered = migrator.status().await.unwrap().get(name).unwrap().number;
    for at in entered..=last {
        if let Some(before) = at.checked_sub(1).filter(|&before| infos[before].gate.release().is_some()) {
            migrator.confirm(name, infos[before].name).await.unwrap();
        }
        migrator.run_to(name, infos[at].name).await.unwrap();
    }
}

async fn both(migrator: &Migrator, migrations: &'static Migrations) {
    to(migrator, migrations, "no_faxes", "SetAside").await;
    to(migrator, migrations, "no_fax", "Drop").await;
}

#[tokio::test]
async fn rows_of_a_table_that_is_set_aside_forbid_no_delete() {
    let (database, client) = set().await;
    let m = migrator(&database, &TABLE);
    let plan = m.plan().await.unwrap().to_string();
    assert!(plan.contains("until phase Free, foreign key \"faxes_owner\""), "{plan}");
    to(&m, &TABLE, "no_faxes", "StopUse").await;
    let refused = client.batch_execute("DELETE FROM users WHERE id = 1").await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::FOREIGN_KEY_VIOLATION));
    to(&m, &TABLE, "no_faxes", "Free").await;
    run(&client, "DELETE FROM users WHERE id = 1").await;
    to(&m, &TABLE, "no_faxes", "SetAside").await;
    run(&client, "DELETE FROM users WHERE id = 2").await;

    // The table is back at once; what its key would have forbidden is for a person to decide.
    let error = m.rollback("no_faxes", To::Start).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Step, "{error}");
    assert!(error.to_string().contains("faxes_owner"), "{error}");
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM faxes").await, 10);
    let refused = client.batch_execute("INSERT INTO faxes VALUES (30, 1)").await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::FOREIGN_KEY_VIOLATION));
    run(&client, "DELETE FROM faxes WHERE owner IN (1, 2)").await;
    m.rollback("no_faxes", To::Start).await.unwrap();
    assert!(
        one::<bool>(&client, "SELECT convalidated FROM pg_constraint WHERE conname = 'faxes_owner'").await
    );
}

#[tokio::test]
async fn what_uses_a_table_is_named_before_anything_is_touched() {
    let cases = [
        ("CREATE TABLE pages (fax int CONSTRAINT pages_fax REFERENCES faxes)", "foreign key \"pages_fax\""),
        ("CREATE VIEW recent AS SELECT id FROM faxes", "view recent"),
        ("CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM faxes", "materialized view counted"),
        ("CREATE PUBLICATION sent FOR TABLE faxes", "publication sent"),
        (
            "CREATE FUNCTION first_fax() RETURNS faxes LANGUAGE sql AS 'SELECT * FROM faxes'",
            "function first_fax()",
        ),
        ("CREATE POLICY seen ON users USING (id IN (SELECT owner FROM faxes))", "policy seen on table users"),
        (
            "CREATE RULE also AS ON DELETE TO users DO ALSO DELETE FROM faxes WHERE owner = OLD.id",
            "rule also on table users",
        ),
        ("CREATE TABLE more () INHERITS (faxes)", "inheritance"),
    ];
    for (made, named) in cases {
        let (database, client) = set().await;
        run(&client, made).await;
        let error = migrator(&database, &TABLE).run().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{made}: {error}");
        let said = error.to_string().replace("public.", "");
        assert!(said.contains(named), "{made}: {said}");
    }
    // And what hangs on one of its partitions.
    for (made, named) in [
        (
            "ALTER TABLE faxes_1 ADD CONSTRAINT leaf FOREIGN KEY (owner) REFERENCES users",
            "partition faxes_1 has foreign key leaf",
        ),
        ("CREATE VIEW leafy AS SELECT owner FROM faxes_1", "view leafy"),
        ("CREATE PUBLICATION part FOR TABLE faxes_1", "publication part has faxes_1"),
    ] {
        let (database, client) = set().await;
        run(&client, "DROP TABLE faxes").await;
        run(&client, "CREATE TABLE faxes (id int, owner int) PARTITION BY LIST (id)").await;
        run(&client, "CREATE TABLE faxes_1 PARTITION OF faxes FOR VALUES IN (1)").await;
        run(&client, made).await;
        let error = migrator(&database, &TABLE).run().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{made}: {error}");
        let said = error.to_string().replace("public.", "");
        assert!(said.contains(named), "{made}: {said}");
    }
    // What is its own goes along.
    let (database, client) = set().await;
    run(&client, "ALTER TABLE faxes ADD CONSTRAINT next FOREIGN KEY (id) REFERENCES faxes").await;
    run(&client, "CREATE POLICY own ON faxes USING (id > 0)").await;
    run(&client, "CREATE RULE kept AS ON DELETE TO faxes WHERE OLD.id = 1 DO INSTEAD NOTHING").await;
    to(&migrator(&database, &TABLE), &TABLE, "no_faxes", "SetAside").await;
}

#[tokio::test]
async fn what_came_to_use_a_table_during_the_soak_is_named_too() {
    let (database, client) = set().await;
    let m = migrator(&database, &TABLE);
    to(&m, &TABLE, "no_faxes", "Free").await;
    run(&client, "CREATE VIEW late AS SELECT id FROM faxes").await;
    let report = m.run_to("no_faxes", "SetAside").await.unwrap();
    let State::Referenced { references } = &report.get("no_faxes").unwrap().state else { panic!("{report}") };
    assert!(
        references.iter().any(|found| found.blocks && found.object == "view public.late"),
        "{references:?}"
    );
    // Where nobody looks for references, the drop itself refuses.
    let error = m.assume_fresh().run_to("no_faxes", "SetAside").await.unwrap_err();
    assert!(error.kind() == Kind::Unsupported && error.to_string().contains("late"), "{error}");
}

#[tokio::test]
async fn what_is_in_quarantine_fails_loudly_and_comes_back() {
    let cases = [
        (&TABLE_AWAY, "no_faxes", "SELECT FROM faxes", "CREATE TABLE faxes ()", "DROP TABLE faxes"),
        (
            &COLUMN_AWAY,
            "no_fax",
            "SELECT fax FROM users",
            "ALTER TABLE users ADD fax int",
            "ALTER TABLE users DROP fax",
        ),
    ];
    for (migrations, name, query, made, unmade) in cases {
        let (database, client) = set().await;
        let m = migrator(&database, migrations);
        to(&m, migrations, name, "Quarantine").await;
        let lost = client.batch_execute(query).await.unwrap_err();
        assert!(
            [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN].contains(lost.code().unwrap()),
            "{lost}"
        );
        // Somebody took the name.
        run(&client, made).await;
        let error = m.rollback(name, To::Previous).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        run(&client, unmade).await;
        // All the same after the drop, of which people hear under the name that they gave.
        let last = migrations.get(name).unwrap().phases().last().unwrap().name;
        to(&m, migrations, name, last).await;
        let archive = m.archives().await.unwrap().pop().unwrap();
        assert!([None, Some("fax")].contains(&archive.column.as_deref()), "{archive}");
        m.rollback(name, "Quarantine").await.unwrap();
        m.rollback(name, To::Previous).await.unwrap();
        assert_eq!(one::<i64>(&client, "SELECT count(*) FROM faxes").await, 10);
        assert_eq!(one::<i64>(&client, "SELECT sum(fax) FROM users").await, 210);
        assert_eq!(
            one::<String>(&client, "SELECT pg_get_serial_sequence('users', 'fax')").await,
            "public.users_fax_seq"
        );
    }
}

#[tokio::test]
async fn a_quarantine_soaks_before_and_after() {
    for (migrations, name, first, last) in
        [(&TABLE_AWAY, "no_faxes", "Free", "SetAside"), (&COLUMN_AWAY, "no_fax", "StopWrites", "Drop")]
    {
        let (database, _client) = set().await;
        let (hasty, patient) = (
            migrator(&database, migrations),
            migrator(&database, migrations).soak(Duration::from_secs(3600)),
        );
        to(&hasty, migrations, name, first).await;
        if name == "no_fax" {
            patient.confirm(name, first).await.unwrap();
        }
        for (here, next) in [(first, "Quarantine"), ("Quarantine", last)] {
            patient.run_to(name, next).await.unwrap();
            let status = patient.status().await.unwrap();
            let found = status.get(name).unwrap();
            assert_eq!(found.phase.as_deref(), Some(here), "{status}");
            assert!(matches!(found.state, State::Soaking { .. }), "{status}");
            hasty.run_to(name, next).await.unwrap();
        }
    }
}

#[tokio::test]
async fn archives_are_listed_and_purged() {
    let (database, client) = set().await;
    let m = migrator(&database, &BOTH);
    assert_eq!(m.archives().await.unwrap(), []);
    assert_eq!(m.purge_archive("no_fax").await.unwrap_err().kind(), Kind::Missing);
    assert_eq!(m.purge_archive("nothing").await.unwrap_err().kind(), Kind::Unknown);
    both(&m, &BOTH).await;

    let archives = m.archives().await.unwrap();
    let shown: Vec<_> = archives
        .iter()
        .map(|found| {
            (found.migration.as_str(), found.phase.as_str(), found.table.as_str(), found.column.as_deref())
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("no_faxes", "SetAside", "\"public\".\"faxes\"", None),
            ("no_fax", "Drop", "\"public\".\"users\"", Some("fax")),
        ]
    );
    for (found, rows) in archives.iter().zip([10, 20]) {
        assert_eq!(one::<i64>(&client, &format!("SELECT count(*) FROM {}", found.relation)).await, rows);
        assert!(found.since.is_some() && found.expires.is_none() && found.bytes > 0, "{found}");
        run(&client, &format!("ANALYZE {}", found.relation)).await;
    }
    let rows: Vec<_> = m.archives().await.unwrap().iter().map(|found| found.rows).collect();
    assert_eq!(rows, [Some(10), Some(20)]);

    // A rollback under way needs it.
    run(&client, "UPDATE phasewise.migrations SET moving = 'back' WHERE name = 'no_fax'").await;
    let error = m.purge_archive("no_fax").await.unwrap_err();
    assert_eq!(error.kind(), Kind::GateClosed, "{error}");
    run(&client, "UPDATE phasewise.migrations SET moving = NULL").await;

    for name in ["no_faxes", "no_fax"] {
        m.purge_archive(name).await.unwrap();
        let error = m.rollback(name, To::Start).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Irreversible, "{error}");
        assert!(error.to_string().contains("its archive was purged"), "{error}");
        assert_eq!(m.purge_archive(name).await.unwrap_err().kind(), Kind::Missing);
    }
    assert_eq!(m.archives().await.unwrap(), []);
    let left = "SELECT count(*) FROM pg_class WHERE relnamespace::regnamespace::text IN ('public', 'phasewise') AND relname ~ '^(archive|sequence|faxes|users_fax)'";
    assert_eq!(one::<i64>(&client, left).await, 0, "nothing is left of either");
}

#[tokio::test]
async fn a_rollback_leaves_no_archive_behind() {
    let (database, _client) = set().await;
    let m = migrator(&database, &BOTH);
    both(&m, &BOTH).await;
    for name in ["no_faxes", "no_fax"] {
        m.rollback(name, To::Previous).await.unwrap();
    }
    assert_eq!(m.archives().await.unwrap(), []);
    assert_eq!(m.purge_archive("no_fax").await.unwrap_err().kind(), Kind::Missing);
}

#[tokio::test]
async fn archives_are_purged_only_by_those_who_say_so_and_after_their_time() {
    let (database, client) = set().await;
    let m = migrator(&database, &BOTH);
    both(&m, &BOTH).await;
    m.run().await.unwrap();
    let patient = m.clone().keep_archives(Duration::from_secs(3600));
    patient.run().await.unwrap();
    let archives = patient.archives().await.unwrap();
    assert_eq!(archives.len(), 2);
    for found in &archives {
        assert_eq!(found.expires, found.since.map(|since| since + chrono::Duration::hours(1)));
        let status = patient.status().await.unwrap();
        assert_eq!(status.get(&found.migration).unwrap().restorable_until, found.expires);
        assert!(status.to_string().contains("can be rolled back until"), "{status}");
    }
    // The time counts from the end of the drop.
    run(&client, "UPDATE phasewise.saved SET at = at - interval '2 hours'").await;
    patient.run().await.unwrap();
    assert_eq!(patient.archives().await.unwrap().len(), 2);
    run(&client, "UPDATE phasewise.history SET at = at - interval '61 minutes' WHERE phase = 'Drop'").await;
    // Somebody who is about to serve has other things to do.
    patient.start().await.unwrap().leave().await.unwrap();
    assert_eq!(patient.archives().await.unwrap().len(), 2);
    patient.run().await.unwrap();
    let left: Vec<_> = patient.archives().await.unwrap().into_iter().map(|found| found.migration).collect();
    assert_eq!(left, ["no_faxes"]);
    let error = m.rollback("no_fax", To::Previous).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Irreversible, "{error}");
}

#[tokio::test]
async fn what_depends_on_an_archive_keeps_it_and_fails_no_run() {
    let (database, client) = set().await;
    let m = migrator(&database, &TABLE).keep_archives(Duration::ZERO);
    to(&m, &TABLE, "no_faxes", "SetAside").await;
    let relation = m.archives().await.unwrap().remove(0).relation;
    run(&client, &format!("CREATE VIEW looked_at AS SELECT id FROM {relation}")).await;
    let told = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&told);
    let heard = m.clone().observe(move |event: &Event<'_>| {
        tell.fetch_or(matches!(event, Event::ArchiveNotPurged { .. }), Ordering::Relaxed);
    });
    heard.run().await.unwrap();
    assert!(told.load(Ordering::Relaxed));
    let error = m.purge_archive("no_faxes").await.unwrap_err();
    assert!(error.kind() == Kind::Step && format!("{error:?}").contains("looked_at"), "{error:?}");
    assert_eq!(m.archives().await.unwrap().len(), 1);
    run(&client, "DROP VIEW looked_at").await;
    m.run().await.unwrap();
    assert_eq!(m.archives().await.unwrap(), []);
}

/// Clients that insert, update and delete until they are stopped; the longest that one of them waited.
struct Writers {
    over: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Duration>>,
}

const BUDGET: Duration = Duration::from_millis(400);
const ROWS: i32 = 4_000;

impl Writers {
    /// `$1` is a row's key, as text: keys up to [`ROWS`] were there before, the others come and go.
    async fn gather(database: &Database, insert: &'static str, update: &'static str) -> Self {
        let (over, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI32::new(ROWS)));
        let mut tasks = Vec::new();
        for number in 0..3 {
            let client = database.connect().await.unwrap();
            let (over, next) = (Arc::clone(&over), Arc::clone(&next));
            tasks.push(tokio::spawn(async move {
                let mut worst = Duration::ZERO;
                let mut turn = number;
                while !over.load(Ordering::Relaxed) {
                    let new = next.fetch_add(1, Ordering::Relaxed) + 1;
                    let old = 1 + turn * 37 % ROWS;
                    for (sql, key) in [
                        (insert, new),
                        (update, old),
                        (update, new),
                        // Of the old rows every seventh goes, of the new ones every other.
                        ("DELETE FROM t WHERE id = $1::text::int AND (id % 7 = 0 OR id > 4000 AND id % 2 = 0)", if turn % 2 == 0 { old } else { new }),
                    ] {
                        let begun = Instant::now();
                        // By name, so that no prepared statement stands for a table that has changed.
                        client.execute_typed(sql, &[(&key.to_string(), tokio_postgres::types::Type::TEXT)]).await.unwrap();
                        worst = worst.max(begun.elapsed());
                    }
                    turn += 1;
                }
                worst
            }));
        }
        Self { over, tasks }
    }

    async fn leave(self) {
        self.over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let worst = task.await.unwrap();
            // The budget, and what the machine takes.
            assert!(worst < BUDGET * 5, "a client waited for {worst:?}");
        }
    }
}

#[tokio::test]
async fn a_column_is_archived_and_restored_beside_writers() {
    static DROP: Migrations = migrations![Migration::new("drop", DropColumn::new("t", "a")).not_deployed()];
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, a text, note text)").await;
    run(&client, "CREATE INDEX t_a ON t (a)").await;
    run(&client, "INSERT INTO t SELECT i, 'a' || i FROM generate_series(1, 4000) i").await;
    let m = migrator(&database, &DROP)
        .stall_budget(BUDGET)
        .backfill(phasewise::BackfillPolicy::new().fixed(100).pause(Duration::from_millis(5)));
    to(&m, &DROP, "drop", "StopWrites").await;
    let writers = Writers::gather(
        &database,
        "INSERT INTO t (id, note) VALUES ($1::text::int, 'new')",
        "UPDATE t SET note = 'touched' WHERE id = $1::text::int",
    )
    .await;
    to(&m, &DROP, "drop", "Drop").await;
    m.rollback("drop", To::Previous).await.unwrap();
    writers.leave().await;
    let wrong = "SELECT count(*) FROM t WHERE a IS DISTINCT FROM CASE WHEN id <= 4000 THEN 'a' || id END";
    assert_eq!(one::<i64>(&client, wrong).await, 0, "an old row has its value, and a new one has none");
    assert!(one::<bool>(&client, "SELECT bool_or(id <= 4000 AND note = 'touched') AND bool_or(id > 4000) AND count(*) FILTER (WHERE id <= 4000) < 4000 FROM t").await);
}

#[tokio::test]
async fn a_replaced_column_is_archived_and_restored_beside_writers() {
    static RETYPE: Migrations = migrations![
        Migration::new(
            "retype",
            ChangeType::new("t", "a", "b", "int")
                .up("length({a})")
                .down("case when {b} > 0 then repeat('?', {b}) end")
                .kept_in_sync()
        )
        .not_deployed()
    ];
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, a text, note text)").await;
    run(&client, "INSERT INTO t SELECT i, 'a' || i FROM generate_series(1, 4000) i").await;
    let m = migrator(&database, &RETYPE)
        .stall_budget(BUDGET)
        .backfill(phasewise::BackfillPolicy::new().fixed(100).pause(Duration::from_millis(5)));
    to(&m, &RETYPE, "retype", "RemoveSync").await;
    let writers = Writers::gather(
        &database,
        // A key that was used before comes back with another value.
        "INSERT INTO t (id, b) VALUES ($1::text::int, 8), (7 + $1::text::int % 571 * 7, 8) ON CONFLICT (id) DO NOTHING",
        "UPDATE t SET b = 9 WHERE id = $1::text::int AND id % 3 = 0",
    )
    .await;
    to(&m, &RETYPE, "retype", "DropSource").await;
    m.rollback("retype", "SwitchOver").await.unwrap();
    writers.leave().await;
    // Nobody has written b = length(a) of an old row, but the migration.
    let wrong = "SELECT count(*) FROM t WHERE CASE WHEN b IN (8, 9) THEN a IS DISTINCT FROM repeat('?', b) ELSE a IS DISTINCT FROM 'a' || id END";
    assert_eq!(one::<i64>(&client, wrong).await, 0, "what was written since, or else what was archived");
    assert!(
        one::<bool>(
            &client,
            "SELECT bool_or(b = 9) AND bool_or(b = 8 AND id <= 4000) AND bool_or(b < 6) FROM t"
        )
        .await
    );
    // Once the archive is gone, so is the way back.
    to(&m, &RETYPE, "retype", "DropSource").await;
    m.purge_archive("retype").await.unwrap();
    let error = m.rollback("retype", To::Previous).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Irreversible, "{error}");
}

#[tokio::test]
async fn a_table_goes_and_comes_back_beside_writers_of_its_parent() {
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, note text)").await;
    run(&client, "INSERT INTO t SELECT i FROM generate_series(1, 4000) i").await;
    run(&client, "CREATE TABLE faxes (id int PRIMARY KEY, owner int CONSTRAINT faxes_owner REFERENCES t)")
        .await;
    // None of those that the writers delete.
    run(&client, "INSERT INTO faxes SELECT i, i FROM generate_series(1, 4000) i WHERE i % 7 > 0").await;
    let m = migrator(&database, &TABLE_AWAY).stall_budget(BUDGET);
    let writers = Writers::gather(
        &database,
        "INSERT INTO t VALUES ($1::text::int, 'new')",
        "UPDATE t SET note = 'touched' WHERE id = $1::text::int",
    )
    .await;
    for _ in 0..3 {
        to(&m, &TABLE_AWAY, "no_faxes", "SetAside").await;
        m.rollback("no_faxes", To::Start).await.unwrap();
    }
    writers.leave().await;
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM faxes JOIN t ON t.id = owner").await, 3_429);
    assert!(
        one::<bool>(&client, "SELECT convalidated FROM pg_constraint WHERE conname = 'faxes_owner'").await
    );
}

#[tokio::test]
async fn a_composite_value_with_null_fields_is_a_value() {
    static PAIRS: Migrations =
        migrations![Migration::new("no_pair", DropColumn::new("c", "p")).not_deployed()];
    let (database, client) = set().await;
    for sql in [
        "CREATE TYPE pair AS (x int, y int)",
        "CREATE TABLE c (id int PRIMARY KEY, p pair)",
        "INSERT INTO c VALUES (1, ROW(1, NULL)), (2, ROW(NULL, NULL)), (3, NULL), (4, ROW(1, 2))",
    ] {
        run(&client, sql).await;
    }
    let m = migrator(&database, &PAIRS);
    to(&m, &PAIRS, "no_pair", "Drop").await;
    m.rollback("no_pair", To::Start).await.unwrap();
    let values = "SELECT string_agg(id || ':' || coalesce(p::text, '-'), ' ' ORDER BY id) FROM c";
    assert_eq!(one::<String>(&client, values).await, "1:(1,) 2:(,) 3:- 4:(1,2)");
}

#[tokio::test]
async fn one_service_does_not_purge_what_another_keeps() {
    static OTHER: Migrations = migrations![];
    let (database, client) = set().await;
    let m = migrator(&database, &TABLE);
    to(&m, &TABLE, "no_faxes", "SetAside").await;
    migrator(&database, &OTHER).keep_archives(Duration::ZERO).run().await.unwrap();
    assert_eq!(m.archives().await.unwrap().len(), 1);
    m.keep_archives(Duration::ZERO).run().await.unwrap();
    assert!(
        !one::<bool>(&client, "SELECT EXISTS (SELECT FROM pg_class WHERE relname ~ '^archive_faxes')").await
    );
}

#[tokio::test]
async fn an_archive_whose_key_is_gone_is_named_before_anything_is_touched() {
    static CODED: Migrations =
        migrations![Migration::new("no_fax", DropColumn::new("t", "fax")).not_deployed()];
    static RETYPED: Migrations = migrations![
        Migration::new(
            "retyped",
            ChangeType::new("t", "fax", "line", "bigint")
                .up("{fax}::bigint")
                .down("{line}::int")
                .kept_in_sync()
        )
        .not_deployed()
    ];
    for (migrations, name) in [(&CODED, "no_fax"), (&RETYPED, "retyped")] {
        let database = database().await;
        let client = database.connect().await.unwrap();
        run(&client, "CREATE TABLE t (code text NOT NULL UNIQUE, fax int)").await;
        run(&client, "INSERT INTO t VALUES ('a', 1), ('b', 2)").await;
        let m = migrator(&database, migrations);
        let last = migrations.get(name).unwrap().phases().last().unwrap().name;
        to(&m, migrations, name, last).await;
        run(&client, "ALTER TABLE t RENAME code TO label").await;
        let before = catalog::dump(&client).await;
        let error = m.rollback(name, To::Start).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Missing, "{error}");
        for said in ["archive_", "\"code\"", "\"fax\"", "rename it back"] {
            assert!(error.to_string().contains(said), "{said}: {error}");
        }
        same(&before, &catalog::dump(&client).await, "something was touched");
        run(&client, "ALTER TABLE t RENAME label TO code").await;
        m.rollback(name, To::Start).await.unwrap();
        let values = "SELECT string_agg(code || fax, ' ' ORDER BY code) FROM t";
        assert_eq!(one::<String>(&client, values).await, "a1 b2");
    }
}
