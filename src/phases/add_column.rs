//! The phases of [`AddColumn`](crate::AddColumn), and the markers of its options.

use std::marker::PhantomData;

use crate::catalog::{Question, Table};
use crate::error::{Error, Kind, Result};
use crate::expr::Expr;
use crate::ident::{Collation, Ident, TableName, quote};
use crate::phase::{Context, Gate, Phase, Rollback, Window};
use crate::step::{Batches, Step, Work};
use crate::steps::archive::key_without;
use crate::steps::{column, constraint, probe, refuse_foreign_leaf, rows, trial, walking};

/// The column may be null.
#[derive(Clone, Copy, Debug)]
pub struct Nullable(());

/// The column is NOT NULL in the end.
#[derive(Clone, Copy, Debug)]
pub struct NotNull(());

/// Existing rows stay null.
#[derive(Clone, Copy, Debug)]
pub struct Unfilled(());

/// Existing rows get a constant default at once.
#[derive(Clone, Copy, Debug)]
pub struct WithDefault(());

/// Existing rows get a volatile default, in batches.
#[derive(Clone, Copy, Debug)]
pub struct WithVolatileDefault(());

/// Existing rows get the value of an expression, in batches, and the application writes new ones.
#[derive(Clone, Copy, Debug)]
pub struct WithBackfill(());

/// How existing rows get a value decides which releases there are.
pub trait Fill: Copy + Send + Sync + 'static + sealed::Sealed {
    #[doc(hidden)]
    const ADDED: Window;
    #[doc(hidden)]
    const FILLED: Window;
    #[doc(hidden)]
    const ENFORCED: Window;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Unfilled {}
    impl Sealed for super::WithVolatileDefault {}
    impl Sealed for super::WithBackfill {}
}

impl Fill for Unfilled {
    const ADDED: Window = Window::new(0, 0);
    const FILLED: Window = Window::new(0, 0);
    const ENFORCED: Window = Window::new(0, 0);
}

impl Fill for WithVolatileDefault {
    const ADDED: Window = Window::new(0, 0);
    const FILLED: Window = Window::new(0, 0);
    const ENFORCED: Window = Window::new(0, 0);
}

impl Fill for WithBackfill {
    const ADDED: Window = Window::new(0, 1);
    const FILLED: Window = Window::new(1, 2);
    const ENFORCED: Window = Window::new(2, 2);
}

/// A column as its user describes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ColumnSpec {
    pub(crate) table: TableName,
    pub(crate) name: Ident,
    pub(crate) data_type: &'static str,
    pub(crate) not_null: bool,
    pub(crate) default: Option<&'static str>,
    pub(crate) volatile: bool,
    pub(crate) backfill: Option<Expr>,
    /// The columns from which a function of the application computes the value.
    pub(crate) computed_from: Option<&'static [&'static str]>,
    pub(crate) collation: Option<Collation>,
    pub(crate) check: Option<(Ident, Expr)>,
    pub(crate) comment: Option<&'static str>,
}

impl ColumnSpec {
    fn collate(&self) -> Option<String> {
        self.collation.map(|collation| collation.quoted())
    }

    /// The type as written, with the collation: what the server is asked about.
    fn typed(&self) -> String {
        match self.collate() {
            Some(collation) => format!("{} COLLATE {collation}", self.data_type),
            None => self.data_type.to_owned(),
        }
    }

    fn fills(&self) -> bool {
        self.volatile || self.backfill.is_some() || self.computed_from.is_some()
    }

    /// Everything that the server is asked, in whatever phase.
    fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
        let table = cx.snapshot.table(self.table)?.sql();
        let (name, typed) = (self.name.as_str(), self.typed());
        let mut questions = vec![
            trial::type_question(self.data_type),
            trial::added_question(&table, name, &typed, self.default, self.volatile),
        ];
        if let Some(expr) = &self.backfill {
            questions.push(trial::expr_question(&table, expr, name, Some((name, &typed)), None));
        }
        if let Some((_, expr)) = &self.check {
            questions.push(trial::check_question(&table, expr, (name, &typed)));
            questions.extend(self.lone_check(expr));
        }
        Ok(questions)
    }

    fn add(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        let table = cx.snapshot.table(self.table)?;
        let (name, typed) = (self.name.as_str(), self.typed());
        let data_type = trial::type_answer(cx, self.data_type)?.data_type;
        let added = trial::added_answer(cx, &table.sql(), name, &typed, self.default)?;
        if added.rewrites {
            let mend = if added.rewrites_bare {
                "its type is a domain with constraints; use the type below the domain, and .check(…)"
            } else {
                "its default is not the same for every row; use .volatile_default(…), which fills the rows in batches"
            };
            return Err(Error::new(
                Kind::Unsupported,
                format!(
                    "adding column {} to table {} would rewrite the table under a lock: {mend}",
                    self.name.quoted(),
                    table.sql()
                ),
            ));
        }
        if let Some(expr) = &self.backfill {
            trial::expr_answer(cx, &table.sql(), expr, name)?;
        }
        let collation = self.collate();
        let collation = collation.as_deref();
        let mut steps = Vec::new();
        if !self.fills() {
            steps.extend(self.look_ahead(table));
        }
        steps.push(match (self.default, added.default) {
            (Some(default), Some(found)) if !self.volatile => {
                column::add_with_default(table, name, &data_type, collation, (default, &found), self.not_null)
            }
            _ => column::add(table, name, &data_type, collation, None),
        });
        steps.extend(self.comment.map(|comment| column::comment(table, name, comment)));
        if !self.fills() {
            steps.extend(self.checks(cx, table)?);
        }
        Ok(steps)
    }

    /// The CHECK, once every row has its value: a NOT VALID one would fail any update of a row without it.
    fn checks(&self, cx: &Context<'_>, table: &Table) -> Result<Vec<Step>> {
        let Some((name, expr)) = &self.check else { return Ok(Vec::new()) };
        let definition = trial::check_answer(cx, &table.sql(), expr)?.definition;
        Ok(constraint::add_unproven_check(table, name.as_str(), &definition))
    }

    /// Looks for rows that would break the CHECK, before the column is there: each will hold its default, or null.
    fn look_ahead(&self, table: &Table) -> Option<Step> {
        let (name, expr) = self.check.as_ref()?;
        let broken = expr.render(|column| {
            if column == self.name.as_str() { self.at_first() } else { format!("t.{}", quote(column)) }
        });
        let step = rows::none(
            format!("look for rows that would break check {}", name.quoted()),
            table,
            &format!("NOT {broken}"),
            &constraint::broken_check(table, name.as_str()),
        );
        Some(step.done_when(probe::column(&table.sql(), self.name.as_str(), "true")))
    }

    /// What every row that is there holds once the column is added, where it is not filled in batches.
    fn at_first(&self) -> String {
        format!("CAST(({}) AS {})", self.default.unwrap_or("NULL"), self.data_type)
    }

    /// Whether a CHECK on this column alone holds for what every row will have; then no row need be looked at.
    fn lone_check(&self, expr: &Expr) -> Option<Question> {
        if self.fills() || expr.columns() != [self.name.as_str()] {
            return None;
        }
        Some(Question {
            key: self.lone_key(expr),
            statements: Vec::new(),
            query: format!("SELECT pg_catalog.to_jsonb(({}) IS NOT FALSE)", expr.render(|_| self.at_first())),
        })
    }

    fn lone_key(&self, expr: &Expr) -> String {
        format!("check {} of what every row of {} will have", expr.as_str(), self.table)
    }

    /// Refuses what the server's answers show to fail on every row.
    pub(crate) fn refuse(&self, cx: &Context<'_>, table: &Table) -> Result<()> {
        let typed = self.typed();
        let no = |what: String| {
            let (migration, name) = (cx.migration, self.name.quoted());
            Err(Error::new(
                Kind::Definition,
                format!("migration {migration}: column {name} of table {}: {what}", table.sql()),
            ))
        };
        if let Some(default) = self.default.filter(|_| self.not_null) {
            let added = trial::added_answer(cx, &table.sql(), self.name.as_str(), &typed, self.default)?;
            if added.default_is_null {
                return no(format!(
                    "it is to be NOT NULL, and its default {default} is null: give one that is not"
                ));
            }
        }
        if let Some((name, expr)) = &self.check {
            if self.lone_check(expr).is_some() && !trial::read::<bool>(cx, &self.lone_key(expr))? {
                let held = self.default.map_or_else(
                    || "null, which every row there will hold".to_owned(),
                    |default| format!("its default {default}"),
                );
                return no(format!(
                    "check {} does not hold for {held}: mend the check or the default, or fill the rows with .backfill(…)",
                    name.quoted()
                ));
            }
        }
        if self.fills() {
            return refuse_foreign_leaf(table, "filled");
        }
        Ok(())
    }

    fn fill(&self, table: &Table) -> Step {
        let column = self.name.quoted();
        let null = format!("t.{column} IS NULL");
        let update = |set| Work::Update { set, from: None };
        let (work, condition, unfilled) = match (&self.backfill, self.computed_from) {
            (Some(expr), _) => {
                let value = expr.over("t");
                let condition = format!("{null} AND {value} IS NOT NULL");
                (update(format!("{column} = {value}")), condition.clone(), condition)
            }
            (None, Some(inputs)) => {
                let inputs = inputs.iter().map(|&name| name.to_owned()).collect();
                let work = Work::Compute { column: self.name.as_str().to_owned(), inputs };
                // Only the function knows for which rows it has no value.
                (work, null.clone(), "false".to_owned())
            }
            (None, None) => (update(format!("{column} = DEFAULT")), null.clone(), null.clone()),
        };
        // Where the column is NOT NULL in the end, rows that have no value are reported.
        let verify = if self.not_null { null } else { unfilled };
        walking(
            Step::batches(
                format!("fill column {column}"),
                Batches {
                    schema: table.schema.clone(),
                    table: table.name.clone(),
                    work,
                    condition,
                    verify,
                    keys: key_without(table, self.name.as_str())
                        .map(|keys| keys.into_iter().map(str::to_owned).collect())
                        .unwrap_or_default(),
                    marker: None,
                },
            ),
            table,
        )
    }
}

/// Adds the column, nullable and without a default: a change of the catalog alone.
///
/// Rolled back by dropping it, with what was written to it.
#[derive(Clone, Copy, Debug)]
pub struct AddNullable<F = WithBackfill> {
    pub(crate) spec: ColumnSpec,
    pub(crate) fill: PhantomData<F>,
}

impl<F: Fill> Phase for AddNullable<F> {
    const NAME: &'static str = "AddNullable";
    const WINDOW: Window = F::ADDED;

    fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
        self.spec.questions(cx)
    }

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        self.spec.add(cx)
    }

    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        drop_again(&self.spec, cx)
    }
}

/// Adds the column with a default that Postgres keeps in the catalog, so that no row is written.
///
/// Rolled back by dropping it, with what was written to it.
#[derive(Clone, Copy, Debug)]
pub struct AddWithDefault {
    pub(crate) spec: ColumnSpec,
}

impl Phase for AddWithDefault {
    const NAME: &'static str = "AddWithDefault";
    const WINDOW: Window = Window::new(0, 0);

    fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
        self.spec.questions(cx)
    }

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        self.spec.add(cx)
    }

    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        drop_again(&self.spec, cx)
    }
}

fn drop_again(spec: &ColumnSpec, cx: &Context<'_>) -> Result<Rollback> {
    let table = cx.snapshot.table(spec.table)?;
    Ok(Rollback::Steps(vec![column::drop(table, spec.name.as_str())]))
}

/// Sets the volatile default, for rows to come.
///
/// Rolled back by dropping the default.
#[derive(Clone, Copy, Debug)]
pub struct SetDefault {
    pub(crate) spec: ColumnSpec,
}

impl Phase for SetDefault {
    const NAME: &'static str = "SetDefault";
    const WINDOW: Window = Window::new(0, 0);

    fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
        self.spec.questions(cx)
    }

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        let spec = &self.spec;
        let table = cx.snapshot.table(spec.table)?;
        let name = spec.name.as_str();
        let added = trial::added_answer(cx, &table.sql(), name, &spec.typed(), spec.default)?;
        Ok(added.default.map(|default| column::set_default(table, name, &default)).into_iter().collect())
    }

    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        let table = cx.snapshot.table(self.spec.table)?;
        Ok(Rollback::Steps(vec![column::drop_default(table, self.spec.name.as_str())]))
    }
}

/// The fleet begins to write the column, and falls back where it reads null: release 1.
///
/// Nothing happens in the database; reverting the deploy is the rollback.
#[derive(Clone, Copy, Debug)]
pub struct WriteNew;

impl Phase for WriteNew {
    const NAME: &'static str = "WriteNew";
    const WINDOW: Window = Window::new(0, 1);
    const GATE: Gate = Gate::fleet(1);

    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }

    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }
}

/// Fills the column where it is null, in batches, and adds the CHECK.
///
/// Rolled back by dropping the CHECK; values stay, since they harm nobody.
#[derive(Clone, Copy, Debug)]
pub struct Backfill<F = WithBackfill> {
    pub(crate) spec: ColumnSpec,
    pub(crate) fill: PhantomData<F>,
}

impl<F: Fill> Phase for Backfill<F> {
    const NAME: &'static str = "Backfill";
    const WINDOW: Window = F::FILLED;

    fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
        self.spec.questions(cx)
    }

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        let table = cx.snapshot.table(self.spec.table)?;
        let mut steps = vec![self.spec.fill(table)];
        steps.extend(self.spec.checks(cx, table)?);
        Ok(steps)
    }

    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        let table = cx.snapshot.table(self.spec.table)?;
        let check = self.spec.check.map(|(name, _)| constraint::drop(table, name.as_str()));
        Ok(Rollback::Steps(check.into_iter().collect()))
    }
}

/// The fleet relies on the column: release 2.
///
/// Nothing happens in the database; reverting the deploy is the rollback.
#[derive(Clone, Copy, Debug)]
pub struct ReadNew;

impl Phase for ReadNew {
    const NAME: &'static str = "ReadNew";
    const WINDOW: Window = Window::new(1, 2);
    const GATE: Gate = Gate::fleet(2);

    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }

    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }
}

/// Makes the column NOT NULL without a scan under a lock that blocks anyone.
///
/// Rolled back by dropping the NOT NULL.
#[derive(Clone, Copy, Debug)]
pub struct EnforceNotNull<F = WithBackfill> {
    pub(crate) spec: ColumnSpec,
    pub(crate) fill: PhantomData<F>,
}

impl<F: Fill> Phase for EnforceNotNull<F> {
    const NAME: &'static str = "EnforceNotNull";
    const WINDOW: Window = F::ENFORCED;

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        let table = cx.snapshot.table(self.spec.table)?;
        Ok(column::set_not_null(table, self.spec.name.as_str(), cx.snapshot.server_version, None))
    }

    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        let table = cx.snapshot.table(self.spec.table)?;
        Ok(Rollback::Steps(column::undo_not_null(table, self.spec.name.as_str())))
    }
}
