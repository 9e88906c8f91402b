//! The gate that waits for references: where it is shut, and what opens it.

use std::time::Duration;

use phasewise::testing::Server;
use phasewise::{Event, Kind, Reference, State, To};

use super::{NAME, RENAME, Scene, USERS, migrator, objects, shared};
use crate::harness::run;

const F: &str = "CREATE FUNCTION f() RETURNS SETOF text LANGUAGE sql AS 'SELECT name FROM users'";
const G: &str = "CREATE FUNCTION g() RETURNS SETOF text LANGUAGE sql AS 'SELECT name FROM users'";

fn acknowledged(references: &[Reference]) -> Vec<&str> {
    let of = references.iter().filter(|found| found.acknowledged.is_some());
    of.map(|found| found.object.as_str()).collect()
}

#[tokio::test]
async fn it_opens_once_each_is_acknowledged_by_name() {
    let scene = Scene::set(shared().await, &RENAME, &[USERS, F, G]).await;
    // Before the last use is over, the status and the plan name them already.
    assert_eq!(objects(&scene.standing().await.references), ["function public.f()", "function public.g()"]);
    let plan = scene.migrator.plan().await.expect("a plan");
    assert_eq!(objects(&plan.migrations[0].references), ["function public.f()", "function public.g()"]);
    assert!(plan.to_string().contains("? function public.f(): its body names column \"name\""), "{plan}");

    scene.vouch().await;
    assert_eq!(objects(&scene.shut_by().await), ["function public.f()", "function public.g()"]);

    let error = scene.migrator.acknowledge(NAME, "function f()").await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Unknown, "{error}");
    for part in ["\"function f()\"", "\"function public.f()\"", "\"function public.g()\"", NAME] {
        assert!(error.to_string().contains(part), "{error}");
    }

    scene.migrator.acknowledge(NAME, "function public.f()").await.expect("an acknowledgement");
    scene.migrator.acknowledge(NAME, "function public.f()").await.expect("the same again");
    assert_eq!(objects(&scene.shut_by().await), ["function public.g()"]);
    let standing = scene.standing().await;
    assert_eq!(acknowledged(&standing.references), ["function public.f()"]);
    let by = &standing.references[0].acknowledged.as_ref().expect("an acknowledgement").by;
    let printed = scene.migrator.status().await.expect("a status").to_string();
    assert!(printed.contains(&format!("(acknowledged by {by} at ")), "{printed}");
    let json = serde_json_of(&standing);
    assert!(json.contains("\"object\":\"function public.g()\""), "{json}");

    run(&scene.client, "DROP FUNCTION g").await;
    scene.assert_opens().await;
    let error = scene.migrator.acknowledge(NAME, "function public.f()").await.expect_err("it is over");
    assert_eq!(error.kind(), Kind::Unknown, "{error}");
}

fn serde_json_of(standing: &phasewise::MigrationStatus) -> String {
    serde_json::to_string(standing).expect("JSON")
}

#[tokio::test]
async fn a_view_is_refused_before_the_migration_and_waited_for_after() {
    let database = shared().await.database().await.expect("a database");
    let client = database.connect().await.expect("a connection");
    run(&client, USERS).await;
    run(&client, "CREATE VIEW v AS SELECT name FROM users").await;
    let error = migrator(&database, &RENAME).run().await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");

    let scene = Scene::set(shared().await, &RENAME, &[USERS]).await;
    run(&scene.client, "CREATE VIEW v AS SELECT name FROM users").await;
    scene.vouch().await;
    assert_eq!(objects(&scene.shut_by().await), ["view public.v"]);
    run(&scene.client, "DROP VIEW v").await;
    scene.assert_opens().await;
}

#[tokio::test]
async fn an_observer_hears_what_it_waits_for() {
    let scene = Scene::set(shared().await, &RENAME, &[USERS, F]).await;
    scene.vouch().await;
    let (tell, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let migrator = scene.migrator.clone().observe(move |event: &Event<'_>| {
        if let Event::Waiting { state, .. } = event {
            let _ = tell.send(state.to_string());
        }
    });
    migrator.run().await.expect("a run");
    let said = heard.recv().await.expect("an event");
    assert_eq!(said, "waits until nothing refers to what is dropped: function public.f()");
}

#[tokio::test]
async fn a_rollback_withdraws_acknowledgements() {
    let scene = Scene::set(shared().await, &RENAME, &[USERS, F]).await;
    scene.vouch().await;
    scene.migrator.acknowledge(NAME, "function public.f()").await.expect("an acknowledgement");
    scene.assert_opens().await;
    scene.migrator.rollback(NAME, To::Phase("SwitchReads")).await.expect("a rollback");
    scene.migrator.resume(NAME).await.expect("it may go on");
    scene.come_to_the_gate().await;
    scene.vouch().await;
    assert_eq!(objects(&scene.shut_by().await), ["function public.f()"]);
}

#[tokio::test]
async fn it_waits_out_the_soak_and_a_fresh_database_waits_for_nothing() {
    let scene = Scene::set(shared().await, &RENAME, &[USERS, F]).await;
    scene.vouch().await;
    let long = scene.migrator.clone().soak(Duration::from_secs(3_600));
    let report = long.run().await.expect("a run");
    assert!(matches!(report.get(NAME).expect("the migration").state, State::Soaking { .. }), "{report}");
    let standing = long.status().await.expect("a status").get(NAME).expect("the migration").clone();
    assert!(matches!(standing.state, State::Soaking { .. }), "{}", standing.state);
    assert_eq!(objects(&standing.references), ["function public.f()"]);

    let report = scene.migrator.clone().assume_fresh().run_to(NAME, "DropSource").await.expect("a run");
    assert!(report.is_complete(), "{report}");
}

#[tokio::test]
async fn without_the_extension_the_status_says_so_and_the_gate_opens() {
    let server = Server::shared().await.expect("a server");
    let database = server.database().await.expect("a database");
    let client = database.connect().await.expect("a connection");
    run(&client, USERS).await;
    let migrator = migrator(&database, &RENAME);
    let scene = Scene { database, client, migrator, migrations: &RENAME };
    scene.come_to_the_gate().await;
    scene.vouch().await;
    let standing = scene.standing().await;
    assert_eq!(standing.references, []);
    assert!(standing.notes[0].contains("pg_stat_statements is not installed"), "{:?}", standing.notes);
    let printed = scene.migrator.status().await.expect("a status").to_string();
    assert!(printed.contains("CREATE EXTENSION pg_stat_statements"), "{printed}");
    scene.assert_opens().await;
}
