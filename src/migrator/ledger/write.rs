//! What the ledger is told. Each function is one statement; the caller says in which transaction.

use super::book::{Direction, places};
use super::{Ledger, Record};
use crate::error::{Error, Kind, Result};
use crate::migration::Entry;
use crate::migrator::connect::{Conn, Sql as _, boolean, float8, get, int4, jsonb, text};
use crate::migrator::planning::Saved;
use crate::migrator::reach::Reach;
use tokio_postgres::types::Type;

/// Who did it, as history and confirmations say.
pub(super) const BY: &str = "session_user || coalesce('@' || host(inet_client_addr()), '')";

/// A phase of a migration, and the way through it.
#[derive(Clone, Copy, Debug)]
pub(in crate::migrator) struct At<'a> {
    pub(in crate::migrator) migration: &'a str,
    pub(in crate::migrator) phase: &'a str,
    pub(in crate::migrator) direction: Direction,
}

fn as_count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

impl Ledger {
    /// Lists a migration; one that has not begun takes this build's definition. Who takes part is always as this build
    /// says.
    pub(in crate::migrator) async fn put(&self, conn: &Conn, entry: &Entry, reach: &Reach) -> Result<()> {
        let sql = self.sql(
            "INSERT INTO {s}.migrations AS m (name, fingerprint, definition, phases) VALUES ($1, $2, $3, $4)
             ON CONFLICT (name) DO UPDATE
             SET fingerprint = excluded.fingerprint, definition = excluded.definition, phases = excluded.phases
             WHERE m.entered = 0 AND m.moving IS NULL AND m.fingerprint <> excluded.fingerprint",
        );
        let phases = to_json(&places(entry))?;
        let (name, print, definition) = (entry.name(), entry.fingerprint(), entry.definition());
        conn.ask(&sql, &[text(&name), text(&print), text(&definition), jsonb(&phases)]).await?;
        let sql = self.sql(
            "UPDATE {s}.migrations SET services = $2, tables = $3, columns = $4, everything = $5
              WHERE name = $1 AND (services, tables, columns, everything) IS DISTINCT FROM ($2, $3, $4, $5)",
        );
        let services = entry.services();
        let params = [
            text(&name),
            (&services, Type::TEXT_ARRAY),
            (&reach.tables, Type::TEXT_ARRAY),
            (&reach.columns, Type::TEXT_ARRAY),
            boolean(&reach.everything),
        ];
        conn.ask(&sql, &params).await?;
        Ok(())
    }

    /// Takes this build's definition, whatever there was.
    pub(in crate::migrator) async fn accept(&self, conn: &Conn, entry: &Entry) -> Result<()> {
        let sql = self
            .sql("UPDATE {s}.migrations SET fingerprint = $2, definition = $3, phases = $4 WHERE name = $1");
        let phases = to_json(&places(entry))?;
        let (name, print, definition) = (entry.name(), entry.fingerprint(), entry.definition());
        conn.ask(&sql, &[text(&name), text(&print), text(&definition), jsonb(&phases)]).await?;
        Ok(())
    }

    /// Holds a migration, or lets it go.
    pub(in crate::migrator) async fn set_paused(&self, conn: &Conn, name: &str, paused: bool) -> Result<()> {
        let sql = self.sql("UPDATE {s}.migrations SET paused = $2 WHERE name = $1");
        conn.ask(&sql, &[text(&name), boolean(&paused)]).await?;
        Ok(())
    }

    /// Until the end of the transaction no instance joins, and nobody else moves a migration: see
    /// [`share`](Self::share).
    pub(in crate::migrator) async fn lock(&self, conn: &Conn) -> Result<()> {
        conn.ask(&self.sql("SELECT FROM {s}.ledger FOR NO KEY UPDATE"), &[]).await.map(drop)
    }

    /// Says that a migration moves.
    pub(in crate::migrator) async fn set_moving(
        &self,
        conn: &Conn,
        name: &str,
        entered: usize,
        direction: Direction,
    ) -> Result<()> {
        let sql = self.sql("UPDATE {s}.migrations SET entered = $2, moving = $3 WHERE name = $1");
        let direction = direction.as_str();
        conn.ask(&sql, &[text(&name), int4(&as_count(entered)), text(&direction)]).await?;
        Ok(())
    }

    /// Says that it stands, `entered` phases on. What was noted on the way forward is kept: a rollback that is given
    /// up must find what it did not undo.
    pub(in crate::migrator) async fn arrive(
        &self,
        conn: &Conn,
        at: At<'_>,
        entered: usize,
        took: f64,
    ) -> Result<()> {
        let (name, phase, direction) = (at.migration, at.phase, at.direction.as_str());
        let sql = self.sql(
            "UPDATE {s}.migrations SET entered = $2, moving = NULL,
                    since = CASE WHEN $3 THEN greatest(since, clock_timestamp()) ELSE clock_timestamp() END
              WHERE name = $1",
        );
        // A clock that was set back makes no soak shorter; one that was far ahead is forgotten by going back.
        let forward = at.direction == Direction::Forward;
        conn.ask(&sql, &[text(&name), int4(&as_count(entered)), boolean(&forward)]).await?;
        let sql = self.sql(&format!(
            "INSERT INTO {{s}}.history (migration, phase, direction, took, by) VALUES ($1, $2, $3, $4, {BY})"
        ));
        conn.ask(&sql, &[text(&name), text(&phase), text(&direction), float8(&took)]).await?;
        let back = Direction::Back.as_str();
        for table in ["notes", "backfills"] {
            let kept = if table == "notes" && at.direction == Direction::Forward {
                "direction = $3"
            } else {
                "$3 <> ''"
            };
            let sql = self
                .sql(&format!("DELETE FROM {{s}}.{table} WHERE migration = $1 AND phase = $2 AND {kept}"));
            conn.ask(&sql, &[text(&name), text(&phase), text(&back)]).await?;
        }
        if at.direction == Direction::Back {
            for table in ["saved", "set_aside"] {
                let sql = self.sql(&format!("DELETE FROM {{s}}.{table} WHERE migration = $1 AND phase = $2"));
                conn.ask(&sql, &[text(&name), text(&phase)]).await?;
            }
        }
        Ok(())
    }

    /// The steps that are noted on one way through a phase.
    pub(in crate::migrator) async fn noted(&self, conn: &Conn, at: At<'_>) -> Result<Vec<String>> {
        let sql =
            self.sql("SELECT step FROM {s}.notes WHERE migration = $1 AND phase = $2 AND direction = $3");
        let direction = at.direction.as_str();
        let rows = conn.ask(&sql, &[text(&at.migration), text(&at.phase), text(&direction)]).await?;
        rows.iter().map(|row| get(row, "step")).collect()
    }

    /// Forgets that a step was noted.
    pub(in crate::migrator) async fn forget_note(&self, conn: &Conn, at: At<'_>, step: &str) -> Result<()> {
        let sql = self.sql(
            "DELETE FROM {s}.notes WHERE migration = $1 AND phase = $2 AND direction = $3 AND step = $4",
        );
        let direction = at.direction.as_str();
        conn.ask(&sql, &[text(&at.migration), text(&at.phase), text(&direction), text(&step)]).await?;
        Ok(())
    }

    pub(in crate::migrator) async fn confirm(&self, conn: &Conn, name: &str, phase: &str) -> Result<()> {
        let sql = self.sql(&format!(
            "INSERT INTO {{s}}.confirmations (migration, phase, by) VALUES ($1, $2, {BY}) ON CONFLICT DO NOTHING"
        ));
        conn.ask(&sql, &[text(&name), text(&phase)]).await?;
        Ok(())
    }

    pub(in crate::migrator) async fn withdraw(&self, conn: &Conn, name: &str, phase: &str) -> Result<()> {
        let sql = self.sql("DELETE FROM {s}.confirmations WHERE migration = $1 AND phase = $2");
        conn.ask(&sql, &[text(&name), text(&phase)]).await?;
        Ok(())
    }

    /// Notes that a step is done.
    pub(in crate::migrator) async fn note(&self, conn: &Conn, at: At<'_>, step: &str) -> Result<()> {
        let sql = self.sql(
            "INSERT INTO {s}.notes (migration, phase, direction, step) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        );
        let direction = at.direction.as_str();
        conn.ask(&sql, &[text(&at.migration), text(&at.phase), text(&direction), text(&step)]).await?;
        Ok(())
    }

    pub(in crate::migrator) async fn is_noted(&self, conn: &Conn, at: At<'_>, step: &str) -> Result<bool> {
        let sql = self.sql(
            "SELECT FROM {s}.notes WHERE migration = $1 AND phase = $2 AND direction = $3 AND step = $4",
        );
        let direction = at.direction.as_str();
        let rows =
            conn.ask(&sql, &[text(&at.migration), text(&at.phase), text(&direction), text(&step)]).await?;
        Ok(!rows.is_empty())
    }

    /// What is saved for a migration.
    pub(in crate::migrator) async fn saved(&self, conn: &Conn, name: &str) -> Result<Saved> {
        let sql = self.sql("SELECT key, value FROM {s}.saved WHERE migration = $1");
        let rows = conn.ask(&sql, &[text(&name)]).await?;
        rows.iter().map(|row| Ok((get(row, "key")?, get(row, "value")?))).collect()
    }

    pub(in crate::migrator) async fn save(
        &self,
        conn: &Conn,
        at: At<'_>,
        key: &str,
        value: &serde_json::Value,
    ) -> Result<()> {
        let sql = self.sql(
            "INSERT INTO {s}.saved (migration, key, phase, value) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        );
        conn.ask(&sql, &[text(&at.migration), text(&key), text(&at.phase), jsonb(value)]).await?;
        Ok(())
    }

    /// The row of a migration that must have been listed.
    pub(in crate::migrator) fn listed<'a>(
        &self,
        record: Option<&'a Record>,
        name: &str,
    ) -> Result<&'a Record> {
        record.ok_or_else(|| {
            Error::new(
                Kind::GateClosed,
                format!("migration {name} has not begun: `run` or `start` begins it, then try again"),
            )
        })
    }
}

pub(in crate::migrator) fn to_json(value: &impl serde::Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|error| {
        Error::new(Kind::LedgerDamaged, format!("a value for the ledger cannot be written as JSON: {error}"))
            .with_source(error)
    })
}
