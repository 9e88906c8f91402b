use phasewise::{DropColumn, Migration, Migrations, migrations};

static MIGRATIONS: Migrations = migrations![Migration::new("20261122_users_fax", DropColumn::new("users", "fax"))];

fn main() {
    let _ = MIGRATIONS;
}
