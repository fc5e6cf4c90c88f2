//! What stands in each table besides elements: the sets with their types, and the chains.

use std::fmt;

use portolan_model::Family;

use super::class::{Class, Turn};
use super::element::Element;

/// The name of our table, in family `ip` and in family `ip6`.
pub const TABLE: &str = "portolan";

/// The most clients that the memory of session affinity holds, over all Services of a family.
/// Its buckets cost 2 MB. When it is full, new clients are balanced without being remembered.
pub const AFFINITY_MAX: u32 = 131_072;

/// One part of a key or of data; each takes whole 4-byte registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// An address of the table's family.
    Address,
    /// An IP protocol, 1 byte.
    Protocol,
    /// A port, 2 bytes in network order.
    Port,
    /// A number, 4 bytes in the machine's order.
    Number,
}

impl Part {
    /// Bytes without padding.
    pub const fn len(self, family: Family) -> usize {
        match (self, family) {
            (Part::Address, Family::V6) => 16,
            (Part::Protocol, _) => 1,
            (Part::Port, _) => 2,
            (Part::Address | Part::Number, _) => 4,
        }
    }

    /// How many registers it takes.
    pub const fn registers(self, family: Family) -> u8 {
        self.len(family).div_ceil(4) as u8
    }
}

/// How a set keeps its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Plain keys in a hash table.
    Hash,
    /// Ranges of one part.
    Ranges,
    /// Ranges in the last of several parts.
    ConcatRanges,
    /// Keys with a timeout that rules write.
    Memory,
}

/// The sets and maps of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetName {
    /// Frontends with an address → class and identity.
    Services,
    /// Node ports → class and identity.
    NodePorts,
    /// Class → its chain.
    Classes,
    /// Counter → its chain.
    Turns,
    /// Identity and slot → endpoint, for ports without affinity.
    Endpoints,
    /// The same for ports with affinity.
    StickyEndpoints,
    /// Endpoint and identity: who is in the main list of a port with affinity.
    Members,
    /// The same for the other list.
    OtherMembers,
    /// Frontend and source: who may enter a guarded frontend.
    Allowed,
    /// Addresses of which unused ports are rejected.
    ClusterIps,
    /// Endpoint addresses twice: a packet from an endpoint to itself.
    Hairpins,
    /// Addresses on which node ports answer.
    NodePortIps,
    /// Sources that are pods.
    PodCidrs,
    /// Destinations that are dropped when no Service has them.
    ServiceCidrs,
    /// Identity and client → endpoint; written by rules only.
    Affinity,
}

use Part::{Address, Number, Port, Protocol};

impl SetName {
    /// All sets, in the order in which they are made.
    pub const ALL: [SetName; 15] = [
        SetName::Services,
        SetName::NodePorts,
        SetName::Classes,
        SetName::Turns,
        SetName::Endpoints,
        SetName::StickyEndpoints,
        SetName::Members,
        SetName::OtherMembers,
        SetName::Allowed,
        SetName::ClusterIps,
        SetName::Hairpins,
        SetName::NodePortIps,
        SetName::PodCidrs,
        SetName::ServiceCidrs,
        SetName::Affinity,
    ];

    /// Its name in the kernel.
    pub const fn name(self) -> &'static str {
        match self {
            SetName::Services => "services",
            SetName::NodePorts => "node-ports",
            SetName::Classes => "classes",
            SetName::Turns => "turns",
            SetName::Endpoints => "endpoints",
            SetName::StickyEndpoints => "sticky-endpoints",
            SetName::Members => "members",
            SetName::OtherMembers => "other-members",
            SetName::Allowed => "allowed",
            SetName::ClusterIps => "cluster-ips",
            SetName::Hairpins => "hairpins",
            SetName::NodePortIps => "node-port-ips",
            SetName::PodCidrs => "pod-cidrs",
            SetName::ServiceCidrs => "service-cidrs",
            SetName::Affinity => "affinity",
        }
    }

    /// The set with this name in the kernel.
    pub fn named(name: &str) -> Option<Self> {
        SetName::ALL.into_iter().find(|set| set.name() == name)
    }

    /// The parts of its key.
    pub const fn key(self) -> &'static [Part] {
        match self {
            SetName::Services => &[Address, Port, Protocol],
            SetName::NodePorts => &[Port, Protocol],
            SetName::Classes => &[Number, Number],
            SetName::Turns => &[Address, Port, Protocol, Number, Number],
            SetName::Endpoints | SetName::StickyEndpoints => &[Address, Port, Protocol, Number],
            SetName::Members | SetName::OtherMembers => &[Address, Port, Address, Port, Protocol],
            SetName::Allowed => &[Address, Port, Protocol, Address],
            SetName::Hairpins => &[Address, Address],
            SetName::ClusterIps
            | SetName::NodePortIps
            | SetName::PodCidrs
            | SetName::ServiceCidrs => &[Address],
            SetName::Affinity => &[Address, Port, Protocol, Address],
        }
    }

    /// The parts of its data; empty for a plain set and for a verdict map.
    ///
    /// A number in front that is always 0 is there for the `nft` tool only: it cannot show a rule that looks up what
    /// it found in another map, and version 1.0.6 even dies of it, which would break `nft list ruleset` for everybody.
    /// It does not notice if the key starts behind the register where the found data start.
    pub const fn data(self) -> &'static [Part] {
        match self {
            SetName::Services | SetName::NodePorts => &[Number, Number, Number, Address, Port],
            SetName::Endpoints => &[Address, Port],
            SetName::StickyEndpoints | SetName::Affinity => &[Number, Address, Port],
            _ => &[],
        }
    }

    /// Whether its data are verdicts.
    pub const fn has_verdicts(self) -> bool {
        matches!(self, SetName::Classes | SetName::Turns)
    }

    /// Whether packets ask it with what they have found before, so that its elements go after those that led to them.
    ///
    /// Members are asked, too, but a client whose endpoint is no member any more is balanced anew.
    pub const fn is_asked_later(self) -> bool {
        matches!(
            self,
            SetName::Classes
                | SetName::Turns
                | SetName::Endpoints
                | SetName::StickyEndpoints
                | SetName::Allowed
                | SetName::Hairpins
        )
    }

    /// How it keeps its elements.
    pub const fn kind(self) -> Kind {
        match self {
            SetName::Allowed => Kind::ConcatRanges,
            SetName::PodCidrs | SetName::ServiceCidrs => Kind::Ranges,
            SetName::Affinity => Kind::Memory,
            _ => Kind::Hash,
        }
    }
}

/// The chains that every table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BaseChain {
    /// Finds the class of a packet; reached from the next two.
    Services,
    /// Hook prerouting, type nat, priority -100.
    Prerouting,
    /// Hook output, type nat, priority -100.
    Output,
    /// Hook postrouting, type nat, priority 100.
    Postrouting,
}

impl BaseChain {
    /// All, in the order in which they are made.
    pub const ALL: [BaseChain; 4] = [
        BaseChain::Services,
        BaseChain::Prerouting,
        BaseChain::Output,
        BaseChain::Postrouting,
    ];

    /// Netfilter hook number and priority, for those that are attached to one.
    pub const fn hook(self) -> Option<(u32, i32)> {
        match self {
            BaseChain::Services => None,
            BaseChain::Prerouting => Some((0, -100)),
            BaseChain::Output => Some((3, -100)),
            BaseChain::Postrouting => Some((4, 100)),
        }
    }
}

/// A chain of ours. Ordered so that whoever is jumped to comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainId {
    /// The chain of a counter.
    Turn(Turn),
    /// The chain of a class.
    Class(Class),
    /// One that always stands.
    Base(BaseChain),
}

impl ChainId {
    /// The element that leads to it; base chains have none.
    pub const fn element(&self, family: Family) -> Option<Element> {
        match self {
            ChainId::Turn(turn) => Some(Element::Turn(*turn)),
            ChainId::Class(class) => Some(Element::Class(family, *class)),
            ChainId::Base(_) => None,
        }
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChainId::Turn(turn) => turn.fmt(f),
            ChainId::Class(class) => class.fmt(f),
            ChainId::Base(BaseChain::Services) => f.write_str("services"),
            ChainId::Base(BaseChain::Prerouting) => f.write_str("prerouting"),
            ChainId::Base(BaseChain::Output) => f.write_str("output"),
            ChainId::Base(BaseChain::Postrouting) => f.write_str("postrouting"),
        }
    }
}

#[cfg(test)]
mod tests;
