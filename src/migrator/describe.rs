//! From the ledger to a status and a plan.

use super::drive::Look;
use super::gates::Goal;
use super::ledger::{Book, Direction, Record};
use super::planning::{self, Standing};
use super::session::Session;
use super::settings::Migrator;
use super::status::{BackfillStatus, Confirmation, MigrationStatus, State, Status};
use crate::error::Result;
use crate::migration::Entry;
use crate::phase::Window;
use crate::plan::Plan;

impl Migrator {
    pub(super) async fn standing(&self) -> Result<Status> {
        let look = self.look().await?;
        Ok(self.describe(&look))
    }

    fn describe(&self, look: &Look) -> Status {
        let judge = self.judge(look, Goal::Open);
        let book = &look.book;
        let mut migrations: Vec<_> = self
            .migrations
            .iter()
            .map(|entry| {
                let state = judge.state(entry, self.assume_fresh);
                one(book, entry.name(), book.record(entry.name()), Some(entry), state)
            })
            .collect();
        for record in book.records.values().filter(|record| self.migrations.get(&record.name).is_none()) {
            migrations.push(one(book, &record.name, Some(record), None, State::Unknown));
        }
        Status { migrations }
    }

    pub(super) async fn make_plan(&self) -> Result<Plan> {
        let look = self.look().await?;
        self.judge(&look, Goal::Open).unchanged()?;
        // Under the driver's own settings, so that definitions read as they will when it runs.
        let Look { conn, facts, ledger, book } = look;
        let session = Session::new(conn, facts).await?;
        let mut standings = Vec::new();
        for entry in self.migrations.iter() {
            let record = book.record(entry.name());
            if record.is_some_and(Record::done) {
                continue;
            }
            let saved = match record {
                Some(_) => ledger.saved(&session, entry.name()).await?,
                None => planning::Saved::new(),
            };
            standings.push(Standing {
                entry,
                begun: record.is_some_and(Record::begun),
                // A phase that is half undone is entered again, as the judge says.
                entered: record.map_or(0, |record| {
                    record.entered.saturating_sub(usize::from(record.moving == Some(Direction::Back)))
                }),
                saved,
            });
        }
        let plan = planning::plan(&session, &session.facts.scope, &standings).await;
        session.close();
        plan
    }
}

fn one(
    book: &Book,
    name: &str,
    record: Option<&Record>,
    entry: Option<&Entry>,
    state: State,
) -> MigrationStatus {
    let number = record.map_or(0, |record| record.entered);
    let phase =
        record.and_then(|record| record.phases.get(number.checked_sub(1)?)).map(|place| place.name.clone());
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    MigrationStatus {
        name: name.to_owned(),
        phase,
        number,
        of: entry
            .map_or_else(|| record.map_or(0, |record| record.phases.len()), |entry| entry.phases().len()),
        window: record.map_or(Window { lo: 0, hi: 0 }, Record::window),
        release: entry.map(Entry::release),
        state,
        since: record.filter(|record| record.entered > 0).map(|record| record.since),
        backfill: book.backfills.iter().rfind(|backfill| backfill.migration == name).map(|backfill| {
            BackfillStatus {
                relation: backfill.relation.clone(),
                pass: u32::try_from(backfill.pass).unwrap_or(1),
                done: count(backfill.done),
                estimate: backfill.estimate.map(count),
            }
        }),
        confirmations: book
            .confirmed
            .iter()
            .filter(|confirmed| confirmed.migration == name)
            .map(|confirmed| Confirmation {
                phase: confirmed.phase.clone(),
                at: confirmed.at,
                by: confirmed.by.clone(),
            })
            .collect(),
    }
}
