//! What a person says of a migration: short transactions, without the lease.

use std::collections::BTreeSet;
use std::time::Duration;

use super::drive::Look;
use super::fleet::{Subject, list};
use super::gates::unchanged;
use super::ledger::{Book, Direction, begin, finish};
use super::reach::Reach;
use super::settings::{Migrator, or_none, phase_of};
use crate::error::{Error, Kind, Result};
use crate::migration::Entry;

impl Migrator {
    pub(super) async fn vouch(&self, name: &str, phase: &str) -> Result<()> {
        let entry = self.entry(name)?;
        let index = phase_of(entry, phase)?;
        let Some(release) = entry.phases().get(index).and_then(|info| info.gate.release()) else {
            let deploys: Vec<_> = entry
                .phases()
                .iter()
                .filter(|info| info.gate.release().is_some())
                .map(|info| info.name)
                .collect();
            return Err(Error::new(
                Kind::GateClosed,
                format!(
                    "phase {phase} of migration {name} is no deploy phase: it waits for nobody. Deploy phases are {}",
                    or_none(&deploys)
                ),
            ));
        };
        let look = self.look().await?;
        look.ledger.listed(look.book.record(name), name)?;
        begin(&look.conn).await?;
        let vouched = self.vouch_locked(&look, entry, index, release).await;
        finish(&look.conn, vouched).await?;
        look.ledger.rouse(&look.conn).await?;
        self.count_when_vouched(&look, entry).await;
        Ok(())
    }

    async fn vouch_locked(&self, look: &Look, entry: &Entry, index: usize, release: u16) -> Result<()> {
        let name = entry.name();
        look.ledger.lock(&look.conn).await?;
        let book = look.ledger.read(&look.conn).await?;
        let record = look.ledger.listed(book.record(name), name)?;
        unchanged(entry, record)?;
        let phase = entry.phases().get(index).map_or("?", |info| info.name);
        let passed = record.entered > index + 1
            || record.entered == index + 1 && record.moving == Some(Direction::Forward);
        let here = record.entered == index + 1 && record.moving.is_none();
        if passed && record.moving != Some(Direction::Back) {
            return Ok(());
        }
        if !here {
            let standing = entry.standing(record.entered);
            return Err(Error::new(
                Kind::GateClosed,
                format!(
                    "phase {phase} of migration {name} cannot be confirmed: the schema stands in {}{}. Confirm it once it stands in {phase}",
                    standing.map_or("no phase yet", |info| info.name),
                    match record.moving {
                        None => "",
                        Some(Direction::Forward) => ", on the way to the next",
                        Some(Direction::Back) => ", which is being rolled back",
                    }
                ),
            ));
        }
        let fleet = self.fleet(&book, None);
        let older = fleet.older(&Subject::of(entry, &look.facts.scope.schema), release);
        if !older.is_empty() {
            return Err(Error::new(
                Kind::GateClosed,
                format!(
                    "phase {phase} of migration {name} waits for release {release}: {}. Stop what speaks less, or deploy it, then confirm",
                    list(&older)
                ),
            ));
        }
        look.ledger.confirm(&look.conn, name, phase).await
    }

    pub(super) async fn hold(&self, name: &str, paused: bool) -> Result<()> {
        let mut look = self.look().await?;
        let mut unlisted = None;
        // One that only the ledger knows may be held all the same.
        if look.book.record(name).is_none() {
            unlisted = Some(self.entry(name)?);
            if !paused {
                return Ok(());
            }
            self.found(&mut look).await?;
        }
        begin(&look.conn).await?;
        let held = async {
            if let Some(entry) = unlisted {
                let reach = Reach::of(&entry.touches(), &look.facts.scope.schema);
                look.ledger.put(&look.conn, entry, &reach).await?;
            }
            look.ledger.set_paused(&look.conn, name, paused).await
        }
        .await;
        finish(&look.conn, held).await?;
        look.ledger.rouse(&look.conn).await
    }

    pub(super) async fn forget(&self, service: &str) -> Result<()> {
        let look = self.look().await?;
        if !look.facts.has_ledger {
            return Err(never_registered(service, &look.book));
        }
        begin(&look.conn).await?;
        let forgotten = async {
            // No instance of it slips in meanwhile.
            look.ledger.lock(&look.conn).await?;
            let book = look.ledger.read(&look.conn).await?;
            let own: Vec<_> = book.instances.iter().filter(|found| found.service == service).collect();
            let live: Vec<_> =
                own.iter().filter(|found| found.counts(self.grace)).map(|found| found.id.as_str()).collect();
            if !live.is_empty() {
                return Err(Error::new(
                    Kind::GateClosed,
                    format!(
                        "service {service} has registered instances ({}): stop them first; what is live is never left out",
                        live.join(", ")
                    ),
                ));
            }
            let listed = look.ledger.forget_service(&look.conn, service).await?;
            if listed == 0 && own.is_empty() { Err(never_registered(service, &book)) } else { Ok(()) }
        }
        .await;
        finish(&look.conn, forgotten).await
    }

    /// Asks for another pace of a migration's backfills.
    pub(super) async fn set_pace(&self, name: &str, factor: f64, target: Option<Duration>) -> Result<()> {
        let look = self.look().await?;
        if look.book.record(name).is_none() {
            self.entry(name)?;
        }
        look.ledger.listed(look.book.record(name), name)?;
        look.ledger.set_pace(&look.conn, name, factor, target).await
    }

    pub(super) async fn accept(&self, name: &str) -> Result<()> {
        let entry = self.entry(name)?;
        let look = self.look().await?;
        look.ledger.listed(look.book.record(name), name)?;
        begin(&look.conn).await?;
        let accepted = async {
            look.ledger.lock(&look.conn).await?;
            let book = look.ledger.read(&look.conn).await?;
            let record = look.ledger.listed(book.record(name), name)?;
            let reached = record.entered + usize::from(record.moving == Some(Direction::Forward));
            let same = record.phases.iter().take(reached).map(|place| place.name.as_str());
            if !same.eq(entry.phases().iter().take(reached).map(|info| info.name))
                || record.done() && entry.phases().len() != record.phases.len()
            {
                return Err(Error::new(
                    Kind::Changed,
                    format!(
                        "migration {name} cannot take this build's definition: its phases, as far as it has gone, were {}, and are now {}. Roll it back with the old build first, or write a new migration",
                        record.phases.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", "),
                        entry.phases().iter().map(|p| p.name).collect::<Vec<_>>().join(", "),
                    ),
                ));
            }
            look.ledger.accept(&look.conn, entry).await
        }
        .await;
        finish(&look.conn, accepted).await?;
        tracing::warn!(target: "phasewise", migration = name, "an edited definition was accepted");
        Ok(())
    }
}

fn never_registered(service: &str, book: &Book) -> Error {
    let listed = book.listings.iter().map(|found| found.service.as_str());
    let known: BTreeSet<&str> =
        listed.chain(book.instances.iter().map(|found| found.service.as_str())).collect();
    let known: Vec<_> = known.into_iter().collect();
    Error::new(
        Kind::Unknown,
        format!("no service {service} ever registered: those that did are {}", or_none(&known)),
    )
}
