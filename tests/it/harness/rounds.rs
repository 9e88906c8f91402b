//! What every case goes through.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use phasewise::{Event, Kind, Migrator, To};
use tokio::sync::Notify;

use super::data::Columns;
use super::{Case, Stage, acknowledge, catalog, data, one, run, same};

/// The catalog and the data of one moment.
struct Look {
    catalog: String,
    /// All columns.
    data: String,
    /// The columns that were there before the migration and still are.
    old: String,
    sequences: String,
    /// What phases made beside the ledger: sync functions, archives, sequences that are set aside.
    made: String,
}

/// The ledger's own tables have fixed names.
const MADE: &str = "SELECT coalesce(string_agg(made, E'\\n' ORDER BY made), '') FROM (
    SELECT 'function ' || p.proname FROM pg_proc p WHERE p.pronamespace = to_regnamespace('phasewise')
    UNION ALL
    SELECT 'relation ' || c.relname FROM pg_class c WHERE c.relnamespace = to_regnamespace('phasewise')
       AND (c.relname LIKE 'archive%' OR c.relname LIKE 'sequence%')) AS x (made)";

impl Look {
    async fn at(stage: &Stage, before: &Columns) -> Self {
        let client = &stage.client;
        Self {
            catalog: catalog::dump(client).await,
            data: data::dump(client, None).await,
            old: data::dump(client, Some(before)).await,
            sequences: data::sequences(client).await,
            made: one(client, MADE).await,
        }
    }

    /// `filled`: the new columns' values count too. Before the backfill they are nobody's, and what an earlier round
    /// left in them harms no one.
    fn assert_same(&self, found: &Look, filled: bool, when: &str) {
        same(&self.catalog, &found.catalog, &format!("{when}: the catalog differs"));
        same(&self.old, &found.old, &format!("{when}: the old columns differ"));
        same(&self.sequences, &found.sequences, &format!("{when}: sequences differ"));
        same(&self.made, &found.made, &format!("{when}: functions or archives differ"));
        if filled {
            same(&self.data, &found.data, &format!("{when}: the data differ"));
        }
    }
}

/// Whether the values of new columns are settled once `number` phases are entered. Cases whose values are drawn say so
/// in their names.
fn filled(case: &Case, number: usize) -> bool {
    if case.name().contains("volatile") {
        return number == 0;
    }
    let backfill = case.phases().iter().position(|info| info.name == "Backfill");
    number == 0 || backfill.is_none_or(|at| number > at)
}

/// Into every phase, twice as after a crash in its last moment; back out of it, twice; and forward again. From the end
/// to the start at once, and to the end again.
pub(crate) async fn everywhere(case: &'static Case) {
    let mut walk = Walk::begin(case).await;
    walk.back_and_forth(case.phases().len()).await;
}

/// [`everywhere`] but for the last phase, which is entered twice and refuses to be rolled back.
pub(crate) async fn one_way(case: &'static Case) {
    let mut walk = Walk::begin(case).await;
    let (name, last) = (case.name(), case.phases().len());
    walk.back_and_forth(last - 1).await;
    walk.enter_twice(last).await;
    for to in [To::Previous, To::Start] {
        let error = walk.stage.migrator().rollback(name, to).await.expect_err("an irreversible phase");
        assert_eq!(error.kind(), Kind::Irreversible, "{error}");
        walk.assert_at(last, "after a rollback that was refused").await;
    }
}

/// From every phase to the start at once, and forward to the next one.
pub(crate) async fn from_everywhere(case: &'static Case) {
    let walk = Walk::begin(case).await;
    for number in 1..case.phases().len() {
        walk.stage.forward(number).await;
        walk.stage.back(0).await;
        walk.assert_at(0, &format!("from {} to the start at once", walk.phase(number))).await;
    }
}

/// A case on its way, with the first look at each phase.
struct Walk {
    case: &'static Case,
    stage: Stage,
    before: Columns,
    looks: Vec<Look>,
}

impl Walk {
    async fn begin(case: &'static Case) -> Self {
        let stage = Stage::set(case).await;
        let before = data::columns(&stage.client).await;
        let looks = vec![Look::at(&stage, &before).await];
        Self { case, stage, before, looks }
    }

    fn phase(&self, number: usize) -> &'static str {
        number.checked_sub(1).map_or("the start", |at| self.case.phases()[at].name)
    }

    async fn look(&self) -> Look {
        Look::at(&self.stage, &self.before).await
    }

    /// That all is as it was when `number` phases were entered first.
    async fn assert_at(&self, number: usize, when: &str) -> Look {
        let look = self.look().await;
        self.looks[number].assert_same(&look, filled(self.case, number), when);
        look
    }

    async fn back_and_forth(&mut self, last: usize) {
        for number in 1..=last {
            self.enter_twice(number).await;
            self.leave_twice(number).await;
            self.forward(number).await;
        }
        if last == 0 {
            return;
        }
        self.stage.back(0).await;
        self.assert_at(0, &format!("from {} to the start at once", self.phase(last))).await;
        self.forward(last).await;
    }

    async fn enter_twice(&mut self, number: usize) {
        self.stage.enter(&self.stage.migrator(), number).await;
        let look = self.look().await;
        rewind(&self.stage, "entered = entered - 1, moving = 'forward'").await;
        self.stage.enter(&self.stage.migrator(), number).await;
        let when = format!("{} entered twice", self.phase(number));
        look.assert_same(&self.look().await, true, &when);
        self.looks.push(look);
    }

    async fn leave_twice(&self, number: usize) {
        let (client, to) = (&self.stage.client, number - 1);
        // What the ledger saved goes with the rollback's end; the crash came before that.
        run(client, "DROP TABLE IF EXISTS pg_temp.kept").await;
        run(client, "CREATE TEMP TABLE kept AS SELECT * FROM phasewise.saved").await;
        self.stage.back(to).await;
        let when = format!("back from {} to {}", self.phase(number), self.phase(to));
        let look = self.assert_at(to, &when).await;
        run(client, "INSERT INTO phasewise.saved SELECT * FROM kept ON CONFLICT DO NOTHING").await;
        rewind(&self.stage, "entered = entered + 1, moving = 'back'").await;
        self.stage.back(to).await;
        look.assert_same(&self.look().await, true, &format!("{when}, twice"));
    }

    async fn forward(&self, number: usize) {
        self.stage.forward(number).await;
        self.assert_at(number, &format!("forward again to {}", self.phase(number))).await;
    }
}

async fn rewind(stage: &Stage, set: &str) {
    let rewound = stage.client.execute(&format!("UPDATE phasewise.migrations SET {set}"), &[]).await;
    assert_eq!(rewound.expect("a ledger that can be rewound"), 1);
}

/// Forward, back one by one, and forward again.
pub(crate) async fn there_and_back(case: &'static Case) {
    let stage = Stage::set(case).await;
    let before = data::columns(&stage.client).await;
    let last = case.phases().len();
    let mut looks = vec![Look::at(&stage, &before).await];
    for number in 1..=last {
        stage.forward(number).await;
        looks.push(Look::at(&stage, &before).await);
    }
    for number in (0..last).rev() {
        stage.back(number).await;
        let when = format!("{} rolled back", case.phases()[number].name);
        looks[number].assert_same(&Look::at(&stage, &before).await, filled(case, number), &when);
    }
    stage.forward(last).await;
    looks[last].assert_same(&Look::at(&stage, &before).await, filled(case, last), "the end again");
}

/// Every step's locks, forward, back and forward again.
pub(crate) async fn locks(case: &'static Case) {
    crate::locks::compare(case).await;
}

/// The same where the last phase is irreversible.
pub(crate) async fn locks_one_way(case: &'static Case) {
    crate::locks::compare_one_way(case).await;
}

/// Into every phase and back out of it, cut off after its first step, its second, and so on; each time it goes the
/// other way from there.
pub(crate) async fn cut_off(case: &'static Case) {
    let stage = Stage::set(case).await;
    let before = data::columns(&stage.client).await;
    let (name, phases) = (case.name(), case.phases());
    let mut start = Look::at(&stage, &before).await;
    for number in 1..=phases.len() {
        let phase = phases[number - 1].name;
        let to = number.checked_sub(2).map_or(To::Start, |at| To::Phase(phases[at].name));
        let confirm = async || {
            if number > 1 && phases[number - 2].gate.release().is_some() {
                stage.migrator().confirm(name, phases[number - 2].name).await.expect("a confirmation");
                acknowledge(&stage.migrator(), name).await;
            }
        };
        confirm().await;
        for steps in 1.. {
            if !cut(&stage, steps, async |migrator| migrator.run_to(name, phase).await.map(drop)).await {
                break;
            }
            let back = stage.migrator().rollback(name, to).await;
            back.unwrap_or_else(|error| panic!("{phase}, cut after {steps}, back: {error}"));
            let when = format!("{phase}, cut after {steps} steps and rolled back");
            start.assert_same(&Look::at(&stage, &before).await, filled(case, number - 1), &when);
            confirm().await;
        }
        let end = Look::at(&stage, &before).await;
        for steps in 1.. {
            if !cut(&stage, steps, async |migrator| migrator.rollback(name, to).await.map(drop)).await {
                break;
            }
            let forward = stage.migrator().run_to(name, phase).await;
            forward.unwrap_or_else(|error| panic!("back from {phase}, cut after {steps}, forward: {error}"));
            let when = format!("back from {phase}, cut after {steps} steps, and forward again");
            end.assert_same(&Look::at(&stage, &before).await, filled(case, number), &when);
        }
        stage.forward(number).await;
        start = Look::at(&stage, &before).await;
    }
}

/// Drops the work when that many steps are done; whether it came so far.
pub(crate) async fn cut(
    stage: &Stage,
    steps: usize,
    work: impl AsyncFnOnce(Migrator) -> Result<(), phasewise::Error>,
) -> bool {
    let (done, enough) = (AtomicUsize::new(0), Arc::new(Notify::new()));
    let tell = Arc::clone(&enough);
    let migrator = stage.migrator().observe(move |event: &Event<'_>| {
        if matches!(event, Event::StepDone { .. }) && done.fetch_add(1, Ordering::Relaxed) + 1 == steps {
            tell.notify_one();
        }
    });
    tokio::select! {
        biased;
        () = enough.notified() => {}
        worked = work(migrator) => {
            worked.expect("uncut work");
            return false;
        }
    }
    // What was sent last may still run.
    let busy = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle')";
    while one::<bool>(&stage.client, busy).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}
