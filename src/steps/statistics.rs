//! Extended statistics.

use super::probe;
use crate::catalog::Table;
use crate::ident::{literal, quote};
use crate::step::{LockMode, Step};

/// Creates a statistics object in the table's schema. `middle` is what stands between its name and `FROM`.
pub(crate) fn create(table: &Table, name: &str, middle: &str) -> Step {
    let full = format!("{}.{}", quote(&table.schema), quote(name));
    let sql = format!("CREATE STATISTICS {full} {middle} FROM {}", table.sql());
    Step::sql(format!("create statistics {}", quote(name)), sql)
        .locks(table.sql(), LockMode::ShareUpdateExclusive)
        .done_when(exists(table, name))
}

/// Drops it.
pub(crate) fn drop(table: &Table, name: &str) -> Step {
    let sql = format!("DROP STATISTICS {}.{}", quote(&table.schema), quote(name));
    Step::sql(format!("drop statistics {}", quote(name)), sql)
        .locks(table.sql(), LockMode::ShareUpdateExclusive)
        .done_when(probe::not(&exists(table, name)))
}

fn exists(table: &Table, name: &str) -> String {
    format!(
        "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace WHERE n.nspname = {} AND s.stxname = {} AND s.stxrelid = pg_catalog.to_regclass({}))",
        literal(&table.schema),
        literal(name),
        literal(&table.sql())
    )
}
