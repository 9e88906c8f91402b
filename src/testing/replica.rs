//! A streaming replica of a local server.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Config};

use super::connect::{connect, setting};
use super::{Database, Server, StartError, local};

const DEADLINE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(10);

/// A streaming replica, from [`Server::replica`].
///
/// It ends, and its data is removed, with this value or with the process; it keeps its primary running.
#[derive(Debug)]
pub struct Replica {
    server: Server,
    primary: Server,
}

impl Replica {
    pub(super) async fn start(primary: Server) -> Result<Self, StartError> {
        let Some(binaries) = primary.binaries() else {
            return Err(StartError::new(format!(
                "{} has no replicas: only servers that are started from binaries on this machine have",
                primary.origin()
            )));
        };
        let source = Primary::new(&primary).await?;
        let label = format!("replica of {}", primary.origin());
        let server = local::start_from(binaries, &label, &source.settings(), Some(&source)).await?;
        Ok(Self { server, primary })
    }

    /// How to connect to it, in the primary's `database`.
    pub fn config(&self, database: &Database) -> Config {
        let mut config = self.server.config();
        config.dbname(database.name());
        config
    }

    /// Connects to it, in the primary's `database`: for reading.
    pub async fn connect(&self, database: &Database) -> Result<Client, StartError> {
        connect(&self.config(database)).await
    }

    /// Waits until it shows all that the primary has written up to now.
    pub async fn catch_up(&self) -> Result<(), StartError> {
        let failed = |error| StartError::because("cannot see how far the replica is", &error);
        let primary = connect(&self.primary.config()).await?;
        let replica = connect(&self.server.config()).await?;
        // Behind a switch to a new file of WAL a replica has nothing to replay up to the primary's position.
        let mark = "SELECT pg_logical_emit_message(true, 'phasewise', 'catch up')::text";
        let row = primary.query_one(mark, &[]).await;
        let end: String = row.and_then(|row| row.try_get(0)).map_err(failed)?;
        let begun = Instant::now();
        loop {
            let reached = "SELECT coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false)";
            let row = replica.query_one(reached, &[&end]).await;
            if row.and_then(|row| row.try_get(0)).map_err(failed)? {
                return Ok(());
            }
            if begun.elapsed() > DEADLINE {
                return Err(StartError::new(format!("the replica does not come as far as {end}")));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What a replica is made from.
#[derive(Debug)]
pub(super) struct Primary {
    config: Config,
    /// Where its data is.
    pub(super) data: PathBuf,
    slot: String,
    /// Postgres 15 gave the functions of a backup other names.
    old: bool,
}

impl Primary {
    async fn new(server: &Server) -> Result<Self, StartError> {
        let config = server.config();
        let client = connect(&config).await?;
        let data = setting(&client, "data_directory").await?.unwrap_or_default();
        let version = setting(&client, "server_version_num").await?.unwrap_or_default();
        let slot = format!("replica_{:016x}", fastrand::u64(..));
        // With it the primary keeps the WAL from here on, however long the copying takes.
        client
            .execute("SELECT pg_create_physical_replication_slot($1, true)", &[&slot])
            .await
            .map_err(|error| StartError::because("cannot make a replication slot", &error))?;
        Ok(Self { config, data: Path::new(&data).to_owned(), slot, old: version.starts_with("14") })
    }

    fn settings(&self) -> String {
        let port = self.config.get_ports().first().unwrap_or(&super::url::PORT);
        format!(
            "primary_conninfo = 'host=127.0.0.1 port={port} user=postgres application_name={slot}'\n\
             primary_slot_name = '{slot}'\n",
            slot = self.slot
        )
    }

    pub(super) async fn begin(&self) -> Result<Backup, StartError> {
        let client = connect(&self.config).await?;
        let begin = if self.old {
            "SELECT pg_start_backup('replica', true, false)"
        } else {
            "SELECT pg_backup_start('replica', true)"
        };
        client
            .execute(begin, &[])
            .await
            .map_err(|error| StartError::because("cannot begin a backup", &error))?;
        Ok(Backup { client, old: self.old })
    }
}

/// A backup that is under way, as long as its session is.
#[derive(Debug)]
pub(super) struct Backup {
    client: Client,
    old: bool,
}

impl Backup {
    /// Ends it, and returns the label that the copy needs.
    pub(super) async fn end(self) -> Result<String, StartError> {
        let end = if self.old {
            "SELECT labelfile FROM pg_stop_backup(false, false)"
        } else {
            "SELECT labelfile FROM pg_backup_stop(false)"
        };
        self.client
            .query_one(end, &[])
            .await
            .and_then(|row| row.try_get(0))
            .map_err(|error| StartError::because("cannot end the backup", &error))
    }
}
