//! What the releases of an application say beside each change.
//!
//! `{t}`, `{a}`, `{b}` and `{note}` are the table and its columns, `{type}` and `{new_type}` the types of `{a}` and
//! `{b}`; `{key}`, `{values}`, `{is}` and `{hop}` are the table's own, as is `{first}`, row `i`'s value at the start.

use crate::harness::crowd::Leaves;

/// One release's statements, for any table.
#[derive(Clone, Copy)]
pub(super) struct Lines {
    pub(super) insert: (&'static str, Leaves),
    pub(super) update: (&'static str, Leaves),
    pub(super) touch: &'static str,
    pub(super) read: &'static str,
    pub(super) delete: &'static str,
}

pub(super) struct Script {
    pub(super) releases: &'static [Lines],
    /// Column `{a}` as it is declared, its type, and that of `{b}`.
    pub(super) declared: &'static str,
    pub(super) old: &'static str,
    pub(super) new: &'static str,
    /// A check on `{a}`, where the one of what the table holds does not survive the change.
    pub(super) check: Option<&'static str>,
    /// Whether `{a}` holds numbers.
    pub(super) numbers: bool,
    /// The value number `n` as that release writes it, where it is not what the table holds anyway.
    pub(super) value: Option<fn(u16, u64) -> String>,
    pub(super) sees: fn(u16, &str) -> Option<String>,
    pub(super) forgets: fn(&str) -> Option<String>,
    /// Where a row is wrong, and the phases in which none may be.
    pub(super) wrong: &'static [(&'static str, &'static [&'static str])],
    /// Whether the change drops what only a key brings back.
    pub(super) archives: bool,
}

const fn lines(insert: &'static str, update: &'static str, read: &'static str) -> Lines {
    Lines {
        insert: (insert, Leaves::Written),
        update: (update, Leaves::Written),
        touch: "UPDATE {t} SET {note} = $2{hop} WHERE {is}",
        read,
        delete: "DELETE FROM {t} WHERE {is}",
    }
}

const OLD: Lines = lines(
    "INSERT INTO {t} ({key}, {a}) VALUES ({values}, $2::{type})",
    "UPDATE {t} SET {a} = $2::{type}{hop} WHERE {is}",
    "SELECT {a}::text FROM {t} WHERE {is}",
);
const BOTH: Lines = lines(
    "INSERT INTO {t} ({key}, {a}, {b}) VALUES ({values}, $2::{type}, $2::{new_type})",
    "UPDATE {t} SET {a} = $2::{type}, {b} = $2::{new_type}{hop} WHERE {is}",
    OLD.read,
);
const BOTH_NEW: Lines = Lines { read: NEW.read, ..BOTH };
const NEW: Lines = lines(
    "INSERT INTO {t} ({key}, {b}) VALUES ({values}, $2::{new_type})",
    "UPDATE {t} SET {b} = $2::{new_type}{hop} WHERE {is}",
    "SELECT {b}::text FROM {t} WHERE {is}",
);

/// The phases in which both columns are kept and must agree.
const KEPT: &[&str] = &["Backfill", "SwitchReads", "SwitchOver"];
/// Rows that nobody but the migration wrote.
const UNTOUCHED: &str = "i >= 100 AND {a}::text IS DISTINCT FROM ({first})::text";

const PLAIN: Script = Script {
    releases: &[OLD],
    declared: "text NOT NULL",
    old: "text",
    new: "text",
    check: None,
    numbers: false,
    value: None,
    sees: |_, value| Some(value.to_owned()),
    forgets: |value| Some(value.to_owned()),
    wrong: &[],
    archives: false,
};

const RENAMED: Script = Script { wrong: &[("{a} IS DISTINCT FROM {b}", KEPT), (UNTOUCHED, KEPT)], ..PLAIN };
pub(super) const RENAME: Script = Script { releases: &[OLD, BOTH, BOTH_NEW, NEW], ..RENAMED };
pub(super) const RENAME_SYNCED: Script = Script { releases: &[OLD, NEW], ..RENAMED };

const RETYPED: Script =
    Script { declared: "int NOT NULL DEFAULT 3", old: "int", new: "bigint", numbers: true, ..RENAMED };
pub(super) const RETYPE: Script = Script { releases: RENAME.releases, ..RETYPED };
pub(super) const RETYPE_SYNCED: Script = Script { releases: &[OLD, NEW], ..RETYPED };

/// The new release writes what the old one has no value for.
pub(super) const LOSSY: Script = Script {
    declared: "int",
    value: Some(|release, n| {
        match (release, n % 2) {
            (0, _) | (_, 0) => n % 1_000_000,
            _ => n + (1 << 31),
        }
        .to_string()
    }),
    sees: |release, value| {
        fits(value).filter(|_| release == 0).or_else(|| (release == 1).then(|| value.to_owned()))
    },
    // The new column goes, and with it what only that one could hold.
    forgets: fits,
    wrong: &[
        (
            "{b} IS DISTINCT FROM {a} AND ({b} IS NULL OR {a} IS DISTINCT FROM CASE WHEN {b} < 2147483648 THEN {b} END)",
            KEPT,
        ),
        (UNTOUCHED, KEPT),
    ],
    ..RETYPE_SYNCED
};

fn fits(value: &str) -> Option<String> {
    value.parse::<i32>().ok().map(|_| value.to_owned())
}

/// The old release writes what the new one has no value for.
pub(super) const PARSED: Script = Script {
    releases: &[OLD, NEW],
    declared: "text",
    new: "int",
    check: Some("pg_column_size({a}) < 100"),
    value: Some(|release, n| match (release, n % 2) {
        (0, 1) => format!("v{n}"),
        _ => (n % 1_000_000).to_string(),
    }),
    sees: |release, value| Some(value.to_owned()).filter(|_| release == 0 || fits(value).is_some()),
    wrong: &[("{b}::text IS DISTINCT FROM CASE WHEN {a} ~ '^[0-9]+$' THEN {a} END", KEPT), (UNTOUCHED, KEPT)],
    ..PLAIN
};

const ADDED: Lines = lines(
    "INSERT INTO {t} ({key}, {a}, {b}) VALUES ({values}, 'x', $2)",
    "UPDATE {t} SET {b} = $2{hop} WHERE {is}",
    "SELECT {b} FROM {t} WHERE {is}",
);
/// Release 0 knows nothing of the column; 1 falls back where it reads null; 2 relies on it.
pub(super) const ADD_FILLED: Script = Script {
    releases: &[
        Lines {
            insert: ("INSERT INTO {t} ({key}, {a}) VALUES ({values}, 'x')", Leaves::Value("was x")),
            update: ("UPDATE {t} SET {note} = $2{hop} WHERE {is}", Leaves::Untouched),
            read: "",
            ..ADDED
        },
        Lines { read: "SELECT coalesce({b}, 'was ' || {a}) FROM {t} WHERE {is}", ..ADDED },
        ADDED,
    ],
    forgets: |_| Some("was x".to_owned()),
    wrong: &[
        ("{b} IS NULL", &["Backfill", "ReadNew", "EnforceNotNull"]),
        ("i >= 100 AND {b} IS DISTINCT FROM 'was ' || {first}", &["Backfill", "ReadNew", "EnforceNotNull"]),
    ],
    ..PLAIN
};
pub(super) const ADD_VOLATILE: Script = Script {
    wrong: &[("{b} IS NULL", &["Backfill", "EnforceNotNull"]), (UNTOUCHED, &["EnforceNotNull"])],
    ..PLAIN
};
pub(super) const ADD_CONSTANT: Script =
    Script { wrong: &[("{b} IS DISTINCT FROM 7", &["AddWithDefault"])], ..PLAIN };

/// Release 0 uses the column, 1 writes it only, 2 does neither.
pub(super) const DROP: Script = Script {
    releases: &[
        OLD,
        Lines { read: "", ..OLD },
        Lines {
            insert: ("INSERT INTO {t} ({key}, {note}) VALUES ({values}, $2)", Leaves::Value("restored")),
            // A row whose key another one has, or another row's key, is not told apart in the archive: no hops, and
            // no row that comes again.
            update: ("UPDATE {t} SET {note} = $2 WHERE {is}", Leaves::Untouched),
            touch: "UPDATE {t} SET {note} = $2 WHERE {is}",
            read: "",
            delete: "",
        },
    ],
    wrong: &[("{a} IS NULL", &["StopReads"]), (UNTOUCHED, &["StopReads", "StopWrites"])],
    archives: true,
    ..PLAIN
};

/// Release 0 uses the table, 1 says nothing of it.
pub(super) const DROP_TABLE: Script =
    Script { releases: &[OLD, Lines { touch: "", delete: "", ..lines("", "", "") }], ..PLAIN };

/// The change is none of the application's business.
pub(super) const ELSEWHERE: Script = PLAIN;
