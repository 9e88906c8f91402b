//! One batch: a short transaction that fills the rows of a range, with the cursor in it.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{join, join4, join5};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use super::compute::{Computed, Filling, Found};
use super::failing::{AsideForNow, is_of_a_row};
use super::job::Job;
use super::leaves::Leaf;
use super::pace::{Lap, Pace, float, whole};
use super::range::{self, Extent, Range};
use super::stretch::Stretch;
use super::verification::Wrong;
use super::waiting::gave_way;
use crate::error::{Error, Kind, Result};
use crate::migrator::connect::{Sql as _, get, text};
use crate::migrator::ledger::{Control, Direction, Part, Spot};
use crate::migrator::locks::Tries;
use crate::migrator::transaction::Timeouts;
use crate::migrator::worker::Worker;
use crate::step::{Batches, Work};

/// What the marker says where no side has to win: so that a user's trigger can tell a backfill from a client.
const FILL: &str = "fill";

/// A batch that is done.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) part: Part,
    /// Rows looked at so far, those of a stretch under way among them.
    pub(super) done: i64,
    pub(super) wrote: u64,
    pub(super) lap: Lap,
    pub(super) control: Control,
}

/// What an attempt came to.
enum Attempt {
    Done(Box<Done>),
    /// Somebody has paused the migration: nothing was done.
    Paused,
}

/// How an attempt goes about it.
#[derive(Clone, Copy)]
struct Way {
    size: i64,
    timeouts: Timeouts,
    /// Whether rows that others have locked are left out.
    skipping: bool,
    /// Whether a failing row is looked for, by halves.
    exact: bool,
}

/// The rows that a statement is about, and how they are written.
pub(super) struct Aim<'a> {
    pub(super) leaf: &'a Leaf,
    pub(super) predicate: &'a str,
    pub(super) batches: &'a Batches,
    pub(super) skipping: bool,
    /// Whether rows that stay on their page are counted.
    pub(super) counting: bool,
    /// Where the key of a single row is noted that Rust computes a value for.
    pub(super) read: Option<&'a Mutex<Option<String>>>,
}

/// What a statement did.
pub(super) struct Filled {
    pub(super) wrote: u64,
    /// Of those, the ones that stayed on their page, where they were counted.
    in_place: u64,
    pub(super) took: Duration,
    pub(super) computing: Duration,
}

impl Worker<'_> {
    /// One batch, tried until it is done. `None` if the migration was paused.
    pub(super) async fn batch(
        &self,
        job: &Job<'_>,
        leaf: &Leaf,
        part: &Part,
        pace: &mut Pace,
        stretch: &mut Option<Stretch>,
    ) -> Result<Option<Done>> {
        let mut tries = self.batch_tries(job, "a batch");
        let (mut skipping, mut exact, read) = (false, false, Mutex::new(None));
        loop {
            let timeouts = self.batch_timeouts(&tries);
            let way = Way { size: pace.size(), timeouts, skipping, exact };
            let attempt = Box::pin(self.attempt_batch(job, leaf, part, way, stretch, &read));
            match self.watch(&mut tries, timeouts.lock, attempt).await {
                Ok(Attempt::Paused) => return Ok(None),
                Ok(Attempt::Done(mut done)) => {
                    done.lap.crowd = tries.behind();
                    return Ok(Some(*done));
                }
                Err(error) => {
                    let code = error.own_code().cloned();
                    if code == Some(SqlState::QUERY_CANCELED) {
                        // Longer than the stall budget: half as much may fit.
                        pace.too_long(stretch.take().map_or(pace.size(), |stretch| stretch.share()));
                    }
                    if is_of_a_row(&error) {
                        let rows = stretch.take().map_or(pace.size(), |stretch| stretch.range.rows);
                        if rows > 1 {
                            // One of them fails: found by halves.
                            exact = true;
                            pace.cut();
                            continue;
                        }
                        let read = read.lock().unwrap_or_else(PoisonError::into_inner).take();
                        match self.failing_row(job, leaf, part, error, read).await {
                            Ok(Some(done)) => return Ok(Some(done)),
                            Ok(None) => continue,
                            // Somebody has locked it.
                            Err(error) => self.again(&mut tries, job.at, error).await?,
                        }
                        continue;
                    }
                    if matches!(code, Some(SqlState::LOCK_NOT_AVAILABLE | SqlState::T_R_DEADLOCK_DETECTED)) {
                        skipping = !matches!(job.batches().work, Work::Copy { .. });
                    }
                    self.again(&mut tries, job.at, error).await?;
                }
            }
        }
    }

    pub(super) fn batch_tries(&self, job: &Job<'_>, what: &str) -> Tries {
        let tries = Tries::new(self.migrator, what);
        if job.policy.yield_to_clients { tries.counting_those_behind() } else { tries }
    }

    /// Shorter than what Postgres takes to look for deadlocks: if one is about to be, it is ours that gives up.
    pub(super) fn batch_timeouts(&self, tries: &Tries) -> Timeouts {
        let budget = self.migrator.stall_budget;
        Timeouts {
            lock: tries.timeout().min(self.session.deadlock_timeout() / 2).max(Duration::from_millis(1)),
            // Clients wait for the rows that a batch has written until it commits.
            statement: Some(budget),
            idle: budget.max(Duration::from_secs(1)),
        }
    }

    async fn attempt_batch(
        &self,
        job: &Job<'_>,
        leaf: &Leaf,
        part: &Part,
        way: Way,
        slot: &mut Option<Stretch>,
        read: &Mutex<Option<String>>,
    ) -> Result<Attempt> {
        let batches = job.batches();
        // A join would be made three times.
        let divisible = !leaf.by_key && matches!(batches.work, Work::Update { from: None, .. });
        let parts = if divisible && !way.exact { job.division.parts(way.size) } else { 1 };
        let extent = Extent { rows: way.size.saturating_mul(parts), parts };
        let end = match slot {
            Some(_) => None,
            None => Some(range::query(leaf, &job.keys, &part.spot, extent)),
        };
        let found = async {
            match &end {
                Some(end) => self.session.ask(end, &[]).await,
                None => Ok(Vec::new()),
            }
        };
        let begun = self.begin(way.timeouts);
        let control = self.ledger.control(&self.session, job.at.migration);
        let (begun, control, marked, found) = join4(begun, control, self.mark(&batches), found).await;
        begun?;
        let looked = marked.and(control).and_then(|control| Ok((control, found?)));
        let (control, found) = match looked {
            // A rollback holds the migration itself, so that nothing takes it forward again.
            Ok((control, _)) if control.paused && job.at.direction == Direction::Forward => {
                self.session.send("pausing", "ROLLBACK").await?;
                return Ok(Attempt::Paused);
            }
            Ok((control, _)) if self.migrator.gives_way && control.wanted => {
                self.session.send("giving way", "ROLLBACK").await?;
                return Err(gave_way(job));
            }
            Ok(looked) => looked,
            Err(error) => return self.finish(Err(error)).await,
        };
        let stretch = match slot {
            Some(stretch) => stretch,
            None => match range::range(&found, &job.keys, &part.spot, extent) {
                Ok(range) => slot.insert(Stretch::new(range, parts > 1)),
                Err(error) => return self.finish(Err(error)).await,
            },
        };

        let range = &stretch.range;
        let mut next = Part { size: Some(way.size), reason: None, ..part.clone() };
        if stretch.is_last() {
            next.estimate = estimate(leaf, part, range);
            next.spot = range.next.clone();
            next.ended = range.last;
            next.done += range.rows;
        }
        if way.skipping {
            // Before it is done: whether it was may never be known.
            job.skip(leaf, &range.predicate);
        }
        let predicate = stretch.predicate();
        let counting = stretch.is_divided();
        let aim = Aim {
            leaf,
            predicate: &predicate,
            batches: &batches,
            skipping: way.skipping,
            counting,
            read: Some(read),
        };
        let filled = self.fill(job, &aim, way.timeouts, Some(&next)).await?;
        next.written += i64::try_from(filled.wrote).unwrap_or(0);
        let lap = Lap {
            rows: stretch.looked_at(filled.wrote),
            size: if stretch.is_divided() { stretch.share() } else { way.size },
            full: range.full,
            tells: stretch.is_first(),
            took: filled.took,
            computing: filled.computing,
            crowd: 0,
            busy: false,
        };
        stretch.wrote(filled.wrote, filled.in_place);
        let mut done = Done { done: next.done, part: next, wrote: filled.wrote, lap, control };
        if !stretch.is_over() {
            done.done += stretch.written();
            return Ok(Attempt::Done(Box::new(done)));
        }
        match stretch.paid() {
            Some(paid) => job.division.judge(paid),
            None if divisible && !stretch.is_divided() => job.division.count_down(),
            None => {}
        }
        *slot = None;
        Ok(Attempt::Done(Box::new(done)))
    }

    /// In physical order, whatever the plan: no synchronized scan that starts in the middle, no parallel workers. And a
    /// commit that does not wait for the disk: a batch that a crash of the server undoes takes its cursor with it.
    pub(super) async fn mark(&self, batches: &Batches) -> Result<()> {
        let marker = batches.marker.map_or(FILL, |marker| marker.value());
        let sql = "SELECT set_config('phasewise.backfill', $1, true), set_config('synchronize_seqscans', 'off', true),
                          set_config('max_parallel_workers_per_gather', '0', true),
                          set_config('synchronous_commit', 'off', true)";
        self.session.ask(sql, &[text(&marker)]).await.map(|_| ())
    }

    /// Writes the rows and commits. `next` is where the part is then.
    pub(super) async fn fill(
        &self,
        job: &Job<'_>,
        aim: &Aim<'_>,
        timeouts: Timeouts,
        next: Option<&Part>,
    ) -> Result<Filled> {
        match &job.filling {
            None => Box::pin(self.fill_in_sql(job, aim, next)).await,
            Some(filling) => Box::pin(self.fill_computed(job, aim, filling, timeouts, next)).await,
        }
    }

    async fn fill_in_sql(&self, job: &Job<'_>, aim: &Aim<'_>, next: Option<&Part>) -> Result<Filled> {
        let Aim { leaf, predicate, batches, skipping, counting, .. } = *aim;
        let sql = if skipping {
            batches.sql_skipping_locked(&leaf.sql, predicate)
        } else {
            batches.sql(&leaf.sql, predicate)
        };
        tracing::trace!(target: "phasewise", sql, "batch");
        let begun = Instant::now();
        let (noted, before, wrote, after, committed) = join5(
            self.keep(job, next),
            self.in_place(leaf, counting),
            self.session.simple_query(&sql),
            self.in_place(leaf, counting),
            self.session.send("committing a batch", "COMMIT"),
        )
        .await;
        noted?;
        let before = before?;
        let wrote = wrote.map_err(|error| failed(job, leaf, predicate, error))?;
        let in_place = u64::try_from(after? - before).unwrap_or(0);
        committed?;
        Ok(Filled { wrote: rows(&wrote), in_place, took: begun.elapsed(), computing: Duration::ZERO })
    }

    /// The same with values that Rust computes, between two transactions: it may take its time.
    async fn fill_computed(
        &self,
        job: &Job<'_>,
        aim: &Aim<'_>,
        filling: &Filling,
        timeouts: Timeouts,
        next: Option<&Part>,
    ) -> Result<Filled> {
        let Aim { leaf, predicate, batches, skipping, .. } = *aim;
        let sql = filling.query(&leaf.sql, predicate, batches);
        let read = self.session.query_typed(&sql, &[]);
        let (rows, ended) = join(read, self.session.send("ending a read", "COMMIT")).await;
        let rows = rows.map_err(|error| failed(job, leaf, predicate, error))?;
        ended?;
        let found: Vec<Found> = rows.iter().map(Found::of).collect::<Result<_>>()?;
        if let (Some(read), [only]) = (aim.read, &*found) {
            *read.lock().unwrap_or_else(PoisonError::into_inner) = Some(only.key.clone());
        }
        let begun = Instant::now();
        let Computed { rows: places, values, failed: failures } =
            filling.function.compute(rows, job.may_still_set_aside()).await;
        let computing = begun.elapsed();
        let mut aside = AsideForNow::new(job);
        for (place, said) in failures {
            let (key, row) = match found.get(place) {
                Some(found) => (found.key.clone(), found.row.clone()),
                None => continue,
            };
            let error = Error::new(Kind::Backfill, format!("the function given to .compute(…) said: {said}"));
            aside.put(key, row, error)?;
        }
        let tuples: Vec<&str> =
            places.iter().filter_map(|place| found.get(*place)).map(|found| found.tuple.as_str()).collect();
        let writers: Vec<&str> =
            places.iter().filter_map(|place| found.get(*place)).map(|found| found.writer.as_str()).collect();

        let begun = Instant::now();
        let (again, marked) = join(self.begin(timeouts), self.mark(batches)).await;
        again?;
        if let Err(error) = marked {
            return self.finish(Err(error)).await;
        }
        let sql = filling.update(&leaf.sql, batches, skipping);
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&tuples, Type::TEXT_ARRAY), (&writers, Type::TEXT_ARRAY), (&*values, filling.array.clone())];
        let wrote = async {
            for aside in aside.rows() {
                self.ledger.put_aside(&self.session, job.at, aside).await?;
            }
            let (noted, wrote) = join(self.keep(job, next), self.session.query_typed(&sql, &params)).await;
            noted.and(wrote.map_err(|error| failed(job, leaf, predicate, error)))
        }
        .await;
        let wrote = self.finish(wrote).await?;
        let written: HashSet<String> = wrote.iter().map(|row| get(row, "tuple")).collect::<Result<_>>()?;
        self.tell_aside(job, aside);
        // What was locked is come back to, range by range.
        if !skipping {
            let missed = places.iter().filter_map(|place| found.get(*place));
            job.miss(
                missed
                    .filter(|found| !written.contains(&found.tuple))
                    .map(|found| Wrong { key: found.key.clone(), row: found.row.clone() }),
            );
        }
        let wrote = u64::try_from(written.len()).unwrap_or(0);
        Ok(Filled { wrote, in_place: 0, took: begun.elapsed(), computing })
    }

    /// Rows that this transaction has written in their own page, as the statistics count them; or those of more than
    /// this transaction: it is the difference that counts.
    async fn in_place(&self, leaf: &Leaf, counting: bool) -> Result<i64> {
        if !counting {
            return Ok(0);
        }
        let sql = "SELECT pg_catalog.pg_stat_get_xact_tuples_hot_updated($1) AS rows";
        let rows = self.session.ask(sql, &[(&leaf.oid, Type::OID)]).await?;
        rows.first().map_or(Ok(0), |row| get::<Option<i64>>(row, "rows").map(Option::unwrap_or_default))
    }

    async fn keep(&self, job: &Job<'_>, part: Option<&Part>) -> Result<()> {
        match part {
            Some(part) => self.ledger.set_part(&self.session, job.at, job.id, part).await,
            None => Ok(()),
        }
    }
}

/// Rows to look at in all: what is behind us says more of a relation than an old estimate.
fn estimate(leaf: &Leaf, part: &Part, range: &Range) -> Option<i64> {
    let known = part.estimate.or(leaf.estimate);
    match &range.next {
        Spot::Tuple { first, page, item, until } => {
            // Of whole pages: a page that is begun says little, and less the fewer there are.
            let (behind, all) = ((page - first).min(until - first), (until - first).max(1));
            let done = part.done + range.rows;
            if range.last && part.done == 0 {
                return Some(done);
            }
            if behind < 1 || known.is_some() && behind * 20 < all {
                return known;
            }
            let begun = i64::from(*item).min(done / behind);
            Some(whole(float(done - begun) * float(all) / float(behind)))
        }
        Spot::Key(_) => known,
    }
}

pub(super) fn rows(messages: &[SimpleQueryMessage]) -> u64 {
    let written = messages.iter().map(|message| match message {
        SimpleQueryMessage::CommandComplete(rows) => *rows,
        _ => 0,
    });
    written.sum()
}

pub(super) fn failed(job: &Job<'_>, leaf: &Leaf, predicate: &str, error: tokio_postgres::Error) -> Error {
    Error::postgres_said(
        format_args!(
            "migration {}, phase {}: backfill of {}, rows {predicate}",
            job.at.migration, job.at.phase, leaf.sql
        ),
        error,
    )
}
