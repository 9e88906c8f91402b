//! Compiles and runs the code of README.md and of docs/ with the doc tests.

macro_rules! pages {
    ($($name:ident $path:literal)+) => {$(
        #[doc = include_str!($path)]
        mod $name {}
    )+};
}

pages! {
    readme "../README.md"
    getting_started "../docs/getting-started.md"
    writing_a_change "../docs/writing-a-change.md"
    the_ledger "../docs/the-ledger.md"
    rolling_deploys "../docs/rolling-deploys.md"
    locks "../docs/locks.md"
    backfill "../docs/backfill.md"
    rollback "../docs/rollback.md"
    references "../docs/references.md"
    testing "../docs/testing.md"
    poolers "../docs/poolers-and-managed-databases.md"
    add_column "../docs/changes/add-column.md"
    rename_column "../docs/changes/rename-column.md"
    change_type "../docs/changes/change-type.md"
    drop_column "../docs/changes/drop-column.md"
    drop_table "../docs/changes/drop-table.md"
    add_index "../docs/changes/add-index.md"
    create_table "../docs/changes/create-table.md"
    run_sql "../docs/changes/run-sql.md"
}
