//! Constraints: always NOT VALID first, then validated without a lock that blocks anyone.

use super::{on_all, probe, rows};
use crate::catalog::{ForeignKey, Table};
use crate::ident::{literal, quote};
use crate::step::{LockMode, Step};

/// Adds a CHECK. `definition` is `CHECK (…)` as `pg_get_constraintdef` writes it, without NOT VALID.
pub(crate) fn add_check(table: &Table, name: &str, definition: &str, validate: bool) -> Vec<Step> {
    let mut steps = vec![add_not_valid(table, name, definition)];
    if validate {
        steps.push(on_all(self::validate(&table.sql(), name), table, LockMode::ShareUpdateExclusive));
    }
    steps
}

fn add_not_valid(table: &Table, name: &str, definition: &str) -> Step {
    let (sql, quoted) = (table.sql(), quote(name));
    let add = format!("ALTER TABLE {sql} ADD CONSTRAINT {quoted} {definition} NOT VALID");
    let same = format!(
        "c.contype = 'c' AND {}",
        probe::alike(
            "pg_catalog.replace(pg_catalog.pg_get_constraintdef(c.oid), ' NOT VALID', '')",
            definition
        )
    );
    on_all(Step::sql(format!("add check {quoted}, not valid"), add), table, LockMode::AccessExclusive)
        .done_when(probe::constraint(&sql, name, &same))
}

/// Adds a CHECK that rows may break, such as one on values that were only just made. Such rows are looked for first:
/// while the check is there, NOT VALID, every update of one fails. If it does not hold all the same, since clients
/// wrote more of them meanwhile, it goes again before they are reported.
pub(crate) fn add_unproven_check(table: &Table, name: &str, definition: &str) -> Vec<Step> {
    let (sql, quoted) = (table.sql(), quote(name));
    let valid = probe::constraint(&sql, name, "c.convalidated");
    let there = probe::constraint(&sql, name, "true");
    let broken = format!("NOT {}", condition(definition));
    let message = broken_check(table, name);
    let look = |summary: &str| rows::none(format!("{summary} check {quoted}"), table, &broken, &message);
    let statement =
        format!("BEGIN {}; EXCEPTION WHEN check_violation THEN NULL; END", validation(&sql, name));
    let validate = Step::long(format!("validate constraint {quoted}"), format!("DO {}", literal(&statement)))
        .scanning()
        .done_when(valid.clone());
    let withdraw = Step::sql(
        format!("drop check {quoted} again, if it does not hold"),
        format!("ALTER TABLE {sql} DROP CONSTRAINT {quoted}"),
    );
    vec![
        look("look for rows that break").done_when(there.clone()),
        add_not_valid(table, name, definition),
        on_all(validate, table, LockMode::ShareUpdateExclusive),
        on_all(withdraw, table, LockMode::AccessExclusive)
            .done_when(format!("SELECT ({valid}) OR NOT ({there})")),
        look("report rows that broke").done_when(valid),
    ]
}

/// What is said of rows that break a check.
pub(crate) fn broken_check(table: &Table, name: &str) -> String {
    format!(
        "rows of {} break check {}, so that it cannot be added: mend them or the check, then run again",
        table.sql(),
        quote(name)
    )
}

/// What a CHECK's definition says of a row, in parentheses.
pub(crate) fn condition(definition: &str) -> &str {
    let mut sql = definition.strip_prefix("CHECK ").unwrap_or(definition);
    for option in [" NOT VALID", " NOT ENFORCED", " NO INHERIT"] {
        sql = sql.strip_suffix(option).unwrap_or(sql);
    }
    sql
}

/// Adds a foreign key NOT VALID and validates it, then comments on it.
pub(crate) fn add_foreign_key(key: &ForeignKey) -> Vec<Step> {
    [add_foreign_key_not_valid(key)].into_iter().chain(validate_foreign_key(key)).collect()
}

/// Adds a foreign key NOT VALID: `SHARE ROW EXCLUSIVE` on both tables, briefly.
pub(crate) fn add_foreign_key_not_valid(key: &ForeignKey) -> Step {
    let (sql, quoted) = (key.table_sql(), quote(&key.name));
    let add = format!("ALTER TABLE {sql} ADD CONSTRAINT {quoted} {} NOT VALID", key.definition());
    both(Step::sql(format!("add foreign key {quoted}, not valid"), add), key, LockMode::ShareRowExclusive)
        .done_when(probe::constraint(&sql, &key.name, &same_foreign_key(key)))
}

/// Validates a foreign key, if it is to be valid, under locks that block no client, and comments on it.
pub(crate) fn validate_foreign_key(key: &ForeignKey) -> Vec<Step> {
    let sql = key.table_sql();
    let mut steps = Vec::new();
    if key.validated {
        let mut step = validate(&sql, &key.name).locks(sql.clone(), LockMode::ShareUpdateExclusive);
        if key.ref_table_sql() != sql {
            step = step.locks(key.ref_table_sql(), LockMode::RowShare);
        }
        steps.push(step);
    }
    steps.extend(key.comment.as_ref().map(|comment| self::comment(&sql, &key.name, comment)));
    steps
}

/// Drops a foreign key, and no other one of that name: `ACCESS EXCLUSIVE` on both tables, so alone in its transaction.
pub(crate) fn drop_foreign_key(key: &ForeignKey) -> Step {
    let (sql, quoted) = (key.table_sql(), quote(&key.name));
    let drop = format!("ALTER TABLE {sql} DROP CONSTRAINT {quoted}");
    both(Step::sql(format!("drop foreign key {quoted} of {sql}"), drop), key, LockMode::AccessExclusive)
        .done_when(probe::not(&probe::constraint(&sql, &key.name, &same_foreign_key(key))))
}

/// Drops a CHECK, UNIQUE or EXCLUDE constraint.
pub(crate) fn drop(table: &Table, name: &str) -> Step {
    let sql = format!("ALTER TABLE {} DROP CONSTRAINT {}", table.sql(), quote(name));
    on_all(Step::sql(format!("drop constraint {}", quote(name)), sql), table, LockMode::AccessExclusive)
        .done_when(probe::not(&probe::constraint(&table.sql(), name, "true")))
}

/// Makes a valid unique index a UNIQUE constraint. The index takes the constraint's name.
pub(crate) fn add_unique_using_index(
    table: &Table,
    name: &str,
    index: &str,
    deferrable: bool,
    deferred: bool,
) -> Step {
    let mut sql = format!(
        "ALTER TABLE {} ADD CONSTRAINT {} UNIQUE USING INDEX {}",
        table.sql(),
        quote(name),
        quote(index)
    );
    if deferrable {
        sql.push_str(" DEFERRABLE");
    }
    if deferred {
        sql.push_str(" INITIALLY DEFERRED");
    }
    Step::sql(format!("add unique constraint {}", quote(name)), sql)
        .locks(table.sql(), LockMode::AccessExclusive)
        .done_when(probe::constraint(&table.sql(), name, "c.contype = 'u'"))
}

/// Comments on a constraint.
pub(crate) fn comment(table: &str, name: &str, comment: &str) -> Step {
    let sql = format!("COMMENT ON CONSTRAINT {} ON {table} IS {}", quote(name), literal(comment));
    Step::sql(format!("comment on constraint {}", quote(name)), sql)
        .locks(table, LockMode::AccessShare)
        .done_when(probe::constraint(
            table,
            name,
            &format!("pg_catalog.obj_description(c.oid, 'pg_constraint') = {}", literal(comment)),
        ))
}

fn validate(table: &str, name: &str) -> Step {
    Step::long(format!("validate constraint {}", quote(name)), validation(table, name))
        .scanning()
        .done_when(probe::constraint(table, name, "c.convalidated"))
}

fn validation(table: &str, name: &str) -> String {
    format!("ALTER TABLE {table} VALIDATE CONSTRAINT {}", quote(name))
}

fn both(step: Step, key: &ForeignKey, mode: LockMode) -> Step {
    let step = step.locks(key.table_sql(), mode);
    if key.ref_table_sql() == key.table_sql() { step } else { step.locks(key.ref_table_sql(), mode) }
}

fn same_foreign_key(key: &ForeignKey) -> String {
    let names = |columns: &[String]| columns.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ");
    let attributes = |relation: &str, numbers: &str| {
        format!(
            "ARRAY(SELECT a.attname::text FROM pg_catalog.unnest({numbers}) WITH ORDINALITY k(n, o) JOIN pg_catalog.pg_attribute a ON a.attrelid = {relation} AND a.attnum = k.n ORDER BY k.o)"
        )
    };
    format!(
        "c.contype = 'f' AND c.confrelid = pg_catalog.to_regclass({}) AND {} = ARRAY[{}] AND {} = ARRAY[{}]",
        literal(&key.ref_table_sql()),
        attributes("c.conrelid", "c.conkey"),
        names(&key.columns),
        attributes("c.confrelid", "c.confkey"),
        names(&key.ref_columns),
    )
}
