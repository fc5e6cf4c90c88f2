//! Laws about Rust files one by one.

use super::purity::is_test_file;
use super::{Breach, breach};
use crate::source::{Word, words};
use crate::tree::Tree;

/// Longest Rust file, without its test modules: past it nobody reads it top to bottom.
const LINES_MAX: usize = 600;

const MEANINGLESS: [&str; 8] = [
    "utils", "util", "common", "manager", "managers", "helper", "helpers", "misc",
];

pub fn unsafety(tree: &Tree) -> Vec<Breach> {
    let elsewhere = tree
        .rust()
        .filter(|(path, _)| !path.starts_with("crates/kernel/"));
    each_word(elsewhere, |path, at, words| {
        let word = &words[at];
        (word.text == "unsafe" || word.text == "unsafe_code").then(|| {
            breach(
                path,
                word.line,
                "unsafe code belongs to crates/kernel, behind a safe function",
            )
        })
    })
}

pub fn module_docs(tree: &Tree) -> Vec<Breach> {
    tree.rust()
        .filter(|(_, text)| !text.trim_start().starts_with("//!"))
        .map(|(path, _)| {
            breach(
                path,
                1,
                "open with //!: what it is, what it is not, where its data comes from and goes",
            )
        })
        .collect()
}

pub fn size(tree: &Tree) -> Vec<Breach> {
    let length = |text: &str| {
        let tests = words(text).map_or(0, |words| test_lines(&words));
        text.lines().count() - tests
    };
    tree.rust()
        .map(|(path, text)| {
            (
                path,
                if is_test_file(path) {
                    text.lines().count()
                } else {
                    length(text)
                },
            )
        })
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| {
            breach(
                path,
                0,
                format!("{lines} lines; split it by meaning (at most {LINES_MAX})"),
            )
        })
        .collect()
}

/// How many lines hold test code.
fn test_lines(words: &[Word]) -> usize {
    let mut lines: Vec<usize> = Vec::new();
    let mut last: Option<usize> = None;
    for word in words {
        if word.test {
            lines.extend(last.unwrap_or(word.line)..=word.line);
        }
        last = word.test.then_some(word.line);
    }
    lines.sort_unstable();
    lines.dedup();
    lines.len()
}

pub fn unwrap(tree: &Tree) -> Vec<Breach> {
    let code = tree.rust().filter(|(path, _)| !is_test_file(path));
    each_word(code, |path, at, words| {
        let called =
            words[at].text == "unwrap" && !words[at].test && at > 0 && words[at - 1].text == ".";
        called.then(|| {
            breach(
                path,
                words[at].line,
                "no unwrap outside tests: expect(\"invariant: …\") or an error",
            )
        })
    })
}

pub fn names(tree: &Tree) -> Vec<Breach> {
    let meaningless = |path: &str| {
        let stem = path.trim_end_matches("/mod.rs").trim_end_matches(".rs");
        MEANINGLESS.contains(&stem.rsplit('/').next().unwrap_or(stem))
    };
    tree.rust()
        .filter(|(path, _)| meaningless(path))
        .map(|(path, _)| breach(path, 0, "name the module after what it holds"))
        .collect()
}

pub fn limits(tree: &Tree) -> Vec<Breach> {
    let ours = tree
        .under("crates/")
        .filter(|(path, _)| path.ends_with(".rs") && !is_test_file(path));
    each_word(ours, |path, at, words| {
        let name = &words[at].text;
        let limit = name.ends_with("_MAX") || name.starts_with("MAX_") || name.ends_with("_LIMIT");
        let defined = at > 0 && words[at - 1].text == "const" && !words[at].test;
        let documented = || documented(words, at - 1);
        (limit && defined && !documented())
            .then(|| breach(path, words[at].line, format!("{name} is a limit: say in a doc comment why this number, and what happens at it")))
    })
}

/// Whether the item whose keyword is at `at` has a doc comment, which is `# [ doc = … ]` to the lexer.
fn documented(words: &[Word], at: usize) -> bool {
    // Visibility and other attributes may stand between; the end of another item ends the search.
    let start = words[..at]
        .iter()
        .rposition(|word| matches!(word.text.as_str(), ";" | "{" | "}"))
        .map_or(0, |end| end + 1);
    words[start..at]
        .windows(3)
        .any(|three| three[0].text == "#" && three[1].text == "[" && three[2].text == "doc")
}

pub fn open_ends(tree: &Tree) -> Vec<Breach> {
    // In two pieces, so that this file does not break its own law.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
    ];
    let mut found: Vec<Breach> = Vec::new();
    for (path, text) in tree.rust() {
        for (index, line) in text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| line.contains(**mark)) {
                found.push(breach(
                    path,
                    index + 1,
                    format!("{mark}: do it, or file an issue and say nothing here"),
                ));
            }
        }
    }
    found.extend(each_word(tree.rust(), |path, at, words| {
        let word = &words[at];
        let attribute = at > 1 && words[at - 1].text == "[" && words[at - 2].text == "#";
        let open = matches!(word.text.as_str(), "todo" | "unimplemented")
            && words.get(at + 1).is_some_and(|w| w.text == "!");
        let ignored = word.text == "ignore" && attribute;
        (open || ignored).then(|| {
            breach(
                path,
                word.line,
                format!(
                    "{}: a test runs or does not exist, code works or does not exist",
                    word.text
                ),
            )
        })
    }));
    found
}

fn each_word<'a>(
    files: impl Iterator<Item = (&'a str, &'a str)>,
    judge: impl Fn(&str, usize, &[Word]) -> Option<Breach>,
) -> Vec<Breach> {
    let mut found = Vec::new();
    for (path, text) in files {
        let words = words(text).unwrap_or_default();
        found.extend((0..words.len()).filter_map(|at| judge(path, at, &words)));
    }
    found
}
