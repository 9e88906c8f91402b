//! The one statement that reads the catalog.

/// A subquery of its own file over the table `c`; an empty list where it finds nothing.
macro_rules! list {
    ($file:literal) => {
        concat!("COALESCE((\n", include_str!(concat!("sql/", $file)), "), '[]')")
    };
}

/// One statement, so that everything in it is of one moment.
///
/// `$1` and `$2` are the asked tables' schemas and names, `$3` the ledger's schema. It returns one JSON object as
/// text, whose members are named as the fields of [`Snapshot`](crate::catalog::Snapshot) and below.
pub(super) const SNAPSHOT: &str = concat!(
    "
WITH RECURSIVE asked AS (
    SELECT DISTINCT c.oid
    FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) AS named(nspname, relname)
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = named.nspname::pg_catalog.name
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = named.relname::pg_catalog.name
), family(oid) AS (
    SELECT asked.oid FROM asked
    UNION
    SELECT h.inhrelid FROM family JOIN pg_catalog.pg_inherits AS h ON h.inhparent = family.oid
), reached AS (
    -- The asked schemas, and those of partitions: they may be elsewhere than their parent, and indexes are made there.
    SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = ANY ($1::pg_catalog.text[])
    UNION
    SELECT part.relnamespace FROM family JOIN pg_catalog.pg_class AS part ON part.oid = family.oid
)
SELECT pg_catalog.jsonb_build_object(
    'server_version', pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
    'role', pg_catalog.quote_ident(current_user),
    'schemas', COALESCE((
        SELECT pg_catalog.jsonb_object_agg(n.nspname, pg_catalog.has_schema_privilege(n.oid, 'CREATE'))
        FROM pg_catalog.pg_namespace AS n WHERE n.oid IN (SELECT reached.oid FROM reached)), '{}'),
    'tables', COALESCE((
        SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'oid', c.oid::pg_catalog.int8,
            'schema', n.nspname,
            'name', c.relname,
            'kind', CASE c.relkind WHEN 'r' THEN 'Ordinary' WHEN 'p' THEN 'Partitioned' ELSE 'Other' END,
            'owner', pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner)),
            'owned', pg_catalog.pg_has_role(c.relowner, 'USAGE'),
            'is_partition', c.relispartition,
            'inherits', NOT c.relispartition AND EXISTS (
                SELECT FROM pg_catalog.pg_inherits AS h WHERE h.inhrelid = c.oid)
                OR c.relkind <> 'p' AND c.relhassubclass AND EXISTS (
                SELECT FROM pg_catalog.pg_inherits AS h WHERE h.inhparent = c.oid),
            -- -1: never analyzed, as a partitioned table often is.
            'rows', CASE WHEN c.relkind <> 'p' THEN NULLIF(c.reltuples, -1) ELSE (
                WITH RECURSIVE below(oid) AS (
                    SELECT h.inhrelid FROM pg_catalog.pg_inherits AS h WHERE h.inhparent = c.oid
                    UNION ALL
                    SELECT h.inhrelid FROM below JOIN pg_catalog.pg_inherits AS h ON h.inhparent = below.oid)
                SELECT pg_catalog.sum(part.reltuples) FROM below JOIN pg_catalog.pg_class AS part ON part.oid = below.oid
                WHERE part.relkind <> 'p' AND part.reltuples >= 0) END,
            'columns', ",
    list!("columns.sql"),
    ", 'indexes', ",
    list!("indexes.sql"),
    ", 'constraints', ",
    list!("constraints.sql"),
    ", 'triggers', ",
    list!("triggers.sql"),
    ", 'dependents', ",
    list!("dependents.sql"),
    ", 'statistics', ",
    list!("statistics.sql"),
    ", 'statistics_taken', ",
    list!("statistics_taken.sql"),
    ", 'incoming_taken', ",
    list!("incoming_taken.sql"),
    ", 'partition_key', ",
    list!("partition_key.sql"),
    ", 'partitions', ",
    list!("partitions.sql"),
    ", 'local', (SELECT COALESCE(pg_catalog.jsonb_agg(own.described ORDER BY own.partition, own.attname, own.object), '[]') FROM (",
    include_str!("sql/local.sql"),
    ") AS own) || (SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'partition', reader.partition, 'column', reader.found -> 'column', 'object', reader.found -> 'object',
        'blocks', true) ORDER BY reader.partition, reader.found), '[]')
        FROM (SELECT part.name AS partition, pg_catalog.jsonb_array_elements(part.readers) AS found FROM (
            WITH RECURSIVE below(oid) AS (
                SELECT h.inhrelid FROM pg_catalog.pg_inherits AS h
                WHERE h.inhparent = c.oid AND c.relkind = 'p' AND NOT h.inhdetachpending
                UNION ALL
                SELECT h.inhrelid FROM below JOIN pg_catalog.pg_inherits AS h
                    ON h.inhparent = below.oid AND NOT h.inhdetachpending)
            SELECT leaf.name, ",
    list!("dependents.sql"),
    " AS readers
            FROM below JOIN pg_catalog.pg_class AS c ON c.oid = below.oid
            JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            CROSS JOIN LATERAL (SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name) AS leaf) AS part) AS reader
        WHERE reader.found ->> 'function' = 'false' OR reader.found ->> 'column' IS NOT NULL)
    ",
    ", 'replica_identity', CASE c.relreplident WHEN 'n' THEN '\"Nothing\"'::pg_catalog.jsonb
                WHEN 'f' THEN '\"Full\"' WHEN 'i' THEN COALESCE((
                    SELECT pg_catalog.jsonb_build_object('Index', ic.relname)
                    FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS ic ON ic.oid = i.indexrelid
                    WHERE i.indrelid = c.oid AND i.indisreplident), '\"Nothing\"')
                ELSE '\"Default\"' END
            ) || (",
    include_str!("sql/foreign_keys.sql"),
    "))
        FROM asked JOIN pg_catalog.pg_class AS c ON c.oid = asked.oid
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace), '[]'),
    'taken', COALESCE((
        SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(n.nspname, r.relname))
        FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_class AS r ON r.relnamespace = n.oid
        WHERE n.oid IN (SELECT reached.oid FROM reached)), '[]')
)::pg_catalog.text"
);

/// What else the deparsed SQL would depend on; set for the reading transaction only. Compiling the statement would
/// take far longer than running it.
pub(super) const SETTINGS: &str = "
SELECT pg_catalog.set_config('DateStyle', 'ISO, YMD', true),
    pg_catalog.set_config('IntervalStyle', 'postgres', true),
    pg_catalog.set_config('TimeZone', 'UTC', true),
    pg_catalog.set_config('extra_float_digits', '1', true),
    pg_catalog.set_config('bytea_output', 'hex', true),
    pg_catalog.set_config('quote_all_identifiers', 'off', true),
    pg_catalog.set_config('jit', 'off', true)";
