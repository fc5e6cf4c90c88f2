//! The work tree as a value: paths and texts, so that every law is a function that tests can call.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

/// Every text file of the repository by its path, relative to the root.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// What git knows or would add, below `root`. Files that are not UTF-8 text are left out.
    pub fn read(root: &Path) -> anyhow::Result<Self> {
        let arguments = [
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ];
        let listed = Command::new("git")
            .args(arguments)
            .current_dir(root)
            .output()
            .context("git ls-files")?;
        ensure!(
            listed.status.success(),
            "git ls-files: {}",
            String::from_utf8_lossy(&listed.stderr)
        );
        let mut tree = Tree::default();
        for path in String::from_utf8(listed.stdout)?.split_terminator('\0') {
            // A file that is deleted but not yet staged is listed all the same.
            if let Ok(text) = std::fs::read_to_string(root.join(path)) {
                tree.put(path, &text);
            }
        }
        Ok(tree)
    }

    /// Adds or replaces a file.
    pub fn put(&mut self, path: &str, text: &str) {
        self.files.insert(path.to_owned(), text.to_owned());
    }

    /// The text of one file.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// All files in the order of their paths.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(p, t)| (p.as_str(), t.as_str()))
    }

    /// The files whose path starts with `prefix`.
    pub fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files()
            .filter(move |(path, _)| path.starts_with(prefix))
    }

    /// The Rust files.
    pub fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter(|(path, _)| path.ends_with(".rs"))
    }

    /// Whether there is a file or a folder at `path` (a trailing slash does not matter).
    pub fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let inside = format!("{path}/");
        self.files.contains_key(path) || self.under(&inside).next().is_some()
    }

    /// Names of the crates under `crates/`.
    pub fn crates(&self) -> Vec<&str> {
        self.under("crates/")
            .filter_map(|(path, _)| path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml"))
            .filter(|name| !name.contains('/'))
            .collect()
    }
}
