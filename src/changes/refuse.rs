//! What changes refuse before they touch anything.

use crate::catalog::Table;
use crate::error::{Error, Kind, Result};
use crate::ident::TableName;
use crate::phase::Context;

/// The table, if its columns can be changed on all its rows at once. Ownership and the like are looked at for every
/// change alike.
pub(crate) fn changeable<'a>(cx: &Context<'a>, name: TableName) -> Result<&'a Table> {
    let table = cx.snapshot.table(name)?;
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
