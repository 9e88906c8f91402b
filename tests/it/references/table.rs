//! A change of one's own that drops a whole table behind a gate without references.

use phasewise::{
    Change, Context, Dropped, Gate, Migration, Migrations, Phase, ReferenceKind as R, Result, Rollback, Step,
    TableName, Touches, Window, migrations,
};

use super::{NAME, Scene, USERS, shared, statements};
use crate::harness::run;

#[derive(Clone, Copy, Debug)]
struct StopUsing;

impl Phase for StopUsing {
    const NAME: &'static str = "StopUsing";
    const WINDOW: Window = Window::new(0, 1);
    const GATE: Gate = Gate::fleet(1).and_unreferenced();

    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }

    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }
}

/// Leaves the table where it is: only the gate is looked at.
#[derive(Clone, Copy, Debug)]
struct Gone;

impl Phase for Gone {
    const NAME: &'static str = "Gone";
    const WINDOW: Window = Window::new(1, 1);

    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(Vec::new())
    }

    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::NOTHING)
    }

    fn drops(&self) -> Vec<Dropped> {
        vec![Dropped::table(TableName::new("users"))]
    }
}

#[derive(Clone, Copy, Debug)]
struct DropUsers;

impl Change for DropUsers {
    type Phases = (StopUsing, Gone);

    fn phases(&self) -> Self::Phases {
        (StopUsing, Gone)
    }

    fn definition(&self) -> String {
        "drop users".to_owned()
    }

    fn touches(&self) -> Touches {
        Touches::nothing().table(TableName::new("users"))
    }
}

static DROP_USERS: Migrations = migrations![Migration::new(NAME, DropUsers).not_deployed()];

#[tokio::test]
async fn whatever_refers_to_a_table_that_goes_is_found() {
    let setup = [
        USERS,
        "CREATE TABLE orders (buyer int CONSTRAINT fk REFERENCES users)",
        "ALTER TABLE users ADD boss int REFERENCES users",
        "CREATE TRIGGER own BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE POLICY own ON users USING (id > 0)",
        "CREATE INDEX own_too ON users (note)",
        "CREATE VIEW v AS SELECT count(*) FROM users",
        "CREATE FUNCTION takes(users) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION reads() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM users'",
        "CREATE FUNCTION unrelated() RETURNS int LANGUAGE sql AS 'SELECT 1 AS users_2'",
        "CREATE PUBLICATION listed FOR TABLE users WITH (publish = 'insert')",
    ];
    let scene = Scene::set(shared().await, &DROP_USERS, &setup).await;
    scene.vouch().await;
    run(&scene.client, "SELECT count(*) FROM users").await;
    let references = scene.shut_by().await;
    let found: Vec<_> = references
        .iter()
        .filter(|found| found.kind != R::Statement)
        .map(|found| (found.kind, found.object.as_str(), found.blocks))
        .collect();
    assert_eq!(
        found,
        [
            (R::ForeignKey, "table constraint fk on public.orders", true),
            (R::Function, "function public.takes(public.users)", true),
            (R::Publication, "publication relation public.users in publication listed", true),
            (R::View, "view public.v", true),
            (R::Function, "function public.reads()", false),
        ]
    );
    assert_eq!(statements(&references), ["SELECT count(*) FROM users"]);
    for sql in [
        "DROP TABLE orders",
        "DROP VIEW v",
        "DROP FUNCTION takes",
        "DROP FUNCTION reads",
        "DROP PUBLICATION listed",
    ] {
        run(&scene.client, sql).await;
    }
    let references = scene.shut_by().await;
    assert_eq!(references.len(), 1, "{references:?}");
    scene.migrator.acknowledge(NAME, &references[0].object).await.expect("an acknowledgement");
    scene.assert_opens().await;
}
