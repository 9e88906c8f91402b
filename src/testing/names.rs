//! Names of test databases, and what earlier runs left behind.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_postgres::Client;

const PREFIX: &str = "phasewise_test_";

/// No run of tests takes this long.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// A new name, which tells when it was made: nothing else does, as Postgres keeps no creation times.
pub(super) fn new() -> String {
    let process = std::process::id();
    let random = fastrand::u64(..);
    format!("{PREFIX}{}_{process}_{random:016x}", now().as_secs())
}

/// Drops what runs that were killed left on a server that outlives them. Only a courtesy: whatever fails here
/// would not have kept the tests from running.
pub(super) async fn drop_stale(client: &Client) {
    // `_` would match anything in LIKE.
    let found = client
        .query("SELECT datname FROM pg_catalog.pg_database WHERE starts_with(datname, $1)", &[&PREFIX])
        .await;
    let names = match found {
        Ok(rows) => rows.into_iter().filter_map(|row| row.try_get::<_, String>(0).ok()),
        Err(error) => {
            tracing::debug!(%error, "cannot look for stale test databases");
            return;
        }
    };
    for name in names.filter(|name| is_stale(name)) {
        // Without force: somebody who is still connected has a use for it.
        let dropped = client.batch_execute(&format!("DROP DATABASE IF EXISTS \"{name}\"")).await;
        tracing::debug!(name, ?dropped, "stale test database");
    }
}

fn is_stale(name: &str) -> bool {
    // Only names of exactly our shape, which also makes them safe to quote.
    let mut parts = name.strip_prefix(PREFIX).unwrap_or_default().split('_');
    let (Some(time), Some(process), Some(random), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let (Ok(time), Ok(_), Ok(_)) = (time.parse(), process.parse::<u32>(), u64::from_str_radix(random, 16))
    else {
        return false;
    };
    now().saturating_sub(Duration::from_secs(time)) > STALE
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
