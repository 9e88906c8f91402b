//! The relations that hold a table's rows, and how each of them is walked.

use tokio_postgres::types::Type;

use super::job::table_sql;
use crate::error::{Error, Kind, Result};
use crate::ident::quote;
use crate::migrator::connect::{Sql as _, get, text};
use crate::migrator::policy::Order;
use crate::migrator::session::Session;
use crate::step::Batches;

/// A relation that holds rows.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) oid: u32,
    pub(super) sql: String,
    pub(super) pages: i64,
    /// The file that it lies in, which VACUUM FULL and the like replace.
    pub(super) file: Option<u32>,
    pub(super) estimate: Option<i64>,
    /// Whether it is walked by its key.
    pub(super) by_key: bool,
}

/// A column of the key that rows are named by.
#[derive(Clone, Debug)]
pub(super) struct KeyColumn {
    pub(super) name: String,
    /// Its type as SQL.
    pub(super) data_type: String,
}

/// The relations that hold a table's rows, at one moment.
#[derive(Clone, Debug)]
pub(super) struct Leaves {
    pub(super) all: Vec<Leaf>,
    /// The oldest transaction that may have been open then, as SQL. A snapshot is taken before relations are measured:
    /// what is written to pages beyond their ends is newer.
    pub(super) xmin: String,
}

impl Leaves {
    /// Rows that were written since, as a predicate over `t`.
    pub(super) fn later(&self) -> String {
        format!("age(t.xmin) <= age('{}'::xid)", self.xmin)
    }

    /// The files that they lie in.
    pub(super) fn files(&self) -> Vec<Option<u32>> {
        self.all.iter().map(|leaf| leaf.file).collect()
    }
}

/// The relations that hold the rows of `batches`' table.
pub(super) async fn leaves(session: &Session, batches: &Batches, order: Order) -> Result<Leaves> {
    let rows = session
        .ask(
            "WITH RECURSIVE tree AS (
                SELECT c.oid, c.relkind FROM pg_catalog.pg_class c
                  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = $1 AND c.relname = $2
                UNION ALL
                SELECT c.oid, c.relkind FROM tree
                  JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid AND tree.relkind = 'p'
                  JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
             )
             SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS sql, c.relkind::text AS kind,
                    CASE WHEN c.relkind = 'r' THEN pg_catalog.pg_relation_size(c.oid)
                         / current_setting('block_size')::int8 ELSE 0 END AS pages,
                    pg_catalog.pg_relation_filenode(c.oid) AS file,
                    pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::xid::text AS xmin,
                    nullif(greatest(c.reltuples, -1), -1)::int8 AS estimate, m.amname IS NOT DISTINCT FROM 'heap' AS heap
               FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam
              ORDER BY c.oid",
            &[text(&batches.schema), text(&batches.table)],
        )
        .await?;
    if rows.is_empty() {
        return Err(Error::new(
            Kind::Missing,
            format!(
                "table {} does not exist any more: it was dropped or renamed since the step was planned; run again",
                table_sql(batches)
            ),
        ));
    }
    let xmin = rows.first().map_or(Ok(String::new()), |row| get(row, "xmin"))?;
    let mut all = Vec::new();
    for row in &rows {
        let (kind, sql): (String, String) = (get(row, "kind")?, get(row, "sql")?);
        match kind.as_str() {
            "p" => {}
            "r" => {
                let by_key = order == Order::Key || !get::<bool>(row, "heap")?;
                if by_key && batches.keys.is_empty() {
                    return Err(Error::new(
                        Kind::Unsupported,
                        format!(
                            "{sql} cannot be walked by its key, for it has none: give it a primary key or a unique index on NOT NULL columns, or, if it is a heap table, use Order::Physical"
                        ),
                    ));
                }
                all.push(Leaf {
                    oid: get(row, "oid")?,
                    sql,
                    // Gone between two looks.
                    pages: get::<Option<i64>>(row, "pages")?.unwrap_or(0),
                    file: get(row, "file")?,
                    estimate: get(row, "estimate")?,
                    by_key,
                });
            }
            _ => {
                return Err(Error::new(
                    Kind::Unsupported,
                    format!(
                        "{sql}, of table {}, is no ordinary table: its rows cannot be walked. Detach it, or fill it where it lives",
                        table_sql(batches)
                    ),
                ));
            }
        }
    }
    Ok(Leaves { all, xmin })
}

/// The types of the key's columns.
pub(super) async fn key_columns(session: &Session, batches: &Batches) -> Result<Vec<KeyColumn>> {
    let rows = session
        .ask(
            "WITH RECURSIVE base AS (
                SELECT y.oid AS domain, y.typbasetype AS oid FROM pg_catalog.pg_type y WHERE y.typtype = 'd'
                UNION ALL
                SELECT base.domain, y.typbasetype FROM base JOIN pg_catalog.pg_type y ON y.oid = base.oid WHERE y.typtype = 'd'
             )
             SELECT a.attname::text AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS data_type,
                    (SELECT bool_and(pg_catalog.pg_operator_is_visible(p.amopopr))
                       FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_am m ON m.oid = o.opcmethod AND m.amname = 'btree'
                       JOIN pg_catalog.pg_amop p ON p.amopfamily = o.opcfamily
                        AND p.amoplefttype = o.opcintype AND p.amoprighttype = o.opcintype
                      WHERE o.opcdefault AND (o.opcintype = a.atttypid OR o.opcintype IN (
                            SELECT base.oid FROM base WHERE base.domain = a.atttypid))) IS NOT FALSE AS comparable
               FROM unnest($2::text[]) WITH ORDINALITY AS k (name, nth)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = to_regclass($1) AND a.attname = k.name
              ORDER BY k.nth",
            &[text(&table_sql(batches)), (&batches.keys, Type::TEXT_ARRAY)],
        )
        .await?;
    let mut columns = Vec::new();
    for row in &rows {
        let column = KeyColumn { name: get(row, "name")?, data_type: get(row, "data_type")? };
        // Without its own operators in reach the values would be compared as those of another type.
        if !get::<bool>(row, "comparable")? {
            return Err(Error::new(
                Kind::Unsupported,
                format!(
                    "{} cannot be walked by its key: the operators of {}, the type of {}, are in a schema that the migrator does not look into. Use Order::Physical, or give it that schema with .schema(…)",
                    table_sql(batches),
                    column.data_type,
                    quote(&column.name)
                ),
            ));
        }
        columns.push(column);
    }
    Ok(columns)
}
