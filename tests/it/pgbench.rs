//! Unmodified pgbench as the old application, while the type of the column that it writes changes under it.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use phasewise::{BackfillPolicy, ChangeType, Migration, Migrations, migrations};
use tokio::process::Command;
use tokio_postgres::config::Host;

use crate::harness::{Case, Stage, one};

static MIGRATIONS: Migrations = migrations![
    Migration::new(
        "abalance_big",
        ChangeType::new("pgbench_accounts", "abalance", "abalance_big", "bigint")
            .up("{abalance}::bigint")
            .down("case when {abalance_big} between -2147483648 and 2147483647 then {abalance_big}::int end")
            .kept_in_sync()
    )
    .not_deployed()
];
static CASE: Case = Case { setup: &[], migrations: &MIGRATIONS, schema: "public" };

/// On the PATH, or where packages put it, newest first.
fn pgbench() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for root in ["/usr/lib/postgresql", "/usr/local/opt", "/opt/homebrew/opt", "/usr"] {
        let mut versions: Vec<PathBuf> = std::fs::read_dir(root)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        versions.retain(|path| {
            root == "/usr/lib/postgresql"
                || path.to_string_lossy().contains("pgsql")
                || path.to_string_lossy().contains("postgresql")
        });
        versions.sort();
        places.extend(versions.into_iter().rev().map(|path| path.join("bin")));
    }
    let found = places.into_iter().map(|place| place.join("pgbench")).find(|path| path.is_file());
    found.expect(
        "pgbench is not installed: apt-get install postgresql-contrib (Debian, Ubuntu: it comes with postgresql), dnf install postgresql-contrib (Fedora), or brew install postgresql",
    )
}

fn command(stage: &Stage) -> Command {
    let config = stage.database.config();
    let mut command = Command::new(pgbench());
    let host = match &config.get_hosts()[0] {
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(path) => path.display().to_string(),
    };
    command
        .arg("-h")
        .arg(host)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(port) = config.get_ports().first() {
        command.arg("-p").arg(port.to_string());
    }
    if let Some(user) = config.get_user() {
        command.arg("-U").arg(user);
    }
    if let Some(password) = config.get_password() {
        command.env("PGPASSWORD", String::from_utf8_lossy(password).as_ref());
    }
    command.env("PGDATABASE", stage.database.name());
    command
}

/// One run after the other of the standard script, until told to end; the transactions that their reports count.
async fn bench(stage: &Stage, over: &AtomicBool) -> u64 {
    let mut processed = 0;
    while !over.load(Ordering::SeqCst) {
        let run = command(stage).args(["-n", "-c", "4", "-T", "6"]).output().await.expect("pgbench starts");
        let (report, said) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        // A client that meets an error ends, and so does pgbench then.
        assert!(run.status.success(), "{report}{said}");
        let count = |what: &str| {
            let line = report.lines().find_map(|line| line.strip_prefix(what))?;
            line.split([' ', '/']).find(|word| !word.is_empty())?.parse::<u64>().ok()
        };
        // 14 does not count failures: there the status above says all.
        assert_eq!(count("number of failed transactions:").unwrap_or(0), 0, "{report}");
        processed += count("number of transactions actually processed:").expect("a count");
    }
    processed
}

/// Waits for a number of transactions more.
async fn goes_on(stage: &Stage) {
    let done = || one::<i64>(&stage.client, "SELECT count(*) FROM pgbench_history");
    let begun = done().await;
    let since = Instant::now();
    while done().await < begun + 100 {
        assert!(since.elapsed() < Duration::from_secs(60), "pgbench stands still");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_old_application_notices_nothing() {
    let stage = Stage::set(&CASE).await;
    let made = command(&stage).args(["-i", "-q", "-s", "1"]).output().await.expect("pgbench -i");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let over = AtomicBool::new(false);
    let migrate = async {
        goes_on(&stage).await;
        let policy = BackfillPolicy::new().fixed(2_000).pause(Duration::ZERO);
        let migrator = stage.migrator().backfill(policy);
        // The next one is for the time when no old application is left.
        for (at, info) in CASE.phases().iter().enumerate().take_while(|(_, info)| info.name != "RemoveSync") {
            stage.enter(&migrator, at + 1).await;
            assert!(info.window.contains(0), "{} does not allow the old application", info.name);
            goes_on(&stage).await;
        }
        over.store(true, Ordering::SeqCst);
    };
    let ((), processed) = tokio::join!(migrate, bench(&stage, &over));
    let client = &stage.client;
    assert_eq!(stage.at().await, 4);
    let written: i64 = one(client, "SELECT count(*) FROM pgbench_history").await;
    assert_eq!(u64::try_from(written).expect("a count"), processed, "a transaction was lost");
    let differ = "SELECT count(*) FROM pgbench_accounts WHERE abalance_big IS DISTINCT FROM abalance::bigint";
    assert_eq!(one::<i64>(client, differ).await, 0);
    let sum = "SELECT sum(abalance_big) = (SELECT sum(delta) FROM pgbench_history) FROM pgbench_accounts";
    assert!(one::<bool>(client, sum).await, "an update was lost");
}
