//! Builds the test programs with all mutants in them; mutants that do not compile are left out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::functions::{Mutant, write};
use crate::tree::Tree;

/// Times that the compiler is asked which mutants it refuses: types first, then borrows, for each crate.
const ROUNDS_MAX: usize = 24;

/// The crates that are broken, by their package.
const CRATES: [(&str, &str); 2] = [
    ("model", "portolan-model"),
    ("dataplane", "portolan-dataplane"),
];

/// Packages in which random tests spend their time.
const FAST: [&str; 4] = ["portolan-model", "portolan-dataplane", "proptest", "imbl"];

/// What every broken crate gets: the question which mutant is the active one.
const QUESTION: &str = "
/// Whether this mutant is the active one.
#[doc(hidden)]
pub fn mutant(number: u32) -> bool {
    static ACTIVE: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    let active = || std::env::var(\"MUTANT\").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    *ACTIVE.get_or_init(active) == number
}
";

/// The mutants, numbered from 1, and the programs that hold them.
pub struct Built {
    /// All that compile.
    pub mutants: Vec<Mutant>,
    /// Test programs with the folder that they run in.
    pub programs: Vec<(PathBuf, PathBuf)>,
}

/// Copies the work tree to `target/mutants`, breaks `files` there, and builds.
pub fn build(root: &Path, tree: &Tree, files: &[&str]) -> anyhow::Result<Built> {
    let place = root.join("target/mutants");
    let copy = place.join("tree");
    if copy.exists() {
        clear(&copy, &copy, tree)?;
    }
    for (path, text) in tree.files() {
        put(&copy.join(path), text)?;
    }
    for (name, _) in CRATES {
        let path = format!("crates/{name}/src/lib.rs");
        let text = tree.text(&path).with_context(|| path.clone())?;
        put(
            &copy.join(path),
            &format!("#![allow(warnings, clippy::all)]\n{text}{QUESTION}"),
        )?;
    }
    let mut refused = BTreeSet::new();
    for (_, package) in CRATES {
        for round in 0.. {
            let mutants = spread(tree, &copy, files, &refused)?;
            let errors = errors(&place, package)?;
            if errors.is_empty() {
                break;
            }
            if round == ROUNDS_MAX || !refuse(&mutants, &errors, &mut refused) {
                bail!("{package} does not compile: {errors:?}");
            }
        }
    }
    let mutants = spread(tree, &copy, files, &refused)?;
    let programs = programs(&place)?;
    Ok(Built { mutants, programs })
}

/// Removes what an earlier run has copied and the work tree does not have any more.
fn clear(copy: &Path, folder: &Path, tree: &Tree) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.strip_prefix(copy)?.to_string_lossy().into_owned();
        if path.is_dir() {
            clear(copy, &path, tree)?;
        } else if tree.text(&name).is_none() {
            std::fs::remove_file(&path).with_context(|| name)?;
        }
    }
    Ok(())
}

fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    // What stays as it was is not built again.
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    std::fs::create_dir_all(path.parent().context("invariant: a path below the root")?)?;
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

/// Writes all files with the mutants that were not refused.
fn spread(
    tree: &Tree,
    copy: &Path,
    files: &[&str],
    refused: &BTreeSet<(String, usize, String)>,
) -> anyhow::Result<Vec<Mutant>> {
    let mut all: Vec<Mutant> = Vec::new();
    for file in files {
        let source = tree
            .text(file)
            .with_context(|| format!("{file} is not there"))?;
        let keep = |m: &Mutant| !refused.contains(&(m.file.clone(), m.line, m.name.clone()));
        let (text, mutants) = write(file, source, all.len() + 1, &keep)?;
        put(&copy.join(file), &text)?;
        all.extend(mutants);
    }
    Ok(all)
}

/// The places of errors: file and line.
fn errors(place: &Path, package: &str) -> anyhow::Result<BTreeSet<(String, usize)>> {
    let output = cargo(
        place,
        &["check", "--package", package, "--message-format=short"],
    )?;
    let read = |line: &str| {
        let (at, words) = line.split_once(": ")?;
        words.starts_with("error").then_some(())?;
        let mut parts = at.split(':');
        Some((parts.next()?.to_owned(), parts.next()?.parse().ok()?))
    };
    let found: BTreeSet<_> = output.text.lines().filter_map(read).collect();
    if found.is_empty() && !output.good {
        bail!("cargo check: {}", output.text);
    }
    Ok(found)
}

/// Refuses the mutants at these places; false if there are none.
fn refuse(
    mutants: &[Mutant],
    errors: &BTreeSet<(String, usize)>,
    refused: &mut BTreeSet<(String, usize, String)>,
) -> bool {
    let before = refused.len();
    for (file, line) in errors {
        let hit = |m: &&Mutant| m.file == *file && (m.lines.0..=m.lines.1).contains(line);
        let hit = mutants.iter().filter(hit);
        refused.extend(hit.map(|m| (m.file.clone(), m.line, m.name.clone())));
    }
    refused.len() > before
}

fn programs(place: &Path) -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
    let unit = [
        "test",
        "--no-run",
        "--package",
        "portolan-model",
        "--package",
        "portolan-dataplane",
    ];
    let scenarios = [
        "test",
        "--no-run",
        "--package",
        "portolan-testkit",
        "--test",
        "scenarios",
    ];
    let mut all = Vec::new();
    for arguments in [&scenarios[..], &unit[..]] {
        let output = cargo(place, arguments)?;
        if !output.good {
            bail!("cargo test: {}", output.text);
        }
        for line in output
            .text
            .lines()
            .filter(|line| line.trim_start().starts_with("Executable"))
        {
            let path = line
                .rsplit_once('(')
                .context("a path in brackets")?
                .1
                .trim_end_matches(')');
            let of = |name: &str| path.contains(&format!("/{name}-"));
            let folder = match (of("scenarios"), of("portolan_model")) {
                (true, _) => "testkit",
                (_, true) => "model",
                _ => "dataplane",
            };
            let folder = place.join("tree/crates").join(folder);
            all.push((place.join("tree").join(path), folder));
        }
    }
    Ok(all)
}

struct Output {
    good: bool,
    text: String,
}

fn cargo(place: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .args(["--config", "profile.dev.debug=false"])
        .args(FAST.into_iter().flat_map(|package| {
            let setting = format!("profile.dev.package.{package}.opt-level=1");
            ["--config".to_owned(), setting]
        }))
        .current_dir(place.join("tree"))
        .env("CARGO_TARGET_DIR", place.join("build"))
        .output()
        .context("cargo")?;
    Ok(Output {
        good: output.status.success(),
        text: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
