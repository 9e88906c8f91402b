//! Throwaway Postgres servers, fresh databases and workloads, for tests and examples.
//!
//! ```no_run
//! use phasewise::testing::Server;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let database = Server::shared().await?.database().await?;
//!     let client = database.connect().await?;
//!     client.batch_execute("CREATE TABLE account (id bigint PRIMARY KEY)").await?;
//!     drop(client);
//!     database.drop().await?;
//!     Ok(())
//! }
//! ```
//!
//! A [`Workload`] proves that a migration of yours stops nobody: clients that go on while it runs.
//!
//! [`Server::find`] looks for a server where one can be expected. These variables steer it:
//!
//! | Variable | Meaning |
//! |---|---|
//! | `PHASEWISE_POSTGRES` | the only place to take the server from: `installed`, `docker`, `npm`, a major version such as `16`, or a URL |
//! | `DATABASE_URL` | a running server whose user may create databases; tried first |
//! | `PHASEWISE_POSTGRES_IMAGE` | the Docker image, if not `postgres:17-alpine` |
//!
//! # What is left behind
//!
//! Nothing, even if the process is killed: a shell waits for its end, then stops the server and removes its
//! data or its container. What the npm package was downloaded to is kept for the next run, in
//! `$XDG_CACHE_HOME/phasewise` or `~/.cache/phasewise`; for root, whose home others cannot read, in the
//! directory for temporary files. Databases on a server found through `DATABASE_URL` stay if nobody drops
//! them, and are dropped by the first run a day later.
//!
//! Two cases are not covered: the shell itself being killed by force, and the process being killed in the
//! very moment in which Docker creates the container.
//!
//! # Limits
//!
//! Servers are started on Unix systems only; elsewhere `DATABASE_URL` is needed. As root, a local server runs
//! as the user `postgres`, or else `nobody`, since Postgres refuses to run as root. Connections are made
//! without TLS.

mod builder;
mod connect;
mod database;
mod error;
mod names;
mod running;
mod server;
mod settings;
mod source;
mod url;
mod workload;

#[cfg(unix)]
mod account;
#[cfg(unix)]
mod docker;
#[cfg(unix)]
mod installed;
#[cfg(unix)]
mod links;
#[cfg(unix)]
mod local;
#[cfg(unix)]
mod npm;
#[cfg(unix)]
mod replica;
#[cfg(unix)]
mod tail;
#[cfg(unix)]
mod watchdog;

pub use builder::ServerBuilder;
pub use database::Database;
pub use error::StartError;
#[cfg(unix)]
pub use replica::Replica;
pub use server::Server;
pub use source::Source;
pub use workload::{ClientSummary, Clients, Failed, Session, Summary, Workload};
