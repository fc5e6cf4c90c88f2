//! The nftables target: our tables in the kernel of one network namespace, spoken to in netlink.
//!
//! ```text
//!   Ops ──batch──▶ one datagram ──▶ nf_tables: all of it or nothing
//!   State ◀─adopt─ Readback ◀─read─ dumps of chains, rules, sets, elements
//! ```
//!
//! The codec is our own and knows only what our rules need. Nothing of tables that are not ours is touched.

mod batch;
mod counts;
mod nearby;
mod numbers;
pub(crate) mod path;
pub(crate) mod ports;
mod read;
mod resets;
mod rules;
mod side;

use portolan_dataplane::nftables::{Nftables, Op, Ops, Readback, State, adopt};
use portolan_model::{ApplyError, Family, Target};

use crate::nfnetlink::socket::{Nfnetlink, Refusal};
use batch::{Batch, Standing};
pub use counts::ConnectionCounts;
pub use nearby::{NearbyTable, Way};
use read::Found;
pub use resets::{Ends, ResetTable};

/// How often a transaction or a dump is tried anew when somebody else changes the rule set at the same moment.
const RETRIES_MAX: usize = 5;

/// nf_tables of one network namespace.
pub struct NftTarget {
    socket: Nfnetlink,
    /// The generation of the rule set after our last transaction or reading.
    known: Option<u32>,
}

impl NftTarget {
    /// Opens nf_tables of the network namespace that the calling thread is in. The target stays with that namespace.
    pub fn open() -> Result<Self, ApplyError> {
        let mut socket = Nfnetlink::open()?;
        socket.generation().map_err(|error| ApplyError {
            doing: "this kernel does not let us use nf_tables (it needs CONFIG_NF_TABLES and CAP_NET_ADMIN)".into(),
            words: error.words,
        })?;
        let known = None;
        Ok(NftTarget { socket, known })
    }

    /// Takes away all that is ours, in one transaction; nothing happens if nothing is there.
    pub fn remove(&mut self) -> Result<(), ApplyError> {
        self.known = None;
        let mut batch = Batch::new(self.socket.next_sequence(), None);
        for family in Family::ALL {
            batch.remove(family);
        }
        let batch = batch.finish();
        let done = self.socket.transact(batch.bytes(), batch.sequence_end());
        done.map_err(|refusals| told(&batch, &refusals))
    }

    /// For a process without the privilege to enlarge the socket's buffer (root of a user namespace): the same messages
    /// in order, in several transactions. In between, a frontend whose elements change may be missing.
    fn apply_in_parts(&mut self, batch: &Batch, room: usize) -> Result<(), ApplyError> {
        for part in batch.parts(room) {
            let done = self.socket.transact(&part, batch.sequence_end());
            done.map_err(|refusals| told(batch, &refusals))?;
        }
        Ok(())
    }

    /// One transaction; the generation before it, where it is certain that nobody else came in between.
    /// `expected` is asked for only if it is not known, or somebody else came in between.
    fn transact(
        &mut self,
        ops: &[&Op],
        standing: &[Standing; 2],
        mut expected: Option<u32>,
    ) -> Result<Option<u32>, ApplyError> {
        for attempt in 0.. {
            let generation = match (attempt < RETRIES_MAX, expected.take()) {
                (true, None) => Some(self.socket.generation()?),
                (true, expected) => expected,
                (false, _) => None,
            };
            let mut batch = Batch::new(self.socket.next_sequence(), generation);
            for op in ops {
                batch.op(op, standing);
            }
            let batch = batch.finish();
            let size = batch.bytes().len();
            let room = self.socket.room(size)?;
            if size > room {
                return self.apply_in_parts(&batch, room).map(|()| None);
            }
            match self.socket.transact(batch.bytes(), batch.sequence_end()) {
                Ok(()) => return Ok(generation),
                Err(refusals) if generation.is_some() && is_stale(&refusals) => {}
                Err(refusals) => return Err(told(&batch, &refusals)),
            }
        }
        Ok(None)
    }

    fn standing(&mut self, ops: &Ops) -> Result<[Standing; 2], ApplyError> {
        let mut all = <[Standing; 2]>::default();
        for op in &ops.0 {
            if let Op::Reset(family) = op {
                all[*family as usize] = read::standing(&mut self.socket, *family)?;
            }
        }
        Ok(all)
    }

    fn try_read(&mut self) -> Result<Option<[Found; 2]>, ApplyError> {
        let v4 = read::table(&mut self.socket, Family::V4)?;
        let v6 = read::table(&mut self.socket, Family::V6)?;
        let interrupted = |found: &Found| matches!(found, Found::Interrupted);
        let all = [v4, v6];
        Ok((!all.iter().any(interrupted)).then_some(all))
    }
}

impl Target<Nftables> for NftTarget {
    fn apply(&mut self, ops: &Ops) -> Result<(), ApplyError> {
        if ops.0.is_empty() {
            return Ok(());
        }
        let mut known = self.known.take();
        let mut now = known;
        let rewritten = ops.0.iter().any(|op| matches!(op, Op::Reset(_)));
        let standing = self.standing(ops)?;
        for ops in ops.transactions() {
            let generation = self.transact(&ops, &standing, now)?;
            // What somebody else did before this transaction is not noticed by it.
            let trusted = rewritten || known == generation;
            now = generation.map(next_generation);
            known = now.filter(|_| trusted);
        }
        self.known = known;
        Ok(())
    }

    fn read(&mut self) -> Result<Option<State>, ApplyError> {
        for _ in 0..RETRIES_MAX {
            let before = self.socket.generation()?;
            let found = self.try_read()?;
            if self.socket.generation()? != before {
                continue;
            }
            self.known = Some(before);
            let read = |found: Found| match found {
                Found::Ours(read) => Some(read),
                Found::Foreign | Found::Interrupted => None,
            };
            let tables: Option<[Readback; 2]> =
                found.and_then(|[v4, v6]| Some([read(v4)?, read(v6)?]));
            return Ok(tables.as_ref().and_then(adopt));
        }
        Err(ApplyError {
            doing: "cannot read nf_tables".into(),
            words: "somebody changes the rule set all the time".into(),
        })
    }

    fn unchanged(&mut self) -> Result<bool, ApplyError> {
        let now = self.socket.generation()?;
        Ok(self.known == Some(now))
    }
}

/// The kernel counts transactions and leaves out zero.
fn next_generation(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}

/// Somebody else was faster: the batch was made for an older generation.
fn is_stale(refusals: &[Refusal]) -> bool {
    // ERESTART, which libc names for some targets only.
    refusals.iter().any(|refusal| refusal.errno == 85)
}

/// The first refusal in words, and how many more there are.
fn told(batch: &Batch, refusals: &[Refusal]) -> ApplyError {
    let label = refusals
        .first()
        .and_then(|first| batch.label(first.sequence));
    let doing = match label {
        Some((number, label)) => format!("nf_tables refused message {number} ({label})"),
        None => "nf_tables refused the transaction".into(),
    };
    told_first(&doing, refusals)
}

fn told_first(doing: &str, refusals: &[Refusal]) -> ApplyError {
    let Some(first) = refusals.first() else {
        return ApplyError {
            doing: doing.into(),
            words: "refused without a word".into(),
        };
    };
    let words = match refusals.len() {
        1 => first.words.clone(),
        count => format!("{}, and {} more refusals", first.words, count - 1),
    };
    ApplyError {
        doing: doing.into(),
        words,
    }
}
