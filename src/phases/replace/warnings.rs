//! What is no reason to refuse, but what a person should know before the first phase.

use super::Replace;
use crate::error::Result;
use crate::ident::quote;
use crate::phase::Context;
use crate::steps::archive::key_without;
use crate::steps::index;

pub(crate) fn warnings(replace: &Replace, cx: &Context<'_>) -> Result<Vec<String>> {
    let (table, source) = replace.source_in(cx.snapshot)?;
    let name = source.name.as_str();
    let mut warnings = Vec::new();
    for trigger in table.triggers.iter().filter(|trigger| names(&trigger.body, name)) {
        let unseen = if trigger.before { " never sees what only the new column was given, and" } else { "" };
        warnings.push(format!(
            "the function of trigger {}{unseen} breaks when column {} is dropped: make it read {} before that",
            quote(&trigger.name),
            source.sql(),
            replace.target.quoted()
        ));
    }
    for key in index::unique_over(table, name) {
        warnings.push(format!(
            "{key} stands on both columns while both are kept: concurrent upserts with ON CONFLICT on one of them can fail with 23505 on the other"
        ));
    }
    if replace.synced && source.default.is_some() {
        warnings.push(format!(
            "an explicit NULL that the new release inserts into {} becomes the default of {} until the triggers are removed",
            replace.target.quoted(),
            source.sql()
        ));
    }
    if replace.retype.is_some() && key_without(table, name).is_none() {
        warnings.push(format!(
            "{} has no key to archive the values of {} by: after the drop they can only be brought back through `down`",
            table.sql(),
            source.sql()
        ));
    }
    Ok(warnings)
}

/// Whether `body` names `column` as a word.
fn names(body: &str, column: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    body.match_indices(column).any(|(at, _)| {
        !is_part(body[..at].chars().next_back()) && !is_part(body[at + column.len()..].chars().next())
    })
}
