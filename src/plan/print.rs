//! A plan as a table for the terminal.
//!
//! SQL stands under its step, over the whole width: in a column of its own it would be unreadable.

use std::fmt;

use super::text::{chop, pad, width, wrap};
use super::{Plan, PlannedMigration, PlannedPhase, PlannedRollback, PlannedStep, Steps};

/// Columns of the terminal that the table is made for.
const WIDTH: usize = 140;
/// Where a phase's steps begin, and its SQL.
const STEP: usize = 6;
const SQL: usize = 8;
/// The columns after the step: lock, on, blocks, scans, tx.
const LOCK: usize = 22;
const BLOCKS: usize = 13;
const SCANS: usize = 5;
const TX: usize = 3;
const GAP: usize = 2;
/// The widest that `on` becomes; longer names go on in the next line.
const ON_MAX: usize = 40;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("Nothing to do: every migration has gone through all its phases.\n");
        }
        let layout = Layout::of(self);
        layout.head(f)?;
        for migration in &self.migrations {
            layout.migration(f, migration)?;
        }
        writeln!(f, "{}", "═".repeat(WIDTH))?;
        self.foot(f)
    }
}

impl Plan {
    /// The sums, and the signs that need a word.
    fn foot(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phases: usize = self.migrations.iter().map(|migration| migration.phases.len()).sum();
        let stalling = self.steps().filter(|step| step.stalls()).count();
        writeln!(
            f,
            "{}, {}, {}; {} a whole table while it blocks anyone.",
            count(self.migrations.len(), "migration"),
            count(phases, "phase"),
            count(self.steps().count(), "step"),
            match stalling {
                0 if self.steps().any(|step| !step.locks_known) => "none of those known reads".to_owned(),
                0 => "none reads".to_owned(),
                1 => "1 READS".to_owned(),
                more => format!("{more} READ"),
            },
        )?;
        writeln!(
            f,
            "↩ how a phase is undone. tx: in a transaction. Blocking locks are held for moments, and given up at the stall budget."
        )?;
        if self.steps().any(|step| !step.locks_known) {
            writeln!(f, "not known: SQL of yours, whose locks and scans nobody can tell beforehand.")?;
        }
        if self.steps().any(|step| step.sql.iter().any(|sql| sql.contains("{range}"))) {
            writeln!(f, "{{range}}: one small batch of rows at a time, each in a transaction of its own.")?;
        }
        if self.migrations.iter().any(|migration| !migration.losses.is_empty()) {
            writeln!(f, "− what goes with a column, and is dropped by a step of its own before it.")?;
        }
        if self.migrations.iter().any(|migration| !migration.references.is_empty()) {
            writeln!(
                f,
                "? what refers to that which is dropped: the gate before the drop waits until it is gone, or acknowledged."
            )?;
        }
        writeln!(
            f,
            "Computed from the catalog as it is now; the steps of each phase are computed afresh when it is entered."
        )
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// The widths that depend on the plan.
struct Layout {
    step: usize,
    on: usize,
}

impl Layout {
    fn of(plan: &Plan) -> Self {
        let relations = plan.migrations.iter().flat_map(|migration| &migration.phases).flat_map(all_steps);
        let on = relations.flat_map(|step| &step.locks).map(|lock| width(&lock.relation)).max().unwrap_or(0);
        let on = on.clamp(2, ON_MAX);
        Self { step: WIDTH - STEP - LOCK - on - BLOCKS - SCANS - TX - 5 * GAP, on }
    }

    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.row(f, "", ["step", "lock", "on", "blocks", "scans", "tx"])
    }

    fn row(&self, f: &mut fmt::Formatter<'_>, first: &str, cells: [&str; 6]) -> fmt::Result {
        let widths = [self.step, LOCK, self.on, BLOCKS, SCANS, TX];
        let mut line = pad(first, STEP);
        let mut at = STEP;
        for (cell, of) in cells.into_iter().zip(widths) {
            // What is too long pushes the rest of its line along.
            line = pad(&line, at);
            line.push_str(cell);
            at += of + GAP;
        }
        writeln!(f, "{}", line.trim_end())
    }

    fn migration(&self, f: &mut fmt::Formatter<'_>, migration: &PlannedMigration) -> fmt::Result {
        writeln!(f, "{}", "═".repeat(WIDTH))?;
        writeln!(f, " {}", migration.name)?;
        for warning in &migration.warnings {
            self.note(f, "! ", warning)?;
        }
        for loss in &migration.losses {
            self.note(f, "− ", &loss.to_string())?;
        }
        for reference in &migration.references {
            self.note(f, "? ", &reference.to_string())?;
        }
        for phase in &migration.phases {
            writeln!(f, "{}", "─".repeat(WIDTH))?;
            self.phase(f, phase)?;
        }
        Ok(())
    }

    fn phase(&self, f: &mut fmt::Formatter<'_>, phase: &PlannedPhase) -> fmt::Result {
        let window = phase.window;
        let mut facts = format!("release{} {window}", if window.lo == window.hi { "" } else { "s" });
        if phase.gate != crate::phase::Gate::OPEN {
            facts.push_str(&format!(" · left when: {}", phase.gate));
        }
        let title = format!(" {}/{}  {}", phase.number, phase.of, phase.name);
        writeln!(f, "{}{facts}", pad(&title, STEP + self.step + GAP))?;
        match &phase.steps {
            Steps::Known(steps) if steps.is_empty() => self.note(f, "  ", "nothing to do in the database")?,
            Steps::Known(steps) => self.steps(f, "  ", steps)?,
            Steps::Unknown { because } => self.note(f, "  ", &format!("not known yet: {because}"))?,
        }
        match &phase.rollback {
            PlannedRollback::RevertDeploy if phase.gate.release().is_none() => {
                self.note(f, "↩ ", "nothing to undo")
            }
            PlannedRollback::RevertDeploy => self.note(f, "↩ ", "revert the deploy"),
            PlannedRollback::Steps(steps) => self.steps(f, "↩ ", steps),
            PlannedRollback::Irreversible { reason } => {
                self.note(f, "↩ ", &format!("cannot be undone: {reason}"))
            }
            PlannedRollback::Unknown { because } => self.note(f, "↩ ", &format!("not known yet: {because}")),
        }
    }

    fn note(&self, f: &mut fmt::Formatter<'_>, sign: &str, text: &str) -> fmt::Result {
        for (nth, line) in wrap(text, WIDTH - STEP).into_iter().enumerate() {
            let sign = if nth == 0 { sign } else { "  " };
            writeln!(f, "{}{sign}{line}", " ".repeat(STEP - 2))?;
        }
        Ok(())
    }

    fn steps(&self, f: &mut fmt::Formatter<'_>, sign: &str, steps: &[PlannedStep]) -> fmt::Result {
        steps.iter().try_for_each(|step| self.one(f, sign, step))
    }

    fn one(&self, f: &mut fmt::Formatter<'_>, sign: &str, step: &PlannedStep) -> fmt::Result {
        let summary = wrap(&step.summary, self.step);
        // One line per lock, more where a name is too long for its column.
        let mut locks: Vec<[String; 3]> = Vec::new();
        for lock in &step.locks {
            let blocks = match (lock.mode.blocks_reads(), lock.mode.blocks_writes()) {
                (true, _) => "reads, writes",
                (false, true) => "writes",
                (false, false) => "–",
            };
            for (nth, piece) in chop(&lock.relation, self.on).into_iter().enumerate() {
                let (mode, blocks) = if nth == 0 { (lock.mode.sql(), blocks) } else { ("", "") };
                locks.push([mode.to_owned(), piece, blocks.to_owned()]);
            }
        }
        if !step.locks_known {
            locks.push(["not known".to_owned(), String::new(), "not known".to_owned()]);
        } else if locks.is_empty() {
            locks.push(["–".to_owned(), String::new(), "–".to_owned()]);
        }
        for nth in 0..summary.len().max(locks.len()) {
            let first = nth == 0;
            let lead = format!("{}{}", " ".repeat(STEP - 2), if first { sign } else { "  " });
            let [mode, on, blocks] = match locks.get(nth) {
                Some(cells) => cells.each_ref().map(String::as_str),
                None => ["", "", ""],
            };
            let cells = [
                summary.get(nth).map_or("", String::as_str),
                mode,
                on,
                blocks,
                if !first {
                    ""
                } else if step.scans {
                    "yes"
                } else if !step.locks_known {
                    "?"
                } else {
                    "–"
                },
                if !first {
                    ""
                } else if step.in_transaction {
                    "yes"
                } else {
                    "no"
                },
            ];
            self.row(f, &lead, cells)?;
        }
        step.sql.iter().try_for_each(|sql| statement(f, sql))
    }
}

/// A statement under its step; what it goes on with is indented further.
fn statement(f: &mut fmt::Formatter<'_>, sql: &str) -> fmt::Result {
    let sql = sql.trim_end();
    let end = if sql.ends_with(';') { "" } else { ";" };
    for (nth, line) in wrap(&format!("{sql}{end}"), WIDTH - SQL - 2).into_iter().enumerate() {
        writeln!(f, "{}{}{line}", " ".repeat(SQL), if nth == 0 { "" } else { "  " })?;
    }
    Ok(())
}

fn all_steps(phase: &PlannedPhase) -> impl Iterator<Item = &PlannedStep> {
    let enter = match &phase.steps {
        Steps::Known(steps) => steps.as_slice(),
        Steps::Unknown { .. } => &[],
    };
    let back = match &phase.rollback {
        PlannedRollback::Steps(steps) => steps.as_slice(),
        _ => &[],
    };
    enter.iter().chain(back)
}
