//! What people ask of a backfill that is under way, from other processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use phasewise::{Kind, Migration, Throttle, To, migrations};

use super::*;

const ROWS: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, a int)",
    "INSERT INTO t SELECT i, i FROM generate_series(1, 200) i",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_and_resume() {
    let (database, client) = tables(ROWS).await;
    let (watched, mut ears) = stepwise(migrator(&database, &FILL, fixed(20)));
    let other = migrator(&database, &FILL, fixed(20));
    let running = filling(watched);
    ears.batch().await;
    other.pause("fill").await.expect("paused");
    ears.run();
    // No batch more.
    let Heard::Throttled(reason) = ears.next().await else { panic!("a batch all the same") };
    assert_eq!(reason, "it is paused; `resume` lets it go on");
    until(&client, "SELECT bool_and(reason IS NOT NULL) FROM phasewise.backfills").await;
    let status = under_way(&other).await;
    assert_eq!(status.reason.as_deref(), Some(reason.as_str()));
    assert!(status.to_string().ends_with("; pauses: it is paused; `resume` lets it go on"), "{status}");
    assert_eq!(one::<i64>(&client, "SELECT count(b) FROM t").await, 20);

    other.resume("fill").await.expect("resumed");
    assert_eq!(ears.next().await, Heard::Resumed);
    assert_eq!(ears.batch().await.done, 40);
    filled(running).await;
    assert_filled(&client).await;
}

/// A long rest ends when somebody wants it to.
#[tokio::test]
async fn slower_and_faster() {
    let (database, client) = tables(ROWS).await;
    let (watched, mut ears) = ears(migrator(&database, &FILL, fixed(20).pause(Duration::from_millis(100))));
    let other = migrator(&database, &FILL, fixed(20));
    other.run_to("fill", "WriteNew").await.expect("the column is there");
    for _ in 0..3 {
        other.slower("fill").await.expect("slower");
    }
    let running = filling(watched);
    ears.batch().await;
    let begun = Instant::now();
    ears.batch().await;
    // The clock of the rest began a little before this one.
    assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
    // More than a minute and a half from the next batch on.
    for _ in 0..13 {
        other.slower("fill").await.expect("slower");
    }
    ears.batch().await;
    for _ in 0..25 {
        other.faster("fill").await.expect("faster");
    }
    filled(running).await;
    assert_filled(&client).await;
}

static SLOW: Migrations =
    migrations![Migration::new("slow", AddColumn::new("t", "b", "int").volatile_default("slow()"))];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_target_counts_as_of_the_next_batch() {
    let (database, client) = tables(ROWS).await;
    run(
        &client,
        "CREATE FUNCTION slow() RETURNS int LANGUAGE plpgsql VOLATILE AS 'BEGIN PERFORM pg_sleep(0.002); RETURN 1; END'",
    )
    .await;
    let policy = BackfillPolicy::unthrottled().between(1, 1_000).batch(20).target(Duration::from_secs(10));
    let (watched, mut ears) = stepwise(migrator(&database, &SLOW, policy));
    let other = migrator(&database, &SLOW, policy);
    let running = filling(watched);
    assert_eq!(ears.batch().await.next, 40);
    other.set_batch_target("slow", Duration::from_millis(10)).await.expect("another target");
    ears.go();
    let next = ears.batch().await.next;
    assert!((1..=5).contains(&next), "{next} rows of 2 ms each in 10 ms");
    ears.run();
    filled(running).await;
}

/// The run is told who took its place, and a later one is refused until somebody resumes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_takes_over_from_one_that_is_paused() {
    let (database, client) = tables(ROWS).await;
    let (watched, mut ears) = ears(migrator(&database, &FILL, fixed(20).pause(Duration::from_millis(20))));
    let other = migrator(&database, &FILL, fixed(20)).lease_wait(Duration::from_secs(20));
    let running = filling(watched);
    ears.batch().await;
    other.pause("fill").await.expect("paused");
    ears.until(|heard| matches!(heard, Heard::Throttled(_))).await;
    other.rollback("fill", To::Start).await.expect("back");
    let error = failed(running).await;
    assert_eq!(error.kind(), Kind::Busy);
    assert!(error.to_string().contains("somebody waits for the lease"), "{error}");
    assert!(
        !one::<bool>(
            &client,
            "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'b')"
        )
        .await
    );
}

/// The rollback may wait already when the driver comes to see that it is paused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_that_was_there_first_takes_over_too() {
    let (database, client) = tables(ROWS).await;
    let (watched, mut ears) = stepwise(migrator(&database, &FILL, fixed(20)));
    let other = migrator(&database, &FILL, fixed(20)).lease_wait(Duration::from_secs(20));
    let running = filling(watched);
    ears.batch().await;
    other.pause("fill").await.expect("paused");
    let back = tokio::spawn(async move { other.rollback("fill", To::Start).await });
    until(&client, "SELECT wanted_at IS NOT NULL FROM phasewise.lease").await;
    ears.run();
    assert_eq!(failed(running).await.kind(), Kind::Busy);
    back.await.expect("no panic").expect("back");
}

struct Flag(Arc<AtomicBool>);

#[async_trait::async_trait]
impl Throttle for Flag {
    async fn hold(&self, _: &Client) -> phasewise::Result<Option<String>> {
        Ok(self.0.load(Ordering::SeqCst).then(|| "the flag is up".to_owned()))
    }
}

/// One that waits for something else as well can be paused and taken back all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_takes_over_from_one_that_is_throttled_and_paused() {
    let (database, _client) = tables(ROWS).await;
    let up = Arc::new(AtomicBool::new(true));
    let (watched, mut ears) = ears(migrator(&database, &FILL, fixed(20)).throttle(Flag(up)));
    let other = migrator(&database, &FILL, fixed(20)).lease_wait(Duration::from_secs(20));
    let running = filling(watched);
    assert_eq!(ears.next().await, Heard::Throttled("the flag is up".to_owned()));
    other.pause("fill").await.expect("paused");
    other.rollback("fill", To::Start).await.expect("back");
    assert_eq!(failed(running).await.kind(), Kind::Busy);
}

#[tokio::test]
async fn a_throttle_of_the_users_own() {
    let (database, client) = tables(ROWS).await;
    let up = Arc::new(AtomicBool::new(true));
    let (watched, mut ears) = ears(migrator(&database, &FILL, fixed(20)).throttle(Flag(Arc::clone(&up))));
    let other = migrator(&database, &FILL, fixed(20));
    let running = filling(watched);
    assert_eq!(ears.next().await, Heard::Throttled("the flag is up".to_owned()));
    until(&client, "SELECT coalesce(bool_and(reason = 'the flag is up'), false) FROM phasewise.backfills")
        .await;
    assert_eq!(under_way(&other).await.reason.as_deref(), Some("the flag is up"));
    assert_eq!(one::<i64>(&client, "SELECT count(b) FROM t").await, 0);
    up.store(false, Ordering::SeqCst);
    assert_eq!(ears.next().await, Heard::Resumed);
    filled(running).await;
    assert_filled(&client).await;
}
