-- What reads columns of table c, or its whole row. Left out, because they are listed elsewhere or vanish with the
-- column: indexes, partitions, constraints, defaults, sequences, triggers, extended statistics.
SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'column', found.attname, 'object', found.object, 'function', found.function, 'bare', found.bare)
    ORDER BY found.attname NULLS FIRST, found.object)
FROM (
    SELECT DISTINCT a.attname, CASE
        WHEN rule.rulename = '_RETURN'
            THEN pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, rule.ev_class, 0)
        -- A view's column of the row type.
        WHEN view.oid IS NOT NULL THEN pg_catalog.pg_describe_object(d.classid, d.objid, 0)
        WHEN computed.attnum IS NOT NULL THEN 'generated '
            || pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, computed.attrelid, computed.attnum)
        ELSE pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) END AS object,
        d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AS function,
        -- A query depends on the table itself where it names no column at all, as count(*) does.
        rule.oid IS NOT NULL AND d.refobjsubid = 0 AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND pg_catalog.strpos(rule.ev_qual::pg_catalog.text || rule.ev_action::pg_catalog.text,
                ':varattno 0 :vartype ' || c.reltype || ' ') = 0 AS bare
    FROM pg_catalog.pg_depend AS d
    LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid AND d.refobjsubid > 0
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    LEFT JOIN pg_catalog.pg_rewrite AS rule
        ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND rule.oid = d.objid
    LEFT JOIN pg_catalog.pg_class AS view
        ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND view.oid = d.objid AND view.relkind IN ('v', 'm')
    LEFT JOIN pg_catalog.pg_attrdef AS def
        ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND def.oid = d.objid
    -- Before 15 it is the column that depends, not its expression, and it vanishes with what it reads.
    LEFT JOIN pg_catalog.pg_attribute AS computed ON computed.attgenerated <> ''
        AND computed.attrelid = COALESCE(def.adrelid, d.objid) AND computed.attnum = COALESCE(def.adnum, d.objsubid)
        AND (def.oid IS NOT NULL OR d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass)
    WHERE (
            -- Its columns, or the table as a whole.
            d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = c.oid
            AND d.deptype = 'n'
            AND d.classid NOT IN (
                'pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_constraint'::pg_catalog.regclass,
                'pg_catalog.pg_attrdef'::pg_catalog.regclass, 'pg_catalog.pg_trigger'::pg_catalog.regclass,
                'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass)
            -- A rule of its own refers to the whole table by OLD and NEW; that says nothing where it names columns.
            AND NOT (rule.ev_class IS NOT DISTINCT FROM c.oid AND d.refobjsubid = 0 AND EXISTS (
                SELECT FROM pg_catalog.pg_depend AS named
                WHERE named.classid = d.classid AND named.objid = d.objid AND named.refclassid = d.refclassid
                    AND named.refobjid = c.oid AND named.refobjsubid > 0))
        ) OR (
            -- Generated columns, whatever kind of dependency.
            d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = c.oid AND d.refobjsubid > 0
            AND computed.attrelid = c.oid AND computed.attnum <> d.refobjsubid
        ) OR (
            -- Its row type, and arrays of it.
            d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.deptype = 'n' AND c.reltype <> 0
            AND (d.refobjid = c.reltype OR d.refobjid = (
                SELECT row.typarray FROM pg_catalog.pg_type AS row WHERE row.oid = c.reltype AND row.typarray <> 0))
        )
    UNION
    -- Views and rules that read the row as one value: a variable without a column, of the row's type.
    SELECT NULL, CASE WHEN rule.rulename = '_RETURN'
            THEN pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, rule.ev_class, 0)
        ELSE pg_catalog.pg_describe_object('pg_catalog.pg_rewrite'::pg_catalog.regclass, rule.oid, 0) END, false, false
    FROM pg_catalog.pg_rewrite AS rule
    WHERE EXISTS (SELECT FROM pg_catalog.pg_depend AS d
            WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = rule.oid AND d.deptype = 'n'
                AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = c.oid)
        AND pg_catalog.strpos(rule.ev_qual::pg_catalog.text || rule.ev_action::pg_catalog.text,
            ':varattno 0 :vartype ' || c.reltype || ' ') > 0) AS found(attname, object, function, bare)
