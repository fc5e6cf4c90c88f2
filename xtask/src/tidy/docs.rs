//! Laws about documents, and about text of any kind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Breach, breach};
use crate::tree::Tree;

/// Longest README: what it is and how to start, on a few screens.
const README_MAX: usize = 150;
/// Longest ARCHITECTURE.md: it is read in one sitting or not at all.
const ARCHITECTURE_MAX: usize = 250;

const ARCHITECTURE: &str = "ARCHITECTURE.md";

/// First folders of the paths that documents speak of.
const FOLDERS: [&str; 12] = [
    "crates/",
    "xtask/",
    "scenarios/",
    "docs/",
    "examples/",
    "scripts/",
    "bench/",
    "deploy/",
    "fuzz/",
    "ebpf/",
    ".ci/",
    ".cargo/",
];

pub fn length(tree: &Tree) -> Vec<Breach> {
    [("README.md", README_MAX), (ARCHITECTURE, ARCHITECTURE_MAX)]
        .into_iter()
        .filter_map(|(path, limit)| match tree.text(path) {
            None => Some(breach(path, 0, "it is missing")),
            Some(text) if text.lines().count() > limit => Some(breach(
                path,
                limit,
                format!("{} lines, at most {limit}", text.lines().count()),
            )),
            Some(_) => None,
        })
        .collect()
}

pub fn architecture(tree: &Tree) -> Vec<Breach> {
    let text = tree.text(ARCHITECTURE).unwrap_or_default();
    let mut found = Vec::new();
    for (line, quoted) in quoted(text) {
        if let Some(name) = quoted.strip_prefix("portolan-")
            && !tree.has(&format!("crates/{name}"))
        {
            found.push(breach(
                ARCHITECTURE,
                line,
                format!("there is no crate {quoted}"),
            ));
        }
        let concrete = !quoted.contains(['*', '{', '<', ' ', '…']);
        let path = quoted.split("::").next().unwrap_or(quoted);
        if concrete && FOLDERS.iter().any(|folder| path.starts_with(folder)) && !tree.has(path) {
            found.push(breach(ARCHITECTURE, line, format!("there is no {path}")));
        }
    }
    let named = |name: &str| {
        let folder = format!("crates/{name}");
        quoted(text).any(|(_, quoted)| quoted == name || quoted.trim_end_matches('/') == folder)
    };
    let missing = tree.crates().into_iter().filter(|name| !named(name));
    found.extend(missing.map(|name| {
        breach(
            ARCHITECTURE,
            0,
            format!("it does not name the crate `{name}`"),
        )
    }));
    found
}

/// What stands between backquotes, with its line.
fn quoted(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(index, line)| {
        line.split('`')
            .skip(1)
            .step_by(2)
            .map(move |quoted| (index + 1, quoted))
    })
}

pub fn links(tree: &Tree) -> Vec<Breach> {
    let mut found = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| path.ends_with(".md")) {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (index, line) in text.lines().enumerate() {
            for target in line
                .split("](")
                .skip(1)
                .filter_map(|rest| rest.split(')').next())
            {
                let file = target.split('#').next().unwrap_or_default();
                let away = file.is_empty() || file.contains("://") || file.starts_with("mailto:");
                if !away && !tree.has(&join(folder, file)) {
                    found.push(breach(
                        path,
                        index + 1,
                        format!("the link {target} leads nowhere"),
                    ));
                }
            }
        }
    }
    found
}

fn join(folder: &str, relative: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in relative.split('/') {
        match part {
            ".." => {
                parts.pop();
            }
            "." | "" => {}
            name => parts.push(name),
        }
    }
    parts.join("/")
}

pub fn addresses(tree: &Tree) -> Vec<Breach> {
    let speaks_of_addresses = |path: &str| {
        let folders = ["scenarios/", "examples/", "docs/"];
        path.ends_with(".md") && !path.contains('/')
            || folders.iter().any(|folder| path.starts_with(folder))
    };
    let mut found = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| speaks_of_addresses(path)) {
        for (index, line) in text.lines().enumerate() {
            let strangers = addresses_in(line)
                .into_iter()
                .filter(|address| !is_planned(*address));
            found.extend(strangers.map(|address| {
                breach(
                    path,
                    index + 1,
                    format!("{address} is not in the address plan of CONTRIBUTING.md"),
                )
            }));
        }
    }
    found
}

fn addresses_in(line: &str) -> Vec<IpAddr> {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '_' | '-');
    let mut found = Vec::new();
    for word in line.split(|c: char| !is_inside(c)) {
        let word = word
            .trim_matches(['.', '-', '_'])
            .trim_end_matches("::/")
            .trim_end_matches(':');
        let v4 = word
            .split(':')
            .filter_map(|part| part.parse::<Ipv4Addr>().ok())
            .map(IpAddr::V4);
        found.extend(v4);
        let v6 = word
            .parse::<Ipv6Addr>()
            .or_else(|_| format!("{word}::").parse())
            .ok();
        // A lone number or a word such as `dead` is no address.
        found.extend(v6.filter(|_| word.contains(':')).map(IpAddr::V6));
    }
    found
}

/// The address plan: an address says its role (CONTRIBUTING.md).
fn is_planned(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => match address.octets() {
            [10, ..] | [127, ..] => true,
            [172, 30, ..] | [192, 168, 0, _] | [203, 0, 113, _] | [198, 51, 100, _] => true,
            [169, 254, 20, _] | [169, 254, 169, 254] => true,
            octets => octets == [0; 4] || octets == [255; 4],
        },
        IpAddr::V6(address) => {
            let [first, second, ..] = address.segments();
            let local = address.is_loopback() || address.is_unspecified();
            local || first >> 8 == 0xfd || (first, second) == (0x2001, 0x0db8)
        }
    }
}

pub fn machine_paths(tree: &Tree) -> Vec<Breach> {
    // Without their slashes, so that this file does not break its own law.
    let homes = ["work", "root", "farm", "home", "Users"].map(|name| format!("/{name}/"));
    let scratch = format!("/{}/", "tmp");
    let mut found = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| *path != "Cargo.lock") {
        for (index, line) in text.lines().enumerate() {
            let whole = |needle: &str| {
                line.match_indices(needle).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    !before.is_some_and(|c| {
                        c.is_ascii_alphanumeric() || matches!(c, '.' | '}' | ')' | '-' | '_')
                    })
                })
            };
            let named_scratch = line.match_indices(&scratch).any(|(at, _)| {
                line[at + scratch.len()..].starts_with(|c: char| c.is_ascii_lowercase())
            });
            if named_scratch || homes.iter().any(|home| whole(home)) {
                found.push(breach(
                    path,
                    index + 1,
                    "a path of one machine; use a relative path or a temporary folder",
                ));
            }
        }
    }
    found
}
