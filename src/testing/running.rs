//! A server that runs already.

use tokio_postgres::{Client, Config};

use super::connect::{address, connect, setting, version};
use super::settings::Settings;
use super::{Server, StartError, names};

/// The server that `url` leads to, if tests can use it.
pub(super) async fn use_running(url: &str, settings: &Settings) -> Result<Server, StartError> {
    let config: Config =
        url.parse().map_err(|error| StartError::because("the URL cannot be read", &error))?;
    let client = connect(&config).await?;
    may_create_databases(&client).await?;
    for (name, wanted) in settings.extra() {
        let found = setting(&client, name).await?;
        if !found.as_deref().is_some_and(|found| found.eq_ignore_ascii_case(wanted)) {
            let found = found.unwrap_or_else(|| "nothing".to_owned());
            return Err(StartError::new(format!("the server has {name} set to {found}, not {wanted}")));
        }
    }
    names::drop_stale(&client).await;
    let origin = format!("running server {} ({})", address(&config), version(&client).await?);
    Ok(Server::new(config, origin, None))
}

/// Better said now than by the first test.
async fn may_create_databases(client: &Client) -> Result<(), StartError> {
    const QUERY: &str = "SELECT rolname::text, rolcreatedb OR rolsuper FROM pg_catalog.pg_roles \
                         WHERE rolname = current_user";
    let (user, may): (String, bool) = client
        .query_one(QUERY, &[])
        .await
        .and_then(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .map_err(|error| StartError::because("cannot read what the user may do", &error))?;
    if may {
        return Ok(());
    }
    Err(StartError::new(format!("its user {user} may not create databases (ALTER ROLE {user} CREATEDB)")))
}
