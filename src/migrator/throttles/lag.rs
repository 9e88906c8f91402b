//! Replication lag.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::Limit;
use crate::error::Result;
use crate::migrator::connect::{Sql as _, get};

/// Looks kept; a replica that is stuck for longer than they last is found to be stuck all the same.
const LOOKS: usize = 600;

/// Waits while a streaming replica is behind by more than a limit, and goes on below half of it.
///
/// `replay_lag` alone would not do: it is what the replica's last reply said. One that is cut off or stopped says
/// nothing new; one that has caught up and has nothing to say keeps an old figure for ten seconds. So the age of
/// the oldest look whose WAL the replica has not replayed yet counts as well.
#[derive(Debug)]
pub(super) struct ReplicationLag {
    limit: Limit,
    /// When we looked, and up to where WAL was written then; oldest first.
    looks: VecDeque<(Instant, i64)>,
}

/// A replica, as it was seen.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) replayed: i64,
    pub(super) lag: f64,
    pub(super) logical: bool,
}

impl ReplicationLag {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit: Limit::new(limit.as_secs_f64()), looks: VecDeque::new() }
    }

    /// The reason to wait, or `None`. `replicas` are those that were looked at themselves.
    pub(super) async fn hold(&mut self, client: &Client, mut replicas: Vec<Seen>) -> Result<Option<String>> {
        // What only receives WAL (pg_receivewal, a backup) never replays it, and its replay_lag grows for ever.
        // Subscribers to changes confirm at their own pace, even what is not for them: only their replay_lag counts.
        let rows = client
            .ask(
                "SELECT coalesce(nullif(r.application_name, ''), r.pid::text, '') AS replica,
                        (w.written - '0/0')::int8 AS written,
                        (r.replay_lsn - '0/0')::int8 AS replayed,
                        CASE WHEN r.replay_lsn >= w.written THEN 0
                             ELSE coalesce(extract(epoch FROM r.replay_lag), 0) END::float8 AS lag,
                        EXISTS (SELECT FROM pg_catalog.pg_replication_slots s
                                 WHERE s.active_pid = r.pid AND s.slot_type = 'logical') AS logical
                   FROM (SELECT pg_catalog.pg_current_wal_flush_lsn() AS written OFFSET 0) w
                   LEFT JOIN pg_catalog.pg_stat_replication r
                     ON r.state IN ('streaming', 'catchup') AND r.replay_lsn IS NOT NULL",
                &[],
            )
            .await?;
        let mut written = 0_i64;
        for row in &rows {
            written = written.max(get(row, "written")?);
            let Some(replayed) = get(row, "replayed")? else { continue };
            replicas.push(Seen {
                name: get(row, "replica")?,
                replayed,
                lag: get(row, "lag")?,
                logical: get(row, "logical")?,
            });
        }
        Ok(self.judge(Instant::now(), written, &replicas))
    }

    fn judge(&mut self, now: Instant, written: i64, replicas: &[Seen]) -> Option<String> {
        let slowest = replicas.iter().filter(|seen| !seen.logical).map(|seen| seen.replayed).min();
        // Everybody has replayed these.
        let passed = self.looks.partition_point(|(_, at)| slowest.is_none_or(|slowest| *at <= slowest));
        self.looks.drain(..passed);
        let known = self.looks.back().is_some_and(|(_, at)| *at >= written);
        if slowest.is_some_and(|slowest| slowest < written) && !known && self.looks.len() < LOOKS {
            self.looks.push_back((now, written));
        }

        let behind = |seen: &Seen| {
            let look = self.looks.iter().find(|(_, at)| !seen.logical && *at > seen.replayed);
            let age = look.map_or(0.0, |(at, _)| now.duration_since(*at).as_secs_f64());
            seen.lag.max(age)
        };
        let worst =
            replicas.iter().map(|seen| (behind(seen), seen)).max_by(|one, other| one.0.total_cmp(&other.0));
        let below = self.limit.now();
        if !self.limit.over(worst.as_ref().map_or(0.0, |(lag, _)| *lag)) {
            return None;
        }
        worst.map(|(lag, seen)| format!("replica {} is {lag:.1} s behind (limit {below:.1} s)", seen.name))
    }
}
