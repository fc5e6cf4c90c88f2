//! What should stand in the kernel. All maps are persistent: a clone costs O(1), and `diff` skips what both sides share.

use std::sync::Arc;

use imbl::OrdMap;
use portolan_model::{Family, PortKey};

use super::layout::{Ground, Hook, hooks, jumps};
use super::name::{Chain, Fixed, Table};
use super::part::Part;
use super::render;
use super::rule::{Rule, digest_of};

/// Everything in both families, and which Service port has contributed what.
///
/// Two States are equal when the same things stand in the kernel; the bookkeeping does not count,
/// so a State that was read back can equal one that was compiled.
#[derive(Clone, Debug, Default)]
pub struct State {
    sides: [Side; 2],
    pub(crate) fragments: OrdMap<PortKey, Arc<Fragment>>,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.sides == other.sides
    }
}

impl State {
    pub(crate) fn side(&self, family: Family) -> &Side {
        &self.sides[family as usize]
    }

    pub(crate) fn side_mut(&mut self, family: Family) -> &mut Side {
        &mut self.sides[family as usize]
    }
}

/// How many users a line has: the ports of one Service share some. It is not in the kernel, so all counts are equal.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Uses(pub u32);

impl PartialEq for Uses {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// A line: the chain that it stands in, and what it says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    pub table: Table,
    pub chain: Fixed,
    pub rule: Rule,
}

/// What one Service port contributes to one family.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Share {
    pub part: Option<Arc<Part>>,
    pub lines: Vec<Line>,
    /// Endpoints that are listed, in whichever condition.
    pub endpoints: usize,
}

/// What one Service port contributes, by family.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fragment {
    pub shares: [Share; 2],
}

/// What is known of a chain. Chains are compared by their digests; a chain that was read back has no source.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    /// Of the rules of a Service's chain, or of the tail of a fixed one.
    pub digest: u64,
    /// What the rules of a Service's chain are rendered from.
    pub source: Option<Arc<Part>>,
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// One family.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side {
    pub chains: OrdMap<(Table, Chain), Body>,
    pub lines: OrdMap<Line, Uses>,
    pub jumps: OrdMap<(Table, Hook), Vec<Rule>>,
    /// What rules are rendered with. Not compared: the digests depend on it.
    pub ground: Arc<Ground>,
    /// Endpoints of all Services.
    pub endpoints: usize,
}

impl PartialEq for Side {
    fn eq(&self, other: &Self) -> bool {
        self.jumps == other.jumps && self.chains == other.chains && self.lines == other.lines
    }
}

impl Side {
    /// A node without Services.
    pub fn of(family: Family, ground: Ground) -> Self {
        let mut side = Side {
            jumps: hooks().map(|at| (at, jumps(at.0, at.1))).collect(),
            ..Side::default()
        };
        for (table, chain) in ground.chains() {
            let digest = digest_of(family, &ground.tail(table, chain));
            let body = Body {
                digest,
                source: None,
            };
            side.chains.insert((table, Chain::Fixed(chain)), body);
        }
        side.ground = Arc::new(ground);
        side
    }

    pub fn insert(&mut self, family: Family, share: &Share) {
        self.endpoints += share.endpoints;
        for line in &share.lines {
            self.lines.entry(line.clone()).or_default().0 += 1;
        }
        let Some(part) = &share.part else { return };
        for chain in part.chains() {
            let digest = digest_of(family, &render::rules(part, &self.ground, chain));
            let source = Some(part.clone());
            self.chains
                .insert((Table::Nat, chain), Body { digest, source });
        }
    }

    pub fn remove(&mut self, share: &Share) {
        self.endpoints -= share.endpoints;
        for line in &share.lines {
            let Some(uses) = self.lines.get_mut(line) else {
                continue;
            };
            uses.0 -= 1;
            if uses.0 == 0 {
                self.lines.remove(line);
            }
        }
        for chain in share.part.iter().flat_map(|part| part.chains()) {
            self.chains.remove(&(Table::Nat, chain));
        }
    }

    /// The lines of a chain.
    pub fn lines(&self, table: Table, chain: Fixed) -> impl Iterator<Item = &Rule> {
        let first = Line {
            table,
            chain,
            rule: Rule::first(),
        };
        let here = move |line: &&Line| line.table == table && line.chain == chain;
        self.lines
            .range(first..)
            .map(|(line, _)| line)
            .take_while(here)
            .map(|line| &line.rule)
    }

    /// The rules of a chain, in order.
    pub fn rules(&self, table: Table, chain: Chain) -> Vec<Rule> {
        match chain {
            Chain::Fixed(fixed) => {
                let mut rules: Vec<Rule> = self.lines(table, fixed).cloned().collect();
                rules.extend(self.ground.tail(table, fixed));
                rules
            }
            Chain::Service(..) => {
                let source = self
                    .chains
                    .get(&(table, chain))
                    .and_then(|body| body.source.as_ref());
                source.map_or_else(Vec::new, |part| render::rules(part, &self.ground, chain))
            }
        }
    }
}
