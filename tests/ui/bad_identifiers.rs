use phasewise::{AddColumn, AddIndex, Migration, Migrations, migrations};

static EMPTY: Migrations = migrations![Migration::new("a", AddColumn::new("users", "", "text"))];

static LONG: Migrations = migrations![Migration::new(
    "a",
    AddIndex::new("users", "users_name_that_nobody_could_ever_read_out_aloud_without_a_pause_for_breath")
        .columns(&["name"])
)];

static DOTS: Migrations = migrations![Migration::new("a", AddColumn::new("db.public.users", "nick", "text"))];

fn main() {
    let _ = (EMPTY, LONG, DOTS);
}
