use phasewise::{AddColumn, CreateTable, Migration, Migrations, create_table::Column, migrations};

static COLUMN: Migrations = migrations![Migration::new("a", AddColumn::new("users", "ni\0ck", "text"))];

static TABLE: Migrations =
    migrations![Migration::new("a", CreateTable::new("billing.us\0ers").columns([Column::new("id", "bigint")]))];

static EXPRESSION: Migrations = migrations![
    Migration::new("a", AddColumn::new("users", "nick", "text").backfill("lower({name}) || '\0'")).not_deployed()
];

fn main() {
    let _ = (COLUMN, TABLE, EXPRESSION);
}
