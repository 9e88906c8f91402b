//! What changes refuse before they touch anything.

use crate::catalog::{Table, TableKind};
use crate::error::{Error, Kind, Result};
use crate::ident::TableName;
use crate::phase::Context;

/// The table, if it is one whose columns can be changed safely.
pub(crate) fn changeable<'a>(cx: &Context<'a>, name: TableName) -> Result<&'a Table> {
    let table = indexable(cx, name)?;
    if table.is_partition {
        return Err(Error::new(
            Kind::Unsupported,
            format!(
                "table {} is a partition: name its parent, and all partitions change with it",
                table.sql()
            ),
        ));
    }
    if table.inherits {
        return Err(Error::new(
            Kind::Unsupported,
            format!(
                "table {} has parents or children by plain inheritance, which phasewise does not change: use RunSql, one table at a time",
                table.sql()
            ),
        ));
    }
    Ok(table)
}

/// The table, if it is one that this role may alter.
pub(crate) fn indexable<'a>(cx: &Context<'a>, name: TableName) -> Result<&'a Table> {
    let table = cx.snapshot.table(name)?;
    if table.kind == TableKind::Other {
        return Err(Error::new(
            Kind::Unsupported,
            format!("{} is no table: name the table that holds the rows", table.sql()),
        ));
    }
    if !table.owned {
        return Err(Error::new(
            Kind::Permission,
            format!(
                "this role does not own table {}: connect as its owner, or as a member of the owner's role",
                table.sql()
            ),
        ));
    }
    Ok(table)
}
