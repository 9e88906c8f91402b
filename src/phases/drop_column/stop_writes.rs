//! The phase from which on rows are written without the column, and nothing on it refuses them.

use std::time::Duration;

use super::{DropSpec, domain};
use crate::catalog::{Constraint, ConstraintKind, Portrait, Question, Table};
use crate::error::Result;
use crate::ident::quote;
use crate::phase::{Context, Gate, Phase, Rollback, Window};
use crate::step::{Batches, Step, Work};
use crate::steps::archive::{self, key_without};
use crate::steps::{column, constraint, portrait, trial, walking};

/// What enforced something on the column, before it was freed.
const KEY: &str = "drop_column.enforced";

/// Nothing on the column refuses a row or cascades into one any more, so that the fleet can stop writing it: release 2.
/// Then it soaks.
///
/// Rolled back by filling what was written without it, and rebuilding what was freed.
#[derive(Clone, Copy, Debug)]
pub struct StopWrites {
    pub(crate) spec: DropSpec,
}

impl StopWrites {
    /// As it was saved, if that has happened; else as it is. A rollback that was given up half-way may have rebuilt
    /// any part of it.
    fn enforced(&self, cx: &Context<'_>, table: &Table) -> Result<Portrait> {
        match cx.saved(KEY)? {
            Some(saved) => Ok(saved),
            None => Ok(Portrait::of(table, self.spec.name.as_str())?.enforcing()),
        }
    }

    /// Gives a value to what was written without the column and must have one. Which null of a nullable column is
    /// meant only its checks tell.
    fn fill(&self, table: &Table, enforced: &Portrait) -> Option<Step> {
        let quoted = self.spec.name.quoted();
        let mut null = format!("t.{quoted} IS NOT DISTINCT FROM NULL");
        if !enforced.column.not_null {
            let checks = checks(enforced);
            let has_value = self.spec.restore_with.is_some() || enforced.column.default.is_some();
            if checks.is_empty() || !has_value {
                return None;
            }
            // A check names columns without an alias, or the whole row by the table's name.
            null = format!(
                "{null} AND EXISTS (SELECT 1 FROM (SELECT t.*) AS {} WHERE NOT ({}))",
                quote(&table.name),
                checks.join(" AND ")
            );
        }
        let value = self.spec.restore_with.map_or_else(|| "DEFAULT".to_owned(), |expr| expr.over("t"));
        let fill = Batches {
            schema: table.schema.clone(),
            table: table.name.clone(),
            work: Work::Update { set: format!("{quoted} = {value}"), from: None },
            condition: null.clone(),
            verify: null,
            keys: key_without(table, self.spec.name.as_str())
                .map(|keys| keys.into_iter().map(str::to_owned).collect())
                .unwrap_or_default(),
            marker: None,
        };
        let summary = format!("fill column {quoted} where it is null");
        Some(walking(Step::batches(summary, fill), table))
    }
}

/// What its checks say of a row. One that was never validated may be broken by rows that nobody is to touch.
fn checks(enforced: &Portrait) -> Vec<&str> {
    let checks = enforced.constraints.iter().filter(|found| found.kind == ConstraintKind::Check);
    checks
        .filter(|found| found.validated && !found.inherited)
        .map(|found| constraint::condition(&found.definition))
        .collect()
}

/// Whether there is anything to free.
fn enforces(portrait: &Portrait) -> bool {
    let Portrait { column, indexes, constraints, outgoing, .. } = portrait;
    let constraints = constraints.iter().any(|found| !found.inherited);
    column.not_null || constraints || !indexes.is_empty() || !outgoing.is_empty()
}

impl Phase for StopWrites {
    const NAME: &'static str = "StopWrites";
    const WINDOW: Window = Window::new(1, 2);
    const GATE: Gate = Gate::fleet(2).and_soak().and_unreferenced();

    fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
        let table = cx.snapshot.table(self.spec.table)?;
        let name = self.spec.name.as_str();
        if table.find(name).is_none() {
            return Ok(Vec::new());
        }
        let value = self.spec.restore_with;
        let value = value.map(|expr| trial::expr_question(&table.sql(), &expr, name, None, None));
        Ok(value.into_iter().chain([domain::question(table, name)]).collect())
    }

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        let table = cx.snapshot.table(self.spec.table)?;
        let name = self.spec.name.as_str();
        if let Some(expr) = &self.spec.restore_with {
            trial::expr_answer(cx, &table.sql(), expr, name)?;
        }
        if cx.saved::<Portrait>(KEY)?.is_none() {
            // Something may have come to hang on it that could not be rebuilt.
            self.spec.refuse_at_first(cx, table)?;
        }
        let enforced = self.enforced(cx, table)?;
        if !enforces(&enforced) {
            return Ok(Vec::new());
        }
        let mut steps = vec![Step::save(KEY, archive::json(&enforced)?)];
        steps.extend(portrait::free(table, &enforced));
        if enforced.column.not_null {
            steps.extend(column::undo_not_null(table, name));
        }
        Ok(steps)
    }

    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        let table = cx.snapshot.table(self.spec.table)?;
        let name = self.spec.name.as_str();
        if cx.saved::<Portrait>(KEY)?.is_none() && table.find(name).is_none() {
            return Ok(Rollback::NOTHING);
        }
        let enforced = self.enforced(cx, table)?;
        let mut steps: Vec<Step> = self.fill(table, &enforced).into_iter().collect();
        if enforced.column.not_null {
            let labels = enforced.not_null.as_ref().map(Constraint::labels);
            steps.extend(column::set_not_null(table, name, cx.snapshot.server_version, labels));
        }
        steps.extend(portrait::rebuild(table, &enforced, true));
        Ok(Rollback::Steps(steps))
    }

    fn soak(&self) -> Option<Duration> {
        self.spec.soak
    }
}
