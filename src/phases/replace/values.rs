//! How values cross between source and target, and when the two agree.

use super::Replace;
use crate::catalog::Column;
use crate::error::Result;
use crate::ident::quote;
use crate::phase::Context;
use crate::steps::trial;

/// A column's type, as far as comparing values goes.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    /// What `ADD COLUMN` and a variable are declared with.
    pub(super) data_type: String,
    /// What the other side's value is cast to before a comparison.
    compared_as: String,
    collation: Option<String>,
    equality_is_sameness: bool,
}

impl Kind {
    fn new(data_type: &str, bare_type: &str, collation: Option<String>, equality_is_sameness: bool) -> Self {
        // A cast to varchar(n) truncates silently where an assignment fails; numeric(p,s) rounds in both.
        let truncates = ["character", "bit"].iter().any(|prefix| data_type.starts_with(prefix));
        Self {
            data_type: data_type.to_owned(),
            compared_as: if truncates { bare_type } else { data_type }.to_owned(),
            equality_is_sameness: equality_is_sameness && collation.is_none(),
            collation,
        }
    }

    fn of(column: &Column) -> Self {
        Self::new(&column.data_type, &column.bare_type, column.collation.clone(), column.equality_is_sameness)
    }

    pub(super) fn collation(&self) -> Option<&str> {
        self.collation.as_deref()
    }

    /// Whether `a` and `b`, both SQL of this very type, are not the same value. Never null.
    ///
    /// Where equal values may still differ (citext, numeric's 1.0 and 1.00), or there is no equality (json), the
    /// binary images are compared.
    fn changed(&self, a: &str, b: &str) -> String {
        if self.equality_is_sameness {
            format!("{a} IS DISTINCT FROM {b}")
        } else {
            format!("ROW({a})::pg_catalog.record OPERATOR(pg_catalog.*<>) ROW({b})::pg_catalog.record")
        }
    }

    /// The same for a `b` that is only castable to this type.
    fn differ(&self, a: &str, b: &str) -> String {
        let b = format!("CAST({b} AS {})", self.compared_as);
        // The binary images of varchar and varchar(n) are the same, but their types are not.
        let a = if self.equality_is_sameness {
            a.to_owned()
        } else {
            format!("CAST({a} AS {})", self.compared_as)
        };
        self.changed(&a, &b)
    }
}

/// Both columns with their types, and the SQL for values that cross.
#[derive(Clone, Debug)]
pub(super) struct Values<'a> {
    replace: &'a Replace,
    pub(super) source: Kind,
    pub(super) target: Kind,
}

impl Replace {
    /// `source` is the column as it is, or as it was saved before it was dropped.
    pub(super) fn values(&self, cx: &Context<'_>, source: &Column) -> Result<Values<'_>> {
        let old = Kind::of(source);
        let new = match &self.retype {
            None => old.clone(),
            Some(retype) => {
                let answer = trial::type_answer(cx, retype.data_type)?;
                let collation = source.collation.clone().filter(|_| answer.collatable);
                Kind::new(&answer.data_type, &answer.bare_type, collation, answer.equality_is_sameness)
            }
        };
        Ok(Values { replace: self, source: old, target: new })
    }
}

impl Values<'_> {
    /// The target's value, from a row that SQL calls `row`.
    pub(super) fn up(&self, row: &str) -> String {
        match &self.replace.retype {
            None => format!("{row}.{}", self.replace.source.quoted()),
            Some(retype) => retype.up.over(row),
        }
    }

    /// The source's value, from a row that SQL calls `row`.
    pub(super) fn down(&self, row: &str) -> String {
        match &self.replace.retype {
            None => format!("{row}.{}", self.replace.target.quoted()),
            Some(retype) => retype.down.over(row),
        }
    }

    /// Whether the columns of `row` do not agree: neither is the target `up` of the source, nor, where it is not
    /// null, the source `down` of the target.
    pub(super) fn disagree(&self, row: &str) -> String {
        let (source, target) = (self.source_of(row), self.target_of(row));
        let not_up = self.is_not_up(&target, &self.up(row));
        match &self.replace.retype {
            None => not_up,
            Some(_) => {
                format!(
                    "({not_up}) AND ({target} IS NULL OR ({}))",
                    self.source.differ(&source, &self.down(row))
                )
            }
        }
    }

    /// Whether an archived value (SQL) is not what the target of `t` was made from.
    pub(super) fn archived_is_stale(&self, value: &str) -> String {
        let up = match &self.replace.retype {
            None => value.to_owned(),
            Some(retype) => {
                let source = self.replace.source.as_str();
                retype.up.render(
                    |name| if name == source { value.to_owned() } else { format!("t.{}", quote(name)) },
                )
            }
        };
        self.is_not_up(&self.target_of("t"), &up)
    }

    /// Whether `target` (SQL) is not the value `up`.
    pub(super) fn is_not_up(&self, target: &str, up: &str) -> String {
        match &self.replace.retype {
            None => self.target.changed(target, up),
            Some(_) => self.target.differ(target, up),
        }
    }

    /// Whether two values of the target's type are not the same.
    pub(super) fn target_changed(&self, a: &str, b: &str) -> String {
        self.target.changed(a, b)
    }

    /// Whether two values of the source's type are not the same.
    pub(super) fn source_changed(&self, a: &str, b: &str) -> String {
        self.source.changed(a, b)
    }

    pub(super) fn source_of(&self, row: &str) -> String {
        format!("{row}.{}", self.replace.source.quoted())
    }

    pub(super) fn target_of(&self, row: &str) -> String {
        format!("{row}.{}", self.replace.target.quoted())
    }
}
