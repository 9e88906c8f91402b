//! Columns whose type is a domain that has a say of its own.

use serde::Deserialize;

use crate::catalog::{Question, Table};
use crate::error::{Error, Kind, Result};
use crate::ident::{literal, quote};
use crate::phase::Context;
use crate::steps::trial;

/// What the domain says, if the type is one.
#[derive(Debug, Deserialize)]
struct Answer {
    domain: String,
    /// The type below all domains.
    base: String,
    not_null: bool,
    checks: bool,
    default: bool,
}

fn key(table: &Table, column: &str) -> String {
    format!("the domain of column {} of {}", quote(column), table.sql())
}

/// Is its type a domain, and what does that say?
pub(super) fn question(table: &Table, column: &str) -> Question {
    Question {
        key: key(table, column),
        statements: Vec::new(),
        query: format!(
            "WITH RECURSIVE kind AS (\
             SELECT 0 AS depth, y.*, a.atttypmod AS typmod FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type y ON y.oid = a.atttypid WHERE a.attrelid = pg_catalog.to_regclass({}) AND a.attname = {} AND NOT a.attisdropped \
             UNION ALL SELECT k.depth + 1, y.*, k.typtypmod FROM kind k JOIN pg_catalog.pg_type y ON y.oid = k.typbasetype WHERE k.typtype = 'd') \
             SELECT pg_catalog.jsonb_build_object(\
             'domain', (SELECT pg_catalog.format_type(k.oid, NULL) FROM kind k WHERE k.depth = 0), \
             'base', (SELECT pg_catalog.format_type(k.oid, k.typmod) FROM kind k WHERE k.typtype <> 'd'), \
             'not_null', EXISTS (SELECT 1 FROM kind k WHERE k.typnotnull), \
             'checks', EXISTS (SELECT 1 FROM kind k JOIN pg_catalog.pg_constraint c ON c.contypid = k.oid WHERE c.contype = 'c'), \
             'default', EXISTS (SELECT 1 FROM kind k WHERE k.typtype = 'd' AND k.typdefault IS NOT NULL))",
            literal(&table.sql()),
            literal(column)
        ),
    }
}

/// Refuses a domain that would refuse rows written without the column, or a rollback that adds it again: an `ADD COLUMN`
/// checks every row against it, and gives every row its default.
pub(super) fn refuse(cx: &Context<'_>, table: &Table, column: &str) -> Result<()> {
    let Answer { domain, base, not_null, checks, default } = trial::read(cx, &key(table, column))?;
    let why = if not_null {
        "is NOT NULL, so that no row could be written without the column, and a rollback could not add it again"
    } else if checks {
        "has a CHECK, so that a rollback would rewrite the whole table when it adds the column again"
    } else if default {
        "has a default, which a rollback would give to every row when it adds the column again (give it to the column itself, where rows still need it)"
    } else {
        return Ok(());
    };
    Err(Error::new(
        Kind::Unsupported,
        format!(
            "column {} of table {} cannot be dropped: its type, the domain {domain}, {why}; make it {base} first (ALTER COLUMN … TYPE {base}, by RunSql: a change of the catalog alone, once no CHECK and no expression or partial index uses the column)",
            quote(column),
            table.sql()
        ),
    ))
}
