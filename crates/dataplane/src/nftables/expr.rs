//! Rules as a small language on registers, as the kernel has it: interpreted by `trace`, encoded by the kernel codec.
//!
//! There are sixteen registers of four bytes. Longer values take several in a row, shorter ones are padded with zeros.
//! A rule reads only registers that it wrote itself; newer kernels refuse anything else.

use portolan_model::Family;

use super::layout::{ChainId, SetName};

/// A register, 0 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reg(pub u8);

/// What can be loaded about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Source address.
    Source,
    /// Destination address.
    Destination,
    /// IP protocol.
    Protocol,
    /// Destination port.
    Port,
    /// Source port.
    SourcePort,
    /// Index of the interface it came in on; 0 for packets of the node itself.
    Interface,
    /// Name of that interface, 16 bytes padded with zeros.
    InterfaceName,
    /// The packet mark.
    Mark,
    /// Conntrack's status bits.
    Status,
    /// The mark of the flow's conntrack entry.
    FlowMark,
    /// Whether the packet goes the way of the flow's first one (0) or back (1), 1 byte.
    Direction,
}

impl Field {
    /// How many bytes it loads.
    pub const fn len(self, family: Family) -> usize {
        match (self, family) {
            (Field::Source | Field::Destination, Family::V6) | (Field::InterfaceName, _) => 16,
            (Field::Protocol | Field::Direction, _) => 1,
            (Field::Port | Field::SourcePort, _) => 2,
            _ => 4,
        }
    }
}

/// The two errors that a client can be answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// A TCP reset.
    TcpReset,
    /// ICMP or ICMPv6 port unreachable.
    PortUnreachable,
}

/// One expression of a rule. If one does not match, the rule ends there and the next one is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Loads a field.
    Load(Field, Reg),
    /// Loads bytes that are the same for every packet, at most sixteen, padded with zeros to whole registers.
    Value {
        /// Where they go.
        into: Reg,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// `register = register & mask ^ xor`, four bytes in the machine's order.
    Bits {
        /// Read and written.
        reg: Reg,
        /// Bits to keep.
        mask: u32,
        /// Bits to turn over after that.
        xor: u32,
    },
    /// Matches if the register starts with these bytes (or does not, if `negate`).
    Compare {
        /// Where the value starts.
        reg: Reg,
        /// Match if it differs.
        negate: bool,
        /// What it is compared with.
        bytes: Vec<u8>,
    },
    /// Matches if the key is in the set (or is not, if `negate`).
    Member {
        /// The set.
        set: SetName,
        /// Where the key starts.
        key: Reg,
        /// Match if it is not.
        negate: bool,
    },
    /// Matches if the map has the key, and loads the data.
    Find {
        /// The map.
        map: SetName,
        /// Where the key starts.
        key: Reg,
        /// Where the data go; may overlap the key.
        into: Reg,
    },
    /// Goes to the chain that a map of verdicts has for the key, if any.
    Dispatch {
        /// The map.
        map: SetName,
        /// Where the key starts.
        key: Reg,
    },
    /// A random number from `offset` to `offset + modulus - 1`.
    Random {
        /// How many numbers there are.
        modulus: u32,
        /// The first one.
        offset: u32,
        /// Where it goes.
        into: Reg,
    },
    /// The next of these numbers, in turn: from `offset` to `offset + modulus - 1`. Each rule has its own counter.
    Next {
        /// How many numbers there are.
        modulus: u32,
        /// The first one.
        offset: u32,
        /// Where it goes.
        into: Reg,
    },
    /// The number from `offset` to `offset + modulus - 1` that a hash gives (`model::hash`, with its client seed).
    Hash {
        /// Where the bytes start that are hashed.
        key: Reg,
        /// How many they are.
        length: u8,
        /// How many numbers there are.
        modulus: u32,
        /// The first one.
        offset: u32,
        /// Where it goes.
        into: Reg,
    },
    /// Remembers a client's endpoint; if it is remembered already, only its time starts anew.
    /// Does not match when the memory is full.
    Remember {
        /// Where the client and identity start.
        key: Reg,
        /// Where the endpoint starts.
        data: Reg,
        /// How long, in seconds.
        timeout_s: u32,
    },
    /// Forgets a client.
    Forget {
        /// Where the client and identity start.
        key: Reg,
        /// Where the endpoint starts (the kernel wants to know).
        data: Reg,
    },
    /// Sets the packet mark.
    SetMark(Reg),
    /// Sets the mark of the flow's conntrack entry.
    SetFlowMark(Reg),
    /// Rewrites the destination, for the whole flow.
    Dnat {
        /// Where the address starts.
        address: Reg,
        /// Where the port is.
        port: Reg,
    },
    /// Rewrites the source to the address of the interface it leaves by, with a random port.
    Masquerade,
    /// Answers with an error.
    Reject(Rejection),
    /// No answer.
    Drop,
    /// The end of the base chain: the packet goes on.
    Accept,
    /// Continues in a chain and comes back.
    Jump(ChainId),
}

/// One rule: its expressions from left to right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule(pub Vec<Expr>);

impl Rule {
    /// A number by which the rule is recognised when it is read back: FNV-1a of its text.
    pub fn digest(&self, family: Family) -> u64 {
        fnv(FORMAT, self.show(family).as_bytes())
    }
}

/// Starts every digest; change it when rules of the same text get another meaning.
const FORMAT: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bits: small, and the same on every machine and in every version.
pub(crate) fn fnv(start: u64, bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(start, step)
}

/// The digest of a chain: of the digests of its rules, in order.
pub(crate) fn digest_of(rules: impl IntoIterator<Item = u64>) -> u64 {
    rules
        .into_iter()
        .fold(FORMAT, |hash, rule| fnv(hash, &rule.to_be_bytes()))
}

#[cfg(test)]
mod tests;
