use phasewise::{ChangeType, Migration, Migrations, migrations};

static DOWN_ALONE: Migrations = migrations![
    Migration::new("a", ChangeType::new("orders", "amount", "amount_big", "bigint").down("{amount_big}::int"))
        .not_deployed(),
];

static NEITHER: Migrations = migrations![
    Migration::new("a", ChangeType::new("orders", "amount", "amount_big", "bigint").kept_in_sync()).not_deployed(),
];

fn main() {
    let _ = (DOWN_ALONE, NEITHER);
}
