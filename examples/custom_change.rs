//! A change of your own, with its own phases: what another crate would write, against the public API only.
//!
//! ```sh
//! cargo run --example custom_change
//! ```
//!
//! `AddCheck` adds a CHECK constraint to a table in use. Done at once it would read the whole table under a lock that
//! stops everybody, and refuse what the old release still writes. In phases it does neither.

#![allow(unreachable_pub, reason = "an example is seen by nobody else")]

use std::time::Duration;

use phasewise::catalog::{Question, Table};
use phasewise::ident::{literal, quote};
use phasewise::testing::{Database, Server};
use phasewise::{
    BackfillPolicy, Batches, Change, Context, DeployPhase, Expr, Gate, Ident, LockMode, Migration,
    Migrations, Migrator, Phase, Result, Rollback, Step, TableName, To, Touches, Window, Work, migrations,
};

/// Adds a CHECK constraint, and mends the rows that break it.
///
/// Release 0 knows nothing of it, release 1 writes only what it allows.
///
/// | # | phase | enter | gate | window |
/// |---|---|---|---|---|
/// | 1 | `KeepIt` | – | fleet ≥ 1 | 0, 1 |
/// | 2 | `Repair` | batches over the rows that break it | – | 1 |
/// | 3 | `Enforce` | ADD CONSTRAINT … NOT VALID | – | 1 |
/// | 4 | `Validate` | VALIDATE CONSTRAINT | – | 1 |
#[derive(Clone, Copy, Debug)]
pub struct AddCheck {
    table: TableName,
    name: Ident,
    holds: Expr,
    repair: &'static str,
}

impl AddCheck {
    /// `holds` is what every row must fulfil, `repair` the assignment that mends one which does not. A bad name or
    /// an unclosed brace in them does not compile.
    #[must_use]
    pub const fn new(
        table: &'static str,
        name: &'static str,
        holds: &'static str,
        repair: &'static str,
    ) -> Self {
        Self { table: TableName::new(table), name: Ident::new(name), holds: Expr::new(holds), repair }
    }

    fn definition_of(&self) -> String {
        format!("CHECK {}", self.holds.render(quote))
    }

    /// What the server is asked before the first phase: how it writes the constraint down. An expression that does
    /// not compile is refused there, with nothing touched.
    fn question(&self, table: &Table) -> Question {
        let trial = quote("a trial of the check");
        Question {
            key: self.key(),
            statements: vec![
                format!("CREATE TEMP TABLE {trial} (LIKE {})", table.sql()),
                format!("ALTER TABLE pg_temp.{trial} ADD CONSTRAINT c {}", self.definition_of()),
            ],
            query: format!(
                "SELECT to_json(pg_get_constraintdef(oid)) FROM pg_constraint WHERE conrelid = {}::regclass",
                literal(&format!("pg_temp.{trial}"))
            ),
        }
    }

    fn key(&self) -> String {
        format!("the check {}", self.name)
    }

    /// A query for whether the constraint is there, definition and all, and `also` holds for it.
    fn probe(&self, cx: &Context<'_>, table: &Table, also: &str) -> Result<String> {
        let written = cx.answer(&self.key())?.as_str().unwrap_or_default();
        Ok(format!(
            "SELECT EXISTS (SELECT FROM pg_constraint
              WHERE conrelid = to_regclass({}) AND conname = {} AND {also}
                AND replace(pg_get_constraintdef(oid), ' NOT VALID', '') = {})",
            literal(&table.sql()),
            literal(self.name.as_str()),
            literal(written)
        ))
    }
}

impl Change for AddCheck {
    type Phases = (KeepIt, Repair, Enforce, Validate);

    fn phases(&self) -> Self::Phases {
        (KeepIt, Repair(*self), Enforce(*self), Validate(*self))
    }

    fn definition(&self) -> String {
        format!(
            "add check {:?} to {:?}: {}; repair {}",
            self.name,
            self.table,
            self.holds.as_str(),
            self.repair
        )
    }

    fn touches(&self) -> Touches {
        Touches::nothing().table(self.table)
    }
}

/// The application writes only what the check allows: release 1.
#[derive(Clone, Copy, Debug)]
pub struct KeepIt;

impl DeployPhase<AddCheck> for KeepIt {}

impl Phase for KeepIt {
    const NAME: &'static str = "KeepIt";
    const WINDOW: Window = Window::new(0, 1);
    const GATE: Gate = Gate::fleet(1);

    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }

    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }
}

/// Mends the rows that were there before: once the check is there, any update of such a row would fail.
#[derive(Clone, Copy, Debug)]
pub struct Repair(AddCheck);

impl Phase for Repair {
    const NAME: &'static str = "Repair";
    const WINDOW: Window = Window::new(1, 1);

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        let table = cx.snapshot.table(self.0.table)?;
        let broken = format!("NOT {}", self.0.holds.over("t"));
        let batches = Batches {
            schema: table.schema.clone(),
            table: table.name.clone(),
            work: Work::Update { set: self.0.repair.to_owned(), from: None },
            condition: broken.clone(),
            verify: broken,
            keys: table.key().unwrap_or_default().into_iter().map(str::to_owned).collect(),
            marker: None,
        };
        Ok(vec![Step::batches(format!("mend rows that break {}", self.0.name), batches)])
    }

    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        // What is mended stays mended: the old release can live with it.
        Ok(Rollback::NOTHING)
    }
}

/// Adds the constraint for rows to come. The lock is short, since nothing is read.
#[derive(Clone, Copy, Debug)]
pub struct Enforce(AddCheck);

impl Phase for Enforce {
    const NAME: &'static str = "Enforce";
    const WINDOW: Window = Window::new(1, 1);

    fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
        Ok(vec![self.0.question(cx.snapshot.table(self.0.table)?)])
    }

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        let Self(check) = self;
        let table = cx.snapshot.table(check.table)?;
        let (sql, name) = (table.sql(), check.name.quoted());
        Ok(vec![
            Step::sql(
                format!("add check {name}, not valid"),
                format!("ALTER TABLE {sql} ADD CONSTRAINT {name} {} NOT VALID", check.definition_of()),
            )
            .locks(sql, LockMode::AccessExclusive)
            .done_when(check.probe(cx, table, "true")?),
        ])
    }

    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        let Self(check) = self;
        let table = cx.snapshot.table(check.table)?;
        let (sql, name) = (table.sql(), check.name.quoted());
        let gone = format!(
            "SELECT NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = to_regclass({}) AND conname = {})",
            literal(&sql),
            literal(check.name.as_str())
        );
        Ok(Rollback::Steps(vec![
            Step::sql(format!("drop check {name}"), format!("ALTER TABLE {sql} DROP CONSTRAINT {name}"))
                .locks(sql, LockMode::AccessExclusive)
                .done_when(gone),
        ]))
    }
}

/// Reads the whole table, under a lock that stops nobody.
#[derive(Clone, Copy, Debug)]
pub struct Validate(AddCheck);

impl Phase for Validate {
    const NAME: &'static str = "Validate";
    const WINDOW: Window = Window::new(1, 1);

    fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
        Enforce(self.0).questions(cx)
    }

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        let Self(check) = self;
        let table = cx.snapshot.table(check.table)?;
        let (sql, name) = (table.sql(), check.name.quoted());
        Ok(vec![
            Step::long(
                format!("validate check {name}"),
                format!("ALTER TABLE {sql} VALIDATE CONSTRAINT {name}"),
            )
            .locks(sql, LockMode::ShareUpdateExclusive)
            .scanning()
            .done_when(check.probe(cx, table, "convalidated")?),
        ])
    }

    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        // A check that is valid refuses nothing that it did not refuse before.
        Ok(Rollback::NOTHING)
    }
}

const NAME: &str = "20261125_orders_amount_check";

static MIGRATIONS: Migrations = migrations![
    Migration::new(NAME, AddCheck::new("orders", "orders_amount_positive", "{amount} > 0", "amount = 1"))
        .deployed::<KeepIt>(),
];

async fn example(database: &Database) -> Result<(), Box<dyn std::error::Error>> {
    let client = database.connect().await?;
    client.batch_execute("CREATE TABLE orders (id bigint PRIMARY KEY, amount int NOT NULL)").await?;
    client.batch_execute("INSERT INTO orders SELECT i, i % 100 FROM generate_series(1, 5000) AS i").await?;

    let migrator = Migrator::new(database.pool(4)?, &MIGRATIONS)
        .backfill(BackfillPolicy::new().pause(Duration::from_millis(10)));
    println!("{}\n", migrator.plan().await?);

    println!("the gate is shut until release 1 is out:");
    println!("{}\n", migrator.run().await?);
    migrator.confirm(NAME, "KeepIt").await?;
    println!("a person says that it is:");
    println!("{}\n{}\n", migrator.run().await?, migrator.status().await?);

    let refused = client.batch_execute("INSERT INTO orders VALUES (0, 0)").await;
    println!("an order of nothing is refused: {}\n", refused.is_err());

    println!("taken back, as far as it goes:");
    println!("{}\n{}\n", migrator.rollback(NAME, To::Start).await?, migrator.status().await?);
    client.batch_execute("INSERT INTO orders VALUES (0, 0)").await?;

    println!("and forward again:");
    migrator.run_to(NAME, "KeepIt").await?;
    migrator.confirm(NAME, "KeepIt").await?;
    println!("{}\n{}", migrator.run().await?, migrator.status().await?);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::find().await?;
    let database = server.database().await?;
    let done = example(&database).await;
    database.drop().await?;
    server.stop().await;
    done
}
