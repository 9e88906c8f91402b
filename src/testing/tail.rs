//! The end of a server's log.

/// The last lines are the ones that tell why it ended.
const LINES: usize = 12;

pub(super) fn tail(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let lines: Vec<_> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
