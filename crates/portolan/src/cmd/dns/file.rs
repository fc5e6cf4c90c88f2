//! The Corefile on the disk: read with what it imports, and looked at again.

use std::path::{Path, PathBuf};

use anyhow::Context;
use portolan_dns::corefile::{self, Config, Sources};

/// Files that one pattern may match: a folder of zones has some hundreds.
const MATCHES_MAX: usize = 1_000;

/// A configuration, and the texts that it was made of.
pub(super) struct Found {
    /// What the files say.
    pub config: Config,
    /// All files, one after the other: when this is the same, so is the configuration.
    pub text: String,
}

/// Reads the file.
pub(super) fn read(path: &Path, port: u16) -> anyhow::Result<Found> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the Corefile {} (--conf)", path.display()))?;
    let files = Files {
        seen: std::cell::RefCell::new(text.clone()),
    };
    let config = corefile::parse(&path.display().to_string(), &text, port, &files)?;
    Ok(Found {
        config,
        text: files.seen.into_inner(),
    })
}

struct Files {
    seen: std::cell::RefCell<String>,
}

impl Sources for Files {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn import(&self, pattern: &str, from: &str) -> Result<Vec<(String, String)>, String> {
        let beside = Path::new(from).parent().unwrap_or(Path::new(""));
        let mut found = Vec::new();
        for path in matching(&beside.join(pattern))? {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            self.seen.borrow_mut().push_str(&text);
            found.push((path.display().to_string(), text));
        }
        Ok(found)
    }
}

/// Files that a pattern names: `*` stands for any text in the last part of the path. A pattern may match nothing, a plain
/// name must be there.
fn matching(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let name = pattern
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if !name.contains('*') {
        return Ok(vec![pattern.to_path_buf()]);
    }
    let folder = pattern
        .parent()
        .filter(|path| !path.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let entries =
        std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let fits = |path: &PathBuf| {
        let file = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        // As in shells: hidden files are named in full.
        fits(name, file) && (name.starts_with('.') || !file.starts_with('.')) && path.is_file()
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(fits)
        .collect();
    found.sort();
    match found.len() {
        0..=MATCHES_MAX => Ok(found),
        count => Err(format!("{count} files match, at most {MATCHES_MAX}")),
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(rest) = name.strip_prefix(head) else {
        return false;
    };
    let starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    starts.into_iter().any(|at| fits(tail, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_imported_by_pattern_beside_the_corefile() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("Corefile", "import *.zone\n. {\n import common\n}\n");
        write("b.zone", "b.example.org {\n}\n");
        write("a.zone", "a.example.org {\n}\n");
        write(".c.zone", "c.example.org {\n}\n");
        write("common", "errors\n");
        let found = read(&folder.path().join("Corefile"), 53).unwrap();
        let zones: Vec<&str> = found
            .config
            .blocks
            .iter()
            .map(|block| block.keys[0].zone.as_str())
            .collect();
        assert_eq!(zones, ["a.example.org.", "b.example.org.", "."]);
        assert!(found.text.contains("a.example.org") && found.text.contains("errors"));
        write("Corefile", ". {\n import missing\n}\n");
        let error = read(&folder.path().join("Corefile"), 53).err().unwrap();
        assert!(
            error.to_string().contains("cannot import \"missing\""),
            "{error}"
        );
        let many: Vec<String> = (0..=MATCHES_MAX).map(|i| format!("x{i}.many")).collect();
        many.iter().for_each(|name| write(name, ""));
        let error = matching(&folder.path().join("*.many")).unwrap_err();
        assert!(error.contains("1001 files match, at most 1000"), "{error}");
    }

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, name, expected) in [
            ("*", "a", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c*", "abcd", true),
            ("a*c", "abd", false),
            ("*.conf", "x.config", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
