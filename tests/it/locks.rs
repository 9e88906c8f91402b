//! The locks that steps declare are those that Postgres reports while they run.
//!
//! Just before the migrator runs a step, its statements are run in a transaction of the test's own, at whose end
//! `pg_locks` is read and all is rolled back. `CONCURRENTLY` cannot run so: there the migrator itself is watched,
//! held up by a snapshot of the test's.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use phasewise::{Action, Event, LockMode, Step};
use tokio_postgres::{Client, Config, NoTls};

use crate::harness::{Case, Stage};

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

/// The user's tables that `of` (a process, as SQL) has locked, that were there before.
async fn held(client: &Client, of: &str, known: &[u32]) -> Locks {
    let sql = format!(
        "SELECT format('\"%s\".\"%s\"', replace(n.nspname, '\"', '\"\"'), replace(c.relname, '\"', '\"\"')), l.mode
           FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE l.pid = {of} AND l.locktype = 'relation' AND l.granted AND c.relkind IN ('r', 'p')
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'phasewise') AND c.oid = ANY ($1)"
    );
    let rows = client.query(&sql, &[&known]).await.expect("locks");
    let mut locks = Locks::new();
    for row in rows {
        let (relation, found) = (row.get::<_, String>(0), mode(row.get(1)));
        let strongest = locks.entry(relation).or_insert(found);
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

/// Looks at one step before the migrator runs it, in a thread of its own, since observers are not async.
struct Looker {
    client: Client,
    config: Config,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Looker {
    async fn known(&self) -> Vec<u32> {
        let rows = self.client.query("SELECT oid FROM pg_class WHERE relkind IN ('r', 'p')", &[]).await;
        rows.expect("relations").iter().map(|row| row.get(0)).collect()
    }

    /// Compares, or returns what must go on beside the step.
    async fn look(&self, step: &Step) {
        let known = self.known().await;
        let found = match &step.action {
            Action::Transaction(statements) => self.trial(statements, &known).await,
            Action::Long(statement) => self.trial(std::slice::from_ref(statement), &known).await,
            Action::Batches(batches) => {
                let sql = "WITH RECURSIVE tree AS (SELECT $1::text::regclass::oid AS oid UNION ALL
                             SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid)
                           SELECT format('%I.%I', n.nspname, c.relname) FROM tree JOIN pg_class c USING (oid)
                             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r'";
                let root = format!(
                    "{}.{}",
                    phasewise::ident::quote(&batches.schema),
                    phasewise::ident::quote(&batches.table)
                );
                let rows = self.client.query(sql, &[&root]).await.expect("leaves");
                let marker = batches.marker.map_or("", |marker| marker.value());
                let mut statements =
                    vec![format!("SELECT set_config('phasewise.backfill', '{marker}', true)")];
                statements.extend(rows.iter().map(|row| batches.sql(row.get(0), "true")));
                self.trial(&statements, &known).await
            }
            Action::Save { .. } => Locks::new(),
            _ => return,
        };
        self.compare(step, &found);
    }

    fn compare(&self, step: &Step, found: &Locks) {
        let declared = declared(step);
        if &declared != found {
            let mut wrong = self.wrong.lock().expect("not poisoned");
            let text = format!(
                "{}\n  declared {declared:?}\n  reported {found:?}\n  {:?}",
                step.summary,
                step.display_sql()
            );
            if !wrong.contains(&text) {
                wrong.push(text);
            }
        }
    }

    async fn trial(&self, statements: &[String], known: &[u32]) -> Locks {
        let client = &self.client;
        client.batch_execute("BEGIN").await.expect("begun");
        for sql in statements {
            client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
        }
        let found = held(client, "pg_backend_pid()", known).await;
        client.batch_execute("ROLLBACK").await.expect("rolled back");
        found
    }

    /// Holds a `CONCURRENTLY` up by a snapshot on its table, and reads its locks while it waits.
    async fn hold_up(&self, step: &Step, table: &str) {
        let known = self.known().await;
        let client = connect(&self.config).await;
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.expect("begun");
        client.batch_execute(&format!("SELECT FROM {table} LIMIT 1")).await.expect("a snapshot");
        HELD.with(|held| held.borrow_mut().push((client, step.clone(), known)));
    }

    /// After the observer has let the migrator go on: waits until it waits, looks, and lets it end.
    async fn watch(&self, client: Client, step: &Step, known: &[u32]) {
        let sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
                     AND query ~ 'INDEX CONCURRENTLY' AND wait_event_type = 'Lock' AND wait_event = 'virtualxid'";
        for _ in 0..6_000 {
            if let Some(row) = self.client.query_opt(sql, &[]).await.expect("activity") {
                let pid: i32 = row.get(0);
                self.compare(step, &held(&self.client, &pid.to_string(), known).await);
                client.batch_execute("ROLLBACK").await.expect("rolled back");
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{} never waited", step.summary);
    }
}

thread_local! {
    static HELD: std::cell::RefCell<Vec<(Client, Step, Vec<u32>)>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// The table of a step that builds or drops an index concurrently.
fn concurrently(step: &Step) -> Option<&str> {
    match &step.action {
        Action::BuildIndex(_) | Action::DropIndex(_) => step.locks.first().map(|lock| lock.relation.as_str()),
        _ => None,
    }
}

/// Takes a case forward, back to the start one by one, and compares each step on the way.
pub(crate) async fn compare(case: &'static Case) {
    let stage = Stage::set(case).await;
    let wrong = Arc::new(Mutex::new(Vec::new()));
    let (asks, asked) = mpsc::channel::<(Step, mpsc::Sender<()>)>();
    let (config, noted) = (stage.database.config(), Arc::clone(&wrong));
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let looker = Looker { client: connect(&config).await, config, wrong: noted };
            let mut seen = 0_usize;
            while let Ok((step, done)) = asked.recv() {
                seen += 1;
                match concurrently(&step) {
                    Some(table) => looker.hold_up(&step, table).await,
                    None => looker.look(&step).await,
                }
                done.send(()).expect("somebody waits");
                let held = HELD.with(|held| held.borrow_mut().pop());
                if let Some((client, step, known)) = held {
                    looker.watch(client, &step, &known).await;
                }
            }
            seen
        })
    });
    let asks = Mutex::new(asks);
    let migrator = stage.migrator().observe(move |event: &Event<'_>| {
        if let Event::StepStarted { step, .. } = event {
            let (done, wait) = mpsc::channel();
            asks.lock().expect("not poisoned").send(((*step).clone(), done)).expect("a looker");
            wait.recv().expect("a look");
        }
    });
    let last = case.phases().len();
    for number in 1..=last {
        stage.enter(&migrator, number).await;
    }
    for _ in 0..last {
        migrator.rollback(case.name(), phasewise::To::Previous).await.expect("a rollback");
    }
    drop(migrator);
    let seen = thread.join().expect("a looker that did not panic");
    assert!(seen > 0, "no step was looked at");
    let wrong = wrong.lock().expect("not poisoned");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
