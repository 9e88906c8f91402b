//! One file per builder.
