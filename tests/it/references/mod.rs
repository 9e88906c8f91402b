//! References to what is dropped: found on a real server, each kind, and what becomes of the gate.

mod catalog;
mod gate;
mod losses;
mod table;
mod traffic;

use std::time::Duration;

use phasewise::testing::{Database, Server, Source};
use phasewise::{
    BackfillPolicy, DropColumn, MigrationStatus, Migrations, Migrator, Reference, ReferenceKind,
    RenameColumn, State, migrations,
};
use tokio::sync::OnceCell;
use tokio_postgres::Client;

use crate::harness::run;

const NAME: &str = "users_name";
/// The last deploy phase of each migration below is the gate without references.
static RENAME: Migrations = migrations![
    phasewise::Migration::new(NAME, RenameColumn::new("users", "name", "full_name")).not_deployed()
];
static SYNCED: Migrations = migrations![
    phasewise::Migration::new(NAME, RenameColumn::new("users", "name", "full_name").kept_in_sync())
        .not_deployed()
];
static DROP: Migrations =
    migrations![phasewise::Migration::new(NAME, DropColumn::new("users", "name")).not_deployed()];

const USERS: &str = "CREATE TABLE users (id int PRIMARY KEY, name text, note text)";

/// A server that counts statements.
async fn counting(settings: &[(&str, &str)]) -> Server {
    let builder = |source: Source| {
        let builder = Server::builder()
            .source(source)
            .setting("shared_preload_libraries", "pg_stat_statements")
            .setting("pg_stat_statements.track", "all");
        settings.iter().fold(builder, |builder, (name, value)| builder.setting(*name, *value))
    };
    match builder(Source::Installed).start().await {
        Ok(server) => server,
        Err(_) => builder(Source::Npm(18)).start().await.expect("a server"),
    }
}

async fn shared() -> &'static Server {
    static SHARED: OnceCell<Server> = OnceCell::const_new();
    // Room for the statements of all tests: what is thrown out shuts a gate.
    SHARED.get_or_init(|| counting(&[("pg_stat_statements.max", "100000")])).await
}

/// A migration that stands before its gate without references, which nobody has vouched for yet.
struct Scene {
    database: Database,
    client: Client,
    migrator: Migrator,
    migrations: &'static Migrations,
}

impl Scene {
    async fn set(server: &Server, migrations: &'static Migrations, setup: &[&str]) -> Self {
        let database = server.database().await.expect("a database");
        let client = database.connect().await.expect("a connection");
        run(&client, "CREATE EXTENSION pg_stat_statements").await;
        for sql in setup {
            run(&client, sql).await;
        }
        let migrator = migrator(&database, migrations);
        let scene = Self { database, client, migrator, migrations };
        scene.come_to_the_gate().await;
        scene
    }

    async fn come_to_the_gate(&self) {
        loop {
            self.migrator.run().await.expect("a run");
            let standing = self.standing().await;
            let phase = standing.phase.as_deref().expect("a phase");
            if self.gate() == phase {
                assert!(matches!(standing.state, State::Waiting { .. }), "{}", standing.state);
                return;
            }
            self.migrator.confirm(NAME, phase).await.expect("a confirmation");
        }
    }

    /// The phase that has the gate.
    fn gate(&self) -> &'static str {
        let phases = self.migrations.get(NAME).expect("the migration").phases();
        phases.iter().find(|info| info.gate.needs_unreferenced()).expect("a gate").name
    }

    /// A person's word that the last use is over.
    async fn vouch(&self) {
        self.migrator.confirm(NAME, self.gate()).await.expect("a confirmation");
    }

    async fn standing(&self) -> MigrationStatus {
        self.migrator.status().await.expect("a status").get(NAME).expect("the migration").clone()
    }

    /// A run, and where it leaves the migration.
    async fn goes(&self) -> State {
        let report = self.migrator.run().await.expect("a run");
        report.get(NAME).expect("the migration").state.clone()
    }

    /// What keeps the gate shut, as a run and the status say; neither goes on.
    async fn shut_by(&self) -> Vec<Reference> {
        let State::Referenced { references } = self.goes().await else {
            panic!("{}", self.standing().await.state)
        };
        let standing = self.standing().await;
        assert_eq!(standing.phase.as_deref(), Some(self.gate()));
        assert_eq!(standing.state, State::Referenced { references: references.clone() });
        let printed = self.migrator.status().await.expect("a status").to_string();
        for reference in &references {
            assert!(
                printed.contains(&format!("\n  ? {}: {}", reference.object, reference.detail)),
                "{printed}"
            );
        }
        references
    }

    async fn assert_opens(&self) {
        let state = self.goes().await;
        assert_eq!(state, State::Applied, "{state}");
    }
}

fn migrator(database: &Database, migrations: &'static Migrations) -> Migrator {
    Migrator::new(database.pool(4).expect("a pool"), migrations)
        .soak(Duration::ZERO)
        .backfill(BackfillPolicy::new().fixed(100).pause(Duration::ZERO))
}

fn objects(references: &[Reference]) -> Vec<&str> {
    references.iter().map(|found| found.object.as_str()).collect()
}

fn statements(references: &[Reference]) -> Vec<&str> {
    let statements = references.iter().filter(|found| found.kind == ReferenceKind::Statement);
    // `statement <id>: <head>`
    statements.map(|found| found.object.split_once(": ").expect("a head").1).collect()
}
