//! Statements that are run once the last use is said to be over.

use phasewise::{Kind, ReferenceKind, State, To};
use tokio_postgres::NoTls;

use super::{DROP, NAME, RENAME, Scene, USERS, counting, migrator, shared, statements};
use crate::harness::{run, until};

#[tokio::test]
async fn what_was_run_before_does_not_count_and_what_is_run_after_does() {
    let scene = Scene::set(shared().await, &RENAME, &[USERS]).await;
    let (early, late) = ("SELECT id FROM users WHERE name = 'a'", "UPDATE users SET name = 'b' WHERE id = 1");
    run(&scene.client, early).await;
    run(&scene.client, "SELECT * FROM users").await;
    scene.vouch().await;
    // What the new release runs, what has nothing to do with it, and what defines.
    for sql in [
        "INSERT INTO users (id, full_name) VALUES (1, 'a')",
        "SELECT full_name, count(*) FROM users GROUP BY 1",
        "CREATE TABLE products (name text)",
        "SELECT p.name FROM products p JOIN users u ON u.full_name = p.name",
        "ALTER TABLE users ALTER name SET STATISTICS 7",
    ] {
        run(&scene.client, sql).await;
    }
    scene.migrator.plan().await.expect("a plan");
    assert_eq!(scene.standing().await.references, []);

    run(&scene.client, late).await;
    run(&scene.client, early).await;
    run(&scene.client, early).await;
    let references = scene.shut_by().await;
    let mut found = statements(&references);
    found.sort_unstable();
    assert_eq!(found, ["SELECT id FROM users WHERE name = $1", "UPDATE users SET name = $1 WHERE id = $2"]);
    let read = references.iter().find(|found| found.object.contains("SELECT")).expect("the query");
    assert!(read.detail.contains("names the column") && read.detail.contains("2 times by "), "{read}");
    let notes = scene.standing().await.notes;
    assert!(notes[0].starts_with("statements are compared since "), "{notes:?}");

    for reference in &references {
        scene.migrator.acknowledge(NAME, &reference.object).await.expect("an acknowledgement");
    }
    scene.assert_opens().await;
}

#[tokio::test]
async fn what_takes_every_column_counts() {
    let scene = Scene::set(shared().await, &DROP, &[USERS, "INSERT INTO users VALUES (1, 'a', 'b')"]).await;
    scene.vouch().await;
    for sql in [
        "SELECT * FROM users",
        "UPDATE users SET note = 'c' RETURNING *",
        "SELECT row_to_json(u) FROM users u",
        "INSERT INTO users VALUES (2, 'a', 'b')",
    ] {
        run(&scene.client, sql).await;
    }
    let copy = scene.client.copy_out("COPY users TO STDOUT").await.expect("a copy");
    drop(futures_util::StreamExt::collect::<Vec<_>>(copy).await);
    let references = scene.shut_by().await;
    let mut found: Vec<_> = references
        .iter()
        .map(|found| {
            assert_eq!(found.kind, ReferenceKind::Statement);
            found.detail.split(" (").next().expect("the use")
        })
        .collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "it copies without a list of columns",
            "it inserts without a list of columns",
            "it takes every column of the table with *",
            "it takes every column of the table with *",
            "it takes the whole row",
        ]
    );
}

#[tokio::test]
async fn a_soak_that_begins_again_counts_again() {
    let scene = Scene::set(shared().await, &RENAME, &[USERS]).await;
    scene.vouch().await;
    run(&scene.client, "SELECT name FROM users").await;
    assert_eq!(statements(&scene.shut_by().await), ["SELECT name FROM users"]);
    // An old instance was seen, as its heartbeat notes it, and is gone again.
    run(
        &scene.client,
        "INSERT INTO phasewise.older VALUES ('users_name', 'StopOldWrites', clock_timestamp())",
    )
    .await;
    scene.assert_opens().await;
    scene.migrator.rollback(NAME, To::Phase("StopOldWrites")).await.expect("a rollback");
    run(&scene.client, "SELECT name FROM users").await;
    scene.migrator.resume(NAME).await.expect("it may go on");
    scene.vouch().await;
    assert_eq!(scene.standing().await.references, []);
}

#[tokio::test]
async fn a_role_that_may_not_read_statements_says_so() {
    let server = shared().await;
    let scene = Scene::set(server, &RENAME, &[USERS]).await;
    let role = scene.database.name();
    for sql in [
        format!("CREATE ROLE \"{role}\" LOGIN"),
        format!("GRANT ALL ON SCHEMA public, phasewise TO \"{role}\""),
        format!("GRANT ALL ON ALL TABLES IN SCHEMA phasewise TO \"{role}\""),
    ] {
        run(&scene.client, &sql).await;
    }
    let mut config = scene.database.config();
    config.user(role);
    let limited = phasewise::Migrator::connect(config, NoTls, &RENAME).soak(std::time::Duration::ZERO);
    let standing =
        async || limited.status().await.expect("a status").get(NAME).expect("the migration").clone();
    let notes = standing().await.notes;
    assert!(notes[0].contains("GRANT pg_read_all_stats TO"), "{notes:?}");
    // Where others have counted them, it does not pass them by in silence.
    scene.vouch().await;
    let found = standing().await.references;
    assert_eq!(found[0].object, "statements cannot be asked for", "{found:?}");
    assert!(found[0].detail.contains("GRANT pg_read_all_stats TO"), "{found:?}");
}

#[tokio::test]
async fn statistics_that_were_reset_are_said() {
    let server = counting(&[]).await;
    let scene = Scene::set(&server, &RENAME, &[USERS]).await;
    scene.vouch().await;
    run(&scene.client, "SELECT name FROM users").await;
    run(&scene.client, "SELECT pg_stat_statements_reset()").await;
    let references = scene.shut_by().await;
    assert_eq!(references.len(), 1, "{references:?}");
    assert_eq!(references[0].kind, ReferenceKind::Evidence);
    let object = &references[0].object;
    assert!(object.starts_with("statistics of statements were reset at "), "{object}");
    scene.migrator.acknowledge(NAME, object).await.expect("a word");
    // That was said of that one.
    run(&scene.client, "SELECT pg_stat_statements_reset()").await;
    assert_eq!(scene.shut_by().await.len(), 1);
    scene.migrator.acknowledge(NAME, &scene.shut_by().await[0].object).await.expect("a word");
    scene.assert_opens().await;
}

/// What was counted once, and cannot be any more.
#[tokio::test]
async fn statistics_that_are_no_more_are_said() {
    let scene = Scene::set(shared().await, &RENAME, &[USERS]).await;
    scene.vouch().await;
    run(&scene.client, "CREATE VIEW v AS SELECT name FROM users").await;
    scene.shut_by().await;
    run(&scene.client, "DROP VIEW v").await;
    run(&scene.client, "DROP EXTENSION pg_stat_statements").await;
    assert_eq!(super::objects(&scene.shut_by().await), ["statements cannot be asked for"]);
    scene.migrator.acknowledge(NAME, "statements cannot be asked for").await.expect("an acknowledgement");
    scene.assert_opens().await;
}

#[tokio::test]
async fn statistics_that_were_thrown_out_are_said() {
    let server = counting(&[("pg_stat_statements.max", "100")]).await;
    let scene = Scene::set(&server, &RENAME, &[USERS]).await;
    scene.vouch().await;
    // Each is another query: it has another number of columns.
    for columns in 1..200 {
        let list = vec!["1"; columns].join(", ");
        run(&scene.client, &format!("SELECT {list}")).await;
    }
    let references = scene.shut_by().await;
    let evidence = references.iter().find(|found| found.kind == ReferenceKind::Evidence).expect("evidence");
    assert_eq!(evidence.object, "statistics of statements were thrown out");
    for reference in &references {
        scene.migrator.acknowledge(NAME, &reference.object).await.expect("an acknowledgement");
    }
    scene.assert_opens().await;
}

#[tokio::test]
async fn a_replicas_statements_count() {
    let server = counting(&[]).await;
    let mut scene = Scene::set(&server, &RENAME, &[USERS]).await;
    let replica = server.replica().await.expect("a replica");
    replica.catch_up().await.expect("a replica that replays");
    let reader = replica.connect(&scene.database).await.expect("a connection");
    scene.migrator =
        migrator(&scene.database, &RENAME).replica("reports", replica.config(&scene.database), NoTls);
    run(&reader, "SELECT count(name) FROM users").await;
    scene.vouch().await;
    let notes = scene.standing().await.notes;
    assert!(
        notes.iter().any(|note| note.starts_with("statements on replica reports are compared since")),
        "{notes:?}"
    );
    assert_eq!(scene.standing().await.references, []);

    run(&reader, "SELECT count(name) FROM users").await;
    let references = scene.shut_by().await;
    assert_eq!(references.len(), 1, "{references:?}");
    let object = &references[0].object;
    assert!(object.ends_with(" on replica reports: SELECT count(name) FROM users"), "{object}");
    scene.migrator.acknowledge(NAME, object).await.expect("an acknowledgement");

    // By a driver that does not know of it as well.
    let named = std::mem::replace(&mut scene.migrator, migrator(&scene.database, &RENAME));
    assert_eq!(super::objects(&scene.shut_by().await), ["statements on replica reports cannot be asked for"]);
    scene.migrator = named;

    // One that cannot be asked any more is said, too.
    drop(reader);
    drop(replica);
    let references = scene.shut_by().await;
    assert_eq!(references.len(), 1, "{references:?}");
    assert_eq!(references[0].kind, ReferenceKind::Evidence);
    assert_eq!(references[0].object, "statements on replica reports cannot be asked for");
    let error = scene.migrator.acknowledge(NAME, object).await.expect_err("it is not found any more");
    assert_eq!(error.kind(), Kind::Unknown, "{error}");
    scene.migrator.acknowledge(NAME, &references[0].object).await.expect("an acknowledgement");
    assert!(matches!(scene.goes().await, State::Applied));
}

/// A fleet has come to the soak, and its end is 2 s ahead: (the migrator, the instance).
async fn soaking(scene: &Scene) -> (phasewise::Migrator, phasewise::Schema) {
    static NEW: phasewise::Migrations = phasewise::migrations![
        phasewise::Migration::new(NAME, phasewise::RenameColumn::new("users", "name", "full_name"))
            .deployed::<phasewise::rename_column::StopOldWrites>()
    ];
    let new = migrator(&scene.database, &NEW)
        .settle(std::time::Duration::ZERO)
        .drive_in_background(false)
        .soak(std::time::Duration::from_secs(2));
    let schema = Box::pin(new.start()).await.expect("an instance");
    (new, schema)
}

const SOAKED: &str = "SELECT clock_timestamp() > greatest(m.since, (SELECT max(at) FROM phasewise.older)) + interval '2 s' FROM phasewise.migrations m";

#[tokio::test]
async fn a_statement_in_the_middle_of_a_soak_is_found_at_its_end() {
    let scene = Scene::set(shared().await, &RENAME, &[USERS]).await;
    let (new, schema) = soaking(&scene).await;
    let report = Box::pin(new.run()).await.expect("a run");
    assert!(matches!(report.get(NAME).expect("it").state, State::Soaking { .. }), "{report}");
    run(&scene.client, "SELECT name FROM users").await;
    until(&scene.client, SOAKED).await;
    let report = Box::pin(new.run()).await.expect("a run");
    let State::Referenced { references } = &report.get(NAME).expect("it").state else { panic!("{report}") };
    assert_eq!(statements(references), ["SELECT name FROM users"]);
    schema.leave().await.expect("it leaves");
}

#[tokio::test]
async fn a_soak_in_which_nobody_counted_proves_nothing() {
    let scene = Scene::set(shared().await, &RENAME, &[USERS, "DROP EXTENSION pg_stat_statements"]).await;
    let (new, schema) = soaking(&scene).await;
    until(&scene.client, SOAKED).await;
    run(&scene.client, "CREATE EXTENSION pg_stat_statements").await;
    let report = Box::pin(new.run()).await.expect("a run");
    let State::Referenced { references } = &report.get(NAME).expect("it").state else { panic!("{report}") };
    assert_eq!(references.len(), 1, "{references:?}");
    assert_eq!(references[0].kind, ReferenceKind::Evidence);
    assert!(references[0].object.starts_with("statements before "), "{references:?}");
    new.acknowledge(NAME, &references[0].object).await.expect("a word");
    assert!(Box::pin(new.run()).await.expect("a run").is_complete());
    schema.leave().await.expect("it leaves");
}
