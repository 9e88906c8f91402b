//! What goes silently with a column.

use std::fmt;

use serde::Serialize;

use crate::catalog::{Portrait, Snapshot};
use crate::ident::{Ident, quarantined, quote};
use crate::phase::Dropped;

/// An index, a constraint or a statistics object that Postgres would drop with a column without a word. It is dropped
/// by a step of its own before the column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Loss {
    /// The column as SQL, with its table.
    pub with: String,
    /// What is lost: `index "users_name_email_idx"`.
    pub object: String,
    /// Its definition, as Postgres writes it.
    pub definition: String,
    /// Whether it is dropped `CONCURRENTLY`, so that no client waits; else by a catalog change under a brief lock.
    pub concurrently: bool,
    /// The column as SQL that has the like of it by then.
    pub successor: Option<String>,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { with, object, definition, .. } = self;
        let how = if self.concurrently { "CONCURRENTLY " } else { "" };
        write!(f, "{object} is lost with column {with}, and dropped {how}before it")?;
        if let Some(successor) = &self.successor {
            write!(f, "; column {successor} has the like of it by then")?;
        }
        write!(f, ": {definition}")
    }
}

/// What is lost with the columns that `migration` drops, as far as they are there.
pub(crate) fn losses(snapshot: &Snapshot, migration: &str, dropped: &[Dropped]) -> Vec<Loss> {
    let mut losses = Vec::new();
    for (dropped, column) in dropped.iter().filter_map(|dropped| Some((dropped, dropped.column?))) {
        let Some(table) = snapshot.find(dropped.table) else { continue };
        let away = quarantined(column.as_str(), migration);
        let mut names = vec![column.as_str()];
        names.extend(dropped.quarantined.then_some(away.as_str()));
        let found = names.into_iter().find_map(|name| Some((name, Portrait::of(table, name).ok()?)));
        let Some((name, portrait)) = found else { continue };
        let with = format!("{} of {}", quote(name), table.sql());
        let mut add = |kind: &str, name: &str, sql: &str, definition: &str, concurrently: bool| {
            losses.push(Loss {
                with: with.clone(),
                object: format!("{kind} {sql}"),
                definition: definition.to_owned(),
                concurrently,
                successor: dropped
                    .successor
                    .filter(|_| !dropped.left_behind.contains(&name))
                    .as_ref()
                    .map(Ident::quoted),
            });
        };
        for index in &portrait.indexes {
            let unique = if index.unique { "unique index" } else { "index" };
            add(unique, &index.name, &quote(&index.name), &index.tail, !table.is_partitioned());
        }
        for found in portrait.constraints.iter().filter(|found| !found.inherited) {
            add("constraint", &found.name, &quote(&found.name), &found.definition, false);
        }
        for key in portrait.outgoing.iter().filter(|key| !key.inherited) {
            add("foreign key", &key.name, &quote(&key.name), &key.definition(), false);
        }
        for found in &portrait.statistics {
            add("statistics", &found.name, &found.name, &found.definition, false);
        }
    }
    losses
}
