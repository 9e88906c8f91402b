//! Statements that were run, by `pg_stat_statements`: on the server, and on replicas that are named.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tokio_postgres::Client;

use super::Target;
use super::statement::uses;
use crate::error::Result;
use crate::ident::quote;
use crate::migrator::connect::{Sql as _, get};
use crate::migrator::throttles::Replica;
use crate::reference::{Reference, ReferenceKind};

/// A server that does not answer within this is taken to be out of reach.
const PATIENCE: Duration = Duration::from_secs(10);
/// Characters of a statement that its name has.
const HEAD: usize = 60;

/// What one server says of its statements.
#[derive(Debug)]
pub(super) enum Traffic {
    /// These use what is to be dropped.
    Seen(Seen),
    /// Nothing, for this reason: what can be done about it is done by a person.
    Silent(String),
    /// Nothing, since it cannot be asked.
    Unreachable(String),
}

/// Statements that use what is to be dropped, as counted so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::migrator) struct Seen {
    /// Entries that were thrown out for want of room, ever.
    dealloc: Option<i64>,
    /// When all entries were forgotten last.
    reset: Option<DateTime<Utc>>,
    /// Calls by user, query and level.
    calls: BTreeMap<String, i64>,
    /// What is said of each query: not kept.
    #[serde(skip)]
    queries: BTreeMap<String, Query>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Query {
    id: i64,
    head: String,
    how: String,
    role: String,
}

/// What the server itself says.
pub(super) async fn here(client: &Client, targets: &[Target]) -> Result<Traffic> {
    let found = client
        .ask(
            "SELECT n.nspname::text AS schema,
                    pg_catalog.to_regclass(pg_catalog.format('%I.pg_stat_statements_info', n.nspname)) IS NOT NULL AS has_info,
                    pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS may_read,
                    pg_catalog.quote_ident(current_user) AS role
               FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
              WHERE e.extname = 'pg_stat_statements'",
            &[],
        )
        .await?;
    let Some(row) = found.first() else {
        return Ok(Traffic::Silent(
            "pg_stat_statements is not installed, so that nobody can tell which statements are run: with shared_preload_libraries = 'pg_stat_statements', and CREATE EXTENSION pg_stat_statements in this database, they are looked at".to_owned(),
        ));
    };
    if !get::<bool>(row, "may_read")? {
        return Ok(Traffic::Silent(format!(
            "this role may not read other roles' statements in pg_stat_statements: GRANT pg_read_all_stats TO {}",
            get::<String>(row, "role")?
        )));
    }
    let schema = quote(get(row, "schema")?);
    let mut seen = Seen::default();
    if get(row, "has_info")? {
        let sql = format!("SELECT dealloc, stats_reset FROM {schema}.pg_stat_statements_info");
        // Not loaded by shared_preload_libraries, it refuses.
        let Ok(rows) = client.ask(&sql, &[]).await else { return Ok(not_loaded()) };
        if let Some(row) = rows.first() {
            seen.dealloc = Some(get(row, "dealloc")?);
            seen.reset = get(row, "stats_reset")?;
        }
    }
    // A name that is folded may be written in capitals; the words themselves are looked for in the text.
    let names: Vec<String> = targets
        .iter()
        .flat_map(|target| target.relations.iter())
        .map(|(_, name)| name.to_lowercase())
        .collect();
    let sql = format!(
        "SELECT s.queryid, s.calls, coalesce(s.query, '') AS query, pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(s.userid)) AS role,
                s.userid::pg_catalog.int8 AS userid,
                NOT coalesce((pg_catalog.to_jsonb(s) ->> 'toplevel')::pg_catalog.bool, true) AS nested
           FROM {schema}.pg_stat_statements AS s
          WHERE s.dbid = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())
            AND s.queryid IS NOT NULL
            AND EXISTS (SELECT FROM pg_catalog.unnest($1) AS name WHERE pg_catalog.strpos(pg_catalog.lower(s.query), name) > 0)"
    );
    let params =
        [(&names as &(dyn tokio_postgres::types::ToSql + Sync), tokio_postgres::types::Type::TEXT_ARRAY)];
    let rows = match client.ask(&sql, &params).await {
        Ok(rows) => rows,
        Err(error)
            if error.code() == Some(&tokio_postgres::error::SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) =>
        {
            return Ok(not_loaded());
        }
        Err(error) => return Err(error),
    };
    for row in &rows {
        let query: String = get(row, "query")?;
        let nested: bool = get(row, "nested")?;
        let used = targets.iter().find_map(|target| {
            let subject = target.subject();
            uses(&query, nested, &subject, &target.ledger_schema).map(|how| (how, target.what()))
        });
        let Some((how, what)) = used else { continue };
        let (id, userid): (i64, i64) = (get(row, "queryid")?, get(row, "userid")?);
        let key = format!("{userid}/{id}/{}", u8::from(nested));
        seen.calls.insert(key.clone(), get(row, "calls")?);
        let query =
            Query { id, head: head(&query), how: format!("it {how} ({what})"), role: get(row, "role")? };
        seen.queries.insert(key, query);
    }
    Ok(Traffic::Seen(seen))
}

fn not_loaded() -> Traffic {
    Traffic::Silent(
        "pg_stat_statements is installed and not loaded, so that it counts nothing: set shared_preload_libraries = 'pg_stat_statements' and restart the server".to_owned(),
    )
}

/// What a replica says.
pub(super) async fn there(replica: &Replica, targets: &[Target]) -> Traffic {
    let asked = async {
        let conn = replica.connector.open().await?;
        here(&conn, targets).await
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok(traffic)) => traffic,
        Ok(Err(error)) => Traffic::Unreachable(error.to_string()),
        Err(_) => Traffic::Unreachable(format!("it did not answer in {} s", PATIENCE.as_secs())),
    }
}

/// The beginning of a statement, in one line.
fn head(sql: &str) -> String {
    let line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(HEAD) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// What was run since `before`. `on` says where, for people: nothing for the server itself.
pub(super) fn since(before: &Seen, now: &Seen, on: &str) -> Vec<Reference> {
    let mut found: BTreeMap<i64, (i64, Vec<&str>, &Query)> = BTreeMap::new();
    for (key, query) in &now.queries {
        let calls = now.calls.get(key).copied().unwrap_or(0);
        let earlier = before.calls.get(key).copied().unwrap_or(0);
        // Fewer than before: it was forgotten meanwhile, and all of these are new.
        let new = if calls < earlier { calls } else { calls - earlier };
        if new > 0 {
            let (calls, roles, _) = found.entry(query.id).or_insert((0, Vec::new(), query));
            *calls += new;
            if !roles.contains(&query.role.as_str()) {
                roles.push(&query.role);
            }
        }
    }
    let mut references: Vec<Reference> = found
        .into_iter()
        .map(|(id, (calls, roles, query))| {
            let times = if calls == 1 { "once".to_owned() } else { format!("{calls} times") };
            Reference::new(
                ReferenceKind::Statement,
                format!("statement {id}{on}: {}", query.head),
                format!(
                    "{}, and was run {times} by {} since the last use was over; find who runs it, or acknowledge it",
                    query.how,
                    roles.join(", ")
                ),
            )
        })
        .collect();
    if now.reset != before.reset {
        // Two resets are two names.
        let at = now.reset.map(|at| format!(" at {}", at.to_rfc3339_opts(SecondsFormat::Millis, true)));
        references.push(evidence(
            format!("statistics of statements{on} were reset{}", at.unwrap_or_default()),
            "what was run before that is not known any more",
        ));
    } else if let (Some(then), Some(now)) = (before.dealloc, now.dealloc) {
        if now > then {
            references.push(evidence(
                format!("statistics of statements{on} were thrown out"),
                "pg_stat_statements had no room for all of them (pg_stat_statements.max), so that uses may be among those that are gone",
            ));
        }
    }
    references
}

/// That a replica could not be asked.
pub(super) fn unreachable(on: &str, why: &str) -> Reference {
    evidence(format!("statements{on} cannot be asked for"), why)
}

/// That statements were counted for a part of the soak only.
pub(super) fn counted_late(on: &str, at: DateTime<Utc>) -> Reference {
    let at = at.to_rfc3339_opts(SecondsFormat::Secs, true);
    evidence(
        format!("statements{on} before {at}"),
        "nobody counted them then, though the last use was over long before",
    )
}

fn evidence(object: String, why: &str) -> Reference {
    let detail = format!("{why}; acknowledge it if you know that nothing uses the old any more");
    Reference::new(ReferenceKind::Evidence, object, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(calls: &[(&str, i64)]) -> Seen {
        let query = |key: &str| {
            let role = key.split('/').next().unwrap_or_default().to_owned();
            let id = key.split('/').nth(1).and_then(|id| id.parse().ok()).unwrap_or(0);
            Query { id, head: "SELECT 1".to_owned(), how: "it names the column".to_owned(), role }
        };
        Seen {
            dealloc: Some(0),
            reset: None,
            calls: calls.iter().map(|(key, calls)| ((*key).to_owned(), *calls)).collect(),
            queries: calls.iter().map(|(key, _)| ((*key).to_owned(), query(key))).collect(),
        }
    }

    fn objects(before: &Seen, now: &Seen) -> Vec<String> {
        since(before, now, "").into_iter().map(|found| found.object).collect()
    }

    #[test]
    fn only_what_grew_or_is_new_counts() {
        let before = seen(&[("a/1/0", 5), ("a/2/0", 5)]);
        let now = seen(&[("a/1/0", 5), ("a/2/0", 6), ("b/2/0", 3), ("a/3/0", 1)]);
        let found = since(&before, &now, "");
        let objects: Vec<_> = found.iter().map(|found| found.object.as_str()).collect();
        assert_eq!(objects, ["statement 2: SELECT 1", "statement 3: SELECT 1"]);
        assert!(found[0].detail.contains("run 4 times by a, b"), "{}", found[0].detail);
        assert!(found[1].detail.contains("run once by a"), "{}", found[1].detail);
    }

    #[test]
    fn what_was_forgotten_and_came_back_is_new() {
        assert_eq!(objects(&seen(&[("a/1/0", 5)]), &seen(&[("a/1/0", 2)])), ["statement 1: SELECT 1"]);
    }

    #[test]
    fn lost_entries_are_said() {
        let before = seen(&[]);
        assert_eq!(objects(&before, &before), [""; 0]);
        let evicted = Seen { dealloc: Some(1), ..before.clone() };
        assert_eq!(objects(&before, &evicted), ["statistics of statements were thrown out"]);
        let reset = Seen { reset: Some(DateTime::UNIX_EPOCH), ..evicted };
        assert_eq!(
            objects(&before, &reset),
            ["statistics of statements were reset at 1970-01-01T00:00:00.000Z"]
        );
    }
}
