use phasewise::{AddColumn, Migration, Migrations, migrations};

static MIGRATIONS: Migrations = migrations![
    Migration::new("20261122_users", AddColumn::new("users", "nick", "text")),
    Migration::new("20261122_users", AddColumn::new("users", "locale", "text")),
];

fn main() {
    let _ = MIGRATIONS;
}
