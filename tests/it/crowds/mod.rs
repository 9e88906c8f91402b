//! Every release of every change beside its phases, on every kind of table: forward, back and on some kinds forward
//! again, with nothing failed or stale.

mod grounds;
#[macro_use]
mod releases;
mod scripts;

use phasewise::create_table::{Column, Constraint};
use phasewise::{
    AddColumn, AddIndex, ChangeType, CreateTable, DropColumn, RenameColumn, RunSql, add_column, change_type,
    drop_column, rename_column,
};

use self::grounds::Ground;
use self::scripts::{Lines, Script};
use crate::harness::Case;
use crate::harness::crowd::{Fire, Release, hold};

/// A module per change with a test per kind of table, and one of its releases on the first kind:
/// `change: script, builder, [deploy phases] => ground, …;`. The builder finds the names of the table at hand in `N`.
macro_rules! crowds {
    ($($change:ident: $script:expr, $builder:expr $(, [$($mark:ty),+])? => $($ground:ident),+;)+) => {$(
        mod $change {
            use super::*;

            $(
                #[tokio::test]
                async fn $ground() {
                    const N: grounds::Names = grounds::$ground().names;
                    static MIGRATIONS: phasewise::Migrations = phasewise::migrations![
                        phasewise::Migration::new(stringify!($change), $builder).not_deployed()
                    ];
                    static CASE: Case = Case { setup: &[], migrations: &MIGRATIONS, schema: "public" };
                    hold(fire(&CASE, &grounds::$ground(), &$script)).await;
                }
            )+

            #[tokio::test]
            async fn releases() {
                const GROUND: Ground = [$(grounds::$ground()),+][0];
                const N: grounds::Names = GROUND.names;
                builds!($change, $builder, $($($mark),+)?);
                releases::beside_every_phase(BUILDS, $builder, fire(&CASE, &GROUND, &$script)).await;
            }
        }
    )+};
}

crowds! {
    rename: scripts::RENAME, RenameColumn::new(N.table, N.a, N.b),
        [rename_column::WriteBoth, rename_column::SwitchReads, rename_column::StopOldWrites]
        => plain, composite, keyless, partitioned, partitioned_keyless, mixed_case, triggered, generated, empty, unique, foreign;
    rename_synced: scripts::RENAME_SYNCED, RenameColumn::new(N.table, N.a, N.b).kept_in_sync(),
        [rename_column::SwitchOver]
        => plain, composite, keyless, partitioned, partitioned_keyless, mixed_case, triggered, normalised, generated, empty, unique, foreign;
    retype: scripts::RETYPE, ChangeType::new(N.table, N.a, N.b, "bigint").up(N.widen).down(N.narrow),
        [change_type::WriteBoth, change_type::SwitchReads, change_type::StopOldWrites]
        => plain, composite, keyless, partitioned, mixed_case, triggered, generated, empty;
    retype_synced: scripts::RETYPE_SYNCED, ChangeType::new(N.table, N.a, N.b, "bigint").up(N.widen).down(N.narrow).kept_in_sync(),
        [change_type::SwitchOver]
        => plain, composite, keyless, partitioned, mixed_case, triggered, normalised, generated, empty, serial;
    retype_lossy: scripts::LOSSY, ChangeType::new(N.table, N.a, N.b, "bigint").up(N.widen).down(N.lossy).kept_in_sync(),
        [change_type::SwitchOver]
        => plain, composite, keyless, partitioned, mixed_case, triggered, normalised, generated, empty;
    // What has no way back is in the archive only, and found there by a key that stays.
    retype_parsed: scripts::PARSED, ChangeType::new(N.table, N.a, N.b, "int").up(N.parse).down(N.print).kept_in_sync(),
        [change_type::SwitchOver]
        => plain, composite, mixed_case, triggered, generated, empty;
    add_backfilled: scripts::ADD_FILLED, AddColumn::new(N.table, N.b, "text").backfill(N.was),
        [add_column::WriteNew, add_column::ReadNew]
        => plain, composite, keyless, partitioned, mixed_case, triggered, generated, empty;
    add_filled: scripts::ADD_FILLED, AddColumn::new(N.table, N.b, "text").backfill(N.was).not_null(),
        [add_column::WriteNew, add_column::ReadNew]
        => plain, composite, keyless, partitioned, mixed_case, triggered, generated, empty;
    add_constant: scripts::ADD_CONSTANT, AddColumn::new(N.table, N.b, "int").default("7").not_null()
        => plain, composite, keyless, partitioned, mixed_case, triggered, generated, empty;
    add_volatile: scripts::ADD_VOLATILE, AddColumn::new(N.table, N.b, "uuid").volatile_default("gen_random_uuid()").not_null()
        => plain, composite, keyless, partitioned, mixed_case, triggered, generated, empty;
    drop: scripts::DROP, DropColumn::new(N.table, N.a).restore_with("'restored'"),
        [drop_column::StopReads, drop_column::StopWrites]
        => plain, composite, keyless, partitioned, mixed_case, triggered, generated, empty;

    drop_quarantined: scripts::DROP, DropColumn::new(N.table, N.a).restore_with("'restored'").quarantine(),
        [drop_column::StopReads, drop_column::StopWrites]
        => plain, composite, keyless, partitioned, mixed_case, triggered, generated, empty;

    index: scripts::ELSEWHERE, AddIndex::new(N.table, "t_by_a").columns(&[N.a, N.note])
        => composite, keyless, partitioned, mixed_case, generated, empty;
    index_unique: scripts::ELSEWHERE, AddIndex::new(N.table, "t_by_a").columns(&["a", "id"]).unique()
        => plain;
    create: scripts::ELSEWHERE, CreateTable::new("u").columns([Column::new("id", "int").not_null()]).primary_key(&["id"])
        .constraints([Constraint::foreign_key("u_t", &["id"], N.table, &["id"])])
        => plain, triggered, empty;
    create_composite: scripts::ELSEWHERE, CreateTable::new("u").columns([Column::new("shop", "int"), Column::new("code", "text")])
        .constraints([Constraint::foreign_key("u_t", &["shop", "code"], N.table, &["shop", "code"])])
        => composite;
    create_partitioned: scripts::ELSEWHERE, CreateTable::new("u").columns([Column::new("id", "int"), Column::new("part", "int")])
        .constraints([Constraint::foreign_key("u_t", &["id", "part"], N.table, &["id", "part"])])
        => partitioned;
    create_mixed: scripts::ELSEWHERE, CreateTable::new("App Data.Line").columns([Column::new("Order", "int")])
        .constraints([Constraint::foreign_key("Of order", &["Order"], N.table, &["ID"])])
        => mixed_case;
    sql: scripts::ELSEWHERE, RunSql::new(N.asked).rollback(N.undone)
        => plain, composite, keyless, partitioned, mixed_case;
}

/// A script on a ground.
fn fire(case: &'static Case, ground: &Ground, script: &Script) -> Fire {
    let contents = if script.numbers { &ground.numbers } else { &ground.texts };
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let names = &ground.names;
    let sql = |template: &str| {
        // What comes first may have placeholders of its own.
        [
            ("{hop}", ground.hop.to_owned()),
            ("{is}", ground.is.to_owned()),
            ("{key}", ground.key.to_owned()),
            ("{values}", ground.values.to_owned()),
            ("{first}", contents.first.to_owned()),
            ("{check}", script.check.unwrap_or(contents.check).to_owned()),
            ("{declared}", script.declared.to_owned()),
            ("{type}", script.old.to_owned()),
            ("{new_type}", script.new.to_owned()),
            ("{t}", names.sql.to_owned()),
            ("{a}", quote(names.a)),
            ("{b}", quote(names.b)),
            ("{note}", quote(names.note)),
        ]
        .iter()
        .fold(template.to_owned(), |sql, (placeholder, is)| sql.replace(placeholder, is))
    };
    let release = |lines: &Lines| Release {
        insert: (sql(lines.insert.0), lines.insert.1),
        update: (sql(lines.update.0), lines.update.1),
        touch: sql(lines.touch),
        read: sql(lines.read),
        delete: sql(lines.delete),
    };
    let rows = format!("SELECT count(*) FROM (SELECT *, {} AS i FROM {{t}}) AS t WHERE ", ground.number);
    let (sees, tidied) = (script.sees, ground.tidied);
    Fire {
        case,
        setup: ground.setup.iter().map(|statement| sql(statement)).collect(),
        releases: script.releases.iter().map(release).collect(),
        value: script.value.unwrap_or(contents.value),
        sees: Box::new(move |release, value| sees(release, &tidied(value))),
        forgets: script.forgets,
        storm: ground.storm.then(|| ground.key.to_owned()),
        wrong: script.wrong.iter().map(|(wrong, phases)| (sql(&format!("{rows}{wrong}")), *phases)).collect(),
        barren: ground.barren,
        again: ground.again,
        irreversible: script.archives && ground.keyless,
    }
}
