//! A session that works under the lease.

use std::sync::Arc;

use super::lease::Fence;
use super::ledger::Ledger;
use super::monitor::Monitor;
use super::session::Session;
use super::settings::Migrator;

/// The driver's own session, or one of several that share its batches.
#[derive(Debug)]
pub(super) struct Worker<'m> {
    pub(super) migrator: &'m Migrator,
    pub(super) session: Session,
    pub(super) monitor: Arc<Monitor>,
    pub(super) lease: Fence,
    pub(super) ledger: Ledger,
    /// Whether what it has under way can as well be left to another driver: it waits for nobody then.
    pub(super) brief: bool,
    /// Since when its connection has been lost, or lost again, without a batch in between.
    pub(super) cut_off: Option<std::time::Instant>,
}
