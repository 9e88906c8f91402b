//! The changes of one and three releases: forward, back from every phase, and forward again, on awkward tables.
//! Column order and the names of partitions' indexes apart, catalog and data must be what they were.

use phasewise::create_table::{Action, Column, Constraint};
use phasewise::testing::{Database, Server};
use phasewise::{
    AddColumn, AddIndex, CreateTable, DropColumn, Kind, Migration, Migrations, Migrator, RunSql, To,
    add_index::IndexKey, migrations,
};
use tokio_postgres::Client;

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const USERS: &str = r#"
    CREATE TABLE "Users" (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        "Order" text NOT NULL,
        fax varchar(20) COLLATE "C" NOT NULL DEFAULT 'none',
        n serial,
        country text,
        parent bigint REFERENCES "Users",
        shouted text GENERATED ALWAYS AS (upper("Order")) STORED
    );
    CREATE INDEX "a USING b" ON "Users" (lower(fax) text_pattern_ops DESC NULLS LAST, id) WHERE n > 0;
    CREATE INDEX included ON "Users" ("Order") INCLUDE (fax);
    ALTER TABLE "Users" ADD CONSTRAINT fax_order_key UNIQUE (fax, "Order") DEFERRABLE;
    ALTER TABLE "Users" ADD CONSTRAINT fax_check CHECK (fax <> 'x' AND n > 0);
    CREATE STATISTICS fax_stats ON fax, country FROM "Users";
    COMMENT ON COLUMN "Users".fax IS 'it''s old';
    COMMENT ON INDEX included IS 'covers';
    ALTER TABLE "Users" ALTER COLUMN fax SET STATISTICS 77, ALTER COLUMN fax SET STORAGE EXTERNAL;
    GRANT SELECT (fax) ON "Users" TO PUBLIC;
    INSERT INTO "Users" ("Order", fax, country)
        SELECT 'o' || g, CASE WHEN g % 3 = 0 THEN 'f' || g ELSE DEFAULT_FAX END, CASE WHEN g % 2 = 0 THEN 'DE' END
        FROM generate_series(1, 2500) g, (VALUES ('none')) AS d(default_fax);
"#;

const PARTITIONED: &str = "
    CREATE TABLE events (id int NOT NULL, at int NOT NULL, kind text NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (100);
    CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (at);
    CREATE TABLE events_2a PARTITION OF events_2 FOR VALUES FROM (100) TO (150);
    CREATE INDEX events_kind ON events (kind);
    INSERT INTO events SELECT g, g % 150, 'k' || g FROM generate_series(1, 1500) g;
";

static USERS_CHANGES: Migrations = migrations![
    Migration::new("nullable", AddColumn::new("Users", "nick", "text").collate("C").comment("a 'nick'")),
    Migration::new(
        "constant",
        AddColumn::new("Users", "active", "boolean")
            .default("true or false")
            .not_null()
            .check("active_check", "{active} is not null")
    ),
    Migration::new(
        "volatile",
        AddColumn::new("Users", "token", "uuid").volatile_default("gen_random_uuid()").not_null()
    ),
    Migration::new(
        "filled",
        AddColumn::new("Users", "Locale", "varchar(10)")
            .backfill("case when {country} = 'DE' then 'de' else lower({Order}) end")
            .not_null()
            .check("locale_check", "{Locale} <> ''")
    )
    .not_deployed(),
    Migration::new("partly", AddColumn::new("Users", "twice", "text").backfill("{country} || {country}"))
        .not_deployed(),
    Migration::new(
        "index",
        AddIndex::new("Users", "Users Idx")
            .keys([
                IndexKey::expression("lower({Order})")
                    .opclass("text_pattern_ops")
                    .collate("C")
                    .desc()
                    .nulls_last(),
                IndexKey::column("id"),
            ])
            .include(&["fax"])
            .where_("{n} > 0")
            .with(&[("fillfactor", "70")])
            .comment("an index")
    ),
    Migration::new("unique", AddIndex::new("Users", "order_key").columns(&["Order"]).unique()),
    Migration::new("fax", DropColumn::new("Users", "fax")).not_deployed(),
    Migration::new("order", DropColumn::new("Users", "n").restore_with("{id}::int")).not_deployed(),
    Migration::new(
        "orders",
        CreateTable::new("Orders")
            .columns([
                Column::new("id", "bigint").identity(),
                Column::new("user", "bigint").not_null(),
                Column::new("amount", "numeric(12, 2)").not_null().default("1 + 1").comment("net"),
                Column::new("gross", "numeric").generated("{amount} * 1.19"),
            ])
            .primary_key(&["id"])
            .constraints([
                Constraint::unique("orders_user_key", &["user", "id"]).deferred(),
                Constraint::check("orders_amount_check", "{amount} > 0"),
                Constraint::foreign_key("orders_user_fkey", &["user"], "Users", &["id"])
                    .on_delete(Action::Cascade),
            ])
            .comment("one row per checkout")
    ),
    Migration::new(
        "sql",
        RunSql::new(&["create view v as select 1 as x", "comment on view v is 'a; b'"])
            .rollback(&["drop view v"])
            .touches(&[])
    ),
];

static PARTITIONED_CHANGES: Migrations = migrations![
    Migration::new(
        "index",
        AddIndex::new("events", "events_at").columns(&["at", "kind"]).unique().comment("tree")
    ),
    Migration::new(
        "filled",
        AddColumn::new("events", "size", "int")
            .backfill("length({kind})")
            .not_null()
            .check("size_check", "{size} > 0")
    )
    .not_deployed(),
    Migration::new("kind", DropColumn::new("events", "kind").restore_with("''")).not_deployed(),
];

async fn database() -> Result<Database> {
    Ok(Server::shared().await?.database().await?)
}

/// Everything in `public` as lines; column order and the names of partitions' indexes apart.
async fn portrait(client: &Client) -> Result<Vec<String>> {
    client.batch_execute("SET search_path = public").await?;
    let rows = client
        .query(
            "SELECT line FROM (
                SELECT format('%s column %s %s %s %s %s %s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attcollation::regcollation, a.attstattarget, a.attstorage, a.attacl, col_description(c.oid, a.attnum)) AS line
                FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
                WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND a.attnum > 0 AND NOT a.attisdropped
                UNION ALL SELECT format('index %s %s %s', CASE WHEN x.relispartition THEN 'of a partition' || substr(pg_get_indexdef(i.indexrelid), strpos(pg_get_indexdef(i.indexrelid), ' ON ')) ELSE pg_get_indexdef(i.indexrelid) END, i.indisvalid, obj_description(i.indexrelid))
                FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace = 'public'::regnamespace
                UNION ALL SELECT format('constraint %s %s %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid), convalidated, obj_description(oid)) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
                UNION ALL SELECT format('statistics %s %s', s.stxname, (SELECT array_agg(a.attname ORDER BY a.attname) FROM pg_attribute a WHERE a.attrelid = s.stxrelid AND a.attnum = ANY (s.stxkeys))) FROM pg_statistic_ext s
                UNION ALL SELECT format('sequence %s %s', s.sequencename, d.refobjsubid <> 0) FROM pg_sequences s JOIN pg_depend d ON d.objid = format('%I.%I', s.schemaname, s.sequencename)::regclass AND d.deptype IN ('a', 'i') WHERE s.schemaname = 'public'
            ) x WHERE line IS NOT NULL ORDER BY line",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The lines that only one of them has.
fn difference(before: &[String], after: &[String]) -> Vec<String> {
    let lost = before.iter().filter(|line| !after.contains(line)).map(|line| format!("- {line}"));
    let gained = after.iter().filter(|line| !before.contains(line)).map(|line| format!("+ {line}"));
    lost.chain(gained).collect()
}

/// Each table's rows, as jsonb (which orders by key).
async fn rows(client: &Client, table: &str) -> Result<Vec<String>> {
    let sql = format!("SELECT to_jsonb(t)::text FROM {table} t ORDER BY 1");
    Ok(client.query(&sql, &[]).await?.iter().map(|row| row.get(0)).collect())
}

/// Each migration in turn: from every phase back to the start, then to its end.
async fn round_trips(setup: &str, table: &str, migrations: &'static Migrations) -> Result {
    let database = database().await?;
    let client = database.connect().await?;
    client.batch_execute(setup).await?;
    let migrator = Migrator::new(database.pool(4)?, migrations).assume_fresh();
    for entry in migrations.iter() {
        let name = entry.name();
        let before = (portrait(&client).await?, rows(&client, table).await?);
        let mut ends = Vec::new();
        for phase in entry.phases().iter().chain(entry.phases().last()) {
            migrator
                .run_to(name, phase.name)
                .await
                .map_err(|error| format!("{name} to {}: {error}", phase.name))?;
            let end = portrait(&client).await?;
            migrator
                .rollback(name, To::Start)
                .await
                .map_err(|error| format!("{name} back from {}: {error}", phase.name))?;
            let after = (portrait(&client).await?, rows(&client, table).await?);
            let changed = difference(&before.0, &after.0);
            assert!(changed.is_empty(), "{name}, back from {}: {changed:#?}", phase.name);
            assert!(before.1 == after.1, "{name}, back from {}: other rows", phase.name);
            ends.push(end);
        }
        let last = entry.phases().last().map(|phase| phase.name).unwrap_or_default();
        migrator.run_to(name, last).await?;
        let now = portrait(&client).await?;
        let changed = ends.last().map(|end| (end, &now)).map(|(end, now)| difference(end, now));
        assert_eq!(changed, Some(Vec::new()), "{name}, forward again");
    }
    let names: Vec<String> = client
        .query(
            "SELECT relname::text FROM pg_class WHERE relname LIKE 'archive%' AND relkind = 'r' ORDER BY 1",
            &[],
        )
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect();
    let drops =
        migrations.iter().filter(|entry| entry.phases().last().is_some_and(|phase| phase.name == "Drop"));
    assert_eq!(names.len(), drops.count(), "one archive for each dropped column: {names:?}");
    database.drop().await?;
    Ok(())
}

#[tokio::test]
async fn on_a_table_with_everything() -> Result {
    round_trips(USERS, "\"Users\"", &USERS_CHANGES).await
}

#[tokio::test]
async fn on_a_partitioned_table() -> Result {
    round_trips(PARTITIONED, "events", &PARTITIONED_CHANGES).await
}

static REWRITES: Migrations =
    migrations![Migration::new("a", AddColumn::new("t", "token", "uuid").default("gen_random_uuid()"))];
static SERIAL: Migrations = migrations![Migration::new("a", AddColumn::new("t", "n", "bigserial"))];
static NO_TYPE: Migrations = migrations![Migration::new("a", AddColumn::new("t", "n", "txet"))];
static NO_EXPRESSION: Migrations = migrations![
    Migration::new("a", AddColumn::new("t", "n", "int").backfill("no_such({id})")).not_deployed()
];
static EXISTS: Migrations = migrations![Migration::new("a", AddColumn::new("t", "a", "text"))];
static OTHER_INDEX: Migrations = migrations![Migration::new("a", AddIndex::new("t", "t_a").columns(&["id"]))];
static NO_RESTORE: Migrations = migrations![Migration::new("a", DropColumn::new("t", "a")).not_deployed()];
static VIEWED: Migrations = migrations![Migration::new("a", DropColumn::new("t", "viewed")).not_deployed()];
static KEY: Migrations =
    migrations![Migration::new("a", DropColumn::new("t", "id").restore_with("1")).not_deployed()];
static OTHER_TABLE: Migrations =
    migrations![Migration::new("a", CreateTable::new("t").columns([Column::new("id", "text")]))];

#[tokio::test]
async fn what_cannot_be_is_refused_with_nothing_touched() -> Result {
    let database = database().await?;
    let client = database.connect().await?;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, a text NOT NULL, viewed int);
             CREATE INDEX t_a ON t (a); CREATE VIEW w AS SELECT viewed FROM t",
        )
        .await?;
    let before = portrait(&client).await?;
    let cases: [(&'static Migrations, Kind, &str); 10] = [
        (&REWRITES, Kind::Unsupported, ".volatile_default("),
        (&SERIAL, Kind::Definition, "more than a type"),
        (&NO_TYPE, Kind::Definition, "txet"),
        (&NO_EXPRESSION, Kind::Definition, "no_such"),
        (&EXISTS, Kind::Conflict, "exists already"),
        (&OTHER_INDEX, Kind::Conflict, "exists in schema"),
        (&NO_RESTORE, Kind::Definition, ".restore_with("),
        (&VIEWED, Kind::Unsupported, "view w"),
        (&KEY, Kind::Unsupported, "primary key"),
        (&OTHER_TABLE, Kind::Conflict, "exists already"),
    ];
    for (migrations, kind, says) in cases {
        let error = match Migrator::new(database.pool(2)?, migrations).assume_fresh().run().await {
            Ok(report) => return Err(format!("not refused ({says}): {report:?}").into()),
            Err(error) => error,
        };
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(before, portrait(&client).await?, "{error}");
        client.batch_execute("DROP SCHEMA IF EXISTS phasewise CASCADE").await?;
    }
    database.drop().await?;
    Ok(())
}
