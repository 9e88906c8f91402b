//! The application's own source: does it still use what is to be dropped?
//!
//! No database knows of code that has not run yet. So a test of the application, or a step of its build, looks for the
//! names themselves:
//!
//! ```no_run
//! use phasewise::source::Search;
//! use phasewise::{Migration, Migrations, RenameColumn, migrations, rename_column::StopOldWrites};
//!
//! static MIGRATIONS: Migrations = migrations![
//!     Migration::new("20261122_users_full_name", RenameColumn::new("users", "old_name", "full_name"))
//!         .deployed::<StopOldWrites>(),
//! ];
//!
//! # #[allow(clippy::test_attr_in_doctest)]
//! #[test]
//! fn nothing_uses_what_is_to_be_dropped() {
//!     let found = Search::below(env!("CARGO_MANIFEST_DIR"))
//!         .dropped_by(&MIGRATIONS)
//!         .ignoring("src/migrations.rs") // where the names must be
//!         .run()
//!         .unwrap();
//!     assert!(found.is_empty(), "{found:#?}");
//! }
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

use grep::matcher::Matcher as _;
use grep::regex::{RegexMatcher, RegexMatcherBuilder};
use grep::searcher::{BinaryDetection, Searcher, SearcherBuilder, sinks::Lossy};
use ignore::WalkBuilder;
use ignore::overrides::OverrideBuilder;

use crate::error::{Error, Kind, Result};
use crate::migration::Migrations;

/// A search for words in the files below a directory.
///
/// Left out are files that `.gitignore` or `.ignore` name, hidden ones, and binary ones. A name is found as a whole word,
/// in capitals or not: `name` is in `users.name` and in `"NAME"`, and not in `full_name`.
#[derive(Clone, Debug)]
#[must_use = "nothing is searched before `run`"]
pub struct Search {
    root: PathBuf,
    words: Vec<String>,
    ignored: Vec<String>,
}

/// A word that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The file, from the directory of the search on.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: u64,
    /// The byte of the line at which the word begins, from 1.
    pub column: usize,
    /// The word, as it was looked for.
    pub word: String,
    /// The line itself, without the spaces around it.
    pub text: String,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.path.display(), self.line, self.column, self.text)
    }
}

impl Search {
    /// In the files below `root`.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), words: Vec::new(), ignored: Vec::new() }
    }

    /// For this word.
    pub fn word(mut self, word: impl Into<String>) -> Self {
        let word = word.into();
        if !word.is_empty() && !self.words.contains(&word) {
            self.words.push(word);
        }
        self
    }

    /// For every column and table that these migrations drop, as soon as this build says that it needs the old no more:
    /// with [`deployed`](crate::Migration::deployed) at the last deploy phase. A build that says less may use it still.
    pub fn dropped_by(self, migrations: &Migrations) -> Self {
        let over = |entry: &&crate::migration::Entry| {
            let drops = entry.boxed_phases().iter().position(|phase| !phase.drops().is_empty());
            drops.is_some_and(|at| {
                entry.phases().get(at).is_some_and(|info| entry.release() >= info.window.lo)
            })
        };
        let dropped = migrations.iter().filter(over).flat_map(crate::migration::Entry::drops);
        dropped.fold(self, |search, dropped| {
            let name = dropped.column.unwrap_or_else(|| dropped.table.name());
            search.word(name.as_str())
        })
    }

    /// Not in these files: a pattern as in `.gitignore`, from the directory of the search on, such as
    /// `src/migrations.rs` or `*.md`.
    pub fn ignoring(mut self, pattern: impl Into<String>) -> Self {
        self.ignored.push(pattern.into());
        self
    }

    /// Searches. What is found is in the order of files and lines.
    ///
    /// # Errors
    ///
    /// [`Kind::Source`]: a file or directory cannot be read, a pattern is none, or there was no file to search.
    pub fn run(&self) -> Result<Vec<Found>> {
        if self.words.is_empty() {
            return Ok(Vec::new());
        }
        let matchers =
            self.words.iter().map(|word| Ok((word, matcher(word)?))).collect::<Result<Vec<_>>>()?;
        let mut searcher =
            SearcherBuilder::new().line_number(true).binary_detection(BinaryDetection::quit(0)).build();
        let (mut found, mut files) = (Vec::new(), 0_u64);
        for entry in self.walk()?.build() {
            let entry = entry.map_err(|error| failed(&self.root, &error))?;
            if entry.file_type().is_some_and(|kind| kind.is_file()) {
                self.search_file(&mut searcher, &matchers, entry.path(), &mut found)?;
                files += 1;
            }
        }
        if files == 0 {
            return Err(failed(
                &self.root,
                &"no file was searched: is it empty, or is everything in it ignored?",
            ));
        }
        Ok(found)
    }

    fn walk(&self) -> Result<WalkBuilder> {
        let mut overrides = OverrideBuilder::new(&self.root);
        for pattern in &self.ignored {
            overrides.add(&format!("!{pattern}")).map_err(|error| failed(Path::new(pattern), &error))?;
        }
        let overrides = overrides.build().map_err(|error| failed(&self.root, &error))?;
        let mut walk = WalkBuilder::new(&self.root);
        // Where the source lies in a container, its repository often does not.
        walk.overrides(overrides).require_git(false).sort_by_file_path(Path::cmp);
        Ok(walk)
    }

    fn search_file(
        &self,
        searcher: &mut Searcher,
        matchers: &[(&String, RegexMatcher)],
        path: &Path,
        found: &mut Vec<Found>,
    ) -> Result<()> {
        let mut here = Vec::new();
        for (word, matcher) in matchers {
            let sink = Lossy(|line, text| {
                matcher.find_iter(text.as_bytes(), |place| {
                    here.push(Found {
                        path: path.strip_prefix(&self.root).unwrap_or(path).to_owned(),
                        line,
                        column: place.start() + 1,
                        word: (*word).clone(),
                        text: text.trim().to_owned(),
                    });
                    true
                })?;
                Ok(true)
            });
            searcher.search_path(matcher, path, sink).map_err(|error| failed(path, &error))?;
        }
        here.sort_by_key(|found| (found.line, found.column));
        found.append(&mut here);
        Ok(())
    }
}

fn matcher(word: &str) -> Result<RegexMatcher> {
    RegexMatcherBuilder::new()
        .word(true)
        .fixed_strings(true)
        .case_insensitive(true)
        .build(word)
        .map_err(|error| failed(Path::new(word), &error))
}

fn failed(at: &Path, error: &dyn fmt::Display) -> Error {
    Error::new(
        Kind::Source,
        format!(
            "the source cannot be searched at {}: {error}; mend it, or leave it out with `.ignoring(…)`",
            at.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::phases::{drop_column, rename_column};
    use crate::{DropColumn, Migration, RenameColumn, migrations};

    /// A directory of its own that goes with the value.
    struct Tree(PathBuf);

    impl Tree {
        fn with(files: &[(&str, &[u8])]) -> Self {
            let root = std::env::temp_dir().join(format!("phasewise-source-{:016x}", fastrand::u64(..)));
            for (name, content) in files {
                let path = root.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn lines(found: &[Found]) -> Vec<String> {
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn whole_words_are_found_with_file_line_and_column() {
        let tree = Tree::with(&[
            ("src/b.rs", b"let full_name = 1;\n  sqlx::query(\"SELECT u.NAME, name FROM users u\");\n"),
            ("src/a.sql", b"-- names\nUPDATE users SET name='x'"),
            ("target/built.rs", b"name"),
            (".gitignore", b"/target\n"),
            (".hidden/x", b"name"),
            ("logo.png", b"\x89PNG\0name\n"),
            ("docs/old.md", b"the column name"),
        ]);
        let search = Search::below(&tree.0).word("name").ignoring("*.md");
        let found = search.run().unwrap();
        assert_eq!(
            lines(&found),
            [
                "src/a.sql:2:18: UPDATE users SET name='x'",
                "src/b.rs:2:25: sqlx::query(\"SELECT u.NAME, name FROM users u\");",
                "src/b.rs:2:31: sqlx::query(\"SELECT u.NAME, name FROM users u\");",
            ]
        );
        assert!(found.iter().all(|found| found.word == "name"));
        assert_eq!(search.ignoring("src/").run().unwrap(), []);
    }

    #[test]
    fn signs_in_a_name_are_no_pattern() {
        let tree = Tree::with(&[("a.sql", b"SELECT axb, \"a.b\", \"a.bc\" FROM t")]);
        assert_eq!(lines(&Search::below(&tree.0).word("a.b").run().unwrap()).len(), 1);
        assert_eq!(Search::below(&tree.0).run().unwrap(), []);
    }

    #[test]
    fn what_a_build_still_needs_is_not_looked_for() {
        static EARLY: Migrations = migrations![
            Migration::new("a", RenameColumn::new("users", "old_name", "full_name"))
                .deployed::<rename_column::SwitchReads>(),
            Migration::new("b", DropColumn::new("users", "fax")).deployed::<drop_column::StopReads>(),
        ];
        static LATE: Migrations = migrations![
            Migration::new("a", RenameColumn::new("users", "old_name", "full_name"))
                .deployed::<rename_column::StopOldWrites>(),
            Migration::new("b", DropColumn::new("users", "fax")).deployed::<drop_column::StopWrites>(),
        ];
        let tree = Tree::with(&[("a.sql", b"SELECT old_name, fax FROM users")]);
        assert_eq!(Search::below(&tree.0).dropped_by(&EARLY).run().unwrap(), []);
        let found = Search::below(&tree.0).dropped_by(&LATE).run().unwrap();
        assert_eq!(found.iter().map(|found| found.word.as_str()).collect::<Vec<_>>(), ["old_name", "fax"]);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let error = Search::below("/nowhere/at/all").word("x").run().unwrap_err();
        assert_eq!(error.kind(), Kind::Source);
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
        let tree = Tree::with(&[("a", b"x")]);
        let error = Search::below(&tree.0).word("x").ignoring("a{").run().unwrap_err();
        assert_eq!(error.kind(), Kind::Source, "{error}");
    }
}
