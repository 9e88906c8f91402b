-- The columns of table c, in their order.
SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'name', a.attname,
    'data_type', pg_catalog.format_type(a.atttypid, a.atttypmod),
    'bare_type', pg_catalog.format_type(a.atttypid, -1),
    -- From 18 on attnotnull is set for a NOT NULL that is NOT VALID too.
    'not_null', a.attnotnull AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_constraint AS con
        WHERE con.conrelid = a.attrelid AND con.contype = 'n' AND con.conkey[1] = a.attnum AND NOT con.convalidated),
    'default', CASE WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(def.adbin, def.adrelid) END,
    -- The parsed tree names every function that it calls by its OID.
    'default_is_volatile', a.attgenerated = '' AND EXISTS (
        SELECT FROM pg_catalog.regexp_matches(def.adbin::pg_catalog.text, ':(?:funcid|opfuncid) ([0-9]+)', 'g') AS called(found)
        JOIN pg_catalog.pg_proc AS p ON p.oid = called.found[1]::pg_catalog.oid
        WHERE p.provolatile = 'v'),
    'identity', CASE a.attidentity WHEN 'a' THEN 'Always' WHEN 'd' THEN 'ByDefault' END,
    'generated', CASE WHEN a.attgenerated <> '' THEN pg_catalog.jsonb_build_object(
        'expression', pg_catalog.pg_get_expr(def.adbin, def.adrelid), 'stored', a.attgenerated = 's') END,
    'collation', CASE WHEN a.attcollation <> t.typcollation THEN (
        SELECT pg_catalog.format('%I.%I', n.nspname, coll.collname)
        FROM pg_catalog.pg_collation AS coll JOIN pg_catalog.pg_namespace AS n ON n.oid = coll.collnamespace
        WHERE coll.oid = a.attcollation) END,
    'storage', CASE WHEN a.attstorage <> t.typstorage THEN
        CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'm' THEN 'MAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'x' THEN 'EXTENDED' END END,
    'compression', CASE a.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END,
    'statistics', NULLIF(a.attstattarget, -1),
    'options', COALESCE(pg_catalog.to_jsonb(a.attoptions), '[]'),
    'comment', pg_catalog.col_description(a.attrelid, a.attnum),
    'grants', COALESCE((
        SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'grantee', granted.grantee, 'privilege', granted.privilege_type, 'grantable', granted.is_grantable)
            ORDER BY granted.grantee, granted.privilege_type)
        FROM (
            -- Two grantors may have given the same right.
            SELECT who.grantee, acl.privilege_type, pg_catalog.bool_or(acl.is_grantable) AS is_grantable
            FROM pg_catalog.aclexplode(a.attacl) AS acl
            CROSS JOIN LATERAL (SELECT CASE acl.grantee WHEN 0 THEN 'PUBLIC'
                ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee)) END AS grantee) AS who
            GROUP BY who.grantee, acl.privilege_type) AS granted), '[]'),
    'sequence', (
        SELECT pg_catalog.jsonb_build_object(
            'schema', n.nspname, 'name', owned.relname,
            'data_type', pg_catalog.format_type(seq.seqtypid, NULL),
            'start', seq.seqstart, 'increment', seq.seqincrement, 'min', seq.seqmin, 'max', seq.seqmax,
            'cache', seq.seqcache, 'cycle', seq.seqcycle,
            'comment', pg_catalog.obj_description(owned.oid, 'pg_class'),
            'grants', COALESCE((
                SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                    'grantee', granted.grantee, 'privilege', granted.privilege_type, 'grantable', granted.is_grantable)
                    ORDER BY granted.grantee, granted.privilege_type)
                FROM (
                    SELECT who.grantee, acl.privilege_type, pg_catalog.bool_or(acl.is_grantable) AS is_grantable
                    FROM pg_catalog.aclexplode(owned.relacl) AS acl
                    CROSS JOIN LATERAL (SELECT CASE acl.grantee WHEN 0 THEN 'PUBLIC'
                        ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee)) END AS grantee) AS who
                    WHERE acl.grantee <> owned.relowner
                    GROUP BY who.grantee, acl.privilege_type) AS granted), '[]'))
        FROM pg_catalog.pg_depend AS d
        JOIN pg_catalog.pg_sequence AS seq ON seq.seqrelid = d.objid
        JOIN pg_catalog.pg_class AS owned ON owned.oid = seq.seqrelid
        JOIN pg_catalog.pg_namespace AS n ON n.oid = owned.relnamespace
        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.deptype IN ('a', 'i')
        -- Identity before OWNED BY; of several, the one that came first.
        ORDER BY d.deptype = 'i' DESC, d.objid LIMIT 1),
    'equality_is_sameness', (
        WITH RECURSIVE base(oid, typtype, below) AS (
            SELECT t.oid, t.typtype, t.typbasetype
            UNION ALL
            SELECT up.oid, up.typtype, up.typbasetype
            FROM base JOIN pg_catalog.pg_type AS up ON up.oid = base.below
            WHERE base.typtype = 'd')
        SELECT base.typtype = 'e' OR base.oid = ANY (
            '{bool,int2,int4,int8,oid,uuid,date,time,timestamp,timestamptz,bytea,text,varchar,name,"\"char\""}'::pg_catalog.regtype[])
        FROM base WHERE base.typtype <> 'd')
        AND COALESCE((
            SELECT coll.collisdeterministic FROM pg_catalog.pg_collation AS coll WHERE coll.oid = a.attcollation), true)
    ) ORDER BY a.attnum)
FROM pg_catalog.pg_attribute AS a
JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_attrdef AS def ON def.adrelid = a.attrelid AND def.adnum = a.attnum
WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
