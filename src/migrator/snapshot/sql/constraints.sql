-- The constraints of table c, by name.
SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'name', con.conname,
    'kind', CASE con.contype WHEN 'c' THEN 'Check' WHEN 'u' THEN 'Unique' WHEN 'p' THEN 'Primary'
        WHEN 'f' THEN 'Foreign' WHEN 'x' THEN 'Exclude' WHEN 'n' THEN 'NotNull' END,
    'columns', COALESCE((
        SELECT pg_catalog.jsonb_agg(a.attname ORDER BY key.at)
        FROM pg_catalog.unnest(con.conkey) WITH ORDINALITY AS key(attnum, at)
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = con.conrelid AND a.attnum = key.attnum), '[]'),
    'definition', pg_catalog.pg_get_constraintdef(con.oid),
    'validated', con.convalidated,
    'deferrable', con.condeferrable,
    'deferred', con.condeferred,
    'inherited', con.coninhcount > 0 OR con.conparentid <> 0,
    'index', CASE WHEN con.contype IN ('p', 'u', 'x') THEN (
        SELECT ic.relname FROM pg_catalog.pg_class AS ic WHERE ic.oid = con.conindid) END,
    'comment', pg_catalog.obj_description(con.oid, 'pg_constraint')
    ) ORDER BY con.conname)
FROM pg_catalog.pg_constraint AS con
WHERE con.conrelid = c.oid AND con.contype IN ('c', 'u', 'p', 'f', 'x', 'n')
    -- A foreign key to a partitioned table has one more row per partition of that table.
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_constraint AS above
        WHERE above.oid = con.conparentid AND above.conrelid = con.conrelid)
