//! The phase structs, shared by the changes.
