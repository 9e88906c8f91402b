//! Where a batch begins and ends: ranges of tuples, or of keys.

use tokio_postgres::Row;

use super::leaves::{KeyColumn, Leaf};
use crate::error::Result;
use crate::ident::{literal, quote};
use crate::migrator::connect::get;
use crate::migrator::ledger::Spot;

/// Each part of a stretch looks no further than this many pages: bloat must not make one transaction long.
const PAGES: i64 = 1_000;

/// The rows of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    /// Which they are: a predicate over the alias `t`.
    pub(super) predicate: String,
    /// How many.
    pub(super) rows: i64,
    /// Where the next batch begins.
    pub(super) next: Spot,
    /// Whether there is no next batch.
    pub(super) last: bool,
    /// Whether there are as many rows as were asked for.
    pub(super) full: bool,
}

/// How much a stretch may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) rows: i64,
    /// The batches that it is for.
    pub(super) parts: i64,
}

impl Extent {
    /// For one batch.
    pub(super) fn rows(rows: i64) -> Self {
        Self { rows, parts: 1 }
    }

    fn pages(self) -> i64 {
        PAGES * self.parts
    }
}

/// The query for the end of the stretch that begins at `spot`.
pub(super) fn query(leaf: &Leaf, keys: &[KeyColumn], spot: &Spot, extent: Extent) -> String {
    let size = extent.rows;
    match spot {
        Spot::Tuple { page, item, until, .. } => {
            let until = (page + extent.pages()).min(*until);
            format!(
                "SELECT count(*) AS rows, max(ctid)::text AS last FROM (
                    SELECT ctid FROM ONLY {} WHERE ctid > '({page},{item})'::tid AND ctid < '({until},0)'::tid LIMIT {size}
                 ) b",
                leaf.sql
            )
        }
        Spot::Key(after) => {
            let names: Vec<String> = keys.iter().map(|key| format!("t.{}", quote(&key.name))).collect();
            let texts: Vec<String> = (1..=keys.len()).map(|nth| format!("b.k{nth}::text")).collect();
            let aliases: Vec<String> =
                names.iter().zip(1..).map(|(name, nth)| format!("{name} AS k{nth}")).collect();
            let begin = after.as_ref().map_or_else(String::new, |after| {
                format!(" WHERE ({}) > ({})", names.join(", "), values(keys, after))
            });
            let order = names.join(", ");
            format!(
                "SELECT b.n AS rows, ARRAY[{}] AS last FROM (
                    SELECT {}, row_number() OVER (ORDER BY {order}) AS n FROM ONLY {} AS t{begin} ORDER BY {order} LIMIT {size}
                 ) b ORDER BY b.n DESC LIMIT 1",
                texts.join(", "),
                aliases.join(", "),
                leaf.sql
            )
        }
    }
}

/// From the answer to [`query`].
pub(super) fn range(rows: &[Row], keys: &[KeyColumn], spot: &Spot, extent: Extent) -> Result<Range> {
    let size = extent.rows;
    let row = rows.first();
    let count: i64 = row.map_or(Ok(0), |row| get(row, "rows"))?;
    match spot {
        Spot::Tuple { first, page, item, until } => {
            let last: Option<String> = row.map_or(Ok(None), |row| get(row, "last"))?;
            let mut end = ((page + extent.pages()).min(*until), 0);
            if let Some(last) = last.as_deref().filter(|_| count >= size).and_then(tuple_id) {
                end = last;
            }
            Ok(Range {
                predicate: format!(
                    "t.ctid > '({page},{item})'::tid AND t.ctid <= '({},{})'::tid",
                    end.0, end.1
                ),
                rows: count,
                next: Spot::Tuple { first: *first, page: end.0, item: end.1, until: *until },
                last: end.0 >= *until,
                full: count >= size,
            })
        }
        Spot::Key(after) => {
            let last: Option<Vec<String>> = row.map_or(Ok(None), |row| get(row, "last"))?;
            let names: Vec<String> = keys.iter().map(|key| format!("t.{}", quote(&key.name))).collect();
            let names = names.join(", ");
            let bounds: Vec<String> = [(after, '>', ""), (&last, '<', "=")]
                .into_iter()
                .filter_map(|(bound, sign, or)| {
                    bound.as_ref().map(|bound| format!("({names}) {sign}{or} ({})", values(keys, bound)))
                })
                .collect();
            Ok(Range {
                predicate: if last.is_some() { bounds.join(" AND ") } else { "false".to_owned() },
                rows: count,
                next: Spot::Key(last.or_else(|| after.clone())),
                last: count < size,
                full: count >= size,
            })
        }
    }
}

fn values(keys: &[KeyColumn], texts: &[String]) -> String {
    let values: Vec<String> =
        keys.iter().zip(texts).map(|(key, text)| format!("{}::{}", literal(text), key.data_type)).collect();
    values.join(", ")
}

fn tuple_id(text: &str) -> Option<(i64, i32)> {
    let (page, item) = text.trim_matches(['(', ')']).split_once(',')?;
    Some((page.parse().ok()?, item.parse().ok()?))
}
