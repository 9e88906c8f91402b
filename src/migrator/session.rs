//! The driver's session: one connection, set once, known to reach one backend.

use std::ops::Deref;
use std::time::Duration;

use futures_util::future::try_join;

use super::connect::{Conn, Sql as _, get, jsonb, text};
use super::settings::{LEDGER_SCHEMA, Migrator};
use super::snapshot::Scope;
use crate::error::{Error, Kind, Result};
use crate::ident::{MAX_BYTES, quote};

const OLDEST: i32 = 140_000;

/// What a connection says of itself, before anything is set.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) scope: Scope,
    pub(super) role: String,
    pub(super) database: String,
    pub(super) has_ledger: bool,
    pub(super) has_ledger_schema: bool,
    deadlock_timeout: Duration,
}

impl Facts {
    pub(super) async fn read(conn: &Conn, migrator: &Migrator) -> Result<Self> {
        check_name(&migrator.ledger_schema)?;
        let rows = conn
            .ask(
                "SELECT current_setting('server_version_num')::int4 AS version,
                        current_schema()::text AS schema,
                        current_user::text AS role,
                        current_database()::text AS database,
                        (SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout') AS deadlock,
                        EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1) AS has_schema,
                        EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                                 WHERE n.nspname = $1 AND c.relname = 'ledger') AS has_ledger",
                &[text(&migrator.ledger_schema)],
            )
            .await?;
        let row = answer(&rows)?;
        let version: i32 = get(row, "version")?;
        if version < OLDEST {
            return Err(Error::new(
                Kind::ServerTooOld,
                format!(
                    "the server is Postgres {}.{}; phasewise needs 14 or newer: upgrade the server first",
                    version / 10_000,
                    if version < 100_000 { version / 100 % 100 } else { version % 10_000 },
                ),
            ));
        }
        let current: Option<String> = get(row, "schema")?;
        let schema = migrator.schema.clone().or(current).unwrap_or_else(|| "public".to_owned());
        check_apart(migrator, &schema)?;
        let deadlock: Option<i64> = get(row, "deadlock")?;
        Ok(Self {
            scope: Scope { schema, ledger_schema: migrator.ledger_schema.clone() },
            role: get(row, "role")?,
            database: get(row, "database")?,
            has_ledger: get(row, "has_ledger")?,
            has_ledger_schema: get(row, "has_schema")?,
            deadlock_timeout: Duration::from_millis(
                u64::try_from(deadlock.unwrap_or(1_000)).unwrap_or(1_000),
            ),
        })
    }
}

fn no_ledger_schema(why: impl std::fmt::Display) -> Error {
    Error::new(
        Kind::Definition,
        format!("{why}. Give .ledger_schema(…) another name, or leave it out for \"phasewise\""),
    )
}

fn check_name(own: &str) -> Result<()> {
    if own.is_empty() || own.len() > MAX_BYTES || own.contains('\0') {
        let why =
            format!("{own:?} cannot name the ledger's schema: a name has 1 to 63 bytes, none of them zero");
        return Err(no_ledger_schema(why));
    }
    Ok(())
}

/// Objects in the ledger's schema count as phasewise's own: a user's among them would not be found as references.
fn check_apart(migrator: &Migrator, schema: &str) -> Result<()> {
    let own = migrator.ledger_schema.as_str();
    let tables = migrator.migrations.iter().flat_map(|entry| entry.touches().tables);
    let mut schemas = tables.filter_map(|touched| touched.table.schema());
    // As for a role of that name, by "$user".
    if own == schema && own == LEDGER_SCHEMA && migrator.schema.is_none() {
        return Err(Error::new(
            Kind::Definition,
            format!(
                "the connection's current_schema() is {}, the ledger's: say in .schema(\"…\") where the application's tables are, or in the role's search_path",
                quote(own)
            ),
        ));
    }
    if own == schema || schemas.any(|named| named.as_str() == own) {
        return Err(no_ledger_schema(format_args!(
            "the ledger cannot be kept in schema {}: the application's tables are there, and phasewise tells its own objects from theirs by the schema",
            quote(own)
        )));
    }
    Ok(())
}

/// Settings that a session may set, and set back at any time, as a predicate over `pg_settings`.
const RESTORABLE: &str = "context IN ('user', 'superuser')
    AND name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable', 'temp_buffers')";

fn answer(rows: &[tokio_postgres::Row]) -> Result<&tokio_postgres::Row> {
    rows.first().ok_or_else(|| Error::new(Kind::Connection, "the server answered nothing; try again"))
}

/// The session that steps run on.
#[derive(Debug)]
pub(super) struct Session {
    conn: Conn,
    pub(super) facts: Facts,
    pub(super) pid: i32,
    mark: String,
    /// Who it acts as, and its settings: SQL of a user's may change them.
    user: String,
    role: String,
    settings: serde_json::Value,
}

impl Deref for Session {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.conn
    }
}

impl Session {
    /// Sets the session up for steps, and finds out whether a pooler stands in between.
    pub(super) async fn new(conn: Conn, facts: Facts) -> Result<Self> {
        let mark = format!("{:016x}", fastrand::u64(..));
        let path = format!("{}, pg_temp", quote(&facts.scope.schema));
        let set = "SELECT set_config('search_path', $1, false),
                          set_config('phasewise.session', $2, false),
                          set_config('application_name', 'phasewise', false),
                          set_config('TimeZone', 'UTC', false),
                          set_config('DateStyle', 'ISO, MDY', false),
                          set_config('IntervalStyle', 'postgres', false),
                          set_config('extra_float_digits', '1', false),
                          set_config('client_min_messages', 'warning', false),
                          set_config('lock_timeout', '0', false),
                          set_config('statement_timeout', '0', false),
                          set_config('idle_in_transaction_session_timeout', '0', false),
                          set_config('default_transaction_isolation', 'read committed', false),
                          set_config('default_transaction_read_only', 'off', false),
                          set_config('row_security', 'off', false),
                          set_config('quote_all_identifiers', 'off', false),
                          pg_backend_pid() AS pid";
        // Not every version has them, and each would end a long statement, or a session that waits for its turn.
        let lift = "SELECT set_config(name, '0', false) FROM pg_catalog.pg_settings
                     WHERE name IN ('transaction_timeout', 'idle_session_timeout')";
        let set_params = [text(&path), text(&mark)];
        let (rows, _) = try_join(conn.ask(set, &set_params), conn.ask(lift, &[])).await?;
        let pid = get(answer(&rows)?, "pid")?;
        // Not every platform has it; without it an abandoned statement ends with its own work.
        if let Err(error) =
            conn.send("connection check", "SET client_connection_check_interval = '500ms'").await
        {
            tracing::debug!(target: "phasewise", %error, "no connection check");
        }
        let look = format!(
            "SELECT pg_backend_pid() AS pid, current_setting('phasewise.session', true) AS mark,
                    session_user::text AS who, current_setting('role') AS role,
                    (SELECT coalesce(jsonb_object_agg(name, setting), '{{}}') FROM pg_catalog.pg_settings
                      WHERE source = 'session' AND {RESTORABLE}) AS settings"
        );
        let rows = conn.ask(&look, &[]).await?;
        let row = answer(&rows)?;
        let (user, role, settings) = (get(row, "who")?, get(row, "role")?, get(row, "settings")?);
        let session = Self { conn: conn.armed(true), facts, pid, mark, user, role, settings };
        session.same(get(row, "pid")?, get(row, "mark")?)?;
        Ok(session)
    }

    /// Makes it what it was, after a statement that may have changed its role or its settings: one round trip.
    pub(super) async fn restore(&self) -> Result<()> {
        // First of all who it is: another role may not even read the ledger.
        let role = "SELECT pg_catalog.set_config('session_authorization', $1, false),
                           pg_catalog.set_config('role', $2, false),
                           pg_catalog.set_config('statement_timeout', '0', false),
                           pg_catalog.set_config('phasewise.session', $3, false) AS mark,
                           pg_catalog.pg_backend_pid() AS pid";
        let settings = format!(
            "SELECT pg_catalog.set_config(s.name, coalesce(kept.value, s.reset_val), false)
               FROM pg_catalog.pg_settings s
               LEFT JOIN pg_catalog.jsonb_each_text($1) kept ON kept.key OPERATOR(pg_catalog.=) s.name
              WHERE (s.source OPERATOR(pg_catalog.=) 'session' OR kept.key IS NOT NULL) AND {RESTORABLE}
                AND s.setting IS DISTINCT FROM coalesce(kept.value, s.reset_val)"
        );
        let role_params = [text(&self.user), text(&self.role), text(&self.mark)];
        let settings_params = [jsonb(&self.settings)];
        let (rows, _) = try_join(self.ask(role, &role_params), self.ask(&settings, &settings_params)).await?;
        let row = answer(&rows)?;
        self.same(get(row, "pid")?, get(row, "mark")?)
    }

    /// Nothing runs on it any more.
    pub(super) fn close(self) {
        drop(self.conn.armed(false));
    }

    /// Whether a statement still reached the backend that was set up.
    pub(super) fn same(&self, pid: i32, mark: Option<&str>) -> Result<()> {
        if pid == self.pid && mark == Some(&self.mark) {
            return Ok(());
        }
        Err(Error::new(
            Kind::Connection,
            "the connection goes through a pooler in transaction mode: its backend or its settings changed between two statements. Give the migrator a direct URL to the server (or session mode): CREATE INDEX CONCURRENTLY and lock timeouts need one session",
        ))
    }

    /// How long a lock is waited for before Postgres looks for a deadlock.
    pub(super) fn deadlock_timeout(&self) -> Duration {
        self.facts.deadlock_timeout
    }

    /// Long enough for autovacuum to notice that somebody waits for it, and to yield.
    pub(super) fn patience(&self) -> Duration {
        self.facts.deadlock_timeout + Duration::from_millis(500)
    }
}
