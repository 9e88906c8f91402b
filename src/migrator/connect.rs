//! Connections: from a pool, or of the migrator's own.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use futures_util::future::join3;
use tokio::task::JoinHandle;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, Config, Row, Socket};

use crate::error::{Error, Kind, Result};

/// Where connections come from.
#[derive(Clone)]
pub(super) enum Connector {
    Pool(deadpool_postgres::Pool),
    Config(Arc<dyn Connect>),
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(_) => f.write_str("Pool"),
            Self::Config(_) => f.write_str("Config"),
        }
    }
}

impl Connector {
    pub(super) fn config<T>(config: Config, tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + Sync,
        T::TlsConnect: Send + Sync,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        Self::Config(Arc::new(Direct { config, tls }))
    }

    /// A connection that nobody else uses, now or later: its settings die with it.
    pub(super) async fn open(&self) -> Result<Conn> {
        match self {
            Self::Pool(pool) => match Box::pin(pool.get()).await {
                Ok(object) => {
                    Ok(Conn { inner: Inner::Pooled(deadpool_postgres::Object::take(object)), armed: false })
                }
                Err(error) => Err(Error::new(
                    Kind::Connection,
                    format!("the pool gave no connection: {error}; check its configuration and its size (the migrator needs two)"),
                )
                .with_source(error)),
            },
            Self::Config(connect) => connect.connect().await,
        }
    }
}

/// A `tokio_postgres::Config` with its TLS, whatever its type.
#[async_trait::async_trait]
pub(super) trait Connect: Send + Sync {
    async fn connect(&self) -> Result<Conn>;
}

struct Direct<T> {
    config: Config,
    tls: T,
}

#[async_trait::async_trait]
impl<T> Connect for Direct<T>
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send + Sync,
    T::TlsConnect: Send + Sync,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    async fn connect(&self) -> Result<Conn> {
        let (client, connection) = self.config.connect(self.tls.clone()).await.map_err(|error| {
            Error::new(
                Kind::Connection,
                format!("cannot connect to Postgres: {error}; check the address, the user and the server"),
            )
            .with_source(error)
        })?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(target: "phasewise", %error, "connection ended");
            }
        });
        let (token, tls) = (client.cancel_token(), self.tls.clone());
        let cancel = Box::new(move || {
            // Without a runtime there is nobody to send it; the server's connection check then ends the statement.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { token.cancel_query(tls).await });
            }
        });
        Ok(Conn { inner: Inner::Owned { client, task, cancel: Some(cancel) }, armed: false })
    }
}

/// A connection of our own. Dropped while it is armed, it cancels its statement; dropped at all, it closes.
pub(super) struct Conn {
    inner: Inner,
    armed: bool,
}

enum Inner {
    Pooled(deadpool_postgres::ClientWrapper),
    Owned { client: Client, task: JoinHandle<()>, cancel: Option<Box<dyn FnOnce() + Send + Sync>> },
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").finish_non_exhaustive()
    }
}

impl Deref for Conn {
    type Target = Client;

    fn deref(&self) -> &Client {
        match &self.inner {
            Inner::Pooled(wrapper) => wrapper,
            Inner::Owned { client, .. } => client,
        }
    }
}

impl Conn {
    /// Whether dropping it sends a cancel request: only where long statements run on it.
    pub(super) fn armed(mut self, armed: bool) -> Self {
        self.armed = armed;
        self
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        let armed = self.armed;
        if let Inner::Owned { task, cancel, client } = &mut self.inner {
            if let Some(cancel) = cancel.take().filter(|_| armed && !client.is_closed()) {
                cancel();
            }
            task.abort();
        }
    }
}

/// A parameter with its type: statements are never prepared under a name, so that poolers and DDL cannot
/// invalidate them.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// Text parameter.
pub(super) fn text<'a>(value: &'a (impl ToSql + Sync)) -> Param<'a> {
    (value, Type::TEXT)
}

/// `bigint` parameter.
pub(super) fn int8(value: &i64) -> Param<'_> {
    (value, Type::INT8)
}

/// `integer` parameter.
pub(super) fn int4(value: &i32) -> Param<'_> {
    (value, Type::INT4)
}

/// `double precision` parameter.
pub(super) fn float8(value: &f64) -> Param<'_> {
    (value, Type::FLOAT8)
}

/// `boolean` parameter.
pub(super) fn boolean(value: &bool) -> Param<'_> {
    (value, Type::BOOL)
}

/// `jsonb` parameter.
pub(super) fn jsonb(value: &serde_json::Value) -> Param<'_> {
    (value, Type::JSONB)
}

/// Begins a transaction that writes, whatever the role's or the database's default is. Said with each, not set for the
/// session: behind a pooler in transaction mode that would be somebody else's next.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// One statement per message, with our errors.
pub(super) trait Sql {
    /// A statement of our own: an error names it by its head.
    async fn ask(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>>;
    /// The same for one that writes, outside a transaction: it gets one of its own, in one round trip.
    async fn write(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>>;
    /// A statement without parameters or rows. `doing` says in the error what it was for.
    async fn send(&self, doing: impl fmt::Display, sql: &str) -> Result<()>;
}

impl Sql for Client {
    async fn ask(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        tracing::trace!(target: "phasewise", sql, "ledger");
        self.query_typed(sql, params).await.map_err(|error| {
            let head: Vec<&str> = sql.split_whitespace().take(8).collect();
            Error::postgres_said(format_args!("phasewise's own statement ({} …)", head.join(" ")), error)
        })
    }

    async fn write(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        let (begun, wrote, committed) =
            join3(self.send("begin", BEGIN), self.ask(sql, params), self.send("committing", "COMMIT")).await;
        let rows = begun.and(wrote)?;
        committed.map(|()| rows)
    }

    async fn send(&self, doing: impl fmt::Display, sql: &str) -> Result<()> {
        tracing::debug!(target: "phasewise", sql, "statement");
        self.batch_execute(sql).await.map_err(|error| Error::postgres_said(doing, error))
    }
}

/// A column of a row of ours.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: &str) -> Result<T> {
    row.try_get(column).map_err(|error| {
        Error::new(
            Kind::LedgerDamaged,
            format!("column {column} of a row that phasewise read does not make sense: {error}; was the ledger edited by hand?"),
        )
        .with_source(error)
    })
}
