//! Random histories of writes by the releases that may run, with batches in between: the columns agree at the end.

use fastrand::Rng;
use phasewise::{ChangeType, Migration, Migrations, RenameColumn, migrations};
use tokio_postgres::error::SqlState;

use super::*;

static BY_APPLICATION: Migrations =
    migrations![Migration::new("by_application", RenameColumn::new("t", "a", "b")).not_deployed()];
static IN_SYNC: Migrations =
    migrations![Migration::new("in_sync", RenameColumn::new("t", "a", "b").kept_in_sync()).not_deployed()];
static RETYPED: Migrations = migrations![
    Migration::new(
        "retyped",
        ChangeType::new("t", "a", "b", "bigint").up("{a}::bigint").down("{b}::int").kept_in_sync()
    )
    .not_deployed()
];

const SETUP: &[&str] = &[
    "CREATE TABLE t (id int NOT NULL, part int NOT NULL, a int, pad text NOT NULL DEFAULT '', PRIMARY KEY (id, part))
     PARTITION BY LIST (part)",
    "CREATE TABLE t0 PARTITION OF t FOR VALUES IN (0)",
    "CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)",
    "INSERT INTO t (id, part, a, pad) SELECT i, i % 2, nullif(i % 7, 0), repeat('p', 500) FROM generate_series(1, 40) i",
];

/// Who writes which of the columns.
type Release = &'static [&'static str];
const OLD: Release = &["a"];
const BOTH: Release = &["a", "b"];
const NEW: Release = &["b"];

/// A write as that release makes it.
fn write(random: &mut Rng, release: Release) -> String {
    let (id, part) = (random.u8(1..=44), random.u8(0..=1));
    let value = if random.u8(0..5) == 0 { "NULL".to_owned() } else { random.u8(0..20).to_string() };
    let set: Vec<String> = release.iter().map(|column| format!("{column} = {value}")).collect();
    let (set, columns) = (set.join(", "), release.join(", "));
    let values = vec![value.as_str(); release.len()].join(", ");
    let insert = format!("INSERT INTO t (id, part, {columns}) VALUES ({id}, {part}, {values}) ON CONFLICT");
    match random.u8(0..10) {
        0 => format!("{insert} DO NOTHING"),
        1 | 2 => format!("{insert} (id, part) DO UPDATE SET {set}"),
        3 => format!("DELETE FROM t WHERE id = {id} AND part = {part}"),
        // To the other partition, with or without another value.
        4 => format!("UPDATE t SET part = 1 - part WHERE id = {id}"),
        5 => format!("UPDATE t SET part = 1 - part, {set} WHERE id = {id}"),
        // To another place in this one.
        6 => format!("UPDATE t SET pad = repeat('q', {}) WHERE id = {id}", random.u16(1..1_500)),
        _ => format!("UPDATE t SET {set} WHERE id = {id}"),
    }
}

/// Does it; what two clients may do to each other is nobody's fault. Says whether it was done.
async fn done(client: &Client, sql: &str, log: &mut Vec<String>) -> bool {
    log.push(sql.to_owned());
    match client.batch_execute(sql).await {
        Ok(()) => true,
        Err(error) => {
            let allowed = [
                SqlState::LOCK_NOT_AVAILABLE,
                SqlState::UNIQUE_VIOLATION,
                SqlState::T_R_SERIALIZATION_FAILURE,
            ];
            assert!(error.code().is_some_and(|code| allowed.contains(code)), "{error:?} in {log:#?}");
            log.push(format!("-- {error}"));
            false
        }
    }
}

async fn history(
    migrations: &'static Migrations,
    before: (&str, &[Release]),
    releases: &[Release],
    seed: u64,
) {
    let mut random = Rng::with_seed(seed);
    let mut log = vec![format!("-- seed {seed}")];
    let (database, client) = tables(SETUP).await;
    let late = database.connect().await.expect("a connection");
    for client in [&client, &late] {
        run(client, "SET lock_timeout = '100ms'").await;
    }
    let policy = fixed(random.u32(1..8)).workers(random.u32(1..=2));
    let plain = migrator(&database, migrations, policy);
    let name = plain.status().await.expect("a status").migrations[0].name.clone();
    plain.run_to(&name, before.0).await.expect("a phase");
    for _ in 0..20 {
        let release = before.1[random.usize(0..before.1.len())];
        done(&client, &write(&mut random, release), &mut log).await;
    }
    let (watched, mut ears) = stepwise(migrator(&database, migrations, policy));
    let running = filling(watched);
    let mut open = false;
    let mut batches = 0;
    loop {
        match tokio::time::timeout(Duration::from_millis(150), ears.heard.recv()).await {
            Ok(Some(Heard::Batch(_))) => {}
            Ok(Some(_)) => continue,
            Ok(None) => break,
            // It waits for the writer that is late: now it ends.
            Err(_) => {
                if open {
                    run(&late, "COMMIT").await;
                    log.push("late: COMMIT".to_owned());
                    open = false;
                }
                continue;
            }
        }
        batches += 1;
        if open && random.bool() {
            run(&late, "COMMIT").await;
            log.push("late: COMMIT".to_owned());
            open = false;
        }
        for _ in 0..random.u8(0..4) {
            let release = releases[random.usize(0..releases.len())];
            done(&client, &write(&mut random, release), &mut log).await;
        }
        // A transaction that writes now and ends after a batch or more.
        if !open && random.u8(0..3) == 0 {
            let release = releases[random.usize(0..releases.len())];
            run(&late, "BEGIN").await;
            log.push("late:".to_owned());
            open = done(&late, &write(&mut random, release), &mut log).await;
            if !open {
                run(&late, "ROLLBACK").await;
            }
        }
        log.push("-- a batch".to_owned());
        ears.go();
    }
    let report = running.await.expect("no panic");
    report.unwrap_or_else(|error| panic!("{error}: {log:#?}"));
    assert!(batches > 5, "{batches}");
    let differ = "SELECT coalesce(string_agg(t::text, '; '), '') FROM (SELECT id, part, a, b FROM t WHERE b IS DISTINCT FROM a) t";
    let differ: String = one(&client, differ).await;
    assert_eq!(differ, "", "rows differ: {log:#?}");
    database.drop().await.expect("dropped");
}

/// These every time, and two that nobody has seen yet; the seed is in what a failure says.
async fn histories(migrations: &'static Migrations, before: (&str, &[Release]), releases: &[Release]) {
    for seed in [1, 2, 3, 4, fastrand::u64(..), fastrand::u64(..)] {
        history(migrations, before, releases, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rename_by_the_application() {
    histories(&BY_APPLICATION, ("WriteBoth", &[OLD, BOTH]), &[BOTH]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rename_kept_in_sync() {
    histories(&IN_SYNC, ("InstallSync", &[OLD]), &[OLD, NEW]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_kept_in_sync() {
    histories(&RETYPED, ("InstallSync", &[OLD]), &[OLD, NEW]).await;
}
