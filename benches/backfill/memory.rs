//! What the driver needs, whatever the table's size.

use phasewise::BackfillPolicy;
use phasewise::testing::Server;

use crate::Result;
use crate::contestants;
use crate::pairs::Bench;
use crate::tables::{self, Indexed, Key};

/// Kilobytes of this process that are in memory.
fn resident() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Memory after a backfill of ten times as many rows, over that after the smaller one.
pub(crate) async fn bench(bench: &Bench, server: &Server) -> Result {
    const NAME: &str = "driver_memory_ten_times_the_rows";
    if !bench.wants(NAME) || !cfg!(target_os = "linux") {
        return Ok(());
    }
    let mut used = Vec::new();
    for rows in [bench.rows, bench.rows * 10] {
        let database = server.database().await?;
        tables::source(&database, Key::Bigint, rows).await?;
        let client = database.connect().await?;
        tables::item(&client, Key::Bigint, Indexed::InOrder).await?;
        let (_, seconds) = contestants::phasewise(&database, BackfillPolicy::unthrottled()).await?;
        let resident = resident()?;
        eprintln!("  {NAME}: {rows} rows in {seconds:.1} s, {resident:.0} kB resident");
        used.push(resident);
        drop(client);
        database.drop().await?;
    }
    println!("RATIO {NAME} {:.2}", used[1] / used[0]);
    Ok(())
}
