//! From definitions and the live catalog to steps.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use super::gates::goes_first;
use super::snapshot::{self, Scope};
use crate::catalog::{Question, Snapshot, TableKind};
use crate::change::Touches;
use crate::error::{Error, Kind, Result};
use crate::ident::{TableName, quote};
use crate::migration::Entry;
use crate::phase::{Context, DynPhase, Rollback};
use crate::plan::{Plan, PlannedMigration, PlannedPhase, PlannedRollback, Steps, losses};
use crate::step::{Action, Batches, Probe, Step, Work};

/// What the ledger has saved for a migration, by key.
pub(crate) type Saved = BTreeMap<String, serde_json::Value>;

/// The steps that enter phase `index` (from 0), from a fresh snapshot.
pub(crate) async fn enter(
    client: &Client,
    scope: &Scope,
    entry: &Entry,
    index: usize,
    saved: &Saved,
) -> Result<Vec<Step>> {
    let phase = nth(entry, index)?;
    let snapshot = answered(client, scope, entry, &*phase, saved).await?;
    phase.enter(&Context::new(&snapshot, entry.name(), saved))
}

/// The rollback of phase `index` (from 0), from a fresh snapshot.
pub(crate) async fn rollback(
    client: &Client,
    scope: &Scope,
    entry: &Entry,
    index: usize,
    saved: &Saved,
) -> Result<Rollback> {
    let phase = nth(entry, index)?;
    let snapshot = answered(client, scope, entry, &*phase, saved).await?;
    phase.rollback(&Context::new(&snapshot, entry.name(), saved))
}

/// Refuses, before the first phase, what the catalog shows cannot be done: the change's own check, and every
/// phase's questions and steps. Gives the columns that a function of the application fills.
pub(crate) async fn refuse_early(client: &Client, scope: &Scope, entry: &Entry) -> Result<Vec<String>> {
    let saved = Saved::new();
    let snapshot = load(client, scope, entry).await?;
    let outlooks = unbegun(client, entry, snapshot, &saved).await?;
    Ok(outlooks.into_iter().flat_map(|outlook| outlook.computes).collect())
}

/// How far a migration has come.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) entry: &'static Entry,
    /// Whether a phase was entered, or has begun to be: then what is there may be its own.
    pub(crate) begun: bool,
    /// Phases entered so far; 0 before it begins.
    pub(crate) entered: usize,
    pub(crate) saved: Saved,
}

/// What is still to be done, as data. Reads only.
pub(crate) async fn plan(client: &Client, scope: &Scope, standings: &[Standing]) -> Result<Plan> {
    let mut plan = Plan::default();
    let unfinished = |standing: &&Standing| standing.entered < standing.entry.phases().len();
    for (place, standing) in standings.iter().filter(unfinished).enumerate() {
        let Standing { entry, begun, entered, saved } = standing;
        let phases = entry.phases();
        let touches = entry.touches();
        let first = standings.iter().filter(unfinished).enumerate().find(|(at, other)| {
            *at != place
                && goes_first(*at < place, other.begun, *begun)
                && other.entry.touches().overlaps(&touches, &scope.schema)
        });
        let (mut warnings, mut lost) = (Vec::new(), Vec::new());
        let outlooks = match first {
            Some((_, other)) => {
                let because = waits_for(other.entry.name(), &other.entry.touches(), &touches, scope);
                phases[*entered..].iter().map(|_| Outlook::unknown(&because)).collect()
            }
            None => {
                let mut snapshot = load(client, scope, entry).await?;
                lost = losses(&snapshot, entry.name(), &entry.drops());
                if !begun {
                    let warned = entry.warnings(&Context::new(&snapshot, entry.name(), saved));
                    // The reasons to refuse come first.
                    let outlooks = unbegun(client, entry, snapshot, saved).await?;
                    warnings = warned?;
                    outlooks
                } else {
                    let unasked = ask_all(client, entry, &mut snapshot, *entered, saved).await?;
                    outlook(entry, &snapshot, *entered, saved, unasked)?
                }
            }
        };
        let phases = outlooks.into_iter().zip(*entered..).map(|(outlook, index)| {
            PlannedPhase::new(phases[index], index + 1, phases.len(), outlook.steps, outlook.rollback)
        });
        plan.migrations
            .push(PlannedMigration::new(entry.name(), phases.collect()).warning(warnings).losing(lost));
    }
    Ok(plan)
}

/// What one phase would do, as far as the present catalog shows.
struct Outlook {
    steps: Steps,
    rollback: PlannedRollback,
    builds_in: Vec<String>,
    computes: Vec<String>,
}

impl Outlook {
    fn unknown(because: &str) -> Self {
        Self {
            steps: Steps::Unknown { because: because.to_owned() },
            rollback: PlannedRollback::Unknown { because: because.to_owned() },
            builds_in: Vec::new(),
            computes: Vec::new(),
        }
    }
}

/// Every phase of a migration that has not begun, or the reason why it must not.
async fn unbegun(
    client: &Client,
    entry: &Entry,
    mut snapshot: Snapshot,
    saved: &Saved,
) -> Result<Vec<Outlook>> {
    fit(&snapshot, entry)?;
    let unasked = ask_all(client, entry, &mut snapshot, 0, saved).await?;
    entry.check(&Context::new(&snapshot, entry.name(), saved))?;
    let outlooks = outlook(entry, &snapshot, 0, saved, unasked)?;
    for schema in outlooks.iter().flat_map(|outlook| &outlook.builds_in) {
        may_create(entry, &snapshot.schemas, &snapshot.role, schema)?;
    }
    Ok(outlooks)
}

/// Puts the questions of the phases from `from` on. A later phase may need what an earlier one makes before it can
/// ask; those are returned, by their index.
async fn ask_all(
    client: &Client,
    entry: &Entry,
    snapshot: &mut Snapshot,
    from: usize,
    saved: &Saved,
) -> Result<BTreeMap<usize, Error>> {
    let mut questions: Vec<Question> = Vec::new();
    let mut unasked = BTreeMap::new();
    for (index, phase) in entry.boxed_phases().iter().enumerate().skip(from) {
        match phase.questions(&Context::new(snapshot, entry.name(), saved)) {
            Ok(more) => questions.extend(more),
            Err(error) if index > from && error.kind() == Kind::Missing => {
                unasked.insert(index, error);
            }
            Err(error) => return Err(error),
        }
    }
    snapshot.answers = snapshot::ask(client, &questions).await?;
    Ok(unasked)
}

/// The phases from `from` on, computed from the catalog as it is.
///
/// A later phase may need what an earlier one makes, and is unknown then; what cannot be done for another reason
/// is an error.
fn outlook(
    entry: &Entry,
    snapshot: &Snapshot,
    from: usize,
    saved: &Saved,
    mut unasked: BTreeMap<usize, Error>,
) -> Result<Vec<Outlook>> {
    let phases = entry.boxed_phases();
    let mut saved = saved.clone();
    let mut outlooks = Vec::new();
    let (mut forth, mut back) = (Vec::new(), Vec::new());
    for (index, phase) in phases.iter().enumerate().skip(from) {
        if let Some(error) = unasked.remove(&index) {
            outlooks.push(Outlook::unknown(&not_yet(&error)));
            continue;
        }
        let (mut builds_in, mut computes) = (Vec::new(), Vec::new());
        let mut overtaken = false;
        let steps = match phase.enter(&Context::new(snapshot, entry.name(), &saved)) {
            Ok(mut steps) => {
                overtaken = without(&mut steps, &forth);
                for step in &steps {
                    match &step.action {
                        // As the ledger will do it: what is there already is kept.
                        Action::Save { key, value } => {
                            saved.entry(key.clone()).or_insert_with(|| value.clone());
                        }
                        Action::BuildIndex(build) => builds_in.push(build.schema.clone()),
                        Action::Batches(Batches { work: Work::Compute { column, .. }, .. }) => {
                            computes.push(column.clone());
                        }
                        _ => {}
                    }
                }
                let planned = Steps::known(&steps);
                forth.extend(steps);
                planned
            }
            Err(error) if index > from && error.kind() == Kind::Missing => {
                Steps::Unknown { because: not_yet(&error) }
            }
            Err(error) => return Err(error),
        };
        let rollback = match phase.rollback(&Context::new(snapshot, entry.name(), &saved)) {
            Ok(Rollback::Steps(mut steps)) => {
                // What an earlier phase takes away first is not there to be saved by this one.
                if overtaken {
                    without(&mut steps, &back);
                }
                let planned = PlannedRollback::steps(&steps);
                back.extend(steps);
                planned
            }
            Ok(Rollback::Irreversible(why)) => {
                PlannedRollback::Irreversible { reason: why.reason().to_owned() }
            }
            // It is computed before the phase itself: what it would undo is not there.
            Err(error) if error.kind() == Kind::Missing => {
                PlannedRollback::Unknown { because: not_yet(&error) }
            }
            Err(error) if error.kind() == Kind::Irreversible => {
                PlannedRollback::Irreversible { reason: error.to_string() }
            }
            Err(error) => return Err(error),
        };
        outlooks.push(Outlook { steps, rollback, builds_in, computes });
    }
    Ok(outlooks)
}

/// Leaves out the steps that an earlier phase has among its own: a probe would find them done by then. Says whether
/// there were any.
fn without(steps: &mut Vec<Step>, earlier: &[Step]) -> bool {
    let before = steps.len();
    steps.retain(|step| {
        let probed = matches!(step.probe, Probe::Sql(_));
        !(probed && earlier.iter().any(|done| done.action == step.action && done.probe == step.probe))
    });
    steps.len() < before
}

fn not_yet(error: &Error) -> String {
    format!("it depends on what an earlier phase makes ({error})")
}

fn waits_for(name: &str, other: &Touches, touches: &Touches, scope: &Scope) -> String {
    let schema_of = |table: TableName| table.schema().map_or(scope.schema.as_str(), |schema| schema.as_str());
    let created = touches.tables.iter().find_map(|mine| {
        let same = |theirs: &&crate::change::TouchedTable| {
            theirs.created
                && theirs.table.name() == mine.table.name()
                && schema_of(theirs.table) == schema_of(mine.table)
        };
        other.tables.iter().find(same).map(|_| mine.table)
    });
    match created {
        Some(table) => format!("table {table} is created by migration {name}, which comes first"),
        None if other.everything => {
            format!("migration {name}, which comes first, does not say what it touches, so it may touch this")
        }
        None => format!("migration {name}, which comes first, touches the same columns"),
    }
}

fn nth(entry: &Entry, index: usize) -> Result<Box<dyn DynPhase>> {
    let mut phases = entry.boxed_phases();
    if index >= phases.len() {
        return Err(Error::new(
            Kind::Unknown,
            format!(
                "migration {} has {} phases, and no phase {}: is the ledger another build's? Run the build that wrote it",
                entry.name(),
                phases.len(),
                index + 1
            ),
        ));
    }
    Ok(phases.swap_remove(index))
}

async fn load(client: &Client, scope: &Scope, entry: &Entry) -> Result<Snapshot> {
    let tables: Vec<TableName> = entry.touches().tables().collect();
    snapshot::load(client, scope, &tables).await
}

/// A fresh snapshot with the answers to the questions of `phase`.
async fn answered(
    client: &Client,
    scope: &Scope,
    entry: &Entry,
    phase: &dyn DynPhase,
    saved: &Saved,
) -> Result<Snapshot> {
    let mut snapshot = load(client, scope, entry).await?;
    let questions = phase.questions(&Context::new(&snapshot, entry.name(), saved))?;
    snapshot.answers = snapshot::ask(client, &questions).await?;
    Ok(snapshot)
}

/// Whether the touched tables are there, of a kind that can be migrated, and this role's to alter.
fn fit(snapshot: &Snapshot, entry: &Entry) -> Result<()> {
    let refuse = |kind, what: String| Err(Error::new(kind, format!("migration {}: {what}", entry.name())));
    let touches = entry.touches();
    if touches.unchecked {
        return Ok(());
    }
    for touched in &touches.tables {
        if touched.created {
            may_create(entry, &snapshot.schemas, &snapshot.role, snapshot.schema_of(touched.table))?;
            continue;
        }
        let Some(table) = snapshot.find(touched.table) else {
            let schema = snapshot.schema_of(touched.table);
            return refuse(
                Kind::Missing,
                if snapshot.schemas.contains_key(schema) {
                    format!(
                        "table {} does not exist: check the name, case included, create it in an earlier migration, or write its schema as \"schema.table\"",
                        snapshot.sql_name(touched.table)
                    )
                } else {
                    no_schema(schema)
                },
            );
        };
        if table.kind == TableKind::Other {
            return refuse(
                Kind::Unsupported,
                format!(
                    "{} is a view, a foreign table or the like: name an ordinary or partitioned table",
                    table.sql()
                ),
            );
        }
        if touched.referred {
            continue;
        }
        if table.is_partition {
            return refuse(
                Kind::Unsupported,
                format!(
                    "table {} is a partition, and its columns are its parent's: migrate the partitioned table instead",
                    table.sql()
                ),
            );
        }
        if !table.owned {
            let (owner, role) = (&table.owner, &snapshot.role);
            return refuse(
                Kind::Permission,
                format!(
                    "table {} belongs to {owner}, and role {role} may not alter it: connect as {owner}, or GRANT {owner} TO {role}",
                    table.sql()
                ),
            );
        }
    }
    Ok(())
}

fn may_create(entry: &Entry, schemas: &BTreeMap<String, bool>, role: &str, schema: &str) -> Result<()> {
    let (kind, what) = match schemas.get(schema) {
        Some(true) => return Ok(()),
        Some(false) => (
            Kind::Permission,
            format!(
                "role {role} may not create tables or indexes in schema {0}: GRANT CREATE ON SCHEMA {0} TO {role}",
                quote(schema)
            ),
        ),
        None => (Kind::Missing, no_schema(schema)),
    };
    Err(Error::new(kind, format!("migration {}: {what}", entry.name())))
}

fn no_schema(schema: &str) -> String {
    format!(
        "schema {} does not exist: create it first, or write another one as \"schema.table\"",
        quote(schema)
    )
}

#[cfg(all(test, feature = "testing"))]
mod tests;
