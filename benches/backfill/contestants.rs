//! Those who fill a new column from another one.

use std::sync::Mutex;
use std::time::Instant;

use phasewise::testing::Database;
use phasewise::{AddColumn, BackfillPolicy, Event, Migration, Migrations, Migrator, migrations};
use tokio_postgres::{Client, NoTls};

use crate::Result;
use crate::tables::{self, Indexed, Key};

pub(crate) static COPY: Migrations = migrations![
    Migration::new("copy", AddColumn::new("item", "copy", "text").backfill("{name}")).not_deployed()
];

#[derive(Clone, Copy, Debug)]
pub(crate) enum Contestant {
    /// Unthrottled, with so many workers, from the first batch to the last.
    Phasewise(u32),
    /// The same with one worker, its verification included: nobody else has one.
    PhasewiseVerified,
    /// One statement for all.
    SingleUpdate,
    /// The usual: the next 1,000 keys in a CTE, and their rows by a join.
    KeysetBatches,
    /// As pgroll does it: the batch touches the key of 1,000 rows, and a trigger that declares every column and looks
    /// at the search_path computes the value.
    TriggerTouch,
}

/// Seconds that a contestant takes for a table of its own.
pub(crate) async fn time(
    database: &Database,
    (key, indexed): (Key, Indexed),
    contestant: Contestant,
) -> Result<f64> {
    let client = database.connect().await?;
    tables::item(&client, key, indexed).await?;
    let seconds = match contestant {
        Contestant::Phasewise(workers) => {
            phasewise(database, BackfillPolicy::unthrottled().workers(workers)).await?.0
        }
        Contestant::PhasewiseVerified => phasewise(database, BackfillPolicy::unthrottled()).await?.1,
        Contestant::SingleUpdate => {
            client.batch_execute("ALTER TABLE item ADD COLUMN copy text").await?;
            let begun = Instant::now();
            client.batch_execute("UPDATE item SET copy = name WHERE copy IS NULL").await?;
            begun.elapsed().as_secs_f64()
        }
        Contestant::KeysetBatches => {
            client.batch_execute("ALTER TABLE item ADD COLUMN copy text").await?;
            let batch = |after: &str| {
                format!(
                    "WITH batch AS (SELECT id FROM item {after} ORDER BY id LIMIT 1000),
                          filled AS (UPDATE item SET copy = item.name FROM batch
                                      WHERE item.id = batch.id AND item.copy IS NULL)
                     SELECT max(id::text) AS last FROM (SELECT id FROM batch ORDER BY id DESC LIMIT 1) b"
                )
            };
            by_keys(&client, key, batch).await?
        }
        Contestant::TriggerTouch => {
            client.batch_execute("ALTER TABLE item ADD COLUMN copy text").await?;
            client.batch_execute(TRIGGER).await?;
            let batch = |after: &str| {
                format!(
                    "WITH batch AS (SELECT id FROM item {after} ORDER BY id LIMIT 1000 FOR NO KEY UPDATE),
                          touched AS (UPDATE item SET id = item.id FROM batch WHERE item.id = batch.id)
                     SELECT max(id::text) AS last FROM (SELECT id FROM batch ORDER BY id DESC LIMIT 1) b"
                )
            };
            by_keys(&client, key, batch).await?
        }
    };
    let unfilled: i64 =
        client.query_one("SELECT count(*) FROM item WHERE copy IS DISTINCT FROM name", &[]).await?.get(0);
    if unfilled > 0 {
        return Err(format!("{contestant:?} left {unfilled} rows").into());
    }
    Ok(seconds)
}

/// A trigger of the form that pgroll makes: written anew from what it does, for this table.
pub(crate) const TRIGGER: &str = r#"
    CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        "id" item.id%TYPE := NEW."id";
        "name" item.name%TYPE := NEW."name";
        "score" item.score%TYPE := NEW."score";
        "at" item.at%TYPE := NEW."at";
        latest_schema text := 'public_latest';
        search_path text;
    BEGIN
        SELECT current_setting INTO search_path FROM current_setting('search_path');
        IF search_path <> latest_schema THEN
            NEW."copy" = "name";
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON item FOR EACH ROW EXECUTE FUNCTION touch();
"#;

/// Batch after batch, each from the key on that the last one ended with.
async fn by_keys(client: &Client, key: Key, batch: impl Fn(&str) -> String) -> Result<f64> {
    // As ours do it.
    client.batch_execute("SET synchronous_commit = off").await?;
    let begun = Instant::now();
    let mut last: Option<String> = client.query_one(&batch(""), &[]).await?.get("last");
    let next = client.prepare(&batch(&format!("WHERE id > $1::text::{}", key.sql()))).await?;
    while let Some(after) = last {
        last = client.query_one(&next, &[&after]).await?.get("last");
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// Seconds from the first batch to the last, and those of the whole step, with its verification.
pub(crate) async fn phasewise(database: &Database, policy: BackfillPolicy) -> Result<(f64, f64)> {
    let times = std::sync::Arc::new(Mutex::new((None, 0.0, 0.0)));
    let heard = std::sync::Arc::clone(&times);
    let migrator = Migrator::connect(database.config(), NoTls, &COPY).backfill(policy).observe(
        move |event: &Event<'_>| {
            let mut times = heard.lock().expect("times");
            match event {
                Event::StepStarted { phase: "Backfill", .. } => times.0 = Some(Instant::now()),
                Event::BatchDone { .. } => {
                    times.1 = times.0.map_or(0.0, |begun: Instant| begun.elapsed().as_secs_f64());
                }
                Event::StepDone { phase: "Backfill", took, .. } => times.2 = took.as_secs_f64(),
                _ => {}
            }
        },
    );
    migrator.run_to("copy", "WriteNew").await?;
    migrator.confirm("copy", "WriteNew").await?;
    migrator.run().await?;
    let (_, batches, step) = *times.lock().expect("times");
    Ok((batches, step))
}
