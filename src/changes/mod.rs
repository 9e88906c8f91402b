//! One file per builder.

pub(crate) mod add_column;
pub(crate) mod add_index;
pub(crate) mod change_type;
pub(crate) mod create_table;
pub(crate) mod drop_column;
pub(crate) mod drop_table;
pub(crate) mod refuse;
pub(crate) mod rename_column;
mod replaced;
pub(crate) mod run_sql;
