//! The lease: the row that makes one instance the driver.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::connect::{Conn, Sql as _, float8, get, int8, text};
use super::ledger::Ledger;
use super::monitor::Monitor;
use crate::error::{Error, Kind, Result};

/// What a lease is known by: every transaction under it checks that it still holds.
#[derive(Clone, Debug)]
pub(super) struct Fence {
    pub(super) holder: String,
    pub(super) token: i64,
    lost: Arc<AtomicBool>,
}

/// A lease that was taken. Dropped, it is given back by its own task.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) fence: Fence,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl Lease {
    /// One try. A holder whose transaction is still open keeps it, however late its heartbeat is.
    pub(super) async fn try_take(
        conn: &Conn,
        ledger: &Ledger,
        monitor: &Arc<Monitor>,
        time: Duration,
        watch: &Watch,
    ) -> Result<Option<Self>> {
        let (token, mark) = watch.look(conn, ledger).await?.unwrap_or_default();
        let sql = ledger.sql(
            "WITH free AS (
                SELECT one FROM {s}.lease
                 WHERE expires_at <= clock_timestamp() OR token = $2 AND extract(epoch FROM expires_at)::text = $3
                   FOR UPDATE SKIP LOCKED
             )
             UPDATE {s}.lease AS l
                SET holder = gen_random_uuid()::text, token = l.token + 1, lasts = $1,
                    expires_at = clock_timestamp() + make_interval(secs => $1),
                    by = session_user || coalesce('@' || host(inet_client_addr()), '') || ', pid ' || pg_backend_pid()
               FROM free WHERE l.one = free.one
             RETURNING l.holder, l.token",
        );
        let time_s = time.as_secs_f64();
        let rows = conn.write(&sql, &[float8(&time_s), int8(&token), text(&mark)]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (holder, token): (String, i64) = (get(row, "holder")?, get(row, "token")?);
        let fence = Fence { holder, token, lost: Arc::new(AtomicBool::new(false)) };
        let (stop, stopped) = oneshot::channel();
        let beat = Beat { monitor: Arc::clone(monitor), ledger: ledger.clone(), fence: fence.clone(), time };
        let task = tokio::spawn(beat.run(stopped));
        Ok(Some(Self { fence, stop: Some(stop), task: Some(task) }))
    }

    /// Who holds it, for an error.
    pub(super) async fn held_by(conn: &Conn, ledger: &Ledger) -> Result<String> {
        let sql = ledger.sql("SELECT coalesce(by, 'nobody') AS by FROM {s}.lease");
        let rows = conn.ask(&sql, &[]).await?;
        let row = rows.first().ok_or_else(|| {
            let table = ledger.sql("{s}.lease");
            Error::new(
                Kind::LedgerDamaged,
                format!(
                    "table {table} is empty: it holds one row, the lease, and nobody can drive without it. Insert it again: INSERT INTO {table} (token, expires_at) VALUES (extract(epoch FROM now()), '-infinity')"
                ),
            )
        })?;
        get(row, "by")
    }

    /// Gives it back.
    pub(super) async fn release(mut self) {
        drop(self.stop.take());
        if let Some(task) = self.task.take() {
            // The task ends by itself; a server that hangs must not hold up the caller for longer.
            let _ = timeout(Duration::from_secs(5), task).await;
        }
    }
}

impl Fence {
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn lost(&self) -> Error {
        Error::new(
            Kind::LeaseLost,
            format!(
                "the lease (token {}) was taken over by another driver: this one was stopped or cut off for too long. What was under way was rolled back; the other driver goes on with it",
                self.token
            ),
        )
    }
}

/// What a process saw of the lease last, and when by its own clock: a holder whose lease does not change for as long as
/// it lasts is gone, even if the database's clock was set back and the lease now ends in a far future.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch(Arc<Mutex<Option<(i64, String, Instant)>>>);

impl Watch {
    /// The token and the end of a lease that has stood still for too long.
    async fn look(&self, conn: &Conn, ledger: &Ledger) -> Result<Option<(i64, String)>> {
        let sql =
            ledger.sql("SELECT token, extract(epoch FROM expires_at)::text AS mark, lasts FROM {s}.lease");
        let rows = conn.ask(&sql, &[]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (token, mark, lasts): (i64, String, Option<f64>) =
            (get(row, "token")?, get(row, "mark")?, get(row, "lasts")?);
        let lasts = lasts.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*seen, lasts) {
            (Some((was, of, since)), Some(lasts)) if *was == token && *of == mark => {
                Ok((since.elapsed() > lasts).then_some((token, mark)))
            }
            _ => {
                *seen = Some((token, mark, Instant::now()));
                Ok(None)
            }
        }
    }
}

struct Beat {
    monitor: Arc<Monitor>,
    ledger: Ledger,
    fence: Fence,
    time: Duration,
}

impl Beat {
    async fn run(self, mut stopped: oneshot::Receiver<()>) {
        let mut pause = self.time / 3;
        loop {
            tokio::select! {
                _ = &mut stopped => {
                    if let Err(error) = self.set("'-infinity'").await {
                        tracing::warn!(target: "phasewise", %error, "the lease was not given back; it expires by itself");
                    }
                    return;
                }
                () = sleep(pause) => {}
            }
            let until = format!("clock_timestamp() + make_interval(secs => {})", self.time.as_secs_f64());
            // A plain UPDATE: it goes along with the FOR KEY SHARE of the step that is under way.
            match timeout(self.time / 3, self.set(&until)).await {
                Ok(Ok(true)) => pause = self.time / 3,
                Ok(Ok(false)) => {
                    self.fence.lost.store(true, Ordering::Relaxed);
                    tracing::warn!(target: "phasewise", token = self.fence.token, "the lease was lost");
                    return;
                }
                Ok(Err(error)) => {
                    tracing::warn!(target: "phasewise", %error, "the lease was not renewed; trying again");
                    pause = self.time / 10;
                }
                Err(_) => {
                    tracing::warn!(target: "phasewise", "the lease was not renewed in time; trying again");
                    self.monitor.reset().await;
                    pause = Duration::ZERO;
                }
            }
        }
    }

    async fn set(&self, expires_at: &str) -> Result<bool> {
        let sql = self.ledger.sql(&format!(
            "UPDATE {{s}}.lease SET expires_at = {expires_at} WHERE token = $1 AND holder = $2 RETURNING token"
        ));
        let conn = self.monitor.conn().await?;
        let rows = conn.write(&sql, &[int8(&self.fence.token), text(&self.fence.holder)]).await?;
        Ok(!rows.is_empty())
    }
}
