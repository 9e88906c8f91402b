//! The phase structs, shared by the changes.

pub mod add_column;
pub mod add_index;
pub mod create_table;
pub mod drop_column;
pub mod run_sql;
