//! The rows of the user's tables, and the positions of the sequences, as text.

use std::collections::BTreeSet;

use tokio_postgres::Client;

/// A column: schema, table, name.
pub(crate) type Columns = BTreeSet<(String, String, String)>;

/// Every column of every table that holds rows.
pub(crate) async fn columns(client: &Client) -> Columns {
    let sql = "SELECT n.nspname::text, c.relname::text, a.attname::text FROM pg_attribute a
                 JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
                  AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'phasewise')";
    let rows = client.query(sql, &[]).await.expect("columns");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

/// The rows, columns by name, those in `only` alone where it is given.
pub(crate) async fn dump(client: &Client, only: Option<&Columns>) -> String {
    let mut lines = Vec::new();
    let quote = phasewise::ident::quote;
    let mut tables: BTreeSet<(String, String)> = BTreeSet::new();
    let found = columns(client).await;
    tables.extend(found.iter().map(|(schema, table, _)| (schema.clone(), table.clone())));
    for (schema, table) in &tables {
        let named: Vec<_> = found
            .iter()
            .filter(|column| {
                &column.0 == schema && &column.1 == table && only.is_none_or(|only| only.contains(*column))
            })
            .map(|(_, _, name)| format!("{}, t.{}::text", phasewise::ident::literal(name), quote(name)))
            .collect();
        let sql = format!(
            "SELECT jsonb_build_object({})::text FROM ONLY {}.{} AS t ORDER BY 1",
            named.join(", "),
            quote(schema),
            quote(table)
        );
        let rows = client.query(&sql, &[]).await.unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
        lines.extend(rows.iter().map(|row| format!("{schema}.{table} {}", row.get::<_, String>(0))));
    }
    lines.join("\n")
}

/// Where each sequence stands, named by the column that owns it.
pub(crate) async fn sequences(client: &Client) -> String {
    let sql = "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relkind = 'S' AND n.nspname <> 'phasewise' ORDER BY 1";
    let mut lines = Vec::new();
    for row in client.query(sql, &[]).await.expect("sequences") {
        let name: String = row.get(0);
        let at = client
            .query_one(&format!("SELECT last_value, is_called FROM {name}"), &[])
            .await
            .expect("a sequence");
        lines.push(format!("{} {}", at.get::<_, i64>(0), at.get::<_, bool>(1)));
    }
    lines.join("\n")
}
