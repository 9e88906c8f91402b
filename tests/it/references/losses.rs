//! What goes silently with a column: named in the plan, and dropped before it.

use std::sync::{Arc, Mutex};

use phasewise::{DropColumn, Event, Migration, Migrations, migrations};

use super::{NAME, RENAME, Scene, migrator, shared};
use crate::harness::{one, run};

static DROP: Migrations = migrations![
    Migration::new(NAME, DropColumn::new("users", "name").restore_with("'nobody'")).not_deployed()
];

const SETUP: &[&str] = &[
    "CREATE TABLE teams (id int, name text, UNIQUE (id, name))",
    "CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, team int, note text,
        CONSTRAINT checked CHECK (name <> note),
        CONSTRAINT of_a_team FOREIGN KEY (team, name) REFERENCES teams (id, name),
        CONSTRAINT once UNIQUE (note, name))",
    "CREATE INDEX several ON users (team, name)",
    "CREATE UNIQUE INDEX several_once ON users (team, name, note)",
    "CREATE INDEX included ON users (team) INCLUDE (name)",
    "CREATE INDEX partial ON users (team) WHERE name <> ''",
    "CREATE INDEX expression ON users ((lower(name) || note))",
    "CREATE INDEX single ON users (name)",
    "CREATE INDEX untouched ON users (team, note)",
    "CREATE STATISTICS together ON name, team FROM users",
];

const LOST: [&str; 10] = [
    "index \"expression\"",
    "index \"included\"",
    "index \"partial\"",
    "index \"several\"",
    "index \"single\"",
    "unique index \"several_once\"",
    "constraint \"checked\"",
    "constraint \"once\"",
    "foreign key \"of_a_team\"",
    "statistics public.together",
];

/// What refuses writes goes in StopWrites already.
const ENFORCES: [&str; 4] = [
    "unique index \"several_once\"",
    "constraint \"checked\"",
    "constraint \"once\"",
    "foreign key \"of_a_team\"",
];

/// What is left for the drop.
fn left() -> Vec<&'static str> {
    sorted(LOST.into_iter().filter(|object| !ENFORCES.contains(object)))
}

fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    items.sort();
    items
}

#[tokio::test]
async fn the_plan_names_them_from_the_first_phase_on_and_each_has_a_step() {
    let scene = Scene::set(shared().await, &DROP, SETUP).await;
    let fresh = shared().await.database().await.expect("a database");
    let client = fresh.connect().await.expect("a connection");
    for sql in SETUP {
        run(&client, sql).await;
    }
    for (plan, lost) in [
        (migrator(&fresh, &DROP).plan().await.expect("a plan"), sorted(LOST)),
        (scene.migrator.plan().await.expect("a plan"), left()),
    ] {
        let losses = &plan.migrations[0].losses;
        assert_eq!(sorted(losses.iter().map(|loss| loss.object.as_str())), lost, "{plan}");
        for loss in losses {
            assert_eq!(loss.with, "\"name\" of \"public\".\"users\"");
            assert_eq!(loss.successor, None);
            assert_eq!(loss.concurrently, loss.object.contains("index"), "{loss}");
        }
        let partial = losses.iter().find(|loss| loss.object.contains("partial")).expect("the index");
        assert_eq!(
            partial.to_string(),
            "index \"partial\" is lost with column \"name\" of \"public\".\"users\", and dropped CONCURRENTLY before it: btree (team) WHERE (name <> ''::text)"
        );
        let printed = plan.to_string();
        assert!(printed.contains("− index \"partial\" is lost with column"), "{printed}");
        // The steps of the drop are known, and say it, too.
        let steps: Vec<_> =
            plan.steps().filter(|step| step.summary.contains("lost with column \"name\"")).collect();
        assert_eq!(steps.len(), lost.len(), "{printed}");
        for step in steps {
            assert_eq!(
                step.sql[0].contains("INDEX CONCURRENTLY"),
                step.summary.contains("index"),
                "{step:?}"
            );
        }
    }
}

#[tokio::test]
async fn each_is_gone_by_a_step_of_its_own_before_the_column_is() {
    let database = shared().await.database().await.expect("a database");
    let client = database.connect().await.expect("a connection");
    for sql in SETUP {
        run(&client, sql).await;
    }
    let steps: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&steps);
    let migrator = migrator(&database, &DROP).observe(move |event: &Event<'_>| {
        if let Event::StepStarted { step, .. } = event {
            heard.lock().expect("a list").push(step.summary.clone());
        }
    });
    migrator.run().await.expect("a run");
    for phase in ["StopReads", "StopWrites"] {
        migrator.confirm(NAME, phase).await.expect("a confirmation");
        migrator.run().await.expect("a run");
    }
    let steps = steps.lock().expect("a list").clone();
    let dropped =
        steps.iter().position(|step| step.starts_with("drop column")).expect("the column is dropped");
    let lost: Vec<_> =
        steps[..dropped].iter().filter(|step| step.ends_with(", lost with column \"name\"")).collect();
    assert_eq!(lost.len(), LOST.len(), "{steps:?}");
    let left = "SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = 'users'::regclass";
    assert_eq!(one::<String>(&client, left).await, "untouched,users_pkey");
}

#[tokio::test]
async fn a_replaced_columns_successor_has_the_like_of_them() {
    let setup = [
        "CREATE TABLE users (id int PRIMARY KEY, name text, team int)",
        "CREATE INDEX several ON users (team, name)",
    ];
    let scene = Scene::set(shared().await, &RENAME, &setup).await;
    let plan = scene.migrator.plan().await.expect("a plan");
    let losses = &plan.migrations[0].losses;
    assert_eq!(losses.len(), 1, "{plan}");
    assert_eq!(losses[0].successor.as_deref(), Some("\"full_name\""));
    let there =
        "SELECT count(*) FROM pg_indexes WHERE tablename = 'users' AND indexdef LIKE '%(team, full_name)'";
    assert_eq!(one::<i64>(&scene.client, there).await, 1);
}

#[tokio::test]
async fn the_plan_names_them_in_quarantine_too() {
    static AWAY: Migrations = migrations![
        Migration::new(NAME, DropColumn::new("users", "name").restore_with("'nobody'").quarantine())
            .not_deployed()
    ];
    let scene = Scene::set(shared().await, &AWAY, SETUP).await;
    scene.vouch().await;
    scene.migrator.run_to(NAME, "Quarantine").await.expect("into quarantine");
    let away: String = one(
        &scene.client,
        "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = 'users'::regclass AND attname LIKE 'quarantine%'",
    )
    .await;
    let plan = scene.migrator.plan().await.expect("a plan");
    let losses = &plan.migrations[0].losses;
    assert_eq!(sorted(losses.iter().map(|loss| loss.object.as_str())), left(), "{plan}");
    for loss in losses {
        assert_eq!(loss.with, format!("\"{away}\" of \"public\".\"users\""));
    }
}
