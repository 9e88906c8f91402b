//! What a synced column costs those who write.

use std::time::Instant;

use phasewise::testing::{Database, Server};
use phasewise::{ChangeType, Migration, Migrations, Migrator, migrations};
use tokio_postgres::{Client, NoTls};

use crate::Result;
use crate::contestants::TRIGGER;
use crate::pairs::Bench;
use crate::tables::{self, Indexed, Key};

static RETYPE: Migrations = migrations![
    Migration::new(
        "retype",
        ChangeType::new("item", "score", "score_text", "text")
            .up("{score}::text")
            .down("{score_text}::bigint")
            .kept_in_sync()
    )
    .not_deployed()
];

#[derive(Clone, Copy, Debug)]
enum Sync {
    /// The target is there, and nothing fills it.
    None,
    Ours,
    /// As pgroll does it.
    Every,
}

/// Seconds that writers need.
async fn time(database: &Database, sync: Sync, set: &str) -> Result<f64> {
    let client = database.connect().await?;
    tables::item(&client, Key::Bigint, Indexed::InOrder).await?;
    // So that only the trigger differs: no index is to be kept.
    client.batch_execute("DROP INDEX item_indexed").await?;
    let migrator = Migrator::connect(database.config(), NoTls, &RETYPE);
    match sync {
        Sync::None => drop(migrator.run_to("retype", "AddTarget").await?),
        Sync::Ours => drop(migrator.run_to("retype", "InstallSync").await?),
        Sync::Every => {
            client.batch_execute("ALTER TABLE item ADD COLUMN score_text text").await?;
            let trigger = TRIGGER.replace("NEW.\"copy\" = \"name\"", "NEW.\"score_text\" = \"score\"::text");
            client.batch_execute(&trigger).await?;
        }
    }
    write(&client, set).await
}

/// Every tenth row, in statements of a hundred rows each: much like an application's, but for the round trips.
async fn write(client: &Client, set: &str) -> Result<f64> {
    let rows: i64 = client.query_one("SELECT max(id) FROM item", &[]).await?.get(0);
    let update = client.prepare(&format!("UPDATE item SET {set} WHERE id > $1 AND id <= $1 + 1000")).await?;
    client.batch_execute("CHECKPOINT; BEGIN").await?;
    let begun = Instant::now();
    for first in (0..rows / 2).step_by(1_000) {
        client.execute(&update, &[&first]).await?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    client.batch_execute("COMMIT").await?;
    Ok(seconds)
}

pub(crate) async fn bench(bench: &Bench, server: &Server) -> Result {
    let (synced, other) = ("score = score + 1", "at = at + interval '1 second'");
    for (name, sync, set) in [
        ("synced_update_cost", Sync::Ours, synced),
        ("synced_update_cost_pgroll_form", Sync::Every, synced),
        ("other_update_cost", Sync::Ours, other),
        ("other_update_cost_pgroll_form", Sync::Every, other),
    ] {
        if !bench.wants(name) {
            continue;
        }
        let database = server.database().await?;
        tables::source(&database, Key::Bigint, bench.rows).await?;
        bench
            .ratio(
                name,
                async || time(&database, sync, set).await,
                async || time(&database, Sync::None, set).await,
            )
            .await?;
        database.drop().await?;
    }
    Ok(())
}
