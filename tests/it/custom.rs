//! Changes of somebody else's making: the migrator runs them, rolls them back, and refuses what they refuse.

use phasewise::ident::{literal, quote};
use phasewise::{
    Change, Context, Ident, Irreversible, Kind, Migration, Migrations, Phase, Result, Rollback, State, Step,
    To, Touches, Window, migrations,
};
use tokio_postgres::Client;

use super::harness::{database, migrator};
use example::{AddCheck, KeepIt};

#[allow(dead_code, reason = "its main is for `cargo run --example`")]
#[path = "../../examples/custom_change.rs"]
mod example;

const CHECK: &str = "orders_amount_check";
static ADD_CHECK: Migrations = migrations![
    Migration::new(CHECK, AddCheck::new("Orders", "amount is positive", "{Amount} > 0", "\"Amount\" = 1"))
        .deployed::<KeepIt>(),
];

async fn orders(client: &Client) {
    client
        .batch_execute("CREATE TABLE \"Orders\" (id bigint PRIMARY KEY, \"Amount\" int NOT NULL)")
        .await
        .expect("the table");
    client
        .batch_execute("INSERT INTO \"Orders\" SELECT i, i % 10 FROM generate_series(1, 100) AS i")
        .await
        .expect("the rows");
}

/// The constraint as Postgres writes it.
async fn constraint(client: &Client) -> Option<String> {
    let sql = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'amount is positive'";
    client.query_opt(sql, &[]).await.expect("the catalog").map(|row| row.get(0))
}

#[tokio::test]
async fn runs_and_is_rolled_back_from_every_phase() {
    let database = database().await;
    let client = database.connect().await.expect("a client");
    orders(&client).await;
    let migrator = migrator(&database, &ADD_CHECK);

    let plan = migrator.plan().await.expect("a plan").to_string();
    assert!(plan.contains("VALIDATE CONSTRAINT"), "{plan}");
    let report = migrator.run().await.expect("a run");
    let standing = report.get(CHECK).expect("the migration");
    assert!(matches!(standing.state, State::Waiting { .. }), "{report}");

    let there = Some("CHECK ((\"Amount\" > 0))".to_owned());
    let invalid = Some("CHECK ((\"Amount\" > 0)) NOT VALID".to_owned());
    for (phase, expected) in
        [("KeepIt", None), ("Repair", None), ("Enforce", invalid), ("Validate", there.clone())]
    {
        migrator.run_to(CHECK, "KeepIt").await.expect("to the gate");
        migrator.confirm(CHECK, "KeepIt").await.expect("a confirmation");
        migrator.run_to(CHECK, phase).await.expect(phase);
        assert_eq!(constraint(&client).await, expected, "{phase}");
        // Again: there is nothing to do.
        assert_eq!(migrator.run_to(CHECK, phase).await.expect(phase).get(CHECK).expect("it").steps_run, 0);
        migrator.rollback(CHECK, To::Start).await.expect(phase);
        assert_eq!(constraint(&client).await, None, "{phase}");
    }

    migrator.run_to(CHECK, "KeepIt").await.expect("to the gate");
    migrator.confirm(CHECK, "KeepIt").await.expect("a confirmation");
    assert!(migrator.run().await.expect("the rest").is_complete());
    assert_eq!(constraint(&client).await, there);
    let mended: i64 =
        client.query_one("SELECT sum(\"Amount\") FROM \"Orders\"", &[]).await.expect("a sum").get(0);
    assert_eq!(mended, 450 + 10);
    database.drop().await.expect("dropped");
}

#[tokio::test]
async fn an_expression_that_does_not_compile_is_refused_before_the_first_phase() {
    static WRONG: Migrations = migrations![
        Migration::new(
            CHECK,
            AddCheck::new("Orders", "amount is positive", "{amonut} > 0", "\"Amount\" = 1")
        )
        .deployed::<KeepIt>(),
    ];
    let database = database().await;
    let client = database.connect().await.expect("a client");
    orders(&client).await;
    let migrator = migrator(&database, &WRONG);
    for error in [migrator.plan().await.expect_err("refused"), migrator.run().await.expect_err("refused")] {
        assert_eq!(error.kind(), Kind::Definition, "{error}");
        assert!(error.to_string().contains("amonut"), "{error}");
    }
    assert_eq!(migrator.status().await.expect("a status").get(CHECK).expect("it").number, 0);
    database.drop().await.expect("dropped");
}

/// `ALTER TYPE … ADD VALUE`: Postgres cannot take it back.
#[derive(Clone, Copy, Debug)]
struct AddEnumValue {
    name: Ident,
    value: &'static str,
}

impl Change for AddEnumValue {
    type Phases = (AddValue,);

    fn phases(&self) -> Self::Phases {
        (AddValue(*self),)
    }

    fn definition(&self) -> String {
        format!("add {} to enum {:?}", literal(self.value), self.name)
    }

    fn touches(&self) -> Touches {
        Touches::nothing()
    }
}

#[derive(Clone, Copy, Debug)]
struct AddValue(AddEnumValue);

impl Phase for AddValue {
    const NAME: &'static str = "AddValue";
    const WINDOW: Window = Window::new(0, 0);

    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        let AddEnumValue { name, value } = self.0;
        let sql = format!("{}.{}", quote(&cx.snapshot.schema), name.quoted());
        let value = literal(value);
        Ok(vec![
            Step::sql(format!("add {value} to {sql}"), format!("ALTER TYPE {sql} ADD VALUE {value}")).done_when(
                format!(
                    "SELECT EXISTS (SELECT FROM pg_enum WHERE enumtypid = to_regtype({}) AND enumlabel = {value})",
                    literal(&sql)
                ),
            ),
        ])
    }

    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::Irreversible(Irreversible::because("Postgres cannot take a value out of an enum")))
    }
}

#[tokio::test]
async fn what_cannot_be_undone_says_why() {
    const NAME: &str = "moods_calm";
    static MOODS: Migrations =
        migrations![Migration::new(NAME, AddEnumValue { name: Ident::new("mood"), value: "it's calm" })];
    let database = database().await;
    let client = database.connect().await.expect("a client");
    client.batch_execute("CREATE TYPE mood AS ENUM ('glad')").await.expect("the type");
    let migrator = migrator(&database, &MOODS);
    assert!(
        migrator.plan().await.expect("a plan").to_string().contains("cannot take a value out of an enum")
    );
    assert!(migrator.run().await.expect("a run").is_complete());

    let error = migrator.rollback(NAME, To::Start).await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Irreversible);
    assert!(error.to_string().contains("cannot take a value out of an enum"), "{error}");
    let status = migrator.status().await.expect("a status");
    assert_eq!(status.get(NAME).expect("it").state, State::Applied);
    let values: Vec<String> =
        client.query_one("SELECT enum_range(NULL::mood)::text[]", &[]).await.expect("the values").get(0);
    assert_eq!(values, ["glad", "it's calm"]);
    database.drop().await.expect("dropped");
}
