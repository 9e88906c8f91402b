//! A database that was there before phasewise, with clients that never register.

use std::time::Duration;

use phasewise::create_table::Column;
use phasewise::{
    CreateTable, Kind, Migration, Migrations, RenameColumn, State, Unregistered, migrations, rename_column,
};
use tokio_postgres::NoTls;

use super::{build, phase, stage};
use crate::harness::{database, migrator, one, run, until};

#[tokio::test]
async fn sessions_of_nobodys_instance_are_listed_and_hold_no_gate() {
    let (database, client) = stage().await;
    // Roles are the server's, and it serves other tests as well.
    let role = format!("legacy_{}", database.name());
    run(&client, &format!("CREATE ROLE \"{role}\" LOGIN")).await;
    let mut config = database.config();
    config.user(&role).application_name("nightly job");
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let (job, connection) = config.connect(NoTls).await.expect("a session");
        tokio::spawn(connection);
        jobs.push(job);
    }
    let mut person = database.config();
    person.application_name("somebody's psql");
    let (person, connection) = person.connect(NoTls).await.expect("a session");
    tokio::spawn(connection);

    let schema = build(&database, 1).start().await.unwrap();
    let me: String = one(&client, "SELECT session_user::text").await;
    let address: Option<String> = one(&client, "SELECT host(inet_client_addr())").await;
    let status = build(&database, 1).status().await.unwrap();
    let seen = |found: &Unregistered| (found.application.clone(), found.role.clone(), found.sessions);
    assert_eq!(
        status.unregistered.iter().map(seen).collect::<Vec<_>>(),
        [("nightly job".to_owned(), role.clone(), 2), ("somebody's psql".to_owned(), me, 1)],
        "{status}"
    );
    assert!(status.unregistered.iter().all(|found| found.address == address), "{status}");
    let line = format!("unregistered: 2 sessions of role {role}");
    assert!(status.to_string().contains(&line), "{status}");

    // Those of an instance that has expired are nobody's either.
    run(&client, "UPDATE phasewise.instances SET seen = seen - interval '60 s'").await;
    let expired = build(&database, 1).status().await.unwrap();
    assert!(expired.unregistered.len() > 2, "{expired}");
    run(&client, "UPDATE phasewise.instances SET seen = clock_timestamp()").await;

    // They are shown, and no more than that: what is registered speaks 1.
    assert_eq!(phase(&build(&database, 1)).await, "SwitchReads");

    drop(person);
    for job in jobs {
        drop(job);
    }
    until(&client, "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND application_name IN ('nightly job', 'somebody''s psql')").await;
    assert_eq!(build(&database, 1).status().await.unwrap().unregistered, []);
    schema.leave().await.unwrap();
    run(&client, &format!("DROP ROLE \"{role}\"")).await;
}

const RENAME: RenameColumn<rename_column::KeptInSync> =
    RenameColumn::new("t", "name", "label").kept_in_sync();
static WITH_TABLE: Migrations = migrations![
    Migration::new(
        "create",
        CreateTable::new("t").columns([Column::new("id", "int"), Column::new("name", "text")])
    ),
    Migration::new("ren", RENAME).deployed::<rename_column::SwitchOver>(),
];
static ADOPTED: Migrations =
    migrations![Migration::new("ren", RENAME).deployed::<rename_column::SwitchOver>()];

/// The defaults: two weeks of soak.
fn patient(database: &phasewise::testing::Database, migrations: &'static Migrations) -> phasewise::Migrator {
    migrator(database, migrations).soak(Duration::from_secs(14 * 24 * 3600))
}

#[tokio::test]
async fn gates_and_soaks_hold_where_tables_were_and_not_where_none_were() {
    // Nobody can have used a table that this very run makes.
    let fresh = database().await;
    let schema = patient(&fresh, &WITH_TABLE).start().await.unwrap();
    assert!(schema.report().fresh && schema.report().is_complete(), "{}", schema.report());
    schema.leave().await.unwrap();

    let (adopted, _client) = stage().await;
    let migrator = patient(&adopted, &ADOPTED);
    let report = migrator.run().await.unwrap();
    assert!(!report.fresh, "{report}");
    let State::Waiting { gate, .. } = &report.get("ren").unwrap().state else { panic!("{report}") };
    assert!(gate.contains("no instance that takes part is registered"), "{gate}");
    let schema = migrator.clone().settle(Duration::from_secs(3600)).start().await.unwrap();
    let State::Settling { .. } = &schema.report().get("ren").unwrap().state else {
        panic!("{}", schema.report())
    };
    let report = migrator.run().await.unwrap();
    let State::Soaking { until, since, .. } = &report.get("ren").unwrap().state else { panic!("{report}") };
    assert_eq!((*until - *since).num_days(), 14);
    // A person's word stands for the gate, and not for the soak.
    migrator.confirm("ren", "SwitchOver").await.unwrap();
    let report = migrator.run().await.unwrap();
    assert!(matches!(report.get("ren").unwrap().state, State::Soaking { .. }), "{report}");
    assert_eq!(phase(&migrator).await, "SwitchOver");
    schema.leave().await.unwrap();
}

#[tokio::test]
async fn one_table_that_was_there_is_enough_to_be_adopted() {
    let (database, client) = stage().await;
    run(&client, "DROP TABLE t").await;
    run(&client, "CREATE TABLE other (id int)").await;
    static MIXED: Migrations = migrations![
        Migration::new("other", RenameColumn::new("other", "id", "number")).not_deployed(),
        Migration::new(
            "create",
            CreateTable::new("t").columns([Column::new("id", "int"), Column::new("name", "text")])
        ),
        Migration::new("ren", RENAME).deployed::<rename_column::SwitchOver>(),
    ];
    let report = patient(&database, &MIXED).run().await.unwrap();
    assert!(!report.fresh);
    assert!(matches!(report.get("other").unwrap().state, State::Waiting { .. }), "{report}");
    // But what is of a table that this run made waits for nobody.
    assert_eq!(report.get("ren").unwrap().state, State::Applied, "{report}");
    let error = patient(&database, &MIXED).confirm("ren", "Backfill").await.unwrap_err();
    assert_eq!(error.kind(), Kind::GateClosed);
}
