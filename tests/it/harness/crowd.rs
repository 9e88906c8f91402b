//! Releases of an application that read and write beside a migration, and a model that knows what they must read.
//!
//! Each row is written by whatever release comes next, over a connection of its own; rows are many fewer than writers
//! would like. A row's model is locked while a statement about it is under way, so that what it must read is known to
//! the letter; across rows, and beside the migrator, everything runs at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, Notify, RwLock};
use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use phasewise::testing::Database;
use phasewise::{To, Window};

use super::{Case, Stage, one};

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
#[derive(Clone, Copy, Debug)]
pub(crate) struct Release {
    pub(crate) insert: (&'static str, Leaves),
    pub(crate) update: (&'static str, Leaves),
    /// Gives the value, as text; empty where this release does not read it.
    pub(crate) read: &'static str,
    /// Empty where this release deletes nothing.
    pub(crate) delete: &'static str,
}

/// A case under fire.
#[derive(Debug)]
pub(crate) struct Fire {
    pub(crate) case: Case,
    pub(crate) releases: &'static [Release],
    /// The value number `n`, as readers see it.
    pub(crate) value: fn(u64) -> String,
    /// Counts the rows whose columns disagree, and the phases in which none may.
    pub(crate) disagree: (&'static str, &'static [&'static str]),
}

const ROWS: usize = 6;
const CLIENTS: u64 = 5;
/// Statements that every release must have made before a phase is left.
const ENOUGH: u64 = 25;

struct Shared {
    fire: &'static Fire,
    /// The releases that are live: read-locked by every statement, so that none outlives its window.
    live: RwLock<Window>,
    /// Each row's value, `None` where there is no row.
    rows: Vec<Mutex<Option<String>>>,
    /// Statements by release, since the window opened.
    counts: Vec<AtomicU64>,
    moved: Notify,
    wrong: std::sync::Mutex<Vec<String>>,
    over: AtomicU64,
}

pub(crate) struct Crowd {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Crowd {
    pub(crate) async fn gather(database: &Database, fire: &'static Fire) -> Self {
        let shared = Arc::new(Shared {
            fire,
            live: RwLock::new(Window::new(0, 0)),
            rows: (0..ROWS).map(|_| Mutex::new(None)).collect(),
            counts: fire.releases.iter().map(|_| AtomicU64::new(0)).collect(),
            moved: Notify::new(),
            wrong: std::sync::Mutex::default(),
            over: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        for seed in 0..CLIENTS {
            let client = database.connect().await.expect("a connection");
            let shared = Arc::clone(&shared);
            tasks.spawn(async move { shared.client(client, seed).await });
        }
        Self { shared, tasks }
    }

    /// These releases from now on; returns when no other has a statement under way.
    pub(crate) async fn live(&self, window: Window) {
        *self.shared.live.write().await = window;
        for count in &self.shared.counts {
            count.store(0, Ordering::SeqCst);
        }
    }

    /// Waits until each live release has made a number of statements.
    pub(crate) async fn work(&self) {
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

    fn check(&self) {
        let wrong = self.shared.wrong.lock().expect("not poisoned");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    pub(crate) async fn leave(mut self) {
        self.shared.over.store(1, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a client that did not panic");
        }
        self.check();
    }
}

impl Shared {
    async fn client(&self, client: Client, seed: u64) {
        // A generator of our own: the same run every time, as far as scheduling allows.
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        while self.over.load(Ordering::SeqCst) == 0 {
            let live = self.live.read().await;
            let release = live.lo + u16::try_from(next() % u64::from(live.hi - live.lo + 1)).expect("small");
            let row = usize::try_from(next() % ROWS as u64).expect("small");
            let mut model = self.rows[row].lock().await;
            let done = self.statement(&client, release, row, &mut model, next(), next()).await;
            drop(model);
            self.counts[usize::from(release)].fetch_add(1, Ordering::SeqCst);
            if let Err(wrong) = done {
                self.wrong.lock().expect("not poisoned").push(wrong);
                self.over.store(1, Ordering::SeqCst);
            }
            drop(live);
            self.moved.notify_waiters();
            tokio::task::yield_now().await;
        }
    }

    async fn statement(
        &self,
        client: &Client,
        release: u16,
        row: usize,
        model: &mut Option<String>,
        choice: u64,
        number: u64,
    ) -> Result<(), String> {
        let id = row.to_string();
        let value = (self.fire.value)(number);
        let speaks = &self.fire.releases[usize::from(release)];
        let leaves = |leaves: Leaves, model: &Option<String>| match leaves {
            Leaves::Written => Some(value.clone()),
            Leaves::Untouched => model.clone(),
            Leaves::Value(fixed) => Some(fixed.to_owned()),
        };
        let (sql, after) = match (&model, choice % 8) {
            (None, _) => (speaks.insert.0, leaves(speaks.insert.1, model)),
            (Some(_), 0) if !speaks.delete.is_empty() => (speaks.delete, None),
            (Some(_), 0..4) => (speaks.update.0, leaves(speaks.update.1, model)),
            (Some(expected), _) => {
                if speaks.read.is_empty() {
                    return Ok(());
                }
                let rows = client.query_typed(speaks.read, &[(&id, Type::TEXT)]).await;
                let rows =
                    rows.map_err(|error| format!("release {release} failed: {error:?}: {}", speaks.read))?;
                let found: Vec<Option<String>> = rows.iter().map(|row| row.get(0)).collect();
                if found != [Some(expected.clone())] {
                    return Err(format!(
                        "release {release} read {found:?}, not {expected:?}: {}",
                        speaks.read
                    ));
                }
                return Ok(());
            }
        };
        let both = [(&id as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT), (&value, Type::TEXT)];
        let params = if sql.contains("$2") { &both[..] } else { &both[..1] };
        let rows = client.query_typed(&format!("{sql} RETURNING 1"), params).await;
        let rows = rows.map_err(|error| format!("release {release} failed: {error:?}: {sql}"))?;
        if rows.len() != 1 {
            return Err(format!("release {release} wrote {} rows: {sql}", rows.len()));
        }
        *model = after;
        Ok(())
    }
}

/// Forward through all phases, back to the start and forward again, under fire all the way.
pub(crate) async fn hold(fire: &'static Fire) {
    let stage = Stage::set(&fire.case).await;
    let crowd = Crowd::gather(&stage.database, fire).await;
    crowd.live(Window::new(0, 0)).await;
    crowd.work().await;
    let last = fire.case.phases().len();
    for number in 1..=last {
        step(&stage, &crowd, fire, number, true).await;
    }
    for number in (0..last).rev() {
        step(&stage, &crowd, fire, number, false).await;
    }
    for number in 1..=last {
        step(&stage, &crowd, fire, number, true).await;
    }
    crowd.leave().await;
}

async fn step(stage: &Stage, crowd: &Crowd, fire: &Fire, number: usize, forward: bool) {
    let phases = fire.case.phases();
    let window = |number: usize| number.checked_sub(1).map_or(Window::new(0, 0), |at| phases[at].window);
    let from = if forward { number - 1 } else { number + 1 };
    // While it moves, only releases that both phases allow.
    crowd.live(window(from).overlap(window(number)).expect("neighbours share a release")).await;
    crowd.work().await;
    if forward {
        stage.forward(number).await;
    } else {
        stage.migrator().rollback(fire.case.name(), To::Previous).await.expect("a rollback");
    }
    crowd.live(window(number)).await;
    crowd.work().await;
    let (disagree, phases_kept) = fire.disagree;
    if number.checked_sub(1).is_some_and(|at| phases_kept.contains(&phases[at].name)) {
        assert_eq!(one::<i64>(&stage.client, disagree).await, 0, "{disagree} in {}", phases[number - 1].name);
    }
}
