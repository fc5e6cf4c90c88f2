//! `cargo xtask mutants`: breaks the oracle and nftables mode in every small way, and says which break no test notices.
//!
//! All mutants are compiled into one build ([`functions`]), and each is one run of the test programs with its number in
//! `MUTANT`. So a mutant costs the time of the tests and not of a build: some hundred take minutes.
//! Mutants that change nothing that can be seen stand in `xtask/mutants.txt`, each with the reason.

mod breaks;
mod build;
mod functions;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::ensure;
use functions::Mutant;

use crate::tree::Tree;

/// What is broken: everything that decides what becomes of a packet.
const PLACES: [&str; 2] = ["crates/model/src/", "crates/dataplane/src/nftables/"];

/// What is not: paths begin so. What is new is broken until it stands here.
const LEFT_OUT: [&str; 10] = [
    // Words for people.
    "crates/dataplane/src/nftables/show.rs",
    "crates/model/src/problem.rs",
    // Names, facts and traits: nothing is decided there.
    "crates/dataplane/src/nftables/mod.rs",
    "crates/model/src/backend.rs",
    "crates/model/src/lib.rs",
    "crates/model/src/name.rs",
    "crates/model/src/node.rs",
    // Measures, not rules: who does not answer, how many flows there were, how much memory a map takes.
    "crates/model/src/counts.rs",
    "crates/model/src/health/",
    "crates/model/src/packing.rs",
];

fn is_broken(path: &str) -> bool {
    PLACES.iter().any(|place| path.starts_with(place))
        && path.ends_with(".rs")
        && !path.ends_with("/tests.rs")
        && !LEFT_OUT.iter().any(|out| path.starts_with(out))
}

/// What became of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// A test failed, or did not end.
    Noticed,
    /// All tests passed.
    Unnoticed,
}

/// After so many mutants it is said how far the run is.
const PROGRESS: usize = 50;

/// Runs all mutants whose file or name contains one of `parts` (all, if there are none).
/// True if every one was noticed, or is known to change nothing.
#[expect(clippy::print_stdout, reason = "a command line tool")]
pub fn run(root: &Path, parts: &[String]) -> anyhow::Result<bool> {
    let tree = Tree::read(root)?;
    let all = tree.files().map(|(path, _)| path).filter(|f| is_broken(f));
    let files: Vec<&str> = all.filter(|f| may_be(f, parts)).collect();
    ensure!(!files.is_empty(), "no file below {PLACES:?} is {parts:?}");
    println!(
        "building the tests with every way to break {} files",
        files.len()
    );
    let built = build::build(root, &tree, &files)?;
    println!("running the tests without a break");
    let runner = run::Runner::new(&built)?;
    let text = std::fs::read_to_string(root.join("xtask/mutants.txt"))?;
    let excused = excused(&text);
    let numbered = built.mutants.iter().zip(1..);
    let chosen: Vec<_> = numbered
        .filter(|(m, _)| is_one(&m.full_name(), parts))
        .collect();
    let (mut mutants, mut fates) = (Vec::new(), Vec::new());
    for (mutant, number) in &chosen {
        if mutants.len() % PROGRESS == 0 {
            println!("{} of {} run", mutants.len(), chosen.len());
        }
        let fate = runner.fate(*number)?;
        if fate == Fate::Unnoticed && !excused.contains_key(mutant.full_name().as_str()) {
            println!("unnoticed: {}  (line {})", mutant.full_name(), mutant.line);
        }
        mutants.push((*mutant).clone());
        fates.push(fate);
    }
    let (words, good) = judge(&mutants, &fates, &excused, parts);
    println!("{words}");
    Ok(good)
}

/// Whether mutants of this file are wanted: a part is a piece of its path, or a whole name that begins with it.
fn may_be(file: &str, parts: &[String]) -> bool {
    let named = |part: &String| file.contains(part.as_str()) || part.starts_with(file);
    parts.is_empty() || parts.iter().any(named)
}

fn is_one(name: &str, parts: &[String]) -> bool {
    parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str()))
}

/// The mutants of `xtask/mutants.txt`: after a line `# reason`, one line `file function: break` each.
fn excused(text: &str) -> BTreeMap<&str, &str> {
    let mut reason = "";
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("# ") {
            Some(words) => reason = words,
            None => drop(all.insert(line, reason)),
        }
    }
    all
}

/// The figures and everything that is wrong, and whether nothing is.
fn judge(
    mutants: &[Mutant],
    fates: &[Fate],
    excused: &BTreeMap<&str, &str>,
    parts: &[String],
) -> (String, bool) {
    let mut met = BTreeSet::new();
    let mut by_reason: BTreeMap<&str, usize> = BTreeMap::new();
    let mut by_file: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut all = Counts::default();
    for (mutant, fate) in mutants.iter().zip(fates) {
        let known = excused.get_key_value(mutant.full_name().as_str());
        let place = match (fate, known) {
            (Fate::Noticed, _) => 0,
            (Fate::Unnoticed, Some((line, reason))) => {
                met.insert(*line);
                *by_reason.entry(*reason).or_default() += 1;
                1
            }
            (Fate::Unnoticed, None) => 2,
        };
        by_file.entry(&mutant.file).or_default().0[place] += 1;
        all.0[place] += 1;
    }
    let mut words: Vec<String> = by_file
        .iter()
        .map(|(f, counts)| format!("{f}: {counts}"))
        .collect();
    words.extend(
        by_reason
            .iter()
            .map(|(reason, count)| format!("{count} change nothing: {reason}")),
    );
    let needless = excused
        .keys()
        .filter(|line| is_one(line, parts) && !met.contains(**line));
    let needless: Vec<String> = needless
        .map(|line| format!("not needed in xtask/mutants.txt: {line}"))
        .collect();
    let good = all.0[2] == 0 && needless.is_empty();
    words.extend(needless);
    words.push(format!("mutants: {all}"));
    (words.join("\n"), good)
}

/// How many were noticed, change nothing that can be seen, and went unnoticed.
#[derive(Clone, Copy, Default)]
struct Counts([usize; 3]);

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [noticed, same, unnoticed] = self.0;
        let broken = noticed + same + unnoticed;
        write!(
            f,
            "{broken} broken, {noticed} noticed, {same} change nothing that can be seen (listed), {unnoticed} unnoticed"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutant_that_no_test_notices_needs_a_reason() {
        let mutant = |name: &str| Mutant {
            file: "a.rs".to_owned(),
            line: 1,
            name: name.to_owned(),
            lines: (0, 0),
        };
        let mutants = [mutant("f: x"), mutant("g: y")];
        let fates = [Fate::Noticed, Fate::Unnoticed];
        let parts = ["a.rs".to_owned()];
        let judged = |text: &str| judge(&mutants, &fates, &excused(text), &parts);
        let (words, good) = judged("");
        let last =
            "mutants: 2 broken, 1 noticed, 0 change nothing that can be seen (listed), 1 unnoticed";
        assert!(!good && words.ends_with(last), "{words}");
        let (words, good) = judged("# the order is nobody's\na.rs g: y\n");
        assert!(
            good && words.contains("1 change nothing: the order is nobody's"),
            "{words}"
        );
        let (words, good) = judged("# why\na.rs g: y\na.rs f: x\nb.rs f: z\n");
        assert!(
            !good && words.contains("not needed in xtask/mutants.txt: a.rs f: x"),
            "{words}"
        );
        assert!(!words.contains("b.rs"), "it was not run: {words}");
    }

    #[test]
    fn what_is_new_is_broken() {
        assert!(is_broken("crates/dataplane/src/nftables/a_new_one.rs"));
        assert!(!is_broken("crates/dataplane/src/nftables/show.rs"));
        assert!(!is_broken("crates/model/src/decide/tests.rs"));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for out in LEFT_OUT {
            assert!(root.join(out).exists(), "{out} is gone");
        }
    }

    #[test]
    fn parts_choose() {
        let parts = ["route.rs".to_owned(), "a/b.rs f: x".to_owned()];
        assert!(may_be("model/route.rs", &parts) && may_be("a/b.rs", &parts));
        assert!(!may_be("a/c.rs", &parts) && may_be("a/c.rs", &[]));
        assert!(is_one("a/b.rs f: x -> y", &parts) && !is_one("a/b.rs g: x", &parts));
    }
}
