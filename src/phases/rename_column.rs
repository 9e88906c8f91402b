//! The phases of [`RenameColumn`](crate::RenameColumn).

pub use super::replace::{
    AddTarget, Backfill, ByApplication, DropSource, InstallSync, KeptInSync, RemoveSync, StopOldWrites,
    SwitchOver, SwitchReads, WriteBoth,
};
