//! Settings of throwaway servers.

use super::StartError;

/// What every throwaway server runs with: its data need not survive a crash, and nothing else is relaxed, so
/// that locks, timeouts and replication behave as in production.
#[cfg(unix)]
const BASE: [(&str, &str); 5] = [
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("max_connections", "200"),
    ("wal_level", "replica"),
    ("max_wal_senders", "10"),
];

/// What only local servers need: reachable from this machine alone, because they trust whoever connects.
/// Without a socket file there is no path whose length could exceed the system's limit.
#[cfg(unix)]
const LOCAL: [(&str, &str); 2] = [("listen_addresses", "127.0.0.1"), ("unix_socket_directories", "")];

/// Extra settings by name, in the order given; a later one wins.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings(Vec<(String, String)>);

impl Settings {
    pub(super) fn add(&mut self, name: String, value: String) {
        self.0.push((name, value));
    }

    pub(super) fn extra(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Names end up in a file and on a command line, where anything else would be read as something else.
    pub(super) fn check(&self) -> Result<(), StartError> {
        let plain = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
        };
        match self.extra().find(|(name, value)| !plain(name) || value.contains(['\n', '\r', '\0'])) {
            Some((name, value)) => {
                Err(StartError::new(format!("{name:?} = {value:?} is not a setting of Postgres")))
            }
            None => Ok(()),
        }
    }

    /// Lines of postgresql.conf for a local server.
    #[cfg(unix)]
    pub(super) fn file(&self) -> String {
        let quote = |value: &str| value.replace('\\', "\\\\").replace('\'', "''");
        let lines = BASE.into_iter().chain(LOCAL).chain(self.extra());
        lines.map(|(name, value)| format!("{name} = '{}'\n", quote(value))).collect()
    }

    /// Arguments of `postgres` in a container.
    #[cfg(all(unix, feature = "docker"))]
    pub(super) fn arguments(&self) -> Vec<String> {
        let settings = BASE.into_iter().chain(self.extra());
        settings.flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]).collect()
    }
}
