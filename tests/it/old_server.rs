//! A server that is too old is refused before anything is made on it.

use phasewise::testing::{Database, Server};
use phasewise::{AddIndex, Kind, Migration, Migrations, Migrator, To, migrations};

static INDEX: Migrations = migrations![Migration::new("index", AddIndex::new("t", "t_id").columns(&["id"]))];

/// 13 is the newest that is too old.
#[tokio::test]
async fn version_13_is_refused_and_left_as_it_is() {
    let server = Server::version(13).await.expect("a server");
    let database = server.database().await.expect("a database");
    let client = database.connect().await.expect("a connection");
    client.batch_execute("CREATE TABLE t (id int)").await.expect("a table");
    let before = objects(&database).await;

    let migrator = Migrator::new(database.pool(4).expect("a pool"), &INDEX).instance("api");
    let errors = [
        ("run", migrator.run().await.map(drop)),
        ("run_to", migrator.run_to("index", "BuildConcurrently").await.map(drop)),
        ("status", migrator.status().await.map(drop)),
        ("plan", migrator.plan().await.map(drop)),
        ("start", migrator.start().await.map(drop)),
        ("rollback", migrator.rollback("index", To::Start).await.map(drop)),
        ("pause", migrator.pause("index").await),
        ("resume", migrator.resume("index").await),
        ("dangerous_accept_changed", migrator.dangerous_accept_changed("index").await),
    ];
    for (what, result) in errors {
        let error = result.expect_err(what);
        assert_eq!(error.kind(), Kind::ServerTooOld, "{what}: {error}");
        let text = error.to_string();
        assert!(text.contains("is Postgres 13.") && text.contains("14 or newer"), "{what}: {text}");
    }
    assert_eq!(objects(&database).await, before);
}

/// Everything in the catalog that has a name, and who is still connected.
async fn objects(database: &Database) -> Vec<String> {
    let client = database.connect().await.expect("a connection");
    let sql = "SELECT 'relation ' || oid::regclass FROM pg_class
               UNION ALL SELECT 'schema ' || nspname FROM pg_namespace
               UNION ALL SELECT 'function ' || oid::regprocedure FROM pg_proc
               UNION ALL SELECT 'setting ' || setdatabase || ' ' || setconfig::text FROM pg_db_role_setting
               ORDER BY 1";
    let rows = client.query(sql, &[]).await.expect("the catalog");
    rows.iter().map(|row| row.get(0)).collect()
}
