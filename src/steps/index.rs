//! Indexes: built and dropped without a lock that blocks a client for longer than a catalog change.

use std::fmt::Write as _;

use serde::Deserialize;

use super::trial::{COPY, copy_of, read};
use super::{on_all, probe};
use crate::catalog::{Index, Leaf, Question, Table};
use crate::error::{Error, Kind, Result};
use crate::ident::{hashed, literal, quote};
use crate::phase::Context;
use crate::step::{Action, BuildIndex, DropIndex, LockMode, Step};

/// What follows `USING ` in `pg_get_indexdef`, over `pg_index AS i`, `pg_class AS x` (the index), `pg_class AS t`
/// (its table) and `pg_namespace AS n` (the table's). Cut by the length of what precedes it, since names may
/// contain ` USING ` themselves.
const TAIL: &str = "pg_catalog.substr(pg_catalog.pg_get_indexdef(i.indexrelid), 1 + pg_catalog.length(pg_catalog.format('CREATE %sINDEX %I ON %s%s.%I USING ', CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END, x.relname, CASE WHEN x.relkind = 'I' THEN 'ONLY ' ELSE '' END, CASE WHEN n.oid = pg_catalog.pg_my_temp_schema() AND pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 150000 THEN 'pg_temp' ELSE pg_catalog.quote_ident(n.nspname) END, t.relname)))";

const JOINED: &str = "pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid JOIN pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace";

/// Builds an index, `CONCURRENTLY` wherever rows are. `tail` is what follows `USING `, as `pg_get_indexdef` writes
/// it ([`definition_question`] asks).
///
/// On a partitioned table the parents get theirs `ON ONLY`, which blocks writes for a catalog change (they hold no
/// rows); each partition's is built concurrently and attached, from the bottom up. Postgres makes the parent's
/// valid when the last one is attached.
pub(crate) fn build(table: &Table, name: &str, unique: bool, tail: &str, comment: Option<&str>) -> Vec<Step> {
    let mut steps = tree(table, name, unique, tail, &[]);
    steps.extend(comment.map(|comment| self::comment(table, name, comment)));
    steps
}

fn tree(
    table: &Table,
    name: &str,
    unique: bool,
    tail: &str,
    children: &[(String, String, String)],
) -> Vec<Step> {
    if table.is_partitioned() {
        partitioned(table, name, unique, tail, children)
    } else {
        vec![concurrently(&table.schema, &table.name, name, unique, tail)]
    }
}

/// Builds an index like `index` under `name`: definition, names of the partitions' ones, statistics targets, clustering,
/// comment.
pub(crate) fn like(table: &Table, index: &Index, name: &str) -> Vec<Step> {
    let mut steps = tree(table, name, index.unique, &index.tail, &index.children);
    steps.extend(statistics(table, name, &index.statistics));
    steps.extend(index.clustered.then(|| cluster_on(table, name)));
    steps.extend(index.comment.as_ref().map(|comment| self::comment(table, name, comment)));
    steps
}

/// Gives keys of the index, by number, statistics targets of their own. Locks the index alone.
fn statistics<'a>(
    table: &Table,
    name: &'a str,
    targets: &'a [(i16, i32)],
) -> impl Iterator<Item = Step> + 'a {
    let full = qualified(&table.schema, name);
    targets.iter().map(move |(key, target)| {
        let sql = format!("ALTER INDEX {full} ALTER COLUMN {key} SET STATISTICS {target}");
        let done = format!(
            "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_attribute a WHERE a.attrelid = pg_catalog.to_regclass({}) AND a.attnum = {key} AND a.attstattarget = {target})",
            literal(&full)
        );
        Step::sql(format!("index {}: statistics target of key {key}", quote(name)), sql).done_when(done)
    })
}

/// Marks the index that `CLUSTER` goes by, in place of any other: a note in the catalog.
pub(crate) fn cluster_on(table: &Table, name: &str) -> Step {
    let full = qualified(&table.schema, name);
    let done = format!(
        "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_index i WHERE i.indexrelid = pg_catalog.to_regclass({}) AND i.indisclustered)",
        literal(&full)
    );
    Step::sql(
        format!("cluster by index {}", quote(name)),
        format!("ALTER TABLE {} CLUSTER ON {}", table.sql(), quote(name)),
    )
    .locks(table.sql(), LockMode::ShareUpdateExclusive)
    .done_when(done)
}

/// Drops an index that backs no constraint, and then the partitions' ones that were built for it and never attached;
/// `children` are those of them whose names are known.
///
/// A partitioned one cannot be dropped `CONCURRENTLY`: a plain `DROP INDEX` takes `ACCESS EXCLUSIVE` on the whole
/// tree, for a catalog change.
pub(crate) fn drop(table: &Table, name: &str, children: &[(String, String, String)]) -> Vec<Step> {
    let mut steps = vec![drop_whole(table, name)];
    if table.is_partitioned() {
        // What was attached went with its parent, so that what is still there is attached to nothing.
        for leaf in table.partitions.iter().filter(|leaf| !leaf.foreign) {
            steps.push(drop_left(leaf, &child(children, &leaf.schema, &leaf.name, name)));
        }
    }
    steps
}

/// Drops a partition's index, if it was left.
fn drop_left(leaf: &Leaf, name: &str) -> Step {
    let (full, relation) = (qualified(&leaf.schema, name), qualified(&leaf.schema, &leaf.name));
    let summary = format!("drop index {full}, if it was never attached");
    let done = probe::not(&probe::relation(&full));
    if leaf.partitioned {
        return Step::sql(summary, format!("DROP INDEX {full}"))
            .locks(relation, LockMode::AccessExclusive)
            .done_when(done);
    }
    Step::new(summary, Action::DropIndex(DropIndex { schema: leaf.schema.clone(), name: name.to_owned() }))
        .locks(relation, LockMode::ShareUpdateExclusive)
        .done_when(done)
}

fn drop_whole(table: &Table, name: &str) -> Step {
    let full = qualified(&table.schema, name);
    let gone = probe::not(&probe::relation(&full));
    let summary = format!("drop index {}", quote(name));
    if table.is_partitioned() {
        let step = Step::sql(summary, format!("DROP INDEX {full}"));
        return on_all(step, table, LockMode::AccessExclusive).done_when(gone);
    }
    let action = DropIndex { schema: table.schema.clone(), name: name.to_owned() };
    Step::new(summary, Action::DropIndex(action))
        .locks(table.sql(), LockMode::ShareUpdateExclusive)
        .done_when(gone)
}

/// Comments on an index. Locks the index alone.
pub(crate) fn comment(table: &Table, name: &str, comment: &str) -> Step {
    let full = qualified(&table.schema, name);
    let done = format!(
        "SELECT pg_catalog.obj_description(pg_catalog.to_regclass({}), 'pg_class') IS NOT DISTINCT FROM {}",
        literal(&full),
        literal(comment)
    );
    Step::sql(
        format!("comment on index {}", quote(name)),
        format!("COMMENT ON INDEX {full} IS {}", literal(comment)),
    )
    .done_when(done)
}

/// The unique constraints and indexes over a column, as people call them.
pub(crate) fn unique_over(table: &Table, column: &str) -> Vec<String> {
    table
        .indexes
        .iter()
        .filter(|index| index.unique && index.valid && index.uses.iter().any(|used| used == column))
        .map(|index| match &index.constraint {
            Some(constraint) => format!("unique constraint {}", quote(constraint)),
            None => format!("unique index {}", quote(&index.name)),
        })
        .collect()
}

/// Refuses where no index can be built safely.
pub(crate) fn check_buildable(cx: &Context<'_>, table: &Table) -> Result<()> {
    if (140_000..140_004).contains(&cx.snapshot.server_version) {
        return Err(Error::new(
            Kind::Unsupported,
            "Postgres 14.0 to 14.3 can corrupt an index that is built CONCURRENTLY: upgrade to a later 14 first",
        ));
    }
    // They can have no index, so that the parent's would never become valid.
    match table.partitions.iter().find(|leaf| leaf.foreign) {
        None => Ok(()),
        Some(leaf) => Err(Error::new(
            Kind::Unsupported,
            format!(
                "table {} has the foreign partition {}, which can have no index: detach it, or index the other partitions one by one",
                table.sql(),
                qualified(&leaf.schema, &leaf.name)
            ),
        )),
    }
}

/// The name of a partition's index below `name`.
fn child(children: &[(String, String, String)], schema: &str, partition: &str, name: &str) -> String {
    let known = children.iter().find(|(s, t, _)| s == schema && t == partition);
    // Else always with a hash: a plain name could be a user's own.
    known.map_or_else(|| hashed(&format!("{partition}_{name}")), |(_, _, child)| child.clone())
}

fn partitioned(
    table: &Table,
    name: &str,
    unique: bool,
    tail: &str,
    children: &[(String, String, String)],
) -> Vec<Step> {
    let named = |schema: &str, partition: &str| child(children, schema, partition, name);
    let mut steps = vec![on_only(&table.schema, &table.name, name, unique, tail)];
    // Parents come before children, so that an attachment further up finds its index.
    for leaf in &table.partitions {
        let child = named(&leaf.schema, &leaf.name);
        steps.push(if leaf.partitioned {
            on_only(&leaf.schema, &leaf.name, &child, unique, tail)
        } else {
            concurrently(&leaf.schema, &leaf.name, &child, unique, tail)
        });
    }
    for leaf in table.partitions.iter().rev() {
        let parent = if leaf.parent == table.name && leaf.parent_schema == table.schema {
            name.to_owned()
        } else {
            named(&leaf.parent_schema, &leaf.parent)
        };
        steps.push(attach(leaf, &parent, &named(&leaf.schema, &leaf.name)));
    }
    steps
}

fn concurrently(schema: &str, table: &str, name: &str, unique: bool, tail: &str) -> Step {
    let build = BuildIndex {
        schema: schema.to_owned(),
        table: table.to_owned(),
        name: name.to_owned(),
        unique,
        tail: tail.to_owned(),
    };
    Step::new(format!("build index {}", quote(name)), Action::BuildIndex(build))
        .locks(qualified(schema, table), LockMode::ShareUpdateExclusive)
        .scanning()
        .done_when(same(schema, table, name, unique, tail, true))
}

fn on_only(schema: &str, table: &str, name: &str, unique: bool, tail: &str) -> Step {
    let relation = qualified(schema, table);
    let unique_sql = if unique { "UNIQUE " } else { "" };
    let sql = format!("CREATE {unique_sql}INDEX {} ON ONLY {relation} USING {tail}", quote(name));
    Step::sql(format!("create index {} on the parent only", quote(name)), sql)
        .locks(relation, LockMode::Share)
        .done_when(same(schema, table, name, unique, tail, false))
}

fn attach(leaf: &Leaf, parent: &str, child: &str) -> Step {
    let (parent, child) = (qualified(&leaf.parent_schema, parent), qualified(&leaf.schema, child));
    let attached = format!(
        "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_inherits h WHERE h.inhrelid = pg_catalog.to_regclass({}) AND h.inhparent = pg_catalog.to_regclass({}))",
        literal(&child),
        literal(&parent)
    );
    Step::sql(
        format!("attach index {child} to {parent}"),
        format!("ALTER INDEX {parent} ATTACH PARTITION {child}"),
    )
    .locks(qualified(&leaf.parent_schema, &leaf.parent), LockMode::AccessShare)
    .locks(qualified(&leaf.schema, &leaf.name), LockMode::AccessShare)
    .done_when(attached)
}

/// Whether that index is there with that definition, and valid where that is asked.
fn same(schema: &str, table: &str, name: &str, unique: bool, tail: &str, valid: bool) -> String {
    let mut sql = format!(
        "SELECT EXISTS (SELECT 1 FROM {JOINED} WHERE i.indexrelid = pg_catalog.to_regclass({}) AND i.indrelid = pg_catalog.to_regclass({}) AND i.indisunique = {unique} AND {}",
        literal(&qualified(schema, name)),
        literal(&qualified(schema, table)),
        probe::alike(TAIL, tail)
    );
    if valid {
        sql.push_str(" AND i.indisvalid");
    }
    sql.push(')');
    sql
}

/// A definition that a user wrote, as Postgres writes it.
#[derive(Debug, Deserialize)]
pub(crate) struct DefinitionAnswer {
    /// What follows `USING `.
    pub(crate) tail: String,
}

fn definition_key(table: &str, unique: bool, tail: &str) -> String {
    format!("{}index on {table} using {tail}", if unique { "unique " } else { "" })
}

/// Can the index be, and how does `pg_get_indexdef` write what follows `USING `? `extra` are columns that do not
/// exist yet, with their types as SQL.
pub(crate) fn definition_question(table: &str, unique: bool, tail: &str, extra: &[(&str, &str)]) -> Question {
    let mut statements = vec![copy_of(table, "INCLUDING GENERATED")];
    for (name, data_type) in extra {
        statements.push(format!("ALTER TABLE {COPY} DROP COLUMN IF EXISTS {}", quote(name)));
        statements.push(format!("ALTER TABLE {COPY} ADD COLUMN {} {data_type}", quote(name)));
    }
    let mut create = String::from("CREATE ");
    if unique {
        create.push_str("UNIQUE ");
    }
    let _ = write!(create, "INDEX phasewise_trial_index ON {COPY} USING {tail}");
    statements.push(create);
    Question {
        key: definition_key(table, unique, tail),
        statements,
        query: format!(
            "SELECT pg_catalog.jsonb_build_object('tail', {TAIL}) FROM {JOINED} WHERE i.indexrelid = 'pg_temp.phasewise_trial_index'::regclass"
        ),
    }
}

/// The answer to [`definition_question`].
pub(crate) fn definition_answer(
    cx: &Context<'_>,
    table: &str,
    unique: bool,
    tail: &str,
) -> Result<DefinitionAnswer> {
    read(cx, &definition_key(table, unique, tail))
}

fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote(schema), quote(name))
}
