-- Extended statistics on table c.
SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'name', pg_catalog.format('%I.%I', sn.nspname, stx.stxname),
    'columns', COALESCE((
        SELECT pg_catalog.jsonb_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND (a.attnum = ANY (stx.stxkeys) OR EXISTS (
            SELECT FROM pg_catalog.pg_depend AS d
            WHERE d.classid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass AND d.objid = stx.oid
                AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                AND d.refobjid = c.oid AND d.refobjsubid = a.attnum))), '[]'),
    'definition', pg_catalog.pg_get_statisticsobjdef(stx.oid),
    'target', NULLIF(stx.stxstattarget, -1),
    'comment', pg_catalog.obj_description(stx.oid, 'pg_statistic_ext')
    ) ORDER BY sn.nspname, stx.stxname)
FROM pg_catalog.pg_statistic_ext AS stx
JOIN pg_catalog.pg_namespace AS sn ON sn.oid = stx.stxnamespace
WHERE stx.stxrelid = c.oid
