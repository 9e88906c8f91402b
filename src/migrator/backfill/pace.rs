//! How large the next batch is, and how long the rest before it.

use std::time::{Duration, Instant};

use crate::migrator::ledger::Control;
use crate::migrator::policy::BackfillPolicy;

/// Computing may take so many times as long as a statement should.
const COMPUTING: u32 = 10;

/// While clients are about, batches aim at this part of their target: what they write and lock comes in smaller bursts.
const AMONG_CLIENTS: u32 = 5;

/// One worker's pace.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    policy: BackfillPolicy,
    /// Workers that share the rate.
    workers: u32,
    size: i64,
    /// What the policy asks for, unless that was found to take longer than it may.
    least: i64,
    rate: Option<f64>,
    last: Option<Instant>,
}

/// What a batch came to, as far as its successor's size goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lap {
    /// Rows that it looked at.
    pub(super) rows: i64,
    /// Rows that it was made for, which may have been at another pace.
    pub(super) size: i64,
    /// Whether it was as large as it might be: not cut short by the end of a relation, or by empty pages.
    pub(super) full: bool,
    /// Whether others of its size will take as long, and no longer.
    pub(super) tells: bool,
    /// How long its statement took.
    pub(super) took: Duration,
    /// How long the values took that Rust computed for it, while no row was held.
    pub(super) computing: Duration,
    /// Clients that were seen to wait for it.
    pub(super) crowd: i64,
    /// Whether clients are about.
    pub(super) busy: bool,
}

#[allow(clippy::cast_precision_loss, reason = "counts of rows, for a ratio")]
pub(super) fn float(n: i64) -> f64 {
    n as f64
}

#[allow(clippy::cast_possible_truncation, reason = "clamped to what fits")]
pub(super) fn whole(x: f64) -> i64 {
    x.clamp(0.0, 1e15).round() as i64
}

impl Pace {
    /// `size` is that of a pass that is resumed.
    pub(super) fn new(policy: &BackfillPolicy, workers: u32, size: Option<i64>) -> Self {
        let (least, most) = (i64::from(policy.least), i64::from(policy.most));
        let size = size.unwrap_or_else(|| i64::from(policy.batch)).clamp(least, most.max(least));
        Self { policy: *policy, workers, size, least, rate: None, last: None }
    }

    /// Rows that the next batch looks at.
    pub(super) fn size(&self) -> i64 {
        self.size
    }

    /// Rows a second, pauses included, as a moving average.
    pub(super) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// After a batch that has a failing row in it: half as much, however little.
    pub(super) fn cut(&mut self) {
        self.size = (self.size / 2).max(1);
    }

    /// After a batch of so many rows that was cancelled for taking too long: half as much, and no more than that for
    /// the policy's sake. Else every other batch would be cancelled where the least of the policy takes too long.
    pub(super) fn too_long(&mut self, rows: i64) {
        self.size = self.size.min(rows.max(1));
        self.cut();
        self.least = self.least.min(self.size);
    }

    /// After a batch that was done: aims the next one at the target, and gives the rest before it.
    pub(super) fn done(&mut self, lap: Lap, control: Control, now: Instant) -> Duration {
        if let Some(last) = self.last.replace(now) {
            let seconds = now.duration_since(last).as_secs_f64().max(0.000_001);
            let rate = float(lap.rows) / seconds;
            self.rate = Some(self.rate.map_or(rate, |before| 0.8f64.mul_add(before, 0.2 * rate)));
        }
        let target = control.target.unwrap_or(if lap.busy {
            self.policy.target / AMONG_CLIENTS
        } else {
            self.policy.target
        });
        let target = target.as_secs_f64();
        // Nobody waits for what is being computed; but what people ask for counts after the batch only, and rows change
        // meanwhile.
        let took = lap.took.max(lap.computing / COMPUTING).as_secs_f64().max(0.001);
        let crowded = self.policy.yield_to_clients && lap.crowd > 0;
        let mut ideal = float(lap.size) * target / took;
        if crowded {
            ideal = ideal.min(float(lap.size) / 2.0);
        }
        // Twice as much at the most: the next rows may be dearer. A batch that was cut short tells little.
        let most = if lap.full && lap.tells { lap.size.saturating_mul(2) } else { self.size };
        // One that was cut below the least grows back step by step.
        let least = self.least.min(self.size.saturating_mul(2));
        self.size = whole(ideal).min(most).max(least).min(i64::from(self.policy.most)).max(1);

        let speed = control.speed.max(0.001);
        let mut rest = self.policy.pause.as_secs_f64() / speed + self.policy.nice * lap.took.as_secs_f64();
        if speed < 1.0 {
            rest += lap.took.as_secs_f64() * (1.0 / speed - 1.0);
        }
        if crowded {
            rest = rest.max(2.0 * lap.took.as_secs_f64());
        }
        if let Some(rate) = self.policy.max_rate {
            let rate = f64::from(rate) * speed / f64::from(self.workers.max(1));
            rest = rest.max(float(lap.rows) / rate - lap.took.as_secs_f64());
        }
        // No rest where a policy's numbers are none.
        Duration::try_from_secs_f64(rest.clamp(0.0, 3_600.0)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn lap(rows: i64, took: u32) -> Lap {
        Lap {
            rows,
            size: rows,
            full: true,
            tells: true,
            took: MS * took,
            computing: Duration::ZERO,
            crowd: 0,
            busy: false,
        }
    }

    fn sizes(policy: &BackfillPolicy, laps: &[Lap]) -> Vec<i64> {
        let mut pace = Pace::new(policy, 1, None);
        let mut sizes = vec![pace.size()];
        for lap in laps {
            let _ = pace.done(*lap, Control::default(), Instant::now());
            sizes.push(pace.size());
        }
        sizes
    }

    #[test]
    fn a_batch_grows_to_its_time_and_shrinks_to_it() {
        let policy = BackfillPolicy::new();
        assert_eq!(
            sizes(&policy, &[lap(1_000, 5), lap(2_000, 10), lap(4_000, 80)]),
            [1_000, 2_000, 4_000, 5_000]
        );
        assert_eq!(sizes(&policy, &[lap(1_000, 1_000)]), [1_000, 100]);
        assert_eq!(sizes(&policy, &[lap(1_000, 10_000)]), [1_000, 100], "no less than the least");
        assert_eq!(
            sizes(&policy.between(1, 1_500), &[lap(1_000, 1)]),
            [1_000, 1_500],
            "no more than the most"
        );
        let short = Lap { size: 1_000, full: false, ..lap(10, 1) };
        assert_eq!(
            sizes(&policy, &[short]),
            [1_000, 1_000],
            "one that was cut short tells nothing of a larger one"
        );
    }

    #[test]
    fn batches_of_one_stretch_count_by_their_own_size() {
        let third = |took: u32| Lap { tells: false, ..lap(1_000, took) };
        let policy = BackfillPolicy::new();
        assert_eq!(sizes(&policy, &[lap(1_000, 80), third(20), third(20)]), [1_000, 1_250, 1_250, 1_250]);
        assert_eq!(sizes(&policy, &[lap(1_000, 200), third(50), third(50)]), [1_000, 500, 500, 500]);
        assert_eq!(
            sizes(&policy, &[lap(1_000, 80), third(200)]),
            [1_000, 1_250, 500],
            "it is dearer all the same"
        );
    }

    #[test]
    fn a_fixed_batch_stays() {
        assert_eq!(sizes(&BackfillPolicy::new().fixed(7), &[lap(7, 1), lap(7, 900)]), [7, 7, 7]);
    }

    #[test]
    fn one_that_was_cut_grows_back() {
        let mut pace = Pace::new(&BackfillPolicy::new().fixed(8), 1, None);
        (0..5).for_each(|_| pace.cut());
        assert_eq!(pace.size(), 1);
        let _ = pace.done(lap(1, 1), Control::default(), Instant::now());
        assert_eq!(pace.size(), 2);
        let _ = pace.done(lap(2, 1_000), Control::default(), Instant::now());
        assert_eq!(pace.size(), 4);
    }

    #[test]
    fn one_that_took_too_long_is_not_grown_for_the_sake_of_the_least() {
        let mut pace = Pace::new(&BackfillPolicy::new(), 1, None);
        (0..5).for_each(|_| pace.too_long(1_000));
        assert_eq!(pace.size(), 31);
        let _ = pace.done(lap(31, 900), Control::default(), Instant::now());
        assert_eq!(pace.size(), 31, "twice as much would be cancelled again");
        let _ = pace.done(lap(31, 10), Control::default(), Instant::now());
        assert_eq!(pace.size(), 62, "cheaper rows");
        pace.too_long(20);
        assert_eq!(pace.size(), 10, "it was a smaller one that was cancelled");
    }

    #[test]
    fn values_that_take_long_to_compute_count_by_a_tenth() {
        let computed = Lap { computing: 2_000 * MS, ..lap(1_000, 1) };
        assert_eq!(sizes(&BackfillPolicy::new(), &[computed]), [1_000, 500]);
    }

    #[test]
    fn clients_that_waited_halve_the_next_batch_and_are_let_through() {
        let policy = BackfillPolicy::new();
        let crowded = Lap { crowd: 2, ..lap(1_000, 100) };
        let mut pace = Pace::new(&policy, 1, None);
        assert_eq!(pace.done(crowded, Control::default(), Instant::now()), 200 * MS);
        assert_eq!(pace.size(), 500);
        let mut pace = Pace::new(&policy.yield_to_clients(false), 1, None);
        assert_eq!(pace.done(crowded, Control::default(), Instant::now()), 100 * MS);
        assert_eq!(pace.size(), 1_000);
    }

    #[test]
    fn the_rest_follows_from_pause_nice_speed_and_rate() {
        let rest = |policy: BackfillPolicy, speed: f64| {
            let control = Control { speed, ..Control::default() };
            Pace::new(&policy, 2, None).done(lap(1_000, 50), control, Instant::now()).as_millis()
        };
        assert_eq!(rest(BackfillPolicy::new(), 1.0), 100);
        assert_eq!(rest(BackfillPolicy::new().nice(2.0), 1.0), 200);
        assert_eq!(rest(BackfillPolicy::new(), 2.0), 50);
        assert_eq!(rest(BackfillPolicy::new(), 0.5), 250, "twice the pause, and as long as it worked");
        assert_eq!(rest(BackfillPolicy::unthrottled(), 1.0), 0);
        assert_eq!(rest(BackfillPolicy::unthrottled(), 0.25), 150);
        // Two workers share 4,000 rows a second: 1,000 take each of them half a second.
        assert_eq!(rest(BackfillPolicy::unthrottled().max_rate(4_000), 1.0), 450);
    }

    #[test]
    fn numbers_that_are_none_are_no_rest() {
        let policy = BackfillPolicy { nice: f64::NAN, ..BackfillPolicy::new() };
        let rest = Pace::new(&policy, 1, None).done(lap(1_000, 50), Control::default(), Instant::now());
        assert_eq!(rest, Duration::ZERO);
    }

    #[test]
    fn batches_are_shorter_while_clients_are_about() {
        let busy = Lap { busy: true, ..lap(1_000, 40) };
        assert_eq!(sizes(&BackfillPolicy::new(), &[busy, lap(500, 20)]), [1_000, 500, 1_000]);
    }

    #[test]
    fn a_target_of_somebody_else_counts() {
        let mut pace = Pace::new(&BackfillPolicy::new(), 1, None);
        let control = Control { target: Some(20 * MS), ..Control::default() };
        let _ = pace.done(lap(1_000, 40), control, Instant::now());
        assert_eq!(pace.size(), 500);
    }
}
