//! The phase that fills the target and gives it all that hangs on the source.

use std::marker::PhantomData;

use super::values::Values;
use super::{Replace, Writer, carried, carried::Carried};
use crate::catalog::{Question, Table};
use crate::error::Result;
use crate::phase::{Context, Phase, Rollback, Window};
use crate::step::{Action, Batches, Marker, Step, Work};
use crate::steps::{column, walking};

/// Fills the target in batches that repair differences, verifies, then builds the source's indexes and constraints
/// on it.
///
/// Differences, not only nulls: an old release that writes the source after a new one wrote both leaves the target
/// stale, not null. And once more when the foreign keys are there: before that, a cascade wrote the source alone.
#[derive(Clone, Copy, Debug)]
pub struct Backfill<W>(pub(crate) Replace, PhantomData<W>);

impl<W> Backfill<W> {
    pub(crate) const fn new(replace: Replace) -> Self {
        Self(replace, PhantomData)
    }
}

/// Under this key the ledger keeps whether the source was NOT NULL before a lossy `down` made that impossible.
const SOURCE_NOT_NULL: &str = "whether the source was NOT NULL";

/// And under this one the name and comment of that NOT NULL, where it had them.
const SOURCE_LABELS: &str = "what the source's NOT NULL was called";

impl<W: Writer> Phase for Backfill<W> {
    const NAME: &'static str = "Backfill";
    const WINDOW: Window = W::FILLED;

    fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
        carried::questions(&self.0, cx)
    }

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        let (table, source) = self.0.source_in(cx.snapshot)?;
        let values = self.0.values(cx, source)?;
        let mut carried = carried::carried(&self.0, cx)?;
        let mut steps = Vec::new();
        let was_not_null = cx.saved(SOURCE_NOT_NULL)?.unwrap_or(source.not_null);
        if self.0.retype.is_some() {
            steps.push(Step::save(SOURCE_NOT_NULL, was_not_null.into()));
            carried.not_null = was_not_null;
            // An identity column cannot be null, so that its NOT NULL stays.
            if let Some(found) = table.not_null(&source.name).filter(|_| source.identity.is_none()) {
                steps.push(Step::save(SOURCE_LABELS, serde_json::json!(found.labels())));
            }
            carried.label_not_null(&self.0, cx.saved(SOURCE_LABELS)?);
        }
        steps.push(forward(&self.0, table, &values));
        let mut again = forward(&self.0, table, &values);
        again.summary = format!("repair what changed in {} alone meanwhile", self.0.source.quoted());
        steps.extend(carried.build(&self.0, table, cx.snapshot.server_version, Some(again)));
        // `down` may have no value for what the new release writes. The target's own NOT NULL, in force by now,
        // keeps a null out on either side.
        // An identity column cannot be null: its NOT NULL goes when the identity moves.
        if self.0.retype.is_some() && was_not_null && source.identity.is_none() {
            steps.extend(column::undo_not_null(table, &source.name));
        }
        Ok(steps)
    }

    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        let (table, source) = self.0.source_in(cx.snapshot)?;
        let mut steps = Vec::new();
        if cx.saved(SOURCE_NOT_NULL)?.unwrap_or(false) {
            let labels: Option<(String, Option<String>)> = cx.saved(SOURCE_LABELS)?;
            let labels = labels.as_ref().map(|(name, comment)| (name.as_str(), comment.as_deref()));
            steps.extend(column::set_not_null(table, &source.name, cx.snapshot.server_version, labels));
        }
        let carried: Carried = carried::carried(&self.0, cx)?;
        steps.extend(carried.remove(&self.0, table));
        Ok(Rollback::Steps(steps))
    }
}

/// Batches in which the source wins.
fn forward(replace: &Replace, table: &Table, values: &Values<'_>) -> Step {
    let summary = format!("backfill {} from {}", replace.target.quoted(), replace.source.quoted());
    let set = format!("{} = {}", replace.target.quoted(), values.up("t"));
    walking(Step::batches(summary, batches(table, set, values.disagree("t"), Marker::Forward)), table)
}

/// Batches in which the target wins, once and unverified: for a source that nothing reads yet, while a release may be
/// live that does not write it.
pub(super) fn backward_once(replace: &Replace, table: &Table, values: &Values<'_>) -> Step {
    let mut step = backward(replace, table, values);
    if let Action::Batches(batches) = &mut step.action {
        batches.verify = "false".to_owned();
    }
    step
}

/// Batches in which the target wins.
pub(super) fn backward(replace: &Replace, table: &Table, values: &Values<'_>) -> Step {
    let summary = format!("backfill {} from {}", replace.source.quoted(), replace.target.quoted());
    let set = format!("{} = {}", replace.source.quoted(), values.down("t"));
    walking(Step::batches(summary, batches(table, set, values.disagree("t"), Marker::Backward)), table)
}

fn batches(table: &Table, set: String, condition: String, marker: Marker) -> Batches {
    Batches {
        schema: table.schema.clone(),
        table: table.name.clone(),
        work: Work::Update { set, from: None },
        verify: condition.clone(),
        condition,
        keys: table.key().unwrap_or_default().into_iter().map(str::to_owned).collect(),
        marker: Some(marker),
    }
}
