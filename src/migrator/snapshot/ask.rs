//! Trials: what only the server can answer.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::catalog::{Answer, Question};
use crate::error::{Error, Result};

/// How long a trial waits for its `ACCESS SHARE`; it would be in the way of a stronger lock behind it no longer.
const LOCK_TIMEOUT_MS: u32 = 1000;
/// How often a trial is begun anew after a lock timeout.
const TRIES: u32 = 5;

/// Runs the trials, each in a transaction that is rolled back. `client` must not be in a transaction.
///
/// A dropped future leaves a transaction open on `client`: end the session then.
pub(crate) async fn ask(client: &Client, questions: &[Question]) -> Result<BTreeMap<String, Answer>> {
    let mut answers = BTreeMap::new();
    for question in questions {
        if !answers.contains_key(&question.key) {
            answers.insert(question.key.clone(), retrying(client, question).await?);
        }
    }
    Ok(answers)
}

async fn retrying(client: &Client, question: &Question) -> Result<Answer> {
    let mut tried = 1;
    loop {
        let outcome = trial(client, question).await;
        let undone = client.batch_execute("ROLLBACK").await;
        let error = match outcome {
            Ok(value) => {
                undone.map_err(|error| said(question, error))?;
                return Ok(Answer::Value(value));
            }
            Err(Failure::Unreadable(error)) => return Err(error),
            Err(Failure::Postgres(error)) => error,
        };
        let code = error.code();
        let contended =
            code == Some(&SqlState::LOCK_NOT_AVAILABLE) || code == Some(&SqlState::T_R_DEADLOCK_DETECTED);
        if contended && tried < TRIES {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(50..500) * u64::from(tried))).await;
            tried += 1;
            continue;
        }
        return match error.as_db_error() {
            Some(refused) if !contended && about_the_trial(refused.code()) => {
                undone.map_err(|error| said(question, error))?;
                let mut message = refused.message().to_owned();
                for more in [refused.detail(), refused.hint()].into_iter().flatten() {
                    message.push_str(". ");
                    message.push_str(more);
                }
                Ok(Answer::Refused { code: refused.code().code().to_owned(), message })
            }
            _ => Err(said(question, error)),
        };
    }
}

enum Failure {
    Postgres(tokio_postgres::Error),
    Unreadable(Error),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

/// Begins a transaction and runs the trial in it; ending it is the caller's.
async fn trial(client: &Client, question: &Question) -> Result<serde_json::Value, Failure> {
    client.batch_execute("BEGIN").await?;
    client.batch_execute(&format!("SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")).await?;
    for statement in &question.statements {
        client.batch_execute(statement).await?;
    }
    // The simple protocol: a JSON value of either type arrives as its text.
    let messages = client.simple_query(&question.query).await?;
    let value = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    value.map_or(Ok(serde_json::Value::Null), |text| {
        serde_json::from_str(text).map_err(|error| {
            Failure::Unreadable(Error::new(
                crate::error::Kind::Definition,
                format!(
                    "asking the server about {}: its query returned what is no JSON ({error}): write one that returns one json or jsonb value",
                    question.key
                ),
            ))
        })
    })
}

/// Whether Postgres refused the trial itself, rather than the role, the session or the moment.
fn about_the_trial(code: &SqlState) -> bool {
    *code != SqlState::INSUFFICIENT_PRIVILEGE
        && *code != SqlState::READ_ONLY_SQL_TRANSACTION
        && !["08", "53", "57", "58"].iter().any(|class| code.code().starts_with(class))
}

fn said(question: &Question, error: tokio_postgres::Error) -> Error {
    Error::postgres_said(format_args!("asking the server about {}", question.key), error)
}
