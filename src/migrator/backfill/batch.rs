//! One batch: a short transaction that fills the rows of a range, with the cursor in it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::future::{join, join3};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use super::compute::{Computed, Filling, Found};
use super::job::{Job, names, sets_aside, table_sql};
use super::leaves::Leaf;
use super::pace::{Lap, Pace, float, whole};
use super::range::{self, Range};
use super::verification::Wrong;
use crate::error::{Error, Kind, Result};
use crate::migrator::connect::{Sql as _, get, text};
use crate::migrator::events::Event;
use crate::migrator::ledger::{Aside, Control, Direction, Part, Spot};
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

/// The rows that a statement is about, and how they are written.
struct Aim<'a> {
    leaf: &'a Leaf,
    predicate: &'a str,
    batches: &'a Batches,
    /// Whether rows that others have locked are left out.
    skipping: bool,
}

impl Worker<'_> {
    /// One batch, tried until it is done. `None` if the migration was paused.
    pub(super) async fn batch(
        &self,
        job: &Job<'_>,
        leaf: &Leaf,
        part: &Part,
        pace: &mut Pace,
    ) -> Result<Option<Done>> {
        let mut tries = Tries::new(self.migrator, "a batch");
        if job.policy.yield_to_clients {
            tries = tries.counting_those_behind();
        }
        let mut skipping = false;
        loop {
            let timeouts = self.batch_timeouts(&tries);
            let attempt = self.attempt_batch(job, leaf, part, pace.size(), timeouts, skipping);
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
                        pace.too_long();
                    }
                    if is_of_a_row(&error) {
                        if pace.size() > 1 {
                            // One of them fails: found by halves.
                            pace.cut();
                            continue;
                        }
                        return self.failing_row(job, leaf, part, error).await.map(Some);
                    }
                    if matches!(code, Some(SqlState::LOCK_NOT_AVAILABLE | SqlState::T_R_DEADLOCK_DETECTED)) {
                        skipping = !matches!(job.batches().work, Work::Copy { .. });
                    }
                    self.again(&mut tries, job.at, error).await?;
                }
            }
        }
    }

    /// Shorter than what Postgres takes to look for deadlocks: if one is about to be, it is ours that gives up.
    fn batch_timeouts(&self, tries: &Tries) -> Timeouts {
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
        size: i64,
        timeouts: Timeouts,
        skipping: bool,
    ) -> Result<Attempt> {
        let batches = job.batches();
        let end = range::query(leaf, &job.keys, &part.spot, size);
        let begun = self.begin(timeouts);
        let control = self.ledger.control(&self.session, job.at.migration);
        let read = join(self.mark(&batches), self.session.ask(&end, &[]));
        let (begun, control, (marked, end)) = join3(begun, control, read).await;
        begun?;
        let looked = marked
            .and(control)
            .and_then(|control| Ok((control, range::range(&end?, &job.keys, &part.spot, size)?)));
        let (control, range) = match looked {
            // A rollback holds the migration itself, so that nothing takes it forward again.
            Ok((control, _)) if control.paused && job.at.direction == Direction::Forward => {
                self.session.send("pausing", "ROLLBACK").await?;
                return Ok(Attempt::Paused);
            }
            Ok(looked) => looked,
            Err(error) => return self.finish(Err(error)).await,
        };
        let next = Part {
            spot: range.next.clone(),
            ended: range.last,
            done: part.done + range.rows,
            estimate: estimate(leaf, part, &range),
            size: Some(size),
            reason: None,
            ..part.clone()
        };
        let aim = Aim { leaf, predicate: &range.predicate, batches: &batches, skipping };
        let (wrote, took, computing) = match &job.filling {
            None => self.fill(job, &aim, Some(&next)).await?,
            Some(filling) => self.fill_computed(job, &aim, filling, timeouts, Some(&next)).await?,
        };
        if skipping {
            job.skip(leaf, &range.predicate);
        }
        let next = Part { written: next.written + i64::try_from(wrote).unwrap_or(0), ..next };
        let lap = Lap { rows: range.rows, full: range.full, took, computing, crowd: 0, busy: false };
        Ok(Attempt::Done(Box::new(Done { part: next, wrote, lap, control })))
    }

    /// In physical order, whatever the plan: no synchronized scan that starts in the middle, no parallel workers. And a
    /// commit that does not wait for the disk: a batch that a crash of the server undoes takes its cursor with it.
    async fn mark(&self, batches: &Batches) -> Result<()> {
        let marker = batches.marker.map_or(FILL, |marker| marker.value());
        let sql = "SELECT set_config('phasewise.backfill', $1, true), set_config('synchronize_seqscans', 'off', true),
                          set_config('max_parallel_workers_per_gather', '0', true),
                          set_config('synchronous_commit', 'off', true)";
        self.session.ask(sql, &[text(&marker)]).await.map(|_| ())
    }

    /// Writes the rows and commits. `next` is where the part is then.
    async fn fill(
        &self,
        job: &Job<'_>,
        aim: &Aim<'_>,
        next: Option<&Part>,
    ) -> Result<(u64, Duration, Duration)> {
        let Aim { leaf, predicate, batches, skipping } = *aim;
        let sql = if skipping {
            batches.sql_skipping_locked(&leaf.sql, predicate)
        } else {
            batches.sql(&leaf.sql, predicate)
        };
        tracing::trace!(target: "phasewise", sql, "batch");
        let begun = Instant::now();
        let (noted, wrote, committed) = join3(
            self.keep(job, next),
            self.session.simple_query(&sql),
            self.session.send("committing a batch", "COMMIT"),
        )
        .await;
        noted?;
        let wrote = wrote.map_err(|error| failed(job, leaf, predicate, error))?;
        committed?;
        Ok((rows(&wrote), begun.elapsed(), Duration::ZERO))
    }

    /// The same with values that Rust computes, between two transactions: it may take its time.
    async fn fill_computed(
        &self,
        job: &Job<'_>,
        aim: &Aim<'_>,
        filling: &Filling,
        timeouts: Timeouts,
        next: Option<&Part>,
    ) -> Result<(u64, Duration, Duration)> {
        let Aim { leaf, predicate, batches, skipping } = *aim;
        let sql = filling.query(&leaf.sql, predicate, batches);
        let read = self.session.query_typed(&sql, &[]);
        let (rows, ended) = join(read, self.session.send("ending a read", "COMMIT")).await;
        let rows = rows.map_err(|error| failed(job, leaf, predicate, error))?;
        ended?;
        let found: Vec<Found> = rows.iter().map(Found::of).collect::<Result<_>>()?;
        let begun = Instant::now();
        let Computed { rows: places, values, failed: failures } =
            filling.function.compute(rows, job.may_still_set_aside()).await;
        let computing = begun.elapsed();
        let mut aside = Vec::new();
        for (place, said) in failures {
            let (key, row) = match found.get(place) {
                Some(found) => (found.key.clone(), found.row.clone()),
                None => continue,
            };
            let error = Error::new(Kind::Backfill, format!("the function given to .compute(…) said: {said}"));
            aside.push(self.may_set_aside(job, aside.len(), key, row, error)?);
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
            for aside in &aside {
                self.ledger.put_aside(&self.session, job.at, aside).await?;
            }
            let (noted, wrote) = join(self.keep(job, next), self.session.query_typed(&sql, &params)).await;
            noted.and(wrote.map_err(|error| failed(job, leaf, predicate, error)))
        }
        .await;
        let wrote = self.finish(wrote).await?;
        let written: HashSet<String> = wrote.iter().map(|row| get(row, "tuple")).collect::<Result<_>>()?;
        for aside in aside {
            self.tell_aside(job, &aside);
            job.set_aside(aside);
        }
        // What was locked is come back to, range by range.
        if !skipping {
            let missed = places.iter().filter_map(|place| found.get(*place));
            job.miss(
                missed
                    .filter(|found| !written.contains(&found.tuple))
                    .map(|found| Wrong { key: found.key.clone(), row: found.row.clone() }),
            );
        }
        Ok((u64::try_from(written.len()).unwrap_or(0), begun.elapsed(), computing))
    }

    async fn keep(&self, job: &Job<'_>, part: Option<&Part>) -> Result<()> {
        match part {
            Some(part) => self.ledger.set_part(&self.session, job.at, job.id, part).await,
            None => Ok(()),
        }
    }

    /// Writes the rows that `predicate` is true of, however their batch was walked.
    pub(super) async fn write(&self, job: &Job<'_>, leaf: &Leaf, predicate: &str, what: &str) -> Result<u64> {
        let batches = job.batches();
        let mut tries = Tries::new(self.migrator, what);
        let begun = Instant::now();
        let wrote = loop {
            let timeouts = self.batch_timeouts(&tries);
            let aim = Aim { leaf, predicate, batches: &batches, skipping: false };
            let attempt = async {
                let (begun, marked) = join(self.begin(timeouts), self.mark(&batches)).await;
                begun?;
                if let Err(error) = marked {
                    return self.finish(Err(error)).await;
                }
                match &job.filling {
                    None => self.fill(job, &aim, None).await,
                    Some(filling) => self.fill_computed(job, &aim, filling, timeouts, None).await,
                }
            };
            match self.watch(&mut tries, timeouts.lock, attempt).await {
                Ok((wrote, ..)) => break wrote,
                Err(error) => self.again(&mut tries, job.at, error).await?,
            }
        };
        job.wrote(wrote);
        if wrote > 0 {
            self.migrator.tell(&Event::RowsMended {
                migration: job.at.migration,
                phase: job.at.phase,
                relation: &leaf.sql,
                rows: wrote,
                took: begun.elapsed(),
            });
        }
        Ok(wrote)
    }

    /// A batch of one row that fails: reported by its key, or set aside.
    async fn failing_row(&self, job: &Job<'_>, leaf: &Leaf, part: &Part, error: Error) -> Result<Done> {
        let batches = job.batches();
        let end = range::query(leaf, &job.keys, &part.spot, 1);
        self.begin(self.own_timeouts()).await?;
        let looked = async {
            self.mark(&batches).await?;
            let range = range::range(&self.session.ask(&end, &[]).await?, &job.keys, &part.spot, 1)?;
            let (key, row) = names(&batches.keys);
            let sql = format!(
                "SELECT {key} AS key, {row} AS row FROM ONLY {} AS t WHERE {} LIMIT 1",
                leaf.sql, range.predicate
            );
            let rows = self.session.ask(&sql, &[]).await?;
            let named = rows.first().map(|row| Ok::<_, Error>((get(row, "key")?, get(row, "row")?)));
            Ok((range, named.transpose()?))
        }
        .await;
        let (range, named): (Range, Option<(String, Option<String>)>) = match looked {
            Ok(looked) => looked,
            Err(error) => return self.finish(Err(error)).await,
        };
        let (key, row) = named.unwrap_or_else(|| ("unknown".to_owned(), None));
        let aside = match self.may_set_aside(job, 0, key, row, error) {
            Ok(aside) => aside,
            Err(error) => return self.finish(Err(error)).await,
        };
        let next = Part { spot: range.next, ended: range.last, done: part.done + range.rows, ..part.clone() };
        let noted = async {
            self.ledger.put_aside(&self.session, job.at, &aside).await?;
            self.ledger.set_part(&self.session, job.at, job.id, &next).await
        }
        .await;
        self.finish(noted).await?;
        self.tell_aside(job, &aside);
        job.set_aside(aside);
        let (took, computing) = (Duration::ZERO, Duration::ZERO);
        let lap = Lap { rows: range.rows, full: true, took, computing, crowd: 0, busy: false };
        Ok(Done { part: next, wrote: 0, lap, control: Control::default() })
    }

    fn tell_aside(&self, job: &Job<'_>, aside: &Aside) {
        tracing::warn!(target: "phasewise", migration = job.at.migration, phase = job.at.phase, key = aside.key, error = aside.error, "a row is set aside");
        self.migrator.tell(&Event::RowSetAside {
            migration: job.at.migration,
            phase: job.at.phase,
            relation: &aside.relation,
            key: &aside.key,
            error: &aside.error,
        });
    }

    /// What is kept of a row that fails; or the error to stop with.
    fn may_set_aside(
        &self,
        job: &Job<'_>,
        more: usize,
        key: String,
        row: Option<String>,
        error: Error,
    ) -> Result<Aside> {
        let batches = job.batches();
        let relation = table_sql(&batches);
        let (most, already) = (job.most_aside(), job.aside().len() + more);
        match row {
            Some(row) if already < most && sets_aside(&batches) => {
                Ok(Aside { migration: job.at.migration.to_owned(), relation, key, row, error: said(&error) })
            }
            _ => {
                let advice = if most > 0 && already >= most {
                    format!(" {already} rows are set aside already.")
                } else if most > 0 {
                    " It cannot be set aside: there is no key to find it by again, or it would be lost."
                        .to_owned()
                } else {
                    String::new()
                };
                Err(Error::new(
                    Kind::Backfill,
                    format!(
                        "migration {}, phase {}: the row with {key} of {relation} cannot be filled: {}.{advice} Mend the row or the expression, then run again: it resumes there",
                        job.at.migration,
                        job.at.phase,
                        said(&error)
                    ),
                )
                .with_source(error))
            }
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

fn rows(messages: &[SimpleQueryMessage]) -> u64 {
    let written = messages.iter().map(|message| match message {
        SimpleQueryMessage::CommandComplete(rows) => *rows,
        _ => 0,
    });
    written.sum()
}

/// What Postgres, or a user's trigger, says of single rows.
pub(super) fn is_of_a_row(error: &Error) -> bool {
    // 54: a value that is too long for an index.
    let classes = ["21", "22", "23", "38", "39", "44", "54", "P0"];
    error.own_code().is_some_and(|code| classes.iter().any(|class| code.code().starts_with(class)))
}

/// What an error came from, in short.
fn said(error: &Error) -> String {
    match error.postgres().and_then(tokio_postgres::Error::as_db_error) {
        Some(db) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        None => error.to_string(),
    }
}

fn failed(job: &Job<'_>, leaf: &Leaf, predicate: &str, error: tokio_postgres::Error) -> Error {
    Error::postgres_said(
        format_args!(
            "migration {}, phase {}: backfill of {}, rows {predicate}",
            job.at.migration, job.at.phase, leaf.sql
        ),
        error,
    )
}
