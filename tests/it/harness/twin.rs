//! The end is what was asked for: what plain SQL makes of a twin database.

use super::data::Columns;
use super::{Case, Stage, catalog, data, run, same};

/// A DO block that gives indexes, constraints, statistics and owned sequences names after their definitions; `{all}`
/// is whether others than the indexes of partitions get one. Casts are left out of the definitions, as
/// [`catalog::dump`] does.
///
/// What replaces a column makes its dependents under new names, where plain SQL keeps the old ones.
const NAMELESS: &str = "DO $$
DECLARE r record; mine CONSTANT text := '^(pg_|information_schema$|phasewise$)'; casts CONSTANT text := '::character varying|::text|[][()]';
BEGIN
    FOR r IN SELECT c, name, 'c_' || md5(def) || '_' || row_number() OVER (PARTITION BY def ORDER BY comment) AS new
               FROM (SELECT x.conrelid::regclass AS c, x.conname AS name, regexp_replace(x.conrelid::regclass || pg_get_constraintdef(x.oid), casts, '', 'g') AS def,
                            obj_description(x.oid, 'pg_constraint') AS comment
                       FROM pg_constraint x WHERE {all} AND x.conrelid <> 0 AND x.coninhcount = 0 AND x.conparentid = 0
                        AND x.connamespace::regnamespace::text !~ mine) q
    LOOP EXECUTE format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I', r.c, r.name, r.new); END LOOP;
    FOR r IN SELECT i, 'i_' || md5(def) || '_' || row_number() OVER (PARTITION BY def ORDER BY comment) AS new
               FROM (SELECT x.oid::regclass AS i, regexp_replace(replace(pg_get_indexdef(x.oid), quote_ident(x.relname), ''), casts, '', 'g') AS def,
                            obj_description(x.oid, 'pg_class') AS comment
                       FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                      WHERE ({all} OR x.relispartition) AND x.relnamespace::regnamespace::text !~ mine
                        AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = x.oid AND k.contype IN ('p', 'u', 'x'))) q
    LOOP EXECUTE format('ALTER INDEX %s RENAME TO %I', r.i, r.new); END LOOP;
    FOR r IN SELECT s, schema, 's_' || md5(def) || '_' || row_number() OVER (PARTITION BY def ORDER BY comment) AS new
               FROM (SELECT x.stxname AS s, x.stxnamespace::regnamespace AS schema,
                            concat(x.stxrelid::regclass, x.stxkind, pg_get_expr(x.stxexprs, x.stxrelid),
                                   (SELECT string_agg(a.attname, ',' ORDER BY a.attname) FROM pg_attribute a WHERE a.attrelid = x.stxrelid AND a.attnum = ANY (x.stxkeys))) AS def,
                            obj_description(x.oid, 'pg_statistic_ext') AS comment
                       FROM pg_statistic_ext x WHERE {all} AND x.stxnamespace::regnamespace::text !~ mine) q
    LOOP EXECUTE format('ALTER STATISTICS %s.%I RENAME TO %I', r.schema, r.s, r.new); END LOOP;
    FOR r IN SELECT x.oid::regclass AS q, 'q_' || md5(d.refobjid::regclass || '.' || a.attname) AS new
               FROM pg_class x JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = x.oid AND d.deptype IN ('a', 'i')
               JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
              WHERE {all} AND x.relkind = 'S' AND x.relnamespace::regnamespace::text !~ mine
    LOOP EXECUTE format('ALTER SEQUENCE %s RENAME TO %I', r.q, r.new); END LOOP;
END $$";

/// Forward to the end, without the archives then, and the same by plain SQL on a twin; then both hold the same.
pub(crate) async fn as_asked(case: &'static Case, asked: &[&str]) {
    let (stage, twin) = (Stage::set(case).await, Stage::set(case).await);
    let before = data::columns(&stage.client).await;
    stage.forward(case.phases().len()).await;
    for archive in stage.migrator().archives().await.expect("the archives") {
        stage.migrator().purge_archive(&archive.migration).await.expect("an archive that can be purged");
    }
    for sql in asked {
        run(&twin.client, sql).await;
    }
    let replaces = case.phases()[0].name == "AddTarget";
    let nameless = NAMELESS.replace("{all}", if replaces { "true" } else { "false" });
    for client in [&stage.client, &twin.client] {
        run(client, &nameless).await;
    }
    let name = case.name();
    let wanted = catalog::dump(&twin.client).await;
    same(&wanted, &catalog::dump(&stage.client).await, &format!("{name}: the catalog is not what was asked"));
    // Values that are drawn differ, but none is missing.
    let drawn = name.contains("volatile");
    let only = drawn.then_some(&before);
    let wanted = data::dump(&twin.client, only).await;
    same(
        &wanted,
        &data::dump(&stage.client, only).await,
        &format!("{name}: the data are not what was asked"),
    );
    if drawn {
        let new = data::columns(&stage.client).await.difference(&before).cloned().collect();
        assert_eq!(nulls(&twin, &new).await, nulls(&stage, &new).await, "{name}: values are missing");
    }
    let wanted = data::sequences(&twin.client).await;
    same(&wanted, &data::sequences(&stage.client).await, &format!("{name}: sequences stand elsewhere"));
}

/// How many rows are null there.
async fn nulls(stage: &Stage, columns: &Columns) -> Vec<i64> {
    assert!(!columns.is_empty(), "a column is new");
    let quote = phasewise::ident::quote;
    let mut counts = Vec::new();
    for (schema, table, name) in columns {
        let sql =
            format!("SELECT count(*) FROM {}.{} WHERE {} IS NULL", quote(schema), quote(table), quote(name));
        counts.push(super::one(&stage.client, &sql).await);
    }
    counts
}
