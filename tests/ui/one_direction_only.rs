use phasewise::{ChangeType, Migration, Migrations, migrations};

static MIGRATIONS: Migrations = migrations![
    Migration::new("20261123_orders_amount", ChangeType::new("orders", "amount", "amount_big", "bigint").up("{amount}"))
        .not_deployed(),
];

fn main() {
    let _ = MIGRATIONS;
}
