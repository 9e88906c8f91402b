//! A sequence that is set aside while the column that owned it is gone: it keeps its value and its grants.

use super::probe;
use crate::catalog::{Sequence, Table};
use crate::ident::{hashed, literal, quote};
use crate::phase::Context;
use crate::step::{Action, LockMode, Step};

/// Takes the sequence away from its column, into the ledger's schema, so that dropping the column leaves it.
pub(crate) fn park(cx: &Context<'_>, sequence: &Sequence) -> Step {
    let name = parked_name(cx, sequence);
    let statements = vec![
        format!("ALTER SEQUENCE {} OWNED BY NONE", sequence.sql()),
        format!("ALTER SEQUENCE {} RENAME TO {}", sequence.sql(), quote(&name)),
        format!(
            "ALTER SEQUENCE {}.{} SET SCHEMA {}",
            quote(&sequence.schema),
            quote(&name),
            quote(&cx.snapshot.ledger_schema)
        ),
    ];
    Step::new(format!("set sequence {} aside", sequence.sql()), Action::Transaction(statements))
        .done_when(probe::relation(&parked(cx, &name)))
}

/// Gives it back to `column`.
pub(crate) fn unpark(cx: &Context<'_>, table: &Table, column: &str, sequence: &Sequence) -> Step {
    let name = parked_name(cx, sequence);
    let statements = vec![
        format!("ALTER SEQUENCE {} SET SCHEMA {}", parked(cx, &name), quote(&sequence.schema)),
        format!(
            "ALTER SEQUENCE {}.{} RENAME TO {}",
            quote(&sequence.schema),
            quote(&name),
            quote(&sequence.name)
        ),
        format!("ALTER SEQUENCE {} OWNED BY {}.{}", sequence.sql(), table.sql(), quote(column)),
    ];
    let owned = format!(
        "EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = pg_catalog.to_regclass({}) AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.deptype = 'a')",
        literal(&sequence.sql())
    );
    Step::new(
        format!("give sequence {} back to column {}", sequence.sql(), quote(column)),
        Action::Transaction(statements),
    )
    .locks(table.sql(), LockMode::AccessShare)
    .done_when(probe::column(&table.sql(), column, &owned))
}

/// Where it is set aside, as SQL.
pub(crate) fn place(cx: &Context<'_>, sequence: &Sequence) -> String {
    parked(cx, &parked_name(cx, sequence))
}

fn parked_name(cx: &Context<'_>, sequence: &Sequence) -> String {
    hashed(&format!("sequence_{}_{}.{}", cx.migration, sequence.schema, sequence.name))
}

fn parked(cx: &Context<'_>, name: &str) -> String {
    format!("{}.{}", quote(&cx.snapshot.ledger_schema), quote(name))
}
