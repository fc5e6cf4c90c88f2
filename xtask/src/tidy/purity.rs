//! The pure crates stay pure: no I/O, no thread, no clock, no randomness (ARCHITECTURE.md, law 1).

use super::{Breach, breach};
use crate::source::{paths, words};
use crate::tree::Tree;

const PURE: [&str; 3] = ["model", "policy", "dataplane"];

/// Paths that begin so are I/O, threads or the environment.
const FORBIDDEN_STARTS: &[&str] = &[
    "std::fs",
    "std::io",
    "std::process",
    "std::thread",
    "std::env",
    "std::os",
    "fs",
    "process",
    "thread",
    "env",
    "tokio",
    "nix",
    "libc",
    "socket2",
    "rand",
    "fastrand",
    "getrandom",
    "futures",
    "tracing",
    "kube",
    "hyper",
];

/// Types that are a clock, a socket or a source of randomness, wherever they come from.
const FORBIDDEN_NAMES: &[&str] = &[
    "Instant",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "ToSocketAddrs",
    "RandomState",
    "println",
    "eprintln",
    "print",
    "eprint",
];

/// What a pure crate may depend on besides our own crates.
const MAY_DEPEND: &[&str] = &["imbl", "ipnet", "serde", "sha2", "thiserror"];

pub fn pure(tree: &Tree) -> Vec<Breach> {
    let mut found = Vec::new();
    for name in PURE {
        let source = format!("crates/{name}/src/");
        for (path, text) in tree
            .under(&source)
            .filter(|(path, _)| path.ends_with(".rs") && !is_test_file(path))
        {
            found.extend(impure_paths(path, text));
        }
        let manifest = format!("crates/{name}/Cargo.toml");
        found.extend(impure_dependencies(
            &manifest,
            tree.text(&manifest).unwrap_or_default(),
        ));
    }
    found
}

/// A file that is a test module of its own: `tests.rs`, `*/tests/*`, `*_tests.rs`.
pub fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs")
        || path.contains("/tests/")
        || path.ends_with("_tests.rs")
        || path.contains("/benches/")
}

fn impure_paths(path: &str, text: &str) -> Vec<Breach> {
    let words = words(text).unwrap_or_default();
    let mut found = Vec::new();
    for (segments, line, test) in paths(&words) {
        if test {
            continue;
        }
        let full = segments.join("::");
        let starts = |start: &&str| {
            full == **start && start.contains("::") || full.starts_with(&format!("{start}::"))
        };
        let named = |name: &&str| segments.iter().any(|segment| segment == *name);
        if FORBIDDEN_STARTS.iter().any(starts) || FORBIDDEN_NAMES.iter().any(named) {
            found.push(breach(
                path,
                line,
                format!(
                    "{full}: time, seeds and bytes are arguments of a pure crate, it fetches none"
                ),
            ));
        }
    }
    found
}

fn impure_dependencies(path: &str, manifest: &str) -> Vec<Breach> {
    let mut inside = false;
    let mut found = Vec::new();
    for (index, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            inside = line.starts_with("[dependencies");
            continue;
        }
        let name: String = line
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_')
            .collect();
        if inside
            && !name.is_empty()
            && !name.starts_with("portolan-")
            && !MAY_DEPEND.contains(&name.as_str())
        {
            let message = format!(
                "{name} is not on the list of a pure crate: {}",
                MAY_DEPEND.join(", ")
            );
            found.push(breach(path, index + 1, message));
        }
    }
    found
}
