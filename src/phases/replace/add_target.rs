//! Phase 1: the new column, like the old one.

use std::marker::PhantomData;

use super::{Replace, Writer, carried};
use crate::catalog::{Column, Question};
use crate::error::Result;
use crate::phase::{Context, Phase, Rollback, Window};
use crate::step::Step;
use crate::steps::column;

/// Adds the target column: nullable, with the source's collation, storage, statistics target, comment and grants.
#[derive(Clone, Copy, Debug)]
pub struct AddTarget<W>(pub(crate) Replace, PhantomData<W>);

impl<W> AddTarget<W> {
    pub(crate) const fn new(replace: Replace) -> Self {
        Self(replace, PhantomData)
    }
}

impl<W: Writer> Phase for AddTarget<W> {
    const NAME: &'static str = "AddTarget";
    const WINDOW: Window = W::ADDED;

    fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
        carried::first_questions(&self.0, cx)
    }

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        let (table, source) = self.0.source_in(cx.snapshot)?;
        let kind = self.0.values(cx, source)?.target;
        let target = self.0.target.as_str();
        let mut steps = vec![column::add(table, target, &kind.data_type, kind.collation(), None)];
        let like = if self.0.retype.is_some() {
            // The new type has a storage of its own.
            Column { storage: None, compression: None, ..source.clone() }
        } else {
            source.clone()
        };
        steps.extend(column::attributes(table, &like, target));
        // Set separately, so that rows which are there stay null until the backfill. A trigger could not tell it
        // from a value that the new release wrote, so with triggers it comes when they go.
        if !self.0.synced {
            let default = carried::default(&self.0, cx, source)?;
            steps.extend(default.map(|default| column::set_default(table, target, &default)));
        }
        Ok(steps)
    }

    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        let table = cx.snapshot.table(self.0.table)?;
        Ok(Rollback::Steps(vec![column::drop(table, self.0.target.as_str())]))
    }
}
