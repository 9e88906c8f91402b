//! The live fleet as the gate: which instances count, and what becomes of those that do not fit.

mod adopted;
mod cut_off;
mod door;
mod panics;
mod soaks;
mod stampede;
mod stopped;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use phasewise::testing::Database;
use phasewise::{
    AddColumn, Event, Kind, Migration, Migrations, Migrator, RenameColumn, State, migrations, rename_column,
};
use tokio_postgres::Client;

use crate::harness::{database, migrator, one, run, until};

const RENAME: RenameColumn = RenameColumn::new("t", "name", "label");

static RELEASE: [Migrations; 4] = [
    migrations![Migration::new("ren", RENAME).not_deployed()],
    migrations![Migration::new("ren", RENAME).deployed::<rename_column::WriteBoth>()],
    migrations![Migration::new("ren", RENAME).deployed::<rename_column::SwitchReads>()],
    migrations![Migration::new("ren", RENAME).deployed::<rename_column::StopOldWrites>()],
];

/// A table with a row, in a database that is not fresh.
async fn stage() -> (Database, Client) {
    let database = database().await;
    let client = database.connect().await.expect("a connection");
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, name text)").await;
    run(&client, "INSERT INTO t VALUES (1, 'a')").await;
    (database, client)
}

fn build(database: &Database, release: usize) -> Migrator {
    migrator(database, &RELEASE[release])
}

async fn phase(migrator: &Migrator) -> String {
    let status = migrator.status().await.expect("a status");
    status.get("ren").and_then(|found| found.phase.clone()).unwrap_or_default()
}

#[tokio::test]
async fn a_fleet_that_is_rolled_takes_the_schema_along_without_a_word() {
    let (database, client) = stage().await;
    let mut old = build(&database, 0).start().await.unwrap();
    for (release, phase) in [(1, "WriteBoth"), (2, "SwitchReads"), (3, "StopOldWrites")] {
        let new = build(&database, release).start().await.unwrap();
        // Both live beside each other, and the gate waits for the old one by its name.
        let status = build(&database, release).status().await.unwrap();
        let found = status.get("ren").unwrap();
        assert_eq!(found.phase.as_deref(), Some(phase), "{status}");
        let State::Waiting { by, .. } = &found.state else { panic!("{status}") };
        assert_eq!(by[0].instance.as_deref(), Some(old.id()));
        old.leave().await.unwrap();
        build(&database, release).run().await.unwrap();
        old = new;
    }
    assert_eq!(phase(&build(&database, 3)).await, "DropSource");
    assert_eq!(one::<String>(&client, "SELECT label FROM t").await, "a");
    old.leave().await.unwrap();
}

#[tokio::test]
async fn a_build_that_comes_too_early_is_refused_and_told_who_is_in_the_way() {
    let (database, _client) = stage().await;
    let old = build(&database, 0).start().await.unwrap();
    let error = build(&database, 2).start().await.unwrap_err();
    assert_eq!(error.kind(), Kind::OutsideWindow);
    let text = error.to_string();
    for part in ["migration ren", "WriteBoth", "0–1", "release 2", old.id(), "speaks release 1"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    old.leave().await.unwrap();
    // With nobody in the way it brings the schema along by itself, as far as its release goes.
    let alone = build(&database, 2).start().await.unwrap();
    assert_eq!(phase(&build(&database, 2)).await, "StopOldWrites");
    // And then the old one is too old.
    let error = build(&database, 0).start().await.unwrap_err();
    assert!(error.to_string().contains("deploy a build that speaks release 2 or newer"), "{error}");
    alone.leave().await.unwrap();
}

#[tokio::test]
async fn a_build_waits_for_others_to_leave_as_long_as_it_may() {
    let (database, client) = stage().await;
    let old = build(&database, 0).start().await.unwrap();
    let early = build(&database, 2).start_wait(Duration::from_secs(30));
    let starting = tokio::spawn(async move { early.start().await });
    until(&client, "SELECT count(*) = 1 FROM phasewise.migrations WHERE entered = 2").await;
    assert!(!starting.is_finished());
    old.leave().await.unwrap();
    starting.await.unwrap().unwrap().leave().await.unwrap();
}

#[tokio::test]
async fn absence_is_no_evidence_and_a_named_service_is_waited_for() {
    static TWO: Migrations = migrations![
        Migration::new("ren", RENAME).services(&["api", "billing"]).deployed::<rename_column::WriteBoth>()
    ];
    let (database, _client) = stage().await;
    let api = migrator(&database, &TWO).instance("api");
    api.run().await.unwrap();
    assert_eq!(phase(&api).await, "WriteBoth", "nobody is there");
    let schema = api.start().await.unwrap();
    api.run().await.unwrap();
    let status = api.status().await.unwrap();
    assert!(status.to_string().contains("no live instance of billing speaks it"), "{status}");
    // Another service, which has nothing to do with it, neither opens nor holds it.
    static NONE: Migrations = migrations![];
    let other = migrator(&database, &NONE).instance("other").start().await.unwrap();
    api.run().await.unwrap();
    assert_eq!(phase(&api).await, "WriteBoth");
    let billing = migrator(&database, &TWO).instance("billing").start().await.unwrap();
    api.run().await.unwrap();
    assert_eq!(phase(&api).await, "SwitchReads");
    for schema in [schema, other, billing] {
        schema.leave().await.unwrap();
    }
}

#[tokio::test]
async fn a_service_takes_part_by_what_it_ever_listed_on_the_table() {
    static OTHER: Migrations = migrations![Migration::new("add", AddColumn::new("t", "more", "text"))];
    static NEITHER: Migrations = migrations![];
    let (database, _client) = stage().await;
    let worker = |list| migrator(&database, list).instance("worker");
    worker(&OTHER).start().await.unwrap().leave().await.unwrap();
    let api = build(&database, 1).instance("api");
    let schema = api.start().await.unwrap();
    // Nobody of it is live, and that says nothing.
    api.run().await.unwrap();
    let status = api.status().await.unwrap();
    assert!(status.to_string().contains("no live instance of worker speaks it"), "{status}");
    // One that does not know the migration speaks release 0.
    let ignorant = worker(&NEITHER).start().await.unwrap();
    let error = api.confirm("ren", "WriteBoth").await.unwrap_err();
    assert!(error.to_string().contains("of worker speaks 0"), "{error}");
    assert_eq!(api.forget_service("worker").await.unwrap_err().kind(), Kind::GateClosed);
    ignorant.leave().await.unwrap();
    api.forget_service("worker").await.unwrap();
    api.run().await.unwrap();
    assert_eq!(phase(&api).await, "SwitchReads");
    schema.leave().await.unwrap();
}

#[tokio::test]
async fn an_expired_instance_holds_for_a_grace_and_is_counted_out_after_it() {
    let (database, client) = stage().await;
    // Gone without a word: nothing was heard of it for as long as it lasts.
    drop(build(&database, 0).start().await.unwrap());
    let new = build(&database, 1).start().await.unwrap();
    let silent = |by: &str| {
        format!(
            "UPDATE phasewise.instances SET seen = clock_timestamp() - interval '{by}' WHERE id <> '{}'",
            new.id()
        )
    };
    run(&client, &silent("60 s")).await;
    build(&database, 1).run().await.unwrap();
    let status = build(&database, 1).status().await.unwrap();
    assert!(status.to_string().contains("was last heard of at"), "{status}");
    assert!(status.instances.iter().any(|found| !found.live), "{status}");
    run(&client, &silent("91 s")).await;
    build(&database, 1).run().await.unwrap();
    assert_eq!(phase(&build(&database, 1)).await, "SwitchReads");
    new.leave().await.unwrap();
}

#[tokio::test]
async fn a_grace_of_days_is_kept() {
    let (database, client) = stage().await;
    let patient = |release| build(&database, release).grace(Duration::from_secs(7 * 24 * 3600));
    drop(patient(0).start().await.unwrap());
    run(&client, "UPDATE phasewise.instances SET seen = seen - interval '6 days'").await;
    let new = patient(1).start().await.unwrap();
    patient(1).run().await.unwrap();
    assert_eq!(phase(&patient(1)).await, "WriteBoth");
    run(&client, "UPDATE phasewise.instances SET seen = seen - interval '1 day 2 min'").await;
    patient(1).start().await.unwrap().leave().await.unwrap();
    assert_eq!(phase(&patient(1)).await, "SwitchReads");
    new.leave().await.unwrap();
}

/// An instance of release 0 with a quick heartbeat, and what it hears of itself.
async fn listening(database: &Database) -> (phasewise::Schema, Arc<Mutex<Vec<&'static str>>>) {
    listened(build(database, 0).heartbeat(Duration::from_millis(200))).await
}

async fn listened(migrator: Migrator) -> (phasewise::Schema, Arc<Mutex<Vec<&'static str>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&heard);
    let observed = migrator.observe(move |event: &Event<'_>| {
        let name = match event {
            Event::Expired { .. } => "expired",
            Event::Returned { .. } => "returned",
            Event::ShutOut { .. } => "shut out",
            _ => return,
        };
        tell.lock().unwrap().push(name);
    });
    (observed.start().await.unwrap(), heard)
}

async fn heard(events: &Mutex<Vec<&'static str>>, wanted: &str) {
    let begun = std::time::Instant::now();
    while !events.lock().unwrap().contains(&wanted) {
        assert!(begun.elapsed() < Duration::from_secs(30), "{wanted} was never said");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_instance_that_finds_itself_gone_registers_again_while_there_is_room() {
    let (database, client) = stage().await;
    let (schema, events) = listening(&database).await;
    run(&client, "DELETE FROM phasewise.instances").await;
    heard(&events, "returned").await;
    assert_eq!(*events.lock().unwrap(), ["expired", "returned"]);
    schema.wait_ready(Duration::from_secs(30)).await.unwrap();
    assert!(schema.is_current());
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM phasewise.instances").await, 1);
    schema.leave().await.unwrap();
}

#[tokio::test]
async fn an_instance_that_the_schema_left_behind_is_not_current() {
    let (database, client) = stage().await;
    let (schema, events) = listening(&database).await;
    // It was counted out, and the schema has moved on.
    let moved = "WITH gone AS (DELETE FROM phasewise.instances) UPDATE phasewise.migrations SET entered = 4";
    run(&client, moved).await;
    heard(&events, "shut out").await;
    assert!(!schema.is_current());
    let error = schema.wait_ready(Duration::from_millis(10)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::OutsideWindow);
    assert!(schema.health().reason.unwrap().contains("speaks release 0"));
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM phasewise.instances").await, 0);
    schema.leave().await.unwrap();
}

#[tokio::test]
async fn the_background_takes_the_schema_along_and_another_takes_over() {
    let (database, client) = stage().await;
    let driving = |release| {
        build(&database, release)
            .drive_in_background(true)
            .poll(Duration::from_millis(50))
            .lease_time(Duration::from_secs(1))
    };
    let old = driving(0).start().await.unwrap();
    let first = driving(1).start().await.unwrap();
    let second = driving(1).start().await.unwrap();
    old.leave().await.unwrap();
    until(&client, "SELECT entered = 4 AND moving IS NULL FROM phasewise.migrations").await;
    // Whoever drove is gone without a word; the other one goes on.
    drop(first);
    let newer = driving(2).start().await.unwrap();
    second.leave().await.unwrap();
    run(&client, "DELETE FROM phasewise.instances WHERE (releases ->> 'ren')::int = 1").await;
    until(&client, "SELECT entered = 5 AND moving IS NULL FROM phasewise.migrations").await;
    assert!(newer.health().current);
    assert!(newer.is_current());
    newer.leave().await.unwrap();
}

#[tokio::test]
async fn a_lease_in_the_far_future_of_a_dead_driver_is_taken_over() {
    let (database, client) = stage().await;
    let migrator = build(&database, 0);
    migrator.run().await.unwrap();
    // As it looks once the clock was set back by a year.
    run(
        &client,
        "UPDATE phasewise.lease SET holder = 'x', token = token + 1, lasts = 0.3,
                expires_at = clock_timestamp() + interval '1 year'",
    )
    .await;
    migrator.confirm("ren", "WriteBoth").await.unwrap();
    migrator.run().await.unwrap();
    assert_eq!(phase(&migrator).await, "SwitchReads");
}

#[tokio::test]
async fn what_comes_in_the_way_later_keeps_nobody_from_starting_again() {
    let (database, client) = stage().await;
    let first = build(&database, 1).start().await.unwrap();
    build(&database, 1).run_to("ren", "SwitchReads").await.unwrap();
    first.leave().await.unwrap();
    run(&client, "CREATE VIEW v AS SELECT name FROM t").await;
    let again = build(&database, 2).start().await.unwrap();
    let failed = again.report().failed.clone().unwrap_or_default();
    assert!(failed.contains("view v") || failed.contains("view public.v"), "{failed}");
    assert_eq!(phase(&build(&database, 2)).await, "SwitchReads");
    again.leave().await.unwrap();
    // What stands in its way is no other migration's business: a build that needs one of those is let in.
    static NEXT: Migrations = migrations![
        Migration::new("ren", RENAME).deployed::<rename_column::SwitchReads>(),
        Migration::new("next", RenameColumn::new("u", "name", "label"))
            .deployed::<rename_column::WriteBoth>(),
    ];
    run(&client, "CREATE TABLE u (id int PRIMARY KEY, name text)").await;
    let next = migrator(&database, &NEXT).start().await.unwrap();
    assert!(next.report().failed.is_some());
    let status = migrator(&database, &NEXT).status().await.unwrap();
    assert_eq!(status.get("next").unwrap().phase.as_deref(), Some("SwitchReads"), "{status}");
    next.leave().await.unwrap();
    // A migration that is refused before it has begun is its own author's to mend.
    static NOT_THERE: Migrations =
        migrations![Migration::new("add", AddColumn::new("nowhere", "more", "text"))];
    let error = migrator(&database, &NOT_THERE).instance("another").start().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Missing);
}

#[tokio::test]
async fn what_another_service_has_in_flight_holds_up_what_touches_the_same() {
    static THEIRS: Migrations = migrations![
        Migration::new("same", RenameColumn::new("t", "name", "other")).not_deployed(),
        Migration::new("elsewhere", AddColumn::new("t", "more", "text")),
    ];
    let (database, _client) = stage().await;
    build(&database, 0).instance("api").run().await.unwrap();
    let billing = migrator(&database, &THEIRS).instance("billing");
    let report = billing.run().await.unwrap();
    let State::HeldUp { by, .. } = &report.get("same").unwrap().state else { panic!("{report}") };
    assert_eq!(by, "ren");
    assert_eq!(report.get("elsewhere").unwrap().state, State::Applied);
}

#[tokio::test]
async fn a_build_that_is_not_let_in_opens_no_gates() {
    const SECOND: RenameColumn = RenameColumn::new("u", "name", "label");
    static OLD: Migrations = migrations![
        Migration::new("ren", RENAME).not_deployed(),
        Migration::new("second", SECOND).not_deployed(),
    ];
    static NEW: Migrations = migrations![
        Migration::new("ren", RENAME).deployed::<rename_column::WriteBoth>(),
        Migration::new("second", SECOND).deployed::<rename_column::SwitchReads>(),
    ];
    let (database, client) = stage().await;
    run(&client, "CREATE TABLE u (id int PRIMARY KEY, name text)").await;
    let old = migrator(&database, &OLD);
    old.run().await.unwrap();
    old.pause("second").await.unwrap();
    let error = migrator(&database, &NEW).start().await.unwrap_err();
    assert!(error.to_string().contains("it is paused. Resume it"), "{error}");
    // The one before it still fits.
    assert_eq!(phase(&old).await, "WriteBoth");
    old.start().await.unwrap().leave().await.unwrap();
    // Nor by what it would wait for behind another one.
    static BEHIND: Migrations = migrations![
        Migration::new("ren", RENAME).deployed::<rename_column::SwitchReads>(),
        Migration::new("second", SECOND).not_deployed(),
        Migration::new("third", RenameColumn::new("u", "label", "title"))
            .deployed::<rename_column::WriteBoth>(),
    ];
    let error = migrator(&database, &BEHIND).start().await.unwrap_err();
    assert!(error.to_string().contains("it waits for migration second"), "{error}");
    assert_eq!(phase(&old).await, "WriteBoth");
    old.resume("second").await.unwrap();
    migrator(&database, &NEW).start().await.unwrap().leave().await.unwrap();
}
