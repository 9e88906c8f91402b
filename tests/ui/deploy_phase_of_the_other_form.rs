use phasewise::{Migration, Migrations, RenameColumn, migrations, rename_column::WriteBoth};

static MIGRATIONS: Migrations = migrations![
    Migration::new("20261122_users_full_name", RenameColumn::new("users", "name", "full_name").kept_in_sync())
        .deployed::<WriteBoth>(),
];

fn main() {
    let _ = MIGRATIONS;
}
