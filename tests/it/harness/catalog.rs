//! The catalog of the user's schemas as text: all that a person could see, but for column order and OIDs.

use std::fmt::Write as _;

use tokio_postgres::Client;

/// What belongs to the user: not Postgres's own, not the ledger's.
const MINE: &str = "n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'phasewise')";
/// Not what an extension made.
const OWN: &str = "NOT EXISTS (SELECT FROM pg_depend e WHERE e.objid = x.oid AND e.deptype = 'e')";

/// Queries for one text column each; `{mine}` and `{own}` stand for the filters. What newer versions alone have is read
/// through `to_jsonb`, which gives null elsewhere. Column numbers are turned into names.
const PARTS: &[&str] = &[
    "SELECT format('relation %I.%I kind=%s persistence=%s replident=%s options=%s toast=%s acl=%s comment=%s partition=%s of %s rowsecurity=%s forced=%s owner=%s tablespace=%s method=%s type=%s',
            n.nspname, x.relname, x.relkind, x.relpersistence, x.relreplident, x.reloptions,
            (SELECT t.reloptions FROM pg_class t WHERE t.oid = x.reltoastrelid), x.relacl,
            obj_description(x.oid, 'pg_class'), pg_get_expr(x.relpartbound, x.oid),
            (SELECT string_agg(i.inhparent::regclass::text, ',' ORDER BY i.inhseqno) FROM pg_inherits i WHERE i.inhrelid = x.oid),
            x.relrowsecurity, x.relforcerowsecurity, x.relowner::regrole, (SELECT s.spcname FROM pg_tablespace s WHERE s.oid = x.reltablespace),
            (SELECT m.amname FROM pg_am m WHERE m.oid = x.relam), nullif(x.reloftype, 0)::regtype)
       FROM pg_class x JOIN pg_namespace n ON n.oid = x.relnamespace
      WHERE {mine} AND {own} AND x.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')",
    "SELECT format('column %I.%I.%I type=%s dimensions=%s collation=%s notnull=%s default=%s identity=%s generated=%s storage=%s compression=%s statistics=%s options=%s foreign=%s local=%s inherited=%s comment=%s grants=%s',
            n.nspname, x.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attndims,
            nullif(a.attcollation, 0)::regcollation, a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated,
            a.attstorage, a.attcompression, coalesce(nullif(a.attstattarget, -1)::text, ''), a.attoptions, a.attfdwoptions,
            a.attislocal, a.attinhcount, col_description(x.oid, a.attnum),
            (SELECT string_agg(g::text, ' ' ORDER BY g::text) FROM aclexplode(a.attacl) g))
       FROM pg_attribute a JOIN pg_class x ON x.oid = a.attrelid JOIN pg_namespace n ON n.oid = x.relnamespace
       LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      WHERE {mine} AND {own} AND a.attnum > 0 AND NOT a.attisdropped AND x.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')",
    "SELECT format('index %I.%I %s valid=%s ready=%s live=%s unique=%s immediate=%s primary=%s exclusion=%s clustered=%s replident=%s parent=%s statistics=%s comment=%s owner=%s tablespace=%s',
            n.nspname, x.relname, pg_get_indexdef(x.oid), i.indisvalid, i.indisready, i.indislive, i.indisunique, i.indimmediate, i.indisprimary,
            i.indisexclusion, i.indisclustered, i.indisreplident, (SELECT h.inhparent::regclass FROM pg_inherits h WHERE h.inhrelid = x.oid),
            (SELECT string_agg(a.attnum || ':' || a.attstattarget, ' ' ORDER BY a.attnum) FROM pg_attribute a
              WHERE a.attrelid = x.oid AND a.attstattarget >= 0),
            obj_description(x.oid, 'pg_class'), x.relowner::regrole, (SELECT s.spcname FROM pg_tablespace s WHERE s.oid = x.reltablespace))
       FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace
      WHERE {mine} AND {own}",
    "SELECT format('constraint %s.%I %s validated=%s enforced=%s deferrable=%s deferred=%s inherited=%s local=%s noinherit=%s index=%s comment=%s',
            coalesce(nullif(x.conrelid, 0)::regclass::text, x.contypid::regtype::text), x.conname, pg_get_constraintdef(x.oid),
            x.convalidated, to_jsonb(x) ->> 'conenforced', x.condeferrable, x.condeferred,
            x.coninhcount, x.conislocal, x.connoinherit, nullif(x.conindid, 0)::regclass, obj_description(x.oid, 'pg_constraint'))
       FROM pg_constraint x JOIN pg_namespace n ON n.oid = x.connamespace WHERE {mine} AND {own}",
    "SELECT format('trigger %s enabled=%s comment=%s', pg_get_triggerdef(x.oid), x.tgenabled, obj_description(x.oid, 'pg_trigger'))
       FROM pg_trigger x JOIN pg_class c ON c.oid = x.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE {mine} AND NOT x.tgisinternal",
    // ALTER TABLE … DISABLE TRIGGER ALL turns foreign keys off by these. Their names hold OIDs.
    "SELECT format('trigger of constraint %s.%I on %s type=%s enabled=%s', k.conrelid::regclass, k.conname, x.tgrelid::regclass, x.tgtype, x.tgenabled)
       FROM pg_trigger x JOIN pg_constraint k ON k.oid = x.tgconstraint JOIN pg_class c ON c.oid = x.tgrelid
       JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {mine} AND x.tgisinternal",
    // Views, too: each is a rule.
    "SELECT format('rule %I on %s %s enabled=%s comment=%s', x.rulename, x.ev_class::regclass, pg_get_ruledef(x.oid), x.ev_enabled, obj_description(x.oid, 'pg_rewrite'))
       FROM pg_rewrite x JOIN pg_class c ON c.oid = x.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE {mine} AND {own} AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.objid = c.oid AND e.deptype = 'e')",
    "SELECT format('policy %I on %s command=%s permissive=%s roles=%s using=%s check=%s comment=%s', x.polname, x.polrelid::regclass, x.polcmd, x.polpermissive,
            x.polroles::regrole[], pg_get_expr(x.polqual, x.polrelid), pg_get_expr(x.polwithcheck, x.polrelid), obj_description(x.oid, 'pg_policy'))
       FROM pg_policy x JOIN pg_class c ON c.oid = x.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {mine}",
    "SELECT format('sequence %I.%I type=%s start=%s increment=%s min=%s max=%s cache=%s cycle=%s persistence=%s acl=%s comment=%s owner=%s owned by %s',
            n.nspname, x.relname, s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle, x.relpersistence, x.relacl,
            obj_description(x.oid, 'pg_class'), x.relowner::regrole,
            (SELECT d.refobjid::regclass || '.' || quote_ident(a.attname) || ' ' || d.deptype::text FROM pg_depend d
               JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
              WHERE d.classid = 'pg_class'::regclass AND d.objid = x.oid AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')))
       FROM pg_sequence s JOIN pg_class x ON x.oid = s.seqrelid JOIN pg_namespace n ON n.oid = x.relnamespace WHERE {mine} AND {own}",
    "SELECT format('statistics %I.%I on %s columns=%s expressions=%s kinds=%s target=%s comment=%s owner=%s', n.nspname, x.stxname, x.stxrelid::regclass,
            (SELECT string_agg(a.attname, ',' ORDER BY a.attname) FROM pg_attribute a WHERE a.attrelid = x.stxrelid AND a.attnum = ANY (x.stxkeys)),
            pg_get_expr(x.stxexprs, x.stxrelid), x.stxkind, x.stxstattarget, obj_description(x.oid, 'pg_statistic_ext'), x.stxowner::regrole)
       FROM pg_statistic_ext x JOIN pg_namespace n ON n.oid = x.stxnamespace WHERE {mine}",
    "SELECT format('function %s %s acl=%s comment=%s owner=%s', x.oid::regprocedure, CASE WHEN x.prokind IN ('f', 'p') THEN pg_get_functiondef(x.oid) END,
            x.proacl, obj_description(x.oid, 'pg_proc'), x.proowner::regrole)
       FROM pg_proc x JOIN pg_namespace n ON n.oid = x.pronamespace WHERE {mine} AND {own}",
    "SELECT format('type %I.%I %s %s base=%s notnull=%s default=%s acl=%s comment=%s owner=%s', n.nspname, x.typname, x.typtype,
            (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = x.oid),
            CASE WHEN x.typbasetype <> 0 THEN format_type(x.typbasetype, x.typtypmod) END, x.typnotnull, x.typdefault, x.typacl,
            obj_description(x.oid, 'pg_type'), x.typowner::regrole)
       FROM pg_type x JOIN pg_namespace n ON n.oid = x.typnamespace WHERE {mine} AND {own} AND x.typtype IN ('e', 'd', 'r', 'm')",
    "SELECT format('schema %I acl=%s comment=%s owner=%s', n.nspname, n.nspacl, obj_description(n.oid, 'pg_namespace'), n.nspowner::regrole)
       FROM pg_namespace n WHERE {mine}",
    "SELECT format('publication %s of %I.%I columns=%s rows=%s', n.pubname, n.schemaname, n.tablename,
            (SELECT string_agg(a, ',' ORDER BY a) FROM jsonb_array_elements_text(to_jsonb(n) -> 'attnames') a), to_jsonb(n) ->> 'rowfilter')
       FROM pg_publication_tables n WHERE n.schemaname <> 'phasewise'",
    "SELECT format('default privileges of %s in %s for %s: %s', x.defaclrole::regrole, n.nspname, x.defaclobjtype, x.defaclacl)
       FROM pg_default_acl x LEFT JOIN pg_namespace n ON n.oid = x.defaclnamespace",
    "SELECT format('label of %s %s by %s: %s', x.objtype, x.objname, x.provider, x.label) FROM pg_seclabels x",
    // ALTER … DEPENDS ON EXTENSION: what goes with an extension.
    "SELECT format('%s %s depends on extension %I', i.type, i.identity, e.extname)
       FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
      CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) i WHERE d.deptype = 'x'",
];

/// One line per thing, sorted.
pub(crate) async fn dump(client: &Client) -> String {
    let mut lines = Vec::new();
    for part in PARTS {
        let sql = part.replace("{mine}", MINE).replace("{own}", OWN);
        let rows = client.query(&sql, &[]).await.unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
        lines.extend(rows.iter().map(|row| settled(&row.get::<_, String>(0).replace('\n', " "))));
    }
    lines.sort();
    lines.join("\n")
}

/// `IN (…)` on a varchar is written with its casts elsewhere when it is read back: around the array at first, around
/// each of its elements from then on. The second is settled on; nothing else is touched.
fn settled(line: &str) -> String {
    let (mut rest, mut out) = (line, String::new());
    while let Some(at) = rest.find(ARRAY) {
        let (before, array) = rest.split_at(at);
        out.push_str(before);
        let lists = before.ends_with("= ANY ") || before.ends_with("<> ALL ");
        match elements(&array[ARRAY.len()..]).filter(|_| lists) {
            Some((elements, after)) => {
                let cast = |element: &&str| format!("({element}::character varying)::text");
                let elements: Vec<_> = elements.iter().map(cast).collect();
                let _ = write!(out, "(ARRAY[{}])", elements.join(", "));
                rest = after;
            }
            None => {
                out.push_str(ARRAY);
                rest = &array[ARRAY.len()..];
            }
        }
    }
    out + rest
}

const ARRAY: &str = "((ARRAY[";

/// The literals of an array of varchars that is cast as a whole, and what follows it.
fn elements(mut text: &str) -> Option<(Vec<&str>, &str)> {
    let mut found = Vec::new();
    loop {
        let inner = text.strip_prefix('\'')?;
        let mut end = inner.find('\'')?;
        while inner[end + 1..].starts_with('\'') {
            end += 2 + inner[end + 2..].find('\'')?;
        }
        let (literal, after) = text.split_at(end + 2);
        found.push(literal);
        let after = after.strip_prefix("::character varying")?;
        if let Some(after) = after.strip_prefix("])::text[])") {
            return Some((found, after));
        }
        text = after.strip_prefix(", ")?;
    }
}

#[test]
fn casts_of_lists_are_settled_and_no_others() {
    for (written, read) in [
        (
            "CHECK (((code)::text = ANY ((ARRAY['x'::character varying, 'it''s, ]'::character varying])::text[])))",
            "CHECK (((code)::text = ANY (ARRAY[('x'::character varying)::text, ('it''s, ]'::character varying)::text])))",
        ),
        (
            "(a <> ALL ((ARRAY[''::character varying])::text[])) AND (b = ANY ((ARRAY['y'::character varying])::text[]))",
            "(a <> ALL (ARRAY[(''::character varying)::text])) AND (b = ANY (ARRAY[('y'::character varying)::text]))",
        ),
    ] {
        assert_eq!(settled(written), read);
        assert_eq!(settled(read), read);
    }
    for other in [
        "((code)::text = ANY ((ARRAY['x'::bpchar])::text[]))",
        "(n = ANY ((ARRAY[1, 2])::bigint[])) AND ((lower(code))::text <> ALL (ARRAY['x'::text]))",
        "(f((ARRAY['x'::character varying])::text[]))",
    ] {
        assert_eq!(settled(other), other);
    }
}
