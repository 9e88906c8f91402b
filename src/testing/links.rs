//! Links that npm packages cannot hold.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

/// A line of `native/pg-symlinks.json`; both paths are relative to the package.
#[derive(serde::Deserialize)]
struct Link {
    /// The file that is there.
    source: PathBuf,
    /// The link that is missing.
    target: PathBuf,
}

/// Makes the links that the package lists and lacks: its libraries are looked up under those names.
pub(super) fn create(package: &Path) -> io::Result<()> {
    let list = match fs::read(package.join("native").join("pg-symlinks.json")) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for Link { source, target } in serde_json::from_slice::<Vec<Link>>(&list)? {
        if !is_inside(&source) || !is_inside(&target) {
            return Err(io::Error::other(format!("{} leads out of the package", target.display())));
        }
        // Relative, as the package is moved afterwards.
        let up = target.components().skip(1).map(|_| "..");
        match symlink(up.collect::<PathBuf>().join(&source), package.join(&target)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn is_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}
