//! Every release of every change beside its phases: forward, back and forward again, with nothing failed or stale.

use phasewise::{
    AddColumn, AddIndex, ChangeType, CreateTable, DropColumn, RenameColumn, RunSql, create_table,
};

use crate::harness::Case;
use crate::harness::crowd::{Fire, Leaves, Release, hold};

const fn release(insert: &'static str, update: &'static str, read: &'static str) -> Release {
    Release {
        insert: (insert, Leaves::Written),
        update: (update, Leaves::Written),
        read,
        delete: "DELETE FROM t WHERE id = $1::int",
    }
}

/// `name: setup, change, releases, value, (disagree, phases);`
macro_rules! fires {
    ($($name:ident: $setup:expr, $change:expr, $releases:expr, $value:expr, $disagree:expr;)+) => {$(
        #[tokio::test]
        async fn $name() {
            static MIGRATIONS: phasewise::Migrations =
                phasewise::migrations![phasewise::Migration::new(stringify!($name), $change).not_deployed()];
            static FIRE: Fire = Fire {
                case: Case { setup: $setup, migrations: &MIGRATIONS, schema: "public" },
                releases: $releases,
                value: $value,
                disagree: $disagree,
            };
            hold(&FIRE).await;
        }
    )+};
}

const TEXT: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, a text NOT NULL, note text)",
    "CREATE INDEX ON t (a)",
    "ALTER TABLE t ADD CHECK (a <> '')",
    "INSERT INTO t SELECT i, 'old ' || i FROM generate_series(100, 400) i",
];
/// The same rows may move between partitions.
const PARTS: &[&str] = &[
    "CREATE TABLE t (id int NOT NULL, a text NOT NULL, note text, part int NOT NULL DEFAULT 0) PARTITION BY LIST (part)",
    "CREATE TABLE t0 PARTITION OF t FOR VALUES IN (0)",
    "CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)",
    "CREATE INDEX ON t (a)",
    "INSERT INTO t (id, a, part) SELECT i, 'old ' || i, i % 2 FROM generate_series(100, 400) i",
];
const KEYLESS: &[&str] = &[
    "CREATE TABLE t (id int, a text, note text)",
    "INSERT INTO t SELECT i, 'old' FROM generate_series(100, 200) i",
];
const TIDY: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, a text NOT NULL, note text, at timestamptz)",
    "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.at := clock_timestamp(); NEW.note := 'stamped'; RETURN NEW; END$$",
    "CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION stamp()",
    "INSERT INTO t SELECT i, 'old ' || i FROM generate_series(100, 300) i",
];
const NUMBER: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL DEFAULT 3, note text)",
    "CREATE INDEX ON t (a)",
    "ALTER TABLE t ADD CHECK (a >= 0)",
    "INSERT INTO t SELECT i, i FROM generate_series(100, 400) i",
];
const SERIAL: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, a serial, note text)",
    "INSERT INTO t (id) SELECT i FROM generate_series(100, 200) i",
];

const OLD: Release = release(
    "INSERT INTO t (id, a) VALUES ($1::int, $2)",
    "UPDATE t SET a = $2 WHERE id = $1::int",
    "SELECT a FROM t WHERE id = $1::int",
);
const BOTH: Release = release(
    "INSERT INTO t (id, a, b) VALUES ($1::int, $2, $2)",
    "UPDATE t SET a = $2, b = $2 WHERE id = $1::int",
    "SELECT a FROM t WHERE id = $1::int",
);
const BOTH_NEW: Release = Release { read: "SELECT b FROM t WHERE id = $1::int", ..BOTH };
const NEW: Release = release(
    "INSERT INTO t (id, b) VALUES ($1::int, $2)",
    "UPDATE t SET b = $2 WHERE id = $1::int",
    "SELECT b FROM t WHERE id = $1::int",
);
/// Each update sends the row to the other partition.
const OLD_HOPS: Release =
    Release { update: ("UPDATE t SET a = $2, part = 1 - part WHERE id = $1::int", Leaves::Written), ..OLD };
const NEW_HOPS: Release =
    Release { update: ("UPDATE t SET b = $2, part = 1 - part WHERE id = $1::int", Leaves::Written), ..NEW };

const INT_OLD: Release = release(
    "INSERT INTO t (id, a) VALUES ($1::int, $2::int)",
    "UPDATE t SET a = $2::int WHERE id = $1::int",
    "SELECT a::text FROM t WHERE id = $1::int",
);
const INT_BOTH: Release = release(
    "INSERT INTO t (id, a, b) VALUES ($1::int, $2::int, $2::bigint)",
    "UPDATE t SET a = $2::int, b = $2::bigint WHERE id = $1::int",
    "SELECT a::text FROM t WHERE id = $1::int",
);
const INT_BOTH_NEW: Release = Release { read: "SELECT b::text FROM t WHERE id = $1::int", ..INT_BOTH };
const INT_NEW: Release = release(
    "INSERT INTO t (id, b) VALUES ($1::int, $2::bigint)",
    "UPDATE t SET b = $2::bigint WHERE id = $1::int",
    "SELECT b::text FROM t WHERE id = $1::int",
);

const KEPT: &[&str] = &["Backfill", "SwitchReads", "SwitchOver"];
const SAME: (&str, &[&str]) = ("SELECT count(*) FROM t WHERE a IS DISTINCT FROM b", KEPT);
const SAME_INT: (&str, &[&str]) = ("SELECT count(*) FROM t WHERE a::bigint IS DISTINCT FROM b", KEPT);
const NOTHING: (&str, &[&str]) = ("SELECT 0::bigint", &[]);

fires! {
    rename: TEXT, RenameColumn::new("t", "a", "b"), &[OLD, BOTH, BOTH_NEW, NEW], |n| format!("v{n}"), SAME;
    rename_synced: TEXT, RenameColumn::new("t", "a", "b").kept_in_sync(), &[OLD, NEW], |n| format!("v{n}"), SAME;
    rename_keyless: KEYLESS, RenameColumn::new("t", "a", "b"), &[OLD, BOTH, BOTH_NEW, NEW], |n| format!("v{n}"), SAME;
    rename_keyless_synced: KEYLESS, RenameColumn::new("t", "a", "b").kept_in_sync(), &[OLD, NEW], |n| format!("v{n}"), SAME;
    rename_partitioned: PARTS, RenameColumn::new("t", "a", "b"), &[OLD, BOTH, BOTH_NEW, NEW], |n| format!("v{n}"), SAME;
    rename_partitioned_synced: PARTS, RenameColumn::new("t", "a", "b").kept_in_sync(), &[OLD_HOPS, NEW_HOPS], |n| format!("v{n}"), SAME;
    rename_triggered_synced: TIDY, RenameColumn::new("t", "a", "b").kept_in_sync(), &[OLD, NEW], |n| format!("v{n}"), SAME;
    retype: NUMBER, ChangeType::new("t", "a", "b", "bigint").up("{a}::bigint").down("{b}::int"), &[INT_OLD, INT_BOTH, INT_BOTH_NEW, INT_NEW], |n| (n % 1_000_000).to_string(), SAME_INT;
    retype_synced: NUMBER, ChangeType::new("t", "a", "b", "bigint").up("{a}::bigint").down("{b}::int").kept_in_sync(), &[INT_OLD, INT_NEW], |n| (n % 1_000_000).to_string(), SAME_INT;
    retype_serial: SERIAL, ChangeType::new("t", "a", "b", "bigint").up("{a}::bigint").down("{b}::int").kept_in_sync(), &[INT_OLD, INT_NEW], |n| (n % 1_000_000).to_string(), SAME_INT;

    // Release 0 knows nothing of the column; 1 falls back where it reads null; 2 relies on it.
    add_filled: TEXT, AddColumn::new("t", "b", "text").backfill("'fallback'").not_null(), &[
        Release {
            insert: ("INSERT INTO t (id, a) VALUES ($1::int, 'x')", Leaves::Value("fallback")),
            update: ("UPDATE t SET note = $2 WHERE id = $1::int", Leaves::Untouched),
            read: "",
            delete: "DELETE FROM t WHERE id = $1::int",
        },
        Release { read: "SELECT coalesce(b, 'fallback') FROM t WHERE id = $1::int", ..ADDED },
        ADDED,
    ], |n| format!("v{n}"), ("SELECT count(*) FROM t WHERE b IS NULL", &["Backfill", "ReadNew", "EnforceNotNull"]);
    add_volatile: TEXT, AddColumn::new("t", "b", "uuid").volatile_default("gen_random_uuid()").not_null(), &[OLD], |n| format!("v{n}"),
        ("SELECT count(*) FROM t WHERE b IS NULL", &["Backfill", "EnforceNotNull"]);
    add_constant: TEXT, AddColumn::new("t", "b", "int").default("7").not_null(), &[OLD], |n| format!("v{n}"), ("SELECT count(*) FROM t WHERE b <> 7", &["AddWithDefault"]);
    // Release 0 uses the column, 1 writes it only, 2 does neither.
    drop: TEXT, DropColumn::new("t", "a").restore_with("'restored'"), &[
        OLD,
        Release { read: "", ..OLD },
        Release {
            insert: ("INSERT INTO t (id, note) VALUES ($1::int, $2)", Leaves::Value("restored")),
            update: ("UPDATE t SET note = $2 WHERE id = $1::int", Leaves::Untouched),
            read: "",
            // A row that comes again under an archived key cannot be told from the one that was archived.
            delete: "",
        },
    ], |n| format!("v{n}"), NOTHING;
    index: TEXT, AddIndex::new("t", "t_lower").columns(&["a", "id"]).unique(), &[OLD], |n| format!("v{n}"), NOTHING;
    index_partitioned: PARTS, AddIndex::new("t", "t_a_id").columns(&["a", "id"]), &[OLD_HOPS], |n| format!("v{n}"), NOTHING;
    create: TEXT, CreateTable::new("u").columns([create_table::Column::new("id", "int").not_null()]).primary_key(&["id"])
        .constraints([create_table::Constraint::foreign_key("u_t", &["id"], "t", &["id"])]), &[OLD], |n| format!("v{n}"), NOTHING;
    sql: TEXT, RunSql::new(&["COMMENT ON TABLE t IS 'x'", "ALTER TABLE t ADD c int"]).rollback(&["ALTER TABLE t DROP c", "COMMENT ON TABLE t IS NULL"]), &[OLD], |n| format!("v{n}"), NOTHING;
}

const ADDED: Release = release(
    "INSERT INTO t (id, a, b) VALUES ($1::int, 'x', $2)",
    "UPDATE t SET b = $2 WHERE id = $1::int",
    "SELECT b FROM t WHERE id = $1::int",
);
