//! The phase of [`AddIndex`](crate::AddIndex), and the keys that it takes.

use std::fmt::Write as _;

use crate::catalog::{Index, Question, alike};
use crate::error::{Error, Kind, Result};
use crate::expr::Expr;
use crate::ident::{Collation, Ident, TableName, quote};
use crate::phase::{Context, Phase, Rollback, Window};
use crate::step::Step;
use crate::steps::{index, list};

/// One key of an index: a column or an expression, with its options.
///
/// ```
/// use phasewise::add_index::IndexKey;
///
/// const KEYS: [IndexKey; 2] = [
///     IndexKey::expression("lower({email})").opclass("text_pattern_ops"),
///     IndexKey::column("created_at").desc().nulls_last(),
/// ];
/// ```
#[derive(Clone, Copy, Debug)]
pub struct IndexKey {
    what: What,
    opclass: Option<&'static str>,
    collation: Option<Collation>,
    descending: bool,
    nulls_first: Option<bool>,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Column(Ident),
    Expression(Expr),
}

impl IndexKey {
    const fn new(what: What) -> Self {
        Self { what, opclass: None, collation: None, descending: false, nulls_first: None }
    }

    /// A column.
    #[must_use]
    pub const fn column(name: &'static str) -> Self {
        Self::new(What::Column(Ident::new(name)))
    }

    /// An expression over `{column}`s.
    #[must_use]
    pub const fn expression(sql: &'static str) -> Self {
        Self::new(What::Expression(Expr::new(sql)))
    }

    /// An operator class as SQL, with its schema and parameters if it has any: `public.gin_trgm_ops`.
    #[must_use]
    pub const fn opclass(mut self, sql: &'static str) -> Self {
        assert!(!sql.is_empty(), "an operator class is empty: write its name, such as \"text_pattern_ops\"");
        self.opclass = Some(sql);
        self
    }

    /// A collation, by its name: `"C"`, `"en_US.utf8"`. One in another schema has the schema before it, in double quotes:
    /// `"\"audit\".german"`.
    #[must_use]
    pub const fn collate(mut self, name: &'static str) -> Self {
        self.collation = Some(Collation::new(name));
        self
    }

    /// Descending.
    #[must_use]
    pub const fn desc(mut self) -> Self {
        self.descending = true;
        self
    }

    /// Nulls before everything else.
    #[must_use]
    pub const fn nulls_first(mut self) -> Self {
        self.nulls_first = Some(true);
        self
    }

    /// Nulls after everything else.
    #[must_use]
    pub const fn nulls_last(mut self) -> Self {
        self.nulls_first = Some(false);
        self
    }

    fn sql(&self) -> String {
        let mut sql = match self.what {
            What::Column(name) => name.quoted(),
            What::Expression(expr) => expr.render(quote),
        };
        if let Some(collation) = self.collation {
            let _ = write!(sql, " COLLATE {}", collation.quoted());
        }
        if let Some(opclass) = self.opclass {
            let _ = write!(sql, " {opclass}");
        }
        if self.descending {
            sql.push_str(" DESC");
        }
        match self.nulls_first {
            Some(true) => sql.push_str(" NULLS FIRST"),
            Some(false) => sql.push_str(" NULLS LAST"),
            None => {}
        }
        sql
    }
}

/// Postgres has no more (`INDEX_MAX_KEYS`).
pub(crate) const MAX_KEYS: usize = 32;

#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "a const cannot box")]
pub(crate) enum Keys {
    Columns(&'static [&'static str]),
    Keys([Option<IndexKey>; MAX_KEYS]),
}

/// An index as its user describes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexSpec {
    pub(crate) table: TableName,
    pub(crate) name: Ident,
    pub(crate) keys: Keys,
    pub(crate) method: Ident,
    pub(crate) unique: bool,
    pub(crate) nulls_not_distinct: bool,
    pub(crate) include: &'static [&'static str],
    pub(crate) with: &'static [(&'static str, &'static str)],
    pub(crate) predicate: Option<Expr>,
    pub(crate) comment: Option<&'static str>,
}

impl IndexSpec {
    /// Each key as SQL.
    pub(crate) fn key_list(&self) -> Vec<String> {
        match &self.keys {
            Keys::Columns(names) => names.iter().map(|name| quote(name)).collect(),
            Keys::Keys(keys) => keys.iter().flatten().map(IndexKey::sql).collect(),
        }
    }

    /// What follows `USING `, as written: the server canonicalises it.
    fn tail(&self) -> String {
        let mut sql = format!("{} ({})", self.method.quoted(), self.key_list().join(", "));
        if !self.include.is_empty() {
            let _ = write!(sql, " INCLUDE ({})", list(self.include));
        }
        if self.nulls_not_distinct {
            sql.push_str(" NULLS NOT DISTINCT");
        }
        if !self.with.is_empty() {
            let with: Vec<_> = self.with.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            let _ = write!(sql, " WITH ({})", with.join(", "));
        }
        if let Some(predicate) = self.predicate {
            let _ = write!(sql, " WHERE {}", predicate.render(quote));
        }
        sql
    }

    /// Every column that it names.
    pub(crate) fn columns(&self) -> Vec<Ident> {
        let mut names: Vec<&'static str> = match &self.keys {
            Keys::Columns(names) => names.to_vec(),
            Keys::Keys(keys) => keys
                .iter()
                .flatten()
                .flat_map(|key| match key.what {
                    What::Column(name) => vec![name.as_str()],
                    What::Expression(expr) => expr.columns(),
                })
                .collect(),
        };
        names.extend(self.include);
        names.extend(self.predicate.iter().flat_map(Expr::columns));
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(Ident::new).collect()
    }

    /// Whether `column` is one of the plain keys.
    pub(crate) fn has_key(&self, column: &str) -> bool {
        match &self.keys {
            Keys::Columns(names) => names.contains(&column),
            Keys::Keys(keys) => keys
                .iter()
                .flatten()
                .any(|key| matches!(key.what, What::Column(name) if name.as_str() == column)),
        }
    }
}

/// `AddIndex`, its only phase: the index is built `CONCURRENTLY`, under locks that block no client.
#[derive(Clone, Copy, Debug)]
pub struct BuildConcurrently {
    pub(crate) spec: IndexSpec,
}

impl Phase for BuildConcurrently {
    const NAME: &'static str = "BuildConcurrently";
    const WINDOW: Window = Window::new(0, 0);

    fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
        let table = cx.snapshot.table(self.spec.table)?;
        Ok(vec![index::definition_question(&table.sql(), self.spec.unique, &self.spec.tail(), &[])])
    }

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        let spec = &self.spec;
        let table = cx.snapshot.table(spec.table)?;
        let tail = index::definition_answer(cx, &table.sql(), spec.unique, &spec.tail())?.tail;
        let name = spec.name.as_str();
        let differs = |found: &&Index| found.unique != spec.unique || !alike(&found.tail, &tail);
        if let Some(found) = table.indexes.iter().find(|found| found.name == name).filter(differs) {
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "index {} of table {} exists with another definition ({}{}): choose another name, or drop that one first",
                    quote(name),
                    table.sql(),
                    if found.unique { "unique, using " } else { "using " },
                    found.tail
                ),
            ));
        }
        Ok(index::build(table, name, spec.unique, &tail, spec.comment))
    }

    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        let table = cx.snapshot.table(self.spec.table)?;
        Ok(Rollback::Steps(index::drop(table, self.spec.name.as_str(), &[])))
    }
}
