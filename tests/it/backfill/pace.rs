//! How large batches are, how they rest, and how far they say that they are.

use phasewise::{Migration, Migrations, migrations};

use super::*;

/// Two milliseconds and a little for each row.
static SLOW: Migrations =
    migrations![Migration::new("slow", AddColumn::new("t", "b", "int").volatile_default("slow()"))];

async fn slow_rows(rows: u32) -> (Database, Client) {
    tables(&[
        "CREATE FUNCTION slow() RETURNS int LANGUAGE plpgsql VOLATILE AS 'BEGIN PERFORM pg_sleep(0.002); RETURN 1; END'",
        "CREATE TABLE t (id int PRIMARY KEY)",
        &format!("INSERT INTO t SELECT generate_series(1, {rows})"),
    ])
    .await
}

async fn sizes(rows: u32, policy: BackfillPolicy) -> Vec<Batch> {
    let (database, client) = slow_rows(rows).await;
    let (migrator, ears) = ears(migrator(&database, &SLOW, policy));
    fill(&migrator).await.expect("filled");
    drop(migrator);
    assert_eq!(one::<i64>(&client, "SELECT count(b) FROM t").await, i64::from(rows));
    let mut batches = batches(&ears.rest().await);
    // In the last page it meets the rows that it has written there, which take no time.
    batches.retain(|batch| batch.rows > 0);
    batches
}

const TARGET: Duration = Duration::from_millis(50);

/// By what the rows took here and now: on a busy machine they take longer, and the batches are smaller.
#[tokio::test]
async fn batches_come_near_their_time() {
    for first in [4, 200] {
        let policy = BackfillPolicy::unthrottled().between(1, 1_000).batch(first).target(TARGET);
        let batches = sizes(500, policy).await;
        assert!(batches[..3].iter().all(|batch| batch.next <= u64::from(first) * 8), "{batches:?}");
        for batch in &batches {
            assert!(u128::from(batch.rows) * 2 <= batch.took.as_millis(), "rows take 2 ms: {batch:?}");
            assert!(batch.took < TARGET * 2 || batch.next < batch.rows, "it did not shrink: {batch:?}");
        }
        let a_row = median(batches.iter().map(|batch| batch.took.as_secs_f64() / float(batch.rows)));
        let next = median(batches[2..batches.len() - 2].iter().map(|batch| float(batch.next)));
        let time = Duration::from_secs_f64(next * a_row);
        assert!((TARGET / 2..=TARGET * 2).contains(&time), "{time:?}: {batches:?}");
    }
}

fn float(rows: u64) -> f64 {
    f64::from(u32::try_from(rows).expect("few rows"))
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = of.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[tokio::test]
async fn batches_stay_within_their_bounds() {
    let small = sizes(150, BackfillPolicy::unthrottled().between(40, 45).target(TARGET / 10)).await;
    assert!(small[..3].iter().all(|batch| batch.next == 40), "{small:?}");
    let large = sizes(150, BackfillPolicy::unthrottled().between(5, 12).batch(5).target(TARGET * 100)).await;
    assert_eq!(large.iter().take(3).map(|batch| batch.next).collect::<Vec<_>>(), [10, 12, 12]);
}

/// It is cut, goes on with less, and does not run into it again and again.
#[tokio::test]
async fn a_batch_over_the_stall_budget_is_cut() {
    let (database, client) = slow_rows(600).await;
    let budget = Duration::from_millis(200);
    let policy = BackfillPolicy::unthrottled().between(300, 300);
    let (migrator, ears) = ears(migrator(&database, &SLOW, policy).stall_budget(budget));
    fill(&migrator).await.expect("filled");
    drop(migrator);
    let heard = ears.rest().await;
    let cut = heard.iter().filter(|heard| matches!(heard, Heard::Retry { .. })).count();
    assert!((2..=8).contains(&cut), "{heard:?}");
    assert_eq!(one::<i64>(&client, "SELECT count(b) FROM t").await, 600);
}

#[tokio::test]
async fn no_faster_than_the_rate_that_is_set() {
    let (database, client) = tables(&[
        "CREATE TABLE t (id int PRIMARY KEY, a int)",
        "INSERT INTO t SELECT i, i FROM generate_series(1, 200) i",
    ])
    .await;
    let migrator = migrator(&database, &FILL, fixed(20).max_rate(200));
    migrator.run_to("fill", "WriteNew").await.expect("the column is there");
    let begun = Instant::now();
    fill(&migrator).await.expect("filled");
    // The last batch is followed by no rest.
    assert!(begun.elapsed() >= Duration::from_millis(850), "{:?}", begun.elapsed());
    assert_filled(&client).await;
}

#[tokio::test]
async fn a_nice_one_rests_as_long_as_it_works() {
    let (database, _client) = slow_rows(120).await;
    let (migrator, ears) = ears(migrator(&database, &SLOW, fixed(20).nice(2.0)));
    let begun = Instant::now();
    fill(&migrator).await.expect("filled");
    let elapsed = begun.elapsed();
    drop(migrator);
    let batches = batches(&ears.rest().await);
    let worked: Duration = batches[..batches.len() - 1].iter().map(|batch| batch.took).sum();
    assert!(worked >= Duration::from_millis(200), "{batches:?}");
    assert!(elapsed >= worked * 3, "{elapsed:?} with {worked:?} of work");
}

async fn progress(analyze: &str, size: u32) {
    let (database, client) = tables(&[
        "CREATE TABLE t (id int PRIMARY KEY, a int, pad text) WITH (autovacuum_enabled = off)",
        "INSERT INTO t SELECT i, i, repeat('x', i % 100) FROM generate_series(1, 20000) i",
        analyze,
    ])
    .await;
    let (migrator, mut ears) = stepwise(migrator(&database, &FILL, fixed(size)));
    let other = migrator.clone();
    let running = filling(migrator);
    let near = |estimate: Option<u64>| estimate.is_some_and(|rows| (18_000..=22_000).contains(&rows));
    let size = u64::from(size);
    for nth in 1..=20_000 / size {
        let batch = ears.batch().await;
        assert_eq!(batch.done, nth * size);
        assert!(near(batch.estimate), "{batch:?}");
        assert_eq!(batch.rate.is_some(), nth > 1, "{batch:?}");
        if batch.done == 10_000 {
            let status = under_way(&other).await;
            assert_eq!((status.done, status.pass, status.batch), (10_000, 1, Some(size)), "{status:?}");
            assert!(near(status.estimate) && status.rate > Some(0.0) && status.left.is_some(), "{status:?}");
            assert!((9_000..=10_000).contains(&status.written), "{status:?}");
            let line = other.status().await.expect("a status").to_string();
            let (said, rest) = line.split_once("; backfill of public.t: 10000 rows of about ").expect(&line);
            assert!(said.starts_with("fill  2/3 WriteNew"), "{line}");
            assert!(
                rest.contains(" a second, about ") && rest.ends_with(&format!(" left, {size} a batch")),
                "{line}"
            );
        }
        ears.go();
    }
    ears.run();
    filled(running).await;
    assert_filled(&client).await;
    assert!(other.status().await.expect("a status").migrations[0].backfill.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_far_it_is_on_a_table_that_was_analyzed() {
    progress("ANALYZE t", 250).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_far_it_is_on_a_table_that_never_was() {
    progress("SELECT", 250).await;
}
