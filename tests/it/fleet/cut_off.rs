//! An instance that the database does not answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use phasewise::Kind;
use phasewise::testing::Database;
use tokio_postgres::Client;

use super::{build, heard, listened, phase, stage};
use crate::harness::run;

/// From here on heartbeats fail, and whatever else changes an instance's row but for `client`.
async fn cut_off(client: &Client) {
    let fails = "CREATE FUNCTION phasewise.fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'cut off'; END $$";
    run(client, fails).await;
    let trigger = "CREATE TRIGGER fails BEFORE UPDATE ON phasewise.instances FOR EACH ROW EXECUTE FUNCTION phasewise.fails()";
    run(client, trigger).await;
    run(client, "SET session_replication_role = replica").await;
}

async fn member(database: &Database) -> (phasewise::Schema, Arc<Mutex<Vec<&'static str>>>) {
    let quick = build(database, 0).heartbeat(Duration::from_millis(500)).expiry(Duration::from_secs(3));
    listened(quick.grace(Duration::ZERO)).await
}

#[tokio::test]
async fn it_says_so_and_comes_back() {
    let (database, client) = stage().await;
    let (schema, events) = member(&database).await;
    cut_off(&client).await;
    heard(&events, "expired").await;
    assert!(!schema.is_current());
    let error = schema.wait_ready(Duration::from_millis(10)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Connection, "{error}");
    run(&client, "DROP TRIGGER fails ON phasewise.instances").await;
    schema.wait_ready(Duration::from_secs(60)).await.unwrap();
    heard(&events, "returned").await;
    schema.leave().await.unwrap();
}

#[tokio::test]
async fn it_is_not_revived_by_a_clock_that_was_set_back() {
    let (database, client) = stage().await;
    let (schema, events) = member(&database).await;
    cut_off(&client).await;
    heard(&events, "expired").await;
    let new = build(&database, 1).grace(Duration::ZERO).start().await.unwrap();
    build(&database, 1).grace(Duration::ZERO).run().await.unwrap();
    assert_eq!(phase(&build(&database, 1)).await, "SwitchReads");
    // To the database its last heartbeat lies ahead, and is in time.
    run(&client, "UPDATE phasewise.instances SET seen = seen + interval '1 hour'").await;
    run(&client, "DROP TRIGGER fails ON phasewise.instances").await;
    heard(&events, "shut out").await;
    assert!(!events.lock().unwrap().contains(&"returned"), "it was current for a moment");
    new.leave().await.unwrap();
    schema.leave().await.unwrap();
}

#[tokio::test]
async fn it_leaves_without_an_answer() {
    let (database, client) = stage().await;
    let schema = build(&database, 0).start().await.unwrap();
    run(&client, "BEGIN").await;
    run(&client, "LOCK TABLE phasewise.instances").await;
    let error = schema.leave().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Connection, "{error}");
    assert!(error.to_string().contains(&format!("when instance {} left", schema.id())), "{error}");
    assert!(!schema.is_current());
    run(&client, "COMMIT").await;
}
