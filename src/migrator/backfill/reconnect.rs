//! Connections that are lost, and new ones in their place.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_postgres::error::SqlState;

use crate::error::{Error, Kind, Result};
use crate::migrator::connect::{Conn, Sql as _, get};
use crate::migrator::events::Event;
use crate::migrator::session::{Facts, Session};
use crate::migrator::worker::Worker;

impl Worker<'_> {
    /// Whether the connection is gone, rather than something wrong with the statement.
    pub(super) fn is_cut_off(&self, error: &Error) -> bool {
        let ended = [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        ];
        error.kind() != Kind::LeaseLost
            && (self.session.is_closed() || error.own_code().is_some_and(|code| ended.contains(code)))
    }

    /// A new session in place of one that is gone: the server was restarted, or another one has taken over.
    pub(super) async fn reconnect(&mut self, cause: Error) -> Result<()> {
        // Since the last batch: connections that are had and lost in turn are no end.
        let begun = *self.cut_off.get_or_insert_with(Instant::now);
        let mut pause = Duration::from_millis(50);
        loop {
            if self.lease.is_lost() {
                self.migrator.tell(&Event::LeaseLost);
                return Err(self.lease.lost());
            }
            tracing::warn!(target: "phasewise", %cause, "the connection is gone; connecting again");
            let opened = async {
                let conn = self.migrator.connector.open().await?;
                refuse_standby(&conn).await?;
                let facts = Facts::read(&conn, self.migrator).await?;
                Session::new(conn, facts).await
            };
            let failed = match tokio::time::timeout(Duration::from_secs(10), opened).await {
                Ok(Ok(session)) => {
                    std::mem::replace(&mut self.session, session).close();
                    return Ok(());
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the server did not answer within 10 s".to_owned(),
            };
            if begun.elapsed() >= self.migrator.lock_deadline {
                return Err(Error::new(
                    Kind::Connection,
                    format!(
                        "{cause} And no new connection could be had in {:.0} s: {failed}",
                        begun.elapsed().as_secs_f64()
                    ),
                )
                .with_source(cause));
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }
}

/// After a failover a connection may reach a server that is not the primary yet.
async fn refuse_standby(conn: &Conn) -> Result<()> {
    let rows = conn.ask("SELECT pg_catalog.pg_is_in_recovery() AS standby", &[]).await?;
    if rows.first().map_or(Ok(false), |row| get::<bool>(row, "standby"))? {
        return Err(Error::new(
            Kind::Connection,
            "the server that answers is a standby: nothing can be written there until it is promoted",
        ));
    }
    Ok(())
}
