//! Queries that tell whether a statement's effect is there. They compare definitions, never names alone.

use crate::catalog::ALIKE;
use crate::ident::literal;

/// Whether `table` (SQL) has the column, and `condition` over `pg_attribute AS a` holds for it.
pub(crate) fn column(table: &str, column: &str, condition: &str) -> String {
    format!(
        "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_attribute a WHERE a.attrelid = pg_catalog.to_regclass({}) AND a.attname = {} AND NOT a.attisdropped AND ({condition}))",
        literal(table),
        literal(column)
    )
}

/// Whether `table` has no such column.
pub(crate) fn no_column(table: &str, name: &str) -> String {
    not(&column(table, name, "true"))
}

/// Whether `table` has the constraint, and `condition` over `pg_constraint AS c` holds for it.
pub(crate) fn constraint(table: &str, name: &str, condition: &str) -> String {
    format!(
        "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_constraint c WHERE c.conrelid = pg_catalog.to_regclass({}) AND c.conname = {} AND ({condition}))",
        literal(table),
        literal(name)
    )
}

/// Whether the column's default is `expression` (as `pg_get_expr` writes it), or there is none.
pub(crate) fn default(table: &str, name: &str, expression: Option<&str>) -> String {
    let found = "SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum";
    match expression {
        Some(expression) => column(table, name, &format!("({found}) = {}", literal(expression))),
        None => column(table, name, &format!("({found}) IS NULL")),
    }
}

/// Whether relation `name` (SQL, qualified) exists.
pub(crate) fn relation(name: &str) -> String {
    format!("SELECT pg_catalog.to_regclass({}) IS NOT NULL", literal(name))
}

/// The opposite of a probe.
pub(crate) fn not(query: &str) -> String {
    format!("SELECT NOT ({query})")
}

/// Both.
pub(crate) fn either(a: &str, b: &str) -> String {
    format!("SELECT ({a}) OR ({b})")
}

/// Whether a definition (an SQL expression) is this one, however Postgres writes it: see [`alike`](crate::catalog::alike).
pub(crate) fn alike(found: &str, wanted: &str) -> String {
    let bare = |sql: &str| format!("pg_catalog.regexp_replace({sql}, {}, '', 'g')", literal(ALIKE));
    format!("{} = {}", bare(found), bare(&literal(wanted)))
}
