//! The choice among the places that servers come from.

use super::error::Attempt;
use super::settings::Settings;
use super::source::NEWEST;
use super::{Server, Source, StartError, running};

#[cfg(unix)]
use super::{docker, installed, npm};

/// Chooses where a [`Server`] comes from and what it is set to.
///
/// ```no_run
/// # async fn example() -> Result<(), phasewise::testing::StartError> {
/// use phasewise::testing::{Server, Source};
///
/// let server = Server::builder()
///     .source(Source::Installed)
///     .setting("wal_level", "logical")
///     .start()
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// A server that is started here has these settings unless others are given: `fsync` and `full_page_writes`
/// off, as its data need not survive a crash; `max_connections` 200; `wal_level` replica and `max_wal_senders`
/// 10, so that a replica can be attached; and Postgres' defaults for everything else. Local ones listen on a
/// free port of 127.0.0.1 only and trust everybody there.
#[derive(Clone, Debug, Default)]
#[must_use = "a server is only there after `start`"]
pub struct ServerBuilder {
    source: Option<Source>,
    settings: Settings,
}

impl ServerBuilder {
    /// A setting of postgresql.conf. A server that runs already is only used if it has this very value.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.add(name.into(), value.into());
        self
    }

    /// Takes the server from nowhere else.
    pub fn source(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }

    /// Starts the server: from the chosen source, else from the one that `PHASEWISE_POSTGRES` names, else in
    /// the order of [`Server::find`].
    ///
    /// # Errors
    ///
    /// If no server can be had: the error's text tells what was tried, why it failed, and what to install.
    pub async fn start(self) -> Result<Server, StartError> {
        self.settings.check()?;
        let chosen = match &self.source {
            Some(source) => Some(source.clone()),
            None => from_environment()?,
        };
        let mut attempts = Vec::new();
        let sources = match chosen {
            Some(source) => vec![source],
            None => everywhere(variable("DATABASE_URL"), &mut attempts),
        };

        for source in sources {
            let place = source.to_string();
            match self.start_from(source).await {
                Ok(server) => {
                    tracing::debug!(origin = server.origin(), "test server");
                    return Ok(server);
                }
                Err(error) => {
                    let reason = error.to_string();
                    tracing::debug!(place, reason, "no test server");
                    attempts.push(Attempt { place, reason });
                }
            }
        }
        Err(StartError::nowhere(&attempts))
    }

    async fn start_from(&self, source: Source) -> Result<Server, StartError> {
        match source {
            Source::Url(url) => running::use_running(&url, &self.settings).await,
            #[cfg(unix)]
            Source::Installed => installed::start(&self.settings).await,
            #[cfg(unix)]
            Source::Docker => docker::start(&self.settings).await,
            #[cfg(unix)]
            Source::Npm(major) => npm::start(major, &self.settings).await,
            #[cfg(not(unix))]
            _ => Err(StartError::new("servers can be started on Unix systems only")),
        }
    }
}

fn everywhere(url: Option<String>, attempts: &mut Vec<Attempt>) -> Vec<Source> {
    let url = url.map(Source::Url);
    if url.is_none() {
        attempts.push(Attempt { place: "DATABASE_URL".to_owned(), reason: "not set".to_owned() });
    }
    url.into_iter().chain([Source::Installed, Source::Docker, Source::Npm(NEWEST)]).collect()
}

fn from_environment() -> Result<Option<Source>, StartError> {
    variable("PHASEWISE_POSTGRES").map(|text| text.parse()).transpose()
}

/// A variable's value; set to nothing is as good as not set.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nearest_is_tried_first() {
        let tried = |url: Option<&str>, attempts: &mut Vec<Attempt>| {
            everywhere(url.map(str::to_owned), attempts).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let mut attempts = Vec::new();
        let url = "postgres://here/";
        let places = [Source::Url(url.to_owned()), Source::Installed, Source::Docker, Source::Npm(NEWEST)];
        let places = places.map(|place| place.to_string());
        assert_eq!(tried(Some(url), &mut attempts), places);
        assert!(attempts.is_empty());
        assert_eq!(tried(None, &mut attempts), places[1..]);
        // The error that lists what was tried says so of this one too.
        assert_eq!(attempts.len(), 1);
    }
}
