//! The phase structs, shared by the changes.

pub(crate) mod replace;
