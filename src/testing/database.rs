//! A fresh database.

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use tokio_postgres::{Client, Config, NoTls};

use super::connect::connect;
use super::{Server, StartError, names, url};

/// A fresh database, empty but for what every Postgres database has.
///
/// It keeps its server running. It is not dropped with this value, as that takes a connection: call
/// [`drop`](Database::drop), or leave it to the server's own end. On a server that outlives the process
/// (`DATABASE_URL`) a database that was left behind is dropped by the first run a day later.
#[derive(Debug)]
pub struct Database {
    server: Server,
    name: String,
}

impl Database {
    pub(super) async fn create(server: Server) -> Result<Self, StartError> {
        let name = names::new();
        let client = connect(&server.config()).await?;
        // template0, which nobody can have put anything into, nor be connected to.
        client
            .batch_execute(&format!("CREATE DATABASE \"{name}\" TEMPLATE template0"))
            .await
            .map_err(|error| StartError::because("cannot create a database", &error))?;
        Ok(Self { server, name })
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How to connect to it.
    pub fn config(&self) -> Config {
        let mut config = self.server.config();
        config.dbname(&self.name);
        config
    }

    /// How to connect to it, as a URL for `DATABASE_URL`.
    pub fn url(&self) -> String {
        url::url(&self.config())
    }

    /// Connects to it. A task of the current runtime drives the connection until the client is dropped.
    pub async fn connect(&self) -> Result<Client, StartError> {
        connect(&self.config()).await
    }

    /// A pool of at most `max` connections to it.
    pub fn pool(&self, max: usize) -> Result<Pool, StartError> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(self.config(), NoTls, recycling);
        Pool::builder(manager)
            .max_size(max)
            .runtime(deadpool_postgres::Runtime::Tokio1)
            .build()
            .map_err(|error| StartError::because("cannot make a pool", &error))
    }

    /// Drops it on the server, and ends whatever connections it still has.
    pub async fn drop(self) -> Result<(), StartError> {
        let client = connect(&self.server.config()).await?;
        client
            .batch_execute(&format!("DROP DATABASE \"{}\" WITH (FORCE)", self.name))
            .await
            .map_err(|error| StartError::because(format!("cannot drop the database {}", self.name), &error))
    }
}
