//! Defaults, sequences and identity on their way from one column to another.

use super::{on_all, probe};
use crate::catalog::{Identity, Sequence, Table};
use crate::ident::{literal, quote};
use crate::step::{Action, LockMode, Step};

/// Moves the default from one column to the other in one transaction, so that no insert in between meets none.
pub(crate) fn move_default(table: &Table, from: &str, to: &str, default: &str) -> Step {
    let sql = table.sql();
    let statements = vec![
        format!("ALTER TABLE {sql} ALTER COLUMN {} SET DEFAULT {default}", quote(to)),
        format!("ALTER TABLE {sql} ALTER COLUMN {} DROP DEFAULT", quote(from)),
    ];
    let done = format!(
        "SELECT ({}) AND ({})",
        probe::column(&sql, to, "a.atthasdef"),
        probe::default(&sql, from, None)
    );
    let summary = format!("move the default from {} to {}", quote(from), quote(to));
    on_all(Step::new(summary, Action::Transaction(statements)), table, LockMode::AccessExclusive)
        .done_when(done)
}

/// Gives an owned sequence to another column, so that it is not dropped with the old one.
pub(crate) fn own(table: &Table, sequence: &Sequence, column: &str) -> Step {
    let name = sequence.sql();
    let sql = format!("ALTER SEQUENCE {name} OWNED BY {}.{}", table.sql(), quote(column));
    Step::sql(format!("give sequence {name} to column {}", quote(column)), sql)
        .locks(table.sql(), LockMode::AccessShare)
        .done_when(format!(
            "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = pg_catalog.to_regclass({}) AND d.deptype = 'a' AND d.refobjid = pg_catalog.to_regclass({}) AND a.attname = {})",
            literal(&name),
            literal(&table.sql()),
            literal(column)
        ))
}

/// Changes a sequence's type, so that it does not end before its column does.
pub(crate) fn retype(sequence: &Sequence, data_type: &str) -> Step {
    let name = sequence.sql();
    Step::sql(format!("sequence {name}: type {data_type}"), format!("ALTER SEQUENCE {name} AS {data_type}"))
        .done_when(format!(
            "SELECT s.seqtypid = {}::regtype FROM pg_catalog.pg_sequence s WHERE s.seqrelid = pg_catalog.to_regclass({})",
            literal(data_type),
            literal(&name)
        ))
}

/// Moves identity from one column to the other. The lock keeps inserts out while the new sequence is set to where
/// the old one is; a sequence of an identity column cannot change hands. `named_like` gives the new one a name that
/// was free before.
pub(crate) fn move_identity(
    table: &Table,
    from: &str,
    to: &str,
    identity: Identity,
    sequence: &Sequence,
    data_type: &str,
    named_like: Option<&Sequence>,
) -> Step {
    let sql = table.sql();
    let name = named_like.map(|like| format!("SEQUENCE NAME {} ", like.sql())).unwrap_or_default();
    // As `ALTER SEQUENCE … AS` has it: limits of the type's own become those of the new type, others stay.
    let (old, new) = (range(&sequence.data_type), range(data_type));
    let min = if sequence.min == old.0 { new.0 } else { sequence.min.max(new.0) };
    let max = if sequence.max == old.1 { new.1 } else { sequence.max.min(new.1) };
    let options = format!(
        "{name}INCREMENT {} START {} MINVALUE {min} MAXVALUE {max} CACHE {}{}",
        sequence.increment,
        sequence.start,
        sequence.cache,
        if sequence.cycle { " CYCLE" } else { "" }
    );
    let statements = vec![
        format!(
            "ALTER TABLE {sql} ALTER COLUMN {} ADD GENERATED {} AS IDENTITY ({options})",
            quote(to),
            identity.sql()
        ),
        format!(
            "SELECT pg_catalog.setval(pg_catalog.pg_get_serial_sequence({}, {})::regclass, s.last_value, s.is_called) FROM {} s",
            literal(&sql),
            literal(to),
            sequence.sql()
        ),
        format!("ALTER TABLE {sql} ALTER COLUMN {} DROP IDENTITY", quote(from)),
    ]
    .into_iter()
    .chain(labels(&sql, to, sequence))
    .collect();
    let done = format!(
        "SELECT ({}) AND ({})",
        probe::column(&sql, to, "a.attidentity <> ''"),
        probe::column(&sql, from, "a.attidentity = ''")
    );
    let summary = format!("move identity from {} to {}", quote(from), quote(to));
    on_all(Step::new(summary, Action::Transaction(statements)), table, LockMode::AccessExclusive)
        .done_when(done)
}

/// Gives the sequence of an identity column the rights and the comment of another one. Only the server knows its name.
fn labels(table: &str, column: &str, like: &Sequence) -> Option<String> {
    let grants = like.grants.iter().map(|grant| {
        let option = if grant.grantable { " WITH GRANT OPTION" } else { "" };
        (format!("GRANT {} ON SEQUENCE ", grant.privilege), format!(" TO {}{option}", grant.grantee))
    });
    let comment = like.comment.as_ref();
    let comment = comment.map(|text| ("COMMENT ON SEQUENCE ".to_owned(), format!(" IS {}", literal(text))));
    let body: String = grants
        .chain(comment)
        .map(|(head, end)| {
            format!(
                "EXECUTE {} || pg_catalog.pg_get_serial_sequence({}, {}) || {}; ",
                literal(&head),
                literal(table),
                literal(column),
                literal(&end)
            )
        })
        .collect();
    (!body.is_empty()).then(|| format!("DO {}", literal(&format!("BEGIN {body}END"))))
}

/// The least and the greatest value of an integer type.
fn range(data_type: &str) -> (i64, i64) {
    match data_type {
        "smallint" => (i16::MIN.into(), i16::MAX.into()),
        "integer" => (i32::MIN.into(), i32::MAX.into()),
        _ => (i64::MIN, i64::MAX),
    }
}
