//! References to what is to be dropped, looked for before the gate to the drop opens.

mod catalog;
mod statement;
mod traffic;

use chrono::{DateTime, SecondsFormat, Utc};

use self::statement::Subject;
pub(super) use self::traffic::Seen;
use self::traffic::Traffic;
use super::connect::Conn;
use super::drive::Look;
use super::driver::Driver;
use super::gates::later;
use super::gates::unchanged;
use super::ledger::{Book, Direction, Ledger, Record};
use super::settings::{Migrator, or_none};
use super::snapshot::Scope;
use super::status::State;
use crate::error::{Error, Kind, Result};
use crate::ident::quote;
use crate::migration::Entry;
use crate::phase::Dropped;
use crate::reference::{Reference, ReferenceKind};

/// What was found, and what a person should know of the search.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) references: Vec<Reference>,
    pub(super) notes: Vec<String>,
}

impl Found {
    /// What keeps the gate shut.
    fn open(&self) -> Vec<Reference> {
        self.references.iter().filter(|found| found.acknowledged.is_none()).cloned().collect()
    }
}

/// A thing to be dropped, as it is called in this database.
#[derive(Clone, Debug)]
struct Target {
    schema: String,
    table: String,
    column: Option<String>,
    successor: Option<String>,
    /// The table and what inherits from it, as (schema, name).
    relations: Vec<(String, String)>,
    ledger_schema: String,
}

impl Target {
    /// What it is, for people.
    fn what(&self) -> String {
        let table = format!("{}.{}", quote(&self.schema), quote(&self.table));
        match &self.column {
            Some(column) => format!("column {} of {table}", quote(column)),
            None => format!("table {table}"),
        }
    }

    /// What is to be done with what reads it.
    fn remedy(&self) -> String {
        match &self.successor {
            Some(successor) => format!("recreate it with {}", quote(successor)),
            None => "recreate it without".to_owned(),
        }
    }

    fn subject(&self) -> Subject {
        Subject { relations: self.relations.clone(), column: self.column.clone() }
    }
}

/// What the phases behind a gate without references drop, if `entry` stands at one after `entered` phases.
fn behind_this_gate(entry: &Entry, entered: usize) -> Option<Vec<Dropped>> {
    let info = entry.standing(entered)?;
    behind(entry, entered).filter(|_| info.gate.needs_unreferenced())
}

/// The same for a gate that is still to come, or this one.
fn behind_any_gate(entry: &Entry, entered: usize) -> Option<Vec<Dropped>> {
    let from = entered.saturating_sub(1);
    let gates = entry.phases().iter().enumerate().skip(from);
    let (at, _) = gates.into_iter().find(|(_, info)| info.gate.needs_unreferenced())?;
    behind(entry, at + 1)
}

/// What the phases from that index on drop, if anything.
fn behind(entry: &Entry, from: usize) -> Option<Vec<Dropped>> {
    let phases = entry.boxed_phases();
    let dropped: Vec<Dropped> = phases.iter().skip(from).flat_map(|phase| phase.drops()).collect();
    (!dropped.is_empty()).then_some(dropped)
}

impl Migrator {
    /// Looks for references to `dropped`, now. Reads only. Statements are compared with those of `ledger`'s baselines;
    /// one that is from after `late` proves too little.
    async fn references_to(
        &self,
        conn: &Conn,
        scope: &Scope,
        ledger: Option<&Ledger>,
        name: &str,
        dropped: &[Dropped],
        late: Option<DateTime<Utc>>,
    ) -> Result<Found> {
        let targets = self.targets(conn, scope, dropped).await?;
        let mut found = Found::default();
        let mut add = |references: Vec<Reference>| {
            for reference in references {
                if !found.references.iter().any(|known| known.object == reference.object) {
                    found.references.push(reference);
                }
            }
        };
        for target in &targets {
            add(catalog::dependents(conn, target).await?);
            add(catalog::bodies(conn, target).await?);
        }
        let Some(ledger) = ledger else { return Ok(found) };
        let mut baselines = ledger.baselines(conn, name).await?;
        let first = baselines.is_empty();
        for (server, traffic) in self.traffic(conn, &targets).await? {
            let on = on(&server);
            match (traffic, baselines.remove(&server)) {
                (Traffic::Seen(now), Some((at, before))) => {
                    add(traffic::since(&before, &now, &on));
                    if late.is_some_and(|late| at > late) {
                        add(vec![traffic::counted_late(&on, at)]);
                    }
                    found.notes.push(format!(
                        "statements{on} are compared since {}",
                        at.to_rfc3339_opts(SecondsFormat::Secs, true)
                    ));
                }
                // Before the last use is over nothing is compared.
                (Traffic::Seen(_) | Traffic::Unreachable(_), None) if first => {}
                (Traffic::Seen(_), None) => {
                    found
                        .notes
                        .push(format!("statements{on} were not counted yet when the last use was over"));
                }
                (Traffic::Silent(why), None) => {
                    found.notes.push(format!("statements{on} are not compared: {why}"))
                }
                // What was counted once is not given up in silence.
                (Traffic::Silent(why), Some(_)) | (Traffic::Unreachable(why), _) => {
                    add(vec![traffic::unreachable(&on, &why)]);
                }
            }
        }
        for server in baselines.keys() {
            let why =
                "they were counted when the last use was over, and this migrator does not name that replica";
            add(vec![traffic::unreachable(&on(server), why)]);
        }
        let acknowledged = ledger.acknowledgements(conn, name).await?;
        for reference in &mut found.references {
            reference.acknowledged = acknowledged
                .iter()
                .find(|known| known.object == reference.object && !reference.blocks)
                .cloned();
        }
        Ok(found)
    }

    async fn targets(&self, conn: &Conn, scope: &Scope, dropped: &[Dropped]) -> Result<Vec<Target>> {
        let mut targets = Vec::new();
        for dropped in dropped {
            let schema =
                dropped.table.schema().map_or_else(|| scope.schema.clone(), |name| name.as_str().to_owned());
            let table = dropped.table.name().as_str().to_owned();
            let relations = catalog::family(conn, &schema, &table).await?;
            // Gone by itself, it has no references.
            if !relations.is_empty() {
                targets.push(Target {
                    schema,
                    table,
                    column: dropped.column.map(|name| name.as_str().to_owned()),
                    successor: dropped.successor.map(|name| name.as_str().to_owned()),
                    relations,
                    ledger_schema: scope.ledger_schema.clone(),
                });
            }
        }
        Ok(targets)
    }

    /// What the server and the named replicas say of statements; the server has no name.
    async fn traffic(&self, conn: &Conn, targets: &[Target]) -> Result<Vec<(String, Traffic)>> {
        let here = match traffic::here(conn, targets).await {
            Err(error) if error.kind() == Kind::Permission => Traffic::Silent(error.to_string()),
            asked => asked?,
        };
        let mut all = vec![(String::new(), here)];
        let replicas = self
            .replicas
            .iter()
            .map(|replica| async move { (replica.name.clone(), traffic::there(replica, targets).await) });
        all.extend(futures_util::future::join_all(replicas).await);
        Ok(all)
    }

    /// From when on it is too late to begin to compare: half of the soak has gone by.
    fn late(&self, entry: &Entry, book: &Book) -> Option<DateTime<Utc>> {
        let record = book.record(entry.name())?;
        let index = record.entered.checked_sub(1)?;
        let soak = entry.phases().get(index)?.gate.soaks().then(|| self.soak_of(entry, index))?;
        (!soak.is_zero()).then(|| later(book.last_use(record), soak / 2))
    }

    /// Counts the statements anew, if the last use is over since the last count: what they are compared with later.
    async fn count_statements(
        &self,
        conn: &Conn,
        scope: &Scope,
        ledger: &Ledger,
        at: Place<'_>,
    ) -> Result<()> {
        let Place { entry, record, book } = at;
        let Some(dropped) = behind_this_gate(entry, record.entered) else { return Ok(()) };
        let since = book.last_use(record);
        let known = ledger.baselines(conn, entry.name()).await?;
        let is_known = |server: &str| known.get(server).is_some_and(|(at, _)| *at >= since);
        if is_known("") && self.replicas.iter().all(|replica| is_known(&replica.name)) {
            return match record.counted {
                Some(at) if at >= since => Ok(()),
                _ => ledger.counted(conn, entry.name(), book.now).await,
            };
        }
        let targets = self.targets(conn, scope, &dropped).await?;
        for (server, traffic) in self.traffic(conn, &targets).await? {
            match traffic {
                Traffic::Seen(seen) if !is_known(&server) => {
                    ledger.set_baseline(conn, entry.name(), &server, book.now, &seen).await?;
                }
                Traffic::Seen(_) => {}
                Traffic::Silent(why) | Traffic::Unreachable(why) => {
                    tracing::debug!(target: "phasewise", migration = entry.name(), server, why, "no statements");
                }
            }
        }
        ledger.counted(conn, entry.name(), book.now).await
    }

    /// The references of a migration that stands at a gate without references; nothing where it does not.
    pub(super) async fn references_at(&self, look: &Look, entry: &Entry, record: &Record) -> Result<Found> {
        match behind_this_gate(entry, record.entered) {
            Some(dropped) if record.moving.is_none() && !self.assume_fresh => {
                let scope = &look.facts.scope;
                let late = self.late(entry, &look.book);
                self.references_to(&look.conn, scope, Some(&look.ledger), entry.name(), &dropped, late).await
            }
            _ => Ok(Found::default()),
        }
    }

    /// The references that a gate of a migration will ask for, or asks for now.
    pub(super) async fn references_ahead(
        &self,
        conn: &Conn,
        scope: &Scope,
        ledger: Option<&Ledger>,
        entry: &Entry,
        book: &Book,
    ) -> Result<Found> {
        let record = book.record(entry.name());
        // A phase that is half undone is entered again, as the judge says.
        let entered = record.map_or(0, |record| {
            record.entered.saturating_sub(usize::from(record.moving == Some(Direction::Back)))
        });
        match behind_any_gate(entry, entered) {
            Some(dropped) if !self.assume_fresh => {
                let late = self.late(entry, book);
                let mut found = self.references_to(conn, scope, ledger, entry.name(), &dropped, late).await?;
                if behind_this_gate(entry, entered).is_none() {
                    // Those that do not block are taken away by a phase before the gate.
                    let stays = |found: &Reference| found.kind != ReferenceKind::ForeignKey || found.blocks;
                    found.references.retain(stays);
                }
                Ok(found)
            }
            _ => Ok(Found::default()),
        }
    }

    /// Counts the statements as soon as somebody vouched that the last use is over. What cannot be counted now is counted
    /// by the next driver.
    pub(super) async fn count_when_vouched(&self, look: &Look, entry: &Entry) {
        if let Err(error) = self.try_to_count(look, entry).await {
            tracing::warn!(target: "phasewise", migration = entry.name(), %error, "statements were not counted");
        }
    }

    async fn try_to_count(&self, look: &Look, entry: &Entry) -> Result<()> {
        let book = look.ledger.read(&look.conn).await?;
        match book.record(entry.name()).filter(|record| record.moving.is_none()) {
            Some(record) => {
                let at = Place { entry, record, book: &book };
                self.count_statements(&look.conn, &look.facts.scope, &look.ledger, at).await
            }
            None => Ok(()),
        }
    }

    pub(super) async fn excuse(&self, name: &str, object: &str) -> Result<()> {
        let entry = self.entry(name)?;
        let look = self.look().await?;
        let record = look.ledger.listed(look.book.record(name), name)?;
        unchanged(entry, record)?;
        let (conn, scope) = (&look.conn, &look.facts.scope);
        let found = self.references_ahead(conn, scope, Some(&look.ledger), entry, &look.book).await?;
        let Some(reference) = found.references.iter().find(|found| found.object == object) else {
            let known: Vec<String> =
                found.references.iter().map(|found| format!("\"{}\"", found.object)).collect();
            return Err(Error::new(
                Kind::Unknown,
                format!(
                    "nothing is called \"{object}\" among what refers to that which migration {name} drops: acknowledge one of {}",
                    or_none(&known)
                ),
            ));
        };
        if reference.blocks {
            return Err(Error::new(
                Kind::GateClosed,
                format!(
                    "{object} cannot be acknowledged for migration {name}: while it is there the drop cannot be done. It {}",
                    reference.detail
                ),
            ));
        }
        look.ledger.acknowledge(conn, name, object).await?;
        look.ledger.rouse(conn).await?;
        tracing::info!(target: "phasewise", migration = name, object, "a reference was acknowledged");
        Ok(())
    }
}

/// Where a migration stands, by the book.
#[derive(Clone, Copy)]
struct Place<'a> {
    entry: &'a Entry,
    record: &'a Record,
    book: &'a Book,
}

impl Driver<'_> {
    /// Counts the statements once the last use is over: from there on they are compared.
    pub(super) async fn begin_to_compare(&self, entry: &Entry, book: &Book) -> Result<()> {
        let Some(record) = book.record(entry.name()).filter(|record| record.moving.is_none()) else {
            return Ok(());
        };
        let at = Place { entry, record, book };
        self.migrator.count_statements(&self.session, &self.session.facts.scope, &self.ledger, at).await
    }

    /// Looks for references before the phase of that index is entered. Gives what keeps it shut, if anything does.
    pub(super) async fn referenced(&self, entry: &Entry, index: usize, book: &Book) -> Result<Option<State>> {
        let stands = book.record(entry.name()).is_some_and(|record| record.moving.is_none());
        let Some(dropped) = behind_this_gate(entry, index).filter(|_| stands) else { return Ok(None) };
        self.begin_to_compare(entry, book).await?;
        let late = self.migrator.late(entry, book);
        let scope = &self.session.facts.scope;
        let found = self
            .migrator
            .references_to(&self.session, scope, Some(&self.ledger), entry.name(), &dropped, late)
            .await?;
        let open = found.open();
        Ok((!open.is_empty()).then_some(State::Referenced { references: open }))
    }
}

/// The state of a migration whose gate is open but for these.
pub(super) fn shut(state: State, found: &Found) -> State {
    let open = found.open();
    match state {
        State::InProgress if !open.is_empty() => State::Referenced { references: open },
        state => state,
    }
}

/// Where, for people.
fn on(server: &str) -> String {
    if server.is_empty() { String::new() } else { format!(" on replica {server}") }
}
