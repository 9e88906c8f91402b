//! The phase of [`RunSql`](crate::RunSql), and the markers of its options.

use crate::error::Result;
use crate::phase::{Context, Irreversible, Phase, Rollback, Window};
use crate::step::{Action, Probe, Step};
use crate::tokens::{skip_blank, skip_token, until_semicolon, word};

/// Nothing was said about the rollback yet.
#[derive(Clone, Copy, Debug)]
pub struct Undecided(());

/// The rollback is given, or the reason why there is none.
#[derive(Clone, Copy, Debug)]
pub struct Decided(());

#[derive(Clone, Copy, Debug)]
pub(crate) enum Undo {
    Undecided,
    Statements(&'static [&'static str]),
    Irreversible(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Transaction,
    Long,
    Outside,
}

/// The statements as their user gives them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SqlSpec {
    pub(crate) statements: &'static [&'static str],
    pub(crate) undo: Undo,
    pub(crate) sent: Sent,
    pub(crate) done_when: Option<&'static str>,
}

impl SqlSpec {
    fn step(&self, statement: &str) -> Step {
        let mut words = statement.split_whitespace();
        let mut summary = words.by_ref().take(4).collect::<Vec<_>>().join(" ");
        if words.next().is_some() {
            summary.push_str(" …");
        }
        let statement = statement.to_owned();
        let action = match self.sent {
            Sent::Transaction => Action::Transaction(vec![statement]),
            Sent::Long => Action::Long(statement),
            Sent::Outside => Action::Autocommit(statement),
        };
        Step::new(summary, action).locks_unknown()
    }
}

/// `RunSql`, its only phase.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub(crate) spec: SqlSpec,
}

impl Phase for Run {
    const NAME: &'static str = "Run";
    const WINDOW: Window = Window::new(0, 0);

    fn enter(&self, _: &Context<'_>) -> Result<Vec<Step>> {
        let probe = match self.spec.done_when {
            Some(query) => Probe::Sql(query.to_owned()),
            None => Probe::Ledger,
        };
        Ok(self
            .spec
            .statements
            .iter()
            .map(|statement| self.spec.step(statement).probe(probe.clone()))
            .collect())
    }

    fn rollback(&self, _: &Context<'_>) -> Result<Rollback> {
        match self.spec.undo {
            Undo::Statements(statements) => {
                let mut steps: Vec<Step> = statements.iter().map(|sql| self.spec.step(sql)).collect();
                if let (Some(query), [only]) = (self.spec.done_when, steps.as_mut_slice()) {
                    // A query that a `;` or a comment ends cannot stand in parentheses on one line. One that says nothing
                    // says that nothing is there.
                    let query = until_semicolon(query);
                    only.probe = Probe::Sql(format!("SELECT NOT coalesce((\n{query}\n), false)"));
                }
                Ok(Rollback::Steps(steps))
            }
            Undo::Irreversible(reason) => Ok(Rollback::Irreversible(Irreversible::because(reason))),
            // No `Change` without a decision.
            Undo::Undecided => Ok(Rollback::Irreversible(Irreversible::because("no rollback was given"))),
        }
    }
}

/// There is a statement, and each entry is one that may be sent alone.
pub(crate) const fn check_statements(statements: &[&str]) {
    assert!(!statements.is_empty(), "a list of statements is empty: write at least one");
    let mut i = 0;
    while i < statements.len() {
        check_statement(statements[i].as_bytes());
        i += 1;
    }
}

const fn check_statement(sql: &[u8]) {
    let start = skip_blank(sql, 0);
    assert!(start < sql.len(), "a statement is empty: write SQL, or remove it");
    assert!(
        !(word(sql, start, b"begin")
            || word(sql, start, b"start")
            || word(sql, start, b"commit")
            || word(sql, start, b"end")
            || word(sql, start, b"rollback")
            || word(sql, start, b"abort")),
        "a statement begins or ends a transaction: remove it, each statement has a transaction of its own (.outside_transaction() for one that must not)"
    );
    let mut at = start;
    while at < sql.len() {
        // The body of an SQL-standard function holds statements of its own.
        if word(sql, at, b"begin") && word(sql, skip_blank(sql, at + 5), b"atomic") {
            return;
        }
        if sql[at] == b';' {
            assert!(
                skip_blank(sql, at + 1) == sql.len(),
                "an entry holds two statements: write them as two entries of the list, since each is sent alone"
            );
            return;
        }
        at = skip_token(sql, at);
    }
}

#[cfg(test)]
mod tests {
    use super::check_statements;

    #[test]
    fn one_statement_may_hold_semicolons_in_quotes() {
        check_statements(&[
            "select ';' || E'\\';' || \";\" ; -- done; really",
            "create function f() returns void language plpgsql as $body$ begin perform 1; end; $body$",
            "create function g() returns int begin atomic; select 1; end",
            "/* a; /* b; */ */ select $1",
        ]);
    }

    #[test]
    #[should_panic(expected = "two statements")]
    fn two_statements_in_one_entry_are_refused() {
        check_statements(&["select 1; select 2"]);
    }

    #[test]
    #[should_panic(expected = "begins or ends a transaction")]
    fn transactions_are_not_the_users() {
        check_statements(&["-- first\nCOMMIT"]);
    }
}
