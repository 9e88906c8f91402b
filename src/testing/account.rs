//! The user that a server runs as.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Nobody, where the system does not say otherwise.
const NOBODY: u32 = 65534;

/// Whom to run Postgres as.
#[derive(Clone, Copy, Debug)]
pub(super) enum Account {
    /// Whoever runs the tests.
    Own,
    /// Another user, because Postgres refuses to run as root.
    Other {
        /// The user's number.
        uid: u32,
        /// The number of the user's group.
        gid: u32,
    },
}

impl Account {
    pub(super) fn choose() -> io::Result<Self> {
        if own_uid()? != 0 {
            return Ok(Self::Own);
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let find = |name| users.lines().find_map(|line| numbers(line, name));
        let (uid, gid) =
            ["postgres", "_postgres", "nobody"].into_iter().find_map(find).unwrap_or((NOBODY, NOBODY));
        Ok(Self::Other { uid, gid })
    }

    pub(super) fn apply(self, command: &mut Command) {
        if let Self::Other { uid, gid } = self {
            // As root this also drops root's further groups.
            command.uid(uid).gid(gid);
        }
    }

    /// Where the user may make a directory.
    pub(super) fn temp_dir(self) -> PathBuf {
        let own = std::env::temp_dir();
        match self {
            Self::Other { .. } if !(reachable(&own) && mode(&own) & 0o002 != 0) => PathBuf::from("/tmp"),
            _ => own,
        }
    }

    /// Whether the user can read what this process puts below `path`.
    pub(super) fn reaches(self, path: &Path) -> bool {
        matches!(self, Self::Own) || reachable(path)
    }
}

/// The number of the effective user; without unsafe code only the system's tool tells it everywhere.
pub(super) fn own_uid() -> io::Result<u32> {
    let output = Command::new("id").arg("-u").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| io::Error::other("`id -u` did not print a number"))
}

/// User and group of a line of /etc/passwd, if it is about `name` and not about root.
fn numbers(line: &str, name: &str) -> Option<(u32, u32)> {
    let mut fields = line.split(':');
    if fields.next() != Some(name) {
        return None;
    }
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    (uid != 0).then_some((uid, gid))
}

/// Whether every user may enter `path`; parts that do not exist yet will be made so that they may.
fn reachable(path: &Path) -> bool {
    path.ancestors().all(|part| !part.exists() || mode(part) & 0o001 != 0)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).map_or(0, |data| data.mode())
}
