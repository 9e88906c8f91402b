//! The service's builds, deploy by deploy: users.name becomes users.full_name.
//!
//! Read it as a reviewer reads deploys: each build is the one before, with one word and the SQL changed. In a real
//! repository there is only the newest of them; here they stand side by side, so that one program can run them all.

use phasewise::rename_column::{StopOldWrites, SwitchReads, WriteBoth};
use phasewise::{Migration, Migrations, RenameColumn, migrations};

pub const MIGRATION: &str = "20261122_users_full_name";

const RENAME: RenameColumn = RenameColumn::new("users", "name", "full_name");

/// What differs from build to build. Columns are always listed, never `*`: a prepared `SELECT *` breaks when a column
/// is added.
#[derive(Debug)]
pub struct Build {
    pub migrations: Migrations,
    pub read: &'static str,
    pub write: &'static str,
}

/// The build of each release. A write counts only if no newer one has been there: a proxy may send it twice.
pub static RELEASES: [Build; 4] = [
    // Carries the migration along, and knows nothing of the new column.
    Build {
        migrations: migrations![Migration::new(MIGRATION, RENAME).not_deployed()],
        read: "SELECT version, name FROM users WHERE id = $1",
        write: "INSERT INTO users (id, version, name) VALUES ($1, $2, $3)
                ON CONFLICT (id) DO UPDATE
                SET version = excluded.version, name = excluded.name
                WHERE users.version <= excluded.version",
    },
    // Writes both, reads the old one.
    Build {
        migrations: migrations![Migration::new(MIGRATION, RENAME).deployed::<WriteBoth>()],
        read: "SELECT version, name FROM users WHERE id = $1",
        write: "INSERT INTO users (id, version, name, full_name) VALUES ($1, $2, $3, $3)
                ON CONFLICT (id) DO UPDATE
                SET version = excluded.version, name = excluded.name, full_name = excluded.full_name
                WHERE users.version <= excluded.version",
    },
    // Writes both, reads the new one.
    Build {
        migrations: migrations![Migration::new(MIGRATION, RENAME).deployed::<SwitchReads>()],
        read: "SELECT version, full_name FROM users WHERE id = $1",
        write: "INSERT INTO users (id, version, name, full_name) VALUES ($1, $2, $3, $3)
                ON CONFLICT (id) DO UPDATE
                SET version = excluded.version, name = excluded.name, full_name = excluded.full_name
                WHERE users.version <= excluded.version",
    },
    // Uses the new one only.
    Build {
        migrations: migrations![Migration::new(MIGRATION, RENAME).deployed::<StopOldWrites>()],
        read: "SELECT version, full_name FROM users WHERE id = $1",
        write: "INSERT INTO users (id, version, full_name) VALUES ($1, $2, $3)
                ON CONFLICT (id) DO UPDATE
                SET version = excluded.version, full_name = excluded.full_name
                WHERE users.version <= excluded.version",
    },
];
