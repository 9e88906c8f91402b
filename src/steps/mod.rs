//! The statements, one file per kind of object.
