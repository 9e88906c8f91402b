//! Clients that go on while a migration runs, and what they saw.

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config};

use super::StartError;
use super::connect::connect;

/// As many texts of failures, and of stale reads, are kept for each label.
const KEPT: usize = 5;

/// After a failure a client waits this long before it connects again.
const BREATH: Duration = Duration::from_millis(100);

/// Clients of a database that go on while it is migrated: the proof that a migration stops nobody.
///
/// Write the requests of your application's old and new code as closures, start the old one, run the migration,
/// start and stop releases as your deploys do, and look at the summary at the end.
///
/// ```no_run
/// # async fn example(migrator: phasewise::Migrator) -> Result<(), Box<dyn std::error::Error>> {
/// use phasewise::testing::{Server, Session, Workload};
///
/// let database = Server::shared().await?.database().await?;
/// let workload = Workload::new(database.config());
///
/// // Four clients of the old release, each with a connection of its own.
/// let old = workload.start("release 0", 4, |session: Session| async move {
///     // Prepared once per connection, as pools do.
///     let name = session.request(session.prepare("SELECT name FROM users WHERE id = $1")).await?;
///     while session.is_running() {
///         let row = session.request(session.query_one(&name, &[&1_i64])).await?;
///         if row.get::<_, &str>(0) != "Ada" {
///             session.stale("user 1 is not Ada");
///         }
///     }
///     Ok(())
/// });
/// let old = old.await?;
///
/// migrator.run_to("20261122_users_full_name", "WriteBoth").await?;
/// // … start the next release, stop the old one, and so on …
/// old.stop().await;
///
/// let summary = workload.summary();
/// println!("{summary}"); // clients: 81236 requests, 0 failed, 0 stale, worst wait 12 ms
/// assert!(summary.is_clean(), "{summary:#?}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Workload {
    config: Config,
    timeout: Duration,
    tally: Tally,
}

impl Workload {
    /// No clients yet, of the database that `config` leads to (without TLS).
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, timeout: Duration::from_secs(30), tally: Tally::default() }
    }

    /// How long a request may take before it counts as failed. Else 30 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Starts `clients` clients, each with a connection of its own.
    ///
    /// `serve` is the life of one of them: it sends requests through [`Session::request`] while
    /// [`Session::is_running`]. It is called again whenever it returns before that: after an error on a new
    /// connection, else on the same one, so that a closure of one request will do.
    ///
    /// # Errors
    ///
    /// If a first connection cannot be made. Later ones count as failed requests.
    pub async fn start<F, T>(
        &self,
        label: impl Into<String>,
        clients: usize,
        serve: F,
    ) -> Result<Clients, StartError>
    where
        F: Fn(Session) -> T + Send + Sync + 'static,
        T: Future<Output = Result<(), Failed>> + Send + 'static,
    {
        let label: Arc<str> = label.into().into();
        let running = Arc::new(AtomicBool::new(true));
        let serve = Arc::new(serve);
        let mut connections = Vec::with_capacity(clients);
        for _ in 0..clients {
            connections.push(connect(&self.config).await?);
        }
        let tasks = connections.into_iter().enumerate().map(|(number, client)| {
            let life = Life {
                config: self.config.clone(),
                number,
                label: Arc::clone(&label),
                tally: self.tally.clone(),
                running: Arc::clone(&running),
                timeout: self.timeout,
            };
            tokio::spawn(life.live(client, Arc::clone(&serve)))
        });
        Ok(Clients { label: Arc::clone(&label), tasks: tasks.collect(), running, tally: self.tally.clone() })
    }

    /// Counts `rows` as stale that were found in another way than by a client: by a check of the whole table.
    pub fn stale(&self, label: &str, rows: u64, what: impl Into<String>) {
        if rows > 0 {
            self.tally.stale(label, rows, what.into());
        }
    }

    /// What all clients saw so far, those that have stopped included.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary { clients: self.tally.labels().clone() }
    }
}

/// Clients that were started together: an instance of a release, say.
///
/// Dropped, they stop too, but nobody waits for it.
#[derive(Debug)]
pub struct Clients {
    label: Arc<str>,
    tasks: Vec<JoinHandle<()>>,
    running: Arc<AtomicBool>,
    tally: Tally,
}

impl Clients {
    /// Their label.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Lets them end what they are at, as a deploy drains an instance, and waits for it.
    pub async fn stop(mut self) {
        self.running.store(false, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            if let Err(error) = task.await {
                self.tally.failed(&self.label, &error);
            }
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.running.store(false, Ordering::Relaxed);
    }
}

/// One client's connection, on which requests are timed and counted. It is a [`tokio_postgres::Client`].
#[derive(Clone, Debug)]
pub struct Session {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    number: usize,
    label: Arc<str>,
    tally: Tally,
    running: Arc<AtomicBool>,
    timeout: Duration,
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.inner.client
    }
}

impl Session {
    /// Whether the clients go on: false once [`Clients::stop`] was called.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.inner.running.load(Ordering::Relaxed)
    }

    /// The client's number among those that were started together, from 0.
    #[must_use]
    pub fn number(&self) -> usize {
        self.inner.number
    }

    /// Sends a request: one statement, or a whole transaction. It is timed and counted, and so is its failure.
    ///
    /// # Errors
    ///
    /// If it failed, or took longer than the workload's timeout.
    pub async fn request<T, E>(&self, request: impl Future<Output = Result<T, E>>) -> Result<T, Failed>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let begun = Instant::now();
        let answer = tokio::time::timeout(self.inner.timeout, request).await;
        self.inner.tally.requested(&self.inner.label, begun.elapsed());
        let error = match answer {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error.into(),
            Err(_) => format!("no answer in {} s", self.inner.timeout.as_secs_f64()).into(),
        };
        self.inner.tally.failed(&self.inner.label, error.as_ref());
        Err(Failed(()))
    }

    /// Counts an answer that is not what was last written. `what` says which, and what was expected.
    pub fn stale(&self, what: impl Into<String>) {
        self.inner.tally.stale(&self.inner.label, 1, what.into());
    }
}

/// A request failed. It is counted and kept already: hand it on with `?`.
#[derive(Clone, Copy, Debug)]
pub struct Failed(());

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a request failed; the workload's summary has its text")
    }
}

impl Error for Failed {}

/// What one client needs to live on.
struct Life {
    config: Config,
    number: usize,
    label: Arc<str>,
    tally: Tally,
    running: Arc<AtomicBool>,
    timeout: Duration,
}

impl Life {
    async fn live<F, T>(self, first: Client, serve: Arc<F>)
    where
        F: Fn(Session) -> T,
        T: Future<Output = Result<(), Failed>>,
    {
        let mut session = self.session(first);
        while self.running.load(Ordering::Relaxed) {
            if serve(session.clone()).await.is_ok() && !session.is_closed() {
                // A closure that never waits must not keep the runtime from everybody else.
                tokio::task::yield_now().await;
                continue;
            }
            while self.running.load(Ordering::Relaxed) {
                tokio::time::sleep(BREATH).await;
                match connect(&self.config).await {
                    Ok(client) => {
                        session = self.session(client);
                        break;
                    }
                    Err(error) => {
                        self.tally.requested(&self.label, Duration::ZERO);
                        self.tally.failed(&self.label, &error);
                    }
                }
            }
        }
    }

    fn session(&self, client: Client) -> Session {
        let inner = Inner {
            client,
            number: self.number,
            label: Arc::clone(&self.label),
            tally: self.tally.clone(),
            running: Arc::clone(&self.running),
            timeout: self.timeout,
        };
        Session { inner: Arc::new(inner) }
    }
}

/// What the clients of a [`Workload`] saw.
///
/// Its `Display` is one line: `clients: 81236 requests, 0 failed, 0 stale, worst wait 12 ms`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Summary {
    /// By label, in the order in which the labels first appeared.
    pub clients: Vec<ClientSummary>,
}

/// What the clients of one label saw.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ClientSummary {
    /// The label.
    pub label: String,
    /// Requests that were sent, failed ones included.
    pub requests: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Answers, and rows, that are not what was last written.
    pub stale: u64,
    /// The longest time that a request took.
    pub worst: Duration,
    /// The texts of the first few failures.
    pub failures: Vec<String>,
    /// The texts of the first few stale answers.
    pub stales: Vec<String>,
}

impl Summary {
    /// Requests that were sent, failed ones included.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.clients.iter().map(|client| client.requests).sum()
    }

    /// Requests that failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.clients.iter().map(|client| client.failed).sum()
    }

    /// Answers, and rows, that are not what was last written.
    #[must_use]
    pub fn stale(&self) -> u64 {
        self.clients.iter().map(|client| client.stale).sum()
    }

    /// The longest time that a request took.
    #[must_use]
    pub fn worst(&self) -> Duration {
        self.clients.iter().map(|client| client.worst).max().unwrap_or_default()
    }

    /// Whether there were requests, and nothing failed and nothing was stale.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.requests() > 0 && self.failed() == 0 && self.stale() == 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "clients: {} requests, {} failed, {} stale, worst wait {:.0} ms",
            self.requests(),
            self.failed(),
            self.stale(),
            self.worst().as_secs_f64() * 1_000.0
        )
    }
}

/// The counts, shared by all clients.
#[derive(Clone, Debug, Default)]
struct Tally(Arc<Mutex<Vec<ClientSummary>>>);

impl Tally {
    fn requested(&self, label: &str, took: Duration) {
        self.count(label, |counts| {
            counts.requests += 1;
            counts.worst = counts.worst.max(took);
        });
    }

    fn failed(&self, label: &str, error: &(dyn Error + 'static)) {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        self.count(label, |counts| {
            counts.failed += 1;
            if counts.failures.len() < KEPT {
                counts.failures.push(text);
            }
        });
    }

    fn stale(&self, label: &str, rows: u64, what: String) {
        self.count(label, |counts| {
            counts.stale += rows;
            if counts.stales.len() < KEPT {
                counts.stales.push(what);
            }
        });
    }

    fn count(&self, label: &str, change: impl FnOnce(&mut ClientSummary)) {
        let mut labels = self.labels();
        if let Some(counts) = labels.iter_mut().find(|counts| counts.label == label) {
            return change(counts);
        }
        let mut counts = ClientSummary { label: label.to_owned(), ..ClientSummary::default() };
        change(&mut counts);
        labels.push(counts);
    }

    /// The counts of a client that panicked still hold.
    fn labels(&self) -> MutexGuard<'_, Vec<ClientSummary>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
