//! A server out of a directory of binaries.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tokio_postgres::Config;

use super::account::Account;
use super::connect::{connect, setting, version};
use super::replica::Primary;
use super::settings::Settings;
use super::tail::tail;
use super::watchdog::Watchdog;
use super::{Server, StartError};

/// initdb takes a second or two; a machine that is busy with tests may take far longer.
const DEADLINE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(20);
/// How often another port is tried when somebody else was faster.
const PORTS: u32 = 10;

/// Starts the server in `binaries`; `label` names it in its origin.
pub(super) async fn start(binaries: &Path, label: &str, settings: &Settings) -> Result<Server, StartError> {
    start_from(binaries, label, &settings.file(), None).await
}

/// Starts a server on new data, or on a copy of a primary's.
pub(super) async fn start_from(
    binaries: &Path,
    label: &str,
    settings: &str,
    primary: Option<&Primary>,
) -> Result<Server, StartError> {
    let mut attempt = 1;
    loop {
        match try_start(binaries, label, settings, primary).await {
            Err(Failure::PortTaken) if attempt < PORTS => attempt += 1,
            Err(Failure::PortTaken) => return Err(StartError::new("others took every port that was tried")),
            Err(Failure::Other(error)) => return Err(error),
            Ok(server) => return Ok(server),
        }
    }
}

enum Failure {
    PortTaken,
    Other(StartError),
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::Other(error)
    }
}

async fn try_start(
    binaries: &Path,
    label: &str,
    settings: &str,
    primary: Option<&Primary>,
) -> Result<Server, Failure> {
    let (shell, settings) = (binaries.to_owned(), settings.to_owned());
    let data = primary.map(|primary| primary.data.clone());
    let backup = match primary {
        Some(primary) => Some(primary.begin().await?),
        None => None,
    };
    let spawn = move || Starting::spawn(&shell, settings, data.as_deref());
    let mut starting = tokio::task::spawn_blocking(spawn)
        .await
        .map_err(io::Error::other)
        .and_then(|spawned| spawned)
        .map_err(|error| StartError::because("cannot start a shell", &error))?;
    if let Some(backup) = backup {
        starting.copied().await?;
        let label = backup.end().await?;
        starting
            .watchdog
            .send(&format!("{}\n\n", label.trim_end()))
            .map_err(|error| StartError::because("the shell ended", &error))?;
    }
    let version = starting.wait().await?;
    let origin = format!("{label} ({version})");
    Ok(Server::local(starting.config, origin, starting.watchdog, binaries.to_owned()))
}

struct Starting {
    watchdog: Watchdog,
    directory: PathBuf,
    config: Config,
}

impl Starting {
    fn spawn(binaries: &Path, settings: String, primary: Option<&Path>) -> io::Result<Self> {
        let account = Account::choose()?;
        // Without links in it, so that the server reports its directory under this very name.
        let parent = account.temp_dir().canonicalize()?;
        let directory = parent.join(format!("phasewise-{:016x}", fastrand::u64(..)));
        let port = free_port()?;

        let mut command = Command::new("sh");
        command.arg("-c").arg(include_str!("local.sh")).arg("phasewise");
        command.arg(&directory).arg(binaries).arg(port.to_string()).arg(settings);
        command.arg(primary.unwrap_or(Path::new("")));
        command.env("LC_ALL", "C");
        // What is meant for clients or for another server must not reach this one.
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_postgres(name)) {
            command.env_remove(name);
        }
        account.apply(&mut command);
        let watchdog = Watchdog::spawn(command)?;

        let mut config = Config::new();
        config.host(Ipv4Addr::LOCALHOST.to_string()).port(port).user("postgres").dbname("postgres");
        Ok(Self { watchdog, directory, config })
    }

    /// Waits until the primary's files are copied.
    async fn copied(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + DEADLINE;
        while !self.directory.join("copied").exists() {
            if self.watchdog.ended() || Instant::now() > deadline {
                return Err(self.failure());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Waits for the server to answer, and returns its version.
    async fn wait(&mut self) -> Result<String, Failure> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let stopped = self.directory.join("stopped").exists();
            if stopped || self.watchdog.ended() {
                return Err(self.failure());
            }
            match self.answer().await {
                Ok(Some(version)) => return Ok(version),
                Ok(None) => {}
                Err(error) if Instant::now() > deadline => {
                    return Err(StartError::new(format!("{error}\n{}", self.log())).into());
                }
                Err(_) => {}
            }
            if Instant::now() > deadline {
                return Err(StartError::new("another server answers on the port").into());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The version of the server that answers, if it is this one: somebody else may have taken the port and
    /// trust us as well.
    async fn answer(&self) -> Result<Option<String>, StartError> {
        let client = connect(&self.config).await?;
        let directory = setting(&client, "data_directory").await?;
        if directory.as_deref().map(Path::new) != Some(&self.directory.join("data")) {
            return Ok(None);
        }
        version(&client).await.map(Some)
    }

    fn failure(&self) -> Failure {
        let log = self.log();
        // In English, as the server runs in the C locale.
        if log.contains("Address already in use") {
            return Failure::PortTaken;
        }
        Failure::Other(StartError::new(format!("the server did not start\n{log}")))
    }

    fn log(&self) -> String {
        let path = self.directory.join("log");
        match fs::read(&path) {
            Ok(log) => tail(&log),
            Err(error) => format!("it left no log in {}: {error}", path.display()),
        }
    }
}

/// A port that nobody listens on now. Somebody may by the time the server does, which then ends and is
/// started again on another.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn is_of_postgres(name: &OsString) -> bool {
    name.to_string_lossy().starts_with("PG")
}
