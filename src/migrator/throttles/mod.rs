//! Throttles: reasons for batches to pause.

mod clients;
mod lag;
mod replicas;
mod vacuum;
mod wal;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

pub(super) use replicas::Replica;

use super::policy::BackfillPolicy;
use crate::error::Result;

/// How often the reasons are looked at.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// How long a user's own reason may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Decides, before each batch, whether it must wait.
///
/// Asked at most once a second, by one worker for all.
#[async_trait::async_trait]
pub trait Throttle: Send + Sync {
    /// The reason to wait, or `None` to go on. `client` is in no transaction, and must be left so. Batches wait, too,
    /// if there is no answer within 10 s: then the call is dropped, and made again. (A query that it has sent still runs
    /// to its end first.)
    ///
    /// # Errors
    ///
    /// Ends the run; it resumes at the same batch.
    async fn hold(&self, client: &Client) -> Result<Option<String>>;
}

/// A limit, and whether it is over it: what has crossed it must come down to half of it, or to where it can.
#[derive(Clone, Copy, Debug)]
struct Limit {
    limit: f64,
    end: f64,
    holding: bool,
}

impl Limit {
    fn new(limit: f64) -> Self {
        Self { limit, end: limit / 2.0, holding: false }
    }

    /// What `value` must be below now.
    fn now(&self) -> f64 {
        if self.holding { self.end } else { self.limit }
    }

    /// Whether `value` is over the limit. Says so until it has come down.
    fn over(&mut self, value: f64) -> bool {
        self.holding = value > self.now();
        self.holding
    }
}

/// All reasons that one loop looks at, the user's own last.
pub(super) struct Throttles {
    asked: Option<Instant>,
    reason: Option<String>,
    lag: Option<lag::ReplicationLag>,
    replicas: Vec<replicas::Watched>,
    wal: wal::Wal,
    vacuum: vacuum::Vacuum,
    clients: Option<clients::Clients>,
    own: Vec<Arc<dyn Throttle>>,
}

impl Throttles {
    /// `relations` are those whose vacuums matter.
    pub(super) fn new(
        policy: &BackfillPolicy,
        replicas: &[Replica],
        own: &[Arc<dyn Throttle>],
        relations: Vec<u32>,
    ) -> Self {
        Self {
            asked: None,
            reason: None,
            lag: policy.max_lag.map(lag::ReplicationLag::new),
            replicas: replicas.iter().cloned().map(replicas::Watched::new).collect(),
            wal: wal::Wal::new(policy),
            vacuum: vacuum::Vacuum::new(policy, relations),
            clients: policy.yield_to_clients.then(clients::Clients::default),
            own: own.to_vec(),
        }
    }

    /// The reason to wait, or `None`.
    pub(super) async fn hold(&mut self, client: &Client) -> Result<Option<String>> {
        if self.asked.is_none_or(|asked| asked.elapsed() >= EVERY) {
            self.reason = self.ask(client).await?;
            // Counted from the answer: a slow one must not be asked for all the time.
            self.asked = Some(Instant::now());
        }
        Ok(self.reason.clone())
    }

    /// Whether clients were at work lately.
    pub(super) fn are_clients_about(&self) -> bool {
        self.clients.as_ref().is_some_and(clients::Clients::are_about)
    }

    /// Every one is asked, whatever the others said: each has its own hysteresis.
    async fn ask(&mut self, client: &Client) -> Result<Option<String>> {
        let mut reasons = Vec::new();
        if let Some(lag) = &mut self.lag {
            let mut named = Vec::new();
            for replica in &mut self.replicas {
                match replica.look().await {
                    Ok(seen) => named.push(seen),
                    Err(reason) => reasons.push(reason),
                }
            }
            reasons.extend(lag.hold(client, named).await?);
        }
        reasons.extend(self.wal.hold(client).await?);
        reasons.extend(self.vacuum.hold(client).await?);
        if let Some(clients) = &mut self.clients {
            clients.look(client).await?;
        }
        for throttle in &self.own {
            reasons.extend(match tokio::time::timeout(PATIENCE, throttle.hold(client)).await {
                Ok(held) => held?,
                Err(_) => Some(format!("a throttle gave no answer within {} s", PATIENCE.as_secs())),
            });
        }
        Ok((!reasons.is_empty()).then(|| reasons.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::Limit;

    #[test]
    fn what_was_over_a_limit_must_come_down_to_half_of_it() {
        let mut limit = Limit::new(10.0);
        let seen = [9.0, 10.0, 10.1, 9.0, 5.1, 5.0, 9.9, 11.0];
        let held = seen.map(|value| limit.over(value));
        assert_eq!(held, [false, false, true, true, true, false, false, true]);
    }
}
