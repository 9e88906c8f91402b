//! What a statement has to do with a table, by its tokens. Postgres's own parser is not at hand, so where the text alone
//! leaves it open, it counts as a use.

use std::collections::BTreeSet;
use std::fmt;

/// What statements are asked about.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// The table and what inherits from it, as (schema, name).
    pub(super) relations: Vec<(String, String)>,
    /// The column; `None` for the table itself.
    pub(super) column: Option<String>,
}

/// How a statement uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// It names the column.
    Column,
    /// It names the table, which goes as a whole.
    Table,
    /// `*`.
    Star,
    /// The row as one value.
    WholeRow,
    /// `INSERT` without a list of columns.
    Insert,
    /// `COPY` without a list of columns.
    Copy,
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Column => "names the column",
            Self::Table => "names the table",
            Self::Star => "takes every column of the table with *",
            Self::WholeRow => "takes the whole row",
            Self::Insert => "inserts without a list of columns",
            Self::Copy => "copies without a list of columns",
        })
    }
}

/// How `sql` uses the subject, if it does. Definitions (DDL) do not count, nor do the queries by which Postgres checks
/// foreign keys (`nested`: the statement was run inside another one), nor phasewise's own.
pub(super) fn uses(sql: &str, nested: bool, subject: &Subject, ledger_schema: &str) -> Option<Use> {
    let tokens = tokens(sql);
    if !counts(&tokens) || ours(&tokens, ledger_schema) || nested && checks_a_key(&tokens) {
        return None;
    }
    let scan = Scan::new(&tokens, subject);
    if scan.tables.is_empty() {
        return None;
    }
    let Some(column) = &subject.column else { return Some(Use::Table) };
    if scan.names(column) {
        return Some(Use::Column);
    }
    scan.takes_all()
}

/// How a statement in the body of a function takes every column of the subject's table, if one does.
pub(super) fn takes_all(body: &str, subject: &Subject) -> Option<Use> {
    subject.column.as_ref()?;
    let tokens = tokens_of(body, true);
    tokens.split(|token| *token == Token::Sign(';')).find_map(|statement| {
        let scan = Scan::new(statement, subject);
        if scan.tables.is_empty() { None } else { scan.takes_all() }
    })
}

/// Whether the body of a function names `name` as a word, in literals and comments too: it may build statements. A name
/// that needs quotes counts wherever it stands.
pub(super) fn mentions(body: &str, name: &str) -> bool {
    if name.contains('$') {
        return body.to_lowercase().contains(&name.to_lowercase());
    }
    if !folds(name) {
        return body.contains(name) || body.contains(&name.replace('"', "\"\""));
    }
    tokens_of(body, true).iter().any(|token| token.name() == Some(name))
}

/// Whether the name may be written without quotes.
fn folds(name: &str) -> bool {
    name.chars().all(|c| is_word(c) && !c.is_uppercase())
        && !name.starts_with(|c: char| c.is_ascii_digit() || c == '$')
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A name without quotes, or a keyword, in lower case.
    Word(String),
    /// A name in quotes.
    Quoted(String),
    /// Anything else: one sign, or a literal as `'`.
    Sign(char),
}

impl Token {
    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(found) if found == word)
    }

    fn is_any(&self, words: &[&str]) -> bool {
        matches!(self, Self::Word(found) if words.contains(&found.as_str()))
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Word(name) | Self::Quoted(name) => Some(name),
            Self::Sign(_) => None,
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

fn tokens(sql: &str) -> Vec<Token> {
    tokens_of(sql, false)
}

/// `inside`: what stands in literals counts as if it stood outside, as in the body of a function that builds statements.
fn tokens_of(sql: &str, inside: bool) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        let taken = if rest.starts_with("--") && !inside {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") && !inside {
            comment(rest)
        } else if c == '"' {
            let (name, taken) = quoted(rest, '"');
            tokens.push(Token::Quoted(name));
            taken
        } else if c == '\'' && !inside {
            tokens.push(Token::Sign('\''));
            quoted(rest, '\'').1
        } else if c == '$' && !inside && dollar(rest).is_some() {
            tokens.push(Token::Sign('\''));
            dollar(rest).unwrap_or(1)
        } else if is_word(c) && !(inside && c == '$') {
            // A dollar begins or ends a literal there, more often than it is a part of a name.
            let ends = |c: char| !is_word(c) || inside && c == '$';
            let taken = rest.find(ends).unwrap_or(rest.len());
            let word = rest[..taken].to_lowercase();
            // E'…', B'…' and the like: the letter belongs to the literal.
            let prefix = rest[taken..].starts_with('\'') && !inside && word.len() == 1;
            if word.starts_with(|c: char| c.is_ascii_digit() || c == '$') {
                tokens.push(Token::Sign('0'));
            } else if !prefix {
                tokens.push(Token::Word(word));
            }
            taken
        } else {
            if !c.is_whitespace() {
                tokens.push(Token::Sign(c));
            }
            c.len_utf8()
        };
        rest = &rest[taken.max(c.len_utf8())..];
    }
    tokens
}

/// The length of a comment, comments within it included.
fn comment(sql: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < sql.len() {
        let rest = &sql[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    sql.len()
}

/// What stands in quotes at the beginning of `sql`, and the length with them.
fn quoted(sql: &str, quote: char) -> (String, usize) {
    let mut text = String::new();
    let mut chars = sql.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        // Twice, it is a part of the text.
        if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return (text, at + 1);
        }
        text.push(c);
    }
    (text, sql.len())
}

/// The length of a literal in dollar quotes.
fn dollar(sql: &str) -> Option<usize> {
    let tag = 2 + sql[1..].find('$')?;
    let name = &sql[1..tag - 1];
    let is_tag = name.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    is_tag.then(|| sql[tag..].find(&sql[..tag]).map_or(sql.len(), |end| tag + end + tag))
}

/// Whether it is a statement that an application would run, not a definition.
fn counts(tokens: &[Token]) -> bool {
    let Some(first) = tokens.iter().find(|token| **token != Token::Sign('(')) else { return false };
    let kinds = [
        "select", "insert", "update", "delete", "merge", "with", "values", "table", "copy", "declare",
        "prepare", "truncate", "lock",
    ];
    // CREATE TABLE … AS reads, and a temporary one belongs to an application.
    let reads =
        |token: &Token| token.is_any(&["select", "with", "table", "values"]) || *token == Token::Sign('(');
    let made_of = || {
        tokens.iter().take(5).any(|token| token.is("table"))
            && tokens.windows(2).any(|pair| pair[0].is("as") && reads(&pair[1]))
    };
    first.is_any(&kinds) || first.is("create") && made_of()
}

/// Whether phasewise sent it: it names the ledger's schema, or what only phasewise makes.
fn ours(tokens: &[Token], ledger_schema: &str) -> bool {
    tokens.windows(2).any(|pair| pair[0].name() == Some(ledger_schema) && pair[1] == Token::Sign('.'))
        || tokens.iter().any(|token| token.name().is_some_and(|name| name.starts_with("phasewise_")))
}

/// The queries of foreign keys: `SELECT 1 FROM ONLY "s"."t" x WHERE "c" OPERATOR(pg_catalog.=) $1 FOR KEY SHARE OF x`.
fn checks_a_key(tokens: &[Token]) -> bool {
    let near = |words: &[&str]| {
        tokens.windows(words.len()).any(|run| run.iter().zip(words).all(|(token, word)| token.is(word)))
    };
    near(&["only"])
        && tokens.iter().any(|token| token.is("operator"))
        && tokens.iter().any(|t| t.is("pg_catalog"))
}

/// Words that follow a table's name and are no alias of it.
const NO_ALIAS: &[&str] = &[
    "as",
    "cross",
    "default",
    "except",
    "fetch",
    "for",
    "from",
    "full",
    "group",
    "having",
    "inner",
    "intersect",
    "into",
    "join",
    "left",
    "limit",
    "natural",
    "offset",
    "on",
    "order",
    "overriding",
    "returning",
    "right",
    "select",
    "set",
    "tablesample",
    "to",
    "union",
    "using",
    "values",
    "when",
    "where",
    "window",
    "with",
];
/// Words that a list of columns ends before.
const AFTER_ITEM: &[&str] = &[
    "except",
    "fetch",
    "for",
    "from",
    "group",
    "having",
    "intersect",
    "into",
    "limit",
    "offset",
    "order",
    "union",
    "where",
    "window",
];

/// A statement, looked at for one subject.
struct Scan<'a> {
    tokens: &'a [Token],
    /// The query that each token belongs to: subqueries have numbers of their own.
    scopes: Vec<usize>,
    /// Where the table, or what inherits from it, is named.
    tables: Vec<usize>,
    /// Where an alias is given to it.
    aliases: Vec<usize>,
    /// What a column of it may be qualified with.
    qualifiers: BTreeSet<&'a str>,
}

impl<'a> Scan<'a> {
    fn new(tokens: &'a [Token], subject: &Subject) -> Self {
        let mut scan = Self {
            tokens,
            scopes: scopes(tokens),
            tables: Vec::new(),
            aliases: Vec::new(),
            qualifiers: BTreeSet::from(["excluded", "old", "new"]),
        };
        for at in 0..tokens.len() {
            let Some(name) = scan.name(at) else { continue };
            // `a.users` is a column of `a`, or a table in the schema `a`; `users.a` says nothing of where users is.
            let schema =
                if scan.sign(at.wrapping_sub(1), '.') { scan.name(at.wrapping_sub(2)) } else { None };
            let is =
                |(own, table): &(String, String)| table == name && schema.is_none_or(|schema| schema == own);
            if !subject.relations.iter().any(is) {
                continue;
            }
            if scan.sign(at + 1, '.') && schema.is_none() && scan.is_a_schema(at) {
                continue;
            }
            scan.tables.push(at);
            scan.qualifiers.insert(name);
            let mut next = at + 1;
            while scan.sign(next, '*') {
                next += 1;
            }
            if scan.word(next, &["as"]) {
                next += 1;
            } else if scan.word(next, NO_ALIAS) {
                continue;
            }
            if let Some(alias) = scan.name(next).filter(|_| scan.follows_from(at)) {
                scan.aliases.push(next);
                scan.qualifiers.insert(alias);
            }
        }
        scan
    }

    /// `users.orders`, where a schema has the table's name.
    fn is_a_schema(&self, at: usize) -> bool {
        let before = at.wrapping_sub(1);
        self.word(before, &["from", "join", "into", "update", "only", "table", "copy"])
    }

    /// Whether what is named there is a table in a statement's list of tables.
    fn follows_from(&self, at: usize) -> bool {
        let before = self.in_front_of(at);
        self.follows_a_word(at) || self.sign(before, ',') || self.sign(before, '(')
    }

    /// The same, where that is beyond doubt.
    fn follows_a_word(&self, at: usize) -> bool {
        self.word(self.in_front_of(at), &["from", "join", "into", "update", "only", "using", "lateral"])
    }

    /// What stands before a name, its schema left out.
    fn in_front_of(&self, at: usize) -> usize {
        let before = at.wrapping_sub(1);
        if self.sign(before, '.') { before.wrapping_sub(2) } else { before }
    }

    fn name(&self, at: usize) -> Option<&'a str> {
        self.tokens.get(at).and_then(Token::name)
    }

    fn sign(&self, at: usize, sign: char) -> bool {
        self.tokens.get(at) == Some(&Token::Sign(sign))
    }

    fn word(&self, at: usize, words: &[&str]) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is_any(words))
    }

    /// Whether the column is named, by itself or as the table's.
    fn names(&self, column: &str) -> bool {
        (0..self.tokens.len()).any(|at| {
            let named = match &self.tokens[at] {
                Token::Word(word) => word == column && folds(column),
                Token::Quoted(word) => word == column,
                Token::Sign(_) => false,
            };
            // Of a column that has the name of its table, or of the table's alias, only the columns count. After a comma
            // or a bracket it may be either, and counts.
            let is_table = self.tables.contains(&at) && (self.sign(at + 1, '.') || self.follows_a_word(at));
            // A table or an alias, or a function.
            let is_other = self.sign(at + 1, '.') && !self.is_set_in_part(at) || self.sign(at + 1, '(');
            named && !is_table && !self.aliases.contains(&at) && !is_other && self.is_qualified_by_us(at)
        })
    }

    /// `SET place.street = $1`, `INSERT INTO users (place.street)`: a field of a column.
    fn is_set_in_part(&self, at: usize) -> bool {
        let before = at.wrapping_sub(1);
        let assigned = self.sign(before, ',') && self.sign(at + 3, '=');
        let listed = self.sign(before, '(') && self.tables.contains(&before.wrapping_sub(1));
        self.word(before, &["set"]) || assigned || listed
    }

    /// Every column at once.
    fn takes_all(&self) -> Option<Use> {
        self.copies().or_else(|| self.inserts()).or_else(|| self.star()).or_else(|| self.whole_row())
    }

    fn is_qualified_by_us(&self, at: usize) -> bool {
        !self.sign(at.wrapping_sub(1), '.')
            || self.name(at.wrapping_sub(2)).is_none_or(|qualifier| self.qualifiers.contains(qualifier))
    }

    /// `SELECT *`, `u.*`, `RETURNING *`: no multiplication, and no `count(*)`.
    fn star(&self) -> Option<Use> {
        let is_star = |at: usize| {
            let next = at + 1;
            let ends = next >= self.tokens.len()
                || [',', ')', ';'].iter().any(|sign| self.sign(next, *sign))
                || self.word(next, AFTER_ITEM);
            if !self.sign(at, '*') || !ends || self.sign(at.wrapping_sub(1), '(') {
                return false;
            }
            if self.sign(at.wrapping_sub(1), '.') {
                return self.is_qualified_by_us(at);
            }
            // Of a subquery, that subquery's own tables.
            self.tables.iter().any(|table| self.scopes[*table] == self.scopes[at])
        };
        if (0..self.tokens.len()).any(is_star) {
            return Some(Use::Star);
        }
        // `TABLE users`.
        let listed =
            |at: &usize| self.before(*at, &["table"]) && !self.word(0, &["create", "truncate", "lock"]);
        self.tables.iter().any(listed).then_some(Use::Star)
    }

    /// Whether one of those words stands before the table's name, `ONLY` and a schema left out.
    fn before(&self, table: usize, words: &[&str]) -> bool {
        let mut before = self.in_front_of(table);
        if self.word(before, &["only"]) {
            before = before.wrapping_sub(1);
        }
        self.word(before, words)
    }

    fn inserts(&self) -> Option<Use> {
        let reads = ["values", "select", "with", "table", "overriding"];
        let merges = self.tokens.iter().any(|token| token.is("merge"))
            && self.tokens.windows(2).any(|pair| pair[0].is("insert") && pair[1].is("values"));
        let bare = |at: &usize| {
            let mut next = at + 1;
            if self.word(next, &["as"]) {
                next += 2;
            }
            let query = self.sign(next, '(') && self.word(next + 1, &reads);
            self.before(*at, &["into"]) && (self.word(next, &reads) || query)
        };
        (merges || self.tables.iter().any(bare)).then_some(Use::Insert)
    }

    fn copies(&self) -> Option<Use> {
        let bare = |at: &usize| self.before(*at, &["copy"]) && self.word(at + 1, &["from", "to"]);
        self.tables.iter().any(bare).then_some(Use::Copy)
    }

    /// The row as a value: `row_to_json(u)`, `SELECT u FROM users u`.
    fn whole_row(&self) -> Option<Use> {
        let alias = |at: usize| {
            let given = self.aliases.contains(&at);
            let name = self.name(at);
            let is_ours = self.aliases.iter().any(|alias| self.name(*alias) == name && name.is_some());
            is_ours
                && !given
                && !self.sign(at + 1, '.')
                && !self.sign(at.wrapping_sub(1), '.')
                && !self.word(at.wrapping_sub(1), &["as", "of"])
        };
        let table = |at: &usize| {
            let called = self.sign(at.wrapping_sub(1), '(')
                && self
                    .name(at.wrapping_sub(2))
                    .is_some_and(|name| !NO_ALIAS.contains(&name) && name != "in");
            let item = self.word(at.wrapping_sub(1), &["select", "distinct", "returning"]);
            !self.sign(at + 1, '.') && (called || item)
        };
        let found = (0..self.tokens.len()).any(alias) || self.tables.iter().any(table);
        found.then_some(Use::WholeRow)
    }
}

/// The query that each token belongs to: a parenthesis that begins a query begins a scope, any other goes on with the
/// one around it.
fn scopes(tokens: &[Token]) -> Vec<usize> {
    let (mut stack, mut made) = (vec![0], 0);
    let mut scopes = Vec::with_capacity(tokens.len());
    for (at, token) in tokens.iter().enumerate() {
        let here = stack.last().copied().unwrap_or(0);
        match token {
            Token::Sign('(') => {
                let begins = tokens.get(at + 1).is_some_and(|next| {
                    next.is_any(&["select", "with", "values", "table", "insert", "update", "delete"])
                });
                made += usize::from(begins);
                stack.push(if begins { made } else { here });
            }
            Token::Sign(')') if stack.len() > 1 => {
                stack.pop();
            }
            _ => {}
        }
        scopes.push(here);
    }
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(column: Option<&str>) -> Subject {
        Subject {
            relations: vec![
                ("public".to_owned(), "users".to_owned()),
                ("parts".to_owned(), "users_2026".to_owned()),
            ],
            column: column.map(str::to_owned),
        }
    }

    #[track_caller]
    fn check(cases: &[(&str, Option<Use>)], column: &str) {
        for (sql, expected) in cases {
            assert_eq!(uses(sql, false, &subject(Some(column)), "phasewise"), *expected, "{sql}");
        }
    }

    #[test]
    fn the_column_is_found_where_it_is_the_tables() {
        check(
            &[
                ("SELECT name FROM users", Some(Use::Column)),
                ("select Name from PUBLIC.Users where id = $1", Some(Use::Column)),
                ("SELECT \"name\" FROM \"users\"", Some(Use::Column)),
                ("SELECT u.name FROM ONLY users AS u", Some(Use::Column)),
                ("SELECT public.users.name FROM public.users", Some(Use::Column)),
                ("SELECT upper(users.name) FROM users", Some(Use::Column)),
                ("UPDATE users SET name = $1", Some(Use::Column)),
                ("UPDATE users AS u SET full_name = $1 WHERE u.name = $2", Some(Use::Column)),
                ("INSERT INTO users (id, name) VALUES ($1, $2)", Some(Use::Column)),
                (
                    "INSERT INTO users AS u (id, full_name) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
                    Some(Use::Column),
                ),
                ("DELETE FROM users WHERE name IS NULL RETURNING id", Some(Use::Column)),
                ("SELECT (u).name FROM users u", Some(Use::Column)),
                ("SELECT o.id FROM orders o JOIN users u ON u.name = o.buyer", Some(Use::Column)),
                ("SELECT x.a FROM (SELECT name AS a FROM users) x", Some(Use::Column)),
                (
                    "WITH w AS (SELECT id FROM users ORDER BY name LIMIT $1) SELECT id FROM w",
                    Some(Use::Column),
                ),
                ("SELECT name FROM parts.users_2026", Some(Use::Column)),
                ("COPY users (id, name) FROM STDIN", Some(Use::Column)),
                ("DECLARE c CURSOR FOR SELECT name FROM users", Some(Use::Column)),
                ("CREATE TEMP TABLE t AS SELECT name FROM users", Some(Use::Column)),
                // Not to be told apart from the table's.
                ("SELECT name FROM users JOIN orders USING (id)", Some(Use::Column)),
            ],
            "name",
        );
    }

    #[test]
    fn what_only_looks_like_it_is_not_found() {
        check(
            &[
                ("SELECT name FROM products", None),
                ("SELECT full_name, name_2 FROM users", None),
                ("SELECT p.name, u.id FROM products p JOIN users u ON u.id = p.owner", None),
                ("SELECT id FROM users WHERE full_name = 'name'", None),
                ("SELECT id /* name */ FROM users -- name", None),
                ("SELECT id FROM users WHERE full_name = $tag$name$tag$", None),
                ("SELECT \"NAME\" FROM users", None),
                ("SELECT name FROM other.users", None),
                ("INSERT INTO users (id, full_name) VALUES ($1, $2)", None),
                ("INSERT INTO users DEFAULT VALUES", None),
                ("ALTER TABLE users DROP COLUMN name", None),
                ("TRUNCATE TABLE users", None),
                ("CREATE INDEX ON users (name)", None),
                ("COMMENT ON COLUMN users.name IS $1", None),
                ("CREATE VIEW v AS SELECT name FROM users", None),
                ("UPDATE users SET name = phasewise.f(name)", None),
                ("SELECT name FROM pg_temp.phasewise_trial, users", None),
                ("", None),
                ("BEGIN", None),
            ],
            "name",
        );
    }

    #[test]
    fn every_column_at_once_is_found() {
        check(
            &[
                ("SELECT * FROM users", Some(Use::Star)),
                ("SELECT u.* FROM users u", Some(Use::Star)),
                ("SELECT id, u.* FROM users u, orders o", Some(Use::Star)),
                ("SELECT DISTINCT ON (id) * FROM users", Some(Use::Star)),
                ("UPDATE users SET full_name = $1 RETURNING *", Some(Use::Star)),
                ("SELECT id FROM (SELECT * FROM users) x", Some(Use::Star)),
                ("TABLE users", Some(Use::Star)),
                ("COPY (SELECT * FROM users) TO STDOUT", Some(Use::Star)),
                ("SELECT * FROM orders JOIN users USING (id)", Some(Use::Star)),
                ("COPY public.users TO STDOUT", Some(Use::Copy)),
                ("COPY users FROM STDIN", Some(Use::Copy)),
                ("INSERT INTO users VALUES ($1, $2)", Some(Use::Insert)),
                ("INSERT INTO public.users AS u SELECT $1, $2", Some(Use::Insert)),
                ("INSERT INTO users (SELECT $1, $2)", Some(Use::Insert)),
                (
                    "MERGE INTO users u USING s ON s.id = u.id WHEN NOT MATCHED THEN INSERT VALUES ($1, $2)",
                    Some(Use::Insert),
                ),
                ("SELECT row_to_json(u) FROM users u", Some(Use::WholeRow)),
                ("SELECT u FROM users u", Some(Use::WholeRow)),
                ("SELECT to_jsonb(users) FROM users", Some(Use::WholeRow)),
                ("SELECT users FROM users", Some(Use::WholeRow)),
            ],
            "name",
        );
    }

    #[test]
    fn a_few_columns_of_it_are_not_every_column() {
        check(
            &[
                ("SELECT count(*) FROM users", None),
                ("SELECT id * 2 FROM users", None),
                ("SELECT id * $1 AS twice FROM users u WHERE u.id * 2 > 3", None),
                ("SELECT o.* FROM orders o JOIN users u ON u.id = o.id", None),
                ("SELECT * FROM orders WHERE buyer IN (SELECT id FROM users)", None),
                ("SELECT id FROM users u FOR UPDATE OF u", None),
                ("SELECT u.id FROM users AS u WHERE u.id = $1", None),
                ("UPDATE users SET full_name = $1 WHERE id = $2 RETURNING id", None),
                ("SELECT id FROM users WHERE id IN (SELECT buyer FROM orders)", None),
                ("SELECT count(*) FROM (orders JOIN users USING (id))", None),
            ],
            "name",
        );
    }

    #[test]
    fn a_name_that_needs_quotes_counts_in_quotes_only() {
        check(
            &[
                ("SELECT \"Full \"\"Name\" FROM users", Some(Use::Column)),
                ("SELECT full, name FROM users", None),
            ],
            "Full \"Name",
        );
        check(&[("SELECT \"Name\" FROM users", Some(Use::Column)), ("SELECT Name FROM users", None)], "Name");
        check(&[("SELECT \"a.*b\" FROM users", Some(Use::Column)), ("SELECT axb FROM users", None)], "a.*b");
        check(&[("SELECT größe FROM users", Some(Use::Column)), ("SELECT größen FROM users", None)], "größe");
    }

    #[test]
    fn a_table_that_goes_is_found_by_its_name() {
        let table = subject(None);
        let uses = |sql: &str| uses(sql, false, &table, "phasewise");
        assert_eq!(uses("SELECT id FROM users"), Some(Use::Table));
        assert_eq!(uses("INSERT INTO parts.users_2026 (id) VALUES ($1)"), Some(Use::Table));
        assert_eq!(uses("SELECT users_id FROM orders"), None);
        assert_eq!(uses("TRUNCATE users"), Some(Use::Table));
        assert_eq!(uses("LOCK TABLE public.users IN SHARE MODE"), Some(Use::Table));
        assert_eq!(uses("DROP TABLE users"), None);
    }

    #[test]
    fn what_foreign_keys_ask_is_no_use() {
        let key = "SELECT $2 FROM ONLY \"public\".\"users\" x WHERE \"name\" OPERATOR(pg_catalog.=) $1 FOR KEY SHARE OF x";
        assert_eq!(uses(key, true, &subject(Some("name")), "phasewise"), None);
        assert_eq!(
            uses("SELECT name FROM users", true, &subject(Some("name")), "phasewise"),
            Some(Use::Column)
        );
    }

    #[test]
    fn bodies_name_things_in_literals_too() {
        assert!(mentions("BEGIN EXECUTE 'SELECT name FROM users'; END", "name"));
        assert!(mentions("BEGIN NEW.Name := trim(NEW.name); END", "name"));
        assert!(mentions("SELECT \"Full Name\" FROM t", "Full Name"));
        assert!(mentions("EXECUTE format('SELECT %I FROM t', 'Full Name')", "Full Name"));
        assert!(mentions("EXECUTE $q$SELECT count(*) FROM users$q$ INTO n", "users"));
        assert!(mentions("EXECUTE $q$name$q$", "name"));
        assert!(mentions("UPDATE t SET Pay$ = 1", "pay$"));
        assert!(!mentions("SELECT full_name, names FROM t", "name"));
    }

    #[test]
    fn a_body_is_read_statement_by_statement() {
        let how = |body: &str| takes_all(body, &subject(Some("name")));
        assert_eq!(how("BEGIN INSERT INTO users VALUES (1); END"), Some(Use::Insert));
        assert_eq!(how("DECLARE r record; BEGIN SELECT * INTO r FROM users; END"), Some(Use::Star));
        assert_eq!(how("BEGIN EXECUTE $$SELECT * FROM users$$; END"), Some(Use::Star));
        assert_eq!(how("BEGIN SELECT * INTO r FROM orders; SELECT id INTO i FROM users; END"), None);
        assert_eq!(takes_all("SELECT * FROM users", &subject(None)), None);
    }

    #[test]
    fn a_field_of_the_column_is_the_column() {
        check(
            &[
                ("UPDATE users SET place.street = $1 WHERE id = $2", Some(Use::Column)),
                ("UPDATE users SET note = $1, place.street = $2", Some(Use::Column)),
                ("INSERT INTO users (place.street) VALUES ($1)", Some(Use::Column)),
                // Of something else that is called so.
                ("SELECT u.id, upper(place.note) FROM users u, orders AS o", None),
            ],
            "place",
        );
    }
}
