//! The last phase: the old column goes, and can still come back.

use std::marker::PhantomData;

use super::{Replace, Writer, backfill, carried, refusals};
use crate::catalog::{Portrait, Question, Table};
use crate::error::Result;
use crate::phase::{Context, Dropped, Phase, Rollback, Window};
use crate::step::{Marker, Step};
use crate::steps::archive::{self, Archive};
use crate::steps::{column, portrait, walking};

/// Drops the source: a type change archives its values first, and what still depends on it goes before it,
/// one by one.
#[derive(Clone, Copy, Debug)]
pub struct DropSource<W>(pub(crate) Replace, PhantomData<W>);

impl<W> DropSource<W> {
    pub(crate) const fn new(replace: Replace) -> Self {
        Self(replace, PhantomData)
    }
}

const KEY: &str = "the source before it was dropped";

impl<W: Writer> Phase for DropSource<W> {
    const NAME: &'static str = "DropSource";
    const WINDOW: Window = W::LAST;

    fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
        carried::value_questions(&self.0, cx)
    }

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        let table = cx.snapshot.table(self.0.table)?;
        let source = self.0.source.as_str();
        let saved = self.portrait(cx, table)?;
        let archive = self.archive(cx, table, &saved)?;
        let mut steps = vec![Step::save(KEY, archive::json(&saved)?)];
        if let Some(archive) = &archive {
            steps.push(Step::save(archive::KEY, archive::json(archive)?));
        }
        // Resumed after the drop itself, there is nothing to archive any more.
        if table.find(source).is_some() {
            refusals::dependents(&self.0, table)?;
            steps.extend(archive.iter().flat_map(|archive| archive.store(table)));
        }
        steps.extend(portrait::free(table, &saved));
        steps.push(column::drop(table, source));
        Ok(steps)
    }

    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        if let Some(purged) = archive::purged(cx)? {
            return Ok(Rollback::Irreversible(purged));
        }
        let table = cx.snapshot.table(self.0.table)?;
        let source = self.0.source.as_str();
        let saved = self.portrait(cx, table)?;
        let archive = self.archive(cx, table, &saved)?;
        if let Some(archive) = &archive {
            archive.check_keys(table)?;
        }
        let column = &saved.column;
        let values = self.0.values(cx, column)?;
        let mut steps =
            vec![column::add(table, source, &column.data_type, column.collation.as_deref(), None)];
        steps.extend(column::attributes(table, column, source));
        if let Some(archive) = &archive {
            let archived = "a.\"value\"";
            let needed = format!(
                "({}) AND NOT ({})",
                values.source_changed(&values.source_of("t"), archived),
                values.archived_is_stale(archived)
            );
            steps.push(walking(
                archive.restore(&format!("{} = {archived}", column.sql()), &needed, Some(Marker::Backward)),
                table,
            ));
        }
        // The newest release writes the target only, so the columns differ again at once. The phase before this one
        // fills the source anew when it is rolled back.
        steps.push(backfill::backward_once(&self.0, table, &values));
        steps.extend(portrait::rebuild(table, &saved, self.0.retype.is_some()));
        steps.extend(archive.map(|archive| archive.forget()));
        Ok(Rollback::Steps(steps))
    }

    fn drops(&self) -> Vec<Dropped> {
        let Replace { table, source, target, without, .. } = self.0;
        vec![Dropped::column(table, source).replaced_by(target, without)]
    }
}

impl<W> DropSource<W> {
    /// As it was saved, if that has happened; else as it is.
    fn portrait(&self, cx: &Context<'_>, table: &Table) -> Result<Portrait> {
        match cx.saved(KEY)? {
            Some(saved) => Ok(saved),
            None => Portrait::of(table, self.0.source.as_str()),
        }
    }

    /// A rename loses nothing: the target holds the same values. A type change may, and needs a key to archive by:
    /// the one that it was stored by, once it was.
    fn archive(&self, cx: &Context<'_>, table: &Table, saved: &Portrait) -> Result<Option<Archive>> {
        match cx.saved(archive::KEY)? {
            Some(archive) => Ok(Some(archive)),
            None if self.0.retype.is_none() || cx.saved::<Portrait>(KEY)?.is_some() => Ok(None),
            None => Ok(Archive::of(cx, table, &saved.column, self.0.source.as_str())),
        }
    }
}
