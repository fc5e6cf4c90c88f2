//! Changes as the text that `iptables-restore --noflush` reads.

use std::fmt::{self, Write};

use portolan_model::Family;

use super::adopt::Saved;
use super::diff::{Change, Ops, diff};
use super::name::Chain;
use super::state::State;

/// Writes what `ops` change in `family`; nothing if they change nothing there. Each table is one commit.
///
/// `found` is what stands there now. It is needed for changes that rewrite everything: whatever else of ours stands
/// there goes in the same commit.
pub fn write(ops: &Ops, family: Family, found: &Saved, out: &mut dyn Write) -> fmt::Result {
    for change in ops.changes.iter().filter(|change| change.family == family) {
        writeln!(out, "*{}", change.table.name())?;
        body(&ops.to, change, found, out)?;
        writeln!(out, "COMMIT")?;
    }
    Ok(())
}

/// Writes what removes everything of ours that stands in one family; nothing if nothing does.
pub fn write_removal(found: &Saved, out: &mut dyn Write) -> fmt::Result {
    for (table, stands) in found.tables() {
        if stands.is_empty() {
            continue;
        }
        writeln!(out, "*{}", table.name())?;
        let all: Vec<Chain> = stands.removable().collect();
        all.iter().try_for_each(|chain| empty(chain, out))?;
        stands
            .jumps()
            .try_for_each(|jump| writeln!(out, "-D {jump}"))?;
        all.iter()
            .try_for_each(|chain| writeln!(out, "-X {chain}"))?;
        writeln!(out, "COMMIT")?;
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
        write(&ops, family, &Saved::default(), &mut text).expect("invariant: a String takes all");
    }
    text
}

/// Makes the chain stand without rules.
fn empty(chain: &Chain, out: &mut dyn Write) -> fmt::Result {
    writeln!(out, ":{chain} - [0:0]")
}

/// Every chain is made or emptied before any rule is written, and removed after every rule that led there is gone.
fn body(to: &State, change: &Change, found: &Saved, out: &mut dyn Write) -> fmt::Result {
    let Change { family, table, .. } = *change;
    let side = to.side(family);
    let stands = change.whole.then(|| found.table(table)).flatten();
    let mut gone = change.gone.clone();
    let others = stands.iter().flat_map(|stands| stands.removable());
    gone.extend(others.filter(|chain| !change.chains.contains(chain)));
    change
        .chains
        .iter()
        .chain(&gone)
        .try_for_each(|chain| empty(chain, out))?;
    for chain in &change.chains {
        for rule in side.rules(table, *chain) {
            writeln!(out, "-A {chain} {}", rule.show(family))?;
        }
    }
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
    gone.iter()
        .try_for_each(|chain| writeln!(out, "-X {chain}"))
}
