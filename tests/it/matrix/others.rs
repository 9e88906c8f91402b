//! The changes that replace no column.

use phasewise::add_index::IndexKey;
use phasewise::create_table::{Action, Column, Constraint};
use phasewise::{AddColumn, AddIndex, CreateTable, DropColumn, DropTable, RunSql};

use super::setups::*;
use crate::harness::{brief, exhaustive, one_way, thorough};

const ORDER: &str = "\"We\"ird.Schema\".Order";

exhaustive! {
    plain_fill: PLAIN, AddColumn::new("item", "locale", "varchar(10)").backfill("case when {num} > 20 then 'de' else 'en' end").not_null()
        .collate("C").check("item_locale", "{locale} in ('de', 'en') and {num} > 0").comment("it's new")
        => &["ALTER TABLE item ADD locale varchar(10) COLLATE \"C\"", "UPDATE item SET locale = CASE WHEN num > 20 THEN 'de' ELSE 'en' END", "ALTER TABLE item ALTER locale SET NOT NULL, ADD CONSTRAINT item_locale CHECK (locale IN ('de', 'en') AND num > 0)", "COMMENT ON COLUMN item.locale IS 'it''s new'"];
    plain_drop: PLAIN, DropColumn::new("item", "spare").restore_with("'m1'")
        => &["ALTER TABLE item DROP spare"];
    plain_quarantine: PLAIN, DropColumn::new("item", "spare").restore_with("'m1'").quarantine()
        => &["ALTER TABLE item DROP spare"];
    plain_drop_table: PLAIN, DropTable::new("part")
        => &["DROP TABLE part"];
    plain_quarantine_table: PLAIN, DropTable::new("part").quarantine()
        => &["DROP TABLE part"];
}

thorough! {
    plain_add: PLAIN, AddColumn::new("item", "extra", "numeric(8, 2)").check("item_extra", "{extra} > 0").comment("may be null")
        => &["ALTER TABLE item ADD extra numeric(8, 2) CONSTRAINT item_extra CHECK (extra > 0)", "COMMENT ON COLUMN item.extra IS 'may be null'"];
    plain_constant: PLAIN, AddColumn::new("item", "extra", "int").default("7").not_null()
        => &["ALTER TABLE item ADD extra int NOT NULL DEFAULT 7"];
    plain_volatile: PLAIN, AddColumn::new("item", "at", "timestamptz").volatile_default("clock_timestamp()").not_null()
        => &["ALTER TABLE item ADD at timestamptz NOT NULL DEFAULT clock_timestamp()"];
    plain_constant_text: PLAIN, AddColumn::new("item", "extra", "text").default("'it''s ' || '{}'").collate("C").check("item_extra", "{extra} <> {code}").comment("constant")
        => &["ALTER TABLE item ADD extra text COLLATE \"C\" DEFAULT ('it''s ' || '{}') CONSTRAINT item_extra CHECK (extra <> code)", "COMMENT ON COLUMN item.extra IS 'constant'"];
    plain_volatile_checked: PLAIN, AddColumn::new("item", "at", "uuid").volatile_default("gen_random_uuid()").check("item_at", "{at} is not null").comment("drawn")
        => &["ALTER TABLE item ADD at uuid DEFAULT gen_random_uuid() CONSTRAINT item_at CHECK (at IS NOT NULL)", "COMMENT ON COLUMN item.at IS 'drawn'"];
    plain_fill_nullable: PLAIN, AddColumn::new("item", "extra", "text").backfill("nullif({note}, 'nn')")
        => &["ALTER TABLE item ADD extra text", "UPDATE item SET extra = nullif(note, 'nn')"];
    partitioned_fill: PARTITIONED, AddColumn::new("event", "extra", "text").backfill("'x' || {code}").not_null().check("event_extra", "{extra} <> ''")
        => &["ALTER TABLE event ADD extra text", "UPDATE event SET extra = 'x' || code", "ALTER TABLE event ALTER extra SET NOT NULL, ADD CONSTRAINT event_extra CHECK (extra <> '')"];
    partitioned_drop: PARTITIONED, DropColumn::new("event", "spare")
        => &["ALTER TABLE event DROP spare"];
    weird_fill: WEIRD, AddColumn::new(ORDER, "Extra \"One\"", "text").backfill("{select} || '{}' || {from where}").not_null()
        => &["ALTER TABLE \"We\"\"ird.Schema\".\"Order\" ADD \"Extra \"\"One\"\"\" text", "UPDATE \"We\"\"ird.Schema\".\"Order\" SET \"Extra \"\"One\"\"\" = \"select\" || '{}' || \"from where\"", "ALTER TABLE \"We\"\"ird.Schema\".\"Order\" ALTER \"Extra \"\"One\"\"\" SET NOT NULL"];
    weird_drop: WEIRD, DropColumn::new(ORDER, "select").restore_with("'{}'")
        => &["ALTER TABLE \"We\"\"ird.Schema\".\"Order\" DROP \"select\""];
    plain_index: PLAIN, AddIndex::new("item", "item_skilled")
    .keys([
        IndexKey::expression("lower({code} || {spare})").opclass("text_pattern_ops").desc().nulls_last(),
        IndexKey::column("note").collate("C").nulls_first(),
    ])
    .include(&["num"])
    .where_("{num} > 2 and {spare} <> '{}'")
    .with(&[("fillfactor", "70")])
    .comment("it's skilled")
        => &["CREATE INDEX item_skilled ON item (lower(code || spare) text_pattern_ops DESC NULLS LAST, note COLLATE \"C\" NULLS FIRST) INCLUDE (num) WITH (fillfactor = 70) WHERE num > 2 AND spare <> '{}'", "COMMENT ON INDEX item_skilled IS 'it''s skilled'"];
    plain_unique: PLAIN, AddIndex::new("item", "item_note").columns(&["note", "maker"]).unique()
        => &["CREATE UNIQUE INDEX item_note ON item (note, maker)"];
    plain_gin: PLAIN, AddIndex::new("item", "item_gin").keys([IndexKey::expression("to_tsvector('simple', {note})")]).using("gin")
        => &["CREATE INDEX item_gin ON item USING gin (to_tsvector('simple', note))"];
    plain_hash: PLAIN, AddIndex::new("item", "item_note_hash").columns(&["note"]).using("hash")
        => &["CREATE INDEX item_note_hash ON item USING hash (note)"];
    plain_brin: PLAIN, AddIndex::new("item", "item_brin").keys([IndexKey::column("region").opclass("int4_minmax_multi_ops(values_per_range = 16)"), IndexKey::column("num")])
        .using("brin").with(&[("pages_per_range", "4"), ("autosummarize", "on")])
        => &["CREATE INDEX item_brin ON item USING brin (region int4_minmax_multi_ops (values_per_range = 16), num) WITH (pages_per_range = 4, autosummarize = on)"];
    partitioned_index: PARTITIONED, AddIndex::new("event", "event_new").columns(&["day", "kind", "code"]).unique().comment("on the parent")
        => &["CREATE UNIQUE INDEX event_new ON event (day, kind, code)", "COMMENT ON INDEX event_new IS 'on the parent'"];
    weird_index: WEIRD, AddIndex::new(ORDER, "USING \"(x)\"").columns(&["select", "from where"]).unique()
        => &["CREATE UNIQUE INDEX \"USING \"\"(x)\"\"\" ON \"We\"\"ird.Schema\".\"Order\" (\"select\", \"from where\")"];
    plain_create: PLAIN, CreateTable::new("basket")
    .columns([
        Column::new("id", "bigint").identity(),
        Column::new("number", "int").identity_by_default(),
        Column::new("Item Code", "varchar(20)").collate("C").not_null().default("'m1'").comment("what's in it"),
        Column::new("count", "int").not_null().default("1"),
        Column::new("twice", "int").generated("{count} * 2"),
        Column::new("parent", "bigint").comment("a tree"),
        Column::new("maker", "text").default("'none'"),
        Column::new("region", "int"),
        Column::new("num", "int"),
        Column::new("day", "date").not_null().default("current_date"),
    ])
    .primary_key(&["id"])
    .constraints([
        Constraint::unique("basket_day", &["day", "Item Code"]).deferrable(),
        Constraint::unique("basket_number", &["number"]).deferred(),
        Constraint::unique("basket_plain", &["day", "number"]),
        Constraint::check("basket_count", "{count} > 0 and {Item Code} <> '{}'"),
        Constraint::foreign_key("basket_item", &["Item Code"], "item", &["code"]).on_delete(Action::Cascade).on_update(Action::Cascade),
        Constraint::foreign_key("basket_parent", &["parent"], "basket", &["id"]).deferred(),
        Constraint::foreign_key("basket_maker", &["maker"], "maker", &["code"]).on_update(Action::Restrict).on_delete(Action::SetDefault).deferrable(),
        Constraint::foreign_key("basket_region", &["num", "region"], "maker", &["num", "region"]).on_update(Action::SetNull),
    ])
    .comment("one row's basket")
        => &[
        "CREATE TABLE basket (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            number int GENERATED BY DEFAULT AS IDENTITY,
            \"Item Code\" varchar(20) COLLATE \"C\" NOT NULL DEFAULT 'm1',
            count int NOT NULL DEFAULT 1,
            twice int GENERATED ALWAYS AS (count * 2) STORED,
            parent bigint,
            maker text DEFAULT 'none',
            region int,
            num int,
            day date NOT NULL DEFAULT current_date,
            CONSTRAINT basket_day UNIQUE (day, \"Item Code\") DEFERRABLE,
            CONSTRAINT basket_number UNIQUE (number) DEFERRABLE INITIALLY DEFERRED,
            CONSTRAINT basket_plain UNIQUE (day, number),
            CONSTRAINT basket_count CHECK (count > 0 AND \"Item Code\" <> '{}'),
            CONSTRAINT basket_item FOREIGN KEY (\"Item Code\") REFERENCES item (code) ON UPDATE CASCADE ON DELETE CASCADE,
            CONSTRAINT basket_parent FOREIGN KEY (parent) REFERENCES basket (id) DEFERRABLE INITIALLY DEFERRED,
            CONSTRAINT basket_maker FOREIGN KEY (maker) REFERENCES maker (code) ON UPDATE RESTRICT ON DELETE SET DEFAULT DEFERRABLE,
            CONSTRAINT basket_region FOREIGN KEY (num, region) REFERENCES maker (num, region) ON UPDATE SET NULL ON DELETE NO ACTION
        )",
        "COMMENT ON TABLE basket IS 'one row''s basket'",
        "COMMENT ON COLUMN basket.\"Item Code\" IS 'what''s in it'",
        "COMMENT ON COLUMN basket.parent IS 'a tree'",
    ];
    composite_fill: COMPOSITE, AddColumn::new("pair", "extra", "int").backfill("{a} + coalesce({num}, 0)").not_null()
        => &["ALTER TABLE pair ADD extra int", "UPDATE pair SET extra = a + coalesce(num, 0)", "ALTER TABLE pair ALTER extra SET NOT NULL"];
    composite_drop: COMPOSITE, DropColumn::new("pair", "spare")
        => &["ALTER TABLE pair DROP spare"];
    composite_drop_indexed: COMPOSITE, DropColumn::new("pair", "code")
        => &["ALTER TABLE pair DROP code"];
    keyless_fill: KEYLESS, AddColumn::new("heap", "extra", "text").backfill("coalesce({code}, '-')").not_null()
        => &["ALTER TABLE heap ADD extra text", "UPDATE heap SET extra = coalesce(code, '-')", "ALTER TABLE heap ALTER extra SET NOT NULL"];
    keyless_volatile: KEYLESS, AddColumn::new("heap", "extra", "double precision").volatile_default("random()")
        => &["ALTER TABLE heap ADD extra double precision DEFAULT random()"];
    triggered_fill: TRIGGERED, AddColumn::new("doc", "extra", "text").backfill("{code} || 'x'").not_null()
        => &["ALTER TABLE doc ADD extra text", "UPDATE doc SET extra = code || 'x'", "ALTER TABLE doc ALTER extra SET NOT NULL"];
    triggered_drop: TRIGGERED, DropColumn::new("doc", "spare")
        => &["ALTER TABLE doc DROP spare"];
    empty_fill: EMPTY, AddColumn::new("nothing", "extra", "text").backfill("{code}").not_null()
        => &["ALTER TABLE nothing ADD extra text NOT NULL"];
    empty_drop: EMPTY, DropColumn::new("nothing", "spare").restore_with("''")
        => &["ALTER TABLE nothing DROP spare"];
    weird_create: WEIRD, CreateTable::new("\"We\"ird.Schema\".\"select\"")
    .columns([Column::new("from", "text").not_null(), Column::new("Where", "int[]")])
    .primary_key(&["from"])
        => &["CREATE TABLE \"We\"\"ird.Schema\".\"select\" (\"from\" text PRIMARY KEY, \"Where\" int[])"];
    sql: PLAIN, RunSql::new(&["ALTER TABLE maker ADD COLUMN IF NOT EXISTS motto text", "COMMENT ON TABLE maker IS 'made'"])
        .rollback(&["COMMENT ON TABLE maker IS NULL", "ALTER TABLE maker DROP COLUMN IF EXISTS motto"])
        => &["ALTER TABLE maker ADD motto text", "COMMENT ON TABLE maker IS 'made'"];
    sql_alone: PLAIN, RunSql::new(&["CREATE INDEX CONCURRENTLY IF NOT EXISTS item_alone ON item (region, num)"])
        .rollback(&["DROP INDEX CONCURRENTLY IF EXISTS item_alone"]).outside_transaction().done_when("SELECT to_regclass('item_alone') IS NOT NULL")
        => &["CREATE INDEX item_alone ON item (region, num)"];
    plain_computed: PLAIN, AddColumn::new("item", "extra", "text").computed_from(&["region"])
        => &["ALTER TABLE item ADD extra text", "UPDATE item SET extra = 'computed ' || region"];
    composite_add: COMPOSITE, AddColumn::new("pair", "extra", "int").check("extra_check", "{extra} > 0").comment("may be null")
        => &["ALTER TABLE pair ADD extra int CONSTRAINT extra_check CHECK (extra > 0)", "COMMENT ON COLUMN pair.extra IS 'may be null'"];
    composite_constant: COMPOSITE, AddColumn::new("pair", "extra", "int").default("7").not_null()
        => &["ALTER TABLE pair ADD extra int NOT NULL DEFAULT 7"];
    composite_volatile: COMPOSITE, AddColumn::new("pair", "extra", "uuid").volatile_default("gen_random_uuid()").not_null()
        => &["ALTER TABLE pair ADD extra uuid NOT NULL DEFAULT gen_random_uuid()"];
    composite_computed: COMPOSITE, AddColumn::new("pair", "extra", "text").computed_from(&["a"])
        => &["ALTER TABLE pair ADD extra text", "UPDATE pair SET extra = 'computed ' || a"];
    keyless_add: KEYLESS, AddColumn::new("heap", "extra", "int").check("extra_check", "{extra} > 0").comment("may be null")
        => &["ALTER TABLE heap ADD extra int CONSTRAINT extra_check CHECK (extra > 0)", "COMMENT ON COLUMN heap.extra IS 'may be null'"];
    keyless_constant: KEYLESS, AddColumn::new("heap", "extra", "int").default("7").not_null()
        => &["ALTER TABLE heap ADD extra int NOT NULL DEFAULT 7"];
    keyless_computed: KEYLESS, AddColumn::new("heap", "extra", "text").computed_from(&["num"])
        => &["ALTER TABLE heap ADD extra text", "UPDATE heap SET extra = 'computed ' || num"];
    partitioned_add: PARTITIONED, AddColumn::new("event", "extra", "int").check("extra_check", "{extra} > 0").comment("may be null")
        => &["ALTER TABLE event ADD extra int CONSTRAINT extra_check CHECK (extra > 0)", "COMMENT ON COLUMN event.extra IS 'may be null'"];
    partitioned_constant: PARTITIONED, AddColumn::new("event", "extra", "int").default("7").not_null()
        => &["ALTER TABLE event ADD extra int NOT NULL DEFAULT 7"];
    partitioned_volatile: PARTITIONED, AddColumn::new("event", "extra", "uuid").volatile_default("gen_random_uuid()").not_null()
        => &["ALTER TABLE event ADD extra uuid NOT NULL DEFAULT gen_random_uuid()"];
    partitioned_computed: PARTITIONED, AddColumn::new("event", "extra", "text").computed_from(&["id"])
        => &["ALTER TABLE event ADD extra text", "UPDATE event SET extra = 'computed ' || id"];
    triggered_add: TRIGGERED, AddColumn::new("doc", "extra", "int").check("extra_check", "{extra} > 0").comment("may be null")
        => &["ALTER TABLE doc ADD extra int CONSTRAINT extra_check CHECK (extra > 0)", "COMMENT ON COLUMN doc.extra IS 'may be null'"];
    triggered_constant: TRIGGERED, AddColumn::new("doc", "extra", "int").default("7").not_null()
        => &["ALTER TABLE doc ADD extra int NOT NULL DEFAULT 7"];
    triggered_volatile: TRIGGERED, AddColumn::new("doc", "extra", "uuid").volatile_default("gen_random_uuid()").not_null()
        => &["ALTER TABLE doc ADD extra uuid NOT NULL DEFAULT gen_random_uuid()"];
    triggered_computed: TRIGGERED, AddColumn::new("doc", "extra", "text").computed_from(&["id"])
        => &["ALTER TABLE doc ADD extra text", "UPDATE doc SET extra = 'computed ' || id"];
    generated_add: GENERATED, AddColumn::new("price", "extra", "int").check("extra_check", "{extra} > 0").comment("may be null")
        => &["ALTER TABLE price ADD extra int CONSTRAINT extra_check CHECK (extra > 0)", "COMMENT ON COLUMN price.extra IS 'may be null'"];
    generated_constant: GENERATED, AddColumn::new("price", "extra", "int").default("7").not_null()
        => &["ALTER TABLE price ADD extra int NOT NULL DEFAULT 7"];
    generated_volatile: GENERATED, AddColumn::new("price", "extra", "uuid").volatile_default("gen_random_uuid()").not_null()
        => &["ALTER TABLE price ADD extra uuid NOT NULL DEFAULT gen_random_uuid()"];
    generated_computed: GENERATED, AddColumn::new("price", "extra", "text").computed_from(&["twice"])
        => &["ALTER TABLE price ADD extra text", "UPDATE price SET extra = 'computed ' || twice"];
    generated_fill: GENERATED, AddColumn::new("price", "extra", "int").backfill("{twice} + 1").not_null()
        => &["ALTER TABLE price ADD extra int", "UPDATE price SET extra = twice + 1", "ALTER TABLE price ALTER extra SET NOT NULL"];
    empty_add: EMPTY, AddColumn::new("nothing", "extra", "int").check("extra_check", "{extra} > 0").comment("may be null")
        => &["ALTER TABLE nothing ADD extra int CONSTRAINT extra_check CHECK (extra > 0)", "COMMENT ON COLUMN nothing.extra IS 'may be null'"];
    empty_constant: EMPTY, AddColumn::new("nothing", "extra", "int").default("7").not_null()
        => &["ALTER TABLE nothing ADD extra int NOT NULL DEFAULT 7"];
    empty_volatile: EMPTY, AddColumn::new("nothing", "extra", "uuid").volatile_default("gen_random_uuid()").not_null()
        => &["ALTER TABLE nothing ADD extra uuid NOT NULL DEFAULT gen_random_uuid()"];
    empty_computed: EMPTY, AddColumn::new("nothing", "extra", "text").computed_from(&["id"])
        => &["ALTER TABLE nothing ADD extra text", "UPDATE nothing SET extra = 'computed ' || id"];
    drawn_add: DRAWN, AddColumn::new("drawn", "extra", "int").check("extra_check", "{extra} > 0").comment("may be null")
        => &["ALTER TABLE drawn ADD extra int CONSTRAINT extra_check CHECK (extra > 0)", "COMMENT ON COLUMN drawn.extra IS 'may be null'"];
    drawn_constant: DRAWN, AddColumn::new("drawn", "extra", "int").default("7").not_null()
        => &["ALTER TABLE drawn ADD extra int NOT NULL DEFAULT 7"];
    drawn_volatile: DRAWN, AddColumn::new("drawn", "extra", "uuid").volatile_default("gen_random_uuid()").not_null()
        => &["ALTER TABLE drawn ADD extra uuid NOT NULL DEFAULT gen_random_uuid()"];
    drawn_computed: DRAWN, AddColumn::new("drawn", "extra", "text").computed_from(&["ref"])
        => &["ALTER TABLE drawn ADD extra text", "UPDATE drawn SET extra = 'computed ' || ref"];
    drawn_fill: DRAWN, AddColumn::new("drawn", "extra", "int").backfill("{ref} + 1").not_null()
        => &["ALTER TABLE drawn ADD extra int", "UPDATE drawn SET extra = ref + 1", "ALTER TABLE drawn ALTER extra SET NOT NULL"];
    weird_add: WEIRD, AddColumn::new(ORDER, "extra", "int").check("extra_check", "{extra} > 0").comment("may be null")
        => &["ALTER TABLE \"We\"\"ird.Schema\".\"Order\" ADD extra int CONSTRAINT extra_check CHECK (extra > 0)", "COMMENT ON COLUMN \"We\"\"ird.Schema\".\"Order\".extra IS 'may be null'"];
    weird_constant: WEIRD, AddColumn::new(ORDER, "extra", "int").default("7").not_null()
        => &["ALTER TABLE \"We\"\"ird.Schema\".\"Order\" ADD extra int NOT NULL DEFAULT 7"];
    weird_volatile: WEIRD, AddColumn::new(ORDER, "extra", "uuid").volatile_default("gen_random_uuid()").not_null()
        => &["ALTER TABLE \"We\"\"ird.Schema\".\"Order\" ADD extra uuid NOT NULL DEFAULT gen_random_uuid()"];
    weird_computed: WEIRD, AddColumn::new(ORDER, "extra", "text").computed_from(&["ID"])
        => &["ALTER TABLE \"We\"\"ird.Schema\".\"Order\" ADD extra text", "UPDATE \"We\"\"ird.Schema\".\"Order\" SET extra = 'computed ' || \"ID\""];
    composite_index: COMPOSITE, AddIndex::new("pair", "pair_new").columns(&["num", "a"]).where_("{num} > 2").comment("new")
        => &["CREATE INDEX pair_new ON pair (num, a) WHERE num > 2", "COMMENT ON INDEX pair_new IS 'new'"];
    keyless_index: KEYLESS, AddIndex::new("heap", "heap_new").columns(&["code", "num"]).where_("{num} > 2").comment("new")
        => &["CREATE INDEX heap_new ON heap (code, num) WHERE num > 2", "COMMENT ON INDEX heap_new IS 'new'"];
    triggered_index: TRIGGERED, AddIndex::new("doc", "doc_new").columns(&["code", "updated_at"]).where_("{num} > 2").comment("new")
        => &["CREATE INDEX doc_new ON doc (code, updated_at) WHERE num > 2", "COMMENT ON INDEX doc_new IS 'new'"];
    generated_index: GENERATED, AddIndex::new("price", "price_new").columns(&["gross", "twice"]).where_("{gross} > 2").comment("new")
        => &["CREATE INDEX price_new ON price (gross, twice) WHERE gross > 2", "COMMENT ON INDEX price_new IS 'new'"];
    empty_index: EMPTY, AddIndex::new("nothing", "nothing_new").columns(&["num", "code"]).where_("{num} > 2").comment("new")
        => &["CREATE INDEX nothing_new ON nothing (num, code) WHERE num > 2", "COMMENT ON INDEX nothing_new IS 'new'"];
    drawn_index: DRAWN, AddIndex::new("drawn", "drawn_new").columns(&["ref", "token"]).where_("{num} > 2").comment("new")
        => &["CREATE INDEX drawn_new ON drawn (ref, token) WHERE num > 2", "COMMENT ON INDEX drawn_new IS 'new'"];
    composite_quarantine: COMPOSITE, DropColumn::new("pair", "code").quarantine()
        => &["ALTER TABLE pair DROP code"];
    partitioned_quarantine: PARTITIONED, DropColumn::new("event", "spare").quarantine()
        => &["ALTER TABLE event DROP spare"];
    weird_quarantine: WEIRD, DropColumn::new(ORDER, "select").restore_with("'{}'").quarantine()
        => &["ALTER TABLE \"We\"\"ird.Schema\".\"Order\" DROP \"select\""];
    triggered_quarantine: TRIGGERED, DropColumn::new("doc", "spare").quarantine()
        => &["ALTER TABLE doc DROP spare"];
    generated_quarantine: GENERATED, DropColumn::new("price", "code").quarantine()
        => &["ALTER TABLE price DROP code"];
    empty_quarantine: EMPTY, DropColumn::new("nothing", "spare").restore_with("''").quarantine()
        => &["ALTER TABLE nothing DROP spare"];
    drawn_quarantine: DRAWN, DropColumn::new("drawn", "num").quarantine()
        => &["ALTER TABLE drawn DROP num"];
    composite_drop_table: COMPOSITE, DropTable::new("pair")
        => &["DROP TABLE pair"];
    keyless_drop_table: KEYLESS, DropTable::new("heap").quarantine()
        => &["DROP TABLE heap"];
    partitioned_drop_table: PARTITIONED, DropTable::new("event")
        => &["DROP TABLE event"];
    partitioned_quarantine_table: PARTITIONED, DropTable::new("event").quarantine()
        => &["DROP TABLE event"];
    weird_drop_table: WEIRD, DropTable::new(ORDER).quarantine()
        => &["DROP TABLE \"We\"\"ird.Schema\".\"Order\""];
    triggered_drop_table: TRIGGERED, DropTable::new("doc")
        => &["DROP TABLE doc"];
    generated_drop_table: GENERATED, DropTable::new("price")
        => &["DROP TABLE price"];
    empty_drop_table: EMPTY, DropTable::new("nothing")
        => &["DROP TABLE nothing"];
    drawn_drop_table: DRAWN, DropTable::new("drawn").quarantine()
        => &["DROP TABLE drawn"];
    generated_drop: GENERATED, DropColumn::new("price", "spare").restore_with("'s'")
        => &["ALTER TABLE price DROP spare"];
    generated_drop_checked: GENERATED, DropColumn::new("price", "code")
        => &["ALTER TABLE price DROP code"];
    drawn_drop: DRAWN, DropColumn::new("drawn", "num")
        => &["ALTER TABLE drawn DROP num"];
    drawn_drop_token: DRAWN, DropColumn::new("drawn", "token")
        => &["ALTER TABLE drawn DROP token"];
    composite_create: COMPOSITE, CreateTable::new("other").columns([Column::new("x", "int"), Column::new("y", "text")])
        .constraints([Constraint::foreign_key("other_pair", &["x", "y"], "pair", &["a", "b"]).on_delete(Action::Cascade)])
        => &["CREATE TABLE other (x int, y text, CONSTRAINT other_pair FOREIGN KEY (x, y) REFERENCES pair (a, b) ON DELETE CASCADE)"];
    partitioned_create: PARTITIONED, CreateTable::new("other").columns([Column::new("day", "date"), Column::new("kind", "int"), Column::new("id", "int")])
        .constraints([Constraint::foreign_key("other_event", &["day", "kind", "id"], "event", &["day", "kind", "id"])])
        => &["CREATE TABLE other (day date, kind int, id int, CONSTRAINT other_event FOREIGN KEY (day, kind, id) REFERENCES event (day, kind, id))"];
    triggered_create: TRIGGERED, CreateTable::new("other").columns([Column::new("doc", "int")])
        .constraints([Constraint::foreign_key("other_doc", &["doc"], "doc", &["id"])])
        => &["CREATE TABLE other (doc int, CONSTRAINT other_doc FOREIGN KEY (doc) REFERENCES doc (id))"];
    generated_create: GENERATED, CreateTable::new("other").columns([Column::new("twice", "int")])
        .constraints([Constraint::foreign_key("other_twice", &["twice"], "price", &["twice"])])
        => &["CREATE TABLE other (twice int, CONSTRAINT other_twice FOREIGN KEY (twice) REFERENCES price (twice))"];
    empty_create: EMPTY, CreateTable::new("other").columns([Column::new("code", "varchar(20)")])
        .constraints([Constraint::foreign_key("other_code", &["code"], "nothing", &["code"])])
        => &["CREATE TABLE other (code varchar(20), CONSTRAINT other_code FOREIGN KEY (code) REFERENCES nothing (code))"];
    drawn_create: DRAWN, CreateTable::new("other").columns([Column::new("num", "int")])
        .constraints([Constraint::foreign_key("other_num", &["num"], "drawn", &["num"])])
        => &["CREATE TABLE other (num int, CONSTRAINT other_num FOREIGN KEY (num) REFERENCES drawn (num))"];
    weird_create_referring: WEIRD, CreateTable::new("\"We\"ird.Schema\".\"Other One\"").columns([Column::new("From", "int")])
        .constraints([Constraint::foreign_key("to \"it\"", &["From"], ORDER, &["ID"])])
        => &["CREATE TABLE \"We\"\"ird.Schema\".\"Other One\" (\"From\" int, CONSTRAINT \"to \"\"it\"\"\" FOREIGN KEY (\"From\") REFERENCES \"We\"\"ird.Schema\".\"Order\" (\"ID\"))"];
    sql_long: KEYLESS, RunSql::new(&["UPDATE heap SET spare = 't'"]).rollback(&["UPDATE heap SET spare = 's'"]).long_running()
        => &["UPDATE heap SET spare = 't'"];
    sql_parted: PARTITIONED, RunSql::new(&["CREATE TABLE IF NOT EXISTS event_q3 PARTITION OF event FOR VALUES FROM ('2027-07-01') TO ('2027-10-01')"])
        .rollback(&["DROP TABLE IF EXISTS event_q3"])
        => &["CREATE TABLE event_q3 PARTITION OF event FOR VALUES FROM ('2027-07-01') TO ('2027-10-01')"];
}

// What the table has no key for cannot be put back; nor can what a user says so of.
one_way! {
    keyless_drop: KEYLESS, DropColumn::new("heap", "spare")
        => &["ALTER TABLE heap DROP spare"];
    keyless_quarantine: KEYLESS, DropColumn::new("heap", "spare").quarantine()
        => &["ALTER TABLE heap DROP spare"];
    sql_irreversible: KEYLESS, RunSql::new(&["DELETE FROM heap WHERE num = 1"]).irreversible("gone")
        => &["DELETE FROM heap WHERE num = 1"];
}

brief! {
    drop_array: TYPES, DropColumn::new("types", "arr")
        => &["ALTER TABLE types DROP arr"];
    drop_collated: TYPES, DropColumn::new("types", "collated")
        => &["ALTER TABLE types DROP collated"];
    drop_json: TYPES, DropColumn::new("types", "plain_json")
        => &["ALTER TABLE types DROP plain_json"];
    drop_enum: TYPES, DropColumn::new("types", "en")
        => &["ALTER TABLE types DROP en"];
    drop_uuid: TYPES, DropColumn::new("types", "uid")
        => &["ALTER TABLE types DROP uid"];
    drop_range: TYPES, DropColumn::new("types", "rng")
        => &["ALTER TABLE types DROP rng"];
    drop_bits: TYPES, DropColumn::new("types", "bits")
        => &["ALTER TABLE types DROP bits"];
}

/// Postgres 14 knows no NULLS NOT DISTINCT.
mod plain_nulls_not_distinct {
    crate::harness::case!(
        plain_nulls_not_distinct,
        PLAIN,
        AddIndex::new("item", "item_lone")
            .columns(&["note", "parent_num"])
            .nulls_not_distinct()
            .include(&["num"])
            .where_("{num} > 40")
    );

    #[tokio::test]
    async fn as_asked() {
        if crate::harness::is_one_of(150_000..).await {
            let asked = "CREATE UNIQUE INDEX item_lone ON item (note, parent_num) INCLUDE (num) NULLS NOT DISTINCT WHERE num > 40";
            crate::harness::twin::as_asked(&CASE, &[asked]).await;
        }
    }
}
