use phasewise::{DropTable, Migration, Migrations, migrations};

static MIGRATIONS: Migrations = migrations![Migration::new("20261201_faxes", DropTable::new("faxes"))];

fn main() {
    let _ = MIGRATIONS;
}
