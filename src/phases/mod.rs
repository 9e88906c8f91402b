//! The phase structs, shared by the changes.

pub mod add_column;
pub mod add_index;
pub mod change_type;
pub mod create_table;
pub mod drop_column;
pub mod drop_table;
pub mod rename_column;
pub(crate) mod replace;
pub mod run_sql;
pub(crate) mod way;
