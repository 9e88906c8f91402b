//! One column replaced by another: the phases of `RenameColumn` and `ChangeType`, in both forms of dual writing.

mod add_target;
mod backfill;
mod carried;
mod deploy;
mod drop_source;
mod free;
mod install_sync;
mod refusals;
mod values;
mod warnings;

use std::fmt;
use std::time::Duration;

pub use add_target::AddTarget;
pub use backfill::Backfill;
pub use deploy::{SwitchOver, SwitchReads, WriteBoth};
pub use drop_source::DropSource;
pub use free::{RemoveSync, StopOldWrites};
pub use install_sync::InstallSync;
pub(crate) use refusals::check;
pub(crate) use warnings::warnings;

use crate::catalog::{Column, Snapshot, Table};
use crate::error::Result;
use crate::expr::Expr;
use crate::ident::{Ident, TableName};
use crate::phase::Window;

/// What the two changes have in common: which column takes the place of which, and how values cross.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replace {
    pub(crate) table: TableName,
    pub(crate) source: Ident,
    pub(crate) target: Ident,
    /// `None` for a rename: same type, same values.
    pub(crate) retype: Option<Retype>,
    pub(crate) synced: bool,
    pub(crate) soak: Option<Duration>,
    /// Indexes and checks of the source that the user does not want on the target.
    pub(crate) without: &'static [&'static str],
}

/// The new type with a conversion each way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retype {
    pub(crate) data_type: &'static str,
    pub(crate) up: Expr,
    pub(crate) down: Expr,
}

impl Replace {
    pub(crate) const fn new(table: &'static str, source: &'static str, target: &'static str) -> Self {
        let (source, target) = (Ident::new(source), Ident::new(target));
        assert!(
            !crate::phase::same(source.as_str(), target.as_str()),
            "the new column has the name of the old one: both exist for a while, so choose another name"
        );
        Self {
            table: TableName::new(table),
            source,
            target,
            retype: None,
            synced: false,
            soak: None,
            without: &[],
        }
    }

    /// The table, and the source in it.
    fn source_in<'a>(&self, snapshot: &'a Snapshot) -> Result<(&'a Table, &'a Column)> {
        let table = snapshot.table(self.table)?;
        Ok((table, table.column(self.source.as_str())?))
    }
}

/// Who writes both columns while both are read: it decides the windows. Sealed.
pub trait Writer: Copy + Send + Sync + fmt::Debug + sealed::Sealed + 'static {
    #[doc(hidden)]
    const ADDED: Window;
    #[doc(hidden)]
    const FILLED: Window;
    #[doc(hidden)]
    const LAST: Window;
}

/// The application writes both columns, as the playbook has it: releases 0 to 3.
#[derive(Clone, Copy, Debug)]
pub struct ByApplication(());

/// Triggers keep both columns equal: releases 0 and 1, one deploy.
#[derive(Clone, Copy, Debug)]
pub struct KeptInSync(());

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::ByApplication {}
    impl Sealed for super::KeptInSync {}
}

impl Writer for ByApplication {
    const ADDED: Window = Window::new(0, 1);
    const FILLED: Window = Window::new(1, 2);
    const LAST: Window = Window::new(3, 3);
}

impl Writer for KeptInSync {
    const ADDED: Window = Window::new(0, 0);
    const FILLED: Window = Window::new(0, 1);
    const LAST: Window = Window::new(1, 1);
}
