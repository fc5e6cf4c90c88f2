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
use std::path::Path;

use functions::Mutant;

/// What is broken: everything that decides what becomes of a packet, apart from the codec of the kernel.
pub const FILES: [&str; 21] = [
    "crates/model/src/balance.rs",
    "crates/model/src/decide.rs",
    "crates/model/src/route.rs",
    "crates/model/src/packet.rs",
    "crates/model/src/service.rs",
    "crates/model/src/snapshot.rs",
    "crates/model/src/stale.rs",
    "crates/model/src/sweep.rs",
    "crates/model/src/overlay.rs",
    "crates/model/src/sync.rs",
    "crates/dataplane/src/nftables/adopt.rs",
    "crates/dataplane/src/nftables/bytes.rs",
    "crates/dataplane/src/nftables/class.rs",
    "crates/dataplane/src/nftables/compile.rs",
    "crates/dataplane/src/nftables/diff.rs",
    "crates/dataplane/src/nftables/layout.rs",
    "crates/dataplane/src/nftables/render.rs",
    "crates/dataplane/src/nftables/render/chain.rs",
    "crates/dataplane/src/nftables/state.rs",
    "crates/dataplane/src/nftables/trace.rs",
    "crates/dataplane/src/nftables/trace/lookup.rs",
];

/// What became of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// A test failed, or did not end.
    Caught,
    /// All tests passed.
    Survived,
}

/// Runs all mutants of the files whose path contains one of `parts` (all, if there are none).
/// True if every one was caught, or is known to change nothing.
#[expect(clippy::print_stdout, reason = "a command line tool")]
pub fn run(root: &Path, parts: &[String]) -> anyhow::Result<bool> {
    let chosen =
        |file: &&str| parts.is_empty() || parts.iter().any(|part| file.contains(part.as_str()));
    let files: Vec<&str> = FILES.into_iter().filter(chosen).collect();
    let built = build::build(root, &files)?;
    println!("{} mutants", built.mutants.len());
    let mut fates = Vec::new();
    for (index, mutant) in built.mutants.iter().enumerate() {
        let fate = run::fate(&built, index + 1)?;
        if fate == Fate::Survived {
            println!("survived: {}:{} {}", mutant.file, mutant.line, mutant.name);
        }
        fates.push(fate);
    }
    let text = std::fs::read_to_string(root.join("xtask/mutants.txt"))?;
    let (words, good) = judge(&built.mutants, &fates, &excused(&text), &files);
    println!("{words}");
    Ok(good)
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
    files: &[&str],
) -> (String, bool) {
    let mut words = Vec::new();
    let mut met = BTreeSet::new();
    let mut by_reason: BTreeMap<&str, usize> = BTreeMap::new();
    let mut totals = [0; 3];
    for file in files {
        let mut counts = [0; 3];
        for (mutant, fate) in mutants.iter().zip(fates).filter(|(m, _)| m.file == *file) {
            let name = format!("{} {}", mutant.file, mutant.name);
            let known = excused.get_key_value(name.as_str());
            let place = match (fate, known) {
                (Fate::Caught, _) => 0,
                (Fate::Survived, Some((line, reason))) => {
                    met.insert(*line);
                    *by_reason.entry(*reason).or_default() += 1;
                    1
                }
                (Fate::Survived, None) => 2,
            };
            counts[place] += 1;
            totals[place] += 1;
        }
        words.push(told(file, counts));
    }
    words.push(told("all", totals));
    words.extend(
        by_reason
            .iter()
            .map(|(reason, count)| format!("{count} equal: {reason}")),
    );
    let of_these = |line: &&&str| {
        files
            .iter()
            .any(|file| line.starts_with(&format!("{file} ")))
    };
    let stale: Vec<&&str> = excused
        .keys()
        .filter(of_these)
        .filter(|line| !met.contains(**line))
        .collect();
    words.extend(
        stale
            .iter()
            .map(|line| format!("not needed in xtask/mutants.txt: {line}")),
    );
    (words.join("\n"), totals[2] == 0 && stale.is_empty())
}

fn told(name: &str, [caught, equal, survived]: [usize; 3]) -> String {
    let all = caught + equal + survived;
    format!("{name}: {all} mutants, {caught} caught, {equal} equal, {survived} survived")
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
        let fates = [Fate::Caught, Fate::Survived];
        let judged = |text: &str| judge(&mutants, &fates, &excused(text), &["a.rs"]);
        assert!(!judged("").1);
        let (words, good) = judged("# the order is nobody's\na.rs g: y\n");
        assert!(
            good && words.contains("1 equal: the order is nobody's"),
            "{words}"
        );
        let (words, good) = judged("# why\na.rs g: y\na.rs f: x\nb.rs f: z\n");
        assert!(
            !good && words.contains("not needed in xtask/mutants.txt: a.rs f: x"),
            "{words}"
        );
    }
}
