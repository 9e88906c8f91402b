//! Extended statistics.

use super::probe;
use crate::catalog::{Statistics, Table};
use crate::ident::{literal, quote};
use crate::step::{LockMode, Step};

/// Creates a statistics object in the table's schema. `middle` is what stands between its name and `FROM`; `columns`
/// are all that it reads.
pub(crate) fn create(table: &Table, name: &str, middle: &str, columns: &[String]) -> Step {
    let full = format!("{}.{}", quote(&table.schema), quote(name));
    let sql = format!("CREATE STATISTICS {full} {middle} FROM {}", table.sql());
    Step::sql(format!("create statistics {}", quote(name)), sql)
        .locks(table.sql(), LockMode::ShareUpdateExclusive)
        .done_when(exists(table, name, columns))
}

/// Gives a statistics object (`name` is SQL) the target and the comment of `like`. No lock on the table.
pub(crate) fn labels(name: &str, like: &Statistics) -> Vec<Step> {
    let is = |condition: String| {
        format!(
            "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace WHERE pg_catalog.format('%I.%I', n.nspname, s.stxname) = {} AND {condition})",
            literal(name)
        )
    };
    let target = like.target.map(|target| {
        Step::sql(
            format!("statistics {name}: target {target}"),
            format!("ALTER STATISTICS {name} SET STATISTICS {target}"),
        )
        .done_when(is(format!("s.stxstattarget = {target}")))
    });
    let comment = like.comment.as_ref().map(|comment| {
        Step::sql(
            format!("comment on statistics {name}"),
            format!("COMMENT ON STATISTICS {name} IS {}", literal(comment)),
        )
        .done_when(is(format!(
            "pg_catalog.obj_description(s.oid, 'pg_statistic_ext') = {}",
            literal(comment)
        )))
    });
    target.into_iter().chain(comment).collect()
}

/// Drops it, and no other one of that name.
pub(crate) fn drop(table: &Table, name: &str, columns: &[String]) -> Step {
    let sql = format!("DROP STATISTICS {}.{}", quote(&table.schema), quote(name));
    Step::sql(format!("drop statistics {}", quote(name)), sql)
        .locks(table.sql(), LockMode::ShareUpdateExclusive)
        .done_when(probe::not(&exists(table, name, columns)))
}

fn exists(table: &Table, name: &str, columns: &[String]) -> String {
    let mut sorted = columns.to_vec();
    sorted.sort();
    let names = sorted.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ");
    format!(
        "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace WHERE n.nspname = {} AND s.stxname = {} AND s.stxrelid = pg_catalog.to_regclass({}) AND ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = s.stxrelid AND a.attnum > 0 AND (a.attnum = ANY (s.stxkeys) OR EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_statistic_ext'::regclass AND d.objid = s.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum)) ORDER BY a.attname::text COLLATE \"C\") = ARRAY[{names}]::text[])",
        literal(&table.schema),
        literal(name),
        literal(&table.sql())
    )
}
