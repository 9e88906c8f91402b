//! What is refused before anything is touched, and what a plan says of things that do not exist yet.

use tokio_postgres::Client;

use super::*;
use crate::catalog::Answer;
use crate::change::Change;
use crate::ident::Ident;
use crate::migration::Migration;
use crate::phase::{Gate, Irreversible, Phase, Window};
use crate::step::BuildIndex;
use crate::testing::{Database, Server};

type Failure = Box<dyn std::error::Error>;
type Outcome = Result<(), Failure>;

/// Adds a column, asks about it, saves something, and builds an index on it once it is there.
#[derive(Clone, Copy, Debug)]
struct Grow {
    table: TableName,
    column: Ident,
    creates: Option<TableName>,
    trial: &'static str,
}

#[derive(Clone, Copy, Debug)]
struct Add(Grow);
#[derive(Clone, Copy, Debug)]
struct Keep;
#[derive(Clone, Copy, Debug)]
struct Build(Grow);

impl Change for Grow {
    type Phases = (Add, Keep, Build);
    fn phases(&self) -> Self::Phases {
        (Add(*self), Keep, Build(*self))
    }
    fn definition(&self) -> String {
        format!("{self:?}")
    }
    fn touches(&self) -> Touches {
        match self.creates {
            Some(table) => Touches::nothing().creates(table),
            None => Touches::nothing().columns(self.table, &[self.column]),
        }
    }
    fn check(&self, cx: &Context<'_>) -> Result<()> {
        match cx.snapshot.find(self.table).and_then(|table| table.find(self.column.as_str())) {
            Some(_) => Err(Error::new(Kind::Conflict, "the column is there already")),
            None => Ok(()),
        }
    }
}

impl Phase for Add {
    const NAME: &'static str = "Add";
    const WINDOW: Window = Window::new(0, 0);
    fn questions(&self, _: &Context<'_>) -> Result<Vec<Question>> {
        let query = self.0.trial.to_owned();
        Ok(vec![Question { key: "the trial".to_owned(), statements: Vec::new(), query }])
    }
    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        cx.answer("the trial")?;
        Ok(vec![Step::sql("add", format!("ALTER TABLE {} ADD", cx.snapshot.sql_name(self.0.table)))])
    }
    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        if let Some(table) = cx.snapshot.find(self.0.table) {
            table.column(self.0.column.as_str())?;
        }
        Ok(Rollback::Steps(vec![Step::sql("drop", "DROP")]))
    }
}

impl Phase for Keep {
    const NAME: &'static str = "Keep";
    const WINDOW: Window = Window::new(0, 0);
    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(vec![Step::save("kept", serde_json::json!("gold"))])
    }
    fn rollback(&self, cx: &Context<'_>) -> Result<Rollback> {
        let kept: Option<String> = cx.saved("kept")?;
        Ok(Rollback::Steps(vec![Step::sql(format!("restore {kept:?}"), "RESTORE")]))
    }
}

impl Phase for Build {
    const NAME: &'static str = "Build";
    const WINDOW: Window = Window::new(0, 0);
    const GATE: Gate = Gate::OPEN;
    fn questions(&self, cx: &Context<'_>) -> Result<Vec<Question>> {
        cx.snapshot.table(self.0.table)?.column("id")?;
        Ok(Vec::new())
    }
    fn enter(&self, cx: &Context<'_>) -> Result<Vec<Step>> {
        let table = cx.snapshot.table(self.0.table)?;
        let build = BuildIndex {
            schema: table.schema.clone(),
            table: table.name.clone(),
            name: "i".to_owned(),
            unique: false,
            tail: "btree (id)".to_owned(),
        };
        Ok(vec![Step::new("build", Action::BuildIndex(build))])
    }
    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::Irreversible(Irreversible::because("it is a test")))
    }
}

const fn grow(table: &'static str, column: &'static str) -> Grow {
    Grow {
        table: TableName::new(table),
        column: Ident::new(column),
        creates: None,
        trial: "SELECT to_jsonb(1)",
    }
}

static PLAIN: Migration<Grow> = Migration::new("plain", grow("t", "a"));
static OTHER_COLUMN: Migration<Grow> = Migration::new("other column", grow("t", "b"));
static SAME_COLUMN: Migration<Grow> = Migration::new("same column", grow("t", "a"));
static THERE: Migration<Grow> = Migration::new("there", grow("t", "id"));
static ABSENT: Migration<Grow> = Migration::new("absent", grow("T", "a"));
static NOWHERE: Migration<Grow> = Migration::new("nowhere", grow("no where.t", "a"));
static VIEW: Migration<Grow> = Migration::new("view", grow("v", "a"));
static PARTITION: Migration<Grow> = Migration::new("partition", grow("p1", "a"));
static NO_ID: Migration<Grow> = Migration::new("no id", grow("p", "a"));
static CREATES: Migration<Grow> =
    Migration::new("creates", Grow { creates: Some(TableName::new("new")), ..grow("new", "a") });
static CREATES_NOWHERE: Migration<Grow> = Migration::new(
    "creates nowhere",
    Grow { creates: Some(TableName::new("no where.new")), ..grow("no where.new", "a") },
);
static ON_NEW: Migration<Grow> = Migration::new("on new", grow("new", "c"));
static BAD_TRIAL: Migration<Grow> =
    Migration::new("bad trial", Grow { trial: "SELECT to_jsonb(nonsense)", ..grow("t", "a") });

fn scope() -> Scope {
    Scope { schema: "public".to_owned(), ledger_schema: "phasewise".to_owned() }
}

async fn fresh() -> Result<(Database, Client), Failure> {
    let database = Server::shared().await?.database().await?;
    let client = database.connect().await?;
    client
        .batch_execute(
            "SET search_path = public, pg_temp; CREATE TABLE t (id int); CREATE VIEW v AS SELECT 1 AS x;
             CREATE TABLE p (x int) PARTITION BY LIST (x); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)",
        )
        .await?;
    Ok((database, client))
}

async fn refused(client: &Client, migration: &'static Migration<Grow>) -> Result<(Kind, String), Failure> {
    match refuse_early(client, &scope(), &migration.entry()).await {
        Ok(_) => Err("it was not refused".into()),
        Err(error) => Ok((error.kind(), error.to_string())),
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_before_anything_is_touched() -> Outcome {
    let (_database, client) = fresh().await?;
    refuse_early(&client, &scope(), &PLAIN.entry()).await?;
    refuse_early(&client, &scope(), &CREATES.entry()).await?;
    // A later phase may lack what an earlier one makes.
    refuse_early(&client, &scope(), &NO_ID.entry()).await?;
    for (migration, kind, says) in [
        (&ABSENT, Kind::Missing, "migration absent: table \"public\".\"T\" does not exist"),
        (&NOWHERE, Kind::Missing, "schema \"no where\" does not exist"),
        (&CREATES_NOWHERE, Kind::Missing, "schema \"no where\" does not exist"),
        (&VIEW, Kind::Unsupported, "\"public\".\"v\" is a view"),
        (&PARTITION, Kind::Unsupported, "\"public\".\"p1\" is a partition"),
        (&THERE, Kind::Conflict, "the column is there already"),
        (&BAD_TRIAL, Kind::Definition, "column \"nonsense\" does not exist"),
    ] {
        let (found, message) = refused(&client, migration).await?;
        assert_eq!(found, kind, "{message}");
        assert!(message.contains(says), "{message}");
    }
    Ok(())
}

#[tokio::test]
async fn a_role_without_the_right_is_told_which() -> Outcome {
    let (_database, client) = fresh().await?;
    let role = format!("Poor \"{}\"", std::process::id());
    let role = crate::ident::quote(&role);
    client
        .batch_execute(&format!(
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE ROLE {role}; CREATE TABLE mine (id int); ALTER TABLE mine OWNER TO {role}"
        ))
        .await?;
    client.batch_execute(&format!("SET ROLE {role}")).await?;
    static MINE: Migration<Grow> = Migration::new("mine", grow("mine", "a"));
    let messages = async {
        Ok::<_, Failure>([
            refused(&client, &PLAIN).await?,
            refused(&client, &CREATES).await?,
            refused(&client, &MINE).await?,
        ])
    }
    .await;
    client.batch_execute(&format!("RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")).await?;
    let messages = messages?;
    assert!(messages.iter().all(|(kind, _)| *kind == Kind::Permission), "{messages:?}");
    assert!(messages[0].1.contains(&format!("and role {role} may not alter it")), "{}", messages[0].1);
    for (_, message) in &messages[1..] {
        assert!(message.contains(&format!("GRANT CREATE ON SCHEMA \"public\" TO {role}")), "{message}");
    }
    Ok(())
}

#[tokio::test]
async fn steps_come_from_a_fresh_snapshot_with_answers() -> Outcome {
    let (_database, client) = fresh().await?;
    let (entry, saved) = (PLAIN.entry(), Saved::new());
    let steps = enter(&client, &scope(), &entry, 0, &saved).await?;
    assert_eq!(steps[0].display_sql(), ["ALTER TABLE \"public\".\"t\" ADD"]);
    let error = rollback(&client, &scope(), &entry, 0, &saved).await.err().ok_or("not refused")?;
    assert_eq!(error.kind(), Kind::Missing);
    client.batch_execute("ALTER TABLE t ADD a int").await?;
    assert!(matches!(rollback(&client, &scope(), &entry, 0, &saved).await?, Rollback::Steps(_)));
    let error = enter(&client, &scope(), &entry, 3, &saved).await.err().ok_or("not refused")?;
    assert_eq!(error.kind(), Kind::Unknown);
    let mut snapshot = load(&client, &scope(), &entry).await?;
    assert!(snapshot.answers.is_empty());
    let phase = nth(&entry, 0)?;
    snapshot = answered(&client, &scope(), &entry, &*phase, &saved)
        .await
        .map(|fresh| Snapshot { schema: snapshot.schema, ..fresh })?;
    assert_eq!(snapshot.answers["the trial"], Answer::Value(serde_json::json!(1)));
    Ok(())
}

#[tokio::test]
async fn a_plan_says_what_it_cannot_know() -> Outcome {
    let (_database, client) = fresh().await?;
    let standing = |migration: &'static Migration<Grow>, entered| {
        // Leaked, since an application's migrations are statics too.
        let entry: &'static Entry = Box::leak(Box::new(migration.entry()));
        Standing { entry, begun: entered > 0, entered, saved: Saved::new() }
    };
    let standings = [
        standing(&THERE, 3),
        standing(&PLAIN, 1),
        standing(&OTHER_COLUMN, 0),
        standing(&SAME_COLUMN, 0),
        standing(&CREATES, 0),
        standing(&ON_NEW, 0),
        standing(&NO_ID, 0),
    ];
    let plan = plan(&client, &scope(), &standings).await?;
    let names: Vec<_> = plan.migrations.iter().map(|migration| migration.name.as_str()).collect();
    assert_eq!(names, ["plain", "other column", "same column", "creates", "on new", "no id"]);

    let started = &plan.migrations[0].phases;
    assert_eq!(started.iter().map(|phase| (phase.number, phase.of)).collect::<Vec<_>>(), [(2, 3), (3, 3)]);
    // What the phase will have saved is known to its rollback.
    let PlannedRollback::Steps(back) = &started[0].rollback else { return Err("no steps".into()) };
    assert_eq!(back[0].summary, "restore Some(\"gold\")");
    assert!(
        matches!(&started[1].rollback, PlannedRollback::Irreversible { reason } if reason == "it is a test")
    );

    let other = &plan.migrations[1].phases[0];
    assert!(matches!(&other.steps, Steps::Known(steps) if steps.len() == 1));
    assert!(
        matches!(&other.rollback, PlannedRollback::Unknown { because } if because.contains("column \"b\""))
    );

    let unknown = |migration: usize, phase: usize| match &plan.migrations[migration].phases[phase].steps {
        Steps::Unknown { because } => because.clone(),
        Steps::Known(steps) => format!("{steps:?}"),
    };
    assert_eq!(unknown(2, 0), "migration plain, which comes first, touches the same columns");
    assert!(unknown(3, 2).starts_with("it depends on what an earlier phase makes (table \"public\".\"new\""));
    assert_eq!(unknown(4, 0), "table new is created by migration creates, which comes first");
    assert!(unknown(5, 2).contains("column \"id\" of table \"public\".\"p\" does not exist"));
    Ok(())
}

static RENAME: Migration<crate::RenameColumn, crate::migration::Marked> =
    Migration::new("20261122_full_name", crate::RenameColumn::new("users", "name", "full_name"))
        .not_deployed();

#[tokio::test]
async fn a_rename_is_planned_whole() -> Outcome {
    let (_database, client) = fresh().await?;
    client
        .batch_execute(
            "CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL DEFAULT '' CHECK (name <> 'x'));
             CREATE UNIQUE INDEX users_name_key ON users (lower(name)) WHERE id > 0;
             CREATE TABLE orders (user_name text)",
        )
        .await?;
    let entry: &'static Entry = Box::leak(Box::new(RENAME.entry()));
    refuse_early(&client, &scope(), entry).await?;
    let plan =
        plan(&client, &scope(), &[Standing { entry, begun: false, entered: 0, saved: Saved::new() }]).await?;
    let phases = &plan.migrations[0].phases;
    assert_eq!(phases.len(), 6);
    assert!(phases.iter().all(|phase| matches!(phase.steps, Steps::Known(_))), "{plan}");
    assert!(plan.steps().all(|step| !step.stalls()), "{plan}");
    // What StopOldWrites frees is not dropped again by DropSource, nor rebuilt twice on the way back.
    let sql: Vec<&String> = plan.steps().flat_map(|step| &step.sql).collect();
    let drops: Vec<_> = sql.iter().filter(|sql| sql.contains("\"users_name_")).collect();
    assert_eq!(drops.len(), 2, "{plan}");
    let rebuilt = plan.to_string().matches("CREATE UNIQUE INDEX CONCURRENTLY \"users_name_key\"").count();
    assert_eq!(rebuilt, 1, "{plan}");
    assert_eq!(plan.to_string().lines().find(|line| line.chars().count() > 140), None);
    Ok(())
}
