use phasewise::{AddIndex, Migration, Migrations, migrations};

static MIGRATIONS: Migrations = migrations![
    Migration::new("kept", AddIndex::new("t", "t_a").columns(&["a"])),
    Migration::new("gone", AddIndex::new("t", "t_b").columns(&["b"])),
]
.retired(&["older", "gone"]);

fn main() {
    let _ = MIGRATIONS;
}
