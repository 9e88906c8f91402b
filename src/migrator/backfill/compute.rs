//! Values that Rust computes from rows, for what SQL cannot do.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use tokio_postgres::Row;
use tokio_postgres::types::{Kind as TypeKind, ToSql, Type};

use crate::error::{Error, Kind, Result};
use crate::ident::quote;
use crate::migrator::connect::{Sql as _, get, text};
use crate::migrator::ledger::At;
use crate::migrator::session::Session;
use crate::step::Batches;

/// Values of one batch, by the place of their rows: those that there are, and why others are not.
pub(in crate::migrator) struct Computed {
    /// The rows that have a value.
    pub(super) rows: Vec<usize>,
    /// Their values, as a `Vec<T>`.
    pub(super) values: Box<dyn ToSql + Send + Sync>,
    /// The rows whose values could not be computed, and why.
    pub(super) failed: Vec<(usize, String)>,
}

type Computing<'a> = Pin<Box<dyn Future<Output = Computed> + Send + 'a>>;

/// A function from a row to a value, whatever its types.
pub(in crate::migrator) trait Compute: Send + Sync {
    fn accepts(&self, array: &Type) -> bool;
    /// Gives up after more than `most` failures.
    fn compute(&self, rows: Vec<Row>, most: usize) -> Computing<'_>;
}

/// As many values of a batch are computed at once.
const AT_ONCE: usize = 16;

struct Function<F, T>(F, std::marker::PhantomData<fn() -> T>);

impl<F, Fut, T, E> Compute for Function<F, T>
where
    F: Fn(Row) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Option<T>, E>> + Send,
    T: ToSql + Send + Sync + 'static,
    E: fmt::Display + Send,
{
    fn accepts(&self, array: &Type) -> bool {
        <Vec<T> as ToSql>::accepts(array)
    }

    fn compute(&self, rows: Vec<Row>, most: usize) -> Computing<'_> {
        Box::pin(async move {
            let mut computed = stream::iter(rows.into_iter().map(&self.0)).buffered(AT_ONCE).enumerate();
            let (mut places, mut values, mut failed) = (Vec::new(), Vec::new(), Vec::new());
            while let Some((place, value)) = computed.next().await {
                match value {
                    Ok(Some(value)) => {
                        places.push(place);
                        values.push(value);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        failed.push((place, error.to_string()));
                        if failed.len() > most {
                            break;
                        }
                    }
                }
            }
            Computed { rows: places, values: Box::new(values), failed }
        })
    }
}

pub(in crate::migrator) fn function<F, Fut, T, E>(function: F) -> Arc<dyn Compute>
where
    F: Fn(Row) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<T>, E>> + Send + 'static,
    T: ToSql + Send + Sync + 'static,
    E: fmt::Display + Send + 'static,
{
    Arc::new(Function(function, std::marker::PhantomData))
}

/// A column that Rust fills.
pub(super) struct Filling {
    pub(super) function: Arc<dyn Compute>,
    pub(super) column: String,
    /// An array of the column's type, or of the type below its domain.
    pub(super) array: Type,
    inputs: Vec<String>,
}

impl Filling {
    /// Makes sure that the function's values fit the column.
    pub(super) async fn new(
        session: &Session,
        at: At<'_>,
        batches: &Batches,
        (column, inputs): (&str, &[String]),
        function: Option<&Arc<dyn Compute>>,
    ) -> Result<Self> {
        let function = function.ok_or_else(|| unregistered(at.migration, column))?;
        let table = super::job::table_sql(batches);
        let rows = session
            .ask(
                "WITH RECURSIVE base AS (
                    SELECT a.atttypid AS oid FROM pg_catalog.pg_attribute a
                     WHERE a.attrelid = to_regclass($1) AND a.attname = $2 AND NOT a.attisdropped
                    UNION ALL
                    SELECT y.typbasetype FROM base JOIN pg_catalog.pg_type y ON y.oid = base.oid WHERE y.typtype = 'd'
                 )
                 SELECT y.oid, y.typname::text AS name, n.nspname::text AS schema, y.typarray AS array,
                        (SELECT array_agg(e.enumlabel::text ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e
                          WHERE e.enumtypid = y.oid) AS labels
                   FROM base JOIN pg_catalog.pg_type y ON y.oid = base.oid AND y.typtype <> 'd'
                   JOIN pg_catalog.pg_namespace n ON n.oid = y.typnamespace",
                &[text(&table), text(&column)],
            )
            .await?;
        let row = rows.first().ok_or_else(|| {
            Error::new(
                Kind::Missing,
                format!("column {} of table {table} does not exist any more: run again", quote(column)),
            )
        })?;
        let (name, schema): (String, String) = (get(row, "name")?, get(row, "schema")?);
        let kind = get::<Option<Vec<String>>>(row, "labels")?.map_or(TypeKind::Simple, TypeKind::Enum);
        let element = Type::from_oid(get(row, "oid")?).map_or_else(
            || Ok(Type::new(name.clone(), get(row, "oid")?, kind, schema.clone())),
            Ok::<_, Error>,
        )?;
        let array = Type::new(format!("_{name}"), get(row, "array")?, TypeKind::Array(element), schema);
        if !function.accepts(&array) {
            return Err(Error::new(
                Kind::Definition,
                format!(
                    "migration {}: the function given to .compute(…) returns values that Postgres does not take for type {name} of column {}: let it return a Rust type that stands for it",
                    at.migration,
                    quote(column)
                ),
            ));
        }
        Ok(Self { function: Arc::clone(function), column: column.to_owned(), array, inputs: inputs.to_vec() })
    }

    /// The rows of a range that need a value: the function's inputs by name, then what the row is found by again.
    pub(super) fn query(&self, relation: &str, predicate: &str, batches: &Batches) -> String {
        let inputs: String = self.inputs.iter().map(|name| format!("t.{}, ", quote(name))).collect();
        let (key, row) = super::job::names(&batches.keys);
        format!(
            "SELECT {inputs}t.ctid::text AS {TUPLE}, t.xmin::text AS {WRITER}, {key} AS {KEY}, {row} AS {ROW}
               FROM ONLY {relation} AS t WHERE {predicate} AND ({})",
            batches.condition
        )
    }

    /// Writes values to the rows that have not changed since they were read. `$1`: tuples, `$2`: their writers,
    /// `$3`: values.
    pub(super) fn update(&self, relation: &str, batches: &Batches, skipping: bool) -> String {
        let locked = if skipping {
            format!(
                "WITH free AS MATERIALIZED (SELECT t.ctid AS tuple FROM ONLY {relation} AS t WHERE t.ctid = ANY ($1::text[]::tid[]) FOR NO KEY UPDATE SKIP LOCKED) "
            )
        } else {
            String::new()
        };
        let free = if skipping { " AND t.ctid IN (SELECT tuple FROM free)" } else { "" };
        format!(
            "{locked}UPDATE ONLY {relation} AS t SET {} = v.value FROM unnest($1, $2, $3) AS v (tuple, writer, value)
             WHERE t.ctid = v.tuple::tid AND t.xmin::text = v.writer AND ({}){free} RETURNING v.tuple AS tuple",
            quote(&self.column),
            batches.condition
        )
    }
}

const TUPLE: &str = "\"phasewise tuple\"";
const WRITER: &str = "\"phasewise writer\"";
const KEY: &str = "\"phasewise key\"";
const ROW: &str = "\"phasewise row\"";

/// What a row is found by again.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) tuple: String,
    pub(super) writer: String,
    pub(super) key: String,
    pub(super) row: Option<String>,
}

impl Found {
    pub(super) fn of(row: &Row) -> Result<Self> {
        let name = |quoted: &'static str| quoted.trim_matches('"');
        Ok(Self {
            tuple: get(row, name(TUPLE))?,
            writer: get(row, name(WRITER))?,
            key: get(row, name(KEY))?,
            row: get(row, name(ROW))?,
        })
    }
}

/// A migration whose values Rust computes, and nobody said how.
pub(in crate::migrator) fn unregistered(migration: &str, column: &str) -> Error {
    Error::new(
        Kind::Definition,
        format!(
            "migration {migration} fills column {} from Rust, and this migrator has no function for it: add .compute(\"{migration}\", …) to it",
            quote(column)
        ),
    )
}
