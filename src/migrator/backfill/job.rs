//! One batch loop: what its workers share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::compute::Filling;
use super::leaves::{KeyColumn, Leaf, Leaves};
use super::stretch::Division;
use super::verification::{self, Wrong};
use crate::ident::{literal, quote};
use crate::migrator::ledger::{Aside, At};
use crate::migrator::policy::{BackfillPolicy, OnFailingRow};
use crate::migrator::throttles::Throttles;
use crate::step::{Batches, Work};

/// As many ranges with rows that were locked are kept to come back to; the verification finds what is in others.
const REMEMBERED: usize = 10_000;

/// A range of a relation whose locked rows were left out.
#[derive(Clone, Debug)]
pub(super) struct Skipped {
    pub(super) leaf: Leaf,
    pub(super) predicate: String,
}

/// One loop under way.
pub(super) struct Job<'a> {
    pub(super) at: At<'a>,
    /// What the ledger knows the step by.
    pub(super) id: &'a str,
    pub(super) policy: BackfillPolicy,
    pub(super) leaves: Vec<Leaf>,
    /// The key's columns, where a relation is walked by it.
    pub(super) keys: Vec<KeyColumn>,
    /// The function that computes the values, where SQL does not.
    pub(super) filling: Option<Filling>,
    pub(super) throttles: tokio::sync::Mutex<Throttles>,
    /// Workers at work.
    pub(super) workers: u32,
    pub(super) division: Division,
    batches: &'a Batches,
    aside: Mutex<Vec<Aside>>,
    skipped: Mutex<Vec<Skipped>>,
    written: &'a AtomicU64,
    missed: Mutex<Vec<Wrong>>,
    begun: Mutex<Option<Leaves>>,
    busy: AtomicBool,
    stop: AtomicBool,
}

impl<'a> Job<'a> {
    #[allow(clippy::too_many_arguments, reason = "it is made in one place")]
    pub(super) fn new(
        at: At<'a>,
        id: &'a str,
        batches: &'a Batches,
        policy: BackfillPolicy,
        leaves: Vec<Leaf>,
        keys: Vec<KeyColumn>,
        filling: Option<Filling>,
        throttles: Throttles,
        aside: Vec<Aside>,
        written: &'a AtomicU64,
    ) -> Self {
        Self {
            at,
            id,
            policy,
            leaves,
            keys,
            filling,
            throttles: tokio::sync::Mutex::new(throttles),
            workers: 1,
            batches,
            aside: Mutex::new(aside),
            skipped: Mutex::default(),
            written,
            missed: Mutex::default(),
            begun: Mutex::default(),
            division: Division::default(),
            busy: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        }
    }

    /// The loop's statement, without the rows that are set aside.
    pub(super) fn batches(&self) -> Batches {
        let mut batches = self.batches.clone();
        let aside = self.aside();
        if aside.is_empty() || !sets_aside(&batches) {
            return batches;
        }
        let rows: Vec<String> = aside.iter().map(|aside| format!("({})", aside.row)).collect();
        // The order in which AND is evaluated is Postgres's own choice, and the condition fails on these rows.
        for predicate in [&mut batches.condition, &mut batches.verify] {
            *predicate = format!(
                "CASE WHEN ({}) IN ({}) THEN false ELSE ({predicate}) END",
                key_list(&self.batches.keys),
                rows.join(", ")
            );
        }
        batches
    }

    pub(super) fn aside(&self) -> Vec<Aside> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_aside(&self, row: Aside) {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner).push(row);
    }

    /// Sets a row aside if the policy lets it; or how many there are already.
    pub(super) fn try_set_aside(&self, row: Aside) -> Result<(), usize> {
        let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        if aside.len() >= self.most_aside() {
            return Err(aside.len());
        }
        aside.push(row);
        Ok(())
    }

    /// Rows that the policy lets be set aside, all in all.
    pub(super) fn most_aside(&self) -> usize {
        match self.policy.on_failing_row {
            OnFailingRow::Stop => 0,
            OnFailingRow::SetAside(most) => usize::try_from(most).unwrap_or(usize::MAX),
        }
    }

    pub(super) fn may_still_set_aside(&self) -> usize {
        self.most_aside().saturating_sub(self.aside().len())
    }

    /// A row is filled after all.
    pub(super) fn take_back_in(&self, row: &Aside) {
        self.aside
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|aside| aside.relation != row.relation || aside.row != row.row);
    }

    /// Remembers a range to come back to.
    pub(super) fn skip(&self, leaf: &Leaf, predicate: &str) {
        let mut skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        // The thirds of a stretch are one range.
        if skipped.last().is_some_and(|last| last.leaf.oid == leaf.oid && last.predicate == predicate) {
            return;
        }
        if skipped.len() < REMEMBERED {
            skipped.push(Skipped { leaf: leaf.clone(), predicate: predicate.to_owned() });
        } else {
            self.lose_track();
        }
    }

    /// The ranges to come back to; it forgets them.
    pub(super) fn skipped(&self) -> Vec<Skipped> {
        std::mem::take(&mut *self.skipped.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts rows that were written.
    pub(super) fn wrote(&self, rows: u64) {
        self.written.fetch_add(rows, Ordering::Relaxed);
    }

    /// Remembers rows that changed while their values were computed.
    pub(super) fn miss(&self, mut rows: impl Iterator<Item = Wrong>) {
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        let more = verification::MOST.saturating_sub(missed.len());
        missed.extend(rows.by_ref().take(more));
        if rows.next().is_some() {
            self.lose_track();
        }
    }

    /// The rows remembered since the last look.
    pub(super) fn missed(&self) -> Vec<Wrong> {
        std::mem::take(&mut *self.missed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What there was when this driver began the pass; `None` if another one did, or if it has lost track since of rows
    /// to come back to.
    pub(super) fn begun(&self) -> Option<Leaves> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A pass begins, over these.
    pub(super) fn begin(&mut self, leaves: Leaves) {
        self.leaves.clone_from(&leaves.all);
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(leaves);
    }

    /// Rows that must be come back to are not known any more. Where no verification finds them, another pass does.
    pub(super) fn lose_track(&self) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Notes whether clients are about.
    pub(super) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// Tells the other workers to end after the batch that they are at.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Whether a row that fails may be left out of it: one that is not archived would be lost.
pub(super) fn sets_aside(batches: &Batches) -> bool {
    !batches.keys.is_empty() && matches!(batches.work, Work::Update { from: None, .. } | Work::Compute { .. })
}

pub(super) fn table_sql(batches: &Batches) -> String {
    format!("{}.{}", quote(&batches.schema), quote(&batches.table))
}

/// `t."a", t."b"`.
pub(super) fn key_list(keys: &[String]) -> String {
    keys.iter().map(|key| format!("t.{}", quote(key))).collect::<Vec<_>>().join(", ")
}

/// What names a row, as SQL over `t`: text for people, and the key as SQL (`'1', 'a'`), null where there is none.
pub(super) fn names(keys: &[String]) -> (String, String) {
    if keys.is_empty() {
        return ("format('%s %s', t.tableoid::regclass, t.ctid)".to_owned(), "NULL::text".to_owned());
    }
    let formats: Vec<String> = keys.iter().map(|key| format!("{} = %s", key.replace('%', "%%"))).collect();
    // Cast to text: of some types (`"char"`) Postgres does not know which quote_literal is meant.
    let values: Vec<String> =
        keys.iter().map(|key| format!("quote_literal(t.{}::text)", quote(key))).collect();
    (format!("format({}, {})", literal(&formats.join(", ")), key_list(keys)), values.join(" || ', ' || "))
}
