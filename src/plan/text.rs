//! Widths and line breaks of text in a terminal.

/// How many columns a terminal takes for `text`.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// The East Asian wide blocks take two columns, marks that combine with the letter before them none.
fn char_width(c: char) -> usize {
    match u32::from(c) {
        0..0x20 | 0x7f..0xa0 | 0x0300..0x0370 | 0x200b..0x2010 | 0xfe00..0xfe10 => 0,
        0x1100..0x1160
        | 0x2e80..0xa4d0
        | 0xac00..0xd7a4
        | 0xf900..0xfb00
        | 0xfe30..0xfe70
        | 0xff00..0xff61
        | 0xffe0..0xffe7
        | 0x1f300..0x1f650
        | 0x1f900..0x1fa00
        | 0x20000..0x3fffe => 2,
        _ => 1,
    }
}

/// `text` followed by spaces up to `to` columns.
pub(super) fn pad(text: &str, to: usize) -> String {
    format!("{text}{}", " ".repeat(to.saturating_sub(width(text))))
}

/// `text` in lines of at most `max` columns, broken at spaces outside quotes, so that it stays the same SQL; what
/// has none is left long. Line breaks of its own are kept, with the indentation that follows them.
pub(super) fn wrap(text: &str, max: usize) -> Vec<String> {
    let mut lines = Vec::new();
    // The body of a block or a function is one long literal, and yet code.
    let code =
        ["DO ", "CREATE FUNCTION ", "CREATE OR REPLACE FUNCTION "].iter().any(|head| text.starts_with(head));
    let mut quoted = None;
    for line in text.trim_end().split('\n') {
        // A break in a comment would end it.
        let max = if line.contains("--") { usize::MAX } else { max };
        let indent = if quoted.is_none() { line.len() - line.trim_start_matches(' ').len() } else { 0 };
        let words = words(line, &mut quoted, code);
        if width(line) <= max {
            lines.push(line.to_owned());
            continue;
        }
        let mut current = " ".repeat(indent);
        let mut begun = false;
        for word in words {
            if begun && width(&current) + 1 + width(word) > max {
                lines.push(std::mem::replace(&mut current, " ".repeat(indent)));
                begun = false;
            }
            if begun {
                current.push(' ');
            }
            current.push_str(word);
            begun = true;
        }
        lines.push(current);
    }
    lines
}

/// The parts of a line between spaces outside quotes. `quoted` is the quote that a line before it left open. In
/// `code`, a literal stands in doubled quotes, and single ones enclose the whole.
fn words<'a>(line: &'a str, quoted: &mut Option<char>, code: bool) -> Vec<&'a str> {
    let mut words = Vec::new();
    let mut start = if quoted.is_some() { Some(0) } else { None };
    for (at, c) in line.char_indices() {
        let alone = c == '\'' && !line[..at].ends_with('\'') && !line[at + 1..].starts_with('\'');
        // Of a doubled quote, the first half counts.
        let second =
            c == '\'' && line[..at].chars().rev().take_while(|&before| before == '\'').count() % 2 == 1;
        match *quoted {
            _ if code && (alone || second) => {}
            Some(open) if c == open => *quoted = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => *quoted = Some(c),
            None => {}
        }
        if c == ' ' && quoted.is_none() {
            if let Some(from) = start.take() {
                words.push(&line[from..at]);
            }
        } else {
            start = start.or(Some(at));
        }
    }
    if let Some(from) = start {
        words.push(&line[from..]);
    }
    words
}

/// `text` in pieces of at most `max` columns, broken anywhere: for a name that is longer than its column.
pub(super) fn chop(text: &str, max: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut taken = 0;
    for c in text.chars() {
        if taken + char_width(c) > max {
            pieces.push(String::new());
            taken = 0;
        }
        taken += char_width(c);
        if let Some(last) = pieces.last_mut() {
            last.push(c);
        }
    }
    pieces
}
