//! `AddColumn`.

use std::fmt::Write as _;
use std::marker::PhantomData;

use super::refuse;
use crate::change::{Change, Touches};
use crate::error::{Error, Kind, Result};
use crate::expr::Expr;
use crate::ident::{Collation, Ident, TableName, check_names};
use crate::phase::{Context, DeployPhase};
use crate::phases::add_column::{
    AddNullable, AddWithDefault, Backfill, ColumnSpec, EnforceNotNull, NotNull, Nullable, ReadNew,
    SetDefault, Unfilled, WithBackfill, WithDefault, WithVolatileDefault, WriteNew,
};

/// Adds a column.
///
/// The phases follow from the options. With `.not_null().backfill(…)` there are three releases: 0 ignores the column,
/// 1 writes it and falls back where it reads null, 2 relies on it.
///
/// | # | phase | enter | gate | window |
/// |---|---|---|---|---|
/// | 1 | `AddNullable` | `ADD COLUMN`, nullable, no default | – | 0, 1 |
/// | 2 | `WriteNew` | – | fleet ≥ 1 | 0, 1 |
/// | 3 | `Backfill` | batches over nulls; verify; the CHECK, if any, `NOT VALID` and then validated | – | 1, 2 |
/// | 4 | `ReadNew` | – | fleet ≥ 2 | 1, 2 |
/// | 5 | `EnforceNotNull` | `CHECK` `NOT VALID` · `VALIDATE` · `SET NOT NULL` · drop the `CHECK` (18: `NOT NULL … NOT VALID` · `VALIDATE`) | – | 2 |
///
/// `.backfill(…)` alone ends with `Backfill`, after which releases 1 and 2 may run side by side for good. All other
/// forms have one release only, and need no mark:
///
/// | options | phases |
/// |---|---|
/// | none: the column is nullable | `AddNullable` |
/// | `.default(…)`, with or without `.not_null()` | `AddWithDefault` |
/// | `.volatile_default(…)` | `AddNullable` · `SetDefault` · `Backfill` |
/// | `.volatile_default(…).not_null()` | `AddNullable` · `SetDefault` · `Backfill` · `EnforceNotNull` |
///
/// A NOT NULL column without any of the three does not compile: no row could have a value.
///
/// **Locks:** `ACCESS EXCLUSIVE` for changes of the catalog alone, under the stall budget; `VALIDATE` reads the table
/// under `SHARE UPDATE EXCLUSIVE`, which blocks no client; batches lock the rows that they fill.
///
/// **Rollback:** `EnforceNotNull` drops the NOT NULL, `Backfill` the CHECK; `AddNullable` and `AddWithDefault` drop the
/// column, with what was written to it.
///
/// ```
/// use phasewise::{AddColumn, Migration, Migrations, add_column::WriteNew, migrations};
///
/// static MIGRATIONS: Migrations = migrations![
///     Migration::new("20261120_users_nick", AddColumn::new("users", "nick", "text")),
///     Migration::new("20261121_users_active", AddColumn::new("users", "active", "boolean").default("true").not_null()),
///     Migration::new(
///         "20261122_users_token",
///         AddColumn::new("users", "token", "uuid").volatile_default("gen_random_uuid()").not_null(),
///     ),
///     Migration::new(
///         "20261123_users_locale",
///         AddColumn::new("users", "locale", "varchar(10)")
///             .backfill("case when {country} = 'DE' then 'de' else 'en' end")
///             .not_null()
///             .check("users_locale_known", "{locale} in ('de', 'en')"),
///     )
///     .deployed::<WriteNew>(),
/// ];
/// # assert_eq!(MIGRATIONS.get("20261123_users_locale").map(|entry| entry.release()), Some(1));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AddColumn<N = Nullable, F = Unfilled> {
    spec: ColumnSpec,
    null: PhantomData<N>,
    fill: PhantomData<F>,
}

impl AddColumn {
    /// A column of that type on `table`. The type is SQL, such as `numeric(12, 2)`, and nothing but a type.
    #[must_use]
    pub const fn new(table: &'static str, name: &'static str, data_type: &'static str) -> Self {
        assert!(!data_type.is_empty(), "a column's type is empty: write an SQL type, such as \"text\"");
        Self::of(ColumnSpec {
            table: TableName::new(table),
            name: Ident::new(name),
            data_type,
            not_null: false,
            default: None,
            volatile: false,
            backfill: None,
            computed_from: None,
            collation: None,
            check: None,
            comment: None,
        })
    }
}

impl<N> AddColumn<N, Unfilled> {
    /// A default that is the same for every row, as SQL: Postgres keeps it in the catalog and writes no row. One that
    /// would make it rewrite the table is refused before anything is touched.
    #[must_use]
    pub const fn default(mut self, sql: &'static str) -> AddColumn<N, WithDefault> {
        assert!(!sql.is_empty(), "a default is empty: write an SQL expression, such as \"0\"");
        self.spec.default = Some(sql);
        AddColumn::of(self.spec)
    }

    /// A default that differs from row to row, as SQL, such as `gen_random_uuid()`: existing rows are filled in batches.
    #[must_use]
    pub const fn volatile_default(mut self, sql: &'static str) -> AddColumn<N, WithVolatileDefault> {
        assert!(
            !sql.is_empty(),
            "a default is empty: write an SQL expression, such as \"gen_random_uuid()\""
        );
        self.spec.default = Some(sql);
        self.spec.volatile = true;
        AddColumn::of(self.spec)
    }

    /// What existing rows get, where nobody has written the column: an expression over `{column}`s. The application
    /// writes the column itself, as of release 1.
    #[must_use]
    pub const fn backfill(mut self, expression: &'static str) -> AddColumn<N, WithBackfill> {
        self.spec.backfill = Some(Expr::new(expression));
        AddColumn::of(self.spec)
    }
}

impl<N> AddColumn<N, Unfilled> {
    /// What existing rows get, where nobody has written the column: the value that a function of the application
    /// computes from these columns, for what SQL cannot do. The function is given to
    /// [`Migrator::compute`](crate::Migrator::compute). Otherwise like [`backfill`](AddColumn::backfill).
    ///
    /// # Panics
    ///
    /// On a name that is no identifier: a compile error in a definition.
    #[must_use]
    pub const fn computed_from(mut self, columns: &'static [&'static str]) -> AddColumn<N, WithBackfill> {
        assert!(
            !columns.is_empty(),
            "a computed column is computed from nothing: name the columns that its function reads"
        );
        check_names(columns);
        self.spec.computed_from = Some(columns);
        AddColumn::of(self.spec)
    }
}

impl<F> AddColumn<Nullable, F> {
    /// NOT NULL, once every row has a value.
    #[must_use]
    pub const fn not_null(mut self) -> AddColumn<NotNull, F> {
        self.spec.not_null = true;
        AddColumn::of(self.spec)
    }
}

impl<N, F> AddColumn<N, F> {
    const fn of(spec: ColumnSpec) -> Self {
        Self { spec, null: PhantomData, fill: PhantomData }
    }

    /// A collation, by its name: `"C"`, `"en_US.utf8"`. One in another schema has the schema before it, in double quotes:
    /// `"\"audit\".german"`.
    #[must_use]
    pub const fn collate(mut self, name: &'static str) -> Self {
        self.spec.collation = Some(Collation::new(name));
        self
    }

    /// A CHECK of that name, over `{column}`s. It is validated without a lock that blocks anyone, once the rows are
    /// filled.
    #[must_use]
    pub const fn check(mut self, name: &'static str, expression: &'static str) -> Self {
        self.spec.check = Some((Ident::new(name), Expr::new(expression)));
        self
    }

    /// A comment on the column.
    #[must_use]
    pub const fn comment(mut self, comment: &'static str) -> Self {
        self.spec.comment = Some(comment);
        self
    }

    const fn add_nullable(&self) -> AddNullable<F> {
        AddNullable { spec: self.spec, fill: PhantomData }
    }

    const fn backfill_phase(&self) -> Backfill<F> {
        Backfill { spec: self.spec, fill: PhantomData }
    }

    const fn enforce(&self) -> EnforceNotNull<F> {
        EnforceNotNull { spec: self.spec, fill: PhantomData }
    }
}

impl ColumnSpec {
    fn definition(&self) -> String {
        let mut text = format!("add column {} to {}\n type {}", self.name, self.table, self.data_type);
        if let Some(collation) = self.collation {
            let _ = write!(text, "\n collate {collation}");
        }
        if self.not_null {
            text.push_str("\n not null");
        }
        if let Some(default) = self.default {
            let volatile = if self.volatile { "volatile " } else { "" };
            let _ = write!(text, "\n {volatile}default {default}");
        }
        if let Some(expr) = self.backfill {
            let _ = write!(text, "\n backfill {}", expr.as_str());
        }
        if let Some(columns) = self.computed_from {
            let _ = write!(text, "\n computed from {}", columns.join(", "));
        }
        if let Some((name, expr)) = self.check {
            let _ = write!(text, "\n check {name}: {}", expr.as_str());
        }
        if let Some(comment) = self.comment {
            let _ = write!(text, "\n comment {comment}");
        }
        text
    }

    fn touches(&self) -> Touches {
        let mut columns = vec![self.name];
        let exprs = self.backfill.iter().chain(self.check.iter().map(|(_, expr)| expr));
        columns.extend(exprs.flat_map(Expr::columns).map(Ident::new));
        columns.extend(self.computed_from.into_iter().flatten().map(|&name| Ident::new(name)));
        columns.sort_unstable();
        columns.dedup();
        Touches::nothing().columns(self.table, &columns)
    }

    fn check(&self, cx: &Context<'_>) -> Result<()> {
        let table = refuse::changeable(cx, self.table)?;
        if table.find(self.name.as_str()).is_some() {
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "column {} of table {} exists already: choose another name, or remove this migration",
                    self.name.quoted(),
                    table.sql()
                ),
            ));
        }
        if let Some(expr) = &self.backfill {
            for column in expr.columns() {
                table.column(column)?;
            }
        }
        for column in self.computed_from.into_iter().flatten() {
            table.column(column)?;
        }
        if let Some((name, expr)) = &self.check {
            for column in expr.columns().into_iter().filter(|column| *column != self.name.as_str()) {
                table.column(column)?;
            }
            if table.constraints.iter().any(|found| found.name == name.as_str()) {
                return Err(Error::new(
                    Kind::Conflict,
                    format!(
                        "table {} has a constraint {} already: choose another name for the check",
                        table.sql(),
                        name.quoted()
                    ),
                ));
            }
        }
        self.refuse(cx, table)
    }
}

macro_rules! change {
    ($([$($generic:ident)?] $null:ty, $fill:ty => $($phase:ty: $of:expr),+;)+) => {$(
        impl$(<$generic: Copy + Send + Sync + 'static>)? Change for AddColumn<$null, $fill> {
            type Phases = ($($phase,)+);

            fn phases(&self) -> Self::Phases {
                ($($of(self),)+)
            }

            fn definition(&self) -> String {
                self.spec.definition()
            }

            fn touches(&self) -> Touches {
                self.spec.touches()
            }

            fn check(&self, cx: &Context<'_>) -> Result<()> {
                self.spec.check(cx)
            }
        }
    )+};
}

change! {
    [] Nullable, Unfilled => AddNullable<Unfilled>: Self::add_nullable;

    [N] N, WithDefault => AddWithDefault: |change: &Self| AddWithDefault { spec: change.spec };

    [] Nullable, WithVolatileDefault =>
        AddNullable<WithVolatileDefault>: Self::add_nullable,
        SetDefault: |change: &Self| SetDefault { spec: change.spec },
        Backfill<WithVolatileDefault>: Self::backfill_phase;

    [] NotNull, WithVolatileDefault =>
        AddNullable<WithVolatileDefault>: Self::add_nullable,
        SetDefault: |change: &Self| SetDefault { spec: change.spec },
        Backfill<WithVolatileDefault>: Self::backfill_phase,
        EnforceNotNull<WithVolatileDefault>: Self::enforce;

    [] Nullable, WithBackfill =>
        AddNullable: Self::add_nullable,
        WriteNew: |_: &Self| WriteNew,
        Backfill: Self::backfill_phase;

    [] NotNull, WithBackfill =>
        AddNullable: Self::add_nullable,
        WriteNew: |_: &Self| WriteNew,
        Backfill: Self::backfill_phase,
        ReadNew: |_: &Self| ReadNew,
        EnforceNotNull: Self::enforce;
}

impl DeployPhase<AddColumn<Nullable, WithBackfill>> for WriteNew {}
// No phase waits for release 2 there, yet code that relies on the column must not start before it is filled.
impl DeployPhase<AddColumn<Nullable, WithBackfill>> for ReadNew {}
impl DeployPhase<AddColumn<NotNull, WithBackfill>> for WriteNew {}
impl DeployPhase<AddColumn<NotNull, WithBackfill>> for ReadNew {}
