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

/// How writers write.
#[derive(Clone, Copy, Debug)]
enum Statements {
    /// A thousand rows each.
    Large,
    /// One row each, as an application's.
    Single,
}

/// Seconds that writers need, once all rows are filled.
async fn time(database: &Database, sync: Sync, set: &str, statements: Statements) -> Result<f64> {
    let client = database.connect().await?;
    tables::item(&client, Key::Bigint, Indexed::InOrder).await?;
    // So that only the trigger differs: no index is to be kept, and rows lie alike.
    client.batch_execute("DROP INDEX item_indexed").await?;
    let migrator = Migrator::connect(database.config(), NoTls, &RETYPE);
    let fill = "UPDATE item SET score_text = score::text";
    match sync {
        Sync::None => {
            migrator.run_to("retype", "AddTarget").await?;
            client.batch_execute(fill).await?;
        }
        Sync::Ours => {
            migrator.run_to("retype", "InstallSync").await?;
            client.batch_execute(fill).await?;
        }
        Sync::Every => {
            client.batch_execute("ALTER TABLE item ADD COLUMN score_text text").await?;
            client.batch_execute(fill).await?;
            let trigger = TRIGGER.replace("NEW.\"copy\" = \"name\"", "NEW.\"score_text\" = \"score\"::text");
            client.batch_execute(&trigger).await?;
        }
    }
    client.batch_execute("VACUUM (FULL, FREEZE, ANALYZE) item").await?;
    client.batch_execute("SELECT count(*), max(name) FROM item").await?;
    client.batch_execute("CHECKPOINT").await?;
    write(&client, set, statements).await
}

/// In one transaction, so that no disk is waited for.
async fn write(client: &Client, set: &str, statements: Statements) -> Result<f64> {
    let rows: i64 = client.query_one("SELECT max(id) FROM item", &[]).await?.get(0);
    let (some, step) = match statements {
        Statements::Large => (rows / 2, 1_000),
        Statements::Single => (rows / 10, 1),
    };
    let update =
        client.prepare(&format!("UPDATE item SET {set} WHERE id > $1 AND id <= $1 + {step}")).await?;
    client.batch_execute("BEGIN").await?;
    let begun = Instant::now();
    for first in (0..some).step_by(step) {
        client.execute(&update, &[&first]).await?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    client.batch_execute("COMMIT").await?;
    Ok(seconds)
}

pub(crate) async fn bench(bench: &Bench, server: &Server) -> Result {
    use Statements::{Large, Single};
    let (synced, other) = ("score = score + 1", "at = at + interval '1 second'");
    for (name, sync, set, statements) in [
        ("synced_update_cost", Sync::Ours, synced, Large),
        ("synced_update_cost_pgroll_form", Sync::Every, synced, Large),
        ("other_update_cost", Sync::Ours, other, Single),
        ("other_update_cost_pgroll_form", Sync::Every, other, Single),
        ("other_update_cost_in_bulk", Sync::Ours, other, Large),
        ("other_update_cost_in_bulk_pgroll_form", Sync::Every, other, Large),
    ] {
        if !bench.wants(name) {
            continue;
        }
        let database = server.database().await?;
        tables::source(&database, Key::Bigint, bench.rows).await?;
        bench
            .ratio(
                name,
                async || time(&database, sync, set, statements).await,
                async || time(&database, Sync::None, set, statements).await,
            )
            .await?;
        database.drop().await?;
    }
    Ok(())
}
