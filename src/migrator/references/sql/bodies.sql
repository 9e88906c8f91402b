-- Functions whose body, where that is source text, has one of the names $1 in it, whatever its case. $2 and $3 are a table's
-- schema and name, $4 is the ledger's schema.
WITH RECURSIVE family(oid) AS (
    SELECT c.oid FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = $2::pg_catalog.text AND c.relname = $3::pg_catalog.text
    UNION
    SELECT h.inhrelid FROM family JOIN pg_catalog.pg_inherits AS h ON h.inhparent = family.oid
)
SELECT known.type || ' ' || known.identity AS object, p.prosrc AS body,
    EXISTS (SELECT FROM pg_catalog.pg_trigger AS tg WHERE tg.tgfoid = p.oid AND tg.tgrelid IN (SELECT family.oid FROM family))
    OR EXISTS (
        SELECT FROM pg_catalog.pg_depend AS d
        JOIN pg_catalog.pg_type AS row ON d.refobjid IN (row.oid, row.typarray)
        JOIN family ON family.oid = row.typrelid
        WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid
            AND d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass) AS of_table
FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, 0) AS known
WHERE l.lanname NOT IN ('c', 'internal') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    AND n.nspname <> $4::pg_catalog.text
    AND EXISTS (SELECT FROM pg_catalog.unnest($1::pg_catalog.text[]) AS needle(name)
        WHERE pg_catalog.strpos(pg_catalog.lower(p.prosrc), pg_catalog.lower(needle.name)) > 0
            OR pg_catalog.strpos(p.prosrc, pg_catalog.replace(needle.name, '"', '""')) > 0)
    -- What an extension brings is its own affair.
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
        AND d.objid = p.oid AND d.deptype = 'e')
ORDER BY 1
