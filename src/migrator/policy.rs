//! How batches go about it.

use std::time::Duration;

/// How a backfill goes about it: how large its batches are, how it rests, what it gives way to.
///
/// The defaults are for a server that others use. [`unthrottled`](BackfillPolicy::unthrottled) is for one that nobody
/// does.
///
/// ```
/// use phasewise::BackfillPolicy;
/// use std::time::Duration;
///
/// let gentle = BackfillPolicy::new().target(Duration::from_millis(20)).nice(4.0).max_rate(5_000);
/// let fast = BackfillPolicy::unthrottled().workers(2);
/// assert_ne!(gentle, fast);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BackfillPolicy {
    /// Rows that the first batch looks at; later ones follow from `target`. 1,000 unless set.
    pub batch: u32,
    /// The fewest rows that a batch looks at, unless it must be cut to fit the stall budget. 100 unless set.
    pub least: u32,
    /// The most rows that a batch looks at. 50,000 unless set.
    pub most: u32,
    /// How long a batch's statement should take: so long a client may wait for a row that it has written. 100 ms
    /// unless set. While clients are about, a fifth of it, with `yield_to_clients`.
    pub target: Duration,
    /// The pause between two batches. 100 ms unless set.
    pub pause: Duration,
    /// The rest after a batch, on top of the pause, as a multiple of the time that it took. 0 unless set.
    pub nice: f64,
    /// Rows to look at a second, at the most; no limit unless set.
    pub max_rate: Option<u32>,
    /// How many connections share the work. 1 unless set.
    pub workers: u32,
    /// In which order rows are walked.
    pub order: Order,
    /// What becomes of a row that the expression, a constraint or a trigger fails on.
    pub on_failing_row: OnFailingRow,
    /// Passes over the table before a backfill gives up on rows that stay wrong. 5 unless set.
    pub passes: u32,
    /// Batches wait while a replica is further behind than this. 10 s unless set.
    pub max_lag: Option<Duration>,
    /// Batches wait while a replication slot holds back more WAL than this, in bytes. 8 GiB unless set.
    pub max_slot_wal: Option<u64>,
    /// Batches wait while the server writes more WAL a second than this, in bytes. No limit unless set.
    pub max_wal_rate: Option<u64>,
    /// Batches wait while there are more dead rows in the relation than this share of its live ones, if they are more
    /// than a million, more than 1.25 times those at which autovacuum begins, and autovacuum is on. 0.5 unless set.
    pub max_dead: Option<f64>,
    /// Whether batches wait while an autovacuum to prevent wraparound works on the relation. They do unless set.
    pub yield_to_wraparound: bool,
    /// Whether batches are a fifth as long while clients are about, and shrink and wait after one that clients had to
    /// wait for. They do unless set.
    pub yield_to_clients: bool,
}

/// The order in which batches walk a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// As rows lie on disk: each page is read once, and no key is needed. Relations of another access method than
    /// `heap` are walked by their key all the same.
    #[default]
    Physical,
    /// By the primary key, or a unique key of NOT NULL columns: one part a relation, however many workers.
    Key,
}

/// What becomes of a row that its batch fails on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFailingRow {
    /// The backfill stops, and its error names the row.
    #[default]
    Stop,
    /// It is set aside, up to this many rows: `status()` lists them with their errors. Later verifications of the
    /// migration try them again. Needs a key.
    SetAside(u32),
}

impl Default for BackfillPolicy {
    fn default() -> Self {
        Self {
            batch: 1_000,
            least: 100,
            most: 50_000,
            target: Duration::from_millis(100),
            pause: Duration::from_millis(100),
            nice: 0.0,
            max_rate: None,
            workers: 1,
            order: Order::Physical,
            on_failing_row: OnFailingRow::Stop,
            passes: 5,
            max_lag: Some(Duration::from_secs(10)),
            max_slot_wal: Some(8 << 30),
            max_wal_rate: None,
            max_dead: Some(0.5),
            yield_to_wraparound: true,
            yield_to_clients: true,
        }
    }
}

impl BackfillPolicy {
    /// The defaults: at first 1,000 rows and a pause of 100 ms, then batches that take 100 ms each.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As fast as one connection goes: no pause, and nothing to give way to. Batches still aim at 100 ms.
    #[must_use]
    pub fn unthrottled() -> Self {
        Self {
            pause: Duration::ZERO,
            max_lag: None,
            max_slot_wal: None,
            max_dead: None,
            yield_to_wraparound: false,
            yield_to_clients: false,
            ..Self::default()
        }
    }

    /// Sets the rows of the first batch; 0 is taken as 1.
    #[must_use]
    pub fn batch(mut self, rows: u32) -> Self {
        self.batch = rows.max(1);
        self.least = self.least.min(self.batch);
        self.most = self.most.max(self.batch);
        self
    }

    /// Sets the bounds that batches adapt within, in rows; 0 is taken as 1.
    #[must_use]
    pub fn between(mut self, least: u32, most: u32) -> Self {
        self.least = least.max(1);
        self.most = most.max(self.least);
        self.batch = self.batch.clamp(self.least, self.most);
        self
    }

    /// Sets the rows of every batch: none adapts to its time. 0 is taken as 1.
    #[must_use]
    pub fn fixed(self, rows: u32) -> Self {
        self.between(rows, rows)
    }

    /// Sets the time that a batch's statement should take; less than 1 ms is taken as 1 ms.
    #[must_use]
    pub fn target(mut self, time: Duration) -> Self {
        self.target = time.max(Duration::from_millis(1));
        self
    }

    /// Sets the pause between two batches.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Sets the rest after a batch as a multiple of its time: 1.0 works half of the time. Less than 0 is taken as 0.
    #[must_use]
    pub fn nice(mut self, ratio: f64) -> Self {
        self.nice = if ratio.is_finite() { ratio.max(0.0) } else { 0.0 };
        self
    }

    /// Sets the most rows to look at a second, all workers together; `None` and 0 set no limit.
    #[must_use]
    pub fn max_rate(mut self, rows: impl Into<Option<u32>>) -> Self {
        self.max_rate = rows.into().filter(|rows| *rows > 0);
        self
    }

    /// Sets how many connections share the work; 0 is taken as 1. Where the server has fewer to spare, fewer do.
    #[must_use]
    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// Sets the order of the walk.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Sets what becomes of a row that its batch fails on.
    #[must_use]
    pub fn on_failing_row(mut self, policy: OnFailingRow) -> Self {
        self.on_failing_row = policy;
        self
    }

    /// Sets the passes before a backfill gives up; 0 is taken as 1.
    #[must_use]
    pub fn passes(mut self, passes: u32) -> Self {
        self.passes = passes.max(1);
        self
    }

    /// Sets the limit of replication lag; `None` looks at no replica.
    #[must_use]
    pub fn max_lag(mut self, lag: impl Into<Option<Duration>>) -> Self {
        self.max_lag = lag.into();
        self
    }

    /// Sets the limit of WAL held back by a replication slot, in bytes; `None` looks at no slot.
    #[must_use]
    pub fn max_slot_wal(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.max_slot_wal = bytes.into();
        self
    }

    /// Sets the limit of the server's WAL rate, in bytes a second; `None` looks at no rate.
    #[must_use]
    pub fn max_wal_rate(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.max_wal_rate = bytes.into();
        self
    }

    /// Sets the limit of dead rows as a share of the live ones; `None` looks at neither.
    #[must_use]
    pub fn max_dead(mut self, share: impl Into<Option<f64>>) -> Self {
        self.max_dead = share.into().filter(|share| *share >= 0.0);
        self
    }

    /// Sets whether batches wait for an autovacuum to prevent wraparound.
    #[must_use]
    pub fn yield_to_wraparound(mut self, yields: bool) -> Self {
        self.yield_to_wraparound = yields;
        self
    }

    /// Sets whether batches are shorter while clients are about, and shrink and wait after one that clients had to wait
    /// for.
    #[must_use]
    pub fn yield_to_clients(mut self, yields: bool) -> Self {
        self.yield_to_clients = yields;
        self
    }
}
