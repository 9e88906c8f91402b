//! Rows that a batch fails on: reported by their keys, or set aside.

use std::time::Duration;

use futures_util::future::join;

use super::batch::{Done, failed, rows};
use super::job::{Job, names, sets_aside, table_sql};
use super::leaves::Leaf;
use super::pace::Lap;
use super::range::{self, Extent};
use crate::error::{Error, Kind, Result};
use crate::migrator::connect::{Sql as _, get};
use crate::migrator::events::Event;
use crate::migrator::ledger::{Aside, Control, Part};
use crate::migrator::locks::Tries;
use crate::migrator::worker::Worker;

/// Rows that are set aside once their transaction has committed. Dropped before that, they are not.
pub(super) struct AsideForNow<'j, 'a> {
    job: &'j Job<'a>,
    rows: Vec<Aside>,
}

impl<'j, 'a> AsideForNow<'j, 'a> {
    pub(super) fn new(job: &'j Job<'a>) -> Self {
        Self { job, rows: Vec::new() }
    }

    /// One more; or the error to stop with.
    pub(super) fn put(&mut self, key: String, row: Option<String>, error: Error) -> Result<()> {
        let (job, batches) = (self.job, self.job.batches());
        let relation = table_sql(&batches);
        let most = job.most_aside();
        let advice = match row {
            Some(row) if sets_aside(&batches) => {
                let aside = Aside {
                    migration: job.at.migration.to_owned(),
                    relation: relation.clone(),
                    key: key.clone(),
                    row,
                    error: said(&error),
                };
                match job.try_set_aside(aside.clone()) {
                    Ok(()) => {
                        self.rows.push(aside);
                        return Ok(());
                    }
                    Err(_) if most == 0 => String::new(),
                    Err(already) => format!(" {already} rows are set aside already."),
                }
            }
            _ if most == 0 => String::new(),
            _ => " It cannot be set aside: there is no key to find it by again, or it would be lost."
                .to_owned(),
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

    pub(super) fn rows(&self) -> &[Aside] {
        &self.rows
    }

    /// Their transaction has committed.
    fn keep(mut self) -> Vec<Aside> {
        std::mem::take(&mut self.rows)
    }
}

impl Drop for AsideForNow<'_, '_> {
    fn drop(&mut self) {
        for row in &self.rows {
            self.job.take_back_in(row);
        }
    }
}

impl Worker<'_> {
    /// A batch of one row that fails: reported by its key, or set aside. `None` if it is another row by now than the
    /// one of key `read`, and an error of locks if somebody has locked it.
    pub(super) async fn failing_row(
        &self,
        job: &Job<'_>,
        leaf: &Leaf,
        part: &Part,
        error: Error,
        read: Option<String>,
    ) -> Result<Option<Done>> {
        let batches = job.batches();
        let end = range::query(leaf, &job.keys, &part.spot, Extent::rows(1));
        let timeouts = self.batch_timeouts(&Tries::new(self.migrator, "a row"));
        self.begin(timeouts).await?;
        let looked = async {
            self.mark(&batches).await?;
            let found = self.session.ask(&end, &[]).await?;
            let range = range::range(&found, &job.keys, &part.spot, Extent::rows(1))?;
            let (key, row) = names(&batches.keys);
            let sql = format!(
                "SELECT {key} AS key, {row} AS row FROM ONLY {} AS t WHERE {} LIMIT 1",
                leaf.sql, range.predicate
            );
            let rows = self.session.ask(&sql, &[]).await?;
            let named = rows.first().map(|row| Ok::<_, Error>((get(row, "key")?, get(row, "row")?)));
            let (key, row) = named.transpose()?.unwrap_or_else(|| ("unknown".to_owned(), None));
            // The row that failed may have moved, and left the place to another one.
            let again = match &read {
                None => self.once_more(job, leaf, &range.predicate).await?,
                Some(read) if *read != key => return Ok(None),
                Some(_) => Err(error),
            };
            let mut next = Part {
                spot: range.next.clone(),
                ended: range.last,
                done: part.done + range.rows,
                ..part.clone()
            };
            let mut aside = AsideForNow::new(job);
            match again {
                Ok(wrote) => next.written += i64::try_from(wrote).unwrap_or(0),
                Err(error) => aside.put(key, row, error)?,
            }
            for aside in aside.rows() {
                self.ledger.put_aside(&self.session, job.at, aside).await?;
            }
            self.ledger.set_part(&self.session, job.at, job.id, &next).await?;
            Ok(Some((next, range.rows, aside)))
        }
        .await;
        let Some((next, rows, aside)) = self.finish(looked).await? else { return Ok(None) };
        self.tell_aside(job, aside);
        let wrote = u64::try_from(next.written - part.written).unwrap_or(0);
        let (took, computing) = (Duration::ZERO, Duration::ZERO);
        let lap = Lap { rows, size: 1, full: true, tells: true, took, computing, crowd: 0, busy: false };
        Ok(Some(Done { done: next.done, part: next, wrote, lap, control: Control::default() }))
    }

    /// Runs the batch's statement again, within the transaction that names the row: how many rows it writes, or what it
    /// says of one.
    async fn once_more(&self, job: &Job<'_>, leaf: &Leaf, predicate: &str) -> Result<Result<u64>> {
        self.session.send("a savepoint", "SAVEPOINT once_more").await?;
        let sql = job.batches().sql(&leaf.sql, predicate);
        // What is checked at the commit otherwise would take the name with it.
        let (wrote, checked) = join(
            self.session.simple_query(&sql),
            self.session.send("checking constraints", "SET CONSTRAINTS ALL IMMEDIATE"),
        )
        .await;
        let tried = wrote.map_err(|error| failed(job, leaf, predicate, error)).and_then(|wrote| {
            checked?;
            Ok(rows(&wrote))
        });
        match tried {
            Err(error) if is_of_a_row(&error) => {
                self.session.send("going back", "ROLLBACK TO SAVEPOINT once_more").await?;
                Ok(Err(error))
            }
            tried => tried.map(Ok),
        }
    }

    /// Their transaction has committed.
    pub(super) fn tell_aside(&self, job: &Job<'_>, aside: AsideForNow<'_, '_>) {
        for row in aside.keep() {
            tracing::warn!(target: "phasewise", migration = job.at.migration, phase = job.at.phase, key = row.key, error = row.error, "a row is set aside");
            self.migrator.tell(&Event::RowSetAside {
                migration: job.at.migration,
                phase: job.at.phase,
                relation: &row.relation,
                key: &row.key,
                error: &row.error,
            });
        }
    }
}

/// What Postgres, or a user's trigger, says of single rows.
pub(super) fn is_of_a_row(error: &Error) -> bool {
    // 54: a value that is too long for an index.
    let classes = ["20", "21", "22", "23", "2F", "38", "39", "44", "54", "P0"];
    error.own_code().is_some_and(|code| classes.iter().any(|class| code.code().starts_with(class)))
}

/// What an error came from, in short.
fn said(error: &Error) -> String {
    match error.postgres().and_then(tokio_postgres::Error::as_db_error) {
        Some(db) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        None => error.to_string(),
    }
}
