//! The statements, one file per kind of object: each gives steps with their locks and probes.

pub(crate) mod archive;
pub(crate) mod column;
pub(crate) mod constraint;
pub(crate) mod index;
pub(crate) mod parked;
pub(crate) mod portrait;
pub(crate) mod probe;
pub(crate) mod rows;
pub(crate) mod sequence;
pub(crate) mod statistics;
pub(crate) mod sync;
pub(crate) mod table;
pub(crate) mod trial;

use crate::catalog::Table;
use crate::error::{Error, Kind, Result};
use crate::ident::quote;
use crate::step::{LockMode, Step};

/// Declares `mode` on a table and on all its partitions, as statements that recurse take it.
pub(crate) fn on_all(step: Step, table: &Table, mode: LockMode) -> Step {
    table.partitions.iter().fold(step.locks(table.sql(), mode), |step, leaf| {
        step.locks(format!("{}.{}", quote(&leaf.schema), quote(&leaf.name)), mode)
    })
}

/// A batch loop's locks: it walks the partitions that hold rows, never their parents.
pub(crate) fn walking(mut step: Step, table: &Table) -> Step {
    let Some(mode) = step.locks.first().map(|lock| lock.mode) else { return step };
    if table.is_partitioned() {
        step.locks.clear();
        step = table.partitions.iter().filter(|leaf| !leaf.partitioned).fold(step, |step, leaf| {
            step.locks(format!("{}.{}", quote(&leaf.schema), quote(&leaf.name)), mode)
        });
    }
    step
}

/// Refuses a table whose rows are not all here. `what` completes "its rows cannot be …".
pub(crate) fn refuse_foreign_leaf(table: &Table, what: &str) -> Result<()> {
    match table.partitions.iter().find(|leaf| leaf.foreign) {
        None => Ok(()),
        Some(leaf) => Err(Error::new(
            Kind::Unsupported,
            format!(
                "table {} has the foreign partition {}.{}, whose rows cannot be {what} from here: detach it first, and change it where it lives",
                table.sql(),
                quote(&leaf.schema),
                quote(&leaf.name)
            ),
        )),
    }
}

/// `"a", "b"`.
pub(crate) fn list<S: AsRef<str>>(names: &[S]) -> String {
    names.iter().map(|name| quote(name.as_ref())).collect::<Vec<_>>().join(", ")
}
