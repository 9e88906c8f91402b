//! `CreateTable`.

use std::fmt::Write as _;

use crate::change::{Change, Touches};
use crate::error::{Error, Kind, Result};
use crate::ident::{Ident, TableName, check_names, quote};
use crate::phase::Context;
use crate::phases::create_table::{Column, Constraint, Create, TableSpec};

/// Creates a table.
///
/// | # | phase | enter | gate | window |
/// |---|---|---|---|---|
/// | 1 | `Create` | `CREATE TABLE` with its columns and constraints; comments | – | 0 |
///
/// **Locks:** `SHARE ROW EXCLUSIVE` on each table that a foreign key refers to, and on its partitions, for a catalog
/// change: the new table is empty, so that nothing is checked.
///
/// **Rollback:** drops the foreign keys, each alone since that locks two tables with their partitions, and then the
/// table, **with every row that was written to it**.
///
/// Whatever has that name already is refused: a rollback would drop it.
///
/// ```
/// use phasewise::create_table::{Action, Column, Constraint};
/// use phasewise::{CreateTable, Migration, Migrations, migrations};
///
/// static MIGRATIONS: Migrations = migrations![Migration::new(
///     "20261119_orders",
///     CreateTable::new("orders")
///         .columns([
///             Column::new("id", "bigint").identity(),
///             Column::new("user_id", "bigint").not_null(),
///             Column::new("amount", "numeric(12, 2)").not_null().default("0"),
///         ])
///         .primary_key(&["id"])
///         .constraints([
///             Constraint::check("orders_amount_positive", "{amount} >= 0"),
///             Constraint::foreign_key("orders_user_id_fkey", &["user_id"], "users", &["id"]).on_delete(Action::Cascade),
///         ])
///         .comment("one row per checkout"),
/// )];
/// # assert_eq!(MIGRATIONS.iter().len(), 1);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CreateTable<const N: usize = 0, const K: usize = 0> {
    spec: TableSpec<N, K>,
}

impl CreateTable {
    /// A table of that name, without columns yet.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self {
            spec: TableSpec {
                name: TableName::new(name),
                columns: [],
                primary_key: &[],
                constraints: [],
                comment: None,
            },
        }
    }
}

impl<const N: usize, const K: usize> CreateTable<N, K> {
    /// Its columns, in order.
    #[must_use]
    pub const fn columns<const M: usize>(self, columns: [Column; M]) -> CreateTable<M, K> {
        let TableSpec { name, primary_key, constraints, comment, .. } = self.spec;
        CreateTable { spec: TableSpec { name, columns, primary_key, constraints, comment } }
    }

    /// Its primary key.
    #[must_use]
    pub const fn primary_key(mut self, columns: &'static [&'static str]) -> Self {
        check_names(columns);
        self.spec.primary_key = columns;
        self
    }

    /// UNIQUE, CHECK and FOREIGN KEY constraints.
    #[must_use]
    pub const fn constraints<const M: usize>(self, constraints: [Constraint; M]) -> CreateTable<N, M> {
        let TableSpec { name, columns, primary_key, comment, .. } = self.spec;
        CreateTable { spec: TableSpec { name, columns, primary_key, constraints, comment } }
    }

    /// A comment on the table.
    #[must_use]
    pub const fn comment(mut self, comment: &'static str) -> Self {
        self.spec.comment = Some(comment);
        self
    }
}

impl<const N: usize, const K: usize> Change for CreateTable<N, K> {
    type Phases = (Create<N, K>,);

    fn phases(&self) -> Self::Phases {
        (Create { spec: self.spec },)
    }

    fn definition(&self) -> String {
        let mut text = format!("create table {}", self.spec.name);
        for column in &self.spec.columns {
            let _ = write!(text, "\n column {}", column.sql());
            if let Some(comment) = column.comment {
                let _ = write!(text, "\n  comment {comment}");
            }
        }
        for column in self.spec.primary_key {
            let _ = write!(text, "\n primary key {}", quote(column));
        }
        for constraint in &self.spec.constraints {
            let _ = write!(text, "\n {}", constraint.sql(|table| table.to_string()));
        }
        if let Some(comment) = self.spec.comment {
            let _ = write!(text, "\n comment {comment}");
        }
        text
    }

    fn touches(&self) -> Touches {
        let references = self.spec.constraints.iter().filter_map(Constraint::references);
        references.filter(|(table, _)| *table != self.spec.name).fold(
            Touches::nothing().creates(self.spec.name),
            |touches, (table, columns)| {
                let columns: Vec<Ident> = columns.iter().map(|name| Ident::new(name)).collect();
                touches.refers(table, &columns)
            },
        )
    }

    fn check(&self, cx: &Context<'_>) -> Result<()> {
        let TableSpec { name, columns, .. } = self.spec;
        let sql = cx.snapshot.sql_name(name);
        if columns.is_empty() {
            return Err(Error::new(
                Kind::Definition,
                format!("table {sql} has no columns: add .columns([…])"),
            ));
        }
        let schema = cx.snapshot.schema_of(name);
        if cx.snapshot.find(name).is_some() || cx.snapshot.is_taken(schema, name.name().as_str()) {
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "a relation named {sql} exists already: choose another name, or remove this migration"
                ),
            ));
        }
        self.spec.refuse(cx)
    }
}
