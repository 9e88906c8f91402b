//! Vacuum: one that must not be held up, and one that does not keep up.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::Limit;
use crate::error::Result;
use crate::migrator::connect::{Sql as _, get};
use crate::migrator::policy::BackfillPolicy;

/// Fewer dead rows than this bother nobody, whatever their share.
const BOTHER: f64 = 1_000_000.0;

/// So many times the dead rows at which autovacuum begins are come down from for sure.
const REACHABLE: f64 = 1.25;

pub(super) struct Vacuum {
    wraparound: bool,
    dead: Option<f64>,
    /// For each relation, once it has been over its limit.
    limits: Vec<(u32, Limit)>,
    relations: Vec<u32>,
}

impl Vacuum {
    pub(super) fn new(policy: &BackfillPolicy, relations: Vec<u32>) -> Self {
        Self { wraparound: policy.yield_to_wraparound, dead: policy.max_dead, limits: Vec::new(), relations }
    }

    pub(super) async fn hold(&mut self, client: &Client) -> Result<Vec<String>> {
        let mut reasons = Vec::new();
        if self.wraparound {
            // Without pg_read_all_stats a role sees no queries of others, and yields to none.
            let rows = client
                .ask(
                    "SELECT v.relid::regclass::text AS relation
                       FROM pg_catalog.pg_stat_progress_vacuum v JOIN pg_catalog.pg_stat_activity a ON a.pid = v.pid
                      WHERE v.datname = current_database() AND v.relid = ANY ($1)
                        AND a.query LIKE 'autovacuum:%(to prevent wraparound)'",
                    &[(&self.relations, Type::OID_ARRAY)],
                )
                .await?;
            for row in &rows {
                let relation: String = get(row, "relation")?;
                reasons.push(format!("an autovacuum to prevent wraparound works on {relation}"));
            }
        }
        if self.dead.is_some() {
            let rows = client
                .ask(
                    "SELECT s.relid, s.relid::regclass::text AS relation, s.n_dead_tup::float8 AS dead,
                            greatest(s.n_live_tup, 1)::float8 AS live,
                            coalesce(o.threshold, current_setting('autovacuum_vacuum_threshold')::float8)
                              + coalesce(o.scale, current_setting('autovacuum_vacuum_scale_factor')::float8)
                              * greatest(c.reltuples, 0)::float8 AS begins
                       FROM pg_catalog.pg_stat_all_tables s JOIN pg_catalog.pg_class c ON c.oid = s.relid,
                            LATERAL (SELECT max(option_value) FILTER (WHERE option_name = 'autovacuum_vacuum_threshold')::float8 AS threshold,
                                            max(option_value) FILTER (WHERE option_name = 'autovacuum_vacuum_scale_factor')::float8 AS scale
                                       FROM pg_catalog.pg_options_to_table(c.reloptions)) o
                      WHERE s.relid = ANY ($1) AND s.n_dead_tup > 0 AND current_setting('autovacuum')::boolean
                        AND NOT EXISTS (SELECT FROM pg_catalog.pg_options_to_table(c.reloptions) o
                                         WHERE o.option_name = 'autovacuum_enabled' AND NOT o.option_value::boolean)",
                    &[(&self.relations, Type::OID_ARRAY)],
                )
                .await?;
            for row in &rows {
                let (relid, relation): (u32, String) = (get(row, "relid")?, get(row, "relation")?);
                let begins: f64 = get(row, "begins")?;
                reasons.extend(self.judge(relid, &relation, get(row, "dead")?, get(row, "live")?, begins));
            }
        }
        Ok(reasons)
    }

    /// `begins` is at how many dead rows autovacuum does.
    fn judge(&mut self, relid: u32, relation: &str, dead: f64, live: f64, begins: f64) -> Option<String> {
        // Only autovacuum brings them down: below where it begins there may be no end to the wait.
        let reachable = begins * REACHABLE;
        let allowed = (live * self.dead?).max(BOTHER).max(reachable);
        let at = match self.limits.iter().position(|(known, _)| *known == relid) {
            Some(at) => at,
            None => {
                self.limits.push((relid, Limit::new(allowed)));
                self.limits.len() - 1
            }
        };
        let (_, limit) = self.limits.get_mut(at)?;
        limit.limit = allowed;
        limit.end = reachable.max(allowed / 2.0);
        let below = limit.now();
        limit.over(dead).then(|| {
            format!(
                "{relation} has {dead:.0} dead rows, and autovacuum does not keep up (limit {below:.0}); a transaction that is open for long may hold it back"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Vacuum;
    use crate::BackfillPolicy;

    #[test]
    fn dead_rows_hold_once_they_are_many_and_a_large_share() {
        let mut vacuum = Vacuum::new(&BackfillPolicy::new().max_dead(0.5), vec![1]);
        let held =
            |vacuum: &mut Vacuum, dead: f64, live: f64| vacuum.judge(1, "t", dead, live, 0.0).is_some();
        assert!(!held(&mut vacuum, 900_000.0, 100.0), "few");
        assert!(!held(&mut vacuum, 4_000_000.0, 10_000_000.0), "a small share");
        assert!(held(&mut vacuum, 5_100_000.0, 10_000_000.0));
        assert!(held(&mut vacuum, 2_600_000.0, 10_000_000.0), "not yet half of it");
        assert!(!held(&mut vacuum, 2_500_000.0, 10_000_000.0));
        let begins = 8_000_000.0;
        let mut held = |dead: f64| vacuum.judge(2, "u", dead, 10_000_000.0, begins).is_some();
        assert!(!held(8_500_000.0), "autovacuum has just begun");
        assert!(held(10_500_000.0));
        assert!(!held(9_500_000.0), "it need not come down to where autovacuum does not begin");
        let mut held = |dead: f64| vacuum.judge(3, "v", dead, 10_000_000.0, 3_000_000.0).is_some();
        assert!(held(5_100_000.0));
        assert!(held(3_800_000.0));
        assert!(!held(3_700_000.0));
    }
}
