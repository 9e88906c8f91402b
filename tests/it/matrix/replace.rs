//! `RenameColumn` and `ChangeType`, in both forms.

use phasewise::{ChangeType, RenameColumn};

use super::setups::*;
use crate::harness::{brief, steady, thorough};

thorough! {
    plain_rename: PLAIN, RenameColumn::new("item", "code", "label");
    plain_rename_synced: PLAIN, RenameColumn::new("item", "code", "label").kept_in_sync();
    plain_retype: PLAIN, ChangeType::new("item", "num", "big", "bigint").up("{num}::bigint").down("case when {big} between -2147483648 and 2147483647 then {big}::int end");
    plain_retype_synced: PLAIN, ChangeType::new("item", "num", "big", "bigint").up("{num}::bigint").down("case when {big} between -2147483648 and 2147483647 then {big}::int end").kept_in_sync();
    partitioned_rename_synced: PARTITIONED, RenameColumn::new("event", "code", "label").kept_in_sync();
    partitioned_retype: PARTITIONED, ChangeType::new("event", "num", "big", "bigint").up("{num}::bigint").down("{big}::int");
}

steady! {
    composite_retype: COMPOSITE, ChangeType::new("pair", "num", "big", "bigint").up("{num}::bigint").down("{big}::int");
    composite_retype_synced: COMPOSITE, ChangeType::new("pair", "num", "big", "bigint").up("{num}::bigint").down("{big}::int").kept_in_sync();
    partitioned_rename: PARTITIONED, RenameColumn::new("event", "code", "label");
    partitioned_retype_synced: PARTITIONED, ChangeType::new("event", "num", "big", "bigint").up("{num}::bigint").down("{big}::int").kept_in_sync();
    weird_rename: WEIRD, RenameColumn::new("\"We\"ird.Schema\".Order", "select", "Group By");
    weird_rename_synced: WEIRD, RenameColumn::new("\"We\"ird.Schema\".Order", "select", "Group \"By\"").kept_in_sync();
    weird_retype: WEIRD, ChangeType::new("\"We\"ird.Schema\".Order", "Num", "table", "bigint").up("{Num}::bigint").down("{table}::int");
    weird_retype_synced: WEIRD, ChangeType::new("\"We\"ird.Schema\".Order", "Num", "table", "bigint").up("{Num}::bigint").down("{table}::int").kept_in_sync();
    triggered_retype_synced: TRIGGERED, ChangeType::new("doc", "num", "big", "bigint").up("{num}::bigint").down("{big}::int").kept_in_sync();
    serial_retype: DRAWN, ChangeType::new("drawn", "num", "big", "bigint").up("{num}::bigint").down("{big}::int").kept_in_sync();
    identity_retype: DRAWN, ChangeType::new("drawn", "ref", "big", "bigint").up("{ref}::bigint").down("{big}::int").kept_in_sync();
    always_retype: DRAWN, ChangeType::new("drawn", "strict", "big", "bigint").up("{strict}::bigint").down("{big}::smallint").kept_in_sync();
}

brief! {
    plain_retype_text: PLAIN, ChangeType::new("part", "qty", "amount", "text").up("{qty}::text").down("{amount}::int");
    composite_rename: COMPOSITE, RenameColumn::new("pair", "code", "label");
    composite_rename_synced: COMPOSITE, RenameColumn::new("pair", "code", "label").kept_in_sync();
    keyless_rename: KEYLESS, RenameColumn::new("heap", "code", "label");
    keyless_rename_synced: KEYLESS, RenameColumn::new("heap", "code", "label").kept_in_sync();
    keyless_retype: KEYLESS, ChangeType::new("heap", "num", "big", "bigint").up("{num}::bigint").down("{big}::int");
    keyless_retype_synced: KEYLESS, ChangeType::new("heap", "num", "big", "bigint").up("{num}::bigint").down("{big}::int").kept_in_sync();
    triggered_rename: TRIGGERED, RenameColumn::new("doc", "code", "label");
    triggered_rename_synced: TRIGGERED, RenameColumn::new("doc", "code", "label").kept_in_sync();
    empty_rename: EMPTY, RenameColumn::new("nothing", "code", "label");
    empty_rename_synced: EMPTY, RenameColumn::new("nothing", "code", "label").kept_in_sync();
    empty_retype: EMPTY, ChangeType::new("nothing", "num", "big", "bigint").up("{num}::bigint").down("{big}::int");
    empty_retype_synced: EMPTY, ChangeType::new("nothing", "num", "big", "bigint").up("{num}::bigint").down("{big}::int").kept_in_sync();
    serial_rename: DRAWN, RenameColumn::new("drawn", "num", "number").kept_in_sync();
    identity_rename: DRAWN, RenameColumn::new("drawn", "ref", "reference").kept_in_sync();
    volatile_rename: DRAWN, RenameColumn::new("drawn", "token", "secret").kept_in_sync();
    varchar_rename: TYPES, RenameColumn::new("types", "vc", "vc2");
    varchar_retype: TYPES, ChangeType::new("types", "vc", "vc2", "varchar(10)").up("{vc}").down("left({vc2}, 5)").kept_in_sync();
    numeric_rename: TYPES, RenameColumn::new("types", "nu", "nu2").kept_in_sync();
    numeric_retype: TYPES, ChangeType::new("types", "nu", "cents", "bigint").up("({nu} * 100)::bigint").down("{cents} / 100.0").kept_in_sync();
    collated_rename: TYPES, RenameColumn::new("types", "collated", "collated2").kept_in_sync();
    collated_retype: TYPES, ChangeType::new("types", "collated", "collated2", "varchar(40)").up("{collated}").down("{collated2}");
    jsonb_rename: TYPES, RenameColumn::new("types", "js", "js2").kept_in_sync();
    json_rename: TYPES, RenameColumn::new("types", "plain_json", "json2").kept_in_sync();
    json_retype: TYPES, ChangeType::new("types", "plain_json", "jb", "jsonb").up("{plain_json}::jsonb").down("{jb}::json");
    timestamp_rename: TYPES, RenameColumn::new("types", "ts", "ts2");
    timestamp_retype: TYPES, ChangeType::new("types", "ts", "at", "timestamp").up("{ts} AT TIME ZONE 'UTC'").down("{at} AT TIME ZONE 'UTC'").kept_in_sync().without(&["types_date_trunc_idx"]);
    timestamp_text: TYPES, ChangeType::new("types", "ts", "at", "text").up("{ts}::text").down("{at}::timestamptz").kept_in_sync().without(&["types_date_trunc_idx"]);
    enum_rename: TYPES, RenameColumn::new("types", "en", "feeling").kept_in_sync();
    enum_retype: TYPES, ChangeType::new("types", "en", "feeling", "text").up("{en}::text").down("{feeling}::mood").kept_in_sync().without(&["types_en_idx"]);
    array_rename: TYPES, RenameColumn::new("types", "arr", "numbers").kept_in_sync();
    array_retype: TYPES, ChangeType::new("types", "arr", "numbers", "bigint[]").up("{arr}::bigint[]").down("{numbers}::int[]").kept_in_sync();
    float_rename: TYPES, RenameColumn::new("types", "fl", "float").kept_in_sync();
    bits_rename: TYPES, RenameColumn::new("types", "bits", "bits2").kept_in_sync();
    char_retype: TYPES, ChangeType::new("types", "ch", "text", "text").up("{ch}::text").down("left({text}, 4)::char(4)").kept_in_sync();
    range_rename: TYPES, RenameColumn::new("types", "rng", "span").kept_in_sync();
    point_rename: TYPES, RenameColumn::new("types", "pt", "place").kept_in_sync();
    interval_rename: TYPES, RenameColumn::new("types", "iv", "every").kept_in_sync();
    uuid_retype: TYPES, ChangeType::new("types", "uid", "uid_text", "text").up("{uid}::text").down("{uid_text}::uuid").kept_in_sync();
}
