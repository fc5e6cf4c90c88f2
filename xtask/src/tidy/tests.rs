//! Every law, broken on purpose: a sound tree has no breach, and each change of it is found by its law.

use super::*;

/// A small tree that keeps every law.
fn sound() -> Tree {
    let mut tree = Tree::default();
    let files = [
        (
            "README.md",
            "# Portolan\n\nSee [the laws](ARCHITECTURE.md).\n",
        ),
        (
            "ARCHITECTURE.md",
            "`crates/model`, `kernel`, `crates/testkit/` and `docs/semantics.md`.\n",
        ),
        (
            "crates/model/Cargo.toml",
            "[dependencies]\nipnet.workspace = true\n",
        ),
        (
            "crates/model/src/lib.rs",
            "//! Pure.\n\nuse std::net::IpAddr;\n",
        ),
        (
            "crates/kernel/Cargo.toml",
            "[dependencies]\nportolan-model.workspace = true\n",
        ),
        (
            "crates/kernel/src/lib.rs",
            "//! System calls.\n\nfn call() { unsafe { f() } }\n",
        ),
        (
            "crates/testkit/Cargo.toml",
            "[dependencies]\nportolan-kernel.workspace = true\n",
        ),
        ("crates/testkit/src/lib.rs", "//! Fakes.\n"),
        (
            "xtask/Cargo.toml",
            "[dependencies]\nanyhow.workspace = true\n",
        ),
        (
            "docs/semantics.md",
            "- **R-CLUSTERIP-1** Rule.\n- **R-LATER-1** Rule.\n  No scenario: later.\n",
        ),
        (
            "scenarios/clusterip/tcp.yaml",
            "# rule: R-CLUSTERIP-1\nfrom: 10.1.0.2\n",
        ),
        (
            "scripts/setup.sh",
            "#!/usr/bin/env bash\nset -euo pipefail\necho set up\n",
        ),
    ];
    files.iter().for_each(|(path, text)| tree.put(path, text));
    tree
}

/// Names of the laws that the sound tree breaks once `path` holds `text`.
fn broken_by(path: &str, text: &str) -> Vec<&'static str> {
    let mut tree = sound();
    tree.put(path, text);
    let mut laws: Vec<&str> = check(&tree).iter().map(|breach| breach.law).collect();
    laws.dedup();
    laws
}

/// A change of the sound tree and the laws that it breaks.
struct Case(&'static str, String, &'static [&'static str]);

fn case(path: &'static str, text: impl Into<String>, laws: &'static [&'static str]) -> Case {
    Case(path, text.into(), laws)
}

/// Source of a crate that is not pure and not special.
const LIB: &str = "crates/testkit/src/lib.rs";

fn code(body: &str) -> String {
    format!("//! Fakes.\n{body}\n")
}

fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(
            "crates/kernel/Cargo.toml",
            "[dependencies]\nportolan-testkit.workspace = true\n",
            &["crates"],
        ),
        case(
            "crates/model/Cargo.toml",
            "[dependencies]\nportolan-kernel.workspace = true\n",
            &["crates"],
        ),
        case(
            "crates/kernel/Cargo.toml",
            "[dependencies.portolan-lab]\nworkspace = true\n",
            &["crates"],
        ),
        case(
            "crates/surprise/Cargo.toml",
            "[dependencies]\n",
            &["crates", "architecture"],
        ),
        case(
            "xtask/Cargo.toml",
            "[dependencies]\nportolan-model.workspace = true\n",
            &["crates"],
        ),
        case(
            "crates/model/Cargo.toml",
            "[dependencies]\ntokio.workspace = true\n",
            &["pure"],
        ),
        case("crates/kernel/src/lib.rs", "fn f() {}\n", &["module-doc"]),
        case(LIB, code("fn f() { unsafe { g() } }"), &["unsafe"]),
        case(LIB, code("#![allow(unsafe_code)]"), &["unsafe"]),
        case(LIB, code(&"fn f() {}\n".repeat(600)), &["size"]),
        case(LIB, code("fn f() { x.unwrap(); }"), &["unwrap"]),
        case("crates/testkit/src/utils.rs", code(""), &["names"]),
        case("crates/testkit/src/common/mod.rs", code(""), &["names"]),
        case(LIB, code("pub const QUEUE_MAX: usize = 3;"), &["limits"]),
        case(LIB, code(concat!("// TO", "DO: later")), &["open-ends"]),
        case(LIB, code(concat!("fn f() { to", "do!() }")), &["open-ends"]),
        case(LIB, code("#[test]\n#[ignore]\nfn f() {}"), &["open-ends"]),
        case("README.md", "line\n".repeat(151), &["readme"]),
        case(
            "ARCHITECTURE.md",
            format!("`model` `kernel` `testkit`\n{}", "line\n".repeat(250)),
            &["readme"],
        ),
        case(
            "ARCHITECTURE.md",
            "`model` `kernel` `testkit` `portolan-gone`\n",
            &["architecture"],
        ),
        case(
            "ARCHITECTURE.md",
            "`model` `kernel` `testkit` `crates/model/src/gone.rs`\n",
            &["architecture"],
        ),
        case("ARCHITECTURE.md", "`model` `kernel`\n", &["architecture"]),
        case("README.md", "[gone](docs/gone.md)\n", &["links"]),
        case("docs/operating.md", "Ask 8.8.8.8.\n", &["addresses"]),
        case("docs/operating.md", "Ask 2600:5200::1.\n", &["addresses"]),
        case(
            "docs/testing.md",
            format!("Look into /{}/project.\n", "home/me"),
            &["machine-paths"],
        ),
        case("scenarios/a.yaml", "from: 10.1.0.2\n", &["scenarios"]),
        case("scenarios/a.yaml", "# rule: R-NONE-1\n", &["scenarios"]),
        case("scenarios/a.yaml", "# rule: R-LATER-1\n", &["scenarios"]),
        case(
            "docs/semantics.md",
            "- **R-CLUSTERIP-1** Rule.\n- **R-NEW-1** Rule.\n",
            &["scenarios"],
        ),
        case(
            "scripts/setup.sh",
            "#!/usr/bin/env bash\nset -euo pipefail\nif true; then\n",
            &["scripts"],
        ),
        case(
            "scripts/more.sh",
            "#!/usr/bin/env bash\necho hello\n",
            &["scripts"],
        ),
    ];
    let impure = [
        "use std::{fs, net::IpAddr};",
        "fn f() { std::process::abort() }",
        "use std::time::{Duration, Instant};",
        "fn f() -> std::time::SystemTime { g() }",
        "use std::net::TcpStream;",
        "fn f() { std::thread::yield_now() }",
        "fn f() -> u8 { fastrand::u8(..) }",
        "async fn f() { tokio::task::yield_now().await }",
        "fn f() { println!(\"hello\") }",
    ];
    cases.extend(impure.map(|body| case("crates/model/src/lib.rs", code(body), &["pure"])));
    cases
}

#[test]
fn a_sound_tree_breaks_nothing() {
    assert_eq!(check(&sound()), vec![]);
}

#[test]
fn every_law_is_noticed_when_it_is_broken() {
    for Case(path, text, laws) in cases() {
        assert_eq!(broken_by(path, &text), laws, "{path}: {text}");
    }
}

#[test]
fn every_law_has_a_case_that_breaks_it() {
    let shown: Vec<&str> = cases()
        .iter()
        .flat_map(|case| case.2.iter().copied())
        .collect();
    for law in LAWS {
        assert!(
            shown.contains(&law.name),
            "no case breaks the law {}",
            law.name
        );
    }
}

#[test]
fn what_only_looks_like_a_breach_is_none() {
    let fine = [
        (
            "crates/model/src/lib.rs",
            code(
                "/// Reads no std::fs.\nuse std::time::Duration;\n#[cfg(test)]\nmod tests { use std::fs; }",
            ),
        ),
        (
            "crates/model/src/tests.rs",
            code("use std::fs;\nfn f() { fs::read(p).unwrap(); }"),
        ),
        (
            "crates/kernel/Cargo.toml",
            "[dependencies]\n[dev-dependencies]\nportolan-testkit.workspace = true\n".to_owned(),
        ),
        (
            LIB,
            code("#[cfg(test)]\nmod tests { fn f() { x.unwrap(); } }"),
        ),
        (
            LIB,
            code(&format!(
                "#[cfg(test)]\nmod tests {{\n{}}}",
                "fn f() {}\n".repeat(600)
            )),
        ),
        (
            LIB,
            code("/// Nobody waits for more.\npub const QUEUE_MAX: usize = 3;"),
        ),
        (
            "docs/operating.md",
            "Version 1.36.2 uses `model::decide` at [fd00:10:1::2]:80 and 10.1.0.2:80.\n"
                .to_owned(),
        ),
        (
            "docs/operating.md",
            "[rules](semantics.md#clusterip), [net](https://example.com/x)\n".to_owned(),
        ),
        (
            "docs/testing.md",
            concat!("The folder target/wo", "rk/out, and ${dir}/ro", "ot/x.\n").to_owned(),
        ),
    ];
    for (path, text) in fine {
        assert_eq!(broken_by(path, &text), Vec::<&str>::new(), "{path}: {text}");
    }
}
