//! Freeing a column of what hangs on it, and rebuilding that.

use super::{constraint, index, probe, statistics};
use crate::catalog::{Constraint, ConstraintKind, Index, Portrait, Table};
use crate::ident::literal;
use crate::step::{LockMode, Step};

/// Drops, one by one, what would go silently with the column, so that dropping it takes one brief lock on one table:
/// foreign keys first (they lock two tables), then constraints, indexes `CONCURRENTLY`, statistics.
pub(crate) fn free(table: &Table, portrait: &Portrait) -> Vec<Step> {
    let keys = portrait.incoming.iter().chain(&portrait.outgoing);
    let mut seen = Vec::new();
    let mut steps: Vec<Step> = Vec::new();
    for key in keys.filter(|key| !key.inherited) {
        // One that a table has on itself is both incoming and outgoing.
        let id = (key.table_sql(), key.name.clone());
        if !seen.contains(&id) {
            seen.push(id);
            steps.push(constraint::drop_foreign_key(key));
        }
    }
    let constraints = portrait.constraints.iter().filter(|found| !found.inherited);
    for found in constraints {
        steps.push(constraint::drop(table, &found.name));
        // A rebuild that was given up half-way left the index alone, which enforces as much.
        let is_there = table.constraints.iter().any(|there| there.name == found.name);
        if found.kind == ConstraintKind::Unique && !is_there {
            let children = portrait.behind(found).map_or(&[][..], |behind| &behind.children);
            steps.extend(index::drop(table, &found.name, children));
        }
    }
    steps.extend(portrait.indexes.iter().flat_map(|found| index::drop(table, &found.name, &found.children)));
    steps.extend(portrait.statistics.iter().map(|found| drop_statistics(table, &found.name)));
    for step in &mut steps {
        step.summary.push_str(&format!(", lost with column {}", portrait.column.sql()));
    }
    steps
}

/// Rebuilds what [`free`] dropped, on a column of the same name: indexes `CONCURRENTLY`, constraints NOT VALID and
/// then validated. `unproven`: the column may hold by now what its checks do not allow.
pub(crate) fn rebuild(table: &Table, portrait: &Portrait, unproven: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    // One that was left invalid by a build that failed enforced nothing, and would fail again.
    for found in portrait.indexes.iter().filter(|found| found.valid) {
        steps.extend(index::like(table, found, &found.name));
    }
    for found in portrait.constraints.iter().filter(|found| !found.inherited) {
        steps.extend(rebuild_constraint(table, portrait, found, unproven));
    }
    let mut seen = Vec::new();
    let keys = portrait.outgoing.iter().chain(&portrait.incoming);
    for key in keys.filter(|key| !key.inherited) {
        let id = (key.table_sql(), key.name.clone());
        if seen.contains(&id) {
            continue;
        }
        seen.push(id);
        steps.extend(constraint::add_foreign_key(key));
    }
    for found in &portrait.statistics {
        let name = &found.name;
        steps.push(
            Step::sql(format!("create statistics {name}"), &found.definition)
                .locks(table.sql(), LockMode::ShareUpdateExclusive)
                .done_when(is_there(name)),
        );
        steps.extend(statistics::labels(name, found));
    }
    steps
}

fn rebuild_constraint(table: &Table, portrait: &Portrait, found: &Constraint, unproven: bool) -> Vec<Step> {
    let mut steps = match found.kind {
        ConstraintKind::Check => {
            let definition = found.definition.strip_suffix(" NOT VALID").unwrap_or(&found.definition);
            if found.validated && unproven {
                constraint::add_unproven_check(table, &found.name, definition)
            } else {
                constraint::add_check(table, &found.name, definition, found.validated)
            }
        }
        ConstraintKind::Unique => {
            let Some(behind) = portrait.behind(found) else { return Vec::new() };
            unique(table, found, behind)
        }
        // Refused before anything was dropped.
        _ => return Vec::new(),
    };
    let comment = found.comment.as_ref();
    steps.extend(comment.map(|comment| constraint::comment(&table.sql(), &found.name, comment)));
    steps
}

/// A UNIQUE constraint over an index that is built first, under the constraint's own name: it is found again then,
/// before and after the constraint is there.
fn unique(table: &Table, found: &Constraint, behind: &Index) -> Vec<Step> {
    let name = &found.name;
    let add = constraint::add_unique_using_index(table, name, name, found.deferrable, found.deferred);
    index::like(table, behind, name).into_iter().chain([add]).collect()
}

fn drop_statistics(table: &Table, name: &str) -> Step {
    Step::sql(format!("drop statistics {name}"), format!("DROP STATISTICS {name}"))
        .locks(table.sql(), LockMode::ShareUpdateExclusive)
        .done_when(probe::not(&is_there(name)))
}

/// Whether the statistics object `name` is there, quoted only where that is needed, as the snapshot has it.
fn is_there(name: &str) -> String {
    format!(
        "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace WHERE pg_catalog.format('%I.%I', n.nspname, s.stxname) = {})",
        literal(name)
    )
}
