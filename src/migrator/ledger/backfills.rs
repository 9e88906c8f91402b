//! What the ledger knows of batch loops: their parts with their cursors, the pace that people ask for, and the rows
//! that were set aside.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::{At, Ledger};
use crate::error::Result;
use crate::migrator::connect::{Conn, Param, Sql as _, boolean, float8, get, int4, int8, text};

/// One part of a loop's pass: a range of one relation, walked by one worker.
#[derive(Clone, Debug)]
pub(in crate::migrator) struct Part {
    pub(in crate::migrator) number: i32,
    pub(in crate::migrator) relation: String,
    pub(in crate::migrator) oid: u32,
    pub(in crate::migrator) pass: i32,
    pub(in crate::migrator) spot: Spot,
    pub(in crate::migrator) ended: bool,
    /// Rows looked at.
    pub(in crate::migrator) done: i64,
    /// Rows written.
    pub(in crate::migrator) written: i64,
    /// Rows to look at, as far as is known.
    pub(in crate::migrator) estimate: Option<i64>,
    /// Rows that the next batch looks at.
    pub(in crate::migrator) size: Option<i64>,
    /// Rows a second, pauses included.
    pub(in crate::migrator) rate: Option<f64>,
    /// The lease of the driver that has claimed it.
    pub(in crate::migrator) token: Option<i64>,
    /// Why it pauses.
    pub(in crate::migrator) reason: Option<String>,
}

/// Up to where a part is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::migrator) enum Spot {
    /// Up to this tuple, of those from page `first` to before page `until`.
    Tuple { first: i64, page: i64, item: i32, until: i64 },
    /// Up to the row of this key; `None` before the first.
    Key(Option<Vec<String>>),
}

/// What people ask of a loop that is under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::migrator) struct Control {
    pub(in crate::migrator) paused: bool,
    pub(in crate::migrator) speed: f64,
    pub(in crate::migrator) target: Option<Duration>,
    /// Whether somebody waits for the lease at this moment.
    pub(in crate::migrator) wanted: bool,
}

impl Default for Control {
    fn default() -> Self {
        Self { paused: false, speed: 1.0, target: None, wanted: false }
    }
}

/// A row that its batch could not fill, and that the policy says to leave.
#[derive(Clone, Debug)]
pub(in crate::migrator) struct Aside {
    pub(in crate::migrator) migration: String,
    pub(in crate::migrator) relation: String,
    /// Its key, for people.
    pub(in crate::migrator) key: String,
    /// Its key as SQL: `'1', 'a'`.
    pub(in crate::migrator) row: String,
    pub(in crate::migrator) error: String,
}

const COLUMNS: &str =
    "part, relation, relation_oid::int8 AS oid, pass, first, page, item, pages, after, ended, done, written,
    estimate, size, rate, token, reason";

/// The columns of one loop's rows.
const LOOP: &str = "migration = $1 AND phase = $2 AND direction = $3 AND step = $4";

fn part(row: &Row) -> Result<Part> {
    let oid: i64 = get(row, "oid")?;
    let spot = match get::<Option<i64>>(row, "page")? {
        Some(page) => Spot::Tuple {
            first: get::<Option<i64>>(row, "first")?.unwrap_or(0),
            page,
            item: get::<Option<i32>>(row, "item")?.unwrap_or(0),
            until: get::<Option<i64>>(row, "pages")?.unwrap_or(page),
        },
        None => Spot::Key(get(row, "after")?),
    };
    Ok(Part {
        number: get(row, "part")?,
        relation: get(row, "relation")?,
        oid: u32::try_from(oid).unwrap_or(0),
        pass: get(row, "pass")?,
        spot,
        ended: get(row, "ended")?,
        done: get(row, "done")?,
        written: get(row, "written")?,
        estimate: get(row, "estimate")?,
        size: get(row, "size")?,
        rate: get(row, "rate")?,
        token: get(row, "token")?,
        reason: get(row, "reason")?,
    })
}

impl Ledger {
    /// The parts of a loop's pass that is under way.
    pub(in crate::migrator) async fn parts(&self, conn: &Conn, at: At<'_>, step: &str) -> Result<Vec<Part>> {
        let sql = self.sql(&format!("SELECT {COLUMNS} FROM {{s}}.backfills WHERE {LOOP} ORDER BY part"));
        let direction = at.direction.as_str();
        let rows =
            conn.ask(&sql, &[text(&at.migration), text(&at.phase), text(&direction), text(&step)]).await?;
        rows.iter().map(part).collect()
    }

    /// The parts of every loop under way, with their migrations; of a migration's loops the newest is last.
    pub(in crate::migrator) async fn all_parts(&self, conn: &Conn) -> Result<Vec<(String, Part)>> {
        let sql = self.sql(&format!("SELECT migration, {COLUMNS} FROM {{s}}.backfills ORDER BY at, part"));
        let rows = conn.ask(&sql, &[]).await?;
        rows.iter().map(|row| Ok((get(row, "migration")?, part(row)?))).collect()
    }

    /// Begins a pass: these parts, and no others.
    pub(in crate::migrator) async fn begin_pass(
        &self,
        conn: &Conn,
        at: At<'_>,
        step: &str,
        parts: &[Part],
    ) -> Result<()> {
        self.forget_parts(conn, at, step).await?;
        for part in parts {
            self.set_part(conn, at, step, part).await?;
        }
        Ok(())
    }

    /// Takes a part that nobody under this lease has claimed yet.
    pub(in crate::migrator) async fn claim(
        &self,
        conn: &Conn,
        at: At<'_>,
        step: &str,
        token: i64,
    ) -> Result<Option<Part>> {
        let sql = self.sql(&format!(
            "UPDATE {{s}}.backfills SET token = $5, at = clock_timestamp()
              WHERE {LOOP} AND part = (
                    SELECT part FROM {{s}}.backfills WHERE {LOOP} AND NOT ended AND token IS DISTINCT FROM $5
                     ORDER BY part LIMIT 1 FOR UPDATE SKIP LOCKED)
             RETURNING {COLUMNS}"
        ));
        let direction = at.direction.as_str();
        let params: [Param<'_>; 5] =
            [text(&at.migration), text(&at.phase), text(&direction), text(&step), int8(&token)];
        conn.ask(&sql, &params).await?.first().map(part).transpose()
    }

    /// Gives up the claims of a driver that goes on with a loop which a lost connection had ended.
    pub(in crate::migrator) async fn unclaim(
        &self,
        conn: &Conn,
        at: At<'_>,
        step: &str,
        token: i64,
    ) -> Result<()> {
        let sql = self.sql(&format!(
            "UPDATE {{s}}.backfills SET token = NULL WHERE {LOOP} AND NOT ended AND token = $5"
        ));
        let direction = at.direction.as_str();
        let params: [Param<'_>; 5] =
            [text(&at.migration), text(&at.phase), text(&direction), text(&step), int8(&token)];
        conn.ask(&sql, &params).await.map(|_| ())
    }

    /// Keeps where a part is.
    pub(in crate::migrator) async fn set_part(
        &self,
        conn: &Conn,
        at: At<'_>,
        step: &str,
        part: &Part,
    ) -> Result<()> {
        let sql = self.sql(
            "INSERT INTO {s}.backfills (migration, phase, direction, step, part, relation, relation_oid, pass, first, page,
                                        item, pages, after, ended, done, written, estimate, size, rate, token, reason)
             VALUES ($1, $2, $3, $4, $5, $6, $7::int8::oid, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
             ON CONFLICT (migration, phase, direction, step, part) DO UPDATE
             SET page = excluded.page, item = excluded.item, pages = excluded.pages, after = excluded.after,
                 ended = excluded.ended, done = excluded.done, written = excluded.written,
                 estimate = excluded.estimate, size = excluded.size, rate = excluded.rate, token = excluded.token,
                 reason = excluded.reason, at = clock_timestamp()",
        );
        let direction = at.direction.as_str();
        let (first, page, item, pages, after) = match &part.spot {
            Spot::Tuple { first, page, item, until } => {
                (Some(*first), Some(*page), Some(*item), Some(*until), None)
            }
            Spot::Key(after) => (None, None, None, None, after.as_ref()),
        };
        conn.ask(
            &sql,
            &[
                text(&at.migration),
                text(&at.phase),
                text(&direction),
                text(&step),
                int4(&part.number),
                text(&part.relation),
                int8(&i64::from(part.oid)),
                int4(&part.pass),
                (&first, Type::INT8),
                (&page, Type::INT8),
                (&item, Type::INT4),
                (&pages, Type::INT8),
                (&after, Type::TEXT_ARRAY),
                boolean(&part.ended),
                int8(&part.done),
                int8(&part.written),
                (&part.estimate, Type::INT8),
                (&part.size, Type::INT8),
                (&part.rate, Type::FLOAT8),
                (&part.token, Type::INT8),
                text(&part.reason),
            ],
        )
        .await?;
        Ok(())
    }

    pub(in crate::migrator) async fn forget_parts(&self, conn: &Conn, at: At<'_>, step: &str) -> Result<()> {
        let sql = self.sql(&format!("DELETE FROM {{s}}.backfills WHERE {LOOP}"));
        let direction = at.direction.as_str();
        conn.ask(&sql, &[text(&at.migration), text(&at.phase), text(&direction), text(&step)]).await?;
        Ok(())
    }

    /// Forgets the loops of a phase, both ways.
    pub(in crate::migrator) async fn forget_loops(&self, conn: &Conn, at: At<'_>) -> Result<()> {
        let sql = self.sql("DELETE FROM {s}.backfills WHERE migration = $1 AND phase = $2");
        conn.ask(&sql, &[text(&at.migration), text(&at.phase)]).await?;
        Ok(())
    }

    /// Says why a loop pauses, or one part of it; no reason once it goes on.
    pub(in crate::migrator) async fn set_reason(
        &self,
        conn: &Conn,
        at: At<'_>,
        step: &str,
        part: Option<i32>,
        reason: Option<&str>,
    ) -> Result<()> {
        let sql = self.sql(&format!(
            "UPDATE {{s}}.backfills SET reason = $5 WHERE {LOOP} AND NOT ended AND part = coalesce($6, part)"
        ));
        let direction = at.direction.as_str();
        let (migration, phase) = (text(&at.migration), text(&at.phase));
        conn.ask(
            &sql,
            &[migration, phase, text(&direction), text(&step), text(&reason), (&part, Type::INT4)],
        )
        .await?;
        Ok(())
    }

    /// Whether somebody has come to want the lease within this time.
    pub(in crate::migrator) async fn is_wanted(&self, conn: &Conn, within: Duration) -> Result<bool> {
        let sql = self.sql(
            "SELECT coalesce(wanted_at BETWEEN clock_timestamp() - make_interval(secs => $1) AND clock_timestamp(), false) AS wanted FROM {s}.lease",
        );
        let rows = conn.ask(&sql, &[float8(&within.as_secs_f64())]).await?;
        rows.first().map_or(Ok(false), |row| get(row, "wanted"))
    }

    /// Says that somebody wants the lease: a driver that only waits for a person gives way.
    pub(in crate::migrator) async fn want(&self, conn: &Conn) -> Result<()> {
        conn.write(&self.sql("UPDATE {s}.lease SET wanted_at = clock_timestamp()"), &[]).await.map(|_| ())
    }

    /// What people ask of a migration's loops.
    pub(in crate::migrator) async fn control(&self, conn: &Conn, migration: &str) -> Result<Control> {
        let sql = self.sql(
            "SELECT m.paused, p.speed, p.target,
                    EXISTS (SELECT FROM {s}.lease WHERE wanted_at BETWEEN clock_timestamp() - interval '2 seconds' AND clock_timestamp()) AS wanted
               FROM {s}.migrations m LEFT JOIN {s}.paces p ON p.migration = m.name WHERE m.name = $1",
        );
        let rows = conn.ask(&sql, &[text(&migration)]).await?;
        let Some(row) = rows.first() else { return Ok(Control::default()) };
        let target: Option<f64> = get(row, "target")?;
        Ok(Control {
            paused: get(row, "paused")?,
            speed: get::<Option<f64>>(row, "speed")?.unwrap_or(1.0),
            target: target.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            wanted: get(row, "wanted")?,
        })
    }

    /// Asks for a pace: a factor on the speed that is asked for now, and a target where there is one.
    pub(in crate::migrator) async fn set_pace(
        &self,
        conn: &Conn,
        migration: &str,
        factor: f64,
        target: Option<Duration>,
    ) -> Result<()> {
        let sql = self.sql(&format!(
            "INSERT INTO {{s}}.paces AS p (migration, speed, target, by) VALUES ($1, least(greatest($2, 0.001), 1000), $3, {})
             ON CONFLICT (migration) DO UPDATE
             SET speed = least(greatest(p.speed * $2, 0.001), 1000), target = coalesce($3, p.target),
                 at = clock_timestamp(), by = excluded.by",
            super::write::BY
        ));
        let target = target.map(|target| target.as_secs_f64());
        conn.write(&sql, &[text(&migration), float8(&factor), (&target, Type::FLOAT8)]).await?;
        Ok(())
    }

    /// The rows that are set aside; all migrations' where none is named.
    pub(in crate::migrator) async fn set_aside(
        &self,
        conn: &Conn,
        migration: Option<&str>,
    ) -> Result<Vec<Aside>> {
        let sql = self.sql(
            "SELECT migration, relation, key, row, error FROM {s}.set_aside WHERE $1::text IS NULL OR migration = $1
              ORDER BY migration, at",
        );
        let rows = conn.ask(&sql, &[text(&migration)]).await?;
        rows.iter()
            .map(|row| {
                Ok(Aside {
                    migration: get(row, "migration")?,
                    relation: get(row, "relation")?,
                    key: get(row, "key")?,
                    row: get(row, "row")?,
                    error: get(row, "error")?,
                })
            })
            .collect()
    }

    pub(in crate::migrator) async fn put_aside(&self, conn: &Conn, at: At<'_>, aside: &Aside) -> Result<()> {
        let sql = self.sql(
            "INSERT INTO {s}.set_aside (migration, phase, relation, key, row, error) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (migration, relation, row) DO UPDATE SET error = excluded.error, at = clock_timestamp()",
        );
        let Aside { migration, relation, key, row, error } = aside;
        conn.ask(
            &sql,
            &[text(migration), text(&at.phase), text(relation), text(key), text(row), text(error)],
        )
        .await?;
        Ok(())
    }

    pub(in crate::migrator) async fn take_back_in(&self, conn: &Conn, aside: &Aside) -> Result<()> {
        let sql = self.sql("DELETE FROM {s}.set_aside WHERE migration = $1 AND relation = $2 AND row = $3");
        conn.ask(&sql, &[text(&aside.migration), text(&aside.relation), text(&aside.row)]).await?;
        Ok(())
    }
}
