//! Plans of real changes, as a person reads them.

use phasewise::testing::{Database, Server};
use phasewise::{
    AddColumn, AddIndex, ChangeType, DropColumn, DropTable, Migration, Migrations, Migrator, RenameColumn,
    RunSql, add_column, drop_column, migrations, rename_column,
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

static RENAME: Migrations = migrations![
    Migration::new("users_full_name", RenameColumn::new("users", "name", "full_name"))
        .deployed::<rename_column::WriteBoth>(),
];

static SEVERAL: Migrations = migrations![
    Migration::new(
        "users_nick",
        AddColumn::new("users", "nick", "text").backfill("lower({name})").not_null()
    )
    .deployed::<add_column::WriteNew>(),
    Migration::new("users_nick_idx", AddIndex::new("users", "users_nick_idx").columns(&["nick"])),
    Migration::new(
        "orders_amount",
        ChangeType::new("orders", "amount", "amount_big", "bigint")
            .up("{amount}::bigint")
            .down("case when {amount_big} > 2147483647 then null else {amount_big}::int end")
            .kept_in_sync(),
    )
    .not_deployed(),
    Migration::new("users_fax", DropColumn::new("users", "fax")).deployed::<drop_column::StopReads>(),
    Migration::new(
        "users_analyze",
        RunSql::new(&["ANALYZE orders"]).irreversible("statistics are not taken back").touches(&[]),
    ),
];

static DROPS: Migrations = migrations![
    Migration::new("orders_gone", DropTable::new("orders").quarantine()).not_deployed(),
    Migration::new("users_fax", DropColumn::new("users", "fax").quarantine()).not_deployed(),
];

async fn database() -> Result<Database, Box<dyn std::error::Error>> {
    let database = Server::shared().await?.database().await?;
    let client = database.connect().await?;
    client
        .batch_execute(
            "CREATE TABLE users (
                 id bigint PRIMARY KEY,
                 name text NOT NULL DEFAULT 'nobody' CONSTRAINT users_name_check CHECK (name <> ''),
                 fax text
             );
             CREATE INDEX users_name_idx ON users (lower(name)) WHERE name IS NOT NULL;
             ALTER TABLE users ADD CONSTRAINT users_name_key UNIQUE (name);
             CREATE TABLE orders (id bigint PRIMARY KEY, amount int NOT NULL, user_name text REFERENCES users (name));
             CREATE FUNCTION trim_name() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.name := trim(NEW.name); RETURN NEW; END';
             CREATE TRIGGER trim_name BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION trim_name()",
        )
        .await?;
    Ok(database)
}

/// Not null is proven by other statements from 18 on.
fn version_suffix(server_version: i32) -> &'static str {
    if server_version >= 180_000 { "18" } else { "14" }
}

async fn printed(
    database: &Database,
    migrations: &'static Migrations,
) -> Result<String, Box<dyn std::error::Error>> {
    let plan = Migrator::new(database.pool(4)?, migrations).plan().await?;
    assert!(plan.steps().all(|step| !step.stalls()), "a step scans under a lock that blocks clients");
    Ok(plan.to_string())
}

async fn server_version(database: &Database) -> Result<i32, Box<dyn std::error::Error>> {
    let row =
        database.connect().await?.query_one("SELECT current_setting('server_version_num')::int", &[]).await?;
    Ok(row.get(0))
}

#[tokio::test]
async fn rename_is_printed_phase_by_phase() -> Outcome {
    let database = database().await?;
    let text = printed(&database, &RENAME).await?;
    insta::with_settings!({snapshot_suffix => version_suffix(server_version(&database).await?)}, {
        insta::assert_snapshot!("rename", text);
    });
    Ok(())
}

#[tokio::test]
async fn what_depends_on_an_earlier_migration_says_so() -> Outcome {
    let database = database().await?;
    let text = printed(&database, &SEVERAL).await?;
    insta::with_settings!({snapshot_suffix => version_suffix(server_version(&database).await?)}, {
        insta::assert_snapshot!("several", text);
    });
    Ok(())
}

#[tokio::test]
async fn what_is_dropped_is_freed_renamed_and_archived() -> Outcome {
    let text = printed(&database().await?, &DROPS).await?;
    insta::assert_snapshot!("drops", text);
    Ok(())
}

#[tokio::test]
async fn a_plan_serialises_for_tools() -> Outcome {
    let database = database().await?;
    let plan = Migrator::new(database.pool(4)?, &RENAME).plan().await?;
    let json = serde_json::to_value(&plan)?;
    let first = &json["migrations"][0]["phases"][0];
    assert_eq!(first["name"], "AddTarget");
    assert_eq!(first["steps"]["known"][0]["locks"][0]["relation"], "\"public\".\"users\"");
    Ok(())
}

#[tokio::test]
async fn planning_touches_nothing() -> Outcome {
    let database = database().await?;
    printed(&database, &RENAME).await?;
    let client = database.connect().await?;
    let row = client.query_one("SELECT to_regnamespace('phasewise') IS NULL", &[]).await?;
    assert!(row.get::<_, bool>(0), "a plan made the ledger");
    Ok(())
}
