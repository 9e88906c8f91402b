//! What every case goes through.

use super::data::Columns;
use super::{Case, Stage, catalog, data, run, same};

/// The catalog and the data of one moment.
struct Look {
    catalog: String,
    /// All columns.
    data: String,
    /// The columns that were there before the migration and still are.
    old: String,
    sequences: String,
}

impl Look {
    async fn at(stage: &Stage, before: &Columns) -> Self {
        let client = &stage.client;
        Self {
            catalog: catalog::dump(client).await,
            data: data::dump(client, None).await,
            old: data::dump(client, Some(before)).await,
            sequences: data::sequences(client).await,
        }
    }

    /// `filled`: the new columns' values count too. Before the backfill they are nobody's, and what an earlier round
    /// left in them harms no one.
    fn assert_same(&self, found: &Look, filled: bool, when: &str) {
        same(&self.catalog, &found.catalog, &format!("{when}: the catalog differs"));
        same(&self.old, &found.old, &format!("{when}: the old columns differ"));
        same(&self.sequences, &found.sequences, &format!("{when}: sequences differ"));
        if filled {
            same(&self.data, &found.data, &format!("{when}: the data differ"));
        }
    }
}

/// Whether the values of new columns are settled once `number` phases are entered.
fn filled(case: &Case, number: usize) -> bool {
    let backfill = case.phases().iter().position(|info| info.name == "Backfill");
    number == 0 || backfill.is_none_or(|at| number > at)
}

/// Forward, each phase twice as after a crash in its last moment, with a look at every phase; back one by one, each
/// twice; forward again; back to the start at once, and to the end again.
pub(crate) async fn back_and_forth(case: &'static Case) {
    let stage = Stage::set(case).await;
    let before = data::columns(&stage.client).await;
    let last = case.phases().len();
    let name = |number: usize| number.checked_sub(1).map_or("the start", |at| case.phases()[at].name);

    let mut looks = vec![Look::at(&stage, &before).await];
    for number in 1..=last {
        stage.forward(number).await;
        let look = Look::at(&stage, &before).await;
        rewind(&stage, "entered = entered - 1, moving = 'forward'").await;
        stage.enter(&stage.migrator(), number).await;
        look.assert_same(&Look::at(&stage, &before).await, true, &format!("{} entered twice", name(number)));
        looks.push(look);
    }
    for number in (0..last).rev() {
        // What the ledger saved goes with the rollback's end; the crash came before that.
        let client = &stage.client;
        run(client, "DROP TABLE IF EXISTS pg_temp.kept").await;
        run(client, "CREATE TEMP TABLE kept AS SELECT * FROM phasewise.saved").await;
        stage.back(number).await;
        let look = Look::at(&stage, &before).await;
        let when = format!("back from {} to {}", name(number + 1), name(number));
        looks[number].assert_same(&look, filled(case, number), &when);
        run(client, "INSERT INTO phasewise.saved SELECT * FROM kept ON CONFLICT DO NOTHING").await;
        rewind(&stage, "entered = entered + 1, moving = 'back'").await;
        stage.back(number).await;
        look.assert_same(&Look::at(&stage, &before).await, true, &format!("{when}, twice"));
    }
    for number in 1..=last {
        stage.forward(number).await;
        let when = format!("forward again to {}", name(number));
        looks[number].assert_same(&Look::at(&stage, &before).await, filled(case, number), &when);
    }
    stage.back(0).await;
    looks[0].assert_same(&Look::at(&stage, &before).await, true, "from the end to the start at once");
    stage.forward(last).await;
    looks[last].assert_same(&Look::at(&stage, &before).await, true, "the end again");
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
    looks[last].assert_same(&Look::at(&stage, &before).await, true, "the end again");
}

/// Every step's locks, forward, back and forward again.
pub(crate) async fn locks(case: &'static Case) {
    crate::locks::compare(case).await;
}

/// From every phase to the start at once, and forward to the next one.
pub(crate) async fn from_everywhere(case: &'static Case) {
    let stage = Stage::set(case).await;
    let before = data::columns(&stage.client).await;
    let start = Look::at(&stage, &before).await;
    for number in 1..case.phases().len() {
        stage.forward(number).await;
        stage.back(0).await;
        let when = format!("from {} to the start at once", case.phases()[number - 1].name);
        start.assert_same(&Look::at(&stage, &before).await, true, &when);
    }
}
