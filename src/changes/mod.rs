//! One file per builder.

mod change_type;
mod rename_column;
mod replaced;

pub use change_type::{ChangeType, Given, Missing};
pub use rename_column::RenameColumn;
