//! A soak beside a clock of the database that was set back.
//!
//! What was noted before lies in the future then: it is taken as it is. So the soak is longer by the jump, never shorter
//! than it was asked for, and over at the latest when the clock has come that far again. Here the clock goes on by the
//! ledger's times going back.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use phasewise::testing::Database;
use phasewise::{Migration, Migrations, Migrator, RenameColumn, Schema, State, migrations, rename_column};
use tokio_postgres::Client;

use super::{phase, stage};
use crate::harness::{migrator, one, run};

const RENAME: RenameColumn<rename_column::KeptInSync> =
    RenameColumn::new("t", "name", "label").kept_in_sync();
static OLD: Migrations = migrations![Migration::new("ren", RENAME).not_deployed()];
static NEW: Migrations = migrations![Migration::new("ren", RENAME).deployed::<rename_column::SwitchOver>()];

const SOAK: i64 = 14 * 24;

fn build(database: &Database, migrations: &'static Migrations) -> Migrator {
    migrator(database, migrations).soak(Duration::from_secs(SOAK.unsigned_abs() * 3600))
}

/// Release 1 serves, and the soak has begun.
async fn soaking() -> (Database, Client, Schema) {
    let (database, client) = stage().await;
    let schema = Box::pin(build(&database, &NEW).start()).await.unwrap();
    assert_eq!(phase(&build(&database, &NEW)).await, "SwitchOver");
    (database, client, schema)
}

/// The database's clock is set by so many hours.
async fn clock(client: &Client, hours: i64) {
    run(
        client,
        &format!(
            "WITH i AS (UPDATE phasewise.instances SET started = started - interval '{hours} h'),
                  o AS (UPDATE phasewise.older SET at = at - interval '{hours} h')
             UPDATE phasewise.migrations SET since = since - interval '{hours} h'"
        ),
    )
    .await;
}

/// Release 0 comes, and leaves again.
async fn old(database: &Database) {
    Box::pin(build(database, &OLD).start()).await.unwrap().leave().await.unwrap();
}

async fn state(database: &Database) -> State {
    // Boxed: a test that asks so often would have them all on its stack.
    let report = Box::pin(build(database, &NEW).run()).await.unwrap();
    report.get("ren").unwrap().state.clone()
}

/// When the soak is over, as it looks now, in hours from now.
async fn left(database: &Database, client: &Client) -> i64 {
    let now: DateTime<Utc> = one(client, "SELECT clock_timestamp()").await;
    match state(database).await {
        State::Soaking { until, .. } => hours(until - now),
        other => panic!("it does not soak: {other}"),
    }
}

fn hours(time: TimeDelta) -> i64 {
    // What this test took is no part of it.
    (time + TimeDelta::minutes(30)).num_hours()
}

#[tokio::test]
async fn a_clock_that_is_set_back_lengthens_it_by_the_jump_and_no_more() {
    const JUMP: i64 = 1000;
    let (database, client, schema) = soaking().await;
    clock(&client, 10).await;
    assert_eq!(left(&database, &client).await, SOAK - 10);
    clock(&client, -JUMP).await;
    // It does not even look as if the fleet had settled.
    let now: DateTime<Utc> = one(&client, "SELECT clock_timestamp()").await;
    let State::Settling { until, .. } = state(&database).await else { panic!("it does not settle") };
    assert_eq!(hours(until - now), JUMP - 10);
    // The clock comes to where it was, and the soak is what it was.
    clock(&client, JUMP).await;
    assert_eq!(left(&database, &client).await, SOAK - 10);
    clock(&client, SOAK - 11).await;
    assert_eq!(left(&database, &client).await, 1);
    assert_eq!(phase(&build(&database, &NEW)).await, "SwitchOver");
    clock(&client, 1).await;
    assert_eq!(state(&database).await, State::Applied);
    schema.leave().await.unwrap();
}

#[tokio::test]
async fn an_old_release_beside_such_a_clock_makes_it_no_shorter() {
    const JUMP: i64 = 100;
    let (database, client, schema) = soaking().await;
    clock(&client, 10).await;
    // It begins anew.
    old(&database).await;
    assert_eq!(left(&database, &client).await, SOAK);
    // The old release comes again, after the clock was set back: its last use lies before the one that was noted.
    clock(&client, -JUMP).await;
    clock(&client, 20).await;
    old(&database).await;
    let seen: DateTime<Utc> = one(&client, "SELECT at FROM phasewise.older").await;
    let now: DateTime<Utc> = one(&client, "SELECT clock_timestamp()").await;
    assert_eq!(hours(seen - now), JUMP - 20, "what was noted is not forgotten");
    clock(&client, JUMP - 20).await;
    assert_eq!(left(&database, &client).await, SOAK, "in truth {} hours since its last use", JUMP - 20);
    // And again, once the clock is beyond the jump: anew from there.
    clock(&client, 50).await;
    assert_eq!(left(&database, &client).await, SOAK - 50);
    old(&database).await;
    assert_eq!(left(&database, &client).await, SOAK);
    clock(&client, SOAK).await;
    assert_eq!(state(&database).await, State::Applied);
    schema.leave().await.unwrap();
}
