//! From the ledger to a status and a plan.

use std::time::Duration;

use super::drive::Look;
use super::gates::Goal;
use super::ledger::{Book, Direction, Instance, Part, RETIRED, Record};
use super::planning::{self, Standing};
use super::references::{Found, shut};
use super::session::Session;
use super::settings::Migrator;
use super::status::{
    BackfillStatus, Confirmation, InstanceStatus, MigrationStatus, RowSetAside, State, Status, Unregistered,
};
use crate::error::Result;
use crate::migration::Entry;
use crate::plan::Plan;

impl Migrator {
    pub(super) async fn standing(&self) -> Result<Status> {
        let look = self.look().await?;
        let unregistered = match look.facts.has_ledger {
            true => look.ledger.unregistered(&look.conn).await?,
            false => Vec::new(),
        };
        let mut status = self.describe(&look, unregistered);
        if self.keep_archives.is_some() {
            for archive in self.list_archives(&look).await? {
                let of = status.migrations.iter_mut().find(|found| found.name == archive.migration);
                of.into_iter().for_each(|found| found.restorable_until = archive.expires);
            }
        }
        for migration in &mut status.migrations {
            let found = match (self.migrations.get(&migration.name), look.book.record(&migration.name)) {
                (Some(entry), Some(record)) => self.references_at(&look, entry, record).await?,
                _ => Found::default(),
            };
            migration.state = shut(migration.state.clone(), &found);
            migration.references = found.references;
            migration.notes = found.notes;
        }
        Ok(status)
    }

    fn describe(&self, look: &Look, unregistered: Vec<Unregistered>) -> Status {
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
        let instances = book.instances.iter().filter(|instance| instance.counts(self.grace));
        Status { migrations, instances: instances.map(instance).collect(), unregistered }
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
        let plan = async {
            let scope = &session.facts.scope;
            let mut plan = planning::plan(&session, scope, &standings).await?;
            for planned in &mut plan.migrations {
                let standing = standings.iter().find(|standing| standing.entry.name() == planned.name);
                let Some(Standing { entry, .. }) = standing else { continue };
                let ledger = session.facts.has_ledger.then_some(&ledger);
                let found = self.references_ahead(&session, scope, ledger, entry, &book).await?;
                planned.references = found.references;
            }
            Ok(plan)
        };
        let plan = plan.await;
        session.close();
        plan
    }
}

fn instance(found: &Instance) -> InstanceStatus {
    let listed = found.releases.iter().filter(|(_, release)| **release != RETIRED);
    InstanceStatus {
        id: found.id.clone(),
        service: found.service.clone(),
        releases: listed.map(|(name, release)| (name.clone(), *release)).collect(),
        started: found.started,
        seen: found.seen,
        live: found.is_live(),
        failed: found.failed.as_ref().map(|(error, _)| error.clone()),
    }
}

/// The loop under way, its parts taken together.
fn backfill(book: &Book, name: &str) -> Option<BackfillStatus> {
    let parts: Vec<&Part> = book.parts.iter().filter(|(of, _)| of == name).map(|(_, part)| part).collect();
    let at = parts.iter().find(|part| !part.ended).or(parts.last())?;
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    let sum = |of: fn(&Part) -> i64| count(parts.iter().map(|part| of(part)).sum());
    let done = sum(|part| part.done);
    let estimate: Option<i64> =
        parts.iter().map(|part| if part.ended { Some(part.done) } else { part.estimate }).sum();
    let estimate = estimate.map(|rows| count(rows).max(done));
    let open = || parts.iter().filter(|part| !part.ended);
    let rate: f64 = open().filter_map(|part| part.rate).sum();
    let rate = (rate > 0.0).then_some(rate);
    let left = estimate.zip(rate).map(|(estimate, rate)| {
        #[allow(clippy::cast_precision_loss, reason = "rows, for people")]
        let rows = (estimate - done) as f64;
        Duration::try_from_secs_f64(rows / rate).unwrap_or(Duration::MAX)
    });
    Some(BackfillStatus {
        relation: at.relation.clone(),
        pass: u32::try_from(at.pass).unwrap_or(1),
        done,
        written: sum(|part| part.written),
        estimate,
        rate,
        left,
        batch: at.size.map(count),
        workers: u32::try_from(open().filter(|part| part.token.is_some()).count()).unwrap_or(u32::MAX),
        reason: open().find_map(|part| part.reason.clone()),
    })
}

fn one(
    book: &Book,
    name: &str,
    record: Option<&Record>,
    entry: Option<&Entry>,
    state: State,
) -> MigrationStatus {
    let number = record.map_or(0, |record| record.entered);
    let phase = record.and_then(Record::here).map(|place| place.name.clone());
    MigrationStatus {
        name: name.to_owned(),
        phase,
        number,
        of: entry
            .map_or_else(|| record.map_or(0, |record| record.phases.len()), |entry| entry.phases().len()),
        window: book.window(name),
        release: entry.map(Entry::release),
        state,
        since: record.filter(|record| record.entered > 0).map(|record| record.since),
        backfill: backfill(book, name),
        set_aside: book
            .aside
            .iter()
            .filter(|aside| aside.migration == name)
            .map(|aside| RowSetAside {
                relation: aside.relation.clone(),
                key: aside.key.clone(),
                error: aside.error.clone(),
            })
            .collect(),
        restorable_until: None,
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
        references: Vec::new(),
        notes: Vec::new(),
    }
}
