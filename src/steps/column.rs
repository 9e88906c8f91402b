//! Columns: adding, changing and dropping them.

use super::{on_all, probe};
use crate::catalog::{Column, Grant, Table};
use crate::ident::{derived, hashed, literal, quote};
use crate::step::{LockMode, Step};

/// Adds a nullable column of that type. Catalog only.
pub(crate) fn add(
    table: &Table,
    name: &str,
    data_type: &str,
    collation: Option<&str>,
    default: Option<&str>,
) -> Step {
    let collate = collation.map(|collation| format!(" COLLATE {collation}")).unwrap_or_default();
    let default = default.map(|default| format!(" DEFAULT {default}")).unwrap_or_default();
    let sql = format!("ALTER TABLE {} ADD COLUMN {} {data_type}{collate}{default}", table.sql(), quote(name));
    on_all(Step::sql(format!("add column {}", quote(name)), sql), table, LockMode::AccessExclusive).done_when(
        probe::column(
            &table.sql(),
            name,
            &format!("pg_catalog.format_type(a.atttypid, a.atttypmod) = {}", literal(data_type)),
        ),
    )
}

/// Adds a column with a default that every row gets at once. Catalog only, if [`super::trial::added_question`] says so.
/// `found` is the default as `pg_get_expr` writes it.
pub(crate) fn add_with_default(
    table: &Table,
    name: &str,
    data_type: &str,
    collation: Option<&str>,
    (default, found): (&str, &str),
    not_null: bool,
) -> Step {
    let collate = collation.map(|collation| format!(" COLLATE {collation}")).unwrap_or_default();
    let null = if not_null { " NOT NULL" } else { "" };
    let (sql, quoted) = (table.sql(), quote(name));
    let sql = format!("ALTER TABLE {sql} ADD COLUMN {quoted} {data_type}{collate} DEFAULT ({default}){null}");
    let has_type = format!(
        "pg_catalog.format_type(a.atttypid, a.atttypmod) = {} AND a.attnotnull = {not_null} AND (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum) = {}",
        literal(data_type),
        literal(found)
    );
    on_all(Step::sql(format!("add column {quoted} with its default"), sql), table, LockMode::AccessExclusive)
        .done_when(probe::column(&table.sql(), name, &has_type))
}

/// The attributes that `ADD COLUMN` does not take: storage, compression, statistics target, comment, grants.
pub(crate) fn attributes(table: &Table, like: &Column, name: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(storage) = &like.storage {
        let code = match storage.as_str() {
            "PLAIN" => 'p',
            "MAIN" => 'm',
            "EXTERNAL" => 'e',
            _ => 'x',
        };
        steps.push(
            alter(table, name, &format!("SET STORAGE {storage}"), LockMode::AccessExclusive)
                .done_when(probe::column(&table.sql(), name, &format!("a.attstorage = '{code}'"))),
        );
    }
    if let Some(compression) = &like.compression {
        let code = compression.chars().next().unwrap_or('p');
        steps.push(
            alter(table, name, &format!("SET COMPRESSION {compression}"), LockMode::AccessExclusive)
                .done_when(probe::column(&table.sql(), name, &format!("a.attcompression = '{code}'"))),
        );
    }
    if let Some(statistics) = like.statistics {
        steps.push(
            alter(table, name, &format!("SET STATISTICS {statistics}"), LockMode::ShareUpdateExclusive)
                .done_when(probe::column(&table.sql(), name, &format!("a.attstattarget = {statistics}"))),
        );
    }
    if !like.options.is_empty() {
        let options = like.options.join(", ");
        let sorted = like.options.iter().map(|option| literal(option)).collect::<Vec<_>>().join(", ");
        steps.push(
            alter(table, name, &format!("SET ({options})"), LockMode::ShareUpdateExclusive).done_when(
                probe::column(&table.sql(), name, &format!("a.attoptions @> ARRAY[{sorted}]::text[]")),
            ),
        );
    }
    if let Some(comment) = &like.comment {
        steps.push(self::comment(table, name, comment));
    }
    steps.extend(like.grants.iter().map(|grant| self::grant(table, name, grant)));
    steps
}

/// Comments on a column.
pub(crate) fn comment(table: &Table, name: &str, comment: &str) -> Step {
    let sql = format!("COMMENT ON COLUMN {}.{} IS {}", table.sql(), quote(name), literal(comment));
    Step::sql(format!("comment on column {}", quote(name)), sql)
        .locks(table.sql(), LockMode::ShareUpdateExclusive)
        .done_when(probe::column(
            &table.sql(),
            name,
            &format!("pg_catalog.col_description(a.attrelid, a.attnum) = {}", literal(comment)),
        ))
}

fn grant(table: &Table, name: &str, grant: &Grant) -> Step {
    let option = if grant.grantable { " WITH GRANT OPTION" } else { "" };
    let Grant { privilege, grantee, .. } = grant;
    let sql = format!("GRANT {privilege} ({}) ON TABLE {} TO {grantee}{option}", quote(name), table.sql());
    let role = if grantee == "PUBLIC" {
        "x.grantee = 0".to_owned()
    } else {
        format!("x.grantee = {}::regrole", literal(grantee))
    };
    Step::sql(format!("grant {privilege} on column {} to {grantee}", quote(name)), sql).done_when(probe::column(
        &table.sql(),
        name,
        &format!(
            "EXISTS (SELECT 1 FROM pg_catalog.aclexplode(a.attacl) x WHERE {role} AND x.privilege_type = '{privilege}' AND x.is_grantable = {})",
            grant.grantable
        ),
    ))
}

/// Renames a column, which what hangs on it follows.
pub(crate) fn rename(table: &Table, from: &str, to: &str) -> Step {
    let sql = table.sql();
    let (old, new) = (quote(from), quote(to));
    let done = format!("SELECT ({}) AND ({})", probe::column(&sql, to, "true"), probe::no_column(&sql, from));
    let rename = Step::sql(
        format!("rename column {old} to {new}"),
        format!("ALTER TABLE {sql} RENAME COLUMN {old} TO {new}"),
    );
    on_all(rename, table, LockMode::AccessExclusive).done_when(done)
}

/// Drops a column. Its dependents must be gone: there is no CASCADE.
pub(crate) fn drop(table: &Table, name: &str) -> Step {
    let sql = format!("ALTER TABLE {} DROP COLUMN {}", table.sql(), quote(name));
    on_all(Step::sql(format!("drop column {}", quote(name)), sql), table, LockMode::AccessExclusive)
        .done_when(probe::no_column(&table.sql(), name))
}

/// Sets a default for rows to come. `default` is compared as `pg_get_expr` writes it.
pub(crate) fn set_default(table: &Table, name: &str, default: &str) -> Step {
    alter(table, name, &format!("SET DEFAULT {default}"), LockMode::AccessExclusive)
        .done_when(probe::default(&table.sql(), name, Some(default)))
}

/// Drops the default.
pub(crate) fn drop_default(table: &Table, name: &str) -> Step {
    alter(table, name, "DROP DEFAULT", LockMode::AccessExclusive).done_when(probe::default(
        &table.sql(),
        name,
        None,
    ))
}

/// Lets the column be null again.
pub(crate) fn drop_not_null(table: &Table, name: &str) -> Step {
    alter(table, name, "DROP NOT NULL", LockMode::AccessExclusive).done_when(probe::column(
        &table.sql(),
        name,
        "NOT a.attnotnull",
    ))
}

/// Makes the column NOT NULL without a scan under a lock that blocks anyone.
///
/// Before 18 a CHECK is validated first, which Postgres takes as proof. From 18 a NOT NULL constraint can be NOT
/// VALID itself; `SET NOT NULL` would scan there (measured). `like` gives that constraint its name and comment.
pub(crate) fn set_not_null(
    table: &Table,
    name: &str,
    server_version: u32,
    like: Option<(&str, Option<&str>)>,
) -> Vec<Step> {
    let (sql, column) = (table.sql(), quote(name));
    if server_version >= 180_000 {
        let constraint = not_null_name(table, name, like.map(|(name, _)| name));
        let add =
            format!("ALTER TABLE {sql} ADD CONSTRAINT {} NOT NULL {column} NOT VALID", quote(&constraint));
        let add = on_all(
            Step::sql(format!("add NOT NULL on {column}, not valid"), add),
            table,
            LockMode::AccessExclusive,
        )
        .done_when(probe::column(&sql, name, "a.attnotnull"));
        let valid = "EXISTS (SELECT 1 FROM pg_catalog.pg_constraint c WHERE c.conrelid = a.attrelid AND c.contype = 'n' AND c.conkey = ARRAY[a.attnum] AND c.convalidated)".to_string();
        let validate = format!("ALTER TABLE {sql} VALIDATE CONSTRAINT {}", quote(&constraint));
        let validate = on_all(
            Step::long(format!("validate NOT NULL on {column}"), validate),
            table,
            LockMode::ShareUpdateExclusive,
        )
        .scanning()
        .done_when(probe::column(&sql, name, &valid));
        let comment = like.and_then(|(_, comment)| comment);
        let comment = comment.map(|comment| super::constraint::comment(&sql, &constraint, comment));
        return [add, validate].into_iter().chain(comment).collect();
    }
    let check = derived(&["pw", &table.name, name, "not_null"]);
    let quoted = quote(&check);
    let is_set = probe::column(&sql, name, "a.attnotnull");
    let add = format!("ALTER TABLE {sql} ADD CONSTRAINT {quoted} CHECK ({column} IS NOT NULL) NOT VALID");
    let validate = format!("ALTER TABLE {sql} VALIDATE CONSTRAINT {quoted}");
    let drop = format!("ALTER TABLE {sql} DROP CONSTRAINT {quoted}");
    vec![
        on_all(
            Step::sql(format!("check {column} is not null, not valid"), add),
            table,
            LockMode::AccessExclusive,
        )
        .done_when(probe::either(&is_set, &probe::constraint(&sql, &check, "true"))),
        on_all(
            Step::long(format!("validate that {column} is not null"), validate),
            table,
            LockMode::ShareUpdateExclusive,
        )
        .scanning()
        .done_when(probe::either(&is_set, &probe::constraint(&sql, &check, "c.convalidated"))),
        alter(table, name, "SET NOT NULL", LockMode::AccessExclusive).done_when(is_set),
        on_all(Step::sql(format!("drop check {quoted}"), drop), table, LockMode::AccessExclusive)
            .done_when(probe::not(&probe::constraint(&sql, &check, "true"))),
    ]
}

/// The name that a NOT NULL has, or is to get: `wanted`, else what Postgres would choose. A rename within Postgres
/// leaves the old name on the constraint, so that either may be another column's.
fn not_null_name(table: &Table, column: &str, wanted: Option<&str>) -> String {
    if let Some(found) = table.not_null(column) {
        return found.name.clone();
    }
    let name = wanted.map_or_else(|| derived(&[&table.name, column, "not_null"]), str::to_owned);
    if table.constraints.iter().any(|found| found.name == name) {
        hashed(&format!("{name}_{column}"))
    } else {
        name
    }
}

/// Undoes [`set_not_null`], however far it came. From 18 on `attnotnull` is set by a NOT VALID one too, and
/// `DROP NOT NULL` drops either.
pub(crate) fn undo_not_null(table: &Table, name: &str) -> Vec<Step> {
    let check = derived(&["pw", &table.name, name, "not_null"]);
    vec![drop_not_null(table, name), super::constraint::drop(table, &check)]
}

fn alter(table: &Table, name: &str, what: &str, mode: LockMode) -> Step {
    let sql = format!("ALTER TABLE {} ALTER COLUMN {} {what}", table.sql(), quote(name));
    on_all(Step::sql(format!("column {}: {what}", quote(name)), sql), table, mode)
}
