//! `RenameColumn` and `ChangeType`, in both forms.

use phasewise::{ChangeType, RenameColumn};

use super::setups::*;
use crate::harness::{brief, exhaustive, thorough};

exhaustive! {
    plain_rename: PLAIN, RenameColumn::new("item", "code", "label")
        => &["ALTER TABLE item RENAME code TO label"];
    plain_rename_synced: PLAIN, RenameColumn::new("item", "code", "label").kept_in_sync()
        => &["ALTER TABLE item RENAME code TO label"];
    // Postgres itself forgets a statistics object's target when a type changes.
    plain_retype: PLAIN, ChangeType::new("item", "num", "big", "bigint").up("{num}::bigint").down("case when {big} between -2147483648 and 2147483647 then {big}::int end")
        => &["ALTER TABLE item ALTER num DROP DEFAULT, ALTER num TYPE bigint USING num::bigint, ALTER num SET DEFAULT 1::bigint", "ALTER TABLE item RENAME num TO big", "ALTER STATISTICS item_together SET STATISTICS 300"];
    plain_retype_synced: PLAIN, ChangeType::new("item", "num", "big", "bigint").up("{num}::bigint").down("case when {big} between -2147483648 and 2147483647 then {big}::int end").kept_in_sync()
        => &["ALTER TABLE item ALTER num DROP DEFAULT, ALTER num TYPE bigint USING num::bigint, ALTER num SET DEFAULT 1::bigint", "ALTER TABLE item RENAME num TO big", "ALTER STATISTICS item_together SET STATISTICS 300"];
    partitioned_rename_synced: PARTITIONED, RenameColumn::new("event", "code", "label").kept_in_sync()
        => &["ALTER TABLE event RENAME code TO label"];
    partitioned_retype: PARTITIONED, ChangeType::new("event", "num", "big", "bigint").up("{num}::bigint").down("{big}::int")
        => &["ALTER TABLE event ALTER num DROP DEFAULT, ALTER num TYPE bigint USING num::bigint, ALTER num SET DEFAULT 0::bigint", "ALTER TABLE event RENAME num TO big"];
}

thorough! {
    composite_retype: COMPOSITE, ChangeType::new("pair", "num", "big", "bigint").up("{num}::bigint").down("{big}::int")
        => &["ALTER TABLE pair ALTER num TYPE bigint USING num::bigint", "ALTER TABLE pair RENAME num TO big"];
    composite_retype_synced: COMPOSITE, ChangeType::new("pair", "num", "big", "bigint").up("{num}::bigint").down("{big}::int").kept_in_sync()
        => &["ALTER TABLE pair ALTER num TYPE bigint USING num::bigint", "ALTER TABLE pair RENAME num TO big"];
    partitioned_rename: PARTITIONED, RenameColumn::new("event", "code", "label")
        => &["ALTER TABLE event RENAME code TO label"];
    partitioned_retype_synced: PARTITIONED, ChangeType::new("event", "num", "big", "bigint").up("{num}::bigint").down("{big}::int").kept_in_sync()
        => &["ALTER TABLE event ALTER num DROP DEFAULT, ALTER num TYPE bigint USING num::bigint, ALTER num SET DEFAULT 0::bigint", "ALTER TABLE event RENAME num TO big"];
    weird_rename: WEIRD, RenameColumn::new("\"We\"ird.Schema\".Order", "select", "Group By")
        => &["ALTER TABLE \"We\"\"ird.Schema\".\"Order\" RENAME \"select\" TO \"Group By\""];
    weird_rename_synced: WEIRD, RenameColumn::new("\"We\"ird.Schema\".Order", "select", "Group \"By\"").kept_in_sync()
        => &["ALTER TABLE \"We\"\"ird.Schema\".\"Order\" RENAME \"select\" TO \"Group \"\"By\"\"\""];
    weird_retype: WEIRD, ChangeType::new("\"We\"ird.Schema\".Order", "Num", "table", "bigint").up("{Num}::bigint").down("{table}::int")
        => &["ALTER TABLE \"We\"\"ird.Schema\".\"Order\" ALTER \"Num\" TYPE bigint USING \"Num\"::bigint", "ALTER TABLE \"We\"\"ird.Schema\".\"Order\" RENAME \"Num\" TO \"table\""];
    weird_retype_synced: WEIRD, ChangeType::new("\"We\"ird.Schema\".Order", "Num", "table", "bigint").up("{Num}::bigint").down("{table}::int").kept_in_sync()
        => &["ALTER TABLE \"We\"\"ird.Schema\".\"Order\" ALTER \"Num\" TYPE bigint USING \"Num\"::bigint", "ALTER TABLE \"We\"\"ird.Schema\".\"Order\" RENAME \"Num\" TO \"table\""];
    triggered_retype_synced: TRIGGERED, ChangeType::new("doc", "num", "big", "bigint").up("{num}::bigint").down("{big}::int").kept_in_sync()
        => &["ALTER TABLE doc ALTER num TYPE bigint USING num::bigint", "ALTER TABLE doc RENAME num TO big"];
    serial_retype: DRAWN, ChangeType::new("drawn", "num", "big", "bigint").up("{num}::bigint").down("{big}::int").kept_in_sync()
        => &["ALTER TABLE drawn ALTER num TYPE bigint USING num::bigint", "ALTER TABLE drawn RENAME num TO big", "ALTER SEQUENCE drawn_num_seq AS bigint"];
    identity_retype: DRAWN, ChangeType::new("drawn", "ref", "big", "bigint").up("{ref}::bigint").down("{big}::int").kept_in_sync()
        => &["ALTER TABLE drawn ALTER ref TYPE bigint USING ref::bigint", "ALTER TABLE drawn RENAME ref TO big"];
    always_retype: DRAWN, ChangeType::new("drawn", "strict", "big", "bigint").up("{strict}::bigint").down("{big}::smallint").kept_in_sync()
        => &["ALTER TABLE drawn ALTER strict TYPE bigint USING strict::bigint", "ALTER TABLE drawn RENAME strict TO big"];
    plain_retype_text: PLAIN, ChangeType::new("part", "qty", "amount", "text").up("{qty}::text").down("{amount}::int")
        => &["ALTER TABLE part ALTER qty TYPE text USING qty::text", "ALTER TABLE part RENAME qty TO amount"];
    composite_rename: COMPOSITE, RenameColumn::new("pair", "code", "label")
        => &["ALTER TABLE pair RENAME code TO label"];
    composite_rename_synced: COMPOSITE, RenameColumn::new("pair", "code", "label").kept_in_sync()
        => &["ALTER TABLE pair RENAME code TO label"];
    keyless_rename: KEYLESS, RenameColumn::new("heap", "code", "label")
        => &["ALTER TABLE heap RENAME code TO label"];
    keyless_rename_synced: KEYLESS, RenameColumn::new("heap", "code", "label").kept_in_sync()
        => &["ALTER TABLE heap RENAME code TO label"];
    keyless_retype: KEYLESS, ChangeType::new("heap", "num", "big", "bigint").up("{num}::bigint").down("{big}::int")
        => &["ALTER TABLE heap ALTER num TYPE bigint USING num::bigint", "ALTER TABLE heap RENAME num TO big"];
    keyless_retype_synced: KEYLESS, ChangeType::new("heap", "num", "big", "bigint").up("{num}::bigint").down("{big}::int").kept_in_sync()
        => &["ALTER TABLE heap ALTER num TYPE bigint USING num::bigint", "ALTER TABLE heap RENAME num TO big"];
    triggered_rename: TRIGGERED, RenameColumn::new("doc", "code", "label")
        => &["ALTER TABLE doc RENAME code TO label"];
    triggered_rename_synced: TRIGGERED, RenameColumn::new("doc", "code", "label").kept_in_sync()
        => &["ALTER TABLE doc RENAME code TO label"];
    empty_rename: EMPTY, RenameColumn::new("nothing", "code", "label")
        => &["ALTER TABLE nothing RENAME code TO label"];
    empty_rename_synced: EMPTY, RenameColumn::new("nothing", "code", "label").kept_in_sync()
        => &["ALTER TABLE nothing RENAME code TO label"];
    empty_retype: EMPTY, ChangeType::new("nothing", "num", "big", "bigint").up("{num}::bigint").down("{big}::int")
        => &["ALTER TABLE nothing ALTER num TYPE bigint USING num::bigint", "ALTER TABLE nothing RENAME num TO big"];
    empty_retype_synced: EMPTY, ChangeType::new("nothing", "num", "big", "bigint").up("{num}::bigint").down("{big}::int").kept_in_sync()
        => &["ALTER TABLE nothing ALTER num TYPE bigint USING num::bigint", "ALTER TABLE nothing RENAME num TO big"];
    serial_rename: DRAWN, RenameColumn::new("drawn", "num", "number").kept_in_sync()
        => &["ALTER TABLE drawn RENAME num TO number"];
    identity_rename: DRAWN, RenameColumn::new("drawn", "ref", "reference").kept_in_sync()
        => &["ALTER TABLE drawn RENAME ref TO reference"];
    token_rename: DRAWN, RenameColumn::new("drawn", "token", "secret").kept_in_sync()
        => &["ALTER TABLE drawn RENAME token TO secret"];
    triggered_retype: TRIGGERED, ChangeType::new("doc", "num", "big", "bigint").up("{num}::bigint").down("{big}::int")
        => &["ALTER TABLE doc ALTER num TYPE bigint USING num::bigint", "ALTER TABLE doc RENAME num TO big"];
    generated_rename: GENERATED, RenameColumn::new("price", "code", "label")
        => &["ALTER TABLE price RENAME code TO label"];
    generated_rename_synced: GENERATED, RenameColumn::new("price", "code", "label").kept_in_sync()
        => &["ALTER TABLE price RENAME code TO label"];
    generated_retype: GENERATED, ChangeType::new("price", "num", "big", "bigint").up("{num}::bigint").down("{big}::int")
        => &["ALTER TABLE price ALTER num TYPE bigint USING num::bigint", "ALTER TABLE price RENAME num TO big"];
    generated_retype_synced: GENERATED, ChangeType::new("price", "num", "big", "bigint").up("{num}::bigint").down("{big}::int").kept_in_sync()
        => &["ALTER TABLE price ALTER num TYPE bigint USING num::bigint", "ALTER TABLE price RENAME num TO big"];
    always_rename: DRAWN, RenameColumn::new("drawn", "strict", "rigid").kept_in_sync()
        => &["ALTER TABLE drawn RENAME strict TO rigid"];
}

brief! {
    varchar_rename: TYPES, RenameColumn::new("types", "vc", "vc2")
        => &["ALTER TABLE types RENAME vc TO vc2"];
    varchar_retype: TYPES, ChangeType::new("types", "vc", "vc2", "varchar(10)").up("{vc}").down("left({vc2}, 5)").kept_in_sync()
        => &["ALTER TABLE types ALTER vc DROP DEFAULT, ALTER vc TYPE varchar(10) USING vc, ALTER vc SET DEFAULT 'vc'::varchar(5)", "ALTER TABLE types RENAME vc TO vc2"];
    numeric_rename: TYPES, RenameColumn::new("types", "nu", "nu2").kept_in_sync()
        => &["ALTER TABLE types RENAME nu TO nu2"];
    numeric_retype: TYPES, ChangeType::new("types", "nu", "cents", "bigint").up("({nu} * 100)::bigint").down("{cents} / 100.0").kept_in_sync()
        => &["ALTER TABLE types ALTER nu DROP DEFAULT, ALTER nu TYPE bigint USING (nu * 100)::bigint, ALTER nu SET DEFAULT (1.50::numeric(8, 2) * 100)::bigint", "ALTER TABLE types RENAME nu TO cents"];
    collated_rename: TYPES, RenameColumn::new("types", "collated", "collated2").kept_in_sync()
        => &["ALTER TABLE types RENAME collated TO collated2"];
    collated_retype: TYPES, ChangeType::new("types", "collated", "collated2", "varchar(40)").up("{collated}").down("{collated2}")
        => &["ALTER TABLE types ALTER collated TYPE varchar(40) COLLATE german USING collated", "ALTER TABLE types RENAME collated TO collated2"];
    jsonb_rename: TYPES, RenameColumn::new("types", "js", "js2").kept_in_sync()
        => &["ALTER TABLE types RENAME js TO js2"];
    json_rename: TYPES, RenameColumn::new("types", "plain_json", "json2").kept_in_sync()
        => &["ALTER TABLE types RENAME plain_json TO json2"];
    json_retype: TYPES, ChangeType::new("types", "plain_json", "jb", "jsonb").up("{plain_json}::jsonb").down("{jb}::json")
        => &["ALTER TABLE types ALTER plain_json TYPE jsonb USING plain_json::jsonb", "ALTER TABLE types RENAME plain_json TO jb"];
    timestamp_rename: TYPES, RenameColumn::new("types", "ts", "ts2")
        => &["ALTER TABLE types RENAME ts TO ts2"];
    timestamp_retype: TYPES, ChangeType::new("types", "ts", "at", "timestamp").up("{ts} AT TIME ZONE 'UTC'").down("{at} AT TIME ZONE 'UTC'").kept_in_sync().without(&["types_date_trunc_idx"])
        => &["DROP INDEX types_date_trunc_idx", "ALTER TABLE types ALTER ts DROP DEFAULT, ALTER ts TYPE timestamp USING ts AT TIME ZONE 'UTC', ALTER ts SET DEFAULT '2026-01-01 12:00+02'::timestamptz AT TIME ZONE 'UTC'", "ALTER TABLE types RENAME ts TO at"];
    timestamp_text: TYPES, ChangeType::new("types", "ts", "at", "text").up("{ts}::text").down("{at}::timestamptz").kept_in_sync().without(&["types_date_trunc_idx"])
        => &["DROP INDEX types_date_trunc_idx", "ALTER TABLE types ALTER ts DROP DEFAULT, ALTER ts TYPE text USING ts::text, ALTER ts SET DEFAULT '2026-01-01 12:00+02'::timestamptz::text", "ALTER TABLE types RENAME ts TO at"];
    enum_rename: TYPES, RenameColumn::new("types", "en", "feeling").kept_in_sync()
        => &["ALTER TABLE types RENAME en TO feeling"];
    enum_retype: TYPES, ChangeType::new("types", "en", "feeling", "text").up("{en}::text").down("{feeling}::mood").kept_in_sync().without(&["types_en_idx"])
        => &["DROP INDEX types_en_idx", "ALTER TABLE types ALTER en DROP DEFAULT, ALTER en TYPE text USING en::text, ALTER en SET DEFAULT 'ok'::mood::text", "ALTER TABLE types RENAME en TO feeling"];
    array_rename: TYPES, RenameColumn::new("types", "arr", "numbers").kept_in_sync()
        => &["ALTER TABLE types RENAME arr TO numbers"];
    array_retype: TYPES, ChangeType::new("types", "arr", "numbers", "bigint[]").up("{arr}::bigint[]").down("{numbers}::int[]").kept_in_sync()
        => &["ALTER TABLE types ALTER arr DROP DEFAULT, ALTER arr TYPE bigint[] USING arr::bigint[], ALTER arr SET DEFAULT '{1,NULL,3}'::int[]::bigint[]", "ALTER TABLE types RENAME arr TO numbers"];
    float_rename: TYPES, RenameColumn::new("types", "fl", "float").kept_in_sync()
        => &["ALTER TABLE types RENAME fl TO float"];
    bits_rename: TYPES, RenameColumn::new("types", "bits", "bits2").kept_in_sync()
        => &["ALTER TABLE types RENAME bits TO bits2"];
    char_retype: TYPES, ChangeType::new("types", "ch", "text", "text").up("{ch}::text").down("left({text}, 4)::char(4)").kept_in_sync()
        => &["ALTER TABLE types ALTER ch DROP DEFAULT, ALTER ch TYPE text USING ch::text, ALTER ch SET DEFAULT 'x '::char(4)::text", "ALTER TABLE types RENAME ch TO text"];
    range_rename: TYPES, RenameColumn::new("types", "rng", "span").kept_in_sync()
        => &["ALTER TABLE types RENAME rng TO span"];
    point_rename: TYPES, RenameColumn::new("types", "pt", "place").kept_in_sync()
        => &["ALTER TABLE types RENAME pt TO place"];
    interval_rename: TYPES, RenameColumn::new("types", "iv", "every").kept_in_sync()
        => &["ALTER TABLE types RENAME iv TO every"];
    uuid_retype: TYPES, ChangeType::new("types", "uid", "uid_text", "text").up("{uid}::text").down("{uid_text}::uuid").kept_in_sync()
        => &["ALTER TABLE types ALTER uid TYPE text USING uid::text", "ALTER TABLE types RENAME uid TO uid_text"];
}

/// Postgres 14 knows no `SET NULL` of some columns.
mod set_null_of_some {
    crate::harness::case!(
        set_null_of_some,
        &[
            "CREATE TABLE maker (region int, code text, PRIMARY KEY (region, code))",
            "CREATE TABLE item (
                id int PRIMARY KEY, region int NOT NULL, code text,
                FOREIGN KEY (region, code) REFERENCES maker ON DELETE SET NULL (code) DEFERRABLE
            )",
            "INSERT INTO maker VALUES (1, 'a')",
            "INSERT INTO item VALUES (1, 1, 'a'), (2, 1, NULL)",
        ],
        RenameColumn::new("item", "code", "label")
    );

    #[tokio::test]
    async fn as_asked() {
        if crate::harness::is_one_of(150_000..).await {
            let asked = "ALTER TABLE item RENAME code TO label";
            crate::harness::twin::as_asked(&CASE, &[asked]).await;
        }
    }
}
