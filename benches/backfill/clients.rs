//! What clients notice: pgbench at a fixed rate, with a backfill of the policy's defaults beside it and without.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use phasewise::testing::{Database, Server};
use phasewise::{AddColumn, BackfillPolicy, Event, Migration, Migrations, Migrator, migrations};
use tokio_postgres::NoTls;

use crate::Result;
use crate::pairs::{Bench, median};

static FILL: Migrations = migrations![
    Migration::new(
        "fill",
        AddColumn::new("pgbench_accounts", "note", "text").backfill("'account ' || {aid}")
    )
    .not_deployed()
];

/// Latencies of one run, in milliseconds, sorted.
struct Latencies(Vec<f64>);

impl Latencies {
    fn p(&self, share: f64) -> f64 {
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let at = ((self.0.len() as f64 * share) as usize).min(self.0.len().saturating_sub(1));
        self.0.get(at).copied().unwrap_or(f64::NAN)
    }

    fn worst(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }
}

/// pgbench, on the `PATH` or where Debian puts it.
fn pgbench() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    std::env::split_paths(&path)
        .chain(debian.map(|entry| entry.path().join("bin")))
        .map(|directory| directory.join("pgbench"))
        .find(|file| file.is_file())
        .ok_or_else(|| "pgbench is not installed: apt-get install postgresql".into())
}

fn command(pgbench: &Path, database: &Database, arguments: &[&str], directory: &Path) -> Command {
    let mut command = Command::new(pgbench);
    command.args(arguments).arg(database.url()).current_dir(directory).stdin(Stdio::null());
    command
}

fn output(mut command: Command) -> Result<String> {
    let output = command.stderr(Stdio::piped()).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Transactions a second that the machine sustains.
fn sustained(pgbench: &Path, database: &Database, directory: &Path, seconds: &str) -> Result<f64> {
    let said = output(command(pgbench, database, &["-n", "-c", "4", "-j", "2", "-T", seconds], directory))?;
    let tps = said.lines().find_map(|line| line.strip_prefix("tps = ")).ok_or("no tps")?;
    Ok(tps.split_whitespace().next().ok_or("no tps")?.parse()?)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Transactions that ended between two moments. With a rate, the time that one waited for its turn counts.
fn read(directory: &Path, from: f64, to: f64) -> Result<Latencies> {
    let mut latencies = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        for line in std::fs::read_to_string(entry?.path())?.lines() {
            // client, transaction, microseconds, script, seconds, microseconds, lag
            let fields: Vec<f64> =
                line.split_whitespace().map(|field| field.parse().unwrap_or(f64::NAN)).collect();
            if let [_, _, took, _, seconds, micros, ..] = fields[..] {
                let ended = seconds + micros / 1e6;
                if ended >= from && ended <= to {
                    latencies.push(took / 1e3);
                }
            }
        }
    }
    latencies.sort_by(f64::total_cmp);
    Ok(Latencies(latencies))
}

struct Runs {
    pgbench: PathBuf,
    database: Database,
    directory: PathBuf,
    rate: String,
    seconds: u64,
}

impl Runs {
    /// One run of pgbench; those of its transactions count that a backfill was beside, or all.
    async fn run(&self, backfill: bool) -> Result<Latencies> {
        let directory = self.directory.join(if backfill { "busy" } else { "idle" });
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory)?;
        let client = self.database.connect().await?;
        client.batch_execute("DROP SCHEMA IF EXISTS phasewise CASCADE").await?;
        client.batch_execute("ALTER TABLE pgbench_accounts DROP COLUMN IF EXISTS note").await?;
        for sql in ["VACUUM FULL pgbench_accounts", "VACUUM (ANALYZE)", "CHECKPOINT"] {
            client.batch_execute(sql).await?;
        }
        let seconds = self.seconds.to_string();
        let arguments = ["-n", "-c", "4", "-j", "2", "-R", &self.rate, "-T", &seconds, "-l"];
        let mut process =
            command(&self.pgbench, &self.database, &arguments, &directory).stdout(Stdio::null()).spawn()?;
        // What comes first is not counted.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let from = now();
        let to = if backfill {
            let until = Arc::new(Mutex::new(None));
            let heard = Arc::clone(&until);
            let migrator = Migrator::connect(self.database.config(), NoTls, &FILL)
                .backfill(BackfillPolicy::new())
                .observe(move |event: &Event<'_>| {
                    if let Event::StepDone { phase: "Backfill", .. } = event {
                        *heard.lock().expect("a time") = Some(now());
                    }
                });
            migrator.run_to("fill", "WriteNew").await?;
            migrator.confirm("fill", "WriteNew").await?;
            let end = tokio::time::sleep(Duration::from_secs(self.seconds.saturating_sub(4)));
            tokio::select! {
                done = migrator.run() => drop(done?),
                () = end => {}
            }
            let until = *until.lock().expect("a time");
            until.unwrap_or_else(now)
        } else {
            f64::INFINITY
        };
        let status = tokio::task::spawn_blocking(move || process.wait()).await??;
        if !status.success() {
            return Err("pgbench failed".into());
        }
        read(&directory, from, to)
    }
}

pub(crate) async fn bench(bench: &Bench) -> Result {
    const NAME: &str = "client_p99_during_backfill_vs_idle";
    if !bench.wants(NAME) {
        return Ok(());
    }
    let pgbench = pgbench()?;
    let directory = std::env::temp_dir().join(format!("phasewise-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    // Without fsync: this is about locks, processor and WAL, and a disk that others use too would drown them.
    let server = Server::builder()
        .setting("shared_buffers", "1GB")
        .setting("max_wal_size", "16GB")
        .setting("checkpoint_timeout", "1h")
        .setting("autovacuum", "off")
        .start()
        .await?;
    let database = server.database().await?;
    let scale = if bench.quick { "1" } else { "20" };
    output(command(&pgbench, &database, &["-i", "-q", "-s", scale], &directory))?;
    database.connect().await?.batch_execute("CHECKPOINT").await?;
    let sustained = sustained(&pgbench, &database, &directory, if bench.quick { "3" } else { "15" })?;
    let rate = format!("{:.0}", (sustained / 2.0).max(1.0));
    let runs = Runs { pgbench, database, directory, rate, seconds: if bench.quick { 8 } else { 20 } };
    eprintln!("  {NAME}: {sustained:.0} transactions a second sustained, {} run", runs.rate);
    let (mut ratios, mut worst) = (Vec::new(), Vec::new());
    for round in 0..bench.pairs.min(3) {
        let idle = runs.run(false).await?;
        let busy = runs.run(true).await?;
        let (still, beside) = (idle.p(0.99), busy.p(0.99));
        eprintln!(
            "  {NAME} {round}: p50 {:.2} and {:.2} ms, p99 {beside:.2} / {still:.2} ms = {:.2}, worst {:.0} and {:.0} ms, {} transactions",
            busy.p(0.5),
            idle.p(0.5),
            beside / still,
            busy.worst(),
            idle.worst(),
            busy.0.len()
        );
        ratios.push(beside / still);
        worst.push(busy.worst() / 100.0);
    }
    println!("RATIO {NAME} {:.2}", median(&mut ratios));
    // Of the 100 ms that a batch aims at.
    println!("RATIO client_worst_wait_vs_batch_target {:.2}", median(&mut worst));
    let Runs { database, directory, .. } = runs;
    database.drop().await?;
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}
