//! A stretch: the pages between two places of the cursor, filled by thirds.
//!
//! An UPDATE writes a new version of each row, on another page where its own is full, and then each index gets an
//! entry for it. A third of a page's rows, committed, leaves old versions behind that Postgres prunes when it comes to
//! the page again: now the next third finds room there. Such a version (heap-only) costs no index entry, and the
//! table grows by half as much.

use std::sync::atomic::{AtomicU32, Ordering};

use super::range::Range;

/// Parts of a stretch, as predicates over `t`: by a hash of their place, so that each page has a share of every part. The
/// last one is all that is left; what the others have filled the batches' condition leaves out.
const THIRDS: [&str; 3] = [
    " AND pg_catalog.hashtid(t.ctid) & 255 < 85",
    " AND pg_catalog.hashtid(t.ctid) & 255 BETWEEN 85 AND 169",
    "",
];

const LAST: usize = THIRDS.len() - 1;
const PARTS: i64 = 3;

/// By so many rows one can tell whether they stay on their pages.
const ENOUGH: u64 = 200;

/// A stretch of fewer rows is not divided.
const WORTH_DIVIDING: i64 = 1_000;

/// After a stretch that found no room on its pages, so many go undivided.
const UNDIVIDED: u32 = 20;

/// A stretch under way. A batch is one third of it, or all.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    pub(super) range: Range,
    divided: bool,
    third: usize,
    wrote: i64,
    /// Of those after the first third: how many, and how many on their own page.
    later: (u64, u64),
}

impl Stretch {
    pub(super) fn new(range: Range, divided: bool) -> Self {
        let third = if divided { 0 } else { LAST };
        Self { range, divided, third, wrote: 0, later: (0, 0) }
    }

    pub(super) fn is_divided(&self) -> bool {
        self.divided
    }

    /// The rows of the next batch.
    pub(super) fn predicate(&self) -> String {
        format!("{}{}", self.range.predicate, THIRDS.get(self.third).unwrap_or(&""))
    }

    /// Whether the next batch is the dearest of it: those after it find room on their pages.
    pub(super) fn is_first(&self) -> bool {
        !self.divided || self.third == 0
    }

    /// Whether the next batch is the last one of it.
    pub(super) fn is_last(&self) -> bool {
        self.third >= LAST
    }

    pub(super) fn is_over(&self) -> bool {
        self.third > LAST
    }

    /// Rows that its batches have written so far.
    pub(super) fn written(&self) -> i64 {
        self.wrote.min(self.range.rows)
    }

    /// Rows that the next batch looks at if it writes so many: each row of the stretch counts once.
    pub(super) fn looked_at(&self, wrote: u64) -> i64 {
        let left = self.range.rows - self.written();
        if self.is_last() { left } else { i64::try_from(wrote).unwrap_or(i64::MAX).min(left) }
    }

    /// Rows of a batch, about.
    pub(super) fn share(&self) -> i64 {
        let parts = if self.divided { PARTS } else { 1 };
        self.range.rows / parts
    }

    /// After a batch that wrote so many rows, and so many of them on their own page.
    pub(super) fn wrote(&mut self, rows: u64, in_place: u64) {
        if self.third > 0 {
            self.later.0 += rows;
            self.later.1 += in_place;
        }
        self.wrote += i64::try_from(rows).unwrap_or(0);
        self.third += 1;
    }

    /// Whether dividing it was worth it; `None` if there is nothing to tell by.
    pub(super) fn paid(&self) -> Option<bool> {
        let (rows, in_place) = self.later;
        (self.divided && rows >= ENOUGH).then_some(in_place * 4 > rows)
    }
}

/// Whether stretches are divided: while somebody's old snapshot keeps pages from being pruned, or where an index has
/// the column that is written, it is of no use.
#[derive(Debug, Default)]
pub(super) struct Division {
    undivided: AtomicU32,
}

impl Division {
    /// The parts that the next stretch is divided into, if it would have so many rows a part.
    pub(super) fn parts(&self, rows: i64) -> i64 {
        let worth = rows.saturating_mul(PARTS) >= WORTH_DIVIDING;
        if worth && self.undivided.load(Ordering::Relaxed) == 0 { PARTS } else { 1 }
    }

    /// A stretch is done that went undivided.
    pub(super) fn count_down(&self) {
        let _ = self.undivided.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    }

    pub(super) fn judge(&self, paid: bool) {
        if !paid {
            self.undivided.store(UNDIVIDED, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Division, Stretch, UNDIVIDED};
    use crate::migrator::backfill::range::Range;
    use crate::migrator::ledger::Spot;

    fn stretch(rows: i64, divided: bool) -> Stretch {
        let next = Spot::Tuple { first: 0, page: 9, item: 0, until: 9 };
        let predicate = "true".to_owned();
        Stretch::new(Range { predicate, rows, next, last: true, full: true }, divided)
    }

    #[test]
    fn thirds_take_every_row_once() {
        let mut stretch = stretch(3_000, true);
        let mut predicates = Vec::new();
        let mut looked_at = 0;
        for wrote in [990, 1_010, 900] {
            assert!(!stretch.is_over());
            predicates.push(stretch.predicate());
            looked_at += stretch.looked_at(wrote);
            stretch.wrote(wrote, wrote);
        }
        assert!(stretch.is_over());
        assert_eq!(looked_at, 3_000, "those that needed nothing are the last third's");
        assert_eq!(predicates[2], "true");
        predicates.dedup();
        assert_eq!(predicates.len(), 3);
    }

    #[test]
    fn one_that_is_whole_is_one_batch() {
        let mut stretch = stretch(3_000, false);
        assert_eq!((stretch.predicate().as_str(), stretch.share(), stretch.is_last()), ("true", 3_000, true));
        stretch.wrote(3_000, 0);
        assert!(stretch.is_over());
        assert_eq!(stretch.paid(), None);
    }

    #[test]
    fn what_does_not_pay_is_left_for_a_while() {
        let division = Division::default();
        assert_eq!((division.parts(333), division.parts(334)), (1, 3));
        let mut poor = stretch(3_000, true);
        // The first third finds no room: none has been made.
        for in_place in [0, 200, 100] {
            poor.wrote(1_000, in_place);
        }
        assert_eq!(poor.paid(), Some(false));
        division.judge(false);
        for _ in 0..UNDIVIDED {
            assert_eq!(division.parts(1_000), 1);
            division.count_down();
        }
        assert_eq!(division.parts(1_000), 3);
        let mut rich = stretch(3_000, true);
        for in_place in [0, 300, 900] {
            rich.wrote(1_000, in_place);
        }
        assert_eq!(rich.paid(), Some(true));
    }
}
