//! Clients: whether anybody is there to be disturbed.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::error::Result;
use crate::migrator::connect::{Sql as _, get};

/// Clients that were at work are taken to be about for this long.
const LATELY: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Clients {
    seen: Option<Instant>,
}

impl Clients {
    pub(super) async fn look(&mut self, client: &Client) -> Result<()> {
        // What sessions of other roles do is shown to pg_read_all_stats alone.
        let rows = client
            .ask(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity
                                 WHERE datname = current_database() AND backend_type = 'client backend'
                                   AND (state = 'active' OR state LIKE 'idle in transaction%')
                                   AND pid <> pg_backend_pid() AND application_name <> 'phasewise') AS busy",
                &[],
            )
            .await?;
        if rows.first().map_or(Ok(false), |row| get::<bool>(row, "busy"))? {
            self.seen = Some(Instant::now());
        }
        Ok(())
    }

    pub(super) fn are_about(&self) -> bool {
        self.seen.is_some_and(|seen| seen.elapsed() < LATELY)
    }
}
