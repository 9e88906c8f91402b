-- The statistics objects in the schema of table c, by name.
SELECT pg_catalog.jsonb_agg(stx.stxname)
FROM pg_catalog.pg_statistic_ext AS stx
WHERE stx.stxnamespace = c.relnamespace
