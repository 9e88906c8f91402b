//! SQL expressions over the columns of one row, with `{column}` placeholders.

use crate::ident::{MAX_BYTES, quote, slice};
use crate::tokens::{pair, skip_token};

/// An SQL expression whose columns are written as `{column}`: `"{amount}::bigint"`.
///
/// The same expression is rendered for a batch (`t."amount"`) and for a trigger (`NEW."amount"`). Inside
/// string literals (`'{}'`, `E'it\'s {}'`, `$$…{}…$$`) and quoted identifiers braces are plain text. A placeholder holds
/// the name as Postgres stores it, without quotes: `{Order}`, `{select}`. Comments are refused, since what is put behind
/// the expression would be swallowed. Placeholders are checked in const context; that the expression compiles on the server is found out before a migration's first phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Expr(&'static str);

impl Expr {
    /// Takes an SQL expression.
    ///
    /// # Panics
    ///
    /// On an empty expression, an unclosed brace, or a placeholder that is no identifier: a compile error in a
    /// definition.
    #[must_use]
    pub const fn new(sql: &'static str) -> Self {
        assert!(!sql.is_empty(), "an expression is empty: write SQL such as \"lower({{email}})\"");
        let bytes = sql.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let token = next(bytes, at);
            assert!(
                !matches!(token.kind, TokenKind::Open),
                "an expression has an unclosed brace: a column is written as {{column}}, and a literal brace stands in quotes"
            );
            assert!(
                !matches!(token.kind, TokenKind::Close),
                "an expression has a closing brace without an opening one: a column is written as {{column}}"
            );
            let mut i = at;
            while i < token.end {
                assert!(bytes[i] != 0, "an expression contains a NUL byte: remove it");
                i += 1;
            }
            assert!(
                !matches!(token.kind, TokenKind::Comment),
                "an expression contains a comment, which would swallow what is put behind it: remove it"
            );
            if matches!(token.kind, TokenKind::Column) {
                assert!(
                    token.end - at > 2,
                    "an expression has an empty placeholder {{}}: name a column in it"
                );
                assert!(
                    token.end - at - 2 <= MAX_BYTES,
                    "a placeholder in an expression is longer than 63 bytes: name a column in it"
                );
            }
            at = token.end;
        }
        Self(sql)
    }

    /// The expression as it was written.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        self.0
    }

    /// The columns that it names, in order of appearance, each once.
    #[must_use]
    pub fn columns(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        self.walk(|piece| match piece {
            Piece::Column(name) if !names.contains(&name) => names.push(name),
            _ => {}
        });
        names
    }

    /// The expression with each placeholder replaced by what `column` makes of its name, in parentheses.
    #[must_use]
    pub fn render(&self, column: impl Fn(&str) -> String) -> String {
        let mut sql = String::from("(");
        self.walk(|piece| match piece {
            Piece::Text(text) => sql.push_str(text),
            Piece::Column(name) => sql.push_str(&column(name)),
        });
        sql.push(')');
        sql
    }

    /// Rendered over a row that SQL calls `row`: an alias such as `t`, or `NEW`.
    #[must_use]
    pub fn over(&self, row: &str) -> String {
        self.render(|name| format!("{row}.{}", quote(name)))
    }

    fn walk(&self, mut each: impl FnMut(Piece)) {
        let bytes = self.0.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let token = next(bytes, at);
            match token.kind {
                TokenKind::Column => each(Piece::Column(slice(bytes, at + 1, token.end - 1))),
                _ => each(Piece::Text(slice(bytes, at, token.end))),
            }
            at = token.end;
        }
    }
}

enum Piece {
    Text(&'static str),
    Column(&'static str),
}

struct Token {
    kind: TokenKind,
    end: usize,
}

enum TokenKind {
    Text,
    Column,
    Comment,
    Open,
    Close,
}

/// The token that starts at `at`: a placeholder, a comment, or text up to one of those.
const fn next(bytes: &[u8], at: usize) -> Token {
    match bytes[at] {
        b'{' => {
            let mut end = at + 1;
            while end < bytes.len() && bytes[end] != b'{' {
                if bytes[end] == b'}' {
                    return Token { kind: TokenKind::Column, end: end + 1 };
                }
                end += 1;
            }
            Token { kind: TokenKind::Open, end: bytes.len() }
        }
        b'}' => Token { kind: TokenKind::Close, end: at + 1 },
        _ if is_comment(bytes, at) => Token { kind: TokenKind::Comment, end: skip_token(bytes, at) },
        _ => {
            let mut end = skip_token(bytes, at);
            while end < bytes.len() && !matches!(bytes[end], b'{' | b'}') && !is_comment(bytes, end) {
                end = skip_token(bytes, end);
            }
            Token { kind: TokenKind::Text, end }
        }
    }
}

const fn is_comment(bytes: &[u8], at: usize) -> bool {
    pair(bytes, at, b'-', b'-') || pair(bytes, at, b'/', b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_rendered_for_any_row() {
        const UP: Expr = Expr::new("coalesce({a}, {we\"ird}, '{}')::text || {a}");
        assert_eq!(UP.over("t"), "(coalesce(t.\"a\", t.\"we\"\"ird\", '{}')::text || t.\"a\")");
        assert_eq!(UP.over("NEW"), "(coalesce(NEW.\"a\", NEW.\"we\"\"ird\", '{}')::text || NEW.\"a\")");
        assert_eq!(UP.columns(), ["a", "we\"ird"]);
    }

    #[test]
    fn braces_in_quotes_are_text() {
        const DOLLAR: Expr = Expr::new("$$lit {b}$$ || {b} || $q$ $$ {c} $q$");
        assert_eq!(DOLLAR.over("t"), "($$lit {b}$$ || t.\"b\" || $q$ $$ {c} $q$)");
        const ESCAPED: Expr = Expr::new(r"E'it\'s {b}' || {b} || e'a''b\'{c}'");
        assert_eq!(ESCAPED.over("t"), r#"(E'it\'s {b}' || t."b" || e'a''b\'{c}')"#);
        const PLAIN: Expr = Expr::new(r"'it''s {b} \' || {b} || ''");
        assert_eq!(PLAIN.over("t"), r#"('it''s {b} \' || t."b" || '')"#);
        const QUOTED: Expr = Expr::new(r#"{b} || "we""ird {}"() || 'ü' || '-- {a} /*'"#);
        assert_eq!(QUOTED.over("t"), r#"(t."b" || "we""ird {}"() || 'ü' || '-- {a} /*')"#);
        assert_eq!(ESCAPED.columns(), ["b"]);
    }

    #[test]
    fn placeholders_are_names_as_postgres_stores_them() {
        const NAMES: Expr = Expr::new("{Order} + {select} - {from where}");
        assert_eq!(NAMES.over("NEW"), r#"(NEW."Order" + NEW."select" - NEW."from where")"#);
    }

    #[test]
    #[should_panic(expected = "comment")]
    fn comments_are_refused() {
        let _ = Expr::new("{a} -- the old one");
    }

    #[test]
    #[should_panic(expected = "comment")]
    fn comments_of_the_other_kind_are_refused() {
        let _ = Expr::new("{a} /* {b} */");
    }

    #[test]
    #[should_panic(expected = "closing brace")]
    fn a_lone_closing_brace_is_refused() {
        let _ = Expr::new("{a} || }");
    }

    #[test]
    #[should_panic(expected = "unclosed brace")]
    fn a_lone_opening_brace_is_refused() {
        let _ = Expr::new("'}' || {a");
    }

    #[test]
    #[should_panic(expected = "empty placeholder")]
    fn an_empty_placeholder_is_refused() {
        let _ = Expr::new("{a} || {}");
    }
}
