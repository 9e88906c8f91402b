//! Clients that never stop, and what they count.
//!
//! A request has *failed* if no instance answered it as it should, after the tries that the balancer makes. A read is
//! *stale* if it does not show what the last answered write to that user wrote. Each client has users of its own, so
//! what was last written is never in doubt.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use tokio::task::JoinSet;

use crate::Result;
use crate::balancer::Balancer;
use crate::database::ROWS;
use crate::service::User;

/// Users as last written, by id.
pub type Users = HashMap<i64, User>;

const CLIENTS: i64 = 6;

/// Each client works on so many users; the last of them are new.
const USERS: i64 = 200;

/// Between two requests a client rests this long.
const REST: Duration = Duration::from_millis(8);

#[derive(Debug, Default)]
pub struct Score {
    requests: AtomicU64,
    failed: AtomicU64,
    stale: AtomicU64,
}

impl Score {
    fn failed(&self, what: impl fmt::Display) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        eprintln!("failed: {what}");
    }

    pub fn stale(&self, what: impl fmt::Display) {
        self.stale.fetch_add(1, Ordering::Relaxed);
        eprintln!("stale: {what}");
    }

    pub fn is_clean(&self) -> bool {
        let zero = |count: &AtomicU64| count.load(Ordering::Relaxed) == 0;
        !zero(&self.requests) && zero(&self.failed) && zero(&self.stale)
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, failed, stale } = self;
        let [requests, failed, stale] = [requests, failed, stale].map(|count| count.load(Ordering::Relaxed));
        write!(f, "{requests} requests, {failed} failed, {stale} stale")
    }
}

/// All clients; they are gone when this is dropped.
pub struct Clients {
    tasks: JoinSet<Users>,
    running: Arc<AtomicBool>,
}

impl Clients {
    pub fn start(balancer: &Arc<Balancer>, score: &Arc<Score>) -> Self {
        let running = Arc::new(AtomicBool::new(true));
        let mut tasks = JoinSet::new();
        for number in 0..CLIENTS {
            let client =
                Client { balancer: Arc::clone(balancer), score: Arc::clone(score), users: Users::new() };
            let running = Arc::clone(&running);
            tasks.spawn(async move { client.work(number, &running).await });
        }
        Self { tasks, running }
    }

    /// Lets each end its last request. Returns all that was written.
    pub async fn stop(mut self) -> Result<Users> {
        self.running.store(false, Ordering::Relaxed);
        let mut written = Users::new();
        while let Some(users) = self.tasks.join_next().await {
            written.extend(users?);
        }
        Ok(written)
    }
}

struct Client {
    balancer: Arc<Balancer>,
    score: Arc<Score>,
    /// What this client wrote.
    users: Users,
}

impl Client {
    async fn work(mut self, number: i64, running: &AtomicBool) -> Users {
        // All over the table, and a few beyond its end.
        let ids: Vec<i64> = (0..USERS).map(|n| 1 + number + n * (ROWS + ROWS / 10) / USERS).collect();
        while running.load(Ordering::Relaxed) {
            let id = ids[fastrand::usize(..ids.len())];
            self.score.requests.fetch_add(1, Ordering::Relaxed);
            if fastrand::u8(..100) < 40 {
                self.write(id).await
            } else {
                self.read(id).await
            }
            tokio::time::sleep(REST).await;
        }
        self.users
    }

    async fn write(&mut self, id: i64) {
        let version = self.users.get(&id).map_or(0, |user| user.version) + 1;
        let user = User { version, name: format!("Ada {id}, the {version}.") };
        let sent = async {
            let body = Bytes::from(serde_json::to_vec(&user)?);
            self.balancer.send(Method::PUT, &format!("/users/{id}"), body).await
        };
        match sent.await {
            Ok((StatusCode::NO_CONTENT, _)) => drop(self.users.insert(id, user)),
            answer => self.score.failed(format!("PUT of user {id}: {answer:?}")),
        }
    }

    async fn read(&self, id: i64) {
        let expected = self.users.get(&id).cloned().or_else(|| loaded(id));
        let found = match self.balancer.send(Method::GET, &format!("/users/{id}"), Bytes::new()).await {
            Ok((StatusCode::OK, body)) => serde_json::from_slice(&body).map(Some).map_err(Into::into),
            Ok((StatusCode::NOT_FOUND, _)) => Ok(None),
            Ok(other) => Err(format!("{other:?}").into()),
            Err(error) => Err(error),
        };
        match found {
            Ok(found) if found == expected => {}
            Ok(found) => {
                self.score.stale(format!("user {id} was left as {expected:?} and read as {found:?}"));
            }
            Err(error) => self.score.failed(format!("GET of user {id}: {error}")),
        }
    }
}

/// A user as it is before anybody wrote it.
pub fn loaded(id: i64) -> Option<User> {
    (1..=ROWS).contains(&id).then(|| User { version: 0, name: format!("User {id}") })
}
