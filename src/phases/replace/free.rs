//! The phase that frees the source: nothing on it enforces anything any more, so that a stale value in it can
//! neither refuse a write nor cascade into live rows.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Replace, backfill, carried, install_sync, refusals};
use crate::catalog::{Column, Portrait, Question, Sequence, Table};
use crate::error::{Error, Kind, Result};
use crate::ident::literal;
use crate::phase::{Context, Gate, Phase, Rollback, Window};
use crate::step::{LockMode, Step};
use crate::steps::{column, on_all, portrait, sequence};

/// Frees the source, then waits until no release writes it any more: release 3 uses the target only.
#[derive(Clone, Copy, Debug)]
pub struct StopOldWrites(pub(crate) Replace);

/// Frees the source and removes the triggers: from here on it goes stale.
#[derive(Clone, Copy, Debug)]
pub struct RemoveSync(pub(crate) Replace);

impl Phase for StopOldWrites {
    const NAME: &'static str = "StopOldWrites";
    const WINDOW: Window = Window::new(2, 3);
    const GATE: Gate = Gate::fleet(3).and_soak().and_unreferenced();

    fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
        carried::value_questions(&self.0, cx)
    }

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        let (table, _) = self.0.source_in(cx.snapshot)?;
        let freed = Freed::of(&self.0, cx)?;
        let mut steps = freed.verify_and_save(&self.0, cx, table)?;
        steps.extend(freed.free(&self.0, cx, table)?);
        Ok(steps)
    }

    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        let (table, _) = self.0.source_in(cx.snapshot)?;
        let freed = Freed::saved(&self.0, cx)?;
        freed.rebuild(&self.0, cx, table).map(Rollback::Steps)
    }

    fn soak(&self) -> Option<Duration> {
        self.0.soak
    }
}

impl Phase for RemoveSync {
    const NAME: &'static str = "RemoveSync";
    const WINDOW: Window = Window::new(1, 1);

    fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
        carried::value_questions(&self.0, cx)
    }

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        let (table, _) = self.0.source_in(cx.snapshot)?;
        let freed = Freed::of(&self.0, cx)?;
        let mut steps = freed.verify_and_save(&self.0, cx, table)?;
        steps.extend(freed.free(&self.0, cx, table)?);
        steps.extend(install_sync::remove(&self.0, cx)?);
        Ok(steps)
    }

    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        let (table, _) = self.0.source_in(cx.snapshot)?;
        let freed = Freed::saved(&self.0, cx)?;
        // The triggers first: an insert that leaves the target out must find a default or a trigger.
        let mut steps = install_sync::install(&self.0, cx, &freed.portrait.column)?;
        steps.extend(freed.rebuild(&self.0, cx, table)?);
        Ok(Rollback::Steps(steps))
    }
}

const KEY: &str = "the source before it was freed";

/// The source as it was, with the default that the target was given.
#[derive(Debug, Serialize, Deserialize)]
struct Freed {
    portrait: Portrait,
    default: Option<String>,
}

impl Freed {
    /// As it was saved, if that has happened; else as it is.
    fn of(replace: &Replace, cx: &Context<'_>) -> Result<Self> {
        if let Some(saved) = cx.saved(KEY)? {
            return Ok(saved);
        }
        let (table, source) = replace.source_in(cx.snapshot)?;
        refusals::dependents(replace, table)?;
        let default = carried::default(replace, cx, source)?;
        Ok(Self { portrait: Portrait::of(table, replace.source.as_str())?, default })
    }

    fn saved(replace: &Replace, cx: &Context<'_>) -> Result<Self> {
        match cx.saved(KEY)? {
            Some(saved) => Ok(saved),
            // A plan for the way back, made before there is anything to go back from.
            None => Self::of(replace, cx),
        }
    }

    /// The columns are compared once: when freeing has begun, the source may go stale.
    fn verify_and_save(&self, replace: &Replace, cx: &Context<'_>, table: &Table) -> Result<Vec<Step>> {
        let value = serde_json::to_value(self).map_err(|error| {
            Error::new(Kind::LedgerDamaged, format!("the definition of the source cannot be saved: {error}"))
        })?;
        let save = Step::save(KEY, value);
        match cx.saved::<serde_json::Value>(KEY)? {
            Some(_) => Ok(vec![save]),
            None => Ok(vec![verify(replace, cx, table, &self.portrait.column)?, save]),
        }
    }

    fn free(&self, replace: &Replace, cx: &Context<'_>, table: &Table) -> Result<Vec<Step>> {
        let (source, target) = (replace.source.as_str(), replace.target.as_str());
        // Plain indexes and statistics stay until the source goes.
        let mut steps = portrait::free(table, &self.portrait.enforcing());
        let column = &self.portrait.column;
        if column.not_null && column.identity.is_none() {
            steps.extend(column::undo_not_null(table, source));
        }
        match (&column.identity, &column.sequence) {
            (Some(identity), Some(owned)) => {
                let data_type = sequence_type(replace, cx, column, owned)?;
                steps
                    .push(sequence::move_identity(table, source, target, *identity, owned, &data_type, None));
                steps.extend(column::undo_not_null(table, source));
            }
            (_, owned) => {
                if let (Some(_), Some(default)) = (&column.default, &self.default) {
                    steps.push(if replace.synced {
                        sequence::move_default(table, source, target, default)
                    } else {
                        column::drop_default(table, source)
                    });
                }
                if let Some(owned) = owned {
                    steps.push(sequence::own(table, owned, target));
                    let data_type = sequence_type(replace, cx, column, owned)?;
                    if data_type != owned.data_type {
                        steps.push(sequence::retype(owned, &data_type));
                    }
                }
            }
        }
        Ok(steps)
    }

    /// Fills the source again and gives back to it what it had, last freed first.
    fn rebuild(&self, replace: &Replace, cx: &Context<'_>, table: &Table) -> Result<Vec<Step>> {
        let column = &self.portrait.column;
        let source = replace.source.as_str();
        let values = replace.values(cx, column)?;
        let mut steps = Vec::new();
        if let Some(default) = column.default.as_ref().filter(|_| !replace.synced) {
            steps.push(column::set_default(table, source, default));
        }
        steps.push(backfill::backward(replace, table, &values));
        if column.not_null {
            let labels = self.portrait.not_null.as_ref().map(crate::catalog::Constraint::labels);
            steps.extend(column::set_not_null(table, source, cx.snapshot.server_version, labels));
        }
        if replace.synced {
            steps.extend(self.take_back_default(replace, table));
        }
        steps.extend(portrait::rebuild(table, &self.portrait.enforcing(), replace.retype.is_some()));
        Ok(steps)
    }

    /// Gives default, sequence or identity back to the source. It is filled and NOT NULL by now, which identity
    /// asks for; the triggers serve inserts that leave it out meanwhile.
    fn take_back_default(&self, replace: &Replace, table: &Table) -> Vec<Step> {
        let (source, target) = (replace.source.as_str(), replace.target.as_str());
        let column = &self.portrait.column;
        let mut steps = Vec::new();
        match (&column.identity, &column.sequence) {
            (Some(identity), Some(owned)) => {
                // The target's sequence; it is another one than the source had.
                let now = table.find(target).and_then(|target| target.sequence.as_ref()).unwrap_or(owned);
                let moved = Sequence { name: now.name.clone(), schema: now.schema.clone(), ..owned.clone() };
                steps.push(sequence::move_identity(
                    table,
                    target,
                    source,
                    *identity,
                    &moved,
                    &owned.data_type,
                    Some(owned),
                ));
            }
            (_, owned) => {
                if let Some(default) = &column.default {
                    steps.push(sequence::move_default(table, target, source, default));
                }
                if let Some(owned) = owned {
                    steps.push(sequence::own(table, owned, source));
                    steps.push(sequence::retype(owned, &owned.data_type));
                }
            }
        }
        steps
    }
}

/// The type that the sequence needs to serve the target.
fn sequence_type(replace: &Replace, cx: &Context<'_>, source: &Column, owned: &Sequence) -> Result<String> {
    let target = replace.values(cx, source)?.target.data_type;
    let fits = ["smallint", "integer", "bigint"].contains(&target.as_str());
    Ok(if fits { target } else { owned.data_type.clone() })
}

/// Refuses to go on while both columns are not equal on every row, by one snapshot.
fn verify(replace: &Replace, cx: &Context<'_>, table: &Table, source: &Column) -> Result<Step> {
    let disagree = replace.values(cx, source)?.disagree("t");
    let message = format!(
        "columns {} and {} of {} do not agree on every row: mend what writes only one of them, then run again",
        replace.source.quoted(),
        replace.target.quoted(),
        replace.table
    );
    let body = format!(
        "BEGIN IF EXISTS (SELECT 1 FROM {} AS t WHERE {disagree}) THEN RAISE EXCEPTION USING MESSAGE = {}; END IF; END",
        table.sql(),
        literal(&message)
    );
    let step = Step::long("verify that both columns agree", format!("DO {}", literal(&body))).scanning();
    Ok(on_all(step, table, LockMode::AccessShare))
}
