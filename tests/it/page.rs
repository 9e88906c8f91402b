//! What docs/rolling-deploys.md shows is what a reader gets.

use std::time::Duration;

use phasewise::testing::Database;
use phasewise::{Migration, Migrations, Migrator, RenameColumn, migrations, rename_column};

use crate::harness::{database, migrator, run};

const RENAME: RenameColumn = RenameColumn::new("users", "name", "full_name");
const NAME: &str = "20261122_users_full_name";

static RELEASE: [Migrations; 4] = [
    migrations![Migration::new(NAME, RENAME).not_deployed()],
    migrations![Migration::new(NAME, RENAME).deployed::<rename_column::WriteBoth>()],
    migrations![Migration::new(NAME, RENAME).deployed::<rename_column::SwitchReads>()],
    migrations![Migration::new(NAME, RENAME).deployed::<rename_column::StopOldWrites>()],
];

fn build(database: &Database, release: usize) -> Migrator {
    migrator(database, &RELEASE[release]).instance("api")
}

/// The page's blocks of output.
fn shown() -> Vec<&'static str> {
    let page = include_str!("../../docs/rolling-deploys.md");
    page.split("```text\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}

/// Ids and times as the page writes them.
fn plain(text: &str) -> String {
    let is_id = |word: &str| word.len() == 36 && word.matches('-').count() == 4;
    let is_time = |word: &str| word.len() == 20 && word.ends_with('Z') && word.contains('T');
    let word = |word: &str| {
        let bare = word.trim_end_matches([',', '.', ':', ';']);
        let rest = &word[bare.len()..];
        match bare {
            bare if is_id(bare) => format!("<id>{rest}"),
            bare if is_time(bare) => format!("<time>{rest}"),
            _ => word.to_owned(),
        }
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

async fn status(migrator: Migrator) -> String {
    plain(&migrator.status().await.expect("a status").to_string())
}

#[tokio::test]
async fn what_a_rolling_deploy_shows() {
    let database = database().await;
    let client = database.connect().await.expect("a connection");
    run(&client, "CREATE TABLE users (id int PRIMARY KEY, name text)").await;
    let settles = |release| build(&database, release).settle(Duration::from_secs(3600));

    let old = build(&database, 0).start().await.unwrap();
    let new = build(&database, 1).start().await.unwrap();
    let while_it_rolls = status(settles(1)).await;
    let refused = plain(&build(&database, 2).start().await.unwrap_err().to_string());
    old.leave().await.unwrap();
    drop(client);
    let settling = status(settles(1)).await;
    build(&database, 1).run().await.unwrap();
    let next = status(build(&database, 1)).await;
    let newer = build(&database, 2).start().await.unwrap();
    new.leave().await.unwrap();
    build(&database, 2).run().await.unwrap();
    let newest = build(&database, 3).start().await.unwrap();
    newer.leave().await.unwrap();
    let soaks = status(build(&database, 3).soak(Duration::from_secs(14 * 24 * 3600))).await;
    newest.leave().await.unwrap();

    assert_eq!([while_it_rolls, settling, next, soaks, refused], shown()[..]);
}
