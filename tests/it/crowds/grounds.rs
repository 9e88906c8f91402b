//! The kinds of table that crowds stand on.
//!
//! `{t}`, `{a}`, `{b}` and `{note}` are the table and its columns as SQL; `{declared}`, `{type}`, `{first}` and
//! `{check}` follow from what column `{a}` is about: see [`Script`](super::scripts::Script).

/// What things are called, as a change takes it.
#[derive(Clone, Copy)]
pub(super) struct Names {
    pub(super) table: &'static str,
    pub(super) a: &'static str,
    pub(super) b: &'static str,
    pub(super) note: &'static str,
    /// The table as SQL.
    pub(super) sql: &'static str,
    /// `{a}` as a bigint, and back: where `lossy`, null where an int has no such value.
    pub(super) widen: &'static str,
    pub(super) narrow: &'static str,
    pub(super) lossy: &'static str,
    /// `{a}`, a text, as an int where it is one, and back.
    pub(super) parse: &'static str,
    pub(super) print: &'static str,
    /// What `{a}` was, as a new column has it.
    pub(super) was: &'static str,
    /// Statements of the user's own, and what undoes them.
    pub(super) asked: &'static [&'static str],
    pub(super) undone: &'static [&'static str],
}

const LOWER: Names = Names {
    table: "t",
    a: "a",
    b: "b",
    note: "note",
    sql: "t",
    widen: "{a}::bigint",
    narrow: "{b}::int",
    lossy: "case when {b} between -2147483648 and 2147483647 then {b}::int end",
    parse: "case when {a} ~ '^[0-9]+$' then {a}::int end",
    print: "{b}::text",
    was: "'was ' || {a}",
    asked: &["COMMENT ON TABLE t IS 'x'", "ALTER TABLE t ADD c int"],
    undone: &["ALTER TABLE t DROP c", "COMMENT ON TABLE t IS NULL"],
};

const MIXED: Names = Names {
    table: "App Data.Order",
    a: "select",
    b: "Full \"Name\"",
    note: "No te",
    sql: "\"App Data\".\"Order\"",
    widen: "{select}::bigint",
    narrow: "{Full \"Name\"}::int",
    lossy: "case when {Full \"Name\"} between -2147483648 and 2147483647 then {Full \"Name\"}::int end",
    parse: "case when {select} ~ '^[0-9]+$' then {select}::int end",
    print: "{Full \"Name\"}::text",
    was: "'was ' || {select}",
    asked: &[
        "COMMENT ON TABLE \"App Data\".\"Order\" IS 'x'",
        "ALTER TABLE \"App Data\".\"Order\" ADD \"C\" int",
    ],
    undone: &[
        "ALTER TABLE \"App Data\".\"Order\" DROP \"C\"",
        "COMMENT ON TABLE \"App Data\".\"Order\" IS NULL",
    ],
};

/// What column `{a}` holds.
#[derive(Clone, Copy)]
pub(super) struct Contents {
    /// Row `i`'s at the start.
    pub(super) first: &'static str,
    pub(super) check: &'static str,
    /// The value number `n`, as that release writes it.
    pub(super) value: fn(u16, u64) -> String,
}

/// A kind of table. Its rows at the start have numbers from 100 on.
#[derive(Clone, Copy)]
pub(super) struct Ground {
    pub(super) names: Names,
    pub(super) setup: &'static [&'static str],
    /// The columns by which rows are found, their values for number `$1`, and a predicate.
    pub(super) key: &'static str,
    pub(super) values: &'static str,
    pub(super) is: &'static str,
    /// The row's number, as SQL.
    pub(super) number: &'static str,
    /// What an update sets besides.
    pub(super) hop: &'static str,
    /// Whether `key` is unique, so that rows may be written in no order at all.
    pub(super) storm: bool,
    /// Whether what a dropped column held cannot be brought back.
    pub(super) keyless: bool,
    /// Whether it goes forward a second time, over what the way back left: on some kinds, since it takes long.
    pub(super) again: bool,
    /// Whether there are no rows at the start.
    pub(super) barren: bool,
    pub(super) texts: Contents,
    pub(super) numbers: Contents,
    /// What the user's own triggers make of a value.
    pub(super) tidied: fn(&str) -> String,
}

const PLAIN: Ground = Ground {
    names: LOWER,
    setup: &[
        "CREATE TABLE {t} (id int PRIMARY KEY, {a} {declared}, {note} text)",
        "CREATE INDEX ON {t} ({a})",
        "ALTER TABLE {t} ADD CHECK ({check})",
        "INSERT INTO {t} (id, {a}) SELECT i, {first} FROM generate_series(100, 160) i",
    ],
    key: "id",
    values: "$1::int",
    is: "id = $1::int",
    number: "id",
    hop: "",
    storm: true,
    keyless: false,
    again: true,
    barren: false,
    texts: Contents { first: "'old ' || i", check: "{a} <> ''", value: |_, n| format!("v{n}") },
    numbers: Contents { first: "i", check: "{a} >= 0", value: |_, n| (n % 1_000_000).to_string() },
    tidied: str::to_owned,
};

const ONCE: Ground = Ground { again: false, ..PLAIN };

pub(super) const fn plain() -> Ground {
    PLAIN
}

pub(super) const fn empty() -> Ground {
    Ground {
        setup: &[
            "CREATE TABLE {t} (id int PRIMARY KEY, {a} {declared}, {note} text)",
            "CREATE INDEX ON {t} ({a})",
            "ALTER TABLE {t} ADD CHECK ({check})",
        ],
        barren: true,
        ..ONCE
    }
}

pub(super) const fn composite() -> Ground {
    Ground {
        setup: &[
            "CREATE TABLE {t} (shop int, code text, {a} {declared}, {note} text, PRIMARY KEY (shop, code))",
            "CREATE INDEX ON {t} ({a}, shop)",
            "INSERT INTO {t} (shop, code, {a}) SELECT i / 10, 'k' || i % 10, {first} FROM generate_series(100, 160) i",
        ],
        key: "shop, code",
        values: "$1::int / 10, 'k' || $1::int % 10",
        is: "shop = $1::int / 10 AND code = 'k' || $1::int % 10",
        number: "shop * 10 + substr(code, 2)::int",
        ..ONCE
    }
}

/// Nullable, and each row twice.
pub(super) const fn keyless() -> Ground {
    Ground {
        setup: &[
            "CREATE TABLE {t} (id int, {a} {type}, {note} text)",
            "INSERT INTO {t} (id, {a}) SELECT i, {first} FROM generate_series(100, 140) i, generate_series(1, 2)",
        ],
        storm: false,
        keyless: true,
        ..ONCE
    }
}

/// Each update sends its row to the other partition. Two such updates of one row at once are one too many for
/// Postgres itself, so that there is no storm.
pub(super) const fn partitioned() -> Ground {
    Ground {
        setup: &[
            "CREATE TABLE {t} (id int NOT NULL, {a} {declared}, {note} text, part int NOT NULL DEFAULT 0, PRIMARY KEY (id, part)) PARTITION BY LIST (part)",
            "CREATE TABLE t0 PARTITION OF {t} FOR VALUES IN (0)",
            "CREATE TABLE t1 PARTITION OF {t} FOR VALUES IN (1)",
            "CREATE INDEX ON {t} ({a})",
            "INSERT INTO {t} (id, {a}, part) SELECT i, {first}, i % 2 FROM generate_series(100, 160) i",
        ],
        hop: ", part = 1 - part",
        storm: false,
        ..PLAIN
    }
}

/// Partitions as before, and no key.
pub(super) const fn partitioned_keyless() -> Ground {
    Ground {
        setup: &[
            "CREATE TABLE {t} (id int NOT NULL, {a} {declared}, {note} text, part int NOT NULL DEFAULT 0) PARTITION BY LIST (part)",
            "CREATE TABLE t0 PARTITION OF {t} FOR VALUES IN (0)",
            "CREATE TABLE t1 PARTITION OF {t} FOR VALUES IN (1)",
            "INSERT INTO {t} (id, {a}, part) SELECT i, {first}, i % 2 FROM generate_series(100, 160) i",
        ],
        keyless: true,
        ..partitioned()
    }
}

pub(super) const fn mixed_case() -> Ground {
    Ground {
        names: MIXED,
        setup: &[
            "CREATE SCHEMA \"App Data\"",
            "CREATE TABLE {t} (\"ID\" int PRIMARY KEY, {a} {declared}, {note} text, id text DEFAULT 'another')",
            "CREATE INDEX \"By Name\" ON {t} ({a})",
            "ALTER TABLE {t} ADD CONSTRAINT \"Che\"\"ck\" CHECK ({check})",
            "INSERT INTO {t} (\"ID\", {a}) SELECT i, {first} FROM generate_series(100, 160) i",
        ],
        key: "\"ID\"",
        is: "\"ID\" = $1::int",
        number: "\"ID\"",
        ..ONCE
    }
}

/// The user's own triggers: one stamps other columns before a row is written, one keeps a log after.
pub(super) const fn triggered() -> Ground {
    Ground {
        setup: &[
            "CREATE TABLE {t} (id int PRIMARY KEY, {a} {declared}, {note} text, at timestamptz)",
            "CREATE TABLE log (id int, what text)",
            "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.at := clock_timestamp(); NEW.{note} := 'stamped'; RETURN NEW; END$$",
            "CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION stamp()",
            "CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO log VALUES (coalesce(NEW.id, OLD.id), TG_OP); RETURN NULL; END$$",
            "CREATE TRIGGER log AFTER INSERT OR UPDATE OR DELETE ON {t} FOR EACH ROW EXECUTE FUNCTION log()",
            "INSERT INTO {t} (id, {a}) SELECT i, {first} FROM generate_series(100, 160) i",
        ],
        ..ONCE
    }
}

/// The user's own trigger tidies `{a}` before it is written, as the rows at the start have not been. It does without
/// the column when that is gone.
pub(super) const fn normalised() -> Ground {
    Ground {
        setup: &[
            "CREATE TABLE {t} (id int PRIMARY KEY, {a} {declared}, {note} text)",
            "CREATE FUNCTION untidied(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper($1)'",
            "CREATE FUNCTION untidied(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT -$1'",
            "INSERT INTO {t} (id, {a}) SELECT i, untidied({first}) FROM generate_series(100, 160) i",
            "CREATE FUNCTION tidied(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)'",
            "CREATE FUNCTION tidied(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT abs($1)'",
            "CREATE FUNCTION tidy() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF to_jsonb(NEW) ? 'a' THEN NEW.a := tidied(NEW.a); END IF; RETURN NEW; END$$",
            "CREATE TRIGGER tidy BEFORE INSERT OR UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION tidy()",
        ],
        // It never sees what the new release writes to the new column alone, which therefore tidies by itself.
        texts: Contents {
            value: |release, n| format!("{}{n}", if release == 0 { "V" } else { "v" }),
            ..PLAIN.texts
        },
        numbers: Contents {
            value: |release, n| format!("{}{}", if release == 0 { "-" } else { "" }, 1 + n % 1_000_000),
            ..PLAIN.numbers
        },
        tidied: |value| value.trim_start_matches('-').to_lowercase(),
        ..ONCE
    }
}

/// A stored column that is made from another one.
pub(super) const fn generated() -> Ground {
    Ground {
        setup: &[
            "CREATE TABLE {t} (id int PRIMARY KEY, {a} {declared}, size int GENERATED ALWAYS AS (length({note})) STORED, {note} text)",
            "CREATE INDEX ON {t} (size, {a})",
            "INSERT INTO {t} (id, {a}, {note}) SELECT i, {first}, repeat('n', i) FROM generate_series(100, 160) i",
        ],
        ..ONCE
    }
}

/// What enforces something: the new column must before it is relied on, the old one must not any more.
pub(super) const fn unique() -> Ground {
    Ground {
        setup: &[
            "CREATE TABLE {t} (id int PRIMARY KEY, {a} varchar(30) NOT NULL DEFAULT 'none', {note} text, CONSTRAINT a_key UNIQUE ({a}))",
            "ALTER TABLE {t} ADD CONSTRAINT a_check CHECK ({a} NOT IN ('', 'x'))",
            "CREATE TABLE child (a varchar(30) REFERENCES {t} ({a}) ON UPDATE CASCADE ON DELETE CASCADE)",
            "INSERT INTO {t} (id, {a}) SELECT i, {first} FROM generate_series(100, 160) i",
            "INSERT INTO child SELECT {a} FROM {t} WHERE id % 3 = 0",
        ],
        ..PLAIN
    }
}

pub(super) const fn foreign() -> Ground {
    Ground {
        setup: &[
            "CREATE TABLE {t} (id int PRIMARY KEY, {a} {declared}, {note} text)",
            "CREATE TABLE p (code text PRIMARY KEY)",
            "INSERT INTO p SELECT 'p' || i FROM generate_series(0, 19) i",
            "ALTER TABLE {t} ADD FOREIGN KEY ({a}) REFERENCES p ON UPDATE CASCADE",
            "INSERT INTO {t} (id, {a}) SELECT i, {first} FROM generate_series(100, 160) i",
        ],
        texts: Contents { first: "'p' || i % 20", value: |_, n| format!("p{}", n % 20), ..PLAIN.texts },
        ..PLAIN
    }
}

pub(super) const fn serial() -> Ground {
    Ground {
        setup: &[
            "CREATE TABLE {t} (id int PRIMARY KEY, {a} serial, {note} text)",
            "INSERT INTO {t} (id) SELECT i FROM generate_series(100, 160) i",
        ],
        numbers: Contents { first: "i - 99", ..PLAIN.numbers },
        ..PLAIN
    }
}
