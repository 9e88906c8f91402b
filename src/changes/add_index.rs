//! `AddIndex`.

use std::fmt::Write as _;

use crate::change::{Change, Touches};
use crate::error::{Error, Kind, Result};
use crate::expr::Expr;
use crate::ident::{Ident, TableName, check_names, quote};
use crate::phase::Context;
use crate::phases::add_index::{BuildConcurrently, IndexKey, IndexSpec, Keys, MAX_KEYS};
use crate::steps::index;

/// Adds an index while everybody reads and writes.
///
/// | # | phase | enter | gate | window |
/// |---|---|---|---|---|
/// | 1 | `BuildConcurrently` | `CREATE INDEX CONCURRENTLY` under a name of the attempt's own; renamed when it is valid | – | 0 |
///
/// **Locks:** `SHARE UPDATE EXCLUSIVE`, which blocks no client. On a partitioned table the parents get theirs
/// `ON ONLY` (`SHARE`, for a catalog change: they hold no rows), each partition's is built concurrently and attached.
///
/// **Rollback:** `DROP INDEX CONCURRENTLY`; on a partitioned table a plain `DROP INDEX`, which takes
/// `ACCESS EXCLUSIVE` on all partitions for a catalog change, since Postgres has no other form.
///
/// ```
/// use phasewise::{AddIndex, Migration, Migrations, add_index::IndexKey, migrations};
///
/// static MIGRATIONS: Migrations = migrations![
///     Migration::new(
///         "20261124_users_email",
///         AddIndex::new("users", "users_email_key").columns(&["email"]).unique(),
///     ),
///     Migration::new(
///         "20261124_orders_open",
///         AddIndex::new("orders", "orders_open_idx")
///             .keys([IndexKey::expression("lower({customer})"), IndexKey::column("placed_at").desc()])
///             .include(&["amount"])
///             .where_("{closed_at} is null")
///             .with(&[("fillfactor", "80")]),
///     ),
/// ];
/// # assert_eq!(MIGRATIONS.iter().len(), 2);
/// ```
///
/// An index that follows from a constraint is not added here: a UNIQUE constraint needs `.unique()` only, and serves
/// `ON CONFLICT` as well.
#[derive(Clone, Copy, Debug)]
pub struct AddIndex {
    spec: IndexSpec,
}

impl AddIndex {
    /// An index of that name on `table`; say on what with [`columns`](Self::columns) or [`keys`](Self::keys).
    #[must_use]
    pub const fn new(table: &'static str, name: &'static str) -> Self {
        Self {
            spec: IndexSpec {
                table: TableName::new(table),
                name: Ident::new(name),
                keys: Keys::Columns(&[]),
                method: Ident::new("btree"),
                unique: false,
                nulls_not_distinct: false,
                include: &[],
                with: &[],
                predicate: None,
                comment: None,
            },
        }
    }

    /// On these columns, in this order.
    #[must_use]
    pub const fn columns(mut self, columns: &'static [&'static str]) -> Self {
        check_names(columns);
        self.spec.keys = Keys::Columns(columns);
        self
    }

    /// On these columns and expressions, with their options, in this order.
    #[must_use]
    pub const fn keys<const N: usize>(mut self, keys: [IndexKey; N]) -> Self {
        assert!(N > 0, "an index has no keys: name at least one column or expression");
        assert!(N <= MAX_KEYS, "an index has more than 32 keys, and Postgres takes no more: leave some out");
        let mut all = [None; MAX_KEYS];
        let mut i = 0;
        while i < N {
            all[i] = Some(keys[i]);
            i += 1;
        }
        self.spec.keys = Keys::Keys(all);
        self
    }

    /// `UNIQUE`.
    #[must_use]
    pub const fn unique(mut self) -> Self {
        self.spec.unique = true;
        self
    }

    /// `UNIQUE NULLS NOT DISTINCT`, on Postgres 15 and newer.
    #[must_use]
    pub const fn nulls_not_distinct(mut self) -> Self {
        self.spec.unique = true;
        self.spec.nulls_not_distinct = true;
        self
    }

    /// The access method: `btree` (the default), `hash`, `gin`, `gist`, `spgist`, `brin`, or an extension's.
    #[must_use]
    pub const fn using(mut self, method: &'static str) -> Self {
        self.spec.method = Ident::new(method);
        self
    }

    /// Columns that are stored along, but are no keys.
    #[must_use]
    pub const fn include(mut self, columns: &'static [&'static str]) -> Self {
        check_names(columns);
        self.spec.include = columns;
        self
    }

    /// Only the rows for which this holds.
    #[must_use]
    pub const fn where_(mut self, predicate: &'static str) -> Self {
        self.spec.predicate = Some(Expr::new(predicate));
        self
    }

    /// Storage parameters: `&[("fillfactor", "70")]`.
    #[must_use]
    pub const fn with(mut self, parameters: &'static [(&'static str, &'static str)]) -> Self {
        self.spec.with = parameters;
        self
    }

    /// A comment on the index.
    #[must_use]
    pub const fn comment(mut self, comment: &'static str) -> Self {
        self.spec.comment = Some(comment);
        self
    }
}

impl Change for AddIndex {
    type Phases = (BuildConcurrently,);

    fn phases(&self) -> Self::Phases {
        (BuildConcurrently { spec: self.spec },)
    }

    fn definition(&self) -> String {
        let IndexSpec { table, name, method, .. } = self.spec;
        let mut text = format!("add index {name} on {table}\n using {method}");
        for key in self.spec.key_list() {
            let _ = write!(text, "\n key {key}");
        }
        if self.spec.unique {
            text.push_str("\n unique");
        }
        if self.spec.nulls_not_distinct {
            text.push_str("\n nulls not distinct");
        }
        for column in self.spec.include {
            let _ = write!(text, "\n include {}", quote(column));
        }
        for (parameter, value) in self.spec.with {
            let _ = write!(text, "\n with {parameter} = {value}");
        }
        if let Some(predicate) = self.spec.predicate {
            let _ = write!(text, "\n where {}", predicate.as_str());
        }
        if let Some(comment) = self.spec.comment {
            let _ = write!(text, "\n comment {comment}");
        }
        text
    }

    fn touches(&self) -> Touches {
        Touches::nothing().columns(self.spec.table, &self.spec.columns())
    }

    fn is_optional(&self) -> bool {
        // What a unique one refuses, and `ON CONFLICT`, is what code counts on.
        !self.spec.unique
    }

    fn check(&self, cx: &Context<'_>) -> Result<()> {
        let spec = &self.spec;
        let table = cx.snapshot.table(spec.table)?;
        let name = spec.name.quoted();
        if matches!(spec.keys, Keys::Columns([])) {
            return Err(Error::new(
                Kind::Definition,
                format!("index {name} has no keys: add .columns(&[…]) or .keys([…])"),
            ));
        }
        for column in spec.columns() {
            table.column(column.as_str())?;
        }
        if spec.nulls_not_distinct && cx.snapshot.server_version < 150_000 {
            return Err(Error::new(
                Kind::Unsupported,
                format!(
                    "index {name}: NULLS NOT DISTINCT needs Postgres 15 or newer: upgrade, or leave it out"
                ),
            ));
        }
        index::check_buildable(cx, table)?;
        if table.is_partitioned() && spec.unique {
            let missing = table.partition_key.iter().find(|column| !spec.has_key(column));
            if let Some(column) = missing {
                return Err(Error::new(
                    Kind::Unsupported,
                    format!(
                        "unique index {name}: table {} is partitioned by {}, which must be among the keys: add it",
                        table.sql(),
                        quote(column)
                    ),
                ));
            }
        }
        // The same index too: it is not ours, and a rollback would drop it.
        if cx.snapshot.is_taken(&table.schema, spec.name.as_str()) {
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "a relation named {name} exists in schema {} already: choose another name, or remove this migration",
                    quote(&table.schema)
                ),
            ));
        }
        Ok(())
    }
}
