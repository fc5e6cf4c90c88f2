//! The iptables target: chains of ours in the tables of one network namespace, by way of the tools `iptables-restore`
//! and `iptables-save`, which every node with kube-proxy has.
//!
//! ```text
//!   Ops ──text──▶ iptables-restore --noflush ──▶ each table is one commit: all of it or nothing
//!   State ◀─adopt─ Saved ◀─text─ iptables-save        at the start, and when somebody else changed rules
//! ```
//!
//! There are two kernels behind the tools ([`Variant`]), whose rules do not see each other.

mod fingerprint;
mod tool;
mod variant;

use std::time::{Duration, Instant};

use portolan_dataplane::iptables::{
    Iptables, Ops, Saved, State, Table, adopt, commits, write, write_removal,
};
use portolan_model::{ApplyError, Family, Target};

pub use variant::{CHAINS_PER_COMMIT, Variant};

use fingerprint::{Fingerprint, Watch};
use tool::Tool;

/// Of the time that passes, at most one part in this many goes into reading rules that others keep changing.
pub const READING_SHARE: u32 = 20;

/// The tables of one network namespace.
pub struct IptablesTarget {
    /// [`READING_SHARE`], or 0 to read whenever something has changed.
    pub reading_share: u32,
    tool: Tool,
    watch: Watch,
    /// How the tables looked after our last commit or reading, if nobody else can have changed them in between.
    known: Option<Fingerprint>,
    /// When rules were read back last, and how long that took.
    read: Option<(Instant, Duration)>,
}

impl IptablesTarget {
    /// The tables of the network namespace that the calling thread is in. The target stays with that namespace.
    pub fn open(variant: Variant) -> Result<Self, ApplyError> {
        let watch = Watch::open(variant)?;
        let tool = Tool::here(variant)?;
        // Says what is missing on this machine before anything depends on it; this table has nothing but canaries.
        for family in Family::ALL {
            tool.save(family, Some(Table::Mangle))?;
        }
        Ok(IptablesTarget {
            reading_share: READING_SHARE,
            tool,
            watch,
            known: None,
            read: None,
        })
    }

    /// The kernel behind the tools.
    pub fn variant(&self) -> Variant {
        self.tool.variant
    }

    /// Removes everything of ours, in both families. Says whether there was anything.
    pub fn remove(&mut self) -> Result<bool, ApplyError> {
        self.known = None;
        remove(&self.tool)
    }
}

/// Whether the machine has the tools of either variant.
pub fn is_installed() -> bool {
    let variants = [Variant::Nft, Variant::Legacy].into_iter();
    let mut tools = variants.filter_map(|variant| Tool::here(variant).ok());
    tools.any(|tool| tool.is_installed())
}

/// Removes what iptables mode has left in the network namespace of the calling thread, behind whichever tools there are.
pub fn clean_up() -> Result<(), ApplyError> {
    for variant in [Variant::Nft, Variant::Legacy] {
        let tool = Tool::here(variant)?;
        if tool.is_installed() {
            remove(&tool)?;
        }
    }
    Ok(())
}

fn remove(tool: &Tool) -> Result<bool, ApplyError> {
    let found = saved(tool)?;
    for (family, found) in Family::ALL.into_iter().zip(&found) {
        tool.restore(family, |out| {
            write_removal(family, found, tool.variant.chains_max(), out)
        })?;
    }
    Ok(found.iter().any(|found| !found.is_empty()))
}

fn saved(tool: &Tool) -> Result<[Saved; 2], ApplyError> {
    let read = |family| Ok(Saved::parse(family, &tool.save(family, None)?));
    Ok([read(Family::V4)?, read(Family::V6)?])
}

impl Target<Iptables> for IptablesTarget {
    fn apply(&mut self, ops: &Ops) -> Result<(), ApplyError> {
        if ops.changes.is_empty() {
            return Ok(());
        }
        let known = self.known.take();
        let whole = ops.changes.iter().any(|change| change.whole);
        let before = self.watch.fingerprint()?;
        let found = match whole {
            true => saved(&self.tool)?,
            false => Default::default(),
        };
        let chains_max = self.tool.variant.chains_max();
        for (family, found) in Family::ALL.into_iter().zip(&found) {
            self.tool
                .restore(family, |out| write(ops, family, found, chains_max, out))?;
        }
        let after = self.watch.fingerprint()?;
        // What somebody else did before or between our commits is not noticed by them. When everything is rewritten, a
        // table that has not changed is no commit, so that they cannot be counted.
        let trusted = !whole && known.as_ref() == Some(&before);
        let made = commits(ops, chains_max);
        self.known = Some(after).filter(|after| trusted && after.follows(&before, made));
        Ok(())
    }

    fn read(&mut self) -> Result<Option<State>, ApplyError> {
        let begun = Instant::now();
        let before = self.watch.fingerprint()?;
        let found = saved(&self.tool)?;
        let after = self.watch.fingerprint()?;
        self.known = (before == after).then_some(after);
        self.read = Some((Instant::now(), begun.elapsed()));
        Ok(adopt(&found))
    }

    /// To read all rules back costs much where there are many, and other programs change theirs all the time: between
    /// two readings it is enough that our canaries stand.
    fn unchanged(&mut self) -> Result<bool, ApplyError> {
        let now = self.watch.fingerprint()?;
        if self.known.as_ref() == Some(&now) {
            return Ok(true);
        }
        let recent = self
            .read
            .is_some_and(|(at, cost)| at.elapsed() < cost * self.reading_share);
        Ok(recent && self.tool.canaries_stand()?)
    }
}
