//! The triggers that keep both columns equal.

use super::{Replace, carried};
use crate::catalog::{Column, Question};
use crate::error::Result;
use crate::phase::{Context, Phase, Rollback, Window};
use crate::step::Step;
use crate::steps::{sync, trial};

/// Installs the sync triggers: whoever writes one column has the other written for them.
#[derive(Clone, Copy, Debug)]
pub struct InstallSync(pub(crate) Replace);

impl Phase for InstallSync {
    const NAME: &'static str = "InstallSync";
    const WINDOW: Window = Window::new(0, 0);

    fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
        carried::value_questions(&self.0, cx)
    }

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        let (_, source) = self.0.source_in(cx.snapshot)?;
        install(&self.0, cx, source)
    }

    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        remove(&self.0, cx).map(Rollback::Steps)
    }
}

/// The triggers with their functions.
pub(super) fn install(replace: &Replace, cx: &Context<'_>, source: &Column) -> Result<Vec<Step>> {
    let table = cx.snapshot.table(replace.table)?;
    let values = replace.values(cx, source)?;
    let settled = match &replace.retype {
        None => true,
        Some(retype) => {
            let sql = table.sql();
            trial::expr_answer(cx, &sql, &retype.up, replace.target.as_str())?.settled
                && trial::expr_answer(cx, &sql, &retype.down, replace.source.as_str())?.settled
        }
    };
    let (new_target, new_source) = (values.target_of("NEW"), values.source_of("NEW"));
    let (old_target, old_source) = (values.target_of("OLD"), values.source_of("OLD"));
    let target_changed = values.target_changed(&new_target, &old_target);
    let source_changed = values.source_changed(&new_source, &old_source);
    let (up, down) = (values.up("NEW"), values.down("NEW"));
    // An expression that a setting can change must not be evaluated in the WHEN clause, under the client's
    // settings: then the function decides, under its own.
    let off_after_batch = if settled { values.is_not_up(&new_target, &up) } else { "true".to_owned() };
    let sync = sync::Sync {
        table,
        ledger_schema: &cx.snapshot.ledger_schema,
        schema: &cx.snapshot.schema,
        source: replace.source.as_str(),
        target: replace.target.as_str(),
        fixed_settings: !settled,
        // By the column, not by the type's name, which the client's search_path may not find.
        declared: format!("{}.{}%TYPE", table.sql(), replace.target.quoted()),
        insert: format!(
            "  pw_up := {up};\n  \
             IF {new_target} IS NOT NULL AND ({}) THEN\n    {new_source} := {down};\n  \
             ELSE\n    {new_target} := pw_up;\n  END IF;\n  RETURN NEW;",
            values.target_changed(&new_target, "pw_up")
        ),
        update: format!(
            "  IF {MARKER} <> 'forward' AND ({target_changed}) THEN\n    {new_source} := {down};\n  \
             ELSE\n    {new_target} := {up};\n  END IF;\n  RETURN NEW;"
        ),
        when: format!(
            "CASE {MARKER} WHEN 'forward' THEN {off_after_batch} WHEN 'backward' THEN false \
             ELSE ({target_changed}) OR ({source_changed}) OR ({new_target} IS NULL AND {new_source} IS NOT NULL) END"
        ),
    };
    Ok(sync.install())
}

/// Reads '' rather than null once a transaction that set it has ended.
const MARKER: &str = "COALESCE(pg_catalog.current_setting('phasewise.backfill', true), '')";

/// Removes triggers and functions.
pub(super) fn remove(replace: &Replace, cx: &Context<'_>) -> Result<Vec<Step>> {
    let table = cx.snapshot.table(replace.table)?;
    Ok(sync::remove(table, &cx.snapshot.ledger_schema, replace.source.as_str(), replace.target.as_str()))
}
