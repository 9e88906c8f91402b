//! The ledger: phasewise's own tables.

mod archives;
mod backfills;
mod book;
mod fleet;
mod references;
mod schema;
mod write;

pub(super) use archives::Kept;
pub(super) use backfills::{Aside, Control, Part, Spot};
pub(super) use book::{Book, Direction, Record};
pub(super) use fleet::{Instance, Listing, RETIRED};
pub(super) use write::{At, to_json};

use super::connect::{BEGIN, Conn, Sql as _, get, int4, text};
use super::session::Facts;
use crate::error::{Error, Kind, Result};
use crate::ident::quote;
use crate::migration::Migrations;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

/// Where the ledger is.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    /// Its schema as SQL.
    s: String,
}

impl Ledger {
    pub(super) fn new(schema: &str) -> Self {
        Self { s: quote(schema) }
    }

    /// `sql` with `{s}` replaced by the ledger's schema.
    pub(super) fn sql(&self, sql: &str) -> String {
        sql.replace("{s}", &self.s)
    }

    /// Makes the ledger if there is none. Says whether this call made it, with no table of `migrations` there
    /// yet: a fresh database.
    pub(super) async fn ensure(
        &self,
        conn: &Conn,
        facts: &mut Facts,
        migrations: &Migrations,
    ) -> Result<bool> {
        for _ in 0..20 {
            if facts.has_ledger {
                return Ok(false);
            }
            conn.send("begin", BEGIN).await?;
            let made = self.create(conn, facts, migrations).await;
            match finish(conn, made).await {
                Ok(fresh) => {
                    facts.has_ledger = true;
                    return Ok(fresh);
                }
                // Somebody else is making it at this moment.
                Err(error)
                    if error.own_code().is_some_and(|code| {
                        matches!(
                            *code,
                            SqlState::UNIQUE_VIOLATION
                                | SqlState::DUPLICATE_SCHEMA
                                | SqlState::DUPLICATE_TABLE
                                | SqlState::DUPLICATE_OBJECT
                                | SqlState::T_R_SERIALIZATION_FAILURE
                                | SqlState::INTERNAL_ERROR
                        )
                    }) =>
                {
                    tokio::time::sleep(std::time::Duration::from_millis(fastrand::u64(10..50))).await;
                    let rows = conn
                        .ask(
                            "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1) AS has_schema,
                                    EXISTS (SELECT FROM pg_catalog.pg_class c
                                              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                                             WHERE n.nspname = $1 AND c.relname = 'ledger') AS has_ledger",
                            &[text(&facts.scope.ledger_schema)],
                        )
                        .await?;
                    if let Some(row) = rows.first() {
                        facts.has_ledger_schema = get(row, "has_schema")?;
                        facts.has_ledger = get(row, "has_ledger")?;
                    }
                }
                Err(error) if error.kind() == Kind::Permission => {
                    let (role, schema) = (quote(&facts.role), &self.s);
                    let grant = if facts.has_ledger_schema {
                        format!("GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}")
                    } else {
                        format!("GRANT CREATE ON DATABASE {} TO {role}", quote(&facts.database))
                    };
                    return Err(Error::new(
                        Kind::Permission,
                        format!(
                            "role {role} may not create phasewise's own tables in schema {schema}: run {grant}, or have an owner run CREATE SCHEMA {schema} AUTHORIZATION {role}"
                        ),
                    )
                    .with_source(error));
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(
            Kind::Busy,
            "several instances create phasewise's ledger at once, and none succeeds; run again",
        ))
    }

    async fn create(&self, conn: &Conn, facts: &Facts, migrations: &Migrations) -> Result<bool> {
        let fresh = !self.anything_exists(conn, facts, migrations).await?;
        let doing = "creating phasewise's ledger";
        if !facts.has_ledger_schema {
            conn.send(doing, &self.sql("CREATE SCHEMA {s}")).await?;
        }
        for statement in schema::CREATE {
            conn.send(doing, &self.sql(statement)).await?;
        }
        conn.ask(&self.sql("INSERT INTO {s}.ledger (version) VALUES ($1)"), &[int4(&schema::VERSION)])
            .await?;
        Ok(fresh)
    }

    /// Whether a table that any migration touches is there. One that may touch anything counts every table.
    async fn anything_exists(&self, conn: &Conn, facts: &Facts, migrations: &Migrations) -> Result<bool> {
        let (mut schemas, mut names, mut everything) = (Vec::new(), Vec::new(), false);
        for entry in migrations.iter() {
            let touches = entry.touches();
            everything |= touches.everything;
            for table in touches.tables() {
                schemas.push(
                    table.schema().map_or_else(|| facts.scope.schema.clone(), |s| s.as_str().to_owned()),
                );
                names.push(table.name().as_str().to_owned());
            }
        }
        let rows = conn
            .ask(
                "SELECT EXISTS (
                    SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
                       AND ((n.nspname, c.relname) IN (SELECT * FROM unnest($1::text[], $2::text[]))
                            OR $3 AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', $4))
                 ) AS found",
                &[
                    (&schemas, Type::TEXT_ARRAY),
                    (&names, Type::TEXT_ARRAY),
                    (&everything, Type::BOOL),
                    text(&facts.scope.ledger_schema),
                ],
            )
            .await?;
        rows.first().map_or(Ok(true), |row| get(row, "found"))
    }
}

/// Begins a transaction of the ledger's own, in which nobody is made to wait for long: a process that is stopped in the
/// middle of it is cut off.
pub(super) async fn begin(conn: &Conn) -> Result<()> {
    let limits =
        "SELECT set_config('lock_timeout', '10s', true), set_config('statement_timeout', '30s', true),
                         set_config('idle_in_transaction_session_timeout', '10s', true)";
    conn.send("begin", BEGIN).await?;
    match conn.ask(limits, &[]).await {
        Ok(_) => Ok(()),
        Err(error) => finish(conn, Err(error)).await,
    }
}

/// Commits, or rolls back after an error.
pub(super) async fn finish<T>(conn: &Conn, result: Result<T>) -> Result<T> {
    match result {
        Ok(value) => conn.send("committing", "COMMIT").await.map(|()| value),
        Err(error) => {
            // What matters is the first error; a broken connection rolls back by itself.
            let _ = conn.send("rolling back", "ROLLBACK").await;
            Err(error)
        }
    }
}
