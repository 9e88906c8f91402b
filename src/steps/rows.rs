//! Looking for rows that must not be.

use super::on_all;
use crate::catalog::Table;
use crate::ident::{literal, quote};
use crate::step::{LockMode, Step};

/// How many rows are named.
const NAMED: usize = 10;

/// Fails with `message` and the keys of some rows, if there are any for which `condition` holds: SQL over the alias `t`
/// or over bare column names. Reads the table under a lock that blocks nobody.
pub(crate) fn none(summary: String, table: &Table, condition: &str, message: &str) -> Step {
    let key = match table.key() {
        None => "pg_catalog.format('%s %s', t.tableoid::pg_catalog.regclass, t.ctid)".to_owned(),
        Some(names) => {
            let formats: Vec<String> =
                names.iter().map(|name| format!("{} = %s", name.replace('%', "%%"))).collect();
            let values: Vec<String> = names.iter().map(|name| format!("t.{}", quote(name))).collect();
            format!("pg_catalog.format({}, {})", literal(&formats.join(", ")), values.join(", "))
        }
    };
    // A column may have the variable's name.
    let body = format!(
        "#variable_conflict use_column\nDECLARE phasewise_rows text; BEGIN SELECT pg_catalog.string_agg(b.k, '; ') INTO phasewise_rows FROM (SELECT {key} AS k FROM {} AS t WHERE {condition} LIMIT {NAMED}) AS b; IF phasewise_rows IS NOT NULL THEN RAISE EXCEPTION USING ERRCODE = 'check_violation', MESSAGE = {} || phasewise_rows; END IF; END",
        table.sql(),
        literal(&format!("{message}: "))
    );
    on_all(Step::long(summary, format!("DO {}", literal(&body))).scanning(), table, LockMode::AccessShare)
}
