//! The archives, as what was saved says. That is their only list: an archive is saved before it is made, and what is
//! saved goes in the transaction that ends a rollback.

use chrono::{DateTime, Utc};

use super::Ledger;
use crate::error::Result;
use crate::ident::quote;
use crate::migrator::connect::{Conn, Sql as _, get, text};
use crate::steps::archive;

/// An archive that is there.
#[derive(Clone, Debug)]
pub(in crate::migrator) struct Kept {
    pub(in crate::migrator) migration: String,
    pub(in crate::migrator) phase: String,
    /// As SQL.
    pub(in crate::migrator) relation: String,
    /// The table that was dropped, or that the column was dropped from, as SQL.
    pub(in crate::migrator) table: String,
    pub(in crate::migrator) column: Option<String>,
    /// A sequence that was set aside with the column, as SQL.
    pub(in crate::migrator) sequence: Option<String>,
    /// Since when the drop is done; `None` while it is under way, either way.
    pub(in crate::migrator) since: Option<DateTime<Utc>>,
    pub(in crate::migrator) bytes: i64,
    pub(in crate::migrator) rows: Option<f64>,
    /// When this was read, by the database's clock.
    pub(in crate::migrator) now: DateTime<Utc>,
}

impl Ledger {
    /// The archives that are there, oldest first.
    pub(in crate::migrator) async fn archives(&self, conn: &Conn) -> Result<Vec<Kept>> {
        let sql = self.sql(
            "SELECT s.migration, s.phase, s.value ->> 'relation' AS relation, s.value ->> 'schema' AS schema,
                    s.value ->> 'table' AS table, coalesce(nullif(s.value ->> 'called', ''), s.value ->> 'column') AS column, s.value ->> 'sequence' AS sequence,
                    CASE WHEN m.moving IS NULL THEN (
                        SELECT max(h.at) FROM {s}.history h
                         WHERE h.migration = s.migration AND h.phase = s.phase AND h.direction = 'forward' AND h.at >= s.at
                    ) END AS since,
                    size.bytes, size.rows, clock_timestamp() AS now
               FROM {s}.saved s
               JOIN {s}.migrations m ON m.name = s.migration
               JOIN (pg_catalog.pg_class there JOIN pg_catalog.pg_namespace n ON n.oid = there.relnamespace)
                 ON '\"' || replace(n.nspname, '\"', '\"\"') || '\".\"' || replace(there.relname, '\"', '\"\"') || '\"' = s.value ->> 'relation'
               CROSS JOIN LATERAL (
                    WITH RECURSIVE below (oid) AS (
                        SELECT there.oid
                        UNION ALL
                        SELECT h.inhrelid FROM below JOIN pg_catalog.pg_inherits h ON h.inhparent = below.oid)
                    SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::int8 AS bytes,
                           (sum(c.reltuples) FILTER (WHERE c.relkind <> 'p' AND c.reltuples >= 0))::float8 AS rows
                      FROM below JOIN pg_catalog.pg_class c ON c.oid = below.oid) AS size
              WHERE s.key = $1
              ORDER BY s.at, s.migration",
        );
        let rows = conn.ask(&sql, &[text(&archive::KEY)]).await?;
        rows.iter()
            .map(|row| {
                let (schema, table): (String, String) = (get(row, "schema")?, get(row, "table")?);
                Ok(Kept {
                    migration: get(row, "migration")?,
                    phase: get(row, "phase")?,
                    relation: get(row, "relation")?,
                    table: format!("{}.{}", quote(&schema), quote(&table)),
                    column: get(row, "column")?,
                    sequence: get(row, "sequence")?,
                    since: get(row, "since")?,
                    bytes: get(row, "bytes")?,
                    rows: get(row, "rows")?,
                    now: get(row, "now")?,
                })
            })
            .collect()
    }

    /// What notes that an archive was purged: a statement of the transaction that drops it.
    pub(in crate::migrator) fn purged(&self, kept: &Kept) -> String {
        use crate::ident::literal;
        self.sql(&format!(
            "INSERT INTO {{s}}.saved (migration, key, phase, value) VALUES ({}, {}, {}, pg_catalog.to_jsonb(pg_catalog.clock_timestamp())) ON CONFLICT DO NOTHING",
            literal(&kept.migration),
            literal(archive::PURGED),
            literal(&kept.phase)
        ))
    }
}
