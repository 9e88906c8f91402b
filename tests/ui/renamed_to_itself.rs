use phasewise::{ChangeType, Migration, Migrations, RenameColumn, migrations};

static RENAMED: Migrations =
    migrations![Migration::new("a", RenameColumn::new("users", "name", "name")).not_deployed()];

static RETYPED: Migrations = migrations![
    Migration::new("a", ChangeType::new("users", "age", "age", "bigint").up("{age}::bigint").down("{age}::int"))
        .not_deployed()
];

fn main() {
    let _ = (RENAMED, RETYPED);
}
