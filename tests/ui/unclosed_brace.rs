use phasewise::{AddColumn, Migration, Migrations, migrations};

static MIGRATIONS: Migrations = migrations![
    Migration::new("a", AddColumn::new("users", "nick", "text").backfill("lower({name)")).not_deployed()
];

fn main() {
    let _ = MIGRATIONS;
}
