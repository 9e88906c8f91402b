-- What the partitions below table c have on a column of their own: neither inherited from a parent nor cloned from it.
WITH RECURSIVE below(oid, parent) AS (
    SELECT h.inhrelid, h.inhparent FROM pg_catalog.pg_inherits AS h
    WHERE h.inhparent = c.oid AND c.relkind = 'p' AND NOT h.inhdetachpending
    UNION ALL
    SELECT h.inhrelid, h.inhparent
    FROM below JOIN pg_catalog.pg_inherits AS h ON h.inhparent = below.oid AND NOT h.inhdetachpending
), cols AS (
    SELECT below.oid, below.parent, a.attname, a.attnum, a.attnotnull, a.attacl, a.attgenerated,
        up.attnotnull AS up_not_null,
        COALESCE(a.attstattarget, -1) NOT IN (-1, COALESCE(up.attstattarget, -1)) AS targets,
        a.attstorage NOT IN (t.typstorage, up.attstorage) AS stores,
        a.attcompression NOT IN ('', up.attcompression) AS compresses,
        a.attoptions IS NOT NULL AND a.attoptions IS DISTINCT FROM up.attoptions AS opts
    FROM below
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = below.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_attribute AS up ON up.attrelid = below.parent AND up.attname = a.attname AND NOT up.attisdropped
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
), things(oid, attname, object, blocks) AS (
    -- Indexes: its own, and what is said of an inherited one here alone.
    SELECT cols.oid, cols.attname, what.object, false
    FROM cols
    JOIN pg_catalog.pg_index AS i ON i.indrelid = cols.oid
    JOIN pg_catalog.pg_class AS ic ON ic.oid = i.indexrelid
    CROSS JOIN LATERAL (SELECT CASE
        WHEN i.indisreplident THEN pg_catalog.format('the replica identity by index "%s"', ic.relname)
        WHEN NOT ic.relispartition THEN pg_catalog.format('index "%s"', ic.relname)
        WHEN i.indisclustered THEN pg_catalog.format('the clustering by index "%s"', ic.relname)
        WHEN pg_catalog.obj_description(ic.oid, 'pg_class') IS NOT NULL
            THEN pg_catalog.format('a comment on index "%s"', ic.relname)
        END AS object) AS what
    WHERE what.object IS NOT NULL AND (cols.attnum = ANY (i.indkey) OR EXISTS (
        SELECT FROM pg_catalog.pg_depend AS d
        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = i.indexrelid
            AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND d.refobjid = i.indrelid AND d.refobjsubid = cols.attnum))
    UNION ALL
    -- Constraints; those with an index are told of by it.
    SELECT cols.oid, cols.attname, pg_catalog.format('constraint "%s"', con.conname), false
    FROM cols
    JOIN pg_catalog.pg_constraint AS con ON con.conrelid = cols.oid AND cols.attnum = ANY (con.conkey)
    WHERE con.contype IN ('c', 'f', 'n') AND con.coninhcount = 0 AND con.conparentid = 0
    UNION ALL
    SELECT cols.oid, cols.attname,
        pg_catalog.format('foreign key "%s" of %s', con.conname, con.conrelid::pg_catalog.regclass), true
    FROM cols
    JOIN pg_catalog.pg_constraint AS con ON con.confrelid = cols.oid AND cols.attnum = ANY (con.confkey)
    WHERE con.contype = 'f' AND con.conparentid = 0
    UNION ALL
    SELECT cols.oid, cols.attname, 'a NOT NULL', false
    FROM cols
    WHERE cols.attnotnull AND NOT cols.up_not_null AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_constraint AS con
        WHERE con.conrelid = cols.oid AND con.contype = 'n' AND cols.attnum = ANY (con.conkey))
    UNION ALL
    SELECT cols.oid, cols.attname, 'a default', false
    FROM cols
    JOIN pg_catalog.pg_attrdef AS def ON def.adrelid = cols.oid AND def.adnum = cols.attnum
    WHERE cols.attgenerated = '' AND pg_catalog.pg_get_expr(def.adbin, def.adrelid) IS DISTINCT FROM (
        SELECT pg_catalog.pg_get_expr(above.adbin, above.adrelid)
        FROM pg_catalog.pg_attrdef AS above
        JOIN pg_catalog.pg_attribute AS up ON up.attrelid = above.adrelid AND up.attnum = above.adnum
        WHERE above.adrelid = cols.parent AND up.attname = cols.attname)
    UNION ALL
    SELECT cols.oid, cols.attname, 'column grants', false FROM cols WHERE cols.attacl IS NOT NULL
    UNION ALL
    SELECT cols.oid, cols.attname, 'a comment', false
    FROM cols WHERE pg_catalog.col_description(cols.oid, cols.attnum) IS NOT NULL
    UNION ALL
    -- The defaults of what can be set are the same everywhere; what differs from the parent was set here.
    SELECT cols.oid, cols.attname, set.object, false
    FROM cols
    CROSS JOIN LATERAL (VALUES
        ('a statistics target', cols.targets), ('a storage', cols.stores), ('a compression', cols.compresses),
        ('options', cols.opts)) AS set(object, differs)
    WHERE set.differs
    UNION ALL
    SELECT cols.oid, cols.attname,
        pg_catalog.format('statistics %s', pg_catalog.format('%I.%I', sn.nspname, stx.stxname)), false
    FROM cols
    JOIN pg_catalog.pg_statistic_ext AS stx ON stx.stxrelid = cols.oid
    JOIN pg_catalog.pg_namespace AS sn ON sn.oid = stx.stxnamespace
    WHERE cols.attnum = ANY (stx.stxkeys) OR EXISTS (
        SELECT FROM pg_catalog.pg_depend AS d
        WHERE d.classid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass AND d.objid = stx.oid
            AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND d.refobjid = cols.oid AND d.refobjsubid = cols.attnum)
    UNION ALL
    SELECT cols.oid, cols.attname, pg_catalog.format('trigger "%s"', tg.tgname), true
    FROM cols
    JOIN pg_catalog.pg_trigger AS tg ON tg.tgrelid = cols.oid AND NOT tg.tgisinternal AND tg.tgparentid = 0
    WHERE cols.attnum = ANY (tg.tgattr) OR EXISTS (
        SELECT FROM pg_catalog.pg_depend AS d
        WHERE d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND d.objid = tg.oid
            AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND d.refobjid = cols.oid AND d.refobjsubid = cols.attnum)
)
SELECT leaf.name AS partition, things.attname, things.object, pg_catalog.jsonb_build_object(
    'partition', leaf.name, 'column', things.attname, 'object', things.object, 'blocks', things.blocks) AS described
FROM things
JOIN pg_catalog.pg_class AS part ON part.oid = things.oid
JOIN pg_catalog.pg_namespace AS pn ON pn.oid = part.relnamespace
CROSS JOIN LATERAL (SELECT pg_catalog.format('%I.%I', pn.nspname, part.relname) AS name) AS leaf
