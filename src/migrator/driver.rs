//! The driver: the session, the lease, and what a run has done so far.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::lease::Lease;
use super::ledger::Ledger;
use super::monitor::Monitor;
use super::report::Report;
use super::session::Session;
use super::settings::Migrator;

/// One run that holds the lease.
#[derive(Debug)]
pub(super) struct Driver<'m> {
    pub(super) migrator: &'m Migrator,
    pub(super) session: Session,
    pub(super) monitor: Arc<Monitor>,
    pub(super) lease: Lease,
    pub(super) ledger: Ledger,
    pub(super) report: Report,
    /// Tables that this run created, as (schema, name).
    pub(super) created: BTreeSet<(String, String)>,
}
