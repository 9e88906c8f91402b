//! A month of deploys in a minute: what a team does, and what goes wrong.

use std::time::{Duration, Instant};

use deadpool_postgres::Pool;
use phasewise::{MigrationStatus, Migrator, State};

use crate::Result;
use crate::builds::{MIGRATION, RELEASES};
use crate::database::{self, ROWS};
use crate::fleet::Fleet;
use crate::service;

/// Nobody calls `run`, `confirm` or anything else here: the instances move the schema along by themselves, as far as the
/// fleet allows.
pub async fn play(fleet: &mut Fleet, pool: &Pool) -> Result<()> {
    // Only looks, with the service's own settings: they say when an instance counts as gone.
    let schema = Watcher(service::migrator(pool.clone(), &RELEASES[0]));

    // Reads the new column, which nobody fills yet: it has to wait until release 1 is out.
    fleet.deploy_in_vain(2).await?;
    schema.say().await?;

    // Write both. One old instance dies on the way, and cannot say so: the schema waits until it has expired.
    fleet.begin_deploy(1).await?;
    fleet.kill_one_of(0).await?;
    fleet.finish_deploy(1).await?;
    schema.say().await?;

    // The backfill begins by itself, and does not mind the end of whoever drives it.
    fleet.kill_driver_at(ROWS.unsigned_abs() / 3).await?;
    fleet.finish_deploy(1).await?;
    schema.reaches("SwitchReads").await?;

    // Read the new one. Somebody does not like it, and takes it back.
    fleet.begin_deploy(2).await?;
    fleet.deploy(1).await?;
    schema.say().await?;
    // A build that writes the old column alone would make the new one stale.
    fleet.deploy_in_vain(0).await?;
    fleet.deploy(2).await?;
    schema.reaches("StopOldWrites").await?;

    // Too late for the way back that was open before.
    fleet.deploy_in_vain(1).await?;
    fleet.deploy(3).await?;
    schema.say().await?;
    schema.reaches("DropSource").await?;

    let columns = database::columns(pool).await?;
    if columns.iter().any(|column| column == "name") || !columns.iter().any(|column| column == "full_name") {
        return Err(format!("the table has the columns {}", columns.join(", ")).into());
    }
    Ok(())
}

/// Watches the migration.
struct Watcher(Migrator);

impl Watcher {
    async fn look(&self) -> Result<MigrationStatus> {
        let status = self.0.status().await?;
        Ok(status.get(MIGRATION).ok_or("the migration is unknown")?.clone())
    }

    /// Says where it stands.
    async fn say(&self) -> Result<()> {
        self.print(&self.look().await?);
        Ok(())
    }

    /// Waits until the schema stands in a phase, and nothing is under way.
    async fn reaches(&self, phase: &str) -> Result<()> {
        let begun = Instant::now();
        loop {
            let found = self.look().await?;
            let there = found.phase.as_deref() == Some(phase) && found.state != State::InProgress;
            if there {
                self.print(&found);
                return Ok(());
            }
            if begun.elapsed() > Duration::from_secs(60) {
                return Err(format!("the schema does not get to {phase}: {}", found.state).into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn print(&self, found: &MigrationStatus) {
        let phase = found.phase.as_deref().unwrap_or("no phase");
        println!("schema: {phase}, releases {} may serve; {}", found.window, found.state);
    }
}
