//! The locks that steps declare are those that Postgres reports while they run.
//!
//! Just before the migrator runs a step, its statements are run in a transaction of the test's own, at whose end
//! `pg_locks` is read and all is rolled back. What cannot run so (`CONCURRENTLY`, what the ledger keeps, values that the
//! application computes) is watched in the migrator's own session, held up by a transaction of the test's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use phasewise::ident::quote;
use phasewise::{
    Action, Batches, BuildIndex, Change, Context, DropIndex, Event, LockMode, Migration, Migrations,
    Migrator, Phase, PlannedRollback, Probe, Result, Rollback, Step, Steps, TableName, To, Touches, Window,
    Work, migrations,
};
use tokio_postgres::{Client, Config, NoTls};

use crate::harness::{Case, Stage, one, run};

/// Modes by relation, the strongest of each; `ACCESS SHARE` alone is left out.
type Locks = BTreeMap<String, LockMode>;

fn mode(name: &str) -> LockMode {
    match name {
        "AccessShareLock" => LockMode::AccessShare,
        "RowShareLock" => LockMode::RowShare,
        "RowExclusiveLock" => LockMode::RowExclusive,
        "ShareUpdateExclusiveLock" => LockMode::ShareUpdateExclusive,
        "ShareLock" => LockMode::Share,
        "ShareRowExclusiveLock" => LockMode::ShareRowExclusive,
        "ExclusiveLock" => LockMode::Exclusive,
        "AccessExclusiveLock" => LockMode::AccessExclusive,
        other => panic!("no mode {other}"),
    }
}

/// The user's tables by OID: a transaction that drops one does not see its name any more.
type Known = BTreeMap<u32, String>;

/// What `of` (a process, as SQL) has locked of the tables that were there before.
async fn held(client: &Client, of: &str, known: &Known) -> Locks {
    let sql = format!(
        "SELECT l.relation, l.mode FROM pg_locks l
          WHERE l.pid = {of} AND l.locktype = 'relation' AND l.granted
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    );
    let mut locks = Locks::new();
    for row in client.query(&sql, &[]).await.expect("locks") {
        let Some(relation) = known.get(&row.get(0)) else { continue };
        let found = mode(row.get(1));
        let strongest = locks.entry(relation.clone()).or_insert(found);
        *strongest = (*strongest).max(found);
    }
    locks.retain(|_, mode| *mode > LockMode::AccessShare);
    locks
}

fn declared(step: &Step) -> Locks {
    let mut locks = Locks::new();
    for lock in &step.locks {
        let strongest = locks.entry(lock.relation.clone()).or_insert(lock.mode);
        *strongest = (*strongest).max(lock.mode);
    }
    locks.retain(|_, mode| *mode > LockMode::AccessShare);
    locks
}

async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// A kind of action. A new one panics, so that it is given a way to be looked at.
fn kind(action: &Action) -> &'static str {
    match action {
        Action::Transaction(_) => "transaction",
        Action::Long(_) => "long",
        Action::Autocommit(_) => "autocommit",
        Action::BuildIndex(_) => "build index",
        Action::DropIndex(_) => "drop index",
        Action::Batches(batches) => match batches.work {
            Work::Update { .. } => "update",
            Work::Copy { .. } => "copy",
            Work::Compute { .. } => "compute",
            _ => panic!("a new kind of work: {batches:?}"),
        },
        Action::Save { .. } => "save",
        _ => panic!("a new kind of action: {action:?}"),
    }
}

/// What the migrator tells the looker.
enum Told {
    /// It waits for an answer before it runs the step.
    Started(Step, mpsc::Sender<()>),
    /// The step is over; whether there was anything to do.
    Ended(Step, bool),
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    /// The kinds of action whose locks were compared.
    kinds: BTreeSet<&'static str>,
    /// Declarations that are not what Postgres reports.
    wrong: Vec<String>,
}

/// A step that the migrator runs while transactions of the test's stand in its way, one after the other.
struct Held {
    /// By their processes.
    holders: BTreeMap<i32, Client>,
    step: Step,
    known: Known,
}

/// Looks at one step before the migrator runs it, in a thread of its own, since observers are not async.
struct Looker {
    client: Client,
    config: Config,
    found: Found,
    /// Whether the step that runs was compared.
    compared: bool,
}

impl Looker {
    async fn listen(mut self, told: mpsc::Receiver<Told>) -> Found {
        while let Ok(told) = told.recv() {
            match told {
                Told::Started(step, go_on) => {
                    self.compared = false;
                    let held = self.look(&step).await;
                    go_on.send(()).expect("somebody waits");
                    if let Some(held) = held {
                        self.watch(held).await;
                    }
                }
                Told::Ended(step, ran) => {
                    assert!(self.compared || !ran, "{} ran unseen", step.summary);
                }
            }
        }
        self.found
    }

    async fn known(&self) -> Known {
        let sql = "SELECT c.oid, n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'phasewise')";
        let rows = self.client.query(sql, &[]).await.expect("relations");
        rows.iter().map(|row| (row.get(0), format!("{}.{}", quote(row.get(1)), quote(row.get(2))))).collect()
    }

    /// Compares, or returns what is to be watched while the step runs.
    async fn look(&mut self, step: &Step) -> Option<Held> {
        let known = self.known().await;
        let statements = match &step.action {
            Action::Transaction(statements) => statements.clone(),
            Action::Long(statement) => vec![statement.clone()],
            Action::Batches(batches) if kind(&step.action) != "compute" => self.batches(batches).await,
            Action::Batches(batches) => {
                let mut by = Vec::new();
                for leaf in self.leaves(batches).await {
                    // Where there are no rows nothing is computed, and nobody waits.
                    if one(&self.client, &format!("SELECT EXISTS (SELECT FROM ONLY {leaf})")).await {
                        by.push(format!("SELECT FROM ONLY {leaf} FOR UPDATE"));
                    }
                }
                if by.is_empty() {
                    return None;
                }
                return Some(self.hold_up(step, known, by).await);
            }
            Action::Save { .. } => {
                let ledger = "LOCK TABLE phasewise.saved IN EXCLUSIVE MODE".to_owned();
                return Some(self.hold_up(step, known, vec![ledger]).await);
            }
            // There is nothing to do, so that nothing would wait. That it did nothing shows in the end.
            Action::BuildIndex(build) if self.is_there(&build.schema, &build.name).await => return None,
            Action::DropIndex(drop) if !self.is_there(&drop.schema, &drop.name).await => return None,
            // These wait for what was read before they began.
            Action::BuildIndex(_) | Action::DropIndex(_) | Action::Autocommit(_) => {
                let read: Vec<_> =
                    known.values().map(|table| format!("SELECT FROM {table} LIMIT 1")).collect();
                return Some(self.hold_up(step, known, vec![read.join(";")]).await);
            }
            action => panic!("no way to look at {action:?}"),
        };
        let found = self.trial(&statements, &known).await;
        self.compare(step, &found);
        None
    }

    /// The statements of batches that take all rows at once.
    async fn batches(&self, batches: &Batches) -> Vec<String> {
        let marker = batches.marker.map_or("", |marker| marker.value());
        let mut statements = vec![format!("SELECT set_config('phasewise.backfill', '{marker}', true)")];
        statements.extend(self.leaves(batches).await.iter().map(|leaf| batches.sql(leaf, "true")));
        statements
    }

    /// The tables that hold the rows, as SQL.
    async fn leaves(&self, batches: &Batches) -> Vec<String> {
        let sql = "WITH RECURSIVE tree AS (SELECT $1::text::regclass::oid AS oid UNION ALL
                     SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid)
                   SELECT format('%I.%I', n.nspname, c.relname) FROM tree JOIN pg_class c USING (oid)
                     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r'";
        let root = format!("{}.{}", quote(&batches.schema), quote(&batches.table));
        self.client.query(sql, &[&root]).await.expect("leaves").iter().map(|row| row.get(0)).collect()
    }

    /// Whether there is an index of that name.
    async fn is_there(&self, schema: &str, name: &str) -> bool {
        let sql = "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2)";
        self.client.query_one(sql, &[&schema, &name]).await.expect("a look").get(0)
    }

    fn compare(&mut self, step: &Step, found: &Locks) {
        self.compared = true;
        self.found.kinds.insert(kind(&step.action));
        let declared = declared(step);
        // Of SQL that a user wrote nothing is declared, and the step says that this is not all.
        let right = if step.locks_known { &declared == found } else { step.locks.is_empty() };
        if !right {
            let text = format!(
                "{}\n  declared {declared:?}\n  reported {found:?}\n  {:?}",
                step.summary,
                step.display_sql()
            );
            if !self.found.wrong.contains(&text) {
                self.found.wrong.push(text);
            }
        }
    }

    async fn trial(&self, statements: &[String], known: &Known) -> Locks {
        let client = &self.client;
        client.batch_execute("BEGIN").await.expect("begun");
        for sql in statements {
            client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
        }
        let found = held(client, "pg_backend_pid()", known).await;
        client.batch_execute("ROLLBACK").await.expect("rolled back");
        found
    }

    /// Begins transactions that the step will have to wait for.
    async fn hold_up(&self, step: &Step, known: Known, by: Vec<String>) -> Held {
        let mut holders = BTreeMap::new();
        for sql in by {
            let holder = connect(&self.config).await;
            run(&holder, "BEGIN ISOLATION LEVEL REPEATABLE READ").await;
            run(&holder, &sql).await;
            holders.insert(one(&holder, "SELECT pg_backend_pid()").await, holder);
        }
        Held { holders, step: step.clone(), known }
    }

    /// After the migrator was let go on: waits until it waits, looks, and lets it go on, until nothing is in its way.
    async fn watch(&mut self, mut held_up: Held) {
        let sql = "SELECT a.pid, b FROM pg_stat_activity a, unnest(pg_blocking_pids(a.pid)) b
                    WHERE a.datname = current_database() AND b = ANY ($1) LIMIT 1";
        let step = &held_up.step;
        let mut found = Locks::new();
        let begun = Instant::now();
        while !held_up.holders.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} never waited", step.summary);
            let pids: Vec<i32> = held_up.holders.keys().copied().collect();
            let Some(row) = self.client.query_opt(sql, &[&pids]).await.expect("activity") else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let (waiting, holder): (i32, i32) = (row.get(0), row.get(1));
            for (relation, mode) in held(&self.client, &waiting.to_string(), &held_up.known).await {
                let strongest = found.entry(relation).or_insert(mode);
                *strongest = (*strongest).max(mode);
            }
            let holder = held_up.holders.remove(&holder).expect("it holds up");
            run(&holder, "ROLLBACK").await;
        }
        self.compare(step, &found);
    }
}

/// The steps that the migrator came by, in order.
type Log = Arc<Mutex<Vec<String>>>;

fn drain(log: &Log) -> Vec<String> {
    std::mem::take(&mut *log.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A case on its way, with a looker beside it.
struct Watched {
    stage: Stage,
    migrator: Migrator,
    log: Log,
}

impl Watched {
    /// Enters a phase. Returns how the plan says that it is undone.
    async fn enter(&self, number: usize) -> PlannedRollback {
        let mut plan = self.migrator.plan().await.expect("a plan");
        let phase = plan.migrations.remove(0).phases.remove(0);
        let Steps::Known(steps) = &phase.steps else { panic!("the next phase is not known: {phase:?}") };
        let planned: Vec<_> = steps.iter().map(|step| step.summary.clone()).collect();
        self.stage.enter(&self.migrator, number).await;
        assert_eq!(drain(&self.log), planned, "into {}", phase.name);
        phase.rollback
    }

    async fn back(&self, planned: &PlannedRollback) {
        let name = self.stage.case.name();
        self.migrator.rollback(name, To::Previous).await.expect("a rollback");
        let seen = drain(&self.log);
        match planned {
            PlannedRollback::RevertDeploy => assert!(seen.is_empty(), "{seen:?}"),
            PlannedRollback::Steps(steps) => {
                let planned: BTreeSet<_> = steps.iter().map(|step| step.summary.as_str()).collect();
                let seen = seen.iter().map(String::as_str).collect();
                assert!(planned.is_subset(&seen), "planned {planned:?}, seen {seen:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Takes a case forward, back to the start one by one, and forward again, and compares each step on the way.
pub(crate) async fn compare(case: &'static Case) {
    let found = look(case, case.phases().len()).await;
    assert!(found.wrong.is_empty(), "{}", found.wrong.join("\n"));
}

/// The same where the last phase is irreversible.
pub(crate) async fn compare_one_way(case: &'static Case) {
    let found = look(case, case.phases().len() - 1).await;
    assert!(found.wrong.is_empty(), "{}", found.wrong.join("\n"));
}

/// Only the first `reversible` phases are rolled back.
async fn look(case: &'static Case, reversible: usize) -> Found {
    let stage = Stage::set(case).await;
    let (tells, told) = mpsc::channel::<Told>();
    let config = stage.database.config();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let client = connect(&config).await;
            Looker { client, config, found: Found::default(), compared: false }.listen(told).await
        })
    });
    let log = Log::default();
    let (noted, tells, begun) = (Arc::clone(&log), Mutex::new(tells), Mutex::new(false));
    let migrator = stage.migrator().observe(move |event: &Event<'_>| {
        let tell = |told| tells.lock().expect("not poisoned").send(told).expect("a looker");
        let note = |step: &Step| noted.lock().expect("not poisoned").push(step.summary.clone());
        let was_begun = |now| std::mem::replace(&mut *begun.lock().expect("not poisoned"), now);
        match event {
            Event::StepStarted { step, .. } => {
                was_begun(true);
                note(step);
                let (go_on, wait) = mpsc::channel();
                tell(Told::Started((*step).clone(), go_on));
                wait.recv().expect("a look");
            }
            Event::StepDone { step, .. } => {
                was_begun(false);
                tell(Told::Ended((*step).clone(), true));
            }
            Event::StepSkipped { step, .. } => {
                if was_begun(false) {
                    tell(Told::Ended((*step).clone(), false));
                } else {
                    note(step);
                }
            }
            _ => {}
        }
    });
    let watched = Watched { stage, migrator, log };
    let mut undone = Vec::new();
    for number in 1..=reversible {
        undone.push(watched.enter(number).await);
    }
    for planned in undone.iter().rev() {
        watched.back(planned).await;
    }
    for number in 1..=case.phases().len() {
        watched.enter(number).await;
    }
    // The migrator's end is the looker's.
    drop(watched);
    let found = thread.join().expect("a looker that did not panic");
    assert!(!found.kinds.is_empty(), "no step was looked at");
    found
}

/// One step of every kind, with its locks as they are, or with one that none of them takes.
#[derive(Clone, Copy, Debug)]
struct Everything {
    lies: bool,
}

impl Change for Everything {
    type Phases = (All,);

    fn phases(&self) -> Self::Phases {
        (All { lies: self.lies },)
    }

    fn definition(&self) -> String {
        "everything".to_owned()
    }

    fn touches(&self) -> Touches {
        Touches::nothing().table(TableName::new("thing"))
    }
}

#[derive(Clone, Copy, Debug)]
struct All {
    lies: bool,
}

const TABLE: &str = "\"public\".\"thing\"";

impl All {
    fn steps(self) -> Vec<Step> {
        use LockMode::{AccessExclusive, RowExclusive, ShareUpdateExclusive};
        let batches = |work, condition: &str| {
            Step::new(
                "batches",
                Action::Batches(Batches {
                    schema: "public".to_owned(),
                    table: "thing".to_owned(),
                    work,
                    condition: condition.to_owned(),
                    verify: "false".to_owned(),
                    keys: vec!["id".to_owned()],
                    marker: None,
                }),
            )
            .probe(Probe::Repeatable)
        };
        let update = Work::Update { set: "b = 1".to_owned(), from: None };
        let copy = Work::Copy { into: "\"public\".\"copy\" (\"id\")".to_owned(), select: "t.id".to_owned() };
        let compute = Work::Compute { column: "c".to_owned(), inputs: vec!["id".to_owned()] };
        let build = BuildIndex {
            schema: "public".to_owned(),
            table: "thing".to_owned(),
            name: "thing_b".to_owned(),
            unique: false,
            tail: "btree (b)".to_owned(),
        };
        let drop = DropIndex { schema: "public".to_owned(), name: "thing_b".to_owned() };
        let validate = format!("ALTER TABLE {TABLE} VALIDATE CONSTRAINT thing_check");
        let reindex = "REINDEX INDEX CONCURRENTLY \"public\".\"thing_pkey\"".to_owned();
        let steps = [
            (
                Step::sql("set a default", format!("ALTER TABLE {TABLE} ALTER b SET DEFAULT 1")),
                AccessExclusive,
            ),
            (Step::long("validate", validate), ShareUpdateExclusive),
            (Step::new("reindex", Action::Autocommit(reindex)), ShareUpdateExclusive),
            (Step::new("build", Action::BuildIndex(build)), ShareUpdateExclusive),
            (Step::new("drop", Action::DropIndex(drop)), ShareUpdateExclusive),
            (batches(update, "t.b IS NULL"), RowExclusive),
            (batches(copy, "true"), LockMode::AccessShare),
            (batches(compute, "t.c IS NULL"), RowExclusive),
            (Step::save("kept", serde_json::Value::Bool(true)), LockMode::AccessShare),
        ];
        let declared = |(step, mode): (Step, LockMode)| {
            let copies = step.summary == "batches" && mode == LockMode::AccessShare;
            let step = if copies { step.locks("\"public\".\"copy\"", RowExclusive) } else { step };
            step.locks(TABLE, if self.lies { LockMode::Exclusive } else { mode })
        };
        steps.into_iter().map(declared).collect()
    }
}

impl Phase for All {
    const NAME: &'static str = "All";
    const WINDOW: Window = Window::new(0, 0);

    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        Ok(self.steps())
    }

    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        Ok(Rollback::Steps(vec![
            Step::sql("drop the default", format!("ALTER TABLE {TABLE} ALTER b DROP DEFAULT"))
                .locks(TABLE, LockMode::AccessExclusive),
            Step::sql("empty the columns", format!("UPDATE {TABLE} SET b = NULL, c = NULL"))
                .locks(TABLE, LockMode::RowExclusive),
        ]))
    }
}

const THING: &[&str] = &[
    "CREATE TABLE thing (id int PRIMARY KEY, b int, c text, CONSTRAINT thing_check CHECK (id > 0))",
    "CREATE TABLE copy (id int PRIMARY KEY)",
    "INSERT INTO thing SELECT i FROM generate_series(1, 20) i",
];
const KINDS: [&str; 9] =
    ["autocommit", "build index", "compute", "copy", "drop index", "long", "save", "transaction", "update"];

#[tokio::test]
async fn every_kind_of_action_is_compared() {
    static TRUE: Migrations = migrations![Migration::new("computed", Everything { lies: false })];
    static CASE: Case = Case { setup: THING, migrations: &TRUE, schema: "public" };
    let found = look(&CASE, 1).await;
    assert_eq!(found.kinds, KINDS.into());
    assert!(found.wrong.is_empty(), "{}", found.wrong.join("\n"));
}

#[tokio::test]
async fn a_false_declaration_is_noticed_of_every_kind_of_action() {
    static FALSE: Migrations = migrations![Migration::new("computed", Everything { lies: true })];
    static CASE: Case = Case { setup: THING, migrations: &FALSE, schema: "public" };
    let found = look(&CASE, 1).await;
    assert_eq!(found.wrong.len(), KINDS.len(), "{}", found.wrong.join("\n"));
}
