//! Identifiers and table names, checked where they are written.

use std::fmt;

/// Postgres cuts longer identifiers silently (`NAMEDATALEN - 1`).
pub(crate) const MAX_BYTES: usize = 63;

/// The name of one object, exactly as Postgres stores it.
///
/// Case, spaces, quotes and reserved words are kept: `Ident::new("Order")` is the table that SQL writes as
/// `"Order"`. In a `const` or `static` a bad name is a compile error.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ident(&'static str);

impl Ident {
    /// Takes a name of 1 to 63 bytes without a NUL.
    ///
    /// # Panics
    ///
    /// On a name that Postgres could not store. Definitions are consts, where the panic is a compile error.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        assert!(
            !name.is_empty(),
            "an identifier is empty: write the name of the table, column or index here"
        );
        assert!(
            name.len() <= MAX_BYTES,
            "an identifier is longer than 63 bytes, which Postgres would cut: choose a shorter name"
        );
        let bytes = name.as_bytes();
        let mut i = 0;
        while i < bytes.len() {
            assert!(bytes[i] != 0, "an identifier contains a NUL byte: remove it");
            i += 1;
        }
        Self(name)
    }

    /// The name as it was written, unquoted.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        self.0
    }

    /// The name as SQL, always in double quotes.
    #[must_use]
    pub fn quoted(&self) -> String {
        quote(self.0)
    }
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.quoted())
    }
}

/// A table's name, with its schema where one was written.
///
/// `users` is looked up in the migrator's schema, `billing.invoices` in `billing`. A part that contains a dot
/// itself is put in double quotes: `"2026.archive".events`. Quotes inside a name are written once, not doubled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    schema: Option<Ident>,
    name: Ident,
}

impl TableName {
    /// Reads `table` or `schema.table`.
    ///
    /// # Panics
    ///
    /// On a part that is no identifier, or on more than two parts: a compile error in a definition.
    #[must_use]
    pub const fn new(text: &'static str) -> Self {
        let (first, rest) = part(text);
        match rest {
            None => Self { schema: None, name: Ident::new(first) },
            Some(rest) => {
                let (second, more) = part(rest);
                assert!(
                    more.is_none(),
                    "a table name has more than one dot: write \"schema.table\", and a part that contains a dot in double quotes"
                );
                Self { schema: Some(Ident::new(first)), name: Ident::new(second) }
            }
        }
    }

    /// The schema, if one was written.
    #[must_use]
    pub const fn schema(&self) -> Option<Ident> {
        self.schema
    }

    /// The table's own name.
    #[must_use]
    pub const fn name(&self) -> Ident {
        self.name
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

impl fmt::Debug for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A collation's name. A dot in it is a part of the name (`en_US.utf8`), unless a schema stands before it in double
/// quotes: `"audit".german`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Collation(TableName);

impl Collation {
    pub(crate) const fn new(text: &'static str) -> Self {
        let bytes = text.as_bytes();
        if !bytes.is_empty() && bytes[0] == b'"' {
            return Self(TableName::new(text));
        }
        Self(TableName { schema: None, name: Ident::new(text) })
    }

    /// As SQL.
    pub(crate) fn quoted(&self) -> String {
        match self.0.schema {
            Some(schema) => format!("{}.{}", schema.quoted(), self.0.name.quoted()),
            None => self.0.name.quoted(),
        }
    }
}

impl fmt::Display for Collation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Splits off the first part of a dotted name, without its quotes.
const fn part(text: &'static str) -> (&'static str, Option<&'static str>) {
    let bytes = text.as_bytes();
    if !bytes.is_empty() && bytes[0] == b'"' {
        let mut end = 1;
        while end < bytes.len() {
            assert!(
                !(bytes[end] == b'"' && end + 1 < bytes.len() && bytes[end + 1] == b'"'),
                "a quoted part of a name contains a doubled quote, which would be taken as two: write the name as Postgres stores it, with one quote"
            );
            if bytes[end] == b'"' && (end + 1 == bytes.len() || bytes[end + 1] == b'.') {
                let inner = slice(bytes, 1, end);
                if end + 1 == bytes.len() {
                    return (inner, None);
                }
                return (inner, Some(slice(bytes, end + 2, bytes.len())));
            }
            end += 1;
        }
    }
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i] == b'.' {
            return (slice(bytes, 0, i), Some(slice(bytes, i + 1, bytes.len())));
        }
        i += 1;
    }
    (text, None)
}

/// Each of `names` is an identifier, and there is one.
pub(crate) const fn check_names(names: &[&'static str]) {
    assert!(!names.is_empty(), "a list of columns is empty: name at least one column");
    let mut i = 0;
    while i < names.len() {
        let _ = Ident::new(names[i]);
        i += 1;
    }
}

/// `text[from..to]`, in const context. Only called on ASCII boundaries.
pub(crate) const fn slice(bytes: &'static [u8], from: usize, to: usize) -> &'static str {
    let (head, _) = bytes.split_at(to);
    let (_, middle) = head.split_at(from);
    match std::str::from_utf8(middle) {
        Ok(text) => text,
        Err(_) => panic!("a name was cut inside a character: this is a bug in phasewise"),
    }
}

/// `name` in double quotes, for SQL.
#[must_use]
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as an SQL string literal that needs no particular `standard_conforming_strings`.
#[must_use]
pub fn literal(text: &str) -> String {
    let escaped = text.replace('\'', "''");
    if escaped.contains('\\') {
        format!("E'{}'", escaped.replace('\\', "\\\\"))
    } else {
        format!("'{escaped}'")
    }
}

/// A name made from `parts`, joined with underscores and cut to 63 bytes; what was cut is kept as a hash, so
/// that two long names never become one.
#[must_use]
pub fn derived(parts: &[&str]) -> String {
    let full = parts.join("_");
    if full.len() <= MAX_BYTES { full } else { hashed(&full) }
}

/// `name` with a hash of itself as the last part, at most 63 bytes long.
#[must_use]
pub fn hashed(name: &str) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(name.as_bytes());
    let hash: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut cut = name.len().min(MAX_BYTES - hash.len() - 1);
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}_{hash}", &name[..cut])
}

/// What a column is called in quarantine: the hash covers the whole, so that it meets nobody's name.
pub(crate) fn quarantined(name: &str, migration: &str) -> String {
    hashed(&format!("quarantine_{name}_{migration}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_split_at_the_dot_outside_quotes() {
        let plain = TableName::new("users");
        assert_eq!((plain.schema(), plain.name().as_str()), (None, "users"));
        let qualified = TableName::new("billing.Order");
        assert_eq!(qualified.schema().map(|s| s.as_str()), Some("billing"));
        assert_eq!(qualified.name().quoted(), "\"Order\"");
        let dotted = TableName::new("\"2026.archive\".events");
        assert_eq!(dotted.schema().map(|s| s.as_str()), Some("2026.archive"));
        assert_eq!(TableName::new("we\"ird").name().quoted(), "\"we\"\"ird\"");
    }

    #[test]
    fn derived_names_fit_and_stay_apart() {
        let long = "x".repeat(70);
        let (a, b) = (derived(&[&long, "a"]), derived(&[&long, "b"]));
        assert!(a.len() <= MAX_BYTES && b.len() <= MAX_BYTES);
        assert_ne!(a, b);
        assert_eq!(derived(&["users", "name"]), "users_name");
        let wide = hashed(&"ü".repeat(60));
        assert!(wide.len() <= MAX_BYTES);
    }

    #[test]
    fn literals_survive_quotes_and_backslashes() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\b"), r"E'a\\b'");
    }

    #[test]
    fn a_collation_is_one_name_unless_its_schema_is_quoted() {
        assert_eq!(Collation::new("en_US.utf8").quoted(), "\"en_US.utf8\"");
        assert_eq!(Collation::new("\"en_US.utf8\"").quoted(), "\"en_US.utf8\"");
        assert_eq!(Collation::new("\"audit\".german").quoted(), "\"audit\".\"german\"");
    }

    #[test]
    #[should_panic(expected = "doubled quote")]
    fn a_doubled_quote_is_refused() {
        let _ = TableName::new("\"we\"\"ird\".q");
    }
}
