//! Where SQL's comments, quoted runs and words begin and end, in const context. Nothing else of it is understood.

/// Whether `name` (lower case) stands at `at` as a whole word.
pub(crate) const fn word(sql: &[u8], at: usize, name: &[u8]) -> bool {
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

pub(crate) const fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

pub(crate) const fn pair(sql: &[u8], at: usize, a: u8, b: u8) -> bool {
    at + 1 < sql.len() && sql[at] == a && sql[at + 1] == b
}

/// Past white space and comments.
pub(crate) const fn skip_blank(sql: &[u8], mut at: usize) -> usize {
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
pub(crate) const fn skip_token(sql: &[u8], at: usize) -> usize {
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
            while end < sql.len() && (sql[end] != quote || pair(sql, end, quote, quote)) {
                // A doubled quote is one inside: what follows it goes on as what precedes it began.
                let two = sql[end] == quote || (escapes && sql[end] == b'\\');
                end += if two { 2 } else { 1 };
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

/// The statement before its `;`, if it has one.
pub(crate) fn until_semicolon(sql: &str) -> &str {
    let bytes = sql.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b';' {
            return &sql[..at];
        }
        at = skip_token(bytes, at);
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one token at the start of `sql` covers.
    fn token(sql: &str) -> &str {
        &sql[..skip_token(sql.as_bytes(), 0)]
    }

    #[test]
    fn quotes_end_where_postgres_ends_them() {
        assert_eq!(token("'it''s' x"), "'it''s'");
        assert_eq!(token("'' x"), "''");
        assert_eq!(token("'''' x"), "''''");
        assert_eq!(token("\"a\"\"b\" x"), "\"a\"\"b\"");
        assert_eq!(token("$$a $ 'b$$ x"), "$$a $ 'b$$");
        assert_eq!(token("$q$ $$ $q$ x"), "$q$ $$ $q$");
        assert_eq!(token("$1 x"), "$");
        assert_eq!(token("/* a /* b */ c */ x"), "/* a /* b */ c */");
        let escaped = r"E'a''b\'c' x";
        assert_eq!(&escaped[1..skip_token(escaped.as_bytes(), 1)], r"'a''b\'c'");
        // No escape string: the backslash is a character of it.
        let plain = r"be'a\' x";
        assert_eq!(&plain[2..skip_token(plain.as_bytes(), 2)], r"'a\'");
    }

    #[test]
    fn a_statement_ends_at_its_semicolon() {
        assert_eq!(until_semicolon("select ';' ; -- done;"), "select ';' ");
        assert_eq!(until_semicolon("select 1 -- ; no"), "select 1 -- ; no");
    }
}
