//! What cannot be carried over is refused at planning, with the object's name and what to do.

use super::{Replace, carried};
use crate::catalog::{Column, ConstraintKind, ReplicaIdentity, Table};
use crate::error::{Error, Kind, Result};
use crate::expr::Expr;
use crate::ident::quote;
use crate::phase::Context;
use crate::steps::{index, refuse_foreign_leaf, trial};

/// Before the first phase, with nothing touched.
pub(crate) fn check(replace: &Replace, cx: &Context<'_>) -> Result<()> {
    let (table, source) = replace.source_in(cx.snapshot)?;
    if table.find(replace.target.as_str()).is_some() {
        return Err(Error::new(
            Kind::Conflict,
            format!(
                "column {} of {} exists already: choose another name for the new column, or drop that one first",
                replace.target.quoted(),
                table.sql()
            ),
        ));
    }
    structure(replace, table, source, cx.snapshot.server_version)?;
    rights(replace, cx, table)?;
    left_behind(replace, table)?;
    defaults(replace, table, source)?;
    dependents(replace, table)?;
    local(replace, table)?;
    if let Some(late) = table.late_not_null(&source.name) {
        return Err(refuse(replace, table, &late));
    }
    refuse_foreign_leaf(table, "filled")?;
    if table.indexes.iter().any(|index| index.valid && index.uses.contains(&source.name)) {
        index::check_buildable(cx, table)?;
    }
    conversions(replace, cx, table)?;
    let added = carried::added_type(replace, source);
    if trial::added_answer(cx, &table.sql(), replace.target.as_str(), &added, None)?.rewrites {
        return Err(refuse(
            replace,
            table,
            &format!(
                "adding a column of type {added} rewrites the whole table (a domain with a constraint does); use its base type and a check"
            ),
        ));
    }
    Ok(())
}

/// What this role may not do, found before a backfill has run.
fn rights(replace: &Replace, cx: &Context<'_>, table: &Table) -> Result<()> {
    if carried::hides_rows(cx, table)? {
        return Err(Error::new(
            Kind::Permission,
            format!(
                "row security is forced on {} and hides rows from role {}, so that a backfill would miss them: run as a role with BYPASSRLS",
                table.sql(),
                cx.snapshot.role
            ),
        ));
    }
    for key in replace.foreign_keys(table) {
        if !carried::may_refer(cx, key)? {
            return Err(Error::new(
                Kind::Permission,
                format!(
                    "foreign key {} cannot be made anew on the new column: role {} lacks REFERENCES on {}; GRANT REFERENCES ON {} TO {}",
                    quote(&key.name),
                    cx.snapshot.role,
                    key.ref_table_sql(),
                    key.ref_table_sql(),
                    cx.snapshot.role
                ),
            ));
        }
    }
    Ok(())
}

/// `.without(…)` names what is there, and nothing that a foreign key needs.
fn left_behind(replace: &Replace, table: &Table) -> Result<()> {
    for name in replace.without {
        let index = table.indexes.iter().find(|index| index.name == *name);
        let is_check =
            table.constraints.iter().any(|found| found.kind == ConstraintKind::Check && found.name == *name);
        let Some(index) = index else {
            if is_check {
                continue;
            }
            return Err(Error::new(
                Kind::Missing,
                format!(
                    "`.without` names {}, and {} has no such index or check: mend the name, or leave it out",
                    quote(name),
                    table.sql()
                ),
            ));
        };
        if let Some(key) = table.incoming.iter().find(|key| key.stands_on(index)) {
            return Err(refuse(
                replace,
                table,
                &format!(
                    "foreign key {} of {} needs {}, which `.without` leaves behind; carry it over, or drop the foreign key first",
                    quote(&key.name),
                    key.table_sql(),
                    quote(name)
                ),
            ));
        }
    }
    Ok(())
}

fn refuse(replace: &Replace, table: &Table, because: &str) -> Error {
    Error::new(
        Kind::Unsupported,
        format!("column {} of {} cannot be replaced: {because}", replace.source.quoted(), table.sql()),
    )
}

fn structure(replace: &Replace, table: &Table, source: &Column, server_version: u32) -> Result<()> {
    let name = replace.source.as_str();
    let uses = |columns: &[String]| columns.iter().any(|column| column == name);
    let no = |because: String| Err(refuse(replace, table, &because));
    if source.generated.is_some() {
        return no("it is generated; add a new generated column instead and drop this one".into());
    }
    if uses(&table.partition_key) {
        return no(
            "it is part of the partition key, which Postgres cannot change; make a new partitioned table"
                .into(),
        );
    }
    if table.inherits {
        return no("the table has parents or children by inheritance; change each table by itself".into());
    }
    for found in table.constraints.iter().filter(|found| uses(&found.columns)) {
        let constraint = quote(&found.name);
        match found.kind {
            ConstraintKind::Primary => {
                return no(format!(
                    "it is part of the primary key {constraint}, which cannot be carried over yet"
                ));
            }
            ConstraintKind::Exclude => {
                return no(format!(
                    "exclusion constraint {constraint} covers it, and Postgres has no way to build one without blocking writes; drop it first"
                ));
            }
            ConstraintKind::Unique if table.is_partitioned() => {
                return no(format!(
                    "unique constraint {constraint} covers it, and Postgres cannot add one to a partitioned table from an index; replace it by a unique index first"
                ));
            }
            ConstraintKind::Foreign if table.is_partitioned() && server_version < 180_000 => {
                return no(format!(
                    "foreign key {constraint} uses it, and before Postgres 18 one on a partitioned table cannot be added NOT VALID; drop it first"
                ));
            }
            _ => {}
        }
    }
    if let ReplicaIdentity::Index(index) = &table.replica_identity {
        if table.indexes.iter().any(|found| &found.name == index && uses(&found.uses)) {
            return no(format!(
                "replica identity uses it through index {}; choose another replica identity first",
                quote(index)
            ));
        }
    }
    for key in replace.foreign_keys(table) {
        if !key.owned {
            return Err(Error::new(
                Kind::Permission,
                format!(
                    "foreign key {} of {} refers to column {} of {}, and this role does not own that table: run as a member of its owner",
                    quote(&key.name),
                    key.table_sql(),
                    replace.source.quoted(),
                    table.sql()
                ),
            ));
        }
        if key.partitioned && key.table_sql() != table.sql() && server_version < 180_000 {
            return no(format!(
                "foreign key {} of the partitioned table {} refers to it, and before Postgres 18 one on a partitioned table cannot be added NOT VALID; drop it first",
                quote(&key.name),
                key.table_sql()
            ));
        }
        let sets_default = key.on_delete == "SET DEFAULT" || key.on_update == "SET DEFAULT";
        if sets_default
            && key.table_sql() == table.sql()
            && uses(&key.columns)
            && (replace.synced || source.default.is_none())
        {
            return no(format!(
                "foreign key {} sets it to its default, which the new column does not have while both are kept; change the action first",
                quote(&key.name)
            ));
        }
    }
    Ok(())
}

fn defaults(replace: &Replace, table: &Table, source: &Column) -> Result<()> {
    if !replace.synced && (source.default_is_volatile || source.identity.is_some()) {
        return Err(refuse(
            replace,
            table,
            "its default draws a new value each time (a sequence, identity or volatile function), so an application cannot write it to both columns; use `.kept_in_sync()`",
        ));
    }
    if let (Some(retype), Some(default)) = (&replace.retype, &source.default) {
        let others = retype.up.columns().iter().any(|column| *column != source.name);
        if others && !source.default_is_volatile {
            return Err(refuse(
                replace,
                table,
                &format!(
                    "its default {default} cannot be converted by an `up` that reads other columns; drop the default first"
                ),
            ));
        }
        if source.default_is_volatile && source.sequence.is_none() {
            return Err(refuse(
                replace,
                table,
                &format!(
                    "its default {default} cannot be taken over to the new type; drop the default first, and let the application write the value"
                ),
            ));
        }
    }
    Ok(())
}

/// What single partitions have on the source would be lost with it, and is not on the target.
fn local(replace: &Replace, table: &Table) -> Result<()> {
    match table.local_of(replace.source.as_str()) {
        None => Ok(()),
        Some(found) => Err(refuse(replace, table, &found)),
    }
}

/// Views, rules, policies, generated columns and the like that read the source: they would block the drop.
pub(crate) fn dependents(replace: &Replace, table: &Table) -> Result<()> {
    let source = replace.source.as_str();
    if let Some(found) = table.local_blocking(source) {
        return Err(refuse(replace, table, &found));
    }
    let reads: Vec<&str> = table
        .dependents
        .iter()
        .filter(|found| found.reads(source))
        .map(|found| found.object.as_str())
        .collect();
    if !reads.is_empty() {
        return Err(refuse(
            replace,
            table,
            &format!(
                "{} would break with it; drop it or make it read something else first",
                reads.join(", ")
            ),
        ));
    }
    for trigger in &table.triggers {
        if trigger.columns.iter().any(|column| column == source) {
            return Err(refuse(
                replace,
                table,
                &format!(
                    "trigger {} names it in UPDATE OF or WHEN; recreate the trigger without it first",
                    quote(&trigger.name)
                ),
            ));
        }
    }
    Ok(())
}

fn conversions(replace: &Replace, cx: &Context<'_>, table: &Table) -> Result<()> {
    let Some(retype) = &replace.retype else { return Ok(()) };
    trial::type_answer(cx, retype.data_type)?;
    let directions: [(&str, &Expr, &str); 2] =
        [("up", &retype.up, replace.target.as_str()), ("down", &retype.down, replace.source.as_str())];
    for (direction, expr, assigned) in directions {
        let answer = trial::expr_answer(cx, &table.sql(), expr, assigned)?;
        let no = |because: &str| {
            Err(Error::new(
                Kind::Definition,
                format!(
                    "migration {}: the `{direction}` expression {} {because}",
                    cx.migration,
                    expr.as_str()
                ),
            ))
        };
        if answer.volatile {
            return no(
                "calls a volatile function: use immutable or stable ones, so that a value converts the same way twice",
            );
        }
        if answer.subquery {
            return no(
                "contains a subquery, which a trigger's WHEN cannot have: convert from the row's own columns",
            );
        }
        if !answer.null_on_null {
            return no(
                "is not null where the column that it converts is null: a null must stay null on both sides",
            );
        }
        for name in expr.columns() {
            if table.find(name).is_some_and(|column| column.generated.is_some()) {
                return no(&format!(
                    "reads generated column {}, which triggers see as null: repeat its expression instead",
                    quote(name)
                ));
            }
        }
    }
    Ok(())
}
