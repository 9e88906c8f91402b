//! How fast backfills are, and what clients notice of them: ratios, each the median of paired runs that alternate.
//!
//! `cargo bench --bench backfill` prints a line `RATIO <name> <value>` a figure. Arguments after `--` choose figures by
//! parts of their names; `--quick` takes small tables and one pair, to see that it works.

#[path = "backfill/clients.rs"]
mod clients;
#[path = "backfill/contestants.rs"]
mod contestants;
#[path = "backfill/memory.rs"]
mod memory;
#[path = "backfill/pairs.rs"]
mod pairs;
#[path = "backfill/tables.rs"]
mod tables;
#[path = "backfill/triggers.rs"]
mod triggers;

use phasewise::testing::Server;

use contestants::Contestant;
use pairs::Bench;
use tables::{Indexed, Key};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result {
    let bench = Bench::from_arguments();
    if bench.is_listing() {
        return Ok(());
    }
    // With a disk, as servers are; batches, ours and others', commit without waiting for it. Vacuums and checkpoints
    // happen when we say so, on both sides alike.
    let server = Server::builder()
        .setting("fsync", "on")
        .setting("full_page_writes", "on")
        .setting("shared_buffers", "1GB")
        .setting("max_wal_size", "16GB")
        .setting("checkpoint_timeout", "1h")
        .setting("autovacuum", "off")
        .start()
        .await?;
    eprintln!("on {}", server.origin());

    let ours = Contestant::Phasewise(1);
    let (bigint, uuid) = ((Key::Bigint, Indexed::InOrder), (Key::Uuid, Indexed::InOrder));
    let faster = [
        ("backfill_vs_single_update_bigint", bigint, ours, Contestant::SingleUpdate),
        ("backfill_vs_single_update_uuid", uuid, ours, Contestant::SingleUpdate),
        (
            "backfill_vs_single_update_random_index",
            (Key::Bigint, Indexed::AtRandom),
            ours,
            Contestant::SingleUpdate,
        ),
        (
            "backfill_and_verification_vs_single_update",
            bigint,
            Contestant::PhasewiseVerified,
            Contestant::SingleUpdate,
        ),
        ("backfill_two_workers_vs_single_update", bigint, Contestant::Phasewise(2), Contestant::SingleUpdate),
        ("backfill_vs_keyset_batches", bigint, ours, Contestant::KeysetBatches),
        ("backfill_vs_keyset_batches_uuid", uuid, ours, Contestant::KeysetBatches),
        ("backfill_vs_trigger_touch", bigint, ours, Contestant::TriggerTouch),
    ];
    for (name, table, ours, theirs) in faster {
        if !bench.wants(name) {
            continue;
        }
        let database = server.database().await?;
        tables::source(&database, table.0, bench.rows).await?;
        // Rows a second of ours over theirs: the times the other way round.
        bench
            .ratio(
                name,
                async || contestants::time(&database, table, theirs).await,
                async || contestants::time(&database, table, ours).await,
            )
            .await?;
        database.drop().await?;
    }
    triggers::bench(&bench, &server).await?;
    clients::bench(&bench).await?;
    memory::bench(&bench, &server).await
}
