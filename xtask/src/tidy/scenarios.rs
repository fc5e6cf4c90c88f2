//! Rules of docs/semantics.md and the scenarios that prove them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Breach, breach};
use crate::tree::Tree;

const SEMANTICS: &str = "docs/semantics.md";

pub fn rules(tree: &Tree) -> Vec<Breach> {
    let rules = rules_of(tree.text(SEMANTICS).unwrap_or_default());
    let mut proved = BTreeSet::new();
    let mut found = Vec::new();
    for (path, text) in tree
        .under("scenarios/")
        .filter(|(path, _)| path.ends_with(".yaml"))
    {
        let first = text.lines().next().unwrap_or_default();
        let Some(names) = first.strip_prefix("# rule: ") else {
            found.push(breach(
                path,
                1,
                "the first line is `# rule: R-…`, the rules that this scenario proves",
            ));
            continue;
        };
        for name in names.split(',').map(str::trim) {
            if rules.contains_key(name) {
                proved.insert(name.to_owned());
            } else {
                found.push(breach(path, 1, format!("{SEMANTICS} has no rule {name}")));
            }
        }
    }
    if rules.is_empty() {
        found.push(breach(
            SEMANTICS,
            0,
            "no rules here; each is a list item that opens with **R-NAME-1**",
        ));
    }
    for (name, rule) in &rules {
        match (proved.contains(name), rule.excused) {
            (false, false) => found.push(breach(
                SEMANTICS,
                rule.line,
                format!("{name} has no scenario; write one, or say «No scenario: reason.»"),
            )),
            (true, true) => found.push(breach(
                SEMANTICS,
                rule.line,
                format!("{name} has a scenario; take out «No scenario»"),
            )),
            _ => {}
        }
    }
    found
}

struct Rule {
    line: usize,
    excused: bool,
}

/// The rules of the document: list items that open with `**R-NAME-N**`, up to the next item or heading.
fn rules_of(text: &str) -> BTreeMap<String, Rule> {
    let mut rules: BTreeMap<String, Rule> = BTreeMap::new();
    let mut current: Option<String> = None;
    for (index, line) in text.lines().enumerate() {
        if let Some((name, _)) = line
            .strip_prefix("- **R-")
            .and_then(|rest| rest.split_once("**"))
        {
            let name = format!("R-{name}");
            let rule = Rule {
                line: index + 1,
                excused: false,
            };
            rules.insert(name.clone(), rule);
            current = Some(name);
        } else if line.starts_with('#') {
            current = None;
        }
        if let Some(rule) = current.as_ref().and_then(|name| rules.get_mut(name)) {
            rule.excused |= line.contains("No scenario: ");
        }
    }
    rules
}
