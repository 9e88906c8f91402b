use phasewise::create_table::{Column, Constraint};
use phasewise::{AddColumn, AddIndex, CreateTable, Migration, Migrations, migrations};

static PLACEHOLDER: Migrations = migrations![
    Migration::new(
        "a",
        AddColumn::new("users", "nick", "text")
            .backfill("{a_column_that_nobody_could_ever_read_out_aloud_without_a_pause_for_breath}")
    )
    .not_deployed()
];

static INCLUDED: Migrations = migrations![Migration::new(
    "a",
    AddIndex::new("users", "users_name_idx").columns(&["name"]).include(&["email", ""])
)];

static KEY: Migrations = migrations![Migration::new(
    "a",
    CreateTable::new("users")
        .columns([Column::new("id", "bigint")])
        .primary_key(&["id_that_nobody_could_ever_read_out_aloud_without_a_pause_for_breath"])
)];

static REFERENCED: Migrations = migrations![Migration::new(
    "a",
    CreateTable::new("orders")
        .columns([Column::new("user_id", "bigint")])
        .constraints([Constraint::foreign_key("orders_user_id_fkey", &["user_id"], "users", &[""])])
)];

fn main() {
    let _ = (PLACEHOLDER, INCLUDED, KEY, REFERENCED);
}
