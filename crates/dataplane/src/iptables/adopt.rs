//! What stands in the kernel, out of the text that `iptables-save` prints, so that a new process goes on where a killed
//! one stopped. Text that is not of our making is passed over; nothing here panics.

use std::collections::{BTreeMap, BTreeSet};

use portolan_model::Family;

use super::layout::{Hook, hooks, jumps};
use super::name::{Chain, Fixed, Table};
use super::parse;
use super::rule::{DIGEST_START, Rule, digest_of, fnv};
use super::state::{Body, Line, Side, State, Uses};

/// One family as it was found.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    tables: BTreeMap<Table, SavedTable>,
}

/// One table as it was found.
#[derive(Clone, Debug, Default)]
pub struct SavedTable {
    chains: BTreeMap<Chain, SavedChain>,
    /// Jumps to chains of ours in the kernel's own chains: as text behind `-D`, and understood if they are ours.
    jumps: Vec<(Hook, String, Option<Rule>)>,
    /// Chains of ours to which a chain leads that is not ours.
    used_by_others: BTreeSet<Chain>,
}

#[derive(Clone, Debug)]
struct SavedChain {
    /// Of all rules, in order.
    digest: u64,
    /// The rules of a fixed chain; `None` stands for one that we could not have written.
    rules: Vec<Option<Rule>>,
}

impl Saved {
    /// Reads the output of `iptables-save` or `ip6tables-save`.
    pub fn parse(family: Family, text: &str) -> Self {
        let mut saved = Saved::default();
        let mut table = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = Table::named(name.trim());
                continue;
            }
            let Some(table) = table else { continue };
            let table = saved.tables.entry(table).or_default();
            if let Some(rest) = line.strip_prefix(':') {
                let name = rest.split(' ').next().unwrap_or_default();
                if let Some(chain) = Chain::named(name) {
                    table.chains.insert(
                        chain,
                        SavedChain {
                            digest: DIGEST_START,
                            rules: Vec::new(),
                        },
                    );
                }
            } else if let Some(rest) = line.strip_prefix("-A ") {
                table.take(family, line, rest);
            }
        }
        saved
    }

    pub(crate) fn table(&self, table: Table) -> Option<&SavedTable> {
        self.tables.get(&table)
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = (Table, &SavedTable)> {
        self.tables.iter().map(|(table, saved)| (*table, saved))
    }

    /// Whether anything of ours stands there.
    pub fn is_empty(&self) -> bool {
        self.tables.values().all(SavedTable::is_empty)
    }
}

impl SavedTable {
    fn take(&mut self, family: Family, line: &str, rest: &str) {
        let (name, spec) = rest.split_once(' ').unwrap_or((rest, ""));
        if let Some(chain) = Chain::named(name) {
            let Some(saved) = self.chains.get_mut(&chain) else {
                return;
            };
            let digest = fnv(DIGEST_START, spec.as_bytes());
            saved.digest = fnv(saved.digest, &digest.to_be_bytes());
            if let Chain::Fixed(_) = chain {
                saved.rules.push(understood(family, line, spec));
            }
            return;
        }
        let Some(chain) = leads_to(spec) else { return };
        match Hook::named(name) {
            Some(hook) => self
                .jumps
                .push((hook, rest.to_owned(), understood(family, line, spec))),
            None => drop(self.used_by_others.insert(chain)),
        }
    }

    /// Whether nothing of ours stands there.
    pub(crate) fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.jumps.is_empty()
    }

    /// The chains that the kernel lets us remove once they are empty.
    pub(crate) fn removable(&self) -> impl Iterator<Item = Chain> {
        let free = |chain: &Chain| !self.used_by_others.contains(chain);
        self.chains.keys().copied().filter(free)
    }

    /// Our jumps in the kernel's own chains, each with the name of that chain in front.
    pub(crate) fn jumps(&self) -> impl Iterator<Item = &str> {
        self.jumps.iter().map(|(_, text, _)| text.as_str())
    }
}

/// A rule that we show in the very words that were found.
fn understood(family: Family, line: &str, spec: &str) -> Option<Rule> {
    let (_, rule) = parse::line(line)?;
    rule.filter(|rule| rule.show(family) == spec)
}

/// The chain of ours that a rule leads to, if it does.
fn leads_to(spec: &str) -> Option<Chain> {
    let mut words = spec.split(' ').rev();
    let chain = Chain::named(words.next()?)?;
    matches!(words.next(), Some("-j" | "-g")).then_some(chain)
}

/// The State of both families (IPv4, IPv6); `None` if something is there that has to be rewritten as a whole.
pub fn adopt(found: &[Saved; 2]) -> Option<State> {
    let mut state = State::default();
    for (family, found) in Family::ALL.into_iter().zip(found) {
        *state.side_mut(family) = side(family, found)?;
    }
    Some(state)
}

fn side(family: Family, found: &Saved) -> Option<Side> {
    let mut side = Side::default();
    // Hooks without a jump of ours count as well: jumps may be missing where they belong.
    side.jumps.extend(hooks().map(|at| (at, Vec::new())));
    for (table, saved) in &found.tables {
        for (hook, _, rule) in &saved.jumps {
            let rule = rule
                .clone()
                .filter(|rule| jumps(*table, *hook).contains(rule))?;
            side.jumps.get_mut(&(*table, *hook))?.push(rule);
        }
        for (chain, saved) in &saved.chains {
            let digest = match chain {
                Chain::Service(..) => saved.digest,
                Chain::Fixed(fixed) => {
                    let tail = lines(&mut side, *table, *fixed, &saved.rules)?;
                    digest_of(family, &tail)
                }
            };
            side.chains.insert(
                (*table, *chain),
                Body {
                    digest,
                    source: None,
                },
            );
        }
    }
    let stands = !side.chains.is_empty();
    stands.then_some(side)
}

/// Takes the lines out of a fixed chain; what is left is the tail, which must stand below all lines.
fn lines(side: &mut Side, table: Table, chain: Fixed, rules: &[Option<Rule>]) -> Option<Vec<Rule>> {
    let mut tail = Vec::new();
    for rule in rules {
        let rule = rule.clone()?;
        let is_line = rule.has_port() || matches!(chain, Fixed::ClusterIps | Fixed::ClusterBlocks);
        if !is_line {
            tail.push(rule);
            continue;
        }
        let line = Line { table, chain, rule };
        let twice = side.lines.insert(line, Uses(1)).is_some();
        if twice || !tail.is_empty() {
            return None;
        }
    }
    Some(tail)
}
