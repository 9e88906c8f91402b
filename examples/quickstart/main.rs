//! Two migrations of a table of 200,000 rows under live traffic, without one failed request.
//!
//! ```sh
//! cargo run --release --example quickstart
//! ```
//!
//! It starts a throwaway Postgres by itself, or uses the one that `DATABASE_URL` leads to, in a database of its own
//! that it drops at the end.

#![allow(unreachable_pub, reason = "the modules of an example are seen by nobody else")]

mod application;
mod database;
mod fleet;
mod model;
mod progress;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::Pool;
use phasewise::testing::{Server, Workload};
use phasewise::{
    ChangeType, Event, Migration, Migrations, Migrator, Observer as _, RenameColumn, To, migrations,
};

use application::{Release, amount_big, full_name};
use fleet::{CLIENTS, Fleet, INSTANCES};
use model::Model;
use progress::Progress;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const FULL_NAME: &str = "20261122_users_full_name";
const AMOUNT_BIG: &str = "20261123_users_amount_big";

/// An application embeds this, and marks each migration with the release that its code speaks. The instances here
/// are of several releases and do not register: the playbook below vouches for them, with `confirm`.
static MIGRATIONS: Migrations = migrations![
    // The application writes both columns for a while, as the playbook has it: six phases, three deploys.
    Migration::new(FULL_NAME, RenameColumn::new("users", "name", "full_name")).not_deployed(),
    // Triggers keep both columns equal: six phases, one deploy.
    Migration::new(
        AMOUNT_BIG,
        ChangeType::new("users", "amount", "amount_big", "bigint")
            .up("{amount}::bigint")
            .down("case when {amount_big} between -2147483648 and 2147483647 then {amount_big}::int end")
            .kept_in_sync(),
    )
    .not_deployed(),
];

/// Everything that the playbook works with.
struct Stage {
    pool: Pool,
    migrator: Migrator,
    workload: Workload,
    progress: Arc<Progress>,
}

/// Two migrations, as a team would take them through a few weeks. `run_to` changes the schema, `deploy` replaces the
/// application, and `confirm` says that a deploy is out: the migrator moves on to no phase that a release in use
/// could not stand.
async fn playbook(stage: &Stage, model: &Arc<Model>) -> Result<()> {
    stage.say("\nusers.name becomes users.full_name: the application writes both for a while");
    let mut fleet = Fleet::start(&stage.workload, model, &full_name::RELEASE_0).await?;
    stage.say(format!(
        "  {:13} release 0, {INSTANCES} instances with {CLIENTS} clients each",
        "(application)"
    ));

    // The new column is there, and nobody knows of it; then the first deploy: write both.
    stage.run_to(FULL_NAME, "AddTarget").await?;
    stage.run_to(FULL_NAME, "WriteBoth").await?;
    stage.deploy(FULL_NAME, &mut fleet, &full_name::RELEASE_1).await?;
    stage.migrator.confirm(FULL_NAME, "WriteBoth").await?;

    // Nobody writes only the old column any more: fill the new one, give it all that hangs on the old one, and
    // deploy: read the new one.
    stage.run_to(FULL_NAME, "Backfill").await?;
    stage.columns_agree("name", "full_name").await?;
    stage.run_to(FULL_NAME, "SwitchReads").await?;
    stage.deploy(FULL_NAME, &mut fleet, &full_name::RELEASE_2).await?;
    stage.migrator.confirm(FULL_NAME, "SwitchReads").await?;

    // Nobody reads the old column any more: free it of its constraints, and deploy: stop writing it.
    stage.columns_agree("name", "full_name").await?;
    stage.run_to(FULL_NAME, "StopOldWrites").await?;
    stage.deploy(FULL_NAME, &mut fleet, &full_name::RELEASE_3).await?;
    stage.migrator.confirm(FULL_NAME, "StopOldWrites").await?;

    // Nobody uses the old column any more.
    stage.run_to(FULL_NAME, "DropSource").await?;

    stage.say("\nusers.amount becomes users.amount_big: triggers keep both equal");
    // The application's next build carries a second migration, of which it is release 0.
    stage.deploy(AMOUNT_BIG, &mut fleet, &amount_big::RELEASE_0).await?;
    stage.change_amount(&mut fleet).await?;

    stage.say("\n… which is taken back, even after the drop: the old release serves again");
    stage.migrator.rollback(AMOUNT_BIG, "SwitchOver").await?;
    stage.columns_agree("amount", "amount_big").await?;
    stage.deploy(AMOUNT_BIG, &mut fleet, &amount_big::RELEASE_0).await?;
    stage.columns_agree("amount", "amount_big").await?;
    stage.migrator.rollback(AMOUNT_BIG, To::Start).await?;

    stage.say("\n… and goes forward again");
    stage.change_amount(&mut fleet).await?;

    fleet.stop().await;
    stage.rows_are_as_written(model).await?;
    stage.say("\nthe new columns have all that hung on the old ones:");
    for line in database::carried_over(&stage.pool).await? {
        stage.say(format!("  {line}"));
    }
    Ok(())
}

impl Stage {
    fn new(pool: Pool, workload: Workload) -> Self {
        let progress = Arc::new(Progress::new());
        let observer = Arc::clone(&progress);
        let migrator = Migrator::new(pool.clone(), &MIGRATIONS)
            // The old column goes at once here. Leave this out, and it stays for 14 days after its last use, for
            // the one client that nobody thought of.
            .soak(Duration::ZERO)
            .observe(move |event: &Event<'_>| observer.event(event));
        Self { pool, migrator, workload, progress }
    }

    /// The second migration, from its first phase to its last.
    async fn change_amount(&self, fleet: &mut Fleet) -> Result<()> {
        // All of this happens behind the old release's back.
        self.run_to(AMOUNT_BIG, "AddTarget").await?;
        self.run_to(AMOUNT_BIG, "InstallSync").await?;
        self.run_to(AMOUNT_BIG, "Backfill").await?;
        self.columns_agree("amount", "amount_big").await?;
        // The one deploy: old and new release side by side, in any mixture and for as long as it takes.
        self.run_to(AMOUNT_BIG, "SwitchOver").await?;
        self.deploy(AMOUNT_BIG, fleet, &amount_big::RELEASE_1).await?;
        self.columns_agree("amount", "amount_big").await?;
        self.migrator.confirm(AMOUNT_BIG, "SwitchOver").await?;
        // Nobody uses the old column any more.
        self.run_to(AMOUNT_BIG, "RemoveSync").await?;
        self.run_to(AMOUNT_BIG, "DropSource").await
    }

    /// Takes a migration to a phase, or says why it does not get there.
    async fn run_to(&self, migration: &str, phase: &str) -> Result<()> {
        let report = self.migrator.run_to(migration, phase).await?;
        match report.get(migration) {
            Some(standing) if standing.phase.as_deref() == Some(phase) => Ok(()),
            _ => Err(format!("{migration} did not get to {phase}: {report}").into()),
        }
    }

    /// A rolling deploy of the application.
    async fn deploy(&self, migration: &str, fleet: &mut Fleet, release: &'static Release) -> Result<()> {
        let deploy = fleet.deploy(release).await?;
        self.progress.deployed(migration, &deploy);
        Ok(())
    }

    /// Checks the whole table while both columns are kept. Not before the backfill is done: until then a release
    /// that knows nothing of the new column leaves it behind.
    async fn columns_agree(&self, old: &str, new: &str) -> Result<()> {
        let rows = database::disagreeing(&self.pool, old, new).await?;
        self.workload.stale("whole table", rows, format!("{rows} rows in which {old} and {new} disagree"));
        self.say(format!("  {:13} {old} and {new} disagree in {rows} rows of the whole table", "(check)"));
        Ok(())
    }

    /// Checks every row of the table against what was last written.
    async fn rows_are_as_written(&self, model: &Model) -> Result<()> {
        let (rows, what) = database::unlike(&self.pool, model).await?;
        self.workload.stale("whole table", rows, what);
        self.say(format!("  {:13} {rows} rows of the whole table are not as last written", "(check)"));
        Ok(())
    }

    fn say(&self, line: impl AsRef<str>) {
        self.progress.say(line);
    }
}

/// Finds a server, plays, and drops the database again.
async fn quickstart(workload: &mut Option<Workload>) -> Result<()> {
    let begun = Instant::now();
    let server = Server::find().await?;
    let database = server.database().await?;
    println!("{}, database {}", server.origin(), database.name());
    let clients = workload.insert(Workload::new(database.config())).clone();
    let pool = database.pool(8)?;

    // In a task of its own, so that the database is dropped in any case: after an error, a panic, or a signal.
    let mut play = tokio::spawn(async move {
        let stage = Stage::new(pool, clients);
        database::load(&stage.pool).await?;
        stage.say(format!("loaded 200,000 users after {:.1} s", begun.elapsed().as_secs_f64()));
        let played = playbook(&stage, &Arc::new(Model::new())).await;
        stage.progress.end();
        played
    });
    let played = tokio::select! {
        played = &mut play => played.map_err(Into::into).and_then(|played| played),
        () = stopped() => {
            play.abort();
            Err("interrupted".into())
        }
    };
    let dropped = database.drop().await;
    server.stop().await;
    played?;
    Ok(dropped?)
}

/// Somebody wants it to end.
async fn stopped() {
    #[cfg(unix)]
    if let Ok(mut terminated) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
        return;
    }
    let _ = tokio::signal::ctrl_c().await;
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut workload = None;
    let played = quickstart(&mut workload).await;
    if let Err(error) = &played {
        eprintln!("error: {error}");
    }
    let Some(summary) = workload.map(|workload| workload.summary()) else { return ExitCode::FAILURE };
    for client in &summary.clients {
        for text in client.failures.iter().chain(&client.stales) {
            eprintln!("{}: {text}", client.label);
        }
    }
    println!("{summary}");
    if played.is_ok() && summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
