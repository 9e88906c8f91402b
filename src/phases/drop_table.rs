//! The phases of [`DropTable`](crate::DropTable).

use std::time::Duration;

use serde::Serialize;

pub use super::way::{Direct, Quarantined, Way};
use crate::catalog::{Answer, Dependent, ForeignKey, Question, Table};
use crate::error::{Error, Kind, Result};
use crate::ident::{TableName, hashed, literal, quote};
use crate::phase::{Context, Dropped, Gate, Irreversible, Phase, Rollback, Window};
use crate::step::Step;
use crate::steps::{archive, constraint, table};

const KEYS: &str = "drop_table.foreign_keys";

/// A table to drop, as its user describes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DropSpec {
    pub(crate) table: TableName,
    pub(crate) soak: Option<Duration>,
    pub(crate) quarantined: bool,
}

/// What the ledger has of a table that is its own archive: see [`archive::KEY`].
#[derive(Serialize)]
struct Aside<'a> {
    relation: String,
    schema: &'a str,
    table: &'a str,
}

impl DropSpec {
    /// Which publications name the table or a partition of it, and which foreign keys its partitions have of their own.
    /// Publications of all tables or of a schema do not count: nothing is written to it that they could send.
    fn question(&self, cx: &Context<'_>) -> Question {
        let table = cx.snapshot.sql_name(self.table);
        Question {
            query: format!(
                "WITH RECURSIVE below (oid) AS (
                    SELECT pg_catalog.to_regclass({})::pg_catalog.oid
                    UNION ALL
                    SELECT h.inhrelid FROM below JOIN pg_catalog.pg_inherits h ON h.inhparent = below.oid)
                 SELECT COALESCE(pg_catalog.jsonb_agg(found.reason ORDER BY found.reason), '[]') FROM (
                    SELECT pg_catalog.format('publication %I has %s, and its subscribers would look for another name; take it out of the publication first', p.pubname, r.prrelid::pg_catalog.regclass) AS reason
                      FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
                     WHERE r.prrelid IN (SELECT below.oid FROM below)
                    UNION ALL
                    SELECT pg_catalog.format('its partition %s has foreign key %I of its own; drop that first', k.conrelid::pg_catalog.regclass, k.conname)
                      FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid AND c.relispartition
                     WHERE k.contype = 'f' AND k.conparentid = 0 AND k.conrelid IN (SELECT below.oid FROM below)) AS found",
                literal(&table)
            ),
            key: format!("what is in the way of dropping {table}"),
            statements: Vec::new(),
        }
    }

    /// Refuses what would go on costing somebody, or would not survive the drop.
    pub(crate) fn refuse(&self, cx: &Context<'_>, table: &Table) -> Result<()> {
        let refuse = |why: String| {
            Err(Error::new(Kind::Unsupported, format!("table {} cannot be dropped: {why}", table.sql())))
        };
        if let Some(key) = table.incoming.iter().find(|key| !own(key)) {
            return refuse(format!(
                "foreign key \"{}\" of {} refers to it; drop that first",
                key.name,
                key.table_sql()
            ));
        }
        if let Some(Answer::Value(reasons)) = cx.snapshot.answers.get(&self.question(cx).key) {
            if let Some(reason) = reasons.get(0).and_then(serde_json::Value::as_str) {
                return refuse(reason.to_owned());
            }
        }
        if let Some(found) = table.dependents.iter().find(|found| !goes_along(table, found)) {
            return refuse(format!("{} uses it; change that first, so that it does without", found.object));
        }
        let stays = |object: &str| {
            ["view ", "materialized view ", "rule ", "publication ", "foreign key "]
                .iter()
                .any(|kind| object.starts_with(kind))
        };
        if let Some(found) = table.local.iter().find(|found| stays(&found.object)) {
            return refuse(format!(
                "its partition {} has {} of its own; drop that first",
                found.partition, found.object
            ));
        }
        let blocked = |key: &&ForeignKey| key.partitioned && cx.snapshot.server_version < 180_000;
        if let Some(key) = outgoing(table).find(blocked) {
            return refuse(format!(
                "foreign key \"{}\" would be dropped before it, and cannot be built again on a partitioned table without a lock before Postgres 18; drop it first",
                key.name
            ));
        }
        if cx.snapshot.schemas.get(&table.schema) == Some(&false) {
            return Err(Error::new(
                Kind::Permission,
                format!(
                    "table {} cannot be renamed by role {role}, which may not create in schema {schema}: GRANT CREATE ON SCHEMA {schema} TO {role}",
                    table.sql(),
                    role = cx.snapshot.role,
                    schema = quote(&table.schema)
                ),
            ));
        }
        Ok(())
    }

    /// What release 1 still meets while the table has its own name.
    pub(crate) fn warnings(&self, table: &Table) -> Vec<String> {
        outgoing(table)
            .map(|key| {
                format!(
                    "until phase Free, foreign key \"{}\" of {} is enforced: release 1 cannot delete rows of {} to which rows of the table refer, unless it says ON DELETE CASCADE or SET NULL",
                    key.name,
                    table.sql(),
                    key.ref_table_sql()
                )
            })
            .collect()
    }

    /// The table's name in quarantine; the hash covers the whole, so that it meets nobody's.
    fn away(&self, cx: &Context<'_>) -> String {
        hashed(&format!("quarantine_{}_{}", self.table.name(), cx.migration))
    }

    /// Its name as its own archive.
    fn archive(&self, cx: &Context<'_>) -> String {
        hashed(&format!("archive_{}_{}", self.table.name(), cx.migration))
    }

    /// The name that it is set aside from.
    fn last_name(&self, cx: &Context<'_>) -> String {
        if self.quarantined { self.away(cx) } else { self.table.name().as_str().to_owned() }
    }

    /// Renames it back, unless the name is in use again.
    fn back(&self, cx: &Context<'_>, from: &str, to: &str) -> Result<Rollback> {
        let schema = cx.snapshot.schema_of(self.table);
        if cx.snapshot.is_taken(schema, from) && cx.snapshot.is_taken(schema, to) {
            return Err(Error::new(
                Kind::Unsupported,
                format!(
                    "table {} cannot come back from {}, where it is kept: there is another relation of its name by now; rename or drop that one first",
                    cx.snapshot.sql_name(self.table),
                    quote(from)
                ),
            ));
        }
        Ok(Rollback::Steps(vec![table::rename(schema, from, to)]))
    }
}

/// Whether a foreign key is the table's own, on itself.
fn own(key: &ForeignKey) -> bool {
    key.inherited || (&key.schema, &key.table) == (&key.ref_schema, &key.ref_table)
}

/// The foreign keys that other tables pay for.
fn outgoing(table: &Table) -> impl Iterator<Item = &ForeignKey> {
    table.outgoing.iter().filter(|key| !own(key))
}

/// Its own policies, rules and generated columns go with the table, and come back with it.
fn goes_along(table: &Table, found: &Dependent) -> bool {
    let bare = |text: &str| text.replace('"', "");
    let object = bare(&found.object);
    ["policy ", "rule ", "generated "].iter().any(|kind| object.starts_with(kind))
        && [format!("{}.{}", table.schema, table.name), table.name.clone()].iter().any(|name| {
            [" on", " of"].iter().any(|of| object.ends_with(&format!("{of} table {}", bare(name))))
        })
}

/// The fleet stops using the table: release 1.
///
/// Nothing happens in the database; reverting the deploy is the rollback.
#[derive(Clone, Copy, Debug)]
pub struct StopUse;

impl Phase for StopUse {
    const NAME: &'static str = "StopUse";
    const WINDOW: Window = Window::new(0, 1);
    const GATE: Gate = Gate::fleet(1);

    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }

    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }
}

/// The table's foreign keys are dropped: nobody tends its rows any more, and they must not forbid what others do to
/// theirs. Then it soaks, under its own name.
///
/// Rolled back by adding them again, `NOT VALID` and then validated.
#[derive(Clone, Copy, Debug)]
pub struct Free {
    pub(crate) spec: DropSpec,
}

impl Free {
    /// As they were saved, if that has happened; else as they are.
    fn keys(&self, cx: &Context<'_>) -> Result<Vec<ForeignKey>> {
        match cx.saved(KEYS)? {
            Some(saved) => Ok(saved),
            None => Ok(outgoing(cx.snapshot.table(self.spec.table)?).cloned().collect()),
        }
    }
}

impl Phase for Free {
    const NAME: &'static str = "Free";
    const WINDOW: Window = Window::new(1, 1);
    const GATE: Gate = Gate::OPEN.and_soak().and_unreferenced();

    fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
        Ok(vec![self.spec.question(cx)])
    }

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        self.spec.refuse(cx, cx.snapshot.table(self.spec.table)?)?;
        let keys = self.keys(cx)?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let save = Step::save(KEYS, archive::json(&keys)?);
        Ok([save].into_iter().chain(keys.iter().map(constraint::drop_foreign_key)).collect())
    }

    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::Steps(self.keys(cx)?.iter().flat_map(constraint::add_foreign_key).collect()))
    }

    fn soak(&self) -> Option<Duration> {
        self.spec.soak
    }
}

/// The table is renamed away: whoever still uses it fails loudly, and the way back is instant. Then it soaks again.
#[derive(Clone, Copy, Debug)]
pub struct Quarantine {
    pub(crate) spec: DropSpec,
}

impl Phase for Quarantine {
    const NAME: &'static str = "Quarantine";
    const WINDOW: Window = Window::new(1, 1);
    const GATE: Gate = Gate::OPEN.and_soak();

    fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
        Ok(vec![self.spec.question(cx)])
    }

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        // Much can have come to hang on it during the soak.
        if let Some(table) = cx.snapshot.find(self.spec.table) {
            self.spec.refuse(cx, table)?;
        }
        let schema = cx.snapshot.schema_of(self.spec.table);
        Ok(vec![table::rename(schema, self.spec.table.name().as_str(), &self.spec.away(cx))])
    }

    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        self.spec.back(cx, &self.spec.away(cx), self.spec.table.name().as_str())
    }

    fn soak(&self) -> Option<Duration> {
        self.spec.soak
    }
}

/// The table becomes its own archive: it is renamed, with all that hangs on it, and dropped when the archive is purged.
///
/// Rolled back by renaming it back.
#[derive(Clone, Copy, Debug)]
pub struct SetAside {
    pub(crate) spec: DropSpec,
}

impl Phase for SetAside {
    const NAME: &'static str = "SetAside";
    const WINDOW: Window = Window::new(1, 1);

    fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
        Ok(vec![self.spec.question(cx)])
    }

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        if let Some(table) = cx.snapshot.find(self.spec.table).filter(|_| !self.spec.quarantined) {
            self.spec.refuse(cx, table)?;
        }
        let schema = cx.snapshot.schema_of(self.spec.table);
        let archive = self.spec.archive(cx);
        let aside = Aside {
            relation: format!("{}.{}", quote(schema), quote(&archive)),
            schema,
            table: self.spec.table.name().as_str(),
        };
        Ok(vec![
            Step::save(archive::KEY, archive::json(&aside)?),
            table::rename(schema, &self.spec.last_name(cx), &archive),
        ])
    }

    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        if let Some(purged) = archive::purged(cx)? {
            return Ok(Rollback::Irreversible(purged));
        }
        let schema = cx.snapshot.schema_of(self.spec.table);
        let (from, to) = (self.spec.archive(cx), self.spec.last_name(cx));
        let began = cx.saved::<serde_json::Value>(archive::KEY)?.is_some();
        let there = |name: &str| cx.snapshot.is_taken(schema, name);
        if began && !there(&from) && !there(&to) {
            // Before it begins, a plan over a quarantine to come finds the table itself.
            if cx.snapshot.find(self.spec.table).is_none() {
                return Ok(Rollback::Irreversible(Irreversible::because(format!(
                    "its archive {}.{} is not there any more",
                    quote(schema),
                    quote(&from)
                ))));
            }
        }
        self.spec.back(cx, &from, &to)
    }

    fn drops(&self) -> Vec<Dropped> {
        vec![Dropped::table(self.spec.table)]
    }
}
