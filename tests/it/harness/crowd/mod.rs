//! Releases of an application that read and write beside a migration, and a model that knows what they must read.
//!
//! Each row is written by whatever release comes next, over a connection of its own; rows are many fewer than writers
//! would like. A row's model is locked while a statement about it is under way, so that what it must read is known to
//! the letter; across rows, and beside the migrator, everything runs at once.

mod client;
mod speaker;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, RwLock};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use phasewise::{BackfillPolicy, Kind, Migrator, To, Window};

use self::speaker::Speaker;
use super::{Case, Stage, one, run};

/// What a write does to the value that readers are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Leaves {
    /// It is the value that was written.
    Written,
    /// What it was.
    Untouched,
    /// This.
    Value(&'static str),
}

/// One release's statements: `$1` is the row's number, `$2` the value, both as text.
#[derive(Clone, Debug)]
pub(crate) struct Release {
    pub(crate) insert: (String, Leaves),
    pub(crate) update: (String, Leaves),
    /// Writes another column of the row.
    pub(crate) touch: String,
    /// Gives the value, as text; empty where this release does not read it.
    pub(crate) read: String,
    /// Empty where this release deletes nothing.
    pub(crate) delete: String,
}

/// A value as that release reads it.
pub(crate) type Sees = Box<dyn Fn(u16, &str) -> Option<String> + Send + Sync>;

/// A case under fire.
pub(crate) struct Fire {
    pub(crate) case: &'static Case,
    pub(crate) setup: Vec<String>,
    pub(crate) releases: Vec<Release>,
    /// The value number `n`, as that release writes it.
    pub(crate) value: fn(u16, u64) -> String,
    /// What that release reads where this was written; null where it has no such value.
    pub(crate) sees: Sees,
    /// What is left of a value when the change is rolled back to its start, and what it brought is dropped.
    pub(crate) forgets: fn(&str) -> Option<String>,
    /// The columns of a key, by which rows of numbers beyond the model's are written without any order among the
    /// writers: nothing must fail, and the columns must agree all the same.
    pub(crate) storm: Option<String>,
    /// Queries that count wrong rows, and the phases in which there must be none.
    pub(crate) wrong: Vec<(String, &'static [&'static str])>,
    /// Whether nobody writes a row until all phases were entered once.
    pub(crate) barren: bool,
    /// Whether it goes forward a second time, over what the way back left.
    pub(crate) again: bool,
    /// Whether there is no way back out of the last phase.
    pub(crate) irreversible: bool,
}

const ROWS: usize = 6;
const CLIENTS: u64 = 5;
/// Statements that every release must have made before a phase is left.
const ENOUGH: u64 = 15;

/// What a row was last given: `None` where there is no row, null where no release has the value any more.
type Model = Option<Option<String>>;

struct Shared {
    fire: Fire,
    /// The releases that are live: read-locked by every statement, so that none outlives its window.
    live: RwLock<Window>,
    rows: Vec<Mutex<Model>>,
    /// Statements by release, since the window opened.
    counts: Vec<AtomicU64>,
    moved: Notify,
    wrong: std::sync::Mutex<Vec<String>>,
    /// Whether rows may come.
    fertile: AtomicBool,
    over: AtomicBool,
}

struct Crowd {
    migrator: Migrator,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Crowd {
    async fn gather(stage: &Stage, fire: Fire) -> Self {
        let shared = Arc::new(Shared {
            live: RwLock::new(Window::new(0, 0)),
            rows: (0..ROWS).map(|_| Mutex::new(None)).collect(),
            counts: fire.releases.iter().map(|_| AtomicU64::new(0)).collect(),
            moved: Notify::new(),
            wrong: std::sync::Mutex::default(),
            fertile: AtomicBool::new(!fire.barren),
            over: AtomicBool::new(false),
            fire,
        });
        let mut tasks = JoinSet::new();
        for number in 0..CLIENTS {
            let speaker = Speaker::new(stage.database.connect().await.expect("a connection"), number);
            let shared = Arc::clone(&shared);
            tasks.spawn(async move { shared.client(speaker, number).await });
        }
        // Several batches, though not many: each is the same to the crowd.
        let policy = BackfillPolicy::new().fixed(25).pause(Duration::ZERO);
        Self { migrator: stage.migrator().backfill(policy), shared, tasks }
    }

    /// These releases from now on; returns when no other has a statement under way.
    async fn live(&self, window: Window) {
        *self.shared.live.write().await = window;
        for count in &self.shared.counts {
            count.store(0, Ordering::SeqCst);
        }
    }

    /// Waits until each live release has made a number of statements.
    async fn work(&self) {
        let window = *self.shared.live.read().await;
        loop {
            let moved = self.shared.moved.notified();
            self.check();
            let all = (window.lo..=window.hi)
                .all(|release| self.shared.counts[usize::from(release)].load(Ordering::SeqCst) >= ENOUGH);
            if all {
                return;
            }
            moved.await;
        }
    }

    /// What the change brought is dropped.
    async fn forget(&self) {
        for row in &self.shared.rows {
            if let Some(value) = &mut *row.lock().await {
                *value = value.as_deref().and_then(self.shared.fire.forgets);
            }
        }
    }

    fn check(&self) {
        let wrong = self.shared.wrong.lock().expect("not poisoned");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    async fn leave(mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a client that did not panic");
        }
        self.check();
    }
}

/// Forward through all phases, back to the start and mostly forward again, under fire all the way.
pub(crate) async fn hold(fire: Fire) {
    let case = fire.case;
    let stage = Stage::set(case).await;
    for sql in &fire.setup {
        run(&stage.client, sql).await;
    }
    let last = case.phases().len();
    let turn = if fire.irreversible { last - 1 } else { last };
    let crowd = Crowd::gather(&stage, fire).await;
    crowd.live(Window::new(0, 0)).await;
    crowd.work().await;
    for number in 1..=turn {
        step(&stage, &crowd, number, true).await;
    }
    crowd.shared.fertile.store(true, Ordering::SeqCst);
    crowd.work().await;
    for number in (0..turn).rev() {
        step(&stage, &crowd, number, false).await;
    }
    if crowd.shared.fire.again || crowd.shared.fire.irreversible {
        for number in 1..=last {
            step(&stage, &crowd, number, true).await;
        }
    }
    if crowd.shared.fire.irreversible {
        let refused = stage.migrator().rollback(case.name(), To::Previous).await.expect_err("no way back");
        assert_eq!(refused.kind(), Kind::Irreversible, "{refused}");
        crowd.live(case.phases()[last - 1].window).await;
        crowd.work().await;
    }
    crowd.leave().await;
}

/// A client of that release writes a row of its own in every way that it knows, and reads it after each.
pub(crate) async fn visit(fire: &Fire, client: Client, release: u16, row: u64) {
    let mut speaker = Speaker::new(client, row);
    let speaks = &fire.releases[usize::from(release)];
    let writes = [
        (&speaks.insert.0, speaks.insert.1),
        (&speaks.update.0, speaks.update.1),
        (&speaks.touch, Leaves::Untouched),
    ];
    let id = row.to_string();
    let mut model: Model = None;
    for (number, (sql, leaves)) in (row * 10..).zip(writes).filter(|(_, (sql, _))| !sql.is_empty()) {
        let value = (fire.value)(release, number);
        let written = speaker.ask(&format!("{sql} RETURNING 1"), &id, &value).await;
        let written = written.unwrap_or_else(|error| panic!("release {release}: {error:?}: {sql}"));
        assert_eq!(written.len(), 1, "release {release}: {sql}");
        model = Some(match leaves {
            Leaves::Written => Some(value),
            Leaves::Untouched => model.flatten(),
            Leaves::Value(fixed) => Some(fixed.to_owned()),
        });
        if speaks.read.is_empty() {
            continue;
        }
        let rows = speaker.ask(&speaks.read, &id, "").await;
        let rows = rows.unwrap_or_else(|error| panic!("release {release}: {error:?}: {}", speaks.read));
        let found: Vec<Option<String>> = rows.iter().map(|row| row.get(0)).collect();
        let sees = model.iter().flatten().map(|value| (fire.sees)(release, value));
        assert_eq!(found, sees.collect::<Vec<_>>(), "release {release}: {} after {sql}", speaks.read);
    }
    if !speaks.delete.is_empty() {
        let gone = speaker.ask(&format!("{} RETURNING 1", speaks.delete), &id, "").await;
        let gone = gone.unwrap_or_else(|error| panic!("release {release}: {error:?}: {}", speaks.delete));
        assert_eq!(gone.len(), 1, "release {release}: {}", speaks.delete);
    }
}

async fn step(stage: &Stage, crowd: &Crowd, number: usize, forward: bool) {
    let phases = stage.case.phases();
    let window = |number: usize| number.checked_sub(1).map_or(Window::new(0, 0), |at| phases[at].window);
    let from = if forward { number - 1 } else { number + 1 };
    // While it moves, only releases that both phases allow.
    crowd.live(window(from).overlap(window(number)).expect("neighbours share a release")).await;
    crowd.work().await;
    if forward {
        stage.enter(&crowd.migrator, number).await;
    } else {
        crowd.migrator.rollback(stage.case.name(), To::Previous).await.expect("a rollback");
    }
    if number == 0 {
        crowd.forget().await;
    }
    crowd.live(window(number)).await;
    crowd.work().await;
    let Some(at) = number.checked_sub(1) else { return };
    for (query, kept) in &crowd.shared.fire.wrong {
        if kept.contains(&phases[at].name) {
            assert_eq!(one::<i64>(&stage.client, query).await, 0, "{query} in {}", phases[at].name);
        }
    }
}

impl fmt::Debug for Fire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fire")
            .field("case", self.case)
            .field("releases", &self.releases)
            .finish_non_exhaustive()
    }
}
