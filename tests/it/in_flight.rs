//! Several migrations, several drivers, several builds: who goes first, and who is refused.

use std::time::Duration;

use phasewise::{
    AddColumn, AddIndex, Change, ChangeType, Context, DeployPhase, Gate, Kind, Migration, Migrations, Phase,
    RenameColumn, Result, Rollback, RunSql, State, Step, To, Touches, Window, migrations,
};
use tokio_postgres::Client;

use crate::harness::{database, migrator, one, run, until};

const RENAME: RenameColumn = RenameColumn::new("t", "name", "label");

async fn table(client: &Client) {
    run(client, "CREATE TABLE t (id int PRIMARY KEY, name text)").await;
    run(client, "INSERT INTO t VALUES (1, 'a'), (2, 'b')").await;
}

#[tokio::test]
async fn nothing_overtakes_what_is_in_flight_wherever_it_is_listed() {
    macro_rules! retype {
        () => {
            Migration::new(
                "b",
                ChangeType::new("t", "name", "name_big", "varchar(100)")
                    .up("{name}::varchar(100)")
                    .down("{name_big}::text")
                    .kept_in_sync(),
            )
            .not_deployed()
        };
    }
    static ALONE: Migrations = migrations![Migration::new("c", RENAME).not_deployed()];
    static BEFORE: Migrations = migrations![retype!(), Migration::new("c", RENAME).not_deployed()];
    static AFTER: Migrations = migrations![Migration::new("c", RENAME).not_deployed(), retype!()];
    for list in [&BEFORE, &AFTER] {
        let database = database().await;
        let client = database.connect().await.unwrap();
        table(&client).await;
        migrator(&database, &ALONE).run_to("c", "WriteBoth").await.unwrap();
        let m = migrator(&database, list);
        let plan = m.plan().await.unwrap().to_string();
        assert!(plan.contains("migration c, which comes first, touches the same columns"), "{plan}");
        let report = m.run().await.unwrap();
        assert!(
            matches!(&report.get("b").unwrap().state, State::HeldUp { by, since: Some(_), .. } if by == "c"),
            "{report}"
        );
        assert!(matches!(report.get("c").unwrap().state, State::Waiting { .. }), "{report}");
        let status = m.status().await.unwrap();
        assert!(matches!(&status.get("b").unwrap().state, State::HeldUp { by, .. } if by == "c"), "{status}");
        // What is in flight goes on.
        m.confirm("c", "WriteBoth").await.unwrap();
        assert_eq!(m.run().await.unwrap().get("c").unwrap().phase.as_deref(), Some("SwitchReads"));
        let columns = "SELECT string_agg(attname, ' ' ORDER BY attname) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0";
        assert_eq!(one::<String>(&client, columns).await, "id label name");
    }
}

#[tokio::test]
async fn a_plan_enters_again_what_is_half_rolled_back() {
    static TWO: Migrations = migrations![Migration::new(
        "two",
        RunSql::new(&["CREATE TABLE a1 (x int)", "CREATE TABLE a2 (x int)"])
            .rollback(&["DROP TABLE a2", "DROP TABLE a1"])
    )];
    let database = database().await;
    let client = database.connect().await.unwrap();
    let m = migrator(&database, &TWO);
    m.run().await.unwrap();
    assert!(m.plan().await.unwrap().is_empty());
    // To where it stands nothing moves, and it is not in progress.
    let report = m.rollback("two", "Run").await.unwrap();
    assert_eq!(report.get("two").unwrap().state, State::Applied);
    run(&client, "CREATE VIEW v AS SELECT * FROM a1").await;
    m.rollback("two", To::Start).await.unwrap_err();
    let plan = m.plan().await.unwrap();
    assert_eq!(plan.migrations.len(), 1, "{plan}");
    assert_eq!(plan.migrations[0].phases[0].name, "Run");
}

/// Two phases; the rollback of the first cannot be computed, since it is irreversible.
#[derive(Clone, Copy)]
struct Lost;
#[derive(Clone, Copy)]
struct First;
#[derive(Clone, Copy)]
struct Second;

impl Phase for First {
    const NAME: &'static str = "First";
    const WINDOW: Window = Window::new(0, 0);
    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }
    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Err(phasewise::Error::new(Kind::Irreversible, "nothing was kept"))
    }
}

impl Phase for Second {
    const NAME: &'static str = "Second";
    const WINDOW: Window = Window::new(0, 0);
    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }
    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }
}

impl Change for Lost {
    type Phases = (First, Second);
    fn phases(&self) -> Self::Phases {
        (First, Second)
    }
    fn definition(&self) -> String {
        "lost".into()
    }
    fn touches(&self) -> Touches {
        Touches::nothing()
    }
}

#[tokio::test]
async fn an_error_that_says_irreversible_is_refused_before_anything_is_left() {
    static LOST: Migrations = migrations![Migration::new("lost", Lost)];
    let database = database().await;
    let m = migrator(&database, &LOST);
    m.run().await.unwrap();
    let error = m.rollback("lost", To::Start).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Irreversible);
    assert!(error.to_string().contains("nothing was kept"), "{error}");
    assert_eq!(m.status().await.unwrap().get("lost").unwrap().state, State::Applied);
}

/// One deploy that release 1 lives through, and a start that it cannot live in.
#[derive(Clone, Copy)]
struct Deployed;
#[derive(Clone, Copy)]
struct Deploy;
#[derive(Clone, Copy)]
struct Alone;

impl Phase for Deploy {
    const NAME: &'static str = "Deploy";
    const WINDOW: Window = Window::new(0, 1);
    const GATE: Gate = Gate::fleet(1);
    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }
    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }
}

impl Phase for Alone {
    const NAME: &'static str = "Alone";
    const WINDOW: Window = Window::new(1, 1);
    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }
    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }
}

impl DeployPhase<Deployed> for Deploy {}

impl Change for Deployed {
    type Phases = (Deploy, Alone);
    fn phases(&self) -> Self::Phases {
        (Deploy, Alone)
    }
    fn definition(&self) -> String {
        "deployed".into()
    }
    fn touches(&self) -> Touches {
        Touches::nothing()
    }
}

static OLD: Migrations = migrations![Migration::new("deployed", Deployed).not_deployed()];
static NEW: Migrations = migrations![Migration::new("deployed", Deployed).deployed::<Deploy>()];

#[tokio::test]
async fn a_rollback_that_an_instance_could_not_stand_leaves_no_phase() {
    let database = database().await;
    let client = database.connect().await.unwrap();
    table(&client).await;
    let m = migrator(&database, &NEW).assume_fresh();
    assert!(m.run().await.unwrap().is_complete());
    let schema = m.start().await.unwrap();
    // It could stand the first phase of the way back, and not the second.
    let error = m.rollback("deployed", To::Start).await.unwrap_err();
    assert_eq!(error.kind(), Kind::OutsideWindow);
    let status = m.status().await.unwrap();
    assert_eq!(status.get("deployed").unwrap().state, State::Applied, "{status}");
    schema.leave().await.unwrap();
    m.rollback("deployed", To::Start).await.unwrap();
}

/// Whether so many sessions wait for somebody else's transaction.
fn waiting(number: usize) -> String {
    format!(
        "SELECT count(*) = {number} FROM pg_stat_activity
          WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%ledger%FOR %'"
    )
}

/// A driver that is about to move, and an old instance that is about to join, meet at the ledger's row.
async fn meet(driver_first: bool) {
    let database = database().await;
    let client = database.connect().await.unwrap();
    table(&client).await;
    let (old, new) = (migrator(&database, &OLD), migrator(&database, &NEW));
    new.run_to("deployed", "Deploy").await.unwrap();
    new.confirm("deployed", "Deploy").await.unwrap();
    let holder = database.connect().await.unwrap();
    run(&holder, "BEGIN").await;
    run(&holder, "SELECT FROM phasewise.ledger FOR UPDATE").await;
    let drive = || {
        let new = new.clone();
        tokio::spawn(async move { new.run().await })
    };
    let join = || {
        let old = old.clone();
        tokio::spawn(async move { old.start().await })
    };
    let (driven, joined) = if driver_first {
        let driven = drive();
        until(&client, &waiting(1)).await;
        (driven, join())
    } else {
        let joined = join();
        until(&client, &waiting(1)).await;
        (drive(), joined)
    };
    until(&client, &waiting(2)).await;
    run(&holder, "ROLLBACK").await;
    let (driven, joined) = (driven.await.unwrap(), joined.await.unwrap());
    if driver_first {
        assert!(driven.unwrap().is_complete());
        assert_eq!(joined.unwrap_err().kind(), Kind::OutsideWindow);
    } else {
        let report = driven.unwrap();
        assert!(matches!(report.get("deployed").unwrap().state, State::Waiting { .. }), "{report}");
        joined.unwrap().leave().await.unwrap();
        assert!(new.run().await.unwrap().is_complete());
    }
}

#[tokio::test]
async fn an_instance_that_joins_after_the_driver_moved_is_refused() {
    meet(true).await;
}

#[tokio::test]
async fn a_driver_that_moves_after_an_instance_joined_waits_for_it() {
    meet(false).await;
}

#[tokio::test]
async fn an_old_instance_and_a_persons_word_meet_at_the_row() {
    let database = database().await;
    let client = database.connect().await.unwrap();
    table(&client).await;
    let (old, new) = (migrator(&database, &OLD), migrator(&database, &NEW));
    new.run_to("deployed", "Deploy").await.unwrap();
    let holder = database.connect().await.unwrap();
    run(&holder, "BEGIN").await;
    run(&holder, "SELECT FROM phasewise.ledger FOR UPDATE").await;
    let joined = tokio::spawn(async move { old.start().await });
    until(&client, &waiting(1)).await;
    let vouched = tokio::spawn({
        let new = new.clone();
        async move { new.confirm("deployed", "Deploy").await }
    });
    until(&client, &waiting(2)).await;
    run(&holder, "ROLLBACK").await;
    let schema = joined.await.unwrap().unwrap();
    assert_eq!(vouched.await.unwrap().unwrap_err().kind(), Kind::GateClosed);
    schema.leave().await.unwrap();
}

#[tokio::test]
async fn an_instance_that_joins_while_a_rollback_turns_holds_it_back() {
    let database = database().await;
    let client = database.connect().await.unwrap();
    table(&client).await;
    let new = migrator(&database, &NEW).assume_fresh();
    assert!(new.run().await.unwrap().is_complete());
    new.rollback("deployed", "Deploy").await.unwrap();
    let holder = database.connect().await.unwrap();
    run(&holder, "BEGIN").await;
    run(&holder, "SELECT FROM phasewise.ledger FOR UPDATE").await;
    let joined = tokio::spawn({
        let new = new.clone();
        async move { new.start().await }
    });
    until(&client, &waiting(1)).await;
    let back = tokio::spawn({
        let new = new.clone();
        async move { new.rollback("deployed", To::Start).await }
    });
    until(&client, &waiting(2)).await;
    run(&holder, "ROLLBACK").await;
    let schema = joined.await.unwrap().unwrap();
    assert_eq!(back.await.unwrap().unwrap_err().kind(), Kind::OutsideWindow);
    schema.leave().await.unwrap();
}

#[tokio::test]
async fn rows_that_a_step_fails_on_keep_out_a_build_that_counts_on_it() {
    static UNIQUE: Migrations =
        migrations![Migration::new("unique", AddIndex::new("t", "t_name").columns(&["name"]).unique())];
    let database = database().await;
    let client = database.connect().await.unwrap();
    table(&client).await;
    run(&client, "INSERT INTO t VALUES (3, 'a')").await;
    // It is told at once: waiting would not mend them.
    let m = migrator(&database, &UNIQUE).start_wait(Duration::from_secs(3600));
    let error = m.start().await.unwrap_err();
    assert_eq!((error.kind(), error.migration()), (Kind::OutsideWindow, Some("unique")), "{error}");
    assert!(error.to_string().contains("counts on all of it"), "{error}");
    assert!(error.to_string().contains("share a key"), "{error}");
    assert_eq!(m.run().await.unwrap_err().kind(), Kind::Step);
    // A ledger that does not work is another matter.
    run(&client, "ALTER TABLE phasewise.notes RENAME TO gone").await;
    run(&client, "DELETE FROM t WHERE id = 3").await;
    static NOTED: Migrations =
        migrations![Migration::new("noted", RunSql::new(&["SELECT 1"]).irreversible("a test"))];
    let error = migrator(&database, &NOTED).start().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Database, "{error}");
}

#[tokio::test]
async fn a_lease_that_is_gone_is_damage() {
    let database = database().await;
    let client = database.connect().await.unwrap();
    table(&client).await;
    let m = migrator(&database, &NEW);
    m.pause("deployed").await.unwrap();
    m.resume("deployed").await.unwrap();
    run(&client, "DELETE FROM phasewise.lease").await;
    let error = m.lease_wait(Duration::from_millis(100)).run().await.unwrap_err();
    assert_eq!(error.kind(), Kind::LedgerDamaged);
    // The advice is one that works.
    let text = error.to_string();
    let (_, insert) = text.split_once("Insert it again: ").unwrap();
    run(&client, insert).await;
    migrator(&database, &NEW).run().await.unwrap();
}

/// A custom phase that cannot be undone, of which only the first part is done.
#[tokio::test]
async fn what_is_half_done_and_irreversible_says_how_to_go_on() {
    static TWO: Migrations = migrations![Migration::new(
        "two",
        RunSql::new(&["CREATE TABLE a1 (x int)", "CREATE TABLE a2 (x mood)"]).irreversible("a test")
    )];
    static MENDED: Migrations = migrations![Migration::new(
        "two",
        RunSql::new(&["CREATE TABLE a1 (x int)", "CREATE TABLE a2 (x int)"]).irreversible("a test")
    )];
    let database = database().await;
    let client = database.connect().await.unwrap();
    let m = migrator(&database, &TWO);
    m.run().await.unwrap_err();
    let error = m.rollback("two", To::Start).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Irreversible);
    assert!(error.to_string().contains("dangerous_accept_changed"), "{error}");
    let m = migrator(&database, &MENDED);
    m.dangerous_accept_changed("two").await.unwrap();
    assert!(m.run().await.unwrap().is_complete());
    assert!(one::<bool>(&client, "SELECT to_regclass('a2') IS NOT NULL").await);
}

#[tokio::test]
async fn a_first_statement_that_never_ran_is_corrected() {
    static TYPO: Migrations = migrations![Migration::new(
        "one",
        RunSql::new(&["CREATE TABEL a (x int)", "SELECT 1"]).irreversible("a test")
    ),];
    static MENDED: Migrations = migrations![Migration::new(
        "one",
        RunSql::new(&["CREATE TABLE a (x int)", "SELECT 1"]).irreversible("a test")
    ),];
    let database = database().await;
    let client = database.connect().await.unwrap();
    let typo = migrator(&database, &TYPO);
    typo.run().await.unwrap_err();
    let mended = migrator(&database, &MENDED);
    let error = mended.run().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Changed);
    assert!(error.to_string().contains("rollback(\"one\", To::Start)"), "{error}");
    let report = typo.rollback("one", To::Start).await.unwrap();
    assert_eq!(report.get("one").unwrap().left, ["Run"]);
    mended.resume("one").await.unwrap();
    assert!(mended.run().await.unwrap().is_complete());
    assert!(one::<bool>(&client, "SELECT to_regclass('a') IS NOT NULL").await);
    // And now it is done.
    let error = mended.rollback("one", To::Start).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Irreversible);
}

#[tokio::test]
async fn one_that_fails_holds_up_only_those_that_touch_the_same() {
    static LIST: Migrations = migrations![
        Migration::new("unique", AddIndex::new("t", "t_name").columns(&["name"]).unique()),
        Migration::new("behind", RenameColumn::new("t", "name", "label")).not_deployed(),
        Migration::new("missing", AddColumn::new("nowhere", "extra", "text")),
        Migration::new("apart", AddColumn::new("u", "extra", "text")),
    ];
    let database = database().await;
    let client = database.connect().await.unwrap();
    table(&client).await;
    run(&client, "INSERT INTO t VALUES (3, 'a')").await;
    run(&client, "CREATE TABLE u (id int)").await;
    let m = migrator(&database, &LIST);
    let error = m.run().await.unwrap_err();
    assert_eq!((error.kind(), error.migration()), (Kind::Step, Some("unique")), "{error}");
    let status = m.status().await.unwrap();
    assert!(
        matches!(&status.get("behind").unwrap().state, State::HeldUp { by, .. } if by == "unique"),
        "{status}"
    );
    assert_eq!(status.get("missing").unwrap().state, State::Pending);
    assert_eq!(status.get("apart").unwrap().state, State::Applied);
    run(&client, "DELETE FROM t WHERE id = 3").await;
    let error = m.run().await.unwrap_err();
    assert_eq!((error.kind(), error.migration()), (Kind::Missing, Some("missing")), "{error}");
    assert_eq!(m.status().await.unwrap().get("unique").unwrap().state, State::Applied);
}
