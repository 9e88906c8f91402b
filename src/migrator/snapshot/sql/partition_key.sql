-- The columns that decide where a row of table c lives, at every level of partitioning.
WITH RECURSIVE tree(oid) AS (
    SELECT c.oid WHERE c.relkind = 'p'
    UNION ALL
    SELECT part.oid FROM tree
    JOIN pg_catalog.pg_inherits AS h ON h.inhparent = tree.oid
    JOIN pg_catalog.pg_class AS part ON part.oid = h.inhrelid AND part.relkind = 'p')
SELECT pg_catalog.jsonb_agg(own.attname ORDER BY own.attnum)
FROM pg_catalog.pg_attribute AS own
WHERE own.attrelid = c.oid AND own.attnum > 0 AND NOT own.attisdropped AND own.attname IN (
    SELECT a.attname
    FROM tree
    JOIN pg_catalog.pg_partitioned_table AS pt ON pt.partrelid = tree.oid
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = tree.oid AND a.attnum > 0
    WHERE a.attnum = ANY (pt.partattrs) OR EXISTS (
        -- Columns in expressions: they depend on their own table.
        SELECT FROM pg_catalog.pg_depend AS d
        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = tree.oid AND d.objsubid = a.attnum
            AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND d.refobjid = tree.oid AND d.refobjsubid = 0 AND d.deptype = 'i'))
