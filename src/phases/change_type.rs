//! The phases of [`ChangeType`](crate::ChangeType): those of a rename, with a conversion each way.

pub use super::replace::{
    AddTarget, Backfill, ByApplication, DropSource, InstallSync, KeptInSync, RemoveSync, StopOldWrites,
    SwitchOver, SwitchReads, WriteBoth,
};
