//! Questions that changes put to the server before they touch anything.

use serde::Deserialize;

use crate::catalog::Question;
use crate::error::{Error, Kind, Result};
use crate::expr::Expr;
use crate::ident::{literal, quote};
use crate::phase::Context;

/// The temporary copy of a table that trials work on.
pub(crate) const COPY: &str = "pg_temp.phasewise_trial";

/// Makes [`COPY`] from `table` (SQL): columns, and what else `including` says (`INCLUDING …`). It is empty, and
/// gone with the trial.
pub(crate) fn copy_of(table: &str, including: &str) -> String {
    format!("CREATE TEMP TABLE phasewise_trial (LIKE {table} {including})")
}

/// What a type is called, as `format_type` writes it.
#[derive(Debug, Deserialize)]
pub(crate) struct TypeAnswer {
    pub(crate) data_type: String,
    pub(crate) bare_type: String,
    pub(crate) equality_is_sameness: bool,
    pub(crate) collatable: bool,
}

fn type_key(text: &str) -> String {
    format!("type {text}")
}

/// Does that type exist, and what is its canonical name? `collation` is SQL.
pub(crate) fn type_question(text: &str) -> Question {
    Question {
        key: type_key(text),
        statements: vec![format!("CREATE TEMP TABLE phasewise_trial (v {text})")],
        query: format!(
            "SELECT pg_catalog.jsonb_build_object('data_type', pg_catalog.format_type(a.atttypid, a.atttypmod), 'bare_type', pg_catalog.format_type(a.atttypid, -1), 'equality_is_sameness', {SAMENESS}, 'collatable', a.attcollation <> 0) FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type y ON y.oid = a.atttypid WHERE a.attrelid = '{COPY}'::regclass AND a.attname = 'v'"
        ),
    }
}

/// Whether equality is sameness, over `pg_attribute AS a` and `pg_type AS y`.
pub(crate) const SAMENESS: &str = "(y.typtype = 'e' OR a.atttypid = ANY ('{bool,int2,int4,int8,oid,uuid,date,time,timestamp,timestamptz,bytea,text,varchar,name,\"char\"}'::regtype[])) AND (a.attcollation = 0 OR EXISTS (SELECT 1 FROM pg_catalog.pg_collation l WHERE l.oid = a.attcollation AND l.collisdeterministic))";

/// The answer to [`type_question`].
pub(crate) fn type_answer(cx: &Context<'_>, text: &str) -> Result<TypeAnswer> {
    read(cx, &type_key(text))
}

/// What the server says of an expression.
#[derive(Debug, Deserialize)]
pub(crate) struct ExprAnswer {
    /// It calls a volatile function.
    pub(crate) volatile: bool,
    /// It calls nothing but immutable built-in functions, so that no setting can change what it means.
    pub(crate) settled: bool,
    /// It contains a subquery.
    pub(crate) subquery: bool,
    /// It is null where every column is.
    pub(crate) null_on_null: bool,
}

fn expr_key(table: &str, expr: &Expr, column: &str) -> String {
    format!("expression {} for column {} of {table}", expr.as_str(), quote(column))
}

/// Does `expr` compile over the columns of `table` (SQL), and can its value be assigned to `column`?
/// `extra` is a column that does not exist yet, with its type as SQL; it is left out where it exists.
pub(crate) fn expr_question(table: &str, expr: &Expr, column: &str, extra: Option<(&str, &str)>) -> Question {
    let mut statements = vec![copy_of(table, "INCLUDING GENERATED")];
    if let Some((name, data_type)) = extra {
        statements.push(format!("ALTER TABLE {COPY} DROP COLUMN IF EXISTS {}", quote(name)));
        statements.push(format!("ALTER TABLE {COPY} ADD COLUMN {} {data_type}", quote(name)));
    }
    let value = expr.over("t");
    statements.push(format!("EXPLAIN UPDATE {COPY} AS t SET {} = {value}", quote(column)));
    statements.push(format!("CREATE TEMP VIEW phasewise_trial_view AS SELECT {value} AS v FROM {COPY} AS t"));
    Question {
        key: expr_key(table, expr, column),
        statements,
        query: format!(
            "WITH tree AS (SELECT r.ev_action::text AS text FROM pg_catalog.pg_rewrite r WHERE r.ev_class = 'pg_temp.phasewise_trial_view'::regclass), \
             calls AS (SELECT DISTINCT m[1]::oid AS f FROM tree, pg_catalog.regexp_matches(tree.text, ':(?:funcid|opfuncid|hashfuncid) (\\d+)', 'g') m), \
             null_row AS (SELECT (NULL::{COPY}).*) \
             SELECT pg_catalog.jsonb_build_object(\
             'volatile', EXISTS (SELECT 1 FROM calls JOIN pg_catalog.pg_proc p ON p.oid = calls.f WHERE p.provolatile = 'v'), \
             'settled', NOT EXISTS (SELECT 1 FROM calls JOIN pg_catalog.pg_proc p ON p.oid = calls.f WHERE p.provolatile <> 'i' OR p.pronamespace <> 'pg_catalog'::regnamespace) AND NOT EXISTS (SELECT 1 FROM tree WHERE tree.text ~ '(COERCEVIAIO|SQLVALUEFUNCTION)'), \
             'subquery', EXISTS (SELECT 1 FROM tree WHERE tree.text ~ '(SUBLINK|SUBPLAN)'), \
             'null_on_null', (SELECT {value} IS NULL FROM null_row AS t))"
        ),
    }
}

/// The answer to [`expr_question`].
pub(crate) fn expr_answer(cx: &Context<'_>, table: &str, expr: &Expr, column: &str) -> Result<ExprAnswer> {
    read(cx, &expr_key(table, expr, column))
}

/// Reads an answer's JSON.
pub(crate) fn read<T: for<'de> Deserialize<'de>>(cx: &Context<'_>, key: &str) -> Result<T> {
    let value = cx.answer(key)?;
    T::deserialize(value).map_err(|error| {
        Error::new(
            Kind::Database,
            format!("migration {}: {key}: the server's answer has another form than expected ({error}): please report this, with the server's version", cx.migration),
        )
    })
}

/// The array `ARRAY['a', 'b']::text[]`.
pub(crate) fn text_array<S: AsRef<str>>(items: &[S]) -> String {
    format!(
        "ARRAY[{}]::pg_catalog.text[]",
        items.iter().map(|item| literal(item.as_ref())).collect::<Vec<_>>().join(", ")
    )
}
