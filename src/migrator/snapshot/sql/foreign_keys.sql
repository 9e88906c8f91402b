-- The foreign keys from and to table c, by table and name.
SELECT pg_catalog.jsonb_build_object(
    'outgoing', COALESCE(pg_catalog.jsonb_agg(fk.described ORDER BY fk.conname) FILTER (WHERE fk.conrelid = c.oid), '[]'),
    'incoming', COALESCE(pg_catalog.jsonb_agg(fk.described ORDER BY fk.nspname, fk.relname, fk.conname)
        FILTER (WHERE fk.confrelid = c.oid), '[]'))
FROM (
    SELECT con.conname, con.conrelid, con.confrelid, rn.nspname, r.relname, pg_catalog.jsonb_build_object(
        'name', con.conname,
        'schema', rn.nspname,
        'table', r.relname,
        'partitioned', r.relkind = 'p',
        'owned', pg_catalog.pg_has_role(r.relowner, 'USAGE'),
        'columns', (
            SELECT pg_catalog.jsonb_agg(a.attname ORDER BY key.at)
            FROM pg_catalog.unnest(con.conkey) WITH ORDINALITY AS key(attnum, at)
            JOIN pg_catalog.pg_attribute AS a ON a.attrelid = con.conrelid AND a.attnum = key.attnum),
        'ref_schema', fn.nspname,
        'ref_table', f.relname,
        'ref_columns', (
            SELECT pg_catalog.jsonb_agg(a.attname ORDER BY key.at)
            FROM pg_catalog.unnest(con.confkey) WITH ORDINALITY AS key(attnum, at)
            JOIN pg_catalog.pg_attribute AS a ON a.attrelid = con.confrelid AND a.attnum = key.attnum),
        -- What the referenced columns are unique by.
        'index', (SELECT i.relname FROM pg_catalog.pg_class AS i WHERE i.oid = con.conindid),
        'on_update', CASE con.confupdtype WHEN 'a' THEN 'NO ACTION' WHEN 'r' THEN 'RESTRICT' WHEN 'c' THEN 'CASCADE'
            WHEN 'n' THEN 'SET NULL' WHEN 'd' THEN 'SET DEFAULT' END,
        'on_delete', CASE con.confdeltype WHEN 'a' THEN 'NO ACTION' WHEN 'r' THEN 'RESTRICT' WHEN 'c' THEN 'CASCADE'
            WHEN 'n' THEN 'SET NULL' WHEN 'd' THEN 'SET DEFAULT' END,
        -- confdelsetcols came with 15; read by name, so that 14 can run the same text.
        'set_columns', COALESCE((
            SELECT pg_catalog.jsonb_agg(a.attname ORDER BY key.at)
            FROM pg_catalog.jsonb_array_elements_text(
                NULLIF(pg_catalog.to_jsonb(con) -> 'confdelsetcols', 'null')) WITH ORDINALITY AS key(attnum, at)
            JOIN pg_catalog.pg_attribute AS a
                ON a.attrelid = con.conrelid AND a.attnum = key.attnum::pg_catalog.int2), '[]'),
        'match_full', con.confmatchtype = 'f',
        'deferrable', con.condeferrable,
        'deferred', con.condeferred,
        'validated', con.convalidated,
        -- Both came with 18.
        'enforced', COALESCE((pg_catalog.to_jsonb(con) ->> 'conenforced')::pg_catalog.bool, true),
        'period', COALESCE((pg_catalog.to_jsonb(con) ->> 'conperiod')::pg_catalog.bool, false),
        'inherited', con.coninhcount > 0 OR con.conparentid <> 0,
        'comment', pg_catalog.obj_description(con.oid, 'pg_constraint')) AS described
    FROM pg_catalog.pg_constraint AS con
    JOIN pg_catalog.pg_class AS r ON r.oid = con.conrelid
    JOIN pg_catalog.pg_namespace AS rn ON rn.oid = r.relnamespace
    JOIN pg_catalog.pg_class AS f ON f.oid = con.confrelid
    JOIN pg_catalog.pg_namespace AS fn ON fn.oid = f.relnamespace
    WHERE con.contype = 'f' AND (con.conrelid = c.oid OR con.confrelid = c.oid)
        -- A foreign key to a partitioned table has one more row per partition of that table.
        AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_constraint AS above
            WHERE above.oid = con.conparentid AND above.conrelid = con.conrelid)) AS fk
