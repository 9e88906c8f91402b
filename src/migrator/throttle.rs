//! Throttles: reasons for batches to pause.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_postgres::Client;

use super::connect::{Sql as _, get};
use crate::error::Result;

/// Decides, before each batch, whether it must wait.
///
/// Asked again every second while it holds the batches back.
#[async_trait::async_trait]
pub trait Throttle: Send + Sync {
    /// The reason to wait, or `None` to go on. `client` is in no transaction, and must be left so.
    ///
    /// # Errors
    ///
    /// Ends the run; it resumes at the same batch.
    async fn hold(&self, client: &Client) -> Result<Option<String>>;
}

/// Waits while a streaming replica is behind by more than a limit, and goes on below half of it.
#[derive(Debug)]
pub(super) struct ReplicationLag {
    limit: Duration,
    holding: AtomicBool,
}

impl ReplicationLag {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, holding: AtomicBool::new(false) }
    }
}

#[async_trait::async_trait]
impl Throttle for ReplicationLag {
    async fn hold(&self, client: &Client) -> Result<Option<String>> {
        // replay_lag says nothing of a replica that stopped replaying; then its age is that of the last reply.
        let rows = client
            .ask(
                "SELECT coalesce(nullif(application_name, ''), pid::text) AS replica,
                        extract(epoch FROM coalesce(replay_lag, '0'))::float8 AS lag
                   FROM pg_catalog.pg_stat_replication
                  WHERE state IN ('streaming', 'catchup') AND replay_lag IS NOT NULL
                  ORDER BY replay_lag DESC LIMIT 1",
                &[],
            )
            .await?;
        let Some(row) = rows.first() else {
            self.holding.store(false, Ordering::Relaxed);
            return Ok(None);
        };
        let (replica, lag): (String, f64) = (get(row, "replica")?, get(row, "lag")?);
        let limit = self.limit.as_secs_f64();
        let limit = if self.holding.load(Ordering::Relaxed) { limit / 2.0 } else { limit };
        let hold = lag > limit;
        self.holding.store(hold, Ordering::Relaxed);
        Ok(hold.then(|| format!("replica {replica} is {lag:.1} s behind (limit {limit:.1} s)")))
    }
}
