//! A step's transaction: fenced by the lease, under timeouts, committed with its last statement.

use std::time::{Duration, Instant};

use futures_util::future::join;

use super::connect::{BEGIN, Sql as _, get, int8, text};
use super::events::Event;
use super::ledger::{At, finish};
use super::locks::Tries;
use super::worker::Worker;
use crate::error::{Error, Result};
use crate::step::{LockMode, Step};

/// The timeouts of one transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub(super) lock: Duration,
    /// `None`: as long as it takes.
    pub(super) statement: Option<Duration>,
    /// For a driver that was stopped with a transaction open.
    pub(super) idle: Duration,
}

fn ms(time: Duration) -> String {
    // 0 would mean no timeout at all.
    format!("{}ms", time.as_millis().max(1))
}

impl Timeouts {
    fn statement_ms(&self) -> String {
        self.statement.map_or_else(|| "0".to_owned(), ms)
    }
}

impl Worker<'_> {
    /// Begins a transaction, sets its timeouts, and makes sure of the lease: one round trip.
    pub(super) async fn begin(&self, timeouts: Timeouts) -> Result<()> {
        let sql = self.ledger.sql(
            "SELECT set_config('lock_timeout', $3, true), set_config('statement_timeout', $4, true),
                    set_config('idle_in_transaction_session_timeout', $5, true),
                    set_config('synchronous_commit', 'local', true),
                    pg_backend_pid() AS pid, current_setting('phasewise.session', true) AS mark,
                    (SELECT token FROM {s}.lease WHERE token = $1 AND holder = $2 FOR KEY SHARE) AS token",
        );
        let (lock, statement, idle) = (ms(timeouts.lock), timeouts.statement_ms(), ms(timeouts.idle));
        let params =
            [int8(&self.lease.token), text(&self.lease.holder), text(&lock), text(&statement), text(&idle)];
        let (begun, fence) = join(self.session.send("begin", BEGIN), self.session.ask(&sql, &params)).await;
        let checked = match begun.and(fence) {
            Ok(rows) => self.held(&rows),
            Err(error) => Err(error),
        };
        if checked.is_err() {
            let _ = self.session.send("rolling back", "ROLLBACK").await;
        }
        checked
    }

    /// Makes sure of the lease outside a transaction, before a statement that refuses to run in one.
    pub(super) async fn fence(&self) -> Result<()> {
        let sql = self.ledger.sql(
            "SELECT pg_backend_pid() AS pid, current_setting('phasewise.session', true) AS mark,
                    (SELECT token FROM {s}.lease WHERE token = $1 AND holder = $2) AS token",
        );
        let rows = self.session.ask(&sql, &[int8(&self.lease.token), text(&self.lease.holder)]).await?;
        self.held(&rows)
    }

    fn held(&self, rows: &[tokio_postgres::Row]) -> Result<()> {
        let Some(row) = rows.first() else { return Err(self.lease.lost()) };
        self.session.same(get(row, "pid")?, get(row, "mark")?)?;
        let token: Option<i64> = get(row, "token")?;
        if token.is_none() {
            self.migrator.tell(&Event::LeaseLost);
            return Err(self.lease.lost());
        }
        Ok(())
    }

    /// A transaction of the ledger's own, which takes no lock on the user's tables.
    pub(super) fn own_timeouts(&self) -> Timeouts {
        Timeouts {
            lock: Duration::from_secs(10),
            statement: Some(Duration::from_secs(30)),
            idle: Duration::from_secs(10),
        }
    }

    /// Commits, or rolls back after an error.
    pub(super) async fn finish<T>(&self, result: Result<T>) -> Result<T> {
        finish(&self.session, result).await
    }

    /// Runs statements in one transaction, again and again until they get their locks.
    pub(super) async fn transaction(
        &self,
        at: At<'_>,
        step: &Step,
        statements: &[String],
        note: Option<&str>,
        long: bool,
    ) -> Result<()> {
        let Some((last, first)) = statements.split_last() else {
            return match note {
                Some(note) => self.ledger.note(&self.session, at, note).await,
                None => Ok(()),
            };
        };
        let strong = step.locks.iter().any(|lock| lock.mode >= LockMode::Share);
        let soften = if strong && !long { self.lockable(step).await? } else { Vec::new() };
        // Nobody knows what a statement without declared locks takes: it is held to the budget like a strong one.
        let limited = strong || !step.locks_known || step.locks.is_empty();
        // A client that holds one of several relations and waits for another would be the deadlock's victim, since it began
        // to wait later and finds out first: we have given up by then. SQL of the user's may take longer for its work.
        let stall_budget = self.migrator.stall_budget;
        let before_deadlocks = stall_budget.min(self.session.deadlock_timeout() * 3 / 4);
        let before_deadlocks = before_deadlocks.max(Duration::from_millis(1));
        let mut locked =
            step.locks.iter().filter(|lock| lock.mode >= LockMode::Share).map(|lock| &lock.relation);
        let several = locked.next().is_some_and(|first| locked.any(|other| other != first));
        let budget = if several { before_deadlocks } else { stall_budget };
        let lock = if several || !step.locks_known { before_deadlocks } else { stall_budget };
        let tries = Tries::new(self.migrator, &step.summary);
        let mut tries = if long { tries.long() } else { tries.timed(limited) };
        loop {
            let timeouts = if long {
                let lock = if !step.locks_known || step.locks.is_empty() {
                    self.migrator.stall_budget
                } else {
                    // Weak locks: nobody queues behind them, so a wait that autovacuum yields to is harmless.
                    self.session.patience()
                };
                Timeouts { lock, statement: None, idle: Duration::from_secs(10) }
            } else {
                Timeouts {
                    lock: tries.timeout().min(lock),
                    statement: limited.then_some(budget),
                    idle: budget.max(Duration::from_millis(500)),
                }
            };
            let attempt = self.attempt(at, timeouts, &soften, first, last, note);
            match self.watch(&mut tries, timeouts.lock, attempt).await {
                Ok(()) => return self.session.restore().await,
                // What it set is rolled back with it.
                Err(error) => self.again(&mut tries, at, error).await?,
            }
        }
    }

    async fn attempt(
        &self,
        at: At<'_>,
        timeouts: Timeouts,
        soften: &[String],
        first: &[String],
        last: &str,
        note: Option<&str>,
    ) -> Result<()> {
        let patient = Timeouts { lock: self.session.patience(), statement: None, ..timeouts };
        self.begin(if soften.is_empty() { timeouts } else { patient }).await?;
        let prepared = async {
            // Autovacuum yields to a waiter only after deadlock_timeout, which every short try would lose to. This
            // mode makes it yield and blocks no client.
            for relation in soften {
                let sql = format!("LOCK TABLE {relation} IN SHARE UPDATE EXCLUSIVE MODE");
                self.session.send(format!("locking {relation}"), &sql).await?;
            }
            if !soften.is_empty() {
                self.session
                    .ask(
                        "SELECT set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true)",
                        &[text(&ms(timeouts.lock)), text(&timeouts.statement_ms())],
                    )
                    .await?;
            }
            if let Some(note) = note {
                self.ledger.note(&self.session, at, note).await?;
            }
            let begun = Instant::now();
            for statement in first {
                self.limited(at, timeouts, begun, statement).await?;
            }
            Ok(begun)
        }
        .await;
        let begun = match prepared {
            Ok(begun) => begun,
            Err(error) => return self.finish(Err(error)).await,
        };
        // COMMIT goes out with the statement: a strong lock is not held for a round trip more than it must.
        let (done, committed) =
            join(self.limited(at, timeouts, begun, last), self.session.send("committing", "COMMIT")).await;
        done.and(committed)
    }

    /// Sends one of the statements of a transaction that `begun` then. Clients wait until its end, so all of them
    /// share one limit.
    async fn limited(&self, at: At<'_>, timeouts: Timeouts, begun: Instant, statement: &str) -> Result<()> {
        let Some(most) = timeouts.statement else { return self.statement(at, statement).await };
        let set = format!("SET LOCAL statement_timeout = '{}'", ms(most.saturating_sub(begun.elapsed())));
        let (set, sent) =
            join(self.session.send("setting the timeout", &set), self.statement(at, statement)).await;
        sent.and(set)
    }

    /// Sends a statement of a step.
    pub(super) async fn statement(&self, at: At<'_>, statement: &str) -> Result<()> {
        self.session.send(doing(at, statement), statement).await.map_err(Error::of_a_step)
    }

    /// The tables of a step's strong locks that exist and may be locked by this role, in one order for all.
    async fn lockable(&self, step: &Step) -> Result<Vec<String>> {
        let mut wanted: Vec<String> = step
            .locks
            .iter()
            .filter(|lock| lock.mode >= LockMode::Share)
            .map(|lock| lock.relation.clone())
            .collect();
        wanted.sort();
        wanted.dedup();
        let rows = self
            .session
            .ask(
                "SELECT w.relation
                   FROM unnest($1::text[]) WITH ORDINALITY AS w (relation, nth)
                   JOIN pg_catalog.pg_class c ON c.oid = to_regclass(w.relation)
                  WHERE c.relkind IN ('r', 'p') AND has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE')
                  ORDER BY w.nth",
                &[(&wanted, tokio_postgres::types::Type::TEXT_ARRAY)],
            )
            .await?;
        rows.iter().map(|row| get(row, "relation")).collect()
    }

    /// A statement outside a transaction. Deadlocks are tried again, and lock timeouts: one that works concurrently
    /// has none, since it would leave half of its work behind.
    pub(super) async fn autocommit(&self, at: At<'_>, summary: &str, statement: &str) -> Result<()> {
        let tries = Tries::new(self.migrator, summary);
        let waits = statement.to_ascii_lowercase().contains("concurrently");
        let mut tries = if waits { tries.untimed() } else { tries.long() };
        loop {
            self.fence().await?;
            let run = async {
                if waits {
                    return self.statement(at, statement).await;
                }
                let set = format!("SET lock_timeout = '{}'", ms(self.migrator.stall_budget));
                self.session.send("setting the lock timeout", &set).await?;
                let sent = self.statement(at, statement).await;
                // Of two errors the statement's own matters.
                let reset = self.session.send("resetting the lock timeout", "SET lock_timeout = 0").await;
                sent.and(reset)
            };
            let done = self.watch(&mut tries, self.migrator.stall_budget, run).await;
            // A procedure may have committed before it failed.
            let restored = self.session.restore().await;
            match done {
                Ok(()) => return restored,
                Err(error) => self.again(&mut tries, at, error).await?,
            }
        }
    }
}

/// What an error about `statement` begins with.
pub(super) fn doing(at: At<'_>, statement: &str) -> String {
    let mut head: String = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = head.char_indices().nth(200) {
        head.truncate(cut);
        head.push('…');
    }
    format!("migration {}, phase {}: {head}", at.migration, at.phase)
}
