//! From one State to another: which chains are written anew, which lines come and go.

use std::collections::{BTreeMap, BTreeSet};

use imbl::ordmap::DiffItem;
use portolan_model::Family;

use super::layout::Hook;
use super::name::{Chain, Fixed, Table};
use super::rule::Rule;
use super::state::{Side, State};

/// What changes in one table of one family: one atomic commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The family.
    pub family: Family,
    /// The table.
    pub table: Table,
    /// Everything of ours in the table that is not named here goes, whatever it is.
    pub whole: bool,
    /// Chains that are made, or emptied, and written.
    pub chains: BTreeSet<Chain>,
    /// Lines that go, by chain.
    pub removed: Vec<(Fixed, Rule)>,
    /// Lines that come.
    pub added: Vec<(Fixed, Rule)>,
    /// Our jumps in the kernel's chains: those that stand, and those that shall.
    pub jumps: Vec<(Hook, Vec<Rule>, Vec<Rule>)>,
    /// Chains that nobody needs any more.
    pub gone: Vec<Chain>,
}

/// The changes, in the order in which they are made. Rules of chains are rendered when they are written out, so that
/// they never all lie in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ops {
    /// At most three for each family.
    pub changes: Vec<Change>,
    pub(crate) to: State,
}

/// When more lines than this go from one chain, and also more than a quarter of them, the chain is written anew: to find
/// a line by its text the kernel's tool looks through all of them.
pub(crate) const REMOVED_MAX: usize = 100;

pub(crate) fn diff(from: Option<&State>, to: &State) -> Ops {
    let nothing = State::default();
    let mut changes = Vec::new();
    for family in Family::ALL {
        let (old, new) = (from.unwrap_or(&nothing).side(family), to.side(family));
        let all = Table::ALL.map(|table| one_table(family, table, old, new));
        let [mut mangle, mut nat, mut filter] = all;
        let whole = from.is_none();
        for change in [&mut mangle, &mut nat, &mut filter] {
            change.whole = whole;
        }
        // Refusals come before the rewriting that they replace goes, and go after that which replaces them has come:
        // in between a packet to a Service must not find neither.
        let late = match whole {
            true => None,
            false => Some(take_removals(&mut filter)),
        };
        let all = [Some(mangle), Some(filter), Some(nat), late];
        changes.extend(
            all.into_iter()
                .flatten()
                .filter(|change| !change.is_empty()),
        );
    }
    let to = match changes.is_empty() {
        true => State::default(),
        false => to.clone(),
    };
    Ops { changes, to }
}

impl Change {
    pub(crate) fn new(family: Family, table: Table) -> Self {
        Change {
            family,
            table,
            whole: false,
            chains: BTreeSet::new(),
            removed: Vec::new(),
            added: Vec::new(),
            jumps: Vec::new(),
            gone: Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        !self.whole
            && self.chains.is_empty()
            && self.removed.is_empty()
            && self.added.is_empty()
            && self.jumps.is_empty()
            && self.gone.is_empty()
    }
}

/// What goes, as a change of its own.
fn take_removals(change: &mut Change) -> Change {
    Change {
        removed: std::mem::take(&mut change.removed),
        gone: std::mem::take(&mut change.gone),
        ..Change::new(change.family, change.table)
    }
}

fn one_table(family: Family, table: Table, from: &Side, to: &Side) -> Change {
    let mut change = Change::new(family, table);
    for item in from.chains.diff(&to.chains) {
        match item {
            DiffItem::Add((of, chain), _) if *of == table => {
                change.chains.insert(*chain);
            }
            DiffItem::Update {
                new: ((of, chain), _),
                ..
            } if *of == table => {
                change.chains.insert(*chain);
            }
            DiffItem::Remove((of, chain), _) if *of == table => change.gone.push(*chain),
            _ => {}
        }
    }
    lines(table, from, to, &mut change);
    for item in from.jumps.diff(&to.jumps) {
        let (at, old, new) = match item {
            DiffItem::Add(at, new) => (at, &[][..], new.as_slice()),
            DiffItem::Remove(at, old) => (at, old.as_slice(), &[][..]),
            DiffItem::Update {
                old: (at, old),
                new: (_, new),
            } => (at, old.as_slice(), new.as_slice()),
        };
        if at.0 == table {
            change.jumps.push((at.1, old.to_vec(), new.to_vec()));
        }
    }
    change
}

/// Lines of chains that are written anew, or that go, need no care of their own.
fn lines(table: Table, from: &Side, to: &Side, change: &mut Change) {
    let mut removed: BTreeMap<Fixed, Vec<&Rule>> = BTreeMap::new();
    let mut added = Vec::new();
    for item in from.lines.diff(&to.lines) {
        match item {
            DiffItem::Add(line, _) if line.table == table => added.push(line),
            DiffItem::Remove(line, _) if line.table == table => {
                removed.entry(line.chain).or_default().push(&line.rule);
            }
            _ => {}
        }
    }
    for (fixed, rules) in removed {
        let many = rules.len() > REMOVED_MAX && rules.len() > from.lines(table, fixed).count() / 4;
        if many && to.chains.contains_key(&(table, Chain::Fixed(fixed))) {
            change.chains.insert(Chain::Fixed(fixed));
        }
        let gone = change.gone.contains(&Chain::Fixed(fixed));
        if !gone && !change.chains.contains(&Chain::Fixed(fixed)) {
            change
                .removed
                .extend(rules.into_iter().map(|rule| (fixed, rule.clone())));
        }
    }
    for line in added {
        if !change.chains.contains(&Chain::Fixed(line.chain)) {
            change.added.push((line.chain, line.rule.clone()));
        }
    }
}
