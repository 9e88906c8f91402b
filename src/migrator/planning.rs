//! From definitions and the live catalog to steps.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use super::snapshot::Scope;
use crate::error::Result;
use crate::migration::Entry;
use crate::phase::Rollback;
use crate::plan::Plan;
use crate::step::Step;

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
    let _ = (client, scope, entry, index, saved);
    Ok(Vec::new())
}

/// The rollback of phase `index` (from 0), from a fresh snapshot.
pub(crate) async fn rollback(
    client: &Client,
    scope: &Scope,
    entry: &Entry,
    index: usize,
    saved: &Saved,
) -> Result<Rollback> {
    let _ = (client, scope, entry, index, saved);
    Ok(Rollback::NOTHING)
}

/// Refuses, before the first phase, what the catalog shows cannot be done: the change's own check, and every
/// phase's questions and steps.
pub(crate) async fn refuse_early(client: &Client, scope: &Scope, entry: &Entry) -> Result<()> {
    let _ = (client, scope, entry);
    Ok(())
}

/// How far a migration has come.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) entry: &'static Entry,
    /// Phases entered so far; 0 before it begins.
    pub(crate) entered: usize,
    pub(crate) saved: Saved,
}

/// What is still to be done, as data. Reads only.
pub(crate) async fn plan(client: &Client, scope: &Scope, standings: &[Standing]) -> Result<Plan> {
    let _ = (client, scope, standings);
    Ok(Plan::default())
}
