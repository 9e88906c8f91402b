//! What the migrator says of itself: a bar on a terminal, plain lines elsewhere, and a table at the end.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use phasewise::{Event, Observer, State};

use crate::fleet::Deploy;

const SPINNER: &str = "{spinner} {msg}";
const BAR: &str = "{spinner} {msg} {wide_bar} {human_pos}/{human_len}";

/// An observer that shows events as they come.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    table: Vec<Line>,
    /// Rows that the steps of the phase have written so far.
    rows: u64,
    /// What the step under way does.
    step: String,
    again: &'static str,
    /// Its last quarter that was printed.
    quarter: u64,
}

/// A line of the table.
#[derive(Debug)]
struct Line {
    migration: String,
    phase: String,
    what: String,
    took: Duration,
    rows: Option<u64>,
}

impl Progress {
    pub fn new() -> Self {
        // The bar is drawn on stderr, between lines on stdout.
        let terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, seen: Mutex::default() }
    }

    /// Shows what is being done, with a bar where it is known how much there is to do.
    fn show(&self, template: &str, message: String) {
        if let Some(bar) = &self.bar {
            bar.set_style(
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar.set_message(message);
        }
    }

    /// Prints a line.
    pub fn say(&self, line: impl AsRef<str>) {
        match &self.bar {
            Some(bar) => bar.suspend(|| println!("{}", line.as_ref())),
            None => println!("{}", line.as_ref()),
        }
    }

    /// Notes a deploy of the application.
    pub fn deployed(&self, migration: &str, deploy: &Deploy) {
        self.note(migration, "(deploy)", deploy.to_string(), deploy.took, None);
    }

    /// Takes the bar away, and prints the table of what was done.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seen = self.seen();
        let wide = |width: fn(&Line) -> &str| {
            seen.table.iter().map(|line| width(line).chars().count()).max().unwrap_or(0)
        };
        let (migration, phase, what) =
            (wide(|line| &line.migration), wide(|line| &line.phase), wide(|line| &line.what));
        let row = |a: &str, b: &str, c: &str, d: &str, e: &str| {
            println!("{a:migration$}  {b:phase$}  {c:what$}  {d:>7}  {e:>9}");
        };
        println!();
        row("migration", "phase", "what happened", "seconds", "rows");
        for Line { migration, phase, what, took, rows } in &seen.table {
            let seconds = format!("{:.2}", took.as_secs_f64());
            row(migration, phase, what, &seconds, &rows.map_or_else(|| "–".to_owned(), thousands));
        }
        println!();
    }

    fn note(&self, migration: &str, phase: &str, what: String, took: Duration, rows: Option<u64>) {
        let shown = rows.map(|rows| format!(", {} rows", thousands(rows))).unwrap_or_default();
        self.say(format!("  {phase:13} {what} in {:.2} s{shown}", took.as_secs_f64()));
        let (migration, phase) = (migration.to_owned(), phase.to_owned());
        self.seen().table.push(Line { migration, phase, what, took, rows });
    }

    /// A phase is done: notes it, with the rows that were written since the last one.
    fn phase(&self, migration: &str, phase: &str, what: &str, took: Duration) {
        let rows = std::mem::take(&mut self.seen().rows);
        self.note(migration, phase, what.to_owned(), took, (rows > 0).then_some(rows));
        self.show(SPINNER, "the application goes on".to_owned());
    }

    fn batch(&self, done: u64, estimate: Option<u64>, rate: Option<f64>) {
        let Some(estimate) = estimate.filter(|rows| *rows > 0) else { return };
        let done = done.min(estimate);
        if let Some(bar) = &self.bar {
            bar.set_length(estimate);
            bar.set_position(done);
            let step = self.seen().step.clone();
            let pace = rate.filter(|rate| *rate >= 1.0).map_or_else(String::new, |rate| {
                #[allow(clippy::cast_precision_loss, reason = "rows, for people")]
                let left = (estimate - done) as f64 / rate;
                format!(", {rate:.0} rows a second, {left:.0} s left")
            });
            self.show(BAR, format!("{step}{pace}"));
            return;
        }
        let quarter = done * 4 / estimate;
        let step = {
            let mut seen = self.seen();
            let before = std::mem::replace(&mut seen.quarter, quarter);
            if quarter < before {
                // Clients moved rows past the walk, or wrote them only after it: they are looked for once more.
                seen.again = ", once more";
            }
            if quarter == before || quarter == 0 {
                return;
            }
            format!("{}{}", seen.step, seen.again)
        };
        self.say(format!("    {step}: {} of about {} rows", thousands(done), thousands(estimate)));
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Progress {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::StepStarted { phase, step, .. } => {
                self.show(SPINNER, format!("{phase}: {}", step.summary));
                let mut seen = self.seen();
                (seen.step, seen.again, seen.quarter) = (step.summary.clone(), "", 0);
            }
            Event::BatchDone { done, estimate, rate, .. } => self.batch(*done, *estimate, *rate),
            Event::StepDone { rows, .. } => self.seen().rows += rows,
            Event::Waiting { state: State::Waiting { gate, .. }, .. } => {
                self.say(format!("  {:13} waits for {gate}", "(gate)"));
            }
            Event::PhaseEntered { migration, phase, took } => self.phase(migration, phase, "entered", *took),
            Event::PhaseRolledBack { migration, phase, took } => {
                self.phase(migration, phase, "rolled back", *took);
            }
            Event::LockRetry { step, attempt, blockers, .. } => {
                let blockers: Vec<_> = blockers.iter().map(ToString::to_string).collect();
                self.say(format!(
                    "    {step}: try {attempt} for its lock gave way to {}",
                    blockers.join("; ")
                ));
            }
            Event::Throttled { reason, .. } => self.say(format!("    the backfill pauses: {reason}")),
            _ => {}
        }
    }
}

/// `200,000`
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
