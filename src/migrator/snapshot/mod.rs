//! Takes snapshots of the catalog, and puts questions to the server.

mod ask;
mod query;
#[cfg(all(test, feature = "testing"))]
mod tests;

pub(crate) use ask::ask;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::catalog::{Snapshot, Table};
use crate::error::{Error, Kind, Result};
use crate::ident::TableName;

/// Where names are looked up.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// The schema of unqualified tables.
    pub(crate) schema: String,
    /// The ledger's schema.
    pub(crate) ledger_schema: String,
}

/// The members of what [`query::SNAPSHOT`] returns.
#[derive(serde::Deserialize)]
struct Found {
    server_version: u32,
    role: String,
    schemas: std::collections::BTreeMap<String, bool>,
    tables: Vec<Table>,
    taken: std::collections::BTreeSet<(String, String)>,
}

/// Reads the tables that exist of `tables`. `client` must not be in a transaction; its `search_path` decides which
/// names in deparsed SQL are qualified, other settings decide nothing.
///
/// One round trip, in one read-only transaction. A dropped future leaves none open: its end is on the way already.
pub(crate) async fn load(client: &Client, scope: &Scope, tables: &[TableName]) -> Result<Snapshot> {
    let schemas: Vec<&str> = tables
        .iter()
        .map(|table| table.schema().map_or(scope.schema.as_str(), |schema| schema.as_str()))
        .collect();
    let names: Vec<&str> = tables.iter().map(|table| table.name().as_str()).collect();
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
        [(&schemas, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY), (&scope.ledger_schema, Type::TEXT)];
    // Polled in this order, and so sent in this order without waiting.
    let (begun, set, read, ended) = futures_util::future::join4(
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
        client.batch_execute(query::SETTINGS),
        client.query_typed(query::SNAPSHOT, &parameters),
        client.batch_execute("ROLLBACK"),
    )
    .await;
    let said = |error| Error::postgres_said("reading the catalog", error);
    begun.map_err(said)?;
    set.map_err(said)?;
    let rows = read.map_err(said)?;
    ended.map_err(said)?;
    let text: String =
        rows.first().ok_or_else(|| unreadable("no row came back"))?.try_get(0).map_err(said)?;
    let found: Found = serde_json::from_str(&text).map_err(unreadable)?;
    Ok(Snapshot {
        server_version: found.server_version,
        schema: scope.schema.clone(),
        ledger_schema: scope.ledger_schema.clone(),
        role: found.role,
        schemas: found.schemas,
        tables: found.tables,
        taken: found.taken,
        ..Snapshot::default()
    })
}

#[cold]
fn unreadable(why: impl std::fmt::Display) -> Error {
    Error::new(
        Kind::Database,
        format!(
            "reading the catalog: what Postgres says of the tables is not understood ({why}): is this server newer than this phasewise knows? Update phasewise, or report it"
        ),
    )
}
