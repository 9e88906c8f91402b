//! WAL: how much of it slots hold back, and how fast it is written.

use std::time::Instant;

use tokio_postgres::Client;

use super::Limit;
use crate::error::Result;
use crate::migrator::connect::{Sql as _, get};
use crate::migrator::policy::BackfillPolicy;

pub(super) struct Wal {
    slots: Option<Limit>,
    rate: Option<Limit>,
    /// When the position was last looked at.
    last: Option<(Instant, i64)>,
}

#[allow(clippy::cast_precision_loss, reason = "bytes, for a comparison and for people")]
fn bytes(n: i64) -> f64 {
    n as f64
}

fn mebibytes(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

impl Wal {
    pub(super) fn new(policy: &BackfillPolicy) -> Self {
        let limit = |bytes: u64| Limit::new(self::bytes(i64::try_from(bytes).unwrap_or(i64::MAX)));
        Self { slots: policy.max_slot_wal.map(limit), rate: policy.max_wal_rate.map(limit), last: None }
    }

    pub(super) async fn hold(&mut self, client: &Client) -> Result<Vec<String>> {
        if self.slots.is_none() && self.rate.is_none() {
            return Ok(Vec::new());
        }
        // A slot that was invalidated holds nothing back any more, and has no restart_lsn.
        let rows = client
            .ask(
                "SELECT (w.written - '0/0')::int8 AS written, s.slot_name::text AS slot,
                        coalesce(w.written - s.restart_lsn, 0)::int8 AS held
                   FROM (SELECT pg_catalog.pg_current_wal_lsn() AS written OFFSET 0) w
                   LEFT JOIN LATERAL (SELECT slot_name, restart_lsn FROM pg_catalog.pg_replication_slots
                                       WHERE restart_lsn IS NOT NULL ORDER BY restart_lsn LIMIT 1) s ON true",
                &[],
            )
            .await?;
        let Some(row) = rows.first() else { return Ok(Vec::new()) };
        let (written, held): (i64, i64) = (get(row, "written")?, get(row, "held")?);
        let slot: Option<String> = get(row, "slot")?;
        Ok(self.judge(Instant::now(), written, slot.as_deref().map(|slot| (slot, held))))
    }

    fn judge(&mut self, now: Instant, written: i64, oldest: Option<(&str, i64)>) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some(limit) = &mut self.slots {
            let (slot, held) = oldest.unwrap_or(("", 0));
            let below = limit.now();
            if limit.over(bytes(held)) {
                reasons.push(format!(
                    "replication slot {slot} holds back {:.0} MiB of WAL (limit {:.0} MiB)",
                    mebibytes(bytes(held)),
                    mebibytes(below)
                ));
            }
        }
        if let Some(limit) = &mut self.rate {
            let last = self.last.replace((now, written));
            let rate = last.map_or(0.0, |(at, before)| {
                bytes(written - before) / now.duration_since(at).as_secs_f64().max(0.001)
            });
            let below = limit.now();
            if limit.over(rate) {
                reasons.push(format!(
                    "the server writes {:.1} MiB of WAL a second (limit {:.1} MiB)",
                    mebibytes(rate),
                    mebibytes(below)
                ));
            }
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Wal;
    use crate::BackfillPolicy;

    const MIB: i64 = 1 << 20;

    #[test]
    fn a_slot_that_holds_back_too_much_is_named() {
        let mut wal = Wal::new(&BackfillPolicy::new().max_slot_wal(10 << 20));
        let now = Instant::now();
        assert!(wal.judge(now, 0, None).is_empty());
        assert!(wal.judge(now, 0, Some(("a", 10 * MIB))).is_empty());
        let reasons = wal.judge(now, 0, Some(("a", 11 * MIB)));
        assert_eq!(reasons, ["replication slot a holds back 11 MiB of WAL (limit 10 MiB)"]);
        assert_eq!(wal.judge(now, 0, Some(("a", 6 * MIB))).len(), 1);
        assert!(wal.judge(now, 0, Some(("a", 5 * MIB))).is_empty());
    }

    #[test]
    fn the_rate_is_that_since_the_last_look() {
        let mut wal = Wal::new(&BackfillPolicy::new().max_slot_wal(None).max_wal_rate(4 << 20));
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        assert!(wal.judge(now, 100 * MIB, None).is_empty());
        assert!(wal.judge(now + second, 104 * MIB, None).is_empty());
        let reasons = wal.judge(now + 3 * second, 114 * MIB, None);
        assert_eq!(reasons, ["the server writes 5.0 MiB of WAL a second (limit 4.0 MiB)"]);
        assert_eq!(wal.judge(now + 4 * second, 117 * MIB, None).len(), 1);
        assert!(wal.judge(now + 5 * second, 119 * MIB, None).is_empty());
    }
}
