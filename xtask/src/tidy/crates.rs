//! Who may use whom: the dependency table of the crates.

use super::{Breach, breach};
use crate::tree::Tree;

/// The crates that each crate may use. A crate that is not here cannot be added before it is.
const MAY_USE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("k8s", &[]),
    ("reflect", &["k8s", "model"]),
    ("policy", &["model"]),
    ("dataplane", &["policy", "model"]),
    ("kernel", &["dataplane", "model"]),
    ("relay", &["model"]),
    ("dns", &["model"]),
    ("gateway", &["k8s", "model", "reflect"]),
    ("announce", &["kernel", "model"]),
    ("cni", &["kernel", "model"]),
    ("apiserver", &["k8s"]),
    ("controllers", &["k8s"]),
    (
        "lab",
        &[
            "announce",
            "apiserver",
            "cni",
            "controllers",
            "dataplane",
            "dns",
            "gateway",
            "k8s",
            "kernel",
            "model",
            "policy",
            "reflect",
            "relay",
        ],
    ),
    (
        "portolan",
        &[
            "announce",
            "apiserver",
            "cni",
            "controllers",
            "dataplane",
            "dns",
            "gateway",
            "k8s",
            "kernel",
            "lab",
            "model",
            "policy",
            "reflect",
            "relay",
        ],
    ),
    (
        "testkit",
        &[
            "announce",
            "apiserver",
            "cni",
            "controllers",
            "dataplane",
            "dns",
            "gateway",
            "k8s",
            "kernel",
            "lab",
            "model",
            "policy",
            "reflect",
            "relay",
        ],
    ),
];

pub fn dependencies(tree: &Tree) -> Vec<Breach> {
    let mut found = Vec::new();
    for name in tree.crates() {
        let path = format!("crates/{name}/Cargo.toml");
        let Some((_, allowed)) = MAY_USE.iter().find(|(known, _)| *known == name) else {
            found.push(breach(
                &path,
                0,
                "this crate is not in the table of xtask/src/tidy/crates.rs and ARCHITECTURE.md",
            ));
            continue;
        };
        for (line, used, development) in uses(tree.text(&path).unwrap_or_default()) {
            // Tests may use any fake that testkit has; nothing else crosses the table.
            let fine = allowed.contains(&used.as_str()) || (development && used == "testkit");
            if !fine {
                found.push(breach(
                    &path,
                    line,
                    format!("{name} may not use {used}; it may use: {}", list(allowed)),
                ));
            }
        }
    }
    let xtask = tree.text("xtask/Cargo.toml").unwrap_or_default();
    for (line, used, _) in uses(xtask) {
        found.push(breach(
            "xtask/Cargo.toml",
            line,
            format!("xtask only reads the tree; it may not use {used}"),
        ));
    }
    found
}

fn list(names: &[&str]) -> String {
    if names.is_empty() {
        "none of ours".to_owned()
    } else {
        names.join(", ")
    }
}

/// Our own crates that a manifest depends on: line, name, and whether only tests do.
fn uses(manifest: &str) -> Vec<(usize, String, bool)> {
    let mut section = "";
    let mut found = Vec::new();
    for (index, line) in manifest.lines().enumerate() {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches([']', ' ']);
            // The form [dependencies.portolan-x] names the crate in the header itself.
            if let Some((kind, name)) = section.rsplit_once(".portolan-") {
                found.push((
                    index + 1,
                    name.to_owned(),
                    kind.ends_with("dev-dependencies"),
                ));
            }
            continue;
        }
        let Some(rest) = line.trim_start().strip_prefix("portolan-") else {
            continue;
        };
        if section.ends_with("dependencies") {
            let name: String = rest
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
                .collect();
            found.push((index + 1, name, section.ends_with("dev-dependencies")));
        }
    }
    found
}
