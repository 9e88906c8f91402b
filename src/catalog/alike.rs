//! Comparing definitions that Postgres wrote.
//!
//! Read back and written again, a definition can change: `a IN ('x', 'y')` on a varchar moves its casts from the array
//! to the elements (ran). So casts, parentheses and spaces do not count.

/// The same as a regular expression of what does not count, for `regexp_replace(…, '', 'g')`.
pub(crate) const ALIKE: &str = r#"::("[^"]+"|[a-z_0-9]+)([.]("[^"]+"|[a-z_0-9]+))?( [a-z]+)*(\[\])*|[() ]"#;

/// Whether two definitions are the same, but for casts, parentheses and spaces.
pub(crate) fn alike(a: &str, b: &str) -> bool {
    a == b || bare(a) == bare(b)
}

fn bare(definition: &str) -> String {
    let mut rest = definition;
    let mut kept = String::with_capacity(rest.len());
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("::").and_then(type_name) {
            rest = after;
            continue;
        }
        if !matches!(c, '(' | ')' | ' ') {
            kept.push(c);
        }
        rest = &rest[c.len_utf8()..];
    }
    kept
}

/// What follows a type's name; `None` where there is none.
fn type_name(text: &str) -> Option<&str> {
    let mut rest = word(text)?;
    if let Some(after) = rest.strip_prefix('.').and_then(word) {
        rest = after;
    }
    while let Some(after) = rest.strip_prefix(' ').and_then(lower) {
        rest = after;
    }
    while let Some(after) = rest.strip_prefix("[]") {
        rest = after;
    }
    Some(rest)
}

fn word(text: &str) -> Option<&str> {
    if let Some(quoted) = text.strip_prefix('"') {
        return quoted.split_once('"').filter(|(name, _)| !name.is_empty()).map(|(_, rest)| rest);
    }
    run(text, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn lower(text: &str) -> Option<&str> {
    run(text, |c| c.is_ascii_lowercase())
}

fn run(text: &str, is_part: impl Fn(char) -> bool) -> Option<&str> {
    let rest = text.trim_start_matches(is_part);
    (rest.len() < text.len()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_move_and_nothing_else() {
        let written =
            "CHECK (((a)::text = ANY ((ARRAY['x'::character varying, 'y'::character varying])::text[])))";
        let again = "CHECK (((a)::text = ANY (ARRAY[('x'::character varying)::text, ('y'::character varying)::text])))";
        assert!(alike(written, again));
        assert!(!alike(written, &again.replace("'y'", "'z'")));
        assert!(!alike("CHECK ((a > 1))", "CHECK ((a >= 1))"));
        assert_eq!(bare("((b)::\"My Type\"[] AND c::pg_catalog.int4)"), "bANDc");
    }
}
