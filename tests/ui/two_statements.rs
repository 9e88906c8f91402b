use phasewise::{Migration, Migrations, RunSql, migrations};

static MIGRATIONS: Migrations = migrations![Migration::new(
    "a",
    RunSql::new(&["drop view a; drop view b"]).irreversible("nobody misses them")
)];

fn main() {
    let _ = MIGRATIONS;
}
