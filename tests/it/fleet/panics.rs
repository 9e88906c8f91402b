//! Code of the application that panics while the background driver runs it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use phasewise::{
    AddColumn, BackfillPolicy, Event, Migration, Migrations, Migrator, Throttle, add_column, migrations,
};
use tokio_postgres::Client;

use super::stage;
use crate::harness::{migrator, one, run, until};

const ADD: AddColumn<phasewise::add_column::Nullable, phasewise::add_column::WithBackfill> =
    AddColumn::new("t", "size", "int").computed_from(&["name"]);

static OLD: Migrations = migrations![Migration::new("add", ADD).not_deployed()];
static NEW: Migrations = migrations![Migration::new("add", ADD).deployed::<add_column::WriteNew>()];

/// Says nothing on standard error, where a panic is expected.
fn blows_up(broken: &AtomicBool) {
    if broken.load(Ordering::SeqCst) {
        std::panic::resume_unwind(Box::new("out of cheese"));
    }
}

struct Moody(Arc<AtomicBool>);

#[async_trait::async_trait]
impl Throttle for Moody {
    async fn hold(&self, _: &Client) -> phasewise::Result<Option<String>> {
        blows_up(&self.0);
        Ok(None)
    }
}

fn computed(migrator: Migrator, broken: Arc<AtomicBool>) -> Migrator {
    migrator.compute("add", move |row: tokio_postgres::Row| {
        let size = row.get::<_, String>(0).len();
        let broken = Arc::clone(&broken);
        async move {
            blows_up(&broken);
            Ok::<_, std::convert::Infallible>(Some(i32::try_from(size).expect("short")))
        }
    })
}

/// It panics in every try until `broken` is taken back; the application serves all the while, and the migration ends.
async fn survives(with: impl FnOnce(Migrator, Arc<AtomicBool>) -> Migrator) {
    let (database, client) = stage().await;
    run(&client, "INSERT INTO t SELECT i, 'name ' || i FROM generate_series(2, 100) i").await;
    let old = computed(migrator(&database, &OLD), Arc::default()).start().await.unwrap();

    let broken = Arc::new(AtomicBool::new(true));
    let failures = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&failures);
    let driving = migrator(&database, &NEW)
        .drive_in_background(true)
        .poll(Duration::from_millis(20))
        .observe(move |event: &Event<'_>| {
            if let Event::DriveFailed { error } = event {
                tell.lock().unwrap().push(error.to_string());
            }
        });
    let new = with(driving, Arc::clone(&broken)).start().await.unwrap();
    assert_eq!(new.health().driver, None);
    old.leave().await.unwrap();

    // Whoever looks at the fleet sees it, too.
    until(&client, "SELECT EXISTS (SELECT FROM phasewise.instances WHERE failed LIKE '%panicked%')").await;
    let begun = std::time::Instant::now();
    let reason = loop {
        if let Some(reason) = new.health().driver {
            break reason;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "its health says nothing");
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert!(reason.contains("out of cheese") && reason.contains("the driver tries again"), "{reason}");
    assert!(failures.lock().unwrap().iter().all(|failure| *failure == reason), "{reason}");
    assert!(!failures.lock().unwrap().is_empty());
    // It serves: it is current, its heart beats, and its clients write.
    assert!(new.is_current() && new.health().current);
    run(&client, "INSERT INTO t VALUES (101, 'of a client')").await;

    broken.store(false, Ordering::SeqCst);
    until(&client, "SELECT entered = 3 AND moving IS NULL FROM phasewise.migrations").await;
    until(&client, "SELECT count(*) = 1 AND count(failed) = 0 FROM phasewise.instances").await;
    assert_eq!(new.health().driver, None);
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t WHERE size = length(name)").await, 101);
    new.leave().await.unwrap();
}

#[tokio::test]
async fn in_a_throttle() {
    survives(|migrator, broken| computed(migrator.throttle(Moody(broken)), Arc::default())).await;
}

#[tokio::test]
async fn in_a_function_that_computes_values() {
    survives(computed).await;
}

#[tokio::test]
async fn in_several_workers_at_once() {
    let policy = BackfillPolicy::new().fixed(7).pause(Duration::ZERO).workers(3);
    survives(|migrator, broken| computed(migrator.backfill(policy), broken)).await;
}
