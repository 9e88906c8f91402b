use phasewise::{AddColumn, Migration, Migrations, migrations};

static MIGRATIONS: Migrations =
    migrations![Migration::new("20261122_users_nick", AddColumn::new("users", "nick", "text").not_null())];

fn main() {
    let _ = MIGRATIONS;
}
