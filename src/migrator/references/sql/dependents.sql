-- What depends on column $3 of table $1.$2, or on the table ($3 null): by the catalog, views on views included. $4 is the
-- ledger's schema. Objects are named as pg_identify_object does, which neither search_path nor language changes.
WITH RECURSIVE family(oid) AS (
    -- The table, and what inherits from it.
    SELECT c.oid FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = $1::pg_catalog.text AND c.relname = $2::pg_catalog.text
    UNION
    SELECT h.inhrelid FROM family JOIN pg_catalog.pg_inherits AS h ON h.inhparent = family.oid
), gone AS (
    SELECT family.oid, a.attnum, c.reltype, (
        SELECT row.typarray FROM pg_catalog.pg_type AS row WHERE row.oid = c.reltype AND row.typarray <> 0) AS typarray
    FROM family JOIN pg_catalog.pg_class AS c ON c.oid = family.oid
    LEFT JOIN pg_catalog.pg_attribute AS a
        ON a.attrelid = family.oid AND a.attname = $3::pg_catalog.text AND a.attnum > 0 AND NOT a.attisdropped
    WHERE $3::pg_catalog.text IS NULL OR a.attnum IS NOT NULL
), depending AS (
    SELECT d.classid, d.objid, d.objsubid, gone.oid AS relation, gone.attnum, d.deptype,
        -- Of the row as a whole, where only a column goes.
        gone.attnum IS NOT NULL AND (d.refobjsubid = 0 OR d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass) AS whole,
        -- On the table, where only a column goes: a query depends so if it names no column at all, as count(*) does.
        gone.attnum IS NOT NULL AND d.refobjsubid = 0 AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AS bare
    FROM gone JOIN pg_catalog.pg_depend AS d ON
        d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = gone.oid
            AND (gone.attnum IS NULL OR d.refobjsubid IN (0, gone.attnum))
        OR d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.deptype = 'n' AND gone.reltype <> 0
            AND d.refobjid IN (gone.reltype, gone.typarray)
), found(kind, classid, objid, objsubid, whole) AS (
    SELECT 'view', 'pg_catalog.pg_class'::pg_catalog.regclass, rule.ev_class, 0, depending.whole
    FROM depending JOIN pg_catalog.pg_rewrite AS rule
        ON depending.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND rule.oid = depending.objid
    WHERE rule.rulename = '_RETURN' AND depending.deptype = 'n' AND NOT depending.bare
    UNION ALL
    SELECT CASE WHEN rule.rulename = '_RETURN' THEN 'view' ELSE 'rule' END,
        CASE WHEN rule.rulename = '_RETURN' THEN 'pg_catalog.pg_class' ELSE 'pg_catalog.pg_rewrite' END::pg_catalog.regclass,
        CASE WHEN rule.rulename = '_RETURN' THEN rule.ev_class ELSE rule.oid END, 0, true
    FROM gone JOIN pg_catalog.pg_depend AS d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
        AND d.refobjid = gone.oid AND d.deptype = 'n' AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
    JOIN pg_catalog.pg_rewrite AS rule ON rule.oid = d.objid
    -- The row as one value is a variable without a column, of the row's type.
    WHERE gone.attnum IS NOT NULL AND pg_catalog.strpos(rule.ev_qual::pg_catalog.text || rule.ev_action::pg_catalog.text,
        ':varattno 0 :vartype ' || gone.reltype || ' ') > 0
    UNION ALL
    SELECT 'rule', depending.classid, depending.objid, 0, depending.whole
    FROM depending JOIN pg_catalog.pg_rewrite AS rule
        ON depending.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND rule.oid = depending.objid
    -- A rule of its own refers to the whole table by OLD and NEW, and goes with it.
    WHERE rule.rulename <> '_RETURN' AND depending.deptype = 'n' AND NOT depending.bare
        AND NOT (rule.ev_class IN (SELECT family.oid FROM family) AND (depending.whole OR depending.attnum IS NULL))
    UNION ALL
    SELECT 'policy', depending.classid, depending.objid, 0, false
    FROM depending JOIN pg_catalog.pg_policy AS policy
        ON depending.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND policy.oid = depending.objid
    WHERE depending.deptype = 'n' AND NOT depending.whole
        AND (depending.attnum IS NOT NULL OR policy.polrelid NOT IN (SELECT family.oid FROM family))
    UNION ALL
    SELECT 'policy', 'pg_catalog.pg_policy'::pg_catalog.regclass, policy.oid, 0, true
    FROM gone JOIN pg_catalog.pg_depend AS d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
        AND d.refobjid = gone.oid AND d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass
    JOIN pg_catalog.pg_policy AS policy ON policy.oid = d.objid
    WHERE gone.attnum IS NOT NULL
        AND pg_catalog.strpos(pg_catalog.concat(policy.polqual::pg_catalog.text, policy.polwithcheck::pg_catalog.text),
            ':varattno 0 :vartype ' || gone.reltype || ' ') > 0
    UNION ALL
    -- Its name as an argument of the trigger's function, which goes on until it looks for the column.
    SELECT 'trigger argument', 'pg_catalog.pg_trigger'::pg_catalog.regclass, tg.oid, 0, false
    FROM gone JOIN pg_catalog.pg_trigger AS tg ON tg.tgrelid = gone.oid
    JOIN pg_catalog.pg_proc AS p ON p.oid = tg.tgfoid
    WHERE gone.attnum IS NOT NULL AND NOT tg.tgisinternal AND tg.tgparentid = 0
        AND p.pronamespace <> COALESCE((SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = $4::pg_catalog.text), 0)
        AND pg_catalog.position('\x00'::pg_catalog.bytea || tg.tgargs, '\x00'::pg_catalog.bytea
            || pg_catalog.convert_to($3::pg_catalog.text, pg_catalog.getdatabaseencoding()) || '\x00'::pg_catalog.bytea) > 0
    UNION ALL
    SELECT 'trigger', depending.classid, depending.objid, 0, false
    FROM depending JOIN pg_catalog.pg_trigger AS tg
        ON depending.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND tg.oid = depending.objid
    JOIN pg_catalog.pg_proc AS p ON p.oid = tg.tgfoid
    WHERE depending.deptype = 'n' AND NOT tg.tgisinternal AND NOT depending.whole AND depending.attnum IS NOT NULL
        AND p.pronamespace <> COALESCE((SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = $4::pg_catalog.text), 0)
    UNION ALL
    -- Before 15 it is the column that depends, not its expression.
    SELECT 'generated', 'pg_catalog.pg_class'::pg_catalog.regclass, computed.attrelid, computed.attnum, false
    FROM depending
    LEFT JOIN pg_catalog.pg_attrdef AS def
        ON depending.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND def.oid = depending.objid
    JOIN pg_catalog.pg_attribute AS computed ON computed.attgenerated <> ''
        AND computed.attrelid = COALESCE(def.adrelid, depending.objid)
        AND computed.attnum = COALESCE(def.adnum, depending.objsubid)
        AND (def.oid IS NOT NULL OR depending.classid = 'pg_catalog.pg_class'::pg_catalog.regclass)
    WHERE NOT depending.whole AND depending.attnum IS NOT NULL
        AND computed.attrelid = depending.relation AND computed.attnum <> depending.attnum
    UNION ALL
    SELECT 'publication', depending.classid, depending.objid, 0, false
    FROM depending
    WHERE depending.classid = 'pg_catalog.pg_publication_rel'::pg_catalog.regclass
        AND (depending.attnum IS NULL OR depending.deptype = 'n' AND NOT depending.whole)
    UNION ALL
    SELECT 'foreign key', depending.classid, depending.objid, 0, false
    FROM depending JOIN pg_catalog.pg_constraint AS con
        ON depending.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND con.oid = depending.objid
    WHERE con.contype = 'f' AND con.conparentid = 0 AND NOT depending.whole AND con.confrelid = depending.relation
        AND (depending.attnum IS NULL AND con.conrelid NOT IN (SELECT family.oid FROM family)
            OR depending.attnum = ANY (con.confkey))
        -- The successor $5 of the column has one like it: the drop takes this one away.
        AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_attribute AS successor JOIN pg_catalog.pg_constraint AS alike
                ON alike.contype = 'f' AND alike.conrelid = con.conrelid AND alike.confrelid = con.confrelid
            WHERE successor.attrelid = con.confrelid AND successor.attname = $5::pg_catalog.text
                -- One that the table has on itself follows the successor at both ends.
                AND (alike.conkey = con.conkey OR con.conrelid = con.confrelid
                    AND alike.conkey = pg_catalog.array_replace(con.conkey, depending.attnum, successor.attnum))
                AND alike.confkey = pg_catalog.array_replace(con.confkey, depending.attnum, successor.attnum))
    UNION ALL
    SELECT CASE WHEN depending.whole THEN 'row function' ELSE 'function' END, depending.classid, depending.objid, 0, depending.whole
    FROM depending JOIN pg_catalog.pg_proc AS p
        ON depending.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = depending.objid
    WHERE depending.deptype = 'n'
        AND p.pronamespace <> COALESCE((SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = $4::pg_catalog.text), 0)
    UNION ALL
    -- Columns of the row's type, domains over it, casts of it.
    SELECT 'row', depending.classid, depending.objid, depending.objsubid, depending.whole
    FROM depending
    WHERE depending.deptype = 'n' AND (
        depending.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND depending.objsubid > 0
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS computed WHERE computed.attrelid = depending.objid
                AND computed.attnum = depending.objsubid AND computed.attgenerated <> '')
            -- What a view has of it, the view is found by.
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_class AS view
                WHERE view.oid = depending.objid AND view.relkind IN ('v', 'm'))
        OR depending.classid IN ('pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_cast'::pg_catalog.regclass))
    UNION ALL
    SELECT 'other', depending.classid, depending.objid, depending.objsubid, false
    FROM depending
    WHERE depending.deptype = 'n' AND NOT depending.whole AND depending.classid NOT IN (
        'pg_catalog.pg_rewrite'::pg_catalog.regclass, 'pg_catalog.pg_policy'::pg_catalog.regclass,
        'pg_catalog.pg_trigger'::pg_catalog.regclass, 'pg_catalog.pg_attrdef'::pg_catalog.regclass,
        'pg_catalog.pg_publication_rel'::pg_catalog.regclass, 'pg_catalog.pg_constraint'::pg_catalog.regclass,
        'pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_class'::pg_catalog.regclass,
        'pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_cast'::pg_catalog.regclass,
        'pg_catalog.pg_statistic_ext'::pg_catalog.regclass)
), views(oid, through) AS (
    -- Views on those views.
    SELECT found.objid, NULL::pg_catalog.oid FROM found WHERE found.kind = 'view'
    UNION
    SELECT rule.ev_class, views.oid FROM views
    JOIN pg_catalog.pg_depend AS d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = views.oid
        AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.deptype = 'n'
    JOIN pg_catalog.pg_rewrite AS rule ON rule.oid = d.objid AND rule.ev_class <> views.oid AND rule.rulename = '_RETURN'
)
SELECT found.kind, known.type || ' ' || known.identity AS object, pg_catalog.bool_and(found.whole) AS whole,
    NULL::pg_catalog.text AS through
FROM found CROSS JOIN LATERAL pg_catalog.pg_identify_object(found.classid, found.objid, found.objsubid) AS known
GROUP BY 1, 2
UNION
SELECT 'view', known.type || ' ' || known.identity, false, (
    SELECT pg_catalog.min(middle.type || ' ' || middle.identity) FROM views AS here
    CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_catalog.pg_class'::pg_catalog.regclass, here.through, 0) AS middle
    WHERE here.oid = views.oid AND here.through IS NOT NULL)
FROM views CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_catalog.pg_class'::pg_catalog.regclass, views.oid, 0) AS known
WHERE NOT EXISTS (SELECT FROM found WHERE found.kind = 'view' AND found.objid = views.oid)
UNION
-- The expressions and columns that a row is placed by, of the table or of a partition that is partitioned itself.
SELECT 'partition key', 'partition key of ' || known.identity, false, NULL
FROM gone JOIN pg_catalog.pg_partitioned_table AS pt ON pt.partrelid = gone.oid
CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_catalog.pg_class'::pg_catalog.regclass, gone.oid, 0) AS known
WHERE gone.attnum = ANY (pt.partattrs) OR EXISTS (
    -- Columns in expressions: they depend on their own table.
    SELECT FROM pg_catalog.pg_depend AS d
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = gone.oid AND d.objsubid = gone.attnum
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
        AND d.refobjid = gone.oid AND d.refobjsubid = 0 AND d.deptype = 'i')
UNION
SELECT 'grant', pg_catalog.format('%s on column %I of %s to %s', acl.privilege_type, $3::pg_catalog.text, known.identity,
    CASE WHEN acl.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee)) END),
    false, NULL
FROM gone JOIN pg_catalog.pg_attribute AS a ON a.attrelid = gone.oid AND a.attnum = gone.attnum
JOIN pg_catalog.pg_class AS c ON c.oid = gone.oid
CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) AS acl
CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_catalog.pg_class'::pg_catalog.regclass, gone.oid, 0) AS known
WHERE acl.grantee <> c.relowner
ORDER BY 1, 2
