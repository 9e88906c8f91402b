use phasewise::{DropTable, Migration, Migrations, drop_column::StopWrites, migrations};

static MIGRATIONS: Migrations =
    migrations![Migration::new("20261201_faxes", DropTable::new("faxes")).deployed::<StopWrites>()];

fn main() {
    let _ = MIGRATIONS;
}
