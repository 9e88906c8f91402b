//! The driver: the lease, the session that works under it, and what a run has done so far.

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};

use super::lease::Lease;
use super::report::Report;
use super::worker::Worker;

/// One run that holds the lease.
#[derive(Debug)]
pub(super) struct Driver<'m> {
    pub(super) worker: Worker<'m>,
    pub(super) held: Lease,
    pub(super) report: Report,
    /// Tables that this run created, as (schema, name).
    pub(super) created: BTreeSet<(String, String)>,
}

/// A driver is a worker that holds the lease itself.
impl<'m> Deref for Driver<'m> {
    type Target = Worker<'m>;

    fn deref(&self) -> &Worker<'m> {
        &self.worker
    }
}

impl DerefMut for Driver<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.worker
    }
}
