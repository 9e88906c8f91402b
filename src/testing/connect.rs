//! Connections to a server that may not be there.

use std::time::Duration;

use tokio_postgres::{Client, Config, NoTls};

use super::StartError;

/// Long enough for a server on another machine, short enough for a wrong address.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Connects, and drives the connection in a task until the client is dropped.
pub(super) async fn connect(config: &Config) -> Result<Client, StartError> {
    let what = || format!("cannot connect to {}", address(config));
    let connected = tokio::time::timeout(TIMEOUT, config.connect(NoTls)).await;
    let (client, connection) = connected
        .map_err(|_| StartError::new(format!("{}: no answer in {} s", what(), TIMEOUT.as_secs())))?
        .map_err(|error| StartError::because(what(), &error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a test database ended");
        }
    });
    Ok(client)
}

/// Where a configuration leads, without user and password.
pub(super) fn address(config: &Config) -> String {
    let ports = config.get_ports();
    let hosts = config.get_hosts().iter().enumerate().map(|(index, host)| {
        let host = match host {
            tokio_postgres::config::Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
        };
        let port = ports.get(index).or(ports.first()).unwrap_or(&super::url::PORT);
        format!("{host}:{port}")
    });
    let hosts: Vec<_> = hosts.collect();
    if hosts.is_empty() { "an unnamed host".to_owned() } else { hosts.join(",") }
}

/// The server's version without what distributions add to it.
pub(super) async fn version(client: &Client) -> Result<String, StartError> {
    let text = setting(client, "server_version").await?.unwrap_or_default();
    Ok(text.split_whitespace().next().unwrap_or("unknown version").to_owned())
}

/// A setting's value in this session; nothing if the server does not know it.
pub(super) async fn setting(client: &Client, name: &str) -> Result<Option<String>, StartError> {
    client
        .query_one("SELECT current_setting($1, true)", &[&name])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(|error| StartError::because(format!("cannot read the setting {name}"), &error))
}
