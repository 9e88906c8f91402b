-- The user's triggers on table c, by name; $3 is the ledger's schema.
SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'name', tg.tgname,
    'definition', pg_catalog.pg_get_triggerdef(tg.oid),
    'columns', COALESCE((
        SELECT pg_catalog.jsonb_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND (a.attnum = ANY (tg.tgattr) OR EXISTS (
            SELECT FROM pg_catalog.pg_depend AS d
            WHERE d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND d.objid = tg.oid
                AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                AND d.refobjid = c.oid AND d.refobjsubid = a.attnum))), '[]'),
    'before', tg.tgtype & 2 <> 0,
    'body', CASE WHEN l.lanname IN ('c', 'internal') THEN '' ELSE p.prosrc END
    ) ORDER BY tg.tgname)
FROM pg_catalog.pg_trigger AS tg
JOIN pg_catalog.pg_proc AS p ON p.oid = tg.tgfoid
JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.pronamespace
WHERE tg.tgrelid = c.oid AND NOT tg.tgisinternal AND pn.nspname <> $3::pg_catalog.name
