//! The phase of [`RunSql`](crate::RunSql), and the markers of its options.

use crate::error::Result;
use crate::phase::{Context, Irreversible, Phase, Rollback, Window};
use crate::step::{Action, Probe, Step};

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
                    only.probe = Probe::Sql(crate::steps::probe::not(query));
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

/// Whether `name` (lower case) stands at `at` as a whole word.
const fn word(sql: &[u8], at: usize, name: &[u8]) -> bool {
    if at + name.len() > sql.len() || (at > 0 && is_name(sql[at - 1])) {
        return false;
    }
    let mut i = 0;
    while i < name.len() {
        if sql[at + i].to_ascii_lowercase() != name[i] {
            return false;
        }
        i += 1;
    }
    at + i == sql.len() || !is_name(sql[at + i])
}

const fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

const fn pair(sql: &[u8], at: usize, a: u8, b: u8) -> bool {
    at + 1 < sql.len() && sql[at] == a && sql[at + 1] == b
}

/// Past white space and comments.
const fn skip_blank(sql: &[u8], mut at: usize) -> usize {
    while at < sql.len() {
        if sql[at].is_ascii_whitespace() {
            at += 1;
        } else if pair(sql, at, b'-', b'-') || pair(sql, at, b'/', b'*') {
            at = skip_token(sql, at);
        } else {
            return at;
        }
    }
    at
}

/// Past one comment, quoted run or plain byte.
const fn skip_token(sql: &[u8], at: usize) -> usize {
    if pair(sql, at, b'-', b'-') {
        let mut end = at;
        while end < sql.len() && sql[end] != b'\n' {
            end += 1;
        }
        return end;
    }
    if pair(sql, at, b'/', b'*') {
        let (mut end, mut depth) = (at + 2, 1);
        while end < sql.len() && depth > 0 {
            if pair(sql, end, b'/', b'*') {
                depth += 1;
                end += 2;
            } else if pair(sql, end, b'*', b'/') {
                depth -= 1;
                end += 2;
            } else {
                end += 1;
            }
        }
        return end;
    }
    match sql[at] {
        quote @ (b'\'' | b'"') => {
            let escapes = quote == b'\''
                && at > 0
                && matches!(sql[at - 1], b'e' | b'E')
                && (at == 1 || !is_name(sql[at - 2]));
            let mut end = at + 1;
            while end < sql.len() && sql[end] != quote {
                end += if escapes && sql[end] == b'\\' { 2 } else { 1 };
            }
            if end < sql.len() { end + 1 } else { sql.len() }
        }
        b'$' if at == 0 || !is_name(sql[at - 1]) => skip_dollar(sql, at),
        _ => at + 1,
    }
}

/// Past a dollar-quoted string, or past the `$` that begins none.
const fn skip_dollar(sql: &[u8], at: usize) -> usize {
    let mut tag = at + 1;
    while tag < sql.len() && sql[tag] != b'$' {
        if !is_name(sql[tag]) {
            return at + 1;
        }
        tag += 1;
    }
    if tag >= sql.len() || (tag > at + 1 && sql[at + 1].is_ascii_digit()) {
        return at + 1;
    }
    let length = tag + 1 - at;
    let mut end = tag + 1;
    while end + length <= sql.len() {
        let mut i = 0;
        while i < length && sql[end + i] == sql[at + i] {
            i += 1;
        }
        if i == length {
            return end + length;
        }
        end += 1;
    }
    sql.len()
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
