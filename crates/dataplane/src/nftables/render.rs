//! The rules of every chain; those of classes are in [`chain`].

mod chain;
mod pick;
mod turn;

use std::net::SocketAddr;
use std::sync::Arc;

use portolan_model::{Family, LocalPods, Origin};

use super::expr::{Expr, Field, Reg, Rejection, Rule};
use super::layout::{BaseChain, ChainId, SetName};
use super::{MASQUERADE_MARK, SERVER_MARK};

/// How rules recognise pods; the ranges themselves are elements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pods {
    /// Nobody is a pod.
    #[default]
    Unknown,
    /// A source in `pod-cidrs`.
    Cidrs,
    /// Packets from an interface with this name.
    Interface(Arc<str>),
    /// Packets from an interface whose name starts so.
    InterfacePrefix(Arc<str>),
}

impl Pods {
    /// The longest interface name (IFNAMSIZ without the final zero).
    const NAME_MAX: usize = 15;

    /// An interface name that the kernel cannot have recognises nobody.
    pub(crate) fn of(pods: &LocalPods) -> Self {
        match pods {
            LocalPods::Unknown => Pods::Unknown,
            LocalPods::Cidrs(_) => Pods::Cidrs,
            LocalPods::Interface(name) if name.is_empty() => Pods::Unknown,
            LocalPods::Interface(name) | LocalPods::InterfacePrefix(name)
                if name.len() > Self::NAME_MAX =>
            {
                Pods::Unknown
            }
            LocalPods::Interface(name) => Pods::Interface(name.clone()),
            LocalPods::InterfacePrefix(prefix) => Pods::InterfacePrefix(prefix.clone()),
        }
    }
}

/// Where values lie in registers, so that every key is contiguous:
///
/// ```text
///   pad │ endpoint's address │ its port │ destination or identity's address │ port │ protocol │ source or slot
///       └─────── members' key ──────────┴───────────────────────────────────┴──────┘          │
///          pad │ class (2) ─┘ in front  └── endpoints' and affinity's key ────────────────────┘
/// ```
///
/// IPv6 needs all sixteen. The pads are what [`SetName::data`] speaks of.
pub(crate) struct Registers {
    pub pad: Reg,
    pub endpoint: Reg,
    pub endpoint_port: Reg,
    pub class_pad: Reg,
    pub class: Reg,
    pub destination: Reg,
    pub port: Reg,
    pub protocol: Reg,
    pub last: Reg,
    /// How many registers an address takes.
    pub address_width: u8,
}

/// For conditions at the start of a rule, and for the mark at its end: nothing else is needed there.
const SCRATCH: Reg = Reg(0);

impl Registers {
    pub(crate) const fn of(family: Family) -> Self {
        let width = match family {
            Family::V4 => 1,
            Family::V6 => 4,
        };
        let destination = width + 2;
        Registers {
            pad: Reg(0),
            endpoint: Reg(1),
            endpoint_port: Reg(destination - 1),
            class_pad: Reg(destination - 3),
            class: Reg(destination - 2),
            destination: Reg(destination),
            port: Reg(destination + width),
            protocol: Reg(destination + width + 1),
            last: Reg(destination + width + 2),
            address_width: width,
        }
    }
}

/// The rules of `chain` in the table of `family`; `servers` says whether there are virtual servers beside it,
/// `doors` where a relay waits.
pub(crate) fn rules(
    family: Family,
    chain: &ChainId,
    pods: &Pods,
    servers: bool,
    doors: &[(SocketAddr, Origin)],
) -> Vec<Rule> {
    let at = Registers::of(family);
    match chain {
        ChainId::Base(BaseChain::Services) => services(&at),
        ChainId::Base(BaseChain::Prerouting | BaseChain::Output) => {
            vec![Rule(vec![Expr::Jump(ChainId::Base(BaseChain::Services))])]
        }
        ChainId::Base(BaseChain::Postrouting) => postrouting(&at, servers),
        ChainId::Turn(turn) => turn::rules(&at, turn),
        ChainId::Class(class) => {
            let chain = chain::Chain {
                at,
                class,
                pods,
                doors,
            };
            chain.rules()
        }
    }
}

fn services(at: &Registers) -> Vec<Rule> {
    let dispatch = |map, key| {
        let into = at.class_pad;
        [
            decoy(Field::Mark, at.class),
            decoy(Field::Mark, Reg(at.class.0 + 1)),
            Expr::Find { map, key, into },
            Expr::Dispatch {
                map: SetName::Classes,
                key: at.class,
            },
        ]
    };
    let destination = Expr::Load(Field::Destination, at.destination);
    let among = |set| {
        vec![
            destination.clone(),
            Expr::Member {
                set,
                key: at.destination,
                negate: false,
            },
        ]
    };
    let ports = [
        Expr::Load(Field::Port, at.port),
        Expr::Load(Field::Protocol, at.protocol),
    ];
    let mut by_address = vec![destination.clone()];
    by_address.extend(ports.clone());
    by_address.extend(dispatch(SetName::Services, at.destination));
    let mut by_port = among(SetName::NodePortIps);
    by_port.extend(ports);
    by_port.extend(dispatch(SetName::NodePorts, at.port));
    let mut rules = vec![Rule(by_address), Rule(by_port)];
    rules.extend(rejections(at, &among(SetName::ClusterIps)));
    let mut unallocated = among(SetName::ServiceCidrs);
    unallocated.push(Expr::Drop);
    rules.push(Rule(unallocated));
    rules
}

/// Loads something that the next lookup overwrites. It does nothing, but without it the `nft` tool does not know that
/// there is anything in the register (see [`SetName::data`]), and cannot show the rule.
const fn decoy(field: Field, reg: Reg) -> Expr {
    Expr::Load(field, reg)
}

fn rejections(at: &Registers, condition: &[Expr]) -> [Rule; 2] {
    let mut reset = condition.to_vec();
    reset.extend([
        Expr::Load(Field::Protocol, at.protocol),
        Expr::Compare {
            reg: at.protocol,
            negate: false,
            bytes: vec![portolan_model::Protocol::Tcp.number()],
        },
        Expr::Reject(Rejection::TcpReset),
    ]);
    let mut unreachable = condition.to_vec();
    unreachable.push(Expr::Reject(Rejection::PortUnreachable));
    [Rule(reset), Rule(unreachable)]
}

/// Makes the flow one of a virtual server: the chains of ipvs mode bring its packets there.
fn to_server() -> [Expr; 4] {
    let (mask, xor) = (!SERVER_MARK, SERVER_MARK);
    let reg = SCRATCH;
    [
        Expr::Load(Field::FlowMark, reg),
        Expr::Bits { reg, mask, xor },
        Expr::SetFlowMark(reg),
        Expr::Accept,
    ]
}

fn set_mark() -> [Expr; 3] {
    let (mask, xor) = (!MASQUERADE_MARK, MASQUERADE_MARK);
    let reg = SCRATCH;
    [
        Expr::Load(Field::Mark, reg),
        Expr::Bits { reg, mask, xor },
        Expr::SetMark(reg),
    ]
}

/// `IPS_DST_NAT` of linux/netfilter/nf_conntrack_common.h.
pub(crate) const STATUS_DNAT: u32 = 1 << 5;

fn postrouting(at: &Registers, servers: bool) -> Vec<Rule> {
    let reg = SCRATCH;
    let bits = |mask, xor| Expr::Bits { reg, mask, xor };
    let compare = |negate, value: u32| Expr::Compare {
        reg,
        negate,
        bytes: value.to_ne_bytes().to_vec(),
    };
    let marked = vec![
        Expr::Load(Field::Mark, reg),
        bits(MASQUERADE_MARK, 0),
        compare(false, MASQUERADE_MARK),
        Expr::Load(Field::Mark, reg),
        bits(u32::MAX, MASQUERADE_MARK),
        Expr::SetMark(reg),
        Expr::Masquerade,
    ];
    let hairpin = |translated: [Expr; 3]| {
        let mut all = translated.to_vec();
        all.extend([
            Expr::Load(Field::Source, at.endpoint),
            Expr::Load(Field::Destination, Reg(at.endpoint_port.0)),
            Expr::Member {
                set: SetName::Hairpins,
                key: at.endpoint,
                negate: false,
            },
            Expr::Masquerade,
        ]);
        Rule(all)
    };
    let by_us = [
        Expr::Load(Field::Status, reg),
        bits(STATUS_DNAT, 0),
        compare(true, 0),
    ];
    // IPVS translates without telling conntrack's status.
    let by_server = [
        Expr::Load(Field::FlowMark, reg),
        bits(SERVER_MARK, 0),
        compare(true, 0),
    ];
    let mut rules = vec![Rule(marked), hairpin(by_us)];
    rules.extend(servers.then(|| hairpin(by_server)));
    rules
}

#[cfg(test)]
mod tests;
