//! The changes that replace no column.

use phasewise::add_index::IndexKey;
use phasewise::create_table::{Action, Column, Constraint};
use phasewise::{AddColumn, AddIndex, CreateTable, DropColumn, RunSql};

use super::setups::*;
use crate::harness::{brief, steady, thorough};

const ORDER: &str = "\"We\"ird.Schema\".Order";

thorough! {
    plain_fill: PLAIN, AddColumn::new("item", "locale", "varchar(10)").backfill("case when {num} > 20 then 'de' else 'en' end").not_null()
        .collate("C").check("item_locale", "{locale} in ('de', 'en') and {num} > 0").comment("it's new");
    plain_drop: PLAIN, DropColumn::new("item", "spare").restore_with("'m1'");
}

steady! {
    plain_add: PLAIN, AddColumn::new("item", "extra", "numeric(8, 2)").check("item_extra", "{extra} > 0").comment("may be null");
    plain_constant: PLAIN, AddColumn::new("item", "extra", "int").default("7").not_null();
    plain_volatile: PLAIN, AddColumn::new("item", "at", "timestamptz").volatile_default("clock_timestamp()").not_null();
    plain_fill_nullable: PLAIN, AddColumn::new("item", "extra", "text").backfill("nullif({note}, 'nn')");
    partitioned_fill: PARTITIONED, AddColumn::new("event", "extra", "text").backfill("'x' || {code}").not_null().check("event_extra", "{extra} <> ''");
    partitioned_drop: PARTITIONED, DropColumn::new("event", "spare");
    weird_fill: WEIRD, AddColumn::new(ORDER, "Extra \"One\"", "text").backfill("{select} || '{}' || {from where}").not_null();
    weird_drop: WEIRD, DropColumn::new(ORDER, "select").restore_with("'{}'");
    plain_index: PLAIN, AddIndex::new("item", "item_skilled")
    .keys([
        IndexKey::expression("lower({code} || {spare})").opclass("text_pattern_ops").desc().nulls_last(),
        IndexKey::column("note").collate("C").nulls_first(),
    ])
    .include(&["num"])
    .where_("{num} > 2 and {spare} <> '{}'")
    .with(&[("fillfactor", "70")])
    .comment("it's skilled");
    plain_unique: PLAIN, AddIndex::new("item", "item_note").columns(&["note", "maker"]).unique();
    plain_gin: PLAIN, AddIndex::new("item", "item_gin").keys([IndexKey::expression("to_tsvector('simple', {note})")]).using("gin");
    partitioned_index: PARTITIONED, AddIndex::new("event", "event_new").columns(&["day", "kind", "code"]).unique().comment("on the parent");
    weird_index: WEIRD, AddIndex::new(ORDER, "USING \"(x)\"").columns(&["select", "from where"]).unique();
    plain_create: PLAIN, CreateTable::new("basket")
    .columns([
        Column::new("id", "bigint").identity(),
        Column::new("Item Code", "varchar(20)").collate("C").not_null().default("'m1'").comment("what's in it"),
        Column::new("count", "int").not_null().default("1"),
        Column::new("twice", "int").generated("{count} * 2"),
        Column::new("parent", "bigint"),
        Column::new("day", "date").not_null().default("current_date"),
    ])
    .primary_key(&["id"])
    .constraints([
        Constraint::unique("basket_day", &["day", "Item Code"]).deferrable(),
        Constraint::check("basket_count", "{count} > 0 and {Item Code} <> '{}'"),
        Constraint::foreign_key("basket_item", &["Item Code"], "item", &["code"]).on_delete(Action::Cascade).on_update(Action::Cascade),
        Constraint::foreign_key("basket_parent", &["parent"], "basket", &["id"]).deferred(),
    ])
    .comment("one row's basket");
}

brief! {
    composite_fill: COMPOSITE, AddColumn::new("pair", "extra", "int").backfill("{a} + coalesce({num}, 0)").not_null();
    composite_drop: COMPOSITE, DropColumn::new("pair", "spare");
    composite_drop_indexed: COMPOSITE, DropColumn::new("pair", "code");
    keyless_fill: KEYLESS, AddColumn::new("heap", "extra", "text").backfill("coalesce({code}, '-')").not_null();
    keyless_volatile: KEYLESS, AddColumn::new("heap", "extra", "double precision").volatile_default("random()");
    triggered_fill: TRIGGERED, AddColumn::new("doc", "extra", "text").backfill("{code} || 'x'").not_null();
    triggered_drop: TRIGGERED, DropColumn::new("doc", "spare");
    empty_fill: EMPTY, AddColumn::new("nothing", "extra", "text").backfill("{code}").not_null();
    empty_drop: EMPTY, DropColumn::new("nothing", "spare").restore_with("''");
    drop_array: TYPES, DropColumn::new("types", "arr");
    drop_collated: TYPES, DropColumn::new("types", "collated");
    drop_json: TYPES, DropColumn::new("types", "plain_json");
    drop_enum: TYPES, DropColumn::new("types", "en");
    drop_uuid: TYPES, DropColumn::new("types", "uid");
    drop_range: TYPES, DropColumn::new("types", "rng");
    drop_bits: TYPES, DropColumn::new("types", "bits");
    weird_create: WEIRD, CreateTable::new("\"We\"ird.Schema\".\"select\"")
    .columns([Column::new("from", "text").not_null(), Column::new("Where", "int[]")])
    .primary_key(&["from"]);
    sql: PLAIN, RunSql::new(&["ALTER TABLE maker ADD COLUMN IF NOT EXISTS motto text", "COMMENT ON TABLE maker IS 'made'"])
        .rollback(&["COMMENT ON TABLE maker IS NULL", "ALTER TABLE maker DROP COLUMN IF EXISTS motto"]);
    sql_alone: PLAIN, RunSql::new(&["CREATE INDEX CONCURRENTLY IF NOT EXISTS item_alone ON item (region, num)"])
        .rollback(&["DROP INDEX CONCURRENTLY IF EXISTS item_alone"]).outside_transaction().done_when("SELECT to_regclass('item_alone') IS NOT NULL");
}
