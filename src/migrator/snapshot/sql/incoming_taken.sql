-- The constraints of the tables that refer to table c: schema, table, name.
SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(n.nspname, r.relname, con.conname))
FROM pg_catalog.pg_constraint AS con
JOIN pg_catalog.pg_class AS r ON r.oid = con.conrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = r.relnamespace
WHERE con.conrelid IN (
    SELECT ref.conrelid FROM pg_catalog.pg_constraint AS ref WHERE ref.contype = 'f' AND ref.confrelid = c.oid)
