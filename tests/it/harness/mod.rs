//! What the tests of changes share: a table of cases, and what is done to each of them.

pub(crate) mod catalog;
pub(crate) mod crowd;
pub(crate) mod data;
pub(crate) mod process;
pub(crate) mod rounds;
pub(crate) mod twin;

use std::time::Duration;

use phasewise::testing::{Database, Server};
use phasewise::{BackfillPolicy, Entry, Migrations, Migrator, PhaseInfo, To};
use tokio_postgres::Client;

/// One change on one database.
#[derive(Debug)]
pub(crate) struct Case {
    /// What is there before it.
    pub(crate) setup: &'static [&'static str],
    /// The change, as the only migration.
    pub(crate) migrations: &'static Migrations,
    /// The schema that unqualified names mean.
    pub(crate) schema: &'static str,
}

impl Case {
    pub(crate) fn entry(&self) -> &'static Entry {
        self.migrations.iter().next().expect("a migration")
    }

    pub(crate) fn name(&self) -> &'static str {
        self.entry().name()
    }

    pub(crate) fn phases(&self) -> &'static [PhaseInfo] {
        self.entry().phases()
    }
}

/// A database with a case's tables, and a connection to it.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) case: &'static Case,
    pub(crate) database: Database,
    pub(crate) client: Client,
}

pub(crate) async fn database() -> Database {
    Server::shared().await.expect("a server").database().await.expect("a database")
}

/// Whether the server's version is among those.
pub(crate) async fn is_one_of(versions: impl std::ops::RangeBounds<i32>) -> bool {
    let client = database().await.connect().await.expect("a connection");
    versions.contains(&one::<i32>(&client, "SELECT current_setting('server_version_num')::int").await)
}

/// A migrator that does not wait: for batches, soaks, instances, or for ever for a lock. It drives only when it is told.
pub(crate) fn migrator(database: &Database, migrations: &'static Migrations) -> Migrator {
    Migrator::new(database.pool(4).expect("a pool"), migrations)
        .soak(Duration::ZERO)
        .backfill(BackfillPolicy::new().fixed(7).pause(Duration::ZERO))
        .lock_deadline(Duration::from_secs(30))
        .settle(Duration::ZERO)
        .start_wait(Duration::ZERO)
        .drive_in_background(false)
}

impl Stage {
    pub(crate) async fn set(case: &'static Case) -> Self {
        let database = database().await;
        let client = database.connect().await.expect("a connection");
        for sql in case.setup {
            client.batch_execute(sql).await.unwrap_or_else(|error| panic!("setup: {error:?}\n{sql}"));
        }
        Self { case, database, client }
    }

    /// Where the change has values computed, they are texts.
    pub(crate) fn migrator(&self) -> Migrator {
        migrator(&self.database, self.case.migrations).schema(self.case.schema).compute(
            self.case.name(),
            |row: tokio_postgres::Row| {
                let number = row.try_get::<_, Option<i32>>(0);
                async move { number.map(|number| number.map(|number| format!("computed {number}"))) }
            },
        )
    }

    /// How many phases are entered.
    pub(crate) async fn at(&self) -> usize {
        if !one::<bool>(&self.client, "SELECT to_regclass('phasewise.migrations') IS NOT NULL").await {
            return 0;
        }
        let entered: i64 =
            one(&self.client, "SELECT coalesce(sum(entered), 0) FROM phasewise.migrations").await;
        usize::try_from(entered).expect("a number")
    }

    /// Forward until `number` phases are entered, with a person's word at each gate.
    pub(crate) async fn forward(&self, number: usize) {
        // So that everything is looked at by a migrator that knows nothing of the last one.
        let migrator = self.migrator();
        for next in self.at().await + 1..=number {
            self.enter(&migrator, next).await;
        }
        assert_eq!(self.at().await, number);
    }

    /// Into the phase of that number, from the one before it.
    pub(crate) async fn enter(&self, migrator: &Migrator, number: usize) {
        let (name, phases) = (self.case.name(), self.case.phases());
        if number > 1 && phases[number - 2].gate.release().is_some() {
            migrator.confirm(name, phases[number - 2].name).await.expect("a confirmation");
            acknowledge(migrator, name).await;
        }
        let phase = phases[number - 1].name;
        let report =
            migrator.run_to(name, phase).await.unwrap_or_else(|error| panic!("{name} to {phase}: {error}"));
        let done = report.get(name).expect("a report");
        assert_eq!(done.entered, [phase], "{name} did not enter {phase}: {report}");
    }

    /// Back until `number` phases are left, in one go.
    pub(crate) async fn back(&self, number: usize) {
        let (name, phases) = (self.case.name(), self.case.phases());
        let to = match number.checked_sub(1) {
            None => To::Start,
            Some(at) => To::Phase(phases[at].name),
        };
        let from = self.at().await;
        let report = self.migrator().rollback(name, to).await;
        let report = report.unwrap_or_else(|error| panic!("{name}, from {from} back to {number}: {error}"));
        let left: Vec<&str> = phases[number..from].iter().rev().map(|info| info.name).collect();
        assert_eq!(report.get(name).expect("a report").left, left);
    }
}

/// A person's word that nothing of what refers to the old matters: grants, functions.
pub(crate) async fn acknowledge(migrator: &Migrator, name: &str) {
    let status = migrator.status().await.expect("a status");
    for reference in &status.get(name).expect("a migration").references {
        migrator.acknowledge(name, &reference.object).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// The one value of the one row.
pub(crate) async fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(client: &Client, sql: &str) -> T {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{error:?}\n{sql}")).get(0)
}

pub(crate) async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
}

/// Waits until a query for one boolean says so.
pub(crate) async fn until(client: &Client, sql: &str) {
    let begun = std::time::Instant::now();
    while !one::<bool>(client, sql).await {
        assert!(begun.elapsed() < Duration::from_secs(60), "in vain: {sql}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Panics with the lines that differ.
pub(crate) fn same(expected: &str, found: &str, when: &str) {
    if expected == found {
        return;
    }
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (before, now) = (lines(expected), lines(found));
    let gone: Vec<_> =
        before.iter().filter(|line| !now.contains(line)).map(|line| format!("- {line}")).collect();
    let new: Vec<_> =
        now.iter().filter(|line| !before.contains(line)).map(|line| format!("+ {line}")).collect();
    panic!("{when}:\n{}\n{}", gone.join("\n"), new.join("\n"));
}

/// A module with tests per case: `thorough! { name: setup, change => &["the same by plain SQL"]; }`. All of them
/// compare the end with a twin's, by [`twin::as_asked`]; beyond that:
///
/// * `exhaustive!`: [`rounds::everywhere`], [`rounds::from_everywhere`], and its locks, where much hangs on a column;
/// * `thorough!`: without the second, which the first comes to by single steps;
/// * `one_way!`: [`rounds::one_way`] and its locks, where the last phase is irreversible;
/// * `brief!`: [`rounds::there_and_back`] alone, for a type, where the same change is thorough on another column.
macro_rules! exhaustive {
    ($($name:ident: $setup:expr, $change:expr => $asked:expr;)+) => {$(
        mod $name {
            crate::harness::case!($name, $setup, $change);
            crate::harness::test!(everywhere, from_everywhere, locks);
            crate::harness::asked!($asked);
        }
    )+};
}
pub(crate) use exhaustive;

macro_rules! thorough {
    ($($name:ident: $setup:expr, $change:expr => $asked:expr;)+) => {$(
        mod $name {
            crate::harness::case!($name, $setup, $change);
            crate::harness::test!(everywhere, locks);
            crate::harness::asked!($asked);
        }
    )+};
}
pub(crate) use thorough;

macro_rules! brief {
    ($($name:ident: $setup:expr, $change:expr => $asked:expr;)+) => {$(
        mod $name {
            crate::harness::case!($name, $setup, $change);
            crate::harness::test!(there_and_back);
            crate::harness::asked!($asked);
        }
    )+};
}
pub(crate) use brief;

macro_rules! one_way {
    ($($name:ident: $setup:expr, $change:expr => $asked:expr;)+) => {$(
        mod $name {
            crate::harness::case!($name, $setup, $change);
            crate::harness::test!(one_way, locks_one_way);
            crate::harness::asked!($asked);
        }
    )+};
}
pub(crate) use one_way;

macro_rules! case {
    ($name:ident, $setup:expr, $change:expr) => {
        #[allow(unused_imports, reason = "not every change needs the same")]
        use super::*;

        static MIGRATIONS: phasewise::Migrations =
            phasewise::migrations![phasewise::Migration::new(stringify!($name), $change).not_deployed()];
        static CASE: crate::harness::Case =
            crate::harness::Case { setup: $setup, migrations: &MIGRATIONS, schema: "public" };
    };
}
pub(crate) use case;

macro_rules! test {
    ($($round:ident),+) => {$(
        #[tokio::test]
        async fn $round() {
            crate::harness::rounds::$round(&CASE).await;
        }
    )+};
}
pub(crate) use test;

macro_rules! asked {
    ($asked:expr) => {
        #[tokio::test]
        async fn as_asked() {
            crate::harness::twin::as_asked(&CASE, $asked).await;
        }
    };
}
pub(crate) use asked;
