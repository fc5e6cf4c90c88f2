//! The laws of ARCHITECTURE.md and CONTRIBUTING.md, each as a function over the work tree.
//!
//! A law says every place that breaks it. What no program can judge stays with the reviewer.

mod code;
mod crates;
mod docs;
mod purity;
mod scenarios;
mod scripts;

use std::fmt;

use crate::tree::Tree;

/// One law and the function that finds where it is broken.
pub struct Law {
    /// Short name, as it stands in front of every breach.
    pub name: &'static str,
    /// What it demands, in one sentence.
    pub says: &'static str,
    check: fn(&Tree) -> Vec<Breach>,
}

/// One place that breaks a law.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Name of the law.
    pub law: &'static str,
    /// File, relative to the root.
    pub path: String,
    /// Line from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Breach {
            law,
            path,
            line,
            message,
        } = self;
        match line {
            0 => write!(f, "{path}: {law}: {message}"),
            _ => write!(f, "{path}:{line}: {law}: {message}"),
        }
    }
}

/// A breach without its law, as the laws make it; [`check`] adds the name.
fn breach(path: &str, line: usize, message: impl Into<String>) -> Breach {
    Breach {
        law: "",
        path: path.to_owned(),
        line,
        message: message.into(),
    }
}

/// All laws, in the order in which they are checked.
pub const LAWS: &[Law] = &[
    Law {
        name: "crates",
        says: "a crate uses only the crates that the table of ARCHITECTURE.md allows it; nobody depends on testkit",
        check: crates::dependencies,
    },
    Law {
        name: "pure",
        says: "model, policy and dataplane do no I/O, spawn nothing, read no clock, draw no random number",
        check: purity::pure,
    },
    Law {
        name: "unsafe",
        says: "only kernel has unsafe code, and nobody else allows it",
        check: code::unsafety,
    },
    Law {
        name: "module-doc",
        says: "every module opens with //!",
        check: code::module_docs,
    },
    Law {
        name: "size",
        says: "no Rust file has more than 600 lines, tests apart",
        check: code::size,
    },
    Law {
        name: "unwrap",
        says: "no unwrap outside tests: expect(\"invariant: …\") or an error",
        check: code::unwrap,
    },
    Law {
        name: "names",
        says: "no module is called utils, common, manager or helper",
        check: code::names,
    },
    Law {
        name: "limits",
        says: "every limit (a const *_MAX, MAX_* or *_LIMIT) has a doc comment with its reason",
        check: code::limits,
    },
    Law {
        name: "open-ends",
        says: "no open ends and no ignored tests in the code",
        check: code::open_ends,
    },
    Law {
        name: "readme",
        says: "README.md has at most 150 lines, ARCHITECTURE.md at most 250",
        check: docs::length,
    },
    Law {
        name: "architecture",
        says: "ARCHITECTURE.md names every crate, and no crate or path that does not exist",
        check: docs::architecture,
    },
    Law {
        name: "links",
        says: "a relative link in a document leads to a file",
        check: docs::links,
    },
    Law {
        name: "addresses",
        says: "scenarios, examples and documents use only addresses of the address plan",
        check: docs::addresses,
    },
    Law {
        name: "machine-paths",
        says: "no path of one person's machine is in the tree",
        check: docs::machine_paths,
    },
    Law {
        name: "scenarios",
        says: "a scenario opens with the rules it proves, and every rule of docs/semantics.md is proved or says why not",
        check: scenarios::rules,
    },
    Law {
        name: "scripts",
        says: "every shell script parses and stops at the first error",
        check: scripts::parse,
    },
];

/// Every breach of every law.
pub fn check(tree: &Tree) -> Vec<Breach> {
    let of_law = |law: &Law| {
        let name = law.name;
        let named = move |found: Breach| Breach { law: name, ..found };
        (law.check)(tree).into_iter().map(named)
    };
    LAWS.iter().flat_map(of_law).collect()
}

#[cfg(test)]
mod tests;
