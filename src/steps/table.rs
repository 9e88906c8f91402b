//! Whole tables.

use super::probe;
use crate::ident::quote;
use crate::step::{LockMode, Step};

/// Renames a table within its schema. What hangs on it stays as it is, and its partitions are not locked. One of the two
/// names is ours, so that where it leads to tells whether it is done.
pub(crate) fn rename(schema: &str, from: &str, to: &str) -> Step {
    let place = |name: &str| format!("{}.{}", quote(schema), quote(name));
    let (old, new) = (place(from), place(to));
    Step::sql(
        format!("rename table {old} to {}", quote(to)),
        format!("ALTER TABLE {old} RENAME TO {}", quote(to)),
    )
    .locks(old.clone(), LockMode::AccessExclusive)
    .done_when(format!(
        "SELECT ({}) AND ({})",
        probe::relation(&new),
        probe::not(&probe::relation(&old))
    ))
}
