//! The phases of [`DropColumn`](crate::DropColumn).

mod domain;
mod stop_writes;

use std::time::Duration;

pub use self::stop_writes::StopWrites;
pub use super::way::{Direct, Quarantined, Way};
use crate::catalog::{ConstraintKind, Portrait, ReplicaIdentity, Table};
use crate::error::{Error, Kind, Result};
use crate::expr::Expr;
use crate::ident::{Ident, TableName, quarantined, quote};
use crate::phase::{Context, Dropped, Gate, Irreversible, Phase, Rollback, Window};
use crate::step::Step;
use crate::steps::archive::{self, Archive, key_without};
use crate::steps::{column, index, parked, portrait, refuse_foreign_leaf, walking};

const PORTRAIT: &str = "drop_column.portrait";

/// A column to drop, as its user describes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DropSpec {
    pub(crate) table: TableName,
    pub(crate) name: Ident,
    pub(crate) restore_with: Option<Expr>,
    pub(crate) soak: Option<Duration>,
    /// Whether it is renamed away before it is dropped.
    pub(crate) quarantined: bool,
}

impl DropSpec {
    /// Refuses what would block the drop, or could not be rebuilt after it.
    ///
    /// `name` is the column's at the time.
    pub(crate) fn refuse(&self, cx: &Context<'_>, table: &Table, name: &str) -> Result<()> {
        let found = table.column(name)?;
        let refuse = |why: String| {
            Err(Error::new(
                Kind::Unsupported,
                format!("column {} of table {} cannot be dropped: {why}", found.sql(), table.sql()),
            ))
        };
        if found.generated.is_some() {
            return refuse("it is generated, so that its values cannot be put back; use RunSql".into());
        }
        if found.identity.is_some() {
            return refuse("it is an identity column; make it a plain one first (ALTER COLUMN … DROP IDENTITY, by RunSql)".into());
        }
        if table.partition_key.iter().any(|key| key == name) {
            return refuse("the table is partitioned by it; move the rows to a new table".into());
        }
        if let Some(dependent) = table.dependents.iter().find(|found| found.reads(name)) {
            let how = if dependent.column.is_some() { "" } else { " with the whole row" };
            return refuse(format!(
                "{} reads it{how}; change that first, so that it does without",
                dependent.object
            ));
        }
        if let Some(found) = table.local_blocking(name) {
            return refuse(found);
        }
        if let Some(trigger) =
            table.triggers.iter().find(|found| found.columns.iter().any(|used| used == name))
        {
            return refuse(format!(
                "trigger \"{}\" names it in UPDATE OF or WHEN; change the trigger first",
                trigger.name
            ));
        }
        let hanging = Portrait::of(table, name)?;
        if let Some(key) = hanging.incoming.first() {
            return refuse(format!(
                "foreign key \"{}\" of {} refers to it; drop that first",
                key.name,
                key.table_sql()
            ));
        }
        let indexes = || hanging.indexes.iter().chain(&hanging.backing);
        let mut stands = table
            .incoming
            .iter()
            .filter_map(|key| indexes().find(|index| key.stands_on(index)).map(|index| (key, index)));
        if let Some((key, index)) = stands.next() {
            return refuse(format!(
                "foreign key \"{}\" of {} stands on unique index \"{}\", which includes it; drop that foreign key, or let it stand on an index that does without",
                key.name,
                key.table_sql(),
                index.name
            ));
        }
        if let Some(late) = table.late_not_null(name) {
            return refuse(late);
        }
        if let ReplicaIdentity::Index(index) = &table.replica_identity {
            if indexes().any(|found| found.name == *index) {
                return refuse(format!(
                    "the replica identity, index \"{index}\", uses it; choose another one first"
                ));
            }
        }
        for constraint in &hanging.constraints {
            let named = &constraint.name;
            match constraint.kind {
                ConstraintKind::Primary => {
                    return refuse(format!("it is part of the primary key \"{named}\""));
                }
                ConstraintKind::Exclude => {
                    return refuse(format!(
                        "constraint \"{named}\" (EXCLUDE) would go with it, and cannot be built again without a lock; drop the constraint first"
                    ));
                }
                ConstraintKind::Unique if constraint.definition.contains(" WITHOUT OVERLAPS") => {
                    return refuse(format!(
                        "constraint \"{named}\" (WITHOUT OVERLAPS) would go with it, and cannot be built again without a lock; drop the constraint first"
                    ));
                }
                ConstraintKind::Unique if table.is_partitioned() => {
                    return refuse(format!(
                        "constraint \"{named}\" (UNIQUE) would go with it, and cannot be built again on a partitioned table without a lock; drop the constraint first"
                    ));
                }
                _ => {}
            }
        }
        let blocked = |partitioned: bool| partitioned && cx.snapshot.server_version < 180_000;
        if let Some(key) = hanging.outgoing.iter().find(|key| blocked(key.partitioned)) {
            return refuse(format!(
                "foreign key \"{}\" would go with it, and cannot be built again on a partitioned table without a lock before Postgres 18; drop it first",
                key.name
            ));
        }
        if found.not_null && self.restore_with.is_none() && found.default.is_none() {
            return Err(Error::new(
                Kind::Definition,
                format!(
                    "column {} of table {} is NOT NULL without a default, and rows that are written without it could not be rolled back: add .restore_with(\"…\"), the value that such rows get",
                    found.sql(),
                    table.sql()
                ),
            ));
        }
        if found.not_null && self.restore_with.is_some_and(|expr| is_null(expr.as_str())) {
            return Err(Error::new(
                Kind::Definition,
                format!(
                    "column {} of table {} is NOT NULL, and .restore_with(…) is null: give a value that is not",
                    found.sql(),
                    table.sql()
                ),
            ));
        }
        Ok(())
    }

    /// Refuses, besides, what would be lost silently, or could not be walked or rebuilt. Not asked again once the drop
    /// has begun: what a rollback half rebuilt may look like a partition's own.
    pub(crate) fn refuse_at_first(&self, cx: &Context<'_>, table: &Table) -> Result<()> {
        let name = self.name.as_str();
        self.refuse(cx, table, name)?;
        if let Some(found) = table.local_of(name) {
            return Err(Error::new(
                Kind::Unsupported,
                format!("column {} of table {} cannot be dropped: {found}", self.name.quoted(), table.sql()),
            ));
        }
        domain::refuse(cx, table, name)?;
        refuse_foreign_leaf(table, "archived")?;
        if table.indexes.iter().any(|found| found.uses.iter().any(|used| used == name)) {
            // A rollback builds them again.
            index::check_buildable(cx, table)?;
        }
        Ok(())
    }

    /// What release 1 must know, besides that it writes the column.
    pub(crate) fn warnings(&self, table: &Table) -> Vec<String> {
        let name = self.name.as_str();
        let unique = index::unique_over(table, name).into_iter().map(|key| {
            format!(
                "{key} goes in phase StopWrites, before the column does: release 1 must not name it, or its columns, in ON CONFLICT"
            )
        });
        let keys =
            table.outgoing.iter().filter(|key| key.cascades() && key.columns.iter().any(|own| own == name));
        let keys = keys.map(|key| {
            format!(
                "foreign key \"{}\" goes in phase StopWrites, before the column does: from then on it changes no row of {} when one of {}.{} goes or changes",
                key.name,
                table.sql(),
                quote(&key.ref_schema),
                quote(&key.ref_table)
            )
        });
        unique.chain(keys).collect()
    }

    /// The column's name once it is in quarantine.
    fn away(&self, cx: &Context<'_>) -> String {
        quarantined(self.name.as_str(), cx.migration)
    }

    /// Why what is done under that name cannot be told yet.
    fn not_away(&self, cx: &Context<'_>) -> Error {
        Error::new(
            Kind::Missing,
            format!(
                "column {} of table {} is dropped as {}, the name that phase Quarantine gives it",
                self.name.quoted(),
                cx.snapshot.sql_name(self.table),
                quote(&self.away(cx))
            ),
        )
    }

    /// The name under which it is dropped, and found again by a rollback.
    fn last_name(&self, cx: &Context<'_>) -> String {
        if self.quarantined { self.away(cx) } else { self.name.as_str().to_owned() }
    }
}

/// The fleet stops reading the column, and goes on writing it: release 1.
///
/// Nothing happens in the database; reverting the deploy is the rollback.
#[derive(Clone, Copy, Debug)]
pub struct StopReads;

impl Phase for StopReads {
    const NAME: &'static str = "StopReads";
    const WINDOW: Window = Window::new(0, 1);
    const GATE: Gate = Gate::fleet(1);

    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }

    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }
}

/// The column is renamed away: whoever still uses it fails loudly, and the way back is instant. Then it soaks again.
#[derive(Clone, Copy, Debug)]
pub struct Quarantine {
    pub(crate) spec: DropSpec,
}

impl Phase for Quarantine {
    const NAME: &'static str = "Quarantine";
    const WINDOW: Window = Window::new(2, 2);
    const GATE: Gate = Gate::OPEN.and_soak();

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        let table = cx.snapshot.table(self.spec.table)?;
        let name = self.spec.name.as_str();
        if table.find(name).is_some() {
            self.spec.refuse(cx, table, name)?;
        }
        Ok(vec![column::rename(table, name, &self.spec.away(cx))])
    }

    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        let table = cx.snapshot.table(self.spec.table)?;
        let (name, away) = (self.spec.name.as_str(), self.spec.away(cx));
        if table.find(name).is_some() && table.find(&away).is_some() {
            return Err(Error::new(
                Kind::Unsupported,
                format!(
                    "column {} of table {} cannot come back from quarantine, where it is {}: the table has another column of that name by now; rename or drop that one first",
                    self.spec.name.quoted(),
                    table.sql(),
                    quote(&away)
                ),
            ));
        }
        Ok(Rollback::Steps(vec![column::rename(table, &away, name)]))
    }

    fn soak(&self) -> Option<Duration> {
        self.spec.soak
    }
}

/// Archives the values, drops one by one what still hangs on the column, and then the column.
///
/// Rolled back by adding it again, with its values from the archive and all that still hung on it. Rows that were written
/// since are null there. Irreversible on a table without a key, since an archived value would not find its row.
#[derive(Clone, Copy, Debug)]
pub struct Drop {
    pub(crate) spec: DropSpec,
}

impl Phase for Drop {
    const NAME: &'static str = "Drop";
    const WINDOW: Window = Window::new(2, 2);

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        let table = cx.snapshot.table(self.spec.table)?;
        let name = &self.spec.last_name(cx);
        if table.find(name).is_none() {
            let begun = cx.saved::<Portrait>(PORTRAIT)?.is_some();
            return if self.spec.quarantined && !begun {
                Err(self.spec.not_away(cx))
            } else {
                Ok(Vec::new())
            };
        }
        // Much can have come to hang on it during the soak.
        self.spec.refuse(cx, table, name)?;
        let hanging = Portrait::of(table, name)?;
        let mut steps = vec![Step::save(PORTRAIT, archive::json(&hanging)?)];
        // One that was begun keeps the key that it was begun by.
        let begun = cx.saved::<Archive>(archive::KEY)?;
        if let Some(archive) =
            begun.or_else(|| Archive::of(cx, table, &hanging.column, self.spec.name.as_str()))
        {
            steps.push(Step::save(archive::KEY, archive::json(&archive)?));
            steps.extend(archive.store(table));
        }
        steps.extend(portrait::free(table, &hanging));
        steps.extend(hanging.column.sequence.as_ref().map(|sequence| parked::park(cx, sequence)));
        steps.push(column::drop(table, name));
        Ok(steps)
    }

    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        if let Some(purged) = archive::purged(cx)? {
            return Ok(Rollback::Irreversible(purged));
        }
        let table = cx.snapshot.table(self.spec.table)?;
        let name = &self.spec.last_name(cx);
        let there = table.find(name).is_some();
        let keyless = || {
            Ok(Rollback::Irreversible(Irreversible::because(format!(
                "table {} has no key by which the dropped values of column {} would find their rows",
                table.sql(),
                self.spec.name.quoted()
            ))))
        };
        let (hanging, archive, begun) = match cx.saved::<Portrait>(PORTRAIT)? {
            Some(hanging) => (hanging, cx.saved::<Archive>(archive::KEY)?, true),
            // Before it begins, a plan shows what the rollback would be.
            None if self.spec.quarantined && !there => {
                return match key_without(table, self.spec.name.as_str()) {
                    Some(_) => Err(self.spec.not_away(cx)),
                    None => keyless(),
                };
            }
            None => {
                let hanging = Portrait::of(table, name)?;
                let archive = Archive::of(cx, table, &hanging.column, self.spec.name.as_str());
                (hanging, archive, false)
            }
        };
        // Where the drop stopped half-way, the column and its values are still there.
        if archive.is_none() && !(begun && there) {
            return keyless();
        }
        if let Some(archive) = &archive {
            archive.check_keys(table)?;
        }
        let Portrait { column: old, .. } = &hanging;
        let mut steps = vec![column::add(table, name, &old.data_type, old.collation.as_deref(), None)];
        steps.extend(column::attributes(table, old, name));
        if let Some(archive) = &archive {
            steps.push(archive.create());
            steps.push(walking(archive.restore_nulls(), table));
        }
        steps.extend(old.sequence.as_ref().map(|sequence| parked::unpark(cx, table, name, sequence)));
        // Only now: a default that is there earlier would fill the rows in place of their archived values.
        steps.extend(old.default.as_ref().map(|default| column::set_default(table, name, default)));
        steps.extend(portrait::rebuild(table, &hanging, true));
        steps.extend(archive.as_ref().map(Archive::forget));
        Ok(Rollback::Steps(steps))
    }

    fn drops(&self) -> Vec<Dropped> {
        vec![Dropped::column(self.spec.table, self.spec.name).after_quarantine(self.spec.quarantined)]
    }
}

/// Whether an expression is plainly the constant NULL, with a cast or without.
fn is_null(expr: &str) -> bool {
    let (word, cast) = expr.trim().split_once("::").unwrap_or((expr.trim(), ""));
    let is_type = cast.chars().all(|c| c.is_alphanumeric() || "_.()[]".contains(c));
    word.trim().eq_ignore_ascii_case("null") && is_type
}
