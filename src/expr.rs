//! SQL expressions over the columns of one row, with `{column}` placeholders.

use crate::ident::{MAX_BYTES, quote, slice};

/// An SQL expression whose columns are written as `{column}`: `"{amount}::bigint"`.
///
/// The same expression is rendered for a batch (`t."amount"`) and for a trigger (`NEW."amount"`). Inside
/// string literals (`'{}'`) and quoted identifiers braces are plain text. Placeholders are checked in const
/// context; that the expression compiles on the server is found out before a migration's first phase.
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
            if matches!(token.kind, TokenKind::Text) && bytes[at] != b'\'' && bytes[at] != b'"' {
                let mut i = at;
                while i + 1 < token.end {
                    let starts_comment = matches!((bytes[i], bytes[i + 1]), (b'-', b'-') | (b'/', b'*'));
                    assert!(
                        !starts_comment,
                        "an expression contains a comment, which would swallow what is put behind it: remove it"
                    );
                    i += 1;
                }
            }
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
    Open,
    Close,
}

/// The token that starts at `at`: a run of text, a quoted run, or a placeholder.
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
        quote @ (b'\'' | b'"') => {
            let mut end = at + 1;
            while end < bytes.len() && bytes[end] != quote {
                end += 1;
            }
            Token { kind: TokenKind::Text, end: if end < bytes.len() { end + 1 } else { end } }
        }
        _ => {
            let mut end = at + 1;
            while end < bytes.len() && !matches!(bytes[end], b'{' | b'}' | b'\'' | b'"') {
                end += 1;
            }
            Token { kind: TokenKind::Text, end }
        }
    }
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
}
