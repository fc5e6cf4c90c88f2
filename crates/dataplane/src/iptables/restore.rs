//! Changes as the text that `iptables-restore --noflush` reads.

use std::fmt::{self, Write};

use portolan_model::Family;

use super::adopt::{Saved, SavedTable};
use super::diff::{Change, Ops, diff};
use super::name::{Chain, Table};
use super::state::State;

/// Writes what `ops` change in `family`; nothing if they change nothing there. Each table is one commit, unless more
/// than `chains_max` chains are written or removed in it.
///
/// `found` is what stands there now. It is needed for changes that rewrite everything: whatever else of ours stands
/// there goes with the change.
pub fn write(
    ops: &Ops,
    family: Family,
    found: &Saved,
    chains_max: usize,
    out: &mut dyn Write,
) -> fmt::Result {
    let changes = ops.changes.iter().filter(|change| change.family == family);
    let mut changes: Vec<&Change> = changes.collect();
    // Another mode may stand beside this one, which leads flows to the addresses of Services past the filter (ipvs mode):
    // where the filter does not stand yet, it comes when all new flows are rewritten before they meet it.
    if found.is_empty() {
        changes.sort_by_key(|change| change.whole && change.table == Table::Filter);
    }
    changes
        .into_iter()
        .try_for_each(|change| write_change(&ops.to, change, found, chains_max, out))
}

/// How many commits that takes, if it does not rewrite everything.
pub fn commits(ops: &Ops, chains_max: usize) -> usize {
    let of = |change: &Change| split(change, None, chains_max).len();
    ops.changes.iter().map(of).sum()
}

/// Writes what removes everything of ours that stands in one family; nothing if nothing does. What refuses goes first,
/// for the same reason.
pub fn write_removal(
    family: Family,
    found: &Saved,
    chains_max: usize,
    out: &mut dyn Write,
) -> fmt::Result {
    let nothing = State::default();
    let mut tables: Vec<_> = found.tables().collect();
    tables.sort_by_key(|(table, _)| *table != Table::Filter);
    for (table, stands) in tables {
        if !stands.is_empty() {
            let change = Change {
                whole: true,
                ..Change::new(family, table)
            };
            write_change(&nothing, &change, found, chains_max, out)?;
        }
    }
    Ok(())
}

/// A whole State as the text that makes it stand; for people and goldens.
pub fn show(state: &State) -> String {
    let mut text = String::new();
    let ops = diff(None, state);
    for family in Family::ALL {
        let title = match family {
            Family::V4 => "# IPv4",
            Family::V6 => "# IPv6",
        };
        writeln!(text, "{title}").expect("invariant: a String takes all");
        write(&ops, family, &Saved::default(), usize::MAX, &mut text)
            .expect("invariant: a String takes all");
    }
    text
}

/// Makes the chain stand without rules.
fn empty(chain: &Chain, out: &mut dyn Write) -> fmt::Result {
    writeln!(out, ":{chain} - [0:0]")
}

/// A part of a change.
#[derive(Default)]
struct Commit {
    /// Chains that are written.
    chains: Vec<Chain>,
    /// Chains that only lose their rules, because these lead to chains that go next.
    emptied: Vec<Chain>,
    /// Lines and jumps come and go.
    lines: bool,
    /// Chains that go.
    gone: Vec<Chain>,
}

/// Chains are written after those that they lead to, and removed before them. Whatever has been committed serves: a
/// chain that is new is not in use yet, and one that is not is written as a whole.
fn split(change: &Change, stands: Option<&SavedTable>, chains_max: usize) -> Vec<Commit> {
    let mut gone = change.gone.clone();
    let others = stands.into_iter().flat_map(SavedTable::removable);
    gone.extend(others.filter(|chain| !change.chains.contains(chain)));
    let chains: Vec<Chain> = change.chains.iter().copied().collect();
    if chains.len() + gone.len() <= chains_max {
        let (emptied, lines) = (Vec::new(), true);
        return vec![Commit {
            chains,
            emptied,
            lines,
            gone,
        }];
    }
    let of_service = |chain: &Chain| matches!(chain, Chain::Service(..));
    let (services, fixed): (Vec<Chain>, Vec<Chain>) = chains.into_iter().partition(of_service);
    let (leaves, fixed): (Vec<Chain>, Vec<Chain>) = fixed.into_iter().partition(Chain::is_leaf);
    let mut all = vec![Commit {
        chains: leaves,
        ..Commit::default()
    }];
    all.extend(services.chunks(chains_max).map(|some| Commit {
        chains: some.to_vec(),
        ..Commit::default()
    }));
    let (mut services, gone): (Vec<Chain>, Vec<Chain>) = gone.into_iter().partition(of_service);
    services.sort_unstable_by(|a, b| b.cmp(a));
    all.push(Commit {
        chains: fixed,
        emptied: gone.clone(),
        lines: true,
        gone: Vec::new(),
    });
    all.extend(services.chunks(chains_max).map(|some| Commit {
        gone: some.to_vec(),
        ..Commit::default()
    }));
    all.push(Commit {
        gone,
        ..Commit::default()
    });
    all.retain(|one| one.lines || !one.chains.is_empty() || !one.gone.is_empty());
    all
}

fn write_change(
    to: &State,
    change: &Change,
    found: &Saved,
    chains_max: usize,
    out: &mut dyn Write,
) -> fmt::Result {
    let stands = change.whole.then(|| found.table(change.table)).flatten();
    for commit in split(change, stands, chains_max) {
        writeln!(out, "*{}", change.table.name())?;
        write_chains(to, change, &commit, out)?;
        if commit.lines {
            write_lines(change, stands, out)?;
        }
        commit
            .gone
            .iter()
            .try_for_each(|chain| writeln!(out, "-X {chain}"))?;
        writeln!(out, "COMMIT")?;
    }
    Ok(())
}

/// Every chain is made or emptied before any rule is written.
fn write_chains(to: &State, change: &Change, commit: &Commit, out: &mut dyn Write) -> fmt::Result {
    let side = to.side(change.family);
    let all = commit.chains.iter().chain(&commit.emptied);
    all.chain(&commit.gone)
        .try_for_each(|chain| empty(chain, out))?;
    for chain in &commit.chains {
        for rule in side.rules(change.table, *chain) {
            writeln!(out, "-A {chain} {}", rule.show(change.family))?;
        }
    }
    Ok(())
}

fn write_lines(change: &Change, stands: Option<&SavedTable>, out: &mut dyn Write) -> fmt::Result {
    let family = change.family;
    for (chain, rule) in &change.removed {
        writeln!(out, "-D {} {}", chain.name(), rule.show(family))?;
    }
    for (chain, rule) in &change.added {
        writeln!(out, "-I {} {}", chain.name(), rule.show(family))?;
    }
    if let Some(stands) = stands {
        stands
            .jumps()
            .try_for_each(|jump| writeln!(out, "-D {jump}"))?;
    }
    for (hook, old, new) in &change.jumps {
        for rule in old {
            writeln!(out, "-D {hook} {}", rule.show(family))?;
        }
        // Each is put on top, so the first comes last.
        for rule in new.iter().rev() {
            writeln!(out, "-I {hook} {}", rule.show(family))?;
        }
    }
    Ok(())
}
