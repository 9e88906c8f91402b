//! The second connection: heartbeats, and a look at who blocks the first. Never in a transaction.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

use super::connect::{Conn, Connector, Sql as _, get, int4};
use super::events::Blocker;
use crate::error::{Error, Kind, Result};

/// Opens itself when it is first needed, and again after a failure.
#[derive(Debug)]
pub(super) struct Monitor {
    connector: Connector,
    conn: Mutex<Option<Arc<Conn>>>,
}

impl Monitor {
    pub(super) fn new(connector: Connector) -> Arc<Self> {
        Arc::new(Self { connector, conn: Mutex::new(None) })
    }

    pub(super) async fn conn(&self) -> Result<Arc<Conn>> {
        let mut slot = self.conn.lock().await;
        if let Some(conn) = slot.as_ref().filter(|conn| !conn.is_closed()) {
            return Ok(Arc::clone(conn));
        }
        let conn = Arc::new(self.connector.open().await?);
        *slot = Some(Arc::clone(&conn));
        Ok(conn)
    }

    /// What is asked through the connection: one that does not answer within `limit` is forgotten.
    pub(super) async fn answer<T>(
        &self,
        limit: Duration,
        asked: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let Ok(answer) = timeout(limit, asked).await else {
            self.reset().await;
            return Err(Error::new(
                Kind::Connection,
                format!("the database did not answer in {:.1} s", limit.as_secs_f64()),
            ));
        };
        answer
    }

    /// Forgets a connection that does not answer.
    pub(super) async fn reset(&self) {
        *self.conn.lock().await = None;
    }

    /// Who blocks the backend `pid` at this moment.
    pub(super) async fn blockers(&self, pid: i32) -> Result<Vec<Blocker>> {
        let conn = self.conn().await?;
        let rows = conn
            .ask(
                "SELECT b.pid,
                        coalesce(a.application_name, '') AS application,
                        coalesce(a.state, a.backend_type, 'unknown') AS state,
                        coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float8 AS age,
                        coalesce(left(regexp_replace(a.query, '\\s+', ' ', 'g'), 120), '') AS query
                   FROM (SELECT DISTINCT unnest(pg_catalog.pg_blocking_pids($1)) AS pid) b
                   LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid
                  ORDER BY a.xact_start NULLS LAST LIMIT 10",
                &[int4(&pid)],
            )
            .await?;
        rows.iter().map(blocker).collect()
    }

    /// How many sessions wait for the backend `pid` at this moment.
    pub(super) async fn behind(&self, pid: i32) -> Result<i64> {
        let conn = self.conn().await?;
        let rows = conn
            .ask(
                "SELECT count(*) AS behind FROM pg_catalog.pg_stat_activity a
                  WHERE a.wait_event_type = 'Lock' AND $1 = ANY (pg_catalog.pg_blocking_pids(a.pid))",
                &[int4(&pid)],
            )
            .await?;
        rows.first().map_or(Ok(0), |row| get(row, "behind"))
    }
}

/// One row of a query for blockers.
pub(super) fn blocker(row: &tokio_postgres::Row) -> Result<Blocker> {
    let age: f64 = get(row, "age")?;
    Ok(Blocker {
        pid: get(row, "pid")?,
        application: get(row, "application")?,
        state: get(row, "state")?,
        age: std::time::Duration::try_from_secs_f64(age).unwrap_or_default().as_secs(),
        query: get(row, "query")?,
    })
}
