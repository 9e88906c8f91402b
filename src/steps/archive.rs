//! Archives: a dropped column's values, kept beside the ledger so that the drop can be rolled back.

use serde::{Deserialize, Serialize};

use super::{parked, probe, walking};
use crate::catalog::{Column, Table};
use crate::error::{Error, Kind, Result};
use crate::ident::{hashed, literal, quote};
use crate::phase::{Context, Irreversible};
use crate::step::{Batches, Marker, Step, Work};

/// What an archive is saved under in the ledger: the list of archives is read from there. Each has `relation`, `schema`,
/// `table` and, where it is one column's, `column`.
pub(crate) const KEY: &str = "archive";

/// What the ledger has, once the archive was purged: when.
pub(crate) const PURGED: &str = "archive.purged";

/// Why a drop can no longer be rolled back, if its archive was purged.
pub(crate) fn purged(cx: &Context<'_>) -> Result<Option<Irreversible>> {
    let at: Option<String> = cx.saved(PURGED)?;
    Ok(at.map(|at| Irreversible::because(format!("its archive was purged at {at}"))))
}

/// A definition as the ledger keeps it.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|error| {
        Error::new(
            Kind::Database,
            format!(
                "a definition cannot be saved ({error}): please report this, with the table's definition"
            ),
        )
    })
}

/// One column's archive: a table with the row's key and the value, wherever that is not null.
///
/// It is saved in the ledger before the column goes, since the catalog cannot tell its types afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Archive {
    /// The archive, as qualified SQL.
    relation: String,
    schema: String,
    table: String,
    column: String,
    /// What the column is called by people: in quarantine it has another name.
    #[serde(default)]
    called: String,
    /// The type and collation of `value`, as SQL.
    value: Typed,
    /// The columns that name a row, in order: `k1`, `k2`, … of the archive.
    keys: Vec<(String, Typed)>,
    /// What the archive's comment says.
    comment: String,
    /// Where the column's own sequence is set aside meanwhile, as SQL: it goes when the archive is purged.
    #[serde(default)]
    sequence: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Typed {
    data_type: String,
    collation: Option<String>,
}

impl Typed {
    fn of(column: &Column) -> Self {
        Self { data_type: column.data_type.clone(), collation: column.collation.clone() }
    }

    fn sql(&self) -> String {
        match &self.collation {
            Some(collation) => format!("{} COLLATE {collation}", self.data_type),
            None => self.data_type.clone(),
        }
    }
}

impl Archive {
    /// The archive of `column`, which people call `called`; `None` where the table has no key without it to find the rows by again.
    pub(crate) fn of(cx: &Context<'_>, table: &Table, column: &Column, called: &str) -> Option<Self> {
        let keys = key_without(table, &column.name)?;
        let keys = keys
            .into_iter()
            .map(|name| table.find(name).map(|key| (name.to_owned(), Typed::of(key))))
            .collect::<Option<Vec<_>>>()?;
        let Table { schema, name, .. } = table;
        // The hash covers the whole, so that two archives never meet.
        let archive = hashed(&format!("archive_{}_{schema}.{name}.{}", cx.migration, column.name));
        Some(Self {
            relation: format!("{}.{}", quote(&cx.snapshot.ledger_schema), quote(&archive)),
            schema: schema.clone(),
            table: name.clone(),
            column: column.name.clone(),
            called: called.to_owned(),
            value: Typed::of(column),
            keys,
            sequence: column.sequence.as_ref().map(|sequence| parked::place(cx, sequence)),
            comment: format!(
                "phasewise: the values of column {} of {} before migration {} dropped it, by key. Needed to roll that back; Migrator::purge_archive drops it.",
                quote(called),
                table.sql(),
                cx.migration
            ),
        })
    }

    /// Refuses a table that has lost a column by which the archive finds its rows.
    pub(crate) fn check_keys(&self, table: &Table) -> Result<()> {
        let Some((lost, _)) = self.keys.iter().find(|(name, _)| table.find(name).is_none()) else {
            return Ok(());
        };
        Err(Error::new(
            Kind::Missing,
            format!(
                "archive {} finds the rows of {} by column {lost}, which the table has no longer, so that column {} cannot be brought back: if it was renamed, rename it back (by hand, or by rolling back the migration that did), then run the rollback again; if it was dropped, nobody knows any more which value belongs to which row",
                self.relation,
                table.sql(),
                quote(&self.called),
                lost = quote(lost),
            ),
        ))
    }

    /// Makes the archive, empty. A rollback does so too, where the drop never came to it.
    pub(crate) fn create(&self) -> Step {
        let Self { relation, .. } = self;
        let columns: String =
            self.keys.iter().enumerate().map(|(i, (_, key))| format!("k{} {}, ", i + 1, key.sql())).collect();
        let create = format!(
            "CREATE TABLE {relation} ({columns}\"value\" {} NOT NULL, PRIMARY KEY ({}))",
            self.value.sql(),
            self.names()
        );
        let has_type =
            format!("pg_catalog.format_type(a.atttypid, a.atttypmod) = {}", literal(&self.value.data_type));
        Step::sql(format!("create the archive of column {}", quote(&self.column)), create)
            .done_when(probe::column(relation, "value", &has_type))
    }

    /// Makes the archive and fills it.
    pub(crate) fn store(&self, table: &Table) -> Vec<Step> {
        let Self { relation, comment, .. } = self;
        let commented = format!(
            "SELECT pg_catalog.obj_description(pg_catalog.to_regclass({}), 'pg_class') IS NOT DISTINCT FROM {}",
            literal(relation),
            literal(comment)
        );
        let value = format!("t.{}", quote(&self.column));
        let select: String =
            self.keys.iter().map(|(name, _)| format!("t.{}, ", quote(name))).chain([value.clone()]).collect();
        let copy = Batches {
            schema: self.schema.clone(),
            table: self.table.clone(),
            work: Work::Copy { into: format!("{relation} ({}, \"value\")", self.names()), select },
            // Of the datum: a composite value with a null field is a value, and `IS NOT NULL` denies it.
            condition: format!("{value} IS DISTINCT FROM NULL"),
            verify: format!(
                "{value} IS DISTINCT FROM NULL AND NOT EXISTS (SELECT 1 FROM {relation} AS a WHERE {})",
                self.joined()
            ),
            keys: self.key_names(),
            marker: None,
        };
        vec![
            self.create(),
            Step::sql(
                "comment on the archive",
                format!("COMMENT ON TABLE {relation} IS {}", literal(comment)),
            )
            .done_when(commented),
            walking(
                Step::batches(format!("archive the values of column {}", quote(&self.column)), copy),
                table,
            ),
        ]
    }

    /// Brings archived values back: `set` are assignments and `condition` says which rows still need them, both over
    /// `t` (the table) and `a` (the archive, with its `"value"`). After the assignment the condition must not hold.
    pub(crate) fn restore(&self, set: &str, condition: &str, marker: Option<Marker>) -> Step {
        let Self { relation, .. } = self;
        let joined = self.joined();
        let batches = Batches {
            schema: self.schema.clone(),
            table: self.table.clone(),
            work: Work::Update { set: set.to_owned(), from: Some(format!("{relation} AS a")) },
            condition: format!("{joined} AND ({condition})"),
            verify: format!("EXISTS (SELECT 1 FROM {relation} AS a WHERE {joined} AND ({condition}))"),
            keys: self.key_names(),
            marker,
        };
        // A rollback that is resumed after it forgot the archive has restored it.
        Step::batches(format!("restore column {} from its archive", quote(&self.column)), batches)
            .done_when(probe::not(&probe::relation(relation)))
    }

    /// Brings the values back wherever the column is null.
    pub(crate) fn restore_nulls(&self) -> Step {
        let column = quote(&self.column);
        self.restore(
            &format!("{column} = a.\"value\""),
            &format!("t.{column} IS NOT DISTINCT FROM NULL"),
            None,
        )
    }

    /// Drops the archive, when a rollback has restored it.
    pub(crate) fn forget(&self) -> Step {
        Step::sql(
            format!("drop the archive of column {}", quote(&self.column)),
            format!("DROP TABLE {}", self.relation),
        )
        .done_when(probe::not(&probe::relation(&self.relation)))
    }

    fn names(&self) -> String {
        (1..=self.keys.len()).map(|i| format!("k{i}")).collect::<Vec<_>>().join(", ")
    }

    fn key_names(&self) -> Vec<String> {
        self.keys.iter().map(|(name, _)| name.clone()).collect()
    }

    fn joined(&self) -> String {
        let pairs = self.keys.iter().enumerate();
        pairs
            .map(|(i, (name, _))| format!("a.k{} = t.{}", i + 1, quote(name)))
            .collect::<Vec<_>>()
            .join(" AND ")
    }
}

/// [`Table::key`], but never one that `column` is part of: it goes with the column.
pub(crate) fn key_without<'a>(table: &'a Table, column: &str) -> Option<Vec<&'a str>> {
    let mut best = None;
    for index in &table.indexes {
        let total = index.unique && index.valid && !index.tail.contains(" WHERE ");
        let plain = !index.keys.is_empty()
            && index
                .keys
                .iter()
                .all(|key| key.as_deref().and_then(|name| table.find(name)).is_some_and(|key| key.not_null));
        let free = !index.uses.iter().any(|used| used == column);
        if total && plain && free && (best.is_none() || index.primary) {
            best = Some(index);
        }
    }
    best.map(|index| index.keys.iter().filter_map(Option::as_deref).collect())
}
