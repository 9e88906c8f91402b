//! The executor, with changes of the tests' own: each in a database of its own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use phasewise::testing::{Database, Server};
use phasewise::{
    Action, BackfillPolicy, Batches, BuildIndex, Change, Context, DeployPhase, DropIndex, Event, Gate, Ident,
    Irreversible, Kind, LockMode, Migration, Migrations, Migrator, Phase, Result, Rollback, State, Step,
    TableName, Throttle, To, Touches, Window, Work, migrations,
};
use tokio_postgres::Client;

use crate::harness::until;

/// `t.a` is copied to a new `t.b`, which gets an index: expand, one deploy, fill, index.
#[derive(Clone, Copy)]
struct Copied;

#[derive(Clone, Copy)]
struct Expand;
#[derive(Clone, Copy)]
struct Deploy;
#[derive(Clone, Copy)]
struct Fill;
#[derive(Clone, Copy)]
struct Index;

const T: &str = "\"public\".\"t\"";

fn has_column() -> String {
    "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'public.t'::regclass AND attname = 'b' AND NOT attisdropped)"
        .to_owned()
}

impl Phase for Expand {
    const NAME: &'static str = "Expand";
    const WINDOW: Window = Window::new(0, 1);
    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(vec![
            Step::save("before", serde_json::json!({"columns": ["id", "a"]})),
            Step::sql("add column b", format!("ALTER TABLE {T} ADD COLUMN b text"))
                .locks(T, LockMode::AccessExclusive)
                .done_when(has_column()),
            Step::sql("count a visit", "UPDATE public.visits SET n = n + 1"),
        ])
    }
    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        assert!(cx.saved::<serde_json::Value>("before")?.is_some());
        Ok(Rollback::Steps(vec![
            Step::sql("drop column b", format!("ALTER TABLE {T} DROP COLUMN b"))
                .locks(T, LockMode::AccessExclusive)
                .done_when(has_column().replace("SELECT EXISTS", "SELECT NOT EXISTS")),
        ]))
    }
}

impl Phase for Deploy {
    const NAME: &'static str = "Deploy";
    const WINDOW: Window = Window::new(0, 1);
    const GATE: Gate = Gate::fleet(1).and_soak();
    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }
    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }
    fn soak(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}

fn fill() -> Batches {
    Batches {
        schema: "public".into(),
        table: "t".into(),
        work: Work::Update { set: "b = upper(t.a)".into(), from: None },
        condition: "t.b IS DISTINCT FROM upper(t.a)".into(),
        verify: "t.b IS DISTINCT FROM upper(t.a)".into(),
        keys: vec!["id".into()],
        marker: None,
    }
}

impl Phase for Fill {
    const NAME: &'static str = "Fill";
    const WINDOW: Window = Window::new(1, 1);
    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(vec![Step::batches("fill b", fill())])
    }
    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }
}

impl Phase for Index {
    const NAME: &'static str = "Index";
    const WINDOW: Window = Window::new(1, 1);
    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        let build = BuildIndex {
            schema: "public".into(),
            table: "t".into(),
            name: "t_b".into(),
            unique: true,
            tail: "btree (b)".into(),
        };
        Ok(vec![Step::new("index b", Action::BuildIndex(build)).locks(T, LockMode::ShareUpdateExclusive)])
    }
    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        let drop = DropIndex { schema: "public".into(), name: "t_b".into() };
        Ok(Rollback::Steps(vec![Step::new("drop the index", Action::DropIndex(drop))]))
    }
}

impl DeployPhase<Copied> for Deploy {}

impl Change for Copied {
    type Phases = (Expand, Deploy, Fill, Index);
    fn phases(&self) -> Self::Phases {
        (Expand, Deploy, Fill, Index)
    }
    fn definition(&self) -> String {
        "copy a to b".into()
    }
    fn touches(&self) -> Touches {
        Touches::nothing().columns(TableName::new("t"), &[Ident::new("a"), Ident::new("b")])
    }
}

/// The same under another definition.
#[derive(Clone, Copy)]
struct Edited;

impl Change for Edited {
    type Phases = (Expand, Deploy, Fill, Index);
    fn phases(&self) -> Self::Phases {
        (Expand, Deploy, Fill, Index)
    }
    fn definition(&self) -> String {
        "copy a to b, edited".into()
    }
    fn touches(&self) -> Touches {
        Copied.touches()
    }
}

/// One statement, of no return.
#[derive(Clone, Copy)]
struct Once(&'static str, &'static str);

impl Phase for Once {
    const NAME: &'static str = "Once";
    const WINDOW: Window = Window::new(0, 0);
    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(vec![Step::sql("once", self.1)])
    }
    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::Irreversible(Irreversible::because("it was a test")))
    }
}

impl Change for Once {
    type Phases = (Once,);
    fn phases(&self) -> Self::Phases {
        (*self,)
    }
    fn definition(&self) -> String {
        self.1.into()
    }
    fn touches(&self) -> Touches {
        match self.0 {
            "" => Touches::nothing(),
            "made" => Touches::nothing().creates(TableName::new("made")),
            _ => Touches::nothing().table(TableName::new("t")),
        }
    }
}

static COPY: Migrations = migrations![Migration::new("copy", Copied).not_deployed()];
static COPY1: Migrations = migrations![Migration::new("copy", Copied).deployed::<Deploy>()];
static EDITED: Migrations = migrations![Migration::new("copy", Edited).not_deployed()];
static SEVERAL: Migrations = migrations![
    Migration::new("copy", Copied).not_deployed(),
    Migration::new("behind", Once("t", "ALTER TABLE public.t ADD COLUMN c int")),
    Migration::new("aside", Once("made", "CREATE TABLE public.made (id int)")),
];

async fn database() -> (Database, Client) {
    let database = Server::shared().await.expect("a server").database().await.expect("a database");
    let client = database.connect().await.expect("a connection");
    (database, client)
}

async fn with_rows(rows: u32) -> (Database, Client) {
    let (database, client) = database().await;
    client.batch_execute("CREATE TABLE t (id int, a text); CREATE TABLE visits (n int)").await.unwrap();
    client.batch_execute("INSERT INTO visits VALUES (0)").await.unwrap();
    client
        .batch_execute(&format!("INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, {rows}) i"))
        .await
        .unwrap();
    (database, client)
}

fn migrator(database: &Database, migrations: &'static Migrations) -> Migrator {
    Migrator::new(database.pool(1).expect("a pool"), migrations)
        .backfill(BackfillPolicy::new().pause(Duration::ZERO))
        .lock_deadline(Duration::from_secs(20))
        .start_wait(Duration::ZERO)
        .drive_in_background(false)
}

async fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(client: &Client, sql: &str) -> T {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn forward_to_the_gate_and_beyond_and_back() {
    let (database, client) = with_rows(5_000).await;
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let migrator = migrator(&database, &COPY).observe(move |event: &Event<'_>| {
        heard.lock().unwrap().push(format!("{event:?}"));
        // Without the hook's message: observers may panic.
        std::panic::resume_unwind(Box::new(()));
    });

    // Nothing is there, and looking makes nothing.
    let status = migrator.status().await.unwrap();
    assert_eq!(status.get("copy").unwrap().state, State::Pending);
    assert!(
        !one::<bool>(&client, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'phasewise')").await
    );

    let report = migrator.run().await.unwrap();
    let copy = report.get("copy").unwrap();
    assert_eq!(copy.entered, ["Expand", "Deploy"]);
    assert!(matches!(copy.state, State::Waiting { .. }), "{report}");
    assert!(!report.fresh);
    assert_eq!(migrator.confirm("copy", "Fill").await.unwrap_err().kind(), Kind::GateClosed);
    let again = migrator.run().await.unwrap();
    assert!(again.get("copy").unwrap().entered.is_empty());

    migrator.confirm("copy", "Deploy").await.unwrap();
    let report = migrator.run().await.unwrap();
    assert_eq!(report.get("copy").unwrap().entered, ["Fill", "Index"]);
    assert_eq!(report.get("copy").unwrap().rows, 5_000);
    assert!(report.is_complete(), "{report}");
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t WHERE b = upper(a)").await, 5_000);
    assert!(
        one::<bool>(
            &client,
            "SELECT indisvalid AND indisunique FROM pg_index WHERE indexrelid = 't_b'::regclass"
        )
        .await
    );
    assert_eq!(migrator.applied().await.unwrap().len(), 1);
    println!("{}\n{report}", migrator.status().await.unwrap());

    let report = migrator.rollback("copy", "Expand").await.unwrap();
    assert_eq!(report.get("copy").unwrap().left, ["Index", "Fill", "Deploy"]);
    assert_eq!(report.get("copy").unwrap().state, State::Paused);
    // Held, and nobody vouches any more.
    assert_eq!(migrator.run().await.unwrap().get("copy").unwrap().state, State::Paused);
    migrator.resume("copy").await.unwrap();
    let report = migrator.run().await.unwrap();
    assert_eq!(report.get("copy").unwrap().entered, ["Deploy"]);
    assert!(matches!(report.get("copy").unwrap().state, State::Waiting { .. }));

    migrator.rollback("copy", To::Start).await.unwrap();
    assert!(!one::<bool>(&client, &has_column()).await);
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM phasewise.saved").await, 0);
    let report = migrator.run_to("copy", "Expand").await.unwrap();
    assert_eq!(report.get("copy").unwrap().entered, ["Expand"]);
    assert_eq!(one::<i32>(&client, "SELECT n FROM visits").await, 2);
    assert!(events.lock().unwrap().iter().any(|event| event.starts_with("PhaseEntered")));
}

#[tokio::test]
async fn a_blocker_is_outwaited_and_named() {
    let (database, client) = with_rows(10).await;
    client.batch_execute("SET application_name = 'sleeper'; BEGIN; SELECT * FROM t").await.unwrap();
    let retries = Arc::new(Mutex::new(0));
    let heard = Arc::clone(&retries);
    let migrator =
        migrator(&database, &COPY).lock_deadline(Duration::from_secs(2)).observe(move |event: &Event<'_>| {
            if let Event::LockRetry { .. } = event {
                *heard.lock().unwrap() += 1;
            }
        });
    let error = migrator.run().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Locked);
    assert!(error.to_string().contains("(sleeper), idle in transaction"), "{error}");
    assert!(*retries.lock().unwrap() > 2);
    // Half entered, and resumed.
    assert_eq!(migrator.status().await.unwrap().get("copy").unwrap().state, State::InProgress);
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(migrator.run().await.unwrap().get("copy").unwrap().entered, ["Expand", "Deploy"]);
    // Noted steps are not run twice, and the failed attempts left nothing.
    assert_eq!(one::<i32>(&client, "SELECT n FROM visits").await, 1);
}

#[tokio::test]
async fn a_fresh_database_waits_for_nothing_but_its_own_build() {
    static FRESH: Migrations = migrations![
        Migration::new("make", Once("made", "CREATE TABLE public.made (id int)")),
        Migration::new("visits", Once("", "CREATE TABLE public.visits AS SELECT 0 AS n")),
        Migration::new("t", Once("", "CREATE TABLE public.t (id int, a text)")),
        Migration::new("copy", Copied).deployed::<Deploy>(),
    ];
    let (database, _client) = database().await;
    let schema = migrator(&database, &FRESH).start().await.unwrap();
    assert!(schema.report().is_complete(), "{}", schema.report());
    // An older build may not serve beside it, and one that serves holds the rollback back.
    let error = migrator(&database, &COPY).start().await.unwrap_err();
    assert_eq!(error.kind(), Kind::OutsideWindow);
    assert!(error.to_string().contains("speaks release 0"), "{error}");
    let error = migrator(&database, &FRESH).rollback("copy", To::Start).await.unwrap_err();
    assert_eq!(error.kind(), Kind::OutsideWindow);
    schema.leave().await.unwrap();
    migrator(&database, &FRESH).rollback("copy", To::Start).await.unwrap();
    let error = migrator(&database, &FRESH).rollback("make", To::Start).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Irreversible);

    // A second run on the database is not fresh, and a build of release 0 is not overtaken.
    let (database, client) = self::database().await;
    client
        .batch_execute("CREATE TABLE t (id int, a text); CREATE TABLE visits AS SELECT 0 AS n")
        .await
        .unwrap();
    let schema = migrator(&database, &COPY).assume_fresh().start().await.unwrap();
    assert_eq!(schema.report().get("copy").unwrap().entered, ["Expand", "Deploy"]);
    let error = migrator(&database, &COPY).confirm("copy", "Deploy").await.unwrap_err();
    assert_eq!(error.kind(), Kind::GateClosed);
    assert!(error.to_string().contains("speaks 0"), "{error}");
    let report = migrator(&database, &COPY1).assume_fresh().run().await.unwrap();
    assert!(matches!(report.get("copy").unwrap().state, State::Waiting { .. }), "{report}");
    schema.leave().await.unwrap();
    assert!(migrator(&database, &COPY1).assume_fresh().run().await.unwrap().is_complete());
}

#[tokio::test]
async fn one_that_waits_holds_up_only_what_touches_the_same() {
    let (database, _client) = with_rows(10).await;
    let report = migrator(&database, &SEVERAL).run().await.unwrap();
    assert!(matches!(report.get("copy").unwrap().state, State::Waiting { .. }));
    assert!(
        matches!(&report.get("behind").unwrap().state, State::HeldUp { by, .. } if by == "copy"),
        "{report}"
    );
    assert_eq!(report.get("aside").unwrap().state, State::Applied);
    println!("{report}\n{}", migrator(&database, &SEVERAL).status().await.unwrap());
}

#[tokio::test]
async fn invalid_indexes_are_built_anew_and_others_refused() {
    let (database, client) = with_rows(10).await;
    let migrator = migrator(&database, &COPY);
    migrator.run().await.unwrap();
    migrator.confirm("copy", "Deploy").await.unwrap();
    migrator.run_to("copy", "Fill").await.unwrap();

    // A failed build of somebody's, under the final name.
    client.batch_execute("INSERT INTO t VALUES (1, 'row 1', 'ROW 1')").await.unwrap();
    client.batch_execute("CREATE UNIQUE INDEX CONCURRENTLY t_b ON t (b)").await.unwrap_err();
    let error = migrator.run().await.unwrap_err();
    assert!(error.to_string().contains("(b)=(ROW 1)") && error.to_string().contains("duplicates"), "{error}");
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass").await, 0);

    client.batch_execute("CREATE INDEX t_b ON t (a)").await.unwrap();
    let error = migrator.run().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    client.batch_execute("DROP INDEX t_b").await.unwrap();

    client.batch_execute("CREATE UNIQUE INDEX CONCURRENTLY t_b ON t (b)").await.unwrap_err();
    client.batch_execute("DELETE FROM t WHERE ctid = (SELECT max(ctid) FROM t WHERE id = 1)").await.unwrap();
    assert!(migrator.run().await.unwrap().is_complete());
    assert_eq!(
        one::<i64>(&client, "SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass AND indisvalid")
            .await,
        1
    );
}

#[tokio::test]
async fn edited_newer_and_damaged_are_refused() {
    let (database, client) = with_rows(10).await;
    migrator(&database, &COPY).run().await.unwrap();
    let edited = migrator(&database, &EDITED);
    let error = edited.run().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Changed);
    assert!(error.to_string().contains("dangerous_accept_changed"), "{error}");
    assert_eq!(edited.status().await.unwrap().get("copy").unwrap().state, State::Changed);
    edited.dangerous_accept_changed("copy").await.unwrap();
    edited.run().await.unwrap();

    client.batch_execute("UPDATE phasewise.migrations SET entered = 9").await.unwrap();
    assert_eq!(edited.run().await.unwrap_err().kind(), Kind::LedgerDamaged);
    client.batch_execute("UPDATE phasewise.ledger SET version = version + 1").await.unwrap();
    assert_eq!(edited.status().await.unwrap_err().kind(), Kind::LedgerTooNew);
    // Laid out otherwise, as newer ones are: damage only in one of our own version.
    client.batch_execute("ALTER TABLE phasewise.migrations RENAME COLUMN paused TO held").await.unwrap();
    assert_eq!(edited.status().await.unwrap_err().kind(), Kind::LedgerTooNew);
    client.batch_execute("UPDATE phasewise.ledger SET version = version - 1").await.unwrap();
    assert_eq!(edited.status().await.unwrap_err().kind(), Kind::LedgerDamaged);
}

#[tokio::test]
async fn migrations_of_a_newer_build_are_reported() {
    static NONE: Migrations = migrations![];
    let (database, _client) = with_rows(10).await;
    migrator(&database, &COPY).run().await.unwrap();
    let report = migrator(&database, &NONE).run().await.unwrap();
    assert_eq!(report.unknown, ["copy"]);
    assert_eq!(migrator(&database, &NONE).status().await.unwrap().get("copy").unwrap().state, State::Unknown);
}

#[tokio::test]
async fn several_at_once_do_the_work_once() {
    let (database, client) = with_rows(100).await;
    let runs = (0..4).map(|_| {
        let migrator = migrator(&database, &COPY);
        tokio::spawn(async move { migrator.run().await })
    });
    let mut entered = 0;
    for run in runs.collect::<Vec<_>>() {
        entered += run.await.unwrap().unwrap().get("copy").unwrap().entered.len();
    }
    assert_eq!(entered, 2);
    assert_eq!(one::<i32>(&client, "SELECT n FROM visits").await, 1);
}

#[tokio::test]
async fn a_lost_lease_stops_the_driver() {
    let (database, client) = with_rows(20_000).await;
    let slow = migrator(&database, &COPY1)
        .backfill(BackfillPolicy::new().fixed(100).pause(Duration::from_millis(10)));
    slow.run().await.unwrap();
    slow.confirm("copy", "Deploy").await.unwrap();
    let run = tokio::spawn({
        let slow = slow.clone();
        async move { slow.run().await }
    });
    until(&client, "SELECT EXISTS (SELECT FROM t WHERE b IS NOT NULL)").await;
    client
        .batch_execute("UPDATE phasewise.lease SET token = token + 1, expires_at = '-infinity'")
        .await
        .unwrap();
    let error = tokio::time::timeout(Duration::from_secs(30), run).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::LeaseLost);
    let done = one::<i64>(&client, "SELECT sum(done)::int8 FROM phasewise.backfills").await;
    assert!(done > 0 && done < 20_000, "{done}");
    let filled = one::<i64>(&client, "SELECT count(*) FROM t WHERE b IS NOT NULL").await;

    // A dropped run leaves no statement, gives the lease back, and is resumed at its cursor.
    let run = tokio::spawn({
        let slow = slow.clone();
        async move { slow.run().await }
    });
    // It has got further than the first one.
    until(&client, &format!("SELECT count(*) > {filled} FROM t WHERE b IS NOT NULL")).await;
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    // Nothing of it goes on: the lease is given back, and no session of it is at work.
    until(&client, "SELECT expires_at < clock_timestamp() FROM phasewise.lease").await;
    until(&client, "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'phasewise'").await;
    let before = one::<i64>(&client, "SELECT sum(done)::int8 FROM phasewise.backfills").await;
    assert!(before > done, "{before} after {done}");
    let rest = one::<i64>(&client, "SELECT count(*) FROM t WHERE b IS NULL").await;
    let report = migrator(&database, &COPY1).lease_wait(Duration::from_secs(5)).run().await.unwrap();
    assert!(report.is_complete());
    assert_eq!(i64::try_from(report.get("copy").unwrap().rows).unwrap(), rest);
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t WHERE b = upper(a)").await, 20_000);
}

#[tokio::test]
async fn a_row_that_cannot_be_filled_is_named() {
    let (database, client) = with_rows(3_000).await;
    let migrator = migrator(&database, &COPY);
    migrator.run().await.unwrap();
    migrator.confirm("copy", "Deploy").await.unwrap();
    client.batch_execute("UPDATE t SET a = NULL WHERE id = 7").await.unwrap();
    client.batch_execute("ALTER TABLE t ADD CHECK (b <> 'ROW 2500')").await.unwrap();
    let error = migrator.run().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Backfill);
    assert!(error.to_string().contains("t_b_check") && error.to_string().contains("id = 2500"), "{error}");
    client.batch_execute("ALTER TABLE t DROP CONSTRAINT t_b_check").await.unwrap();
    // An application that never agrees.
    client
        .batch_execute("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'begin new.b := lower(new.a); return new; end'")
        .await
        .unwrap();
    client
        .batch_execute(
            "CREATE TRIGGER f BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.id = 9) EXECUTE FUNCTION f()",
        )
        .await
        .unwrap();
    client.batch_execute("UPDATE t SET b = NULL WHERE id = 9").await.unwrap();
    let error = migrator.run().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Backfill);
    assert!(error.to_string().contains("id = 9"), "{error}");
    client.batch_execute("DROP TRIGGER f ON t").await.unwrap();
    assert!(migrator.run().await.unwrap().is_complete());
}

#[tokio::test]
async fn partitions_are_walked_one_by_one() {
    let (database, client) = database().await;
    client.batch_execute("CREATE TABLE t (id int, a text) PARTITION BY RANGE (id)").await.unwrap();
    client
        .batch_execute("CREATE TABLE \"t One\" PARTITION OF t FOR VALUES FROM (0) TO (1000)")
        .await
        .unwrap();
    client.batch_execute("CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (1000) TO (9000)").await.unwrap();
    client.batch_execute("CREATE TABLE visits AS SELECT 0 AS n").await.unwrap();
    client
        .batch_execute("INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 3000) i")
        .await
        .unwrap();
    let migrator = migrator(&database, &COPY);
    migrator.run().await.unwrap();
    migrator.confirm("copy", "Deploy").await.unwrap();
    let report = migrator.run_to("copy", "Fill").await.unwrap();
    assert_eq!(report.get("copy").unwrap().rows, 3_000);
}

#[tokio::test]
async fn a_role_without_rights_is_told_what_to_grant() {
    let (database, client) = with_rows(10).await;
    client
        .batch_execute("DO $$ BEGIN CREATE ROLE phasewise_poor LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$")
        .await
        .unwrap();
    let mut config = database.config();
    config.user("phasewise_poor");
    let poor = Migrator::connect(config, tokio_postgres::NoTls, &COPY);
    let error = poor.run().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permission, "{error}");
    assert!(error.to_string().contains("GRANT CREATE ON DATABASE"), "{error}");
    assert!(
        !one::<bool>(&client, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'phasewise')").await
    );
}

#[tokio::test]
async fn a_dropped_run_cancels_its_statement() {
    static SLEEP: Migrations = migrations![Migration::new("sleep", Once("", "SELECT pg_sleep(60)"))];
    let (database, client) = database().await;
    let direct = Migrator::connect(database.config(), tokio_postgres::NoTls, &SLEEP);
    let pooled = migrator(&database, &SLEEP);
    for migrator in [direct, pooled] {
        let run = tokio::time::timeout(Duration::from_millis(700), migrator.run());
        assert!(run.await.is_err());
        let mut left = 1_i64;
        for _ in 0..40 {
            left = one(&client, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'").await;
            if left == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(left, 0);
    }
}

#[tokio::test]
async fn remnants_of_a_killed_build_are_used_or_dropped() {
    let (database, client) = with_rows(10).await;
    let migrator = migrator(&database, &COPY);
    migrator.run().await.unwrap();
    migrator.confirm("copy", "Deploy").await.unwrap();
    migrator.run_to("copy", "Fill").await.unwrap();
    // Learn what remnants are called: a build that fails names its own.
    client.batch_execute("INSERT INTO t VALUES (1, 'row 1', 'ROW 1')").await.unwrap();
    client.batch_execute("CREATE FUNCTION stop() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN IF tg_tag = 'DROP INDEX' THEN RAISE 'no'; END IF; END $$").await.unwrap();
    client
        .batch_execute("CREATE EVENT TRIGGER stop ON ddl_command_start EXECUTE FUNCTION stop()")
        .await
        .unwrap();
    migrator.run().await.unwrap_err();
    client.batch_execute("DROP EVENT TRIGGER stop").await.unwrap();
    let remnant: String = one(
        &client,
        "SELECT relname::text FROM pg_class JOIN pg_index ON oid = indexrelid WHERE NOT indisvalid",
    )
    .await;
    assert!(remnant.starts_with("pw_"), "{remnant}");
    client.batch_execute("DELETE FROM t WHERE ctid = (SELECT max(ctid) FROM t WHERE id = 1)").await.unwrap();
    client.batch_execute(&format!("DROP INDEX {remnant}")).await.unwrap();

    // Killed between the build and the rename: the index is used. One of another definition is dropped.
    client.batch_execute(&format!("CREATE UNIQUE INDEX {remnant} ON t (b)")).await.unwrap();
    client.batch_execute(&format!("CREATE INDEX {remnant}0 ON t (a)")).await.unwrap();
    let built: u32 = one(&client, &format!("SELECT '{remnant}'::regclass::oid")).await;
    assert!(migrator.run().await.unwrap().is_complete());
    assert_eq!(one::<u32>(&client, "SELECT 't_b'::regclass::oid").await, built);
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass").await, 1);

    // Killed between the rename and the drop, on the way back.
    client.batch_execute(&format!("ALTER INDEX t_b RENAME TO {remnant}")).await.unwrap();
    migrator.rollback("copy", To::Previous).await.unwrap();
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass").await, 0);
}

#[tokio::test]
async fn a_dead_driver_is_waited_for_and_then_replaced() {
    let (database, client) = with_rows(10).await;
    migrator(&database, &COPY).pause("copy").await.unwrap();
    let report = migrator(&database, &COPY).run().await.unwrap();
    assert_eq!(report.get("copy").unwrap().state, State::Paused);
    migrator(&database, &COPY).resume("copy").await.unwrap();
    client
        .batch_execute("UPDATE phasewise.lease SET holder = 'x', by = 'a dead one', expires_at = clock_timestamp() + interval '2 s'")
        .await
        .unwrap();
    let error = migrator(&database, &COPY).lease_wait(Duration::from_millis(300)).run().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy);
    assert!(error.to_string().contains("a dead one"), "{error}");
    let report = migrator(&database, &COPY).run().await.unwrap();
    assert_eq!(report.get("copy").unwrap().entered.len(), 2);
    // Given back: the next one need not wait.
    assert!(one::<bool>(&client, "SELECT expires_at < clock_timestamp() FROM phasewise.lease").await);
}

#[tokio::test]
async fn a_half_entered_phase_is_rolled_back() {
    let (database, client) = with_rows(10).await;
    client.batch_execute("ALTER TABLE visits RENAME TO hidden").await.unwrap();
    let migrator = migrator(&database, &COPY);
    assert_eq!(migrator.run().await.unwrap_err().kind(), Kind::Step);
    assert!(one::<bool>(&client, &has_column()).await);
    let report = migrator.rollback("copy", To::Previous).await.unwrap();
    assert_eq!(report.get("copy").unwrap().left, ["Expand"]);
    assert!(!one::<bool>(&client, &has_column()).await);
    client.batch_execute("ALTER TABLE hidden RENAME TO visits").await.unwrap();
    migrator.run_to("copy", "Deploy").await.unwrap();
}

#[tokio::test]
async fn batches_pause_for_a_reason_and_wait_for_rows() {
    struct Busy(Mutex<u32>);
    #[async_trait::async_trait]
    impl Throttle for Busy {
        async fn hold(&self, _: &Client) -> Result<Option<String>> {
            let mut left = self.0.lock().unwrap();
            *left = left.saturating_sub(1);
            Ok((*left > 0).then(|| "the disk is busy".to_owned()))
        }
    }
    let (database, client) = with_rows(3_000).await;
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let migrator =
        migrator(&database, &COPY).throttle(Busy(Mutex::new(2))).observe(move |event: &Event<'_>| {
            heard.lock().unwrap().push(match event {
                Event::Throttled { reason, .. } => format!("throttled: {reason}"),
                Event::Resumed { .. } => "resumed".into(),
                Event::LockRetry { step, blockers, .. } => format!("{step}: {}", blockers.len()),
                _ => return,
            });
        });
    migrator.run().await.unwrap();
    migrator.confirm("copy", "Deploy").await.unwrap();
    client.batch_execute("BEGIN; UPDATE t SET a = a WHERE id = 1500").await.unwrap();
    let run = tokio::spawn({
        let migrator = migrator.clone();
        async move { migrator.run().await }
    });
    // The row is left out, and come back to when all others are done.
    while !events.lock().unwrap().iter().any(|event| event.starts_with("coming back")) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t WHERE b = upper(a)").await, 2_999);
    client.batch_execute("COMMIT").await.unwrap();
    assert!(run.await.unwrap().unwrap().is_complete());
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t WHERE b = upper(a)").await, 3_000);
    let events = events.lock().unwrap();
    assert_eq!(events[..2], ["throttled: the disk is busy", "resumed"]);
    assert!(events.iter().any(|event| event == "a batch: 1"), "{events:?}");
}

#[tokio::test]
async fn a_soak_is_counted_by_the_database() {
    #[derive(Clone, Copy)]
    struct Slow;
    #[derive(Clone, Copy)]
    struct Wait;
    #[derive(Clone, Copy)]
    struct After;
    impl Phase for Wait {
        const NAME: &'static str = "Wait";
        const WINDOW: Window = Window::new(0, 1);
        const GATE: Gate = Gate::fleet(1).and_soak();
        fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
            Ok(Vec::new())
        }
        fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
            Ok(Rollback::NOTHING)
        }
    }
    impl Phase for After {
        const NAME: &'static str = "After";
        const WINDOW: Window = Window::new(1, 1);
        fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
            Ok(Vec::new())
        }
        fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
            Ok(Rollback::NOTHING)
        }
    }
    impl Change for Slow {
        type Phases = (Wait, After);
        fn phases(&self) -> Self::Phases {
            (Wait, After)
        }
        fn definition(&self) -> String {
            "slow".into()
        }
        fn touches(&self) -> Touches {
            Touches::nothing().table(TableName::new("t"))
        }
    }
    static SLOW: Migrations = migrations![Migration::new("slow", Slow).not_deployed()];
    let (database, client) = with_rows(1).await;
    let migrator = migrator(&database, &SLOW);
    migrator.run().await.unwrap();
    migrator.confirm("slow", "Wait").await.unwrap();
    let report = migrator.run().await.unwrap();
    assert!(matches!(report.get("slow").unwrap().state, State::Soaking { .. }), "{report}");
    for (table, column) in [("confirmations", "at"), ("migrations", "since")] {
        let back = format!("UPDATE phasewise.{table} SET {column} = {column} - interval '14 days'");
        client.batch_execute(&back).await.unwrap();
    }
    assert!(migrator.run().await.unwrap().is_complete());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_waits_longer_than_the_stall_budget() {
    let (database, client) = with_rows(10).await;
    let budget = Duration::from_millis(300);
    // A reader that stays: ACCESS EXCLUSIVE queues behind it, and everybody else behind that.
    client.batch_execute("BEGIN; SELECT * FROM t").await.unwrap();
    let run = tokio::spawn({
        let migrator = migrator(&database, &COPY).stall_budget(budget);
        async move { migrator.run().await }
    });
    let other = database.connect().await.unwrap();
    let begun = std::time::Instant::now();
    let (mut worst, mut requests) = (Duration::ZERO, 0);
    while begun.elapsed() < Duration::from_secs(4) {
        let sent = std::time::Instant::now();
        other.batch_execute("UPDATE t SET a = a WHERE id = 1").await.unwrap();
        worst = worst.max(sent.elapsed());
        requests += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    client.batch_execute("COMMIT").await.unwrap();
    run.await.unwrap().unwrap();
    println!("{requests} requests, worst wait {} ms", worst.as_millis());
    assert!(worst > budget / 3, "the lock was never tried for: {worst:?}");
    // The reader stays more than ten times as long.
    assert!(worst < budget * 4, "{worst:?}");
}

/// When the driver's session last began a statement, as text.
async fn polls(client: &Client) -> String {
    one(client, "SELECT coalesce(max(query_start), '-infinity')::text FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'phasewise'").await
}

#[tokio::test]
async fn a_writer_that_is_still_open_is_waited_for() {
    let (database, client) = with_rows(10).await;
    let migrator = migrator(&database, &COPY);
    migrator.run().await.unwrap();
    migrator.confirm("copy", "Deploy").await.unwrap();
    // Invisible to the batches, and wrong once it commits.
    client.batch_execute("BEGIN; INSERT INTO t VALUES (11, 'row 11')").await.unwrap();
    let run = tokio::spawn({
        let migrator = migrator.clone();
        async move { migrator.run_to("copy", "Fill").await }
    });
    // All that it can see is filled, and yet it is not done: whoever is still open may be about to write.
    let other = database.connect().await.unwrap();
    until(&other, "SELECT count(*) = 10 FROM t WHERE b = upper(a)").await;
    let open = "SELECT xact_start FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction' AND application_name <> 'phasewise'";
    assert_eq!(other.query(open, &[]).await.unwrap().len(), 1);
    let (looked, begun) = (polls(&other).await, std::time::Instant::now());
    // It looks again and again, and finds the writer each time.
    while polls(&other).await == looked || begun.elapsed() < Duration::from_millis(300) {
        assert!(begun.elapsed() < Duration::from_secs(30), "it does not look");
        assert!(!run.is_finished(), "it did not wait");
        assert_eq!(one::<i64>(&other, "SELECT entered::int8 FROM phasewise.migrations").await, 2);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(run.await.unwrap().unwrap().get("copy").unwrap().rows, 11);
}
