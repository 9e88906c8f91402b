-- Every partition below table c, parents before children. By pg_inherits, since pg_partition_tree locks them all.
WITH RECURSIVE below(oid, parent, level) AS (
    SELECT h.inhrelid, h.inhparent, 1 FROM pg_catalog.pg_inherits AS h
    WHERE h.inhparent = c.oid AND c.relkind = 'p' AND NOT h.inhdetachpending
    UNION ALL
    SELECT h.inhrelid, h.inhparent, below.level + 1
    FROM below JOIN pg_catalog.pg_inherits AS h ON h.inhparent = below.oid AND NOT h.inhdetachpending)
SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'schema', n2.nspname,
    'name', part.relname,
    'parent_schema', pn.nspname,
    'parent', parent.relname,
    'partitioned', part.relkind = 'p',
    'foreign', part.relkind = 'f'
    ) ORDER BY below.level, n2.nspname, part.relname)
FROM below
JOIN pg_catalog.pg_class AS part ON part.oid = below.oid
JOIN pg_catalog.pg_namespace AS n2 ON n2.oid = part.relnamespace
JOIN pg_catalog.pg_class AS parent ON parent.oid = below.parent
JOIN pg_catalog.pg_namespace AS pn ON pn.oid = parent.relnamespace
