-- The indexes of table c, by name.
SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'name', ic.relname,
    'unique', i.indisunique,
    'primary', i.indisprimary,
    'valid', i.indisvalid,
    'in_progress', EXISTS (
        SELECT FROM pg_catalog.pg_stat_progress_create_index AS p
        JOIN pg_catalog.pg_database AS db ON db.oid = p.datid AND db.datname = pg_catalog.current_database()
        WHERE p.index_relid = i.indexrelid
            -- Without the right to see which index another role is building, its lock on the table tells enough.
            OR p.relid IS NULL AND EXISTS (
                SELECT FROM pg_catalog.pg_locks AS l
                WHERE l.pid = p.pid AND l.database = p.datid AND l.relation = i.indrelid
                    AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock'))),
    'constraint', (
        SELECT con.conname FROM pg_catalog.pg_constraint AS con
        WHERE con.conindid = i.indexrelid AND con.conrelid = i.indrelid AND con.contype IN ('p', 'u', 'x')),
    'uses', COALESCE((
        SELECT pg_catalog.jsonb_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = i.indrelid AND (a.attnum = ANY (i.indkey) OR EXISTS (
            SELECT FROM pg_catalog.pg_depend AS d
            WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = i.indexrelid
                AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum)) AND a.attnum > 0), '[]'),
    'keys', (
        SELECT pg_catalog.jsonb_agg(a.attname ORDER BY key.at)
        FROM pg_catalog.unnest(i.indkey) WITH ORDINALITY AS key(attnum, at)
        LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = key.attnum AND key.attnum <> 0
        WHERE key.at <= i.indnkeyatts),
    -- NULL, which the reader refuses, if Postgres should ever write the head otherwise.
    'tail', CASE WHEN pg_catalog.starts_with(def.text, head.text)
        THEN pg_catalog.substr(def.text, pg_catalog.length(head.text) + 1) END,
    'partitioned', ic.relkind = 'I',
    'comment', pg_catalog.obj_description(i.indexrelid, 'pg_class'),
    'clustered', i.indisclustered,
    'statistics', COALESCE((
        SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(a.attnum, a.attstattarget) ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0), '[]'),
    'children', COALESCE((
        WITH RECURSIVE below(oid) AS (
            SELECT h.inhrelid FROM pg_catalog.pg_inherits AS h WHERE h.inhparent = i.indexrelid
            UNION ALL
            SELECT h.inhrelid FROM below JOIN pg_catalog.pg_inherits AS h ON h.inhparent = below.oid)
        SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(pn.nspname, pt.relname, px.relname) ORDER BY pn.nspname, pt.relname)
        FROM below JOIN pg_catalog.pg_index AS pi ON pi.indexrelid = below.oid
        JOIN pg_catalog.pg_class AS px ON px.oid = below.oid
        JOIN pg_catalog.pg_class AS pt ON pt.oid = pi.indrelid
        JOIN pg_catalog.pg_namespace AS pn ON pn.oid = pt.relnamespace), '[]')
    ) ORDER BY ic.relname)
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS ic ON ic.oid = i.indexrelid
CROSS JOIN LATERAL (SELECT pg_catalog.pg_get_indexdef(i.indexrelid) AS text) AS def
CROSS JOIN LATERAL (SELECT pg_catalog.format('CREATE %sINDEX %I ON %s%I.%I USING ',
    CASE WHEN i.indisunique THEN 'UNIQUE ' END, ic.relname,
    CASE WHEN ic.relkind = 'I' THEN 'ONLY ' END, n.nspname, c.relname) AS text) AS head
WHERE i.indrelid = c.oid
