use phasewise::{AddColumn, Migration, Migrations, add_column::Backfill, drop_column::StopReads, migrations};

static ANOTHER: Migrations = migrations![
    Migration::new("a", AddColumn::new("users", "nick", "text").backfill("{name}")).deployed::<StopReads>()
];

static NO_DEPLOY: Migrations = migrations![
    Migration::new("a", AddColumn::new("users", "nick", "text").backfill("{name}")).deployed::<Backfill>()
];

fn main() {
    let _ = (ANOTHER, NO_DEPLOY);
}
