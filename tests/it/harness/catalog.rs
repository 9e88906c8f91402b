//! The catalog of the user's schemas as text: all that a person could see, but for column order and OIDs.

use tokio_postgres::Client;

/// What belongs to the user: not Postgres's own, not the ledger's.
const MINE: &str = "n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'phasewise')";
/// Not what an extension made.
const OWN: &str = "NOT EXISTS (SELECT FROM pg_depend e WHERE e.objid = x.oid AND e.deptype = 'e')";

/// Queries for one text column each; `{mine}` and `{own}` stand for the filters.
const PARTS: &[&str] = &[
    "SELECT format('%s %I.%I kind=%s persistence=%s replident=%s options=%s acl=%s comment=%s partition=%s of %s rowsecurity=%s',
            'relation', n.nspname, x.relname, x.relkind, x.relpersistence, x.relreplident, x.reloptions, x.relacl,
            obj_description(x.oid, 'pg_class'), pg_get_expr(x.relpartbound, x.oid),
            (SELECT i.inhparent::regclass FROM pg_inherits i WHERE i.inhrelid = x.oid), x.relrowsecurity)
       FROM pg_class x JOIN pg_namespace n ON n.oid = x.relnamespace
      WHERE {mine} AND {own} AND x.relkind IN ('r', 'p', 'v', 'm', 'f')",
    "SELECT format('column %I.%I.%I type=%s collation=%s notnull=%s default=%s identity=%s generated=%s storage=%s compression=%s statistics=%s options=%s comment=%s grants=%s',
            n.nspname, x.relname, a.attname, format_type(a.atttypid, a.atttypmod),
            nullif(a.attcollation, 0)::regcollation, a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated,
            a.attstorage, a.attcompression, coalesce(nullif(a.attstattarget, -1)::text, ''), a.attoptions, col_description(x.oid, a.attnum),
            (SELECT string_agg(g::text, ' ' ORDER BY g::text) FROM aclexplode(a.attacl) g))
       FROM pg_attribute a JOIN pg_class x ON x.oid = a.attrelid JOIN pg_namespace n ON n.oid = x.relnamespace
       LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      WHERE {mine} AND {own} AND a.attnum > 0 AND NOT a.attisdropped AND x.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')",
    "SELECT format('index %I.%I %s valid=%s ready=%s unique=%s primary=%s clustered=%s replident=%s parent=%s statistics=%s comment=%s',
            n.nspname, x.relname, pg_get_indexdef(x.oid), i.indisvalid, i.indisready, i.indisunique, i.indisprimary, i.indisclustered,
            i.indisreplident, (SELECT h.inhparent::regclass FROM pg_inherits h WHERE h.inhrelid = x.oid),
            (SELECT string_agg(a.attnum || ':' || a.attstattarget, ' ' ORDER BY a.attnum) FROM pg_attribute a
              WHERE a.attrelid = x.oid AND a.attstattarget >= 0),
            obj_description(x.oid, 'pg_class'))
       FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace
      WHERE {mine} AND {own}",
    "SELECT format('constraint %s.%I %s validated=%s deferrable=%s deferred=%s inherited=%s local=%s index=%s comment=%s',
            x.conrelid::regclass, x.conname, pg_get_constraintdef(x.oid), x.convalidated, x.condeferrable, x.condeferred,
            x.coninhcount, x.conislocal, nullif(x.conindid, 0)::regclass, obj_description(x.oid, 'pg_constraint'))
       FROM pg_constraint x JOIN pg_namespace n ON n.oid = x.connamespace WHERE {mine} AND {own}",
    "SELECT format('trigger %s enabled=%s comment=%s', pg_get_triggerdef(x.oid), x.tgenabled, obj_description(x.oid, 'pg_trigger'))
       FROM pg_trigger x JOIN pg_class c ON c.oid = x.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE {mine} AND NOT x.tgisinternal",
    "SELECT format('sequence %I.%I type=%s start=%s increment=%s min=%s max=%s cache=%s cycle=%s acl=%s owned by %s',
            n.nspname, x.relname, s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle, x.relacl,
            (SELECT d.refobjid::regclass || '.' || quote_ident(a.attname) || ' ' || d.deptype::text FROM pg_depend d
               JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
              WHERE d.classid = 'pg_class'::regclass AND d.objid = x.oid AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')))
       FROM pg_sequence s JOIN pg_class x ON x.oid = s.seqrelid JOIN pg_namespace n ON n.oid = x.relnamespace WHERE {mine} AND {own}",
    "SELECT format('statistics %I.%I on %s columns=%s expressions=%s kinds=%s target=%s comment=%s', n.nspname, x.stxname, x.stxrelid::regclass,
            (SELECT string_agg(a.attname, ',' ORDER BY a.attname) FROM pg_attribute a WHERE a.attrelid = x.stxrelid AND a.attnum = ANY (x.stxkeys)),
            pg_get_expr(x.stxexprs, x.stxrelid), x.stxkind, x.stxstattarget, obj_description(x.oid, 'pg_statistic_ext'))
       FROM pg_statistic_ext x JOIN pg_namespace n ON n.oid = x.stxnamespace WHERE {mine}",
    "SELECT pg_get_functiondef(x.oid) FROM pg_proc x JOIN pg_namespace n ON n.oid = x.pronamespace
      WHERE {mine} AND {own} AND x.prokind IN ('f', 'p')",
    "SELECT format('type %I.%I %s %s', n.nspname, x.typname, x.typtype,
            (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = x.oid))
       FROM pg_type x JOIN pg_namespace n ON n.oid = x.typnamespace WHERE {mine} AND {own} AND x.typtype IN ('e', 'd')",
    "SELECT format('schema %I acl=%s', n.nspname, n.nspacl) FROM pg_namespace n WHERE {mine}",
];

/// One line per thing, sorted.
pub(crate) async fn dump(client: &Client) -> String {
    let mut lines = Vec::new();
    for part in PARTS {
        let sql = part.replace("{mine}", MINE).replace("{own}", OWN);
        let rows = client.query(&sql, &[]).await.unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
        lines.extend(rows.iter().map(|row| row.get::<_, String>(0).replace('\n', " ")));
    }
    lines.sort();
    lines.join("\n")
}
