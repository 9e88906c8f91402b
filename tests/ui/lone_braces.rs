use phasewise::{AddColumn, Migration, Migrations, migrations};

static CLOSING: Migrations = migrations![
    Migration::new("a", AddColumn::new("users", "nick", "text").backfill("lower(name})")).not_deployed()
];

static EMPTY: Migrations = migrations![
    Migration::new("a", AddColumn::new("users", "nick", "text").backfill("lower({})")).not_deployed()
];

fn main() {
    let _ = (CLOSING, EMPTY);
}
