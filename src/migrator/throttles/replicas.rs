//! Replicas that the primary does not show, as managed databases hide them: looked at themselves.

use std::time::Duration;

use tokio::time::timeout;

use super::lag::Seen;
use crate::migrator::connect::{Conn, Connector, Sql as _, get};

/// A replica that does not answer within this is taken to be out of reach.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a replica is.
#[derive(Clone, Debug)]
pub(in crate::migrator) struct Replica {
    pub(in crate::migrator) name: String,
    pub(in crate::migrator) connector: Connector,
}

/// A replica with a connection to it, opened when it is first needed and again after a failure.
pub(super) struct Watched {
    replica: Replica,
    conn: Option<Conn>,
}

impl Watched {
    pub(super) fn new(replica: Replica) -> Self {
        Self { replica, conn: None }
    }

    /// How far it has replayed; or, where that cannot be told, the reason to wait.
    pub(super) async fn look(&mut self) -> Result<Seen, String> {
        let name = self.replica.name.clone();
        let answer = match timeout(PATIENCE, self.ask()).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("replica {name} did not answer in {} s", PATIENCE.as_secs())),
        };
        if answer.is_err() {
            self.conn = None;
        }
        answer
    }

    async fn ask(&mut self) -> Result<Seen, String> {
        let name = self.replica.name.clone();
        let unreachable = |error: crate::Error| {
            format!("replica {name} cannot be looked at: {error}; take it off the list if it is gone")
        };
        let conn = match self.conn.take().filter(|conn| !conn.is_closed()) {
            Some(conn) => conn,
            None => self.replica.connector.open().await.map_err(unreachable)?,
        };
        let sql = "SELECT CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_replay_lsn() - '0/0')::int8 END AS replayed";
        let rows = conn.ask(sql, &[]).await.map_err(unreachable)?;
        self.conn = Some(conn);
        let replayed = rows.first().and_then(|row| get::<Option<i64>>(row, "replayed").ok().flatten());
        match replayed {
            Some(replayed) => Ok(Seen { name, replayed, lag: 0.0, logical: false }),
            None => Err(format!("{name} is no streaming replica: it does not say how far it has replayed")),
        }
    }
}
