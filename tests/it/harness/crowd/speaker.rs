//! How a client of the crowd speaks to the server.

use std::collections::HashMap;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row, Statement};

/// A client, and what it has prepared.
pub(super) struct Speaker {
    client: Client,
    /// Statements with names, kept for good: what a driver or a pool caches must outlive every phase.
    named: Option<HashMap<String, Statement>>,
    /// Whether it wraps what it does in transactions of several statements.
    pub(super) transacts: bool,
}

impl Speaker {
    /// The manner follows from the number: most speak in single statements without a name.
    pub(super) fn new(client: Client, number: u64) -> Self {
        Self { client, named: (number == 0).then(HashMap::new), transacts: number == 1 }
    }

    /// `$1` is the row's number, `$2` the value, both as text.
    pub(super) async fn ask(&mut self, sql: &str, id: &str, value: &str) -> Result<Vec<Row>, Error> {
        let given: [(&(dyn ToSql + Sync), Type); 2] = [(&id, Type::TEXT), (&value, Type::TEXT)];
        let given = if sql.contains("$2") { &given[..] } else { &given[..1] };
        let Some(named) = &mut self.named else {
            return self.client.query_typed(sql, given).await;
        };
        if !named.contains_key(sql) {
            let types: Vec<Type> = given.iter().map(|(_, of)| of.clone()).collect();
            named.insert(sql.to_owned(), self.client.prepare_typed(sql, &types).await?);
        }
        let values: Vec<_> = given.iter().map(|(value, _)| *value).collect();
        self.client.query(&named[sql], &values).await
    }

    pub(super) async fn say(&self, sql: &str) -> Result<(), Error> {
        self.client.batch_execute(sql).await
    }
}
