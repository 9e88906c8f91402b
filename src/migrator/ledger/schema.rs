//! The ledger's own tables.

/// The version of the layout that this phasewise writes and reads.
pub(super) const VERSION: i32 = 1;

/// What makes a ledger, one statement per message, `{s}` being its schema as SQL.
pub(super) const CREATE: &[&str] = &[
    "CREATE TABLE {s}.ledger (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        version integer NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )",
    "CREATE TABLE {s}.migrations (
        name text PRIMARY KEY,
        fingerprint text NOT NULL,
        definition text NOT NULL,
        phases jsonb NOT NULL,
        entered integer NOT NULL DEFAULT 0 CHECK (entered >= 0),
        moving text CHECK (moving IN ('forward', 'back')),
        paused boolean NOT NULL DEFAULT false,
        services text[] NOT NULL DEFAULT '{}',
        tables text[] NOT NULL DEFAULT '{}',
        columns text[] NOT NULL DEFAULT '{}',
        everything boolean NOT NULL DEFAULT false,
        first_seen timestamptz NOT NULL DEFAULT clock_timestamp(),
        since timestamptz NOT NULL DEFAULT clock_timestamp(),
        counted_at timestamptz
    )",
    "CREATE TABLE {s}.confirmations (
        migration text NOT NULL,
        phase text NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        by text NOT NULL,
        PRIMARY KEY (migration, phase)
    )",
    "CREATE TABLE {s}.acknowledgements (
        migration text NOT NULL,
        object text NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        by text NOT NULL,
        PRIMARY KEY (migration, object)
    )",
    "CREATE TABLE {s}.baselines (
        migration text NOT NULL,
        server text NOT NULL,
        at timestamptz NOT NULL,
        seen jsonb NOT NULL,
        PRIMARY KEY (migration, server)
    )",
    "CREATE TABLE {s}.history (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        migration text NOT NULL,
        phase text NOT NULL,
        direction text NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        took double precision NOT NULL,
        by text NOT NULL
    )",
    "CREATE TABLE {s}.notes (
        migration text NOT NULL,
        phase text NOT NULL,
        direction text NOT NULL,
        step text NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (migration, phase, direction, step)
    )",
    "CREATE TABLE {s}.saved (
        migration text NOT NULL,
        key text NOT NULL,
        phase text NOT NULL,
        value jsonb NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (migration, key)
    )",
    "CREATE TABLE {s}.backfills (
        migration text NOT NULL,
        phase text NOT NULL,
        direction text NOT NULL,
        step text NOT NULL,
        part integer NOT NULL,
        relation text NOT NULL,
        relation_oid oid NOT NULL,
        pass integer NOT NULL,
        first bigint,
        page bigint,
        item integer,
        pages bigint,
        after text[],
        ended boolean NOT NULL DEFAULT false,
        done bigint NOT NULL DEFAULT 0,
        written bigint NOT NULL DEFAULT 0,
        estimate bigint,
        size bigint,
        rate double precision,
        token bigint,
        reason text,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (migration, phase, direction, step, part)
    )",
    "CREATE TABLE {s}.paces (
        migration text PRIMARY KEY,
        speed double precision NOT NULL DEFAULT 1 CHECK (speed > 0),
        target double precision CHECK (target > 0),
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        by text NOT NULL
    )",
    "CREATE TABLE {s}.set_aside (
        migration text NOT NULL,
        phase text NOT NULL,
        relation text NOT NULL,
        key text NOT NULL,
        row text NOT NULL,
        error text NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (migration, relation, row)
    )",
    "CREATE TABLE {s}.instances (
        id uuid PRIMARY KEY,
        service text NOT NULL,
        releases jsonb NOT NULL,
        expiry double precision NOT NULL CHECK (expiry > 0),
        started timestamptz NOT NULL DEFAULT clock_timestamp(),
        seen timestamptz NOT NULL DEFAULT clock_timestamp(),
        by text NOT NULL,
        role text NOT NULL DEFAULT session_user,
        address text DEFAULT host(inet_client_addr()),
        application text NOT NULL DEFAULT current_setting('application_name'),
        failed text,
        failed_at timestamptz
    )",
    "CREATE TABLE {s}.listings (
        service text NOT NULL,
        migration text NOT NULL,
        tables text[] NOT NULL,
        everything boolean NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (service, migration)
    )",
    "CREATE TABLE {s}.older (
        migration text NOT NULL,
        phase text NOT NULL,
        at timestamptz NOT NULL,
        PRIMARY KEY (migration, phase)
    )",
    "CREATE TABLE {s}.lease (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        holder text,
        token bigint NOT NULL,
        expires_at timestamptz NOT NULL,
        lasts double precision,
        by text,
        wanted_at timestamptz,
        in_vain integer NOT NULL DEFAULT 0,
        rest_until timestamptz,
        rest_of text
    )",
    "INSERT INTO {s}.lease (token, expires_at) VALUES (0, '-infinity')",
];
