use phasewise::{Migration, Migrations, RunSql, migrations};

static MIGRATIONS: Migrations = migrations![Migration::new("a", RunSql::new(&["create extension citext"]))];

fn main() {
    let _ = MIGRATIONS;
}
