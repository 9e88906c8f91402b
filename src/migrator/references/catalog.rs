//! References that the catalog knows, and those that only the bodies of functions do.

use super::Target;
use super::statement::{mentions, takes_all};
use crate::error::Result;
use crate::migrator::connect::{Sql as _, get, text};
use crate::reference::{Reference, ReferenceKind as Kind};
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

/// Everything that depends on the target, by the catalog.
pub(super) async fn dependents(client: &Client, target: &Target) -> Result<Vec<Reference>> {
    let (column, successor) = (&target.column, &target.successor);
    let params = [
        text(&target.schema),
        text(&target.table),
        text(column),
        text(&target.ledger_schema),
        text(successor),
    ];
    let rows = client.ask(include_str!("sql/dependents.sql"), &params).await?;
    rows.iter()
        .map(|row| {
            let (kind, object): (String, String) = (get(row, "kind")?, get(row, "object")?);
            Ok(found(target, &kind, object, get(row, "whole")?, get(row, "through")?))
        })
        .collect()
}

fn found(target: &Target, kind: &str, object: String, whole: bool, through: Option<String>) -> Reference {
    let (what, remedy) = (target.what(), target.remedy());
    let is_column = target.column.is_some();
    let reads = if whole { "reads the whole row of its table" } else { "reads it" };
    let (kind, blocks, detail) = match kind {
        "view" => {
            let kind = if whole { Kind::WholeRow } else { Kind::View };
            let detail = match through {
                Some(through) => {
                    format!("reads {what} through {through}; it goes, or changes, with that one")
                }
                None => format!("{reads} ({what}); {remedy}, or drop it"),
            };
            (kind, true, detail)
        }
        "rule" => (Kind::Rule, true, format!("{reads} ({what}); {remedy}, or drop it")),
        "policy" => (Kind::Policy, true, format!("{reads} ({what}); {remedy}, or drop it")),
        "trigger argument" => (
            Kind::Trigger,
            false,
            format!("gives its function the name of {what} as an argument; {remedy}, or acknowledge it"),
        ),
        "trigger" => {
            (Kind::Trigger, true, format!("names {what} in UPDATE OF or WHEN; {remedy}, or drop it"))
        }
        "generated" => {
            (Kind::GeneratedColumn, true, format!("is computed from {what}; drop it, or {remedy}"))
        }
        "publication" => {
            let how = if is_column { "names it in a column list or a row filter" } else { "publishes it" };
            (Kind::Publication, true, format!("{how} ({what}); alter the publication"))
        }
        // The phases that drop a replaced column take foreign keys to it away themselves.
        "foreign key" => (
            Kind::ForeignKey,
            target.successor.is_none(),
            format!("refers to {what}; drop it, or make it refer to something else"),
        ),
        "partition key" => (
            Kind::PartitionKey,
            true,
            format!("has {what} in it; detach that partition, or make another table"),
        ),
        "row" => (
            Kind::WholeRow,
            true,
            format!("is made of the whole row that {what} belongs to; make it of something else"),
        ),
        "row function" => (
            Kind::WholeRow,
            false,
            format!(
                "takes or gives the whole row that {what} belongs to; see that it does without, then acknowledge it"
            ),
        ),
        "function" => (Kind::Function, true, format!("reads {what}; {remedy}, or drop it")),
        "grant" => {
            (Kind::Grant, false, format!("whoever holds it may use {what}; revoke it, or acknowledge it"))
        }
        _ => (Kind::Other, true, format!("depends on {what}; drop it, or make it do without")),
    };
    Reference::new(kind, object, detail).blocking(blocks)
}

/// Functions whose body names the target, or takes every column of its table. One that names only the column counts where it
/// is a trigger's on the table, has to do with its row type, or builds statements.
pub(super) async fn bodies(client: &Client, target: &Target) -> Result<Vec<Reference>> {
    let needle = target.column.as_ref().unwrap_or(&target.table);
    let tables = target.relations.iter().map(|(_, name)| name);
    let needles: Vec<&String> = tables.chain(&target.column).collect();
    let params = [
        (&needles as &(dyn ToSql + Sync), Type::TEXT_ARRAY),
        text(&target.schema),
        text(&target.table),
        text(&target.ledger_schema),
    ];
    let rows = client.ask(include_str!("sql/bodies.sql"), &params).await?;
    let (what, remedy, subject) = (target.what(), target.remedy(), target.subject());
    let mut found = Vec::new();
    for row in &rows {
        let body: String = get(row, "body")?;
        let of_table: bool = get(row, "of_table")?;
        let names_table = target.relations.iter().any(|(_, name)| mentions(&body, name));
        let belongs = target.column.is_none() || of_table || names_table || mentions(&body, "execute");
        let detail = if belongs && mentions(&body, needle) {
            format!("its body names {what}; {remedy}, or acknowledge it if it means something else")
        } else if let Some(how) = takes_all(&body, &subject) {
            format!(
                "a statement in its body {how}, {what} too; see that it does without, then acknowledge it"
            )
        } else {
            continue;
        };
        found.push(Reference::new(Kind::Function, get::<String>(row, "object")?, detail));
    }
    Ok(found)
}

/// The table and what inherits from it, as (schema, name).
pub(super) async fn family(client: &Client, schema: &str, table: &str) -> Result<Vec<(String, String)>> {
    let sql = "WITH RECURSIVE family(oid) AS (
            SELECT c.oid FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = $1 AND c.relname = $2
            UNION
            SELECT h.inhrelid FROM family JOIN pg_catalog.pg_inherits AS h ON h.inhparent = family.oid)
        SELECT n.nspname::text AS schema, c.relname::text AS name
          FROM family JOIN pg_catalog.pg_class AS c ON c.oid = family.oid
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace";
    let rows = client.ask(sql, &[text(&schema), text(&table)]).await?;
    rows.iter().map(|row| Ok((get(row, "schema")?, get(row, "name")?))).collect()
}
