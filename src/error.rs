//! One opaque error with a kind.

use std::fmt;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong, to which object, and what to do next.
///
/// Decide by [`kind`](Error::kind); show the `Display` text to people. The source, if any, is what Postgres or
/// the pool said.
#[derive(thiserror::Error)]
#[error("{message}")]
pub struct Error {
    message: Box<str>,
    kind: Kind,
    migration: Option<Box<str>>,
    #[source]
    source: Option<Source>,
}

/// What an [`Error`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The definition does not fit the database: an unknown type, an expression that does not compile, a
    /// value that an option does not take.
    Definition,
    /// An object that a migration needs is not there.
    Missing,
    /// An object that a migration would create is there already, with another definition.
    Conflict,
    /// Postgres has no safe way to do this, or phasewise does not know one; nothing was touched.
    Unsupported,
    /// The role lacks a right.
    Permission,
    /// The server is older than Postgres 14.
    ServerTooOld,
    /// The ledger was written by a newer phasewise.
    LedgerTooNew,
    /// A row of the ledger does not make sense.
    LedgerDamaged,
    /// A migration that has begun was edited afterwards.
    Changed,
    /// No migration, phase, service or reference of that name.
    Unknown,
    /// Another instance is the driver, and did not finish in the time allowed.
    Busy,
    /// The lease was lost to another driver; what was under way was rolled back.
    LeaseLost,
    /// A lock could not be had in the time allowed; the message names the blockers.
    Locked,
    /// Not as things stand: a phase cannot be left or confirmed yet, a migration has not begun, a service has live
    /// instances, or an archive is in use.
    GateClosed,
    /// An instance speaks a release that the schema does not allow, or its code counts on a migration that is not done.
    OutsideWindow,
    /// A later migration that has begun touches the same: it must be rolled back first.
    HeldBack,
    /// What was asked to be undone cannot be.
    Irreversible,
    /// A backfill met a row that it could not fill, or rows that never converge.
    Backfill,
    /// The connection could not be made, or broke.
    Connection,
    /// Postgres refused a statement of a step: because of the rows, or of the SQL. The next run tries it again.
    Step,
    /// Postgres refused another statement, for another reason.
    Database,
    /// The application's own source cannot be searched.
    Source,
}

impl Error {
    /// An error with its full text. Public, so that a change of your own can refuse in the same way.
    #[cold]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { message: message.into().into_boxed_str(), kind, migration: None, source: None }
    }

    /// The same, caused by `source`.
    #[cold]
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What this is about.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The name of the migration that was being taken forward or back, or that keeps this build from serving; `None` where
    /// it was none.
    #[must_use]
    pub fn migration(&self) -> Option<&str> {
        self.migration.as_deref()
    }

    /// The same, met by that migration.
    pub(crate) fn met_by(self, migration: &str) -> Self {
        Self { migration: Some(migration.into()), ..self }
    }

    /// The SQLSTATE, where Postgres reported one, however deep among the sources.
    #[must_use]
    pub fn code(&self) -> Option<&tokio_postgres::error::SqlState> {
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            if let Some(postgres) = error.downcast_ref::<tokio_postgres::Error>() {
                return postgres.code();
            }
            source = error.source();
        }
        None
    }

    /// The SQLSTATE of the statement that this error is about; none of an error that concludes from others.
    pub(crate) fn own_code(&self) -> Option<&tokio_postgres::error::SqlState> {
        self.postgres()?.code()
    }

    /// What Postgres said, where this is about one statement.
    pub(crate) fn postgres(&self) -> Option<&tokio_postgres::Error> {
        self.source.as_deref()?.downcast_ref::<tokio_postgres::Error>()
    }

    /// The same, said to a statement of a step.
    #[cold]
    pub(crate) fn of_a_step(mut self) -> Self {
        if self.kind == Kind::Database {
            self.kind = Kind::Step;
        }
        self
    }

    /// What Postgres said to a statement that was about `doing`; the kind follows from the SQLSTATE.
    #[cold]
    pub(crate) fn postgres_said(doing: impl fmt::Display, error: tokio_postgres::Error) -> Self {
        use tokio_postgres::error::SqlState;
        let (kind, said) = match error.as_db_error() {
            None => (
                Kind::Connection,
                format!("{error}; check the connection and run again, it resumes where it was"),
            ),
            Some(db) => {
                let kind = match db.code() {
                    // The timeouts that end the session: idle in a transaction, of a transaction, idle.
                    code if matches!(code.code(), "25P03" | "25P04" | "57P05") => Kind::Connection,
                    &SqlState::INSUFFICIENT_PRIVILEGE => Kind::Permission,
                    &SqlState::LOCK_NOT_AVAILABLE => Kind::Locked,
                    &SqlState::ADMIN_SHUTDOWN | &SqlState::CRASH_SHUTDOWN | &SqlState::CANNOT_CONNECT_NOW => {
                        Kind::Connection
                    }
                    _ => Kind::Database,
                };
                let mut said = db.message().to_owned();
                for more in [db.detail(), db.hint()].into_iter().flatten() {
                    said.push_str(". ");
                    said.push_str(more);
                }
                (kind, format!("{said} (SQLSTATE {})", db.code().code()))
            }
        };
        Self::new(kind, format!("{doing}: {said}")).with_source(error)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("message", &self.message)
            .field("migration", &self.migration)
            .field("source", &self.source)
            .finish()
    }
}
