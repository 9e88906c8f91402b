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
    /// Whether the text was a type and nothing more.
    plain: bool,
}

fn type_key(text: &str) -> String {
    format!("type {text}")
}

/// Does that type exist, and what is its canonical name?
pub(crate) fn type_question(text: &str) -> Question {
    Question {
        key: type_key(text),
        statements: vec![format!("CREATE TEMP TABLE phasewise_trial (v {text})")],
        query: format!(
            "SELECT pg_catalog.jsonb_build_object('data_type', pg_catalog.format_type(a.atttypid, a.atttypmod), 'bare_type', pg_catalog.format_type(a.atttypid, -1), 'equality_is_sameness', {SAMENESS}, 'collatable', a.attcollation <> 0, 'plain', NOT a.attnotnull AND NOT a.atthasdef AND a.attcollation = y.typcollation AND a.attcompression = '' AND a.attstorage = y.typstorage AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_constraint c WHERE c.conrelid = a.attrelid) AND (SELECT pg_catalog.count(*) FROM pg_catalog.pg_attribute o WHERE o.attrelid = a.attrelid AND o.attnum > 0) = 1) FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type y ON y.oid = a.atttypid WHERE a.attrelid = '{COPY}'::regclass AND a.attname = 'v'"
        ),
    }
}

/// Whether equality is sameness, over `pg_attribute AS a` and `pg_type AS y`.
pub(crate) const SAMENESS: &str = "(y.typtype = 'e' OR a.atttypid = ANY ('{bool,int2,int4,int8,oid,uuid,date,time,timestamp,timestamptz,bytea,text,varchar,name,\"char\"}'::regtype[])) AND (a.attcollation = 0 OR EXISTS (SELECT 1 FROM pg_catalog.pg_collation l WHERE l.oid = a.attcollation AND l.collisdeterministic))";

/// The answer to [`type_question`].
pub(crate) fn type_answer(cx: &Context<'_>, text: &str) -> Result<TypeAnswer> {
    let answer: TypeAnswer = read(cx, &type_key(text))?;
    if !answer.plain {
        return Err(Error::new(
            Kind::Definition,
            format!(
                "migration {}: \"{text}\" is more than a type: write the type alone, as \"{}\", and the rest, such as a collation or a default, as options of the change where it has them, else by RunSql afterwards (in place of serial, an integer type with a default or an identity)",
                cx.migration, answer.data_type
            ),
        ));
    }
    Ok(answer)
}

/// What the server says of an expression.
#[derive(Debug, Deserialize)]
pub(crate) struct ExprAnswer {
    /// It calls a volatile function.
    pub(crate) volatile: bool,
    /// It calls nothing but immutable built-in functions and names none but built-in types, so that no setting can
    /// change what it means.
    pub(crate) settled: bool,
    /// It contains a subquery.
    pub(crate) subquery: bool,
    /// It is null where every column is, and where only the converted one is, as far as that could be tried.
    pub(crate) null_on_null: bool,
}

fn expr_key(table: &str, expr: &Expr, column: &str) -> String {
    format!("expression {} for column {} of {table}", expr.as_str(), quote(column))
}

/// Does `expr` compile over the columns of `table` (SQL), and can its value be assigned to `column`?
/// `extra` is a column that does not exist yet, with its type as SQL; it is left out where it exists. `converted` is the
/// column that must make the value null when it is null itself, whatever the others hold.
pub(crate) fn expr_question(
    table: &str,
    expr: &Expr,
    column: &str,
    extra: Option<(&str, &str)>,
    converted: Option<&str>,
) -> Question {
    let mut statements = vec![copy_of(table, "INCLUDING GENERATED")];
    if let Some((name, data_type)) = extra {
        statements.push(format!("ALTER TABLE {COPY} DROP COLUMN IF EXISTS {}", quote(name)));
        statements.push(format!("ALTER TABLE {COPY} ADD COLUMN {} {data_type}", quote(name)));
    }
    let value = expr.over("t");
    statements.push(format!("EXPLAIN UPDATE {COPY} AS t SET {} = {value}", quote(column)));
    statements.push(format!("CREATE TEMP VIEW phasewise_trial_view AS SELECT {value} AS v FROM {COPY} AS t"));
    let mut null_alone = "true".to_owned();
    if let Some(converted) = converted {
        // Where there is no such value, or the expression takes none of them, nothing is known.
        let body = format!(
            "BEGIN INSERT INTO pg_temp.phasewise_trial_null SELECT {value} IS NULL FROM (SELECT (pg_catalog.jsonb_populate_record(NULL::{COPY}, (SELECT pg_catalog.jsonb_object_agg(a.attname, {SOME_VALUE}) FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type y ON y.oid = a.atttypid WHERE a.attrelid = '{COPY}'::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> {}))).*) AS t; EXCEPTION WHEN OTHERS THEN NULL; END",
            literal(converted)
        );
        statements.push("CREATE TEMP TABLE phasewise_trial_null (is_null boolean)".to_owned());
        statements.push(format!("DO {}", literal(&body)));
        null_alone = "COALESCE((SELECT is_null FROM pg_temp.phasewise_trial_null), true)".to_owned();
    }
    Question {
        key: expr_key(table, expr, column),
        statements,
        query: format!(
            "WITH tree AS (SELECT r.ev_action::text AS text FROM pg_catalog.pg_rewrite r WHERE r.ev_class = 'pg_temp.phasewise_trial_view'::regclass), \
             calls AS (SELECT DISTINCT m[1]::oid AS f FROM tree, pg_catalog.regexp_matches(tree.text, ':(?:funcid|opfuncid|hashfuncid) (\\d+)', 'g') m), \
             types AS (SELECT DISTINCT m[1]::oid AS y FROM tree, pg_catalog.regexp_matches(tree.text, ':(?:resulttype|consttype|funcresulttype|array_typeid|element_typeid) (\\d+)', 'g') m), \
             null_row AS (SELECT (NULL::{COPY}).*) \
             SELECT pg_catalog.jsonb_build_object(\
             'volatile', EXISTS (SELECT 1 FROM calls JOIN pg_catalog.pg_proc p ON p.oid = calls.f WHERE p.provolatile = 'v'), \
             'settled', NOT EXISTS (SELECT 1 FROM calls JOIN pg_catalog.pg_proc p ON p.oid = calls.f WHERE p.provolatile <> 'i' OR p.pronamespace <> 'pg_catalog'::regnamespace) AND NOT EXISTS (SELECT 1 FROM types JOIN pg_catalog.pg_type y ON y.oid = types.y WHERE y.typnamespace <> 'pg_catalog'::regnamespace) AND NOT EXISTS (SELECT 1 FROM tree WHERE tree.text ~ 'SQLVALUEFUNCTION') AND (NOT EXISTS (SELECT 1 FROM tree WHERE tree.text ~ 'COERCEVIAIO') OR NOT EXISTS (SELECT 1 FROM tree, pg_catalog.regexp_matches(tree.text, ':\\w*type(?:id)? ([1-9]\\d*)', 'g') m WHERE m[1]::oid::regtype::text <> ALL ({WRITTEN_ALIKE}))), \
             'subquery', EXISTS (SELECT 1 FROM tree WHERE tree.text ~ '(SUBLINK|SUBPLAN)'), \
             'null_on_null', (SELECT {value} IS NULL FROM null_row AS t) AND {null_alone})"
        ),
    }
}

/// Types that are written and read as text in one way only, whatever the settings.
const WRITTEN_ALIKE: &str = "ARRAY['boolean', 'smallint', 'integer', 'bigint', 'numeric', 'text', 'character varying', 'character', 'uuid']";

/// A value of the type `y` of the column `a`, as JSON; null where none is known.
const SOME_VALUE: &str = "CASE WHEN y.oid = 'uuid'::regtype THEN pg_catalog.to_jsonb('00000000-0000-0000-0000-000000000001'::text) WHEN y.oid IN ('json'::regtype, 'jsonb'::regtype) THEN '{}' WHEN y.typtype = 'e' THEN (SELECT pg_catalog.to_jsonb(e.enumlabel::text) FROM pg_catalog.pg_enum e WHERE e.enumtypid = y.oid ORDER BY e.enumsortorder LIMIT 1) ELSE CASE y.typcategory WHEN 'N' THEN '1' WHEN 'S' THEN '\"1\"' WHEN 'B' THEN 'true' WHEN 'D' THEN '\"2000-01-01 00:00\"' WHEN 'T' THEN '\"1 day\"' WHEN 'A' THEN '[]' END::jsonb END";

/// The answer to [`expr_question`].
pub(crate) fn expr_answer(cx: &Context<'_>, table: &str, expr: &Expr, column: &str) -> Result<ExprAnswer> {
    read(cx, &expr_key(table, expr, column))
}

/// What adding a column would do.
#[derive(Debug, Deserialize)]
pub(crate) struct AddedAnswer {
    /// It would rewrite the table.
    pub(crate) rewrites: bool,
    /// It would do so without its default, too: by its type alone.
    pub(crate) rewrites_bare: bool,
    /// Its default, as `pg_get_expr` writes it.
    pub(crate) default: Option<String>,
    /// Its default is null. Not told of a volatile one: that is not tried, since it may draw from a sequence.
    pub(crate) default_is_null: bool,
}

fn added_key(table: &str, column: &str, data_type: &str, default: Option<&str>) -> String {
    let default = default.map(|default| format!(" default {default}")).unwrap_or_default();
    format!("column {} {data_type}{default} added to {table}", quote(column))
}

/// Would adding the column rewrite `table` (SQL)? `data_type` is SQL, with a collation where there is one. An empty
/// copy tells: Postgres decides by the definition, not by the rows. With `later`, the default is set afterwards.
pub(crate) fn added_question(
    table: &str,
    column: &str,
    data_type: &str,
    default: Option<&str>,
    later: bool,
) -> Question {
    let quoted = quote(column);
    let node = format!("pg_catalog.pg_relation_filenode('{COPY}'::regclass)");
    let mut statements = vec![
        copy_of(table, ""),
        format!("ALTER TABLE {COPY} DROP COLUMN IF EXISTS {quoted}"),
        format!("CREATE TEMP TABLE phasewise_trial_node AS SELECT {node} AS node, false AS bare"),
        format!("ALTER TABLE {COPY} ADD COLUMN {quoted} {data_type}"),
        format!("UPDATE pg_temp.phasewise_trial_node SET bare = node <> {node}, node = {node}"),
    ];
    match default {
        None => {}
        Some(default) if later => {
            statements.push(format!("ALTER TABLE {COPY} ALTER COLUMN {quoted} SET DEFAULT ({default})"));
        }
        Some(default) => {
            statements.push(format!("ALTER TABLE {COPY} DROP COLUMN {quoted}"));
            statements
                .push(format!("ALTER TABLE {COPY} ADD COLUMN {quoted} {data_type} DEFAULT ({default})"));
        }
    }
    let is_null = match default {
        None => "true".to_owned(),
        Some(default) => format!(
            "CASE WHEN EXISTS (SELECT 1 FROM def, pg_catalog.regexp_matches(def.adbin::text, ':(?:funcid|opfuncid) ([0-9]+)', 'g') m JOIN pg_catalog.pg_proc p ON p.oid = m[1]::oid WHERE p.provolatile = 'v') THEN false ELSE ({default}) IS NULL END"
        ),
    };
    Question {
        key: added_key(table, column, data_type, default),
        statements,
        query: format!(
            "WITH def AS (SELECT d.adbin, d.adrelid FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE a.attrelid = '{COPY}'::regclass AND a.attname = {}) \
             SELECT pg_catalog.jsonb_build_object('rewrites', n.bare OR n.node <> {node}, 'rewrites_bare', n.bare, 'default', (SELECT pg_catalog.pg_get_expr(def.adbin, def.adrelid) FROM def), 'default_is_null', {is_null}) FROM pg_temp.phasewise_trial_node n",
            literal(column)
        ),
    }
}

/// The answer to [`added_question`].
pub(crate) fn added_answer(
    cx: &Context<'_>,
    table: &str,
    column: &str,
    data_type: &str,
    default: Option<&str>,
) -> Result<AddedAnswer> {
    read(cx, &added_key(table, column, data_type, default))
}

/// A CHECK as Postgres writes it.
#[derive(Debug, Deserialize)]
pub(crate) struct CheckAnswer {
    /// `pg_get_constraintdef`.
    pub(crate) definition: String,
}

fn check_key(table: &str, expr: &Expr) -> String {
    format!("check {} of {table}", expr.as_str())
}

/// Does the CHECK compile, and how does Postgres write it? `extra` is a column that may not exist yet, with its
/// type as SQL.
pub(crate) fn check_question(table: &str, expr: &Expr, extra: (&str, &str)) -> Question {
    let (name, data_type) = extra;
    Question {
        key: check_key(table, expr),
        statements: vec![
            copy_of(table, "INCLUDING GENERATED"),
            format!("ALTER TABLE {COPY} DROP COLUMN IF EXISTS {}", quote(name)),
            format!("ALTER TABLE {COPY} ADD COLUMN {} {data_type}", quote(name)),
            format!("ALTER TABLE {COPY} ADD CONSTRAINT phasewise_trial_check CHECK {}", expr.render(quote)),
        ],
        query: format!(
            "SELECT pg_catalog.jsonb_build_object('definition', pg_catalog.pg_get_constraintdef(c.oid)) FROM pg_catalog.pg_constraint c WHERE c.conrelid = '{COPY}'::regclass AND c.conname = 'phasewise_trial_check'"
        ),
    }
}

/// The answer to [`check_question`].
pub(crate) fn check_answer(cx: &Context<'_>, table: &str, expr: &Expr) -> Result<CheckAnswer> {
    read(cx, &check_key(table, expr))
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
