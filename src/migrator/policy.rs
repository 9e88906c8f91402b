//! How fast batches go.

use std::time::Duration;

/// How a backfill goes about it: 1,000 rows, a pause of 100 ms, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackfillPolicy {
    /// Rows that one batch looks at.
    pub batch: u32,
    /// The pause between two batches.
    pub pause: Duration,
    /// Batches wait while a streaming replica is further behind than this, and go on below half of it.
    pub max_lag: Option<Duration>,
    /// Passes over the table before a backfill gives up on rows that stay wrong.
    pub passes: u32,
}

impl Default for BackfillPolicy {
    fn default() -> Self {
        Self {
            batch: 1_000,
            pause: Duration::from_millis(100),
            max_lag: Some(Duration::from_secs(10)),
            passes: 5,
        }
    }
}

impl BackfillPolicy {
    /// 1,000 rows, a pause of 100 ms, a replica at most 10 s behind, five passes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the rows per batch; 0 is taken as 1.
    #[must_use]
    pub fn batch(mut self, rows: u32) -> Self {
        self.batch = rows.max(1);
        self
    }

    /// Sets the pause between two batches.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Sets the limit of replication lag; `None` looks at no replica.
    #[must_use]
    pub fn max_lag(mut self, lag: impl Into<Option<Duration>>) -> Self {
        self.max_lag = lag.into();
        self
    }

    /// Sets the passes before a backfill gives up; 0 is taken as 1.
    #[must_use]
    pub fn passes(mut self, passes: u32) -> Self {
        self.passes = passes.max(1);
        self
    }
}
