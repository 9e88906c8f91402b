//! A server installed on this machine.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::settings::Settings;
use super::{Server, StartError, local};

/// Where packages put servers beside the `PATH`; a star stands for one part of a name, as versions differ.
const PLACES: [&str; 10] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/lib64/pgsql/bin",
    "/usr/lib/postgresql*/bin",
    "/usr/libexec/postgresql*",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/usr/local/pgsql/bin",
    "/opt/local/lib/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];

pub(super) async fn start(settings: &Settings) -> Result<Server, StartError> {
    let candidates = candidates();
    if candidates.is_empty() {
        return Err(StartError::new(format!(
            "no directory has both initdb and postgres, among the PATH and {}",
            PLACES.join(", ")
        )));
    }
    let mut failures = Vec::new();
    for directory in candidates {
        let label = format!("installed server {}", directory.display());
        match local::start(&directory, &label, settings).await {
            Ok(server) => return Ok(server),
            Err(error) => failures.push(format!("{}: {error}", directory.display())),
        }
    }
    Err(StartError::new(failures.join("\n")))
}

/// Directories with a server, best first, each once.
fn candidates() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = PLACES.into_iter().flat_map(|place| {
        let mut found = expand(place);
        found.sort_by_key(|directory| Reverse(numbers(directory)));
        found
    });
    let mut seen = HashSet::new();
    std::env::split_paths(&path)
        .chain(usual)
        .filter(|directory| directory.join("postgres").is_file())
        // Where the links on the PATH lead to: that is where the server looks for its other files.
        .filter_map(|directory| directory.join("initdb").canonicalize().ok())
        .filter_map(|initdb| initdb.parent().map(Path::to_owned))
        .filter(|directory| directory.join("postgres").is_file() && seen.insert(directory.clone()))
        .collect()
}

/// The directories that a place with at most one star stands for.
fn expand(place: &str) -> Vec<PathBuf> {
    let Some((before, after)) = place.split_once('*') else {
        return vec![PathBuf::from(place)];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = fs::read_dir(if parent.is_empty() { "/" } else { parent }) else {
        return Vec::new();
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    names
        .filter(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
        .map(|name| Path::new(parent).join(name).join(after.trim_start_matches('/')))
        .collect()
}

/// The numbers in a path, which order versions as people do: 9 before 18.
fn numbers(path: &Path) -> Vec<u32> {
    let text = path.as_os_str().to_string_lossy();
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}
