//! What the search for references keeps: counts of statements, and what was acknowledged.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use tokio_postgres::types::Type;

use super::Ledger;
use super::write::{BY, to_json};
use crate::error::{Error, Kind, Result};
use crate::migrator::connect::{Conn, Sql as _, get, jsonb, text};
use crate::migrator::references::Seen;
use crate::reference::Acknowledgement;

impl Ledger {
    /// The counts of statements that later ones are compared with, by server; the server itself has no name.
    pub(in crate::migrator) async fn baselines(
        &self,
        conn: &Conn,
        migration: &str,
    ) -> Result<BTreeMap<String, (DateTime<Utc>, Seen)>> {
        let sql = self.sql("SELECT server, at, seen::text AS seen FROM {s}.baselines WHERE migration = $1");
        let rows = conn.ask(&sql, &[text(&migration)]).await?;
        rows.iter()
            .map(|row| {
                let seen: String = get(row, "seen")?;
                let seen = serde_json::from_str(&seen).map_err(|error| {
                    Error::new(
                        Kind::LedgerDamaged,
                        format!(
                            "the counts of statements in {} for migration {migration} do not make sense ({error}): was the row edited by hand? Delete it, and they are counted anew",
                            self.sql("{s}.baselines")
                        ),
                    )
                })?;
                Ok((get(row, "server")?, (get(row, "at")?, seen)))
            })
            .collect()
    }

    pub(in crate::migrator) async fn set_baseline(
        &self,
        conn: &Conn,
        migration: &str,
        server: &str,
        at: DateTime<Utc>,
        seen: &Seen,
    ) -> Result<()> {
        let sql = self.sql(
            "INSERT INTO {s}.baselines (migration, server, at, seen) VALUES ($1, $2, $3, $4)
             ON CONFLICT (migration, server) DO UPDATE SET at = excluded.at, seen = excluded.seen",
        );
        // What was said of this server's statements was said of those before.
        let stale = self.sql(
            "DELETE FROM {s}.acknowledgements a
              USING (SELECT object, substring(object FROM '^(?:statement -?[0-9]+|statements|statistics of statements)(.*)$') AS rest
                       FROM {s}.acknowledgements WHERE migration = $1) AS said
              WHERE a.migration = $1 AND a.at < $2 AND a.object = said.object AND said.rest IS NOT NULL
                AND CASE WHEN $3 = '' THEN NOT starts_with(said.rest, ' on replica ') ELSE starts_with(said.rest, ' on replica ' || $3) END",
        );
        conn.write(&stale, &[text(&migration), (&at, Type::TIMESTAMPTZ), text(&server)]).await?;
        let seen = to_json(seen)?;
        conn.write(&sql, &[text(&migration), text(&server), (&at, Type::TIMESTAMPTZ), jsonb(&seen)]).await?;
        Ok(())
    }

    /// Notes that statements were counted, or that nothing would tell their counts.
    pub(in crate::migrator) async fn counted(
        &self,
        conn: &Conn,
        migration: &str,
        at: DateTime<Utc>,
    ) -> Result<()> {
        let sql = self.sql("UPDATE {s}.migrations SET counted_at = $2 WHERE name = $1");
        conn.write(&sql, &[text(&migration), (&at, Type::TIMESTAMPTZ)]).await.map(drop)
    }

    /// The references of a migration that may be there.
    pub(in crate::migrator) async fn acknowledgements(
        &self,
        conn: &Conn,
        migration: &str,
    ) -> Result<Vec<Acknowledgement>> {
        let sql =
            self.sql("SELECT object, at, by FROM {s}.acknowledgements WHERE migration = $1 ORDER BY at");
        let rows = conn.ask(&sql, &[text(&migration)]).await?;
        rows.iter()
            .map(|row| {
                Ok(Acknowledgement { object: get(row, "object")?, at: get(row, "at")?, by: get(row, "by")? })
            })
            .collect()
    }

    pub(in crate::migrator) async fn acknowledge(
        &self,
        conn: &Conn,
        migration: &str,
        object: &str,
    ) -> Result<()> {
        let sql = self.sql(&format!(
            "INSERT INTO {{s}}.acknowledgements (migration, object, by) VALUES ($1, $2, {BY}) ON CONFLICT DO NOTHING"
        ));
        conn.write(&sql, &[text(&migration), text(&object)]).await?;
        Ok(())
    }

    /// Forgets both: what comes to refer to it once it has gone back is for a person to see again.
    pub(in crate::migrator) async fn forget_references(&self, conn: &Conn, migration: &str) -> Result<()> {
        for table in ["acknowledgements", "baselines"] {
            let sql = self.sql(&format!("DELETE FROM {{s}}.{table} WHERE migration = $1"));
            conn.ask(&sql, &[text(&migration)]).await?;
        }
        Ok(())
    }
}
