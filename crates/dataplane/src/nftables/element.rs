//! Elements of sets and maps, typed; [`super::bytes`] knows what they are in the kernel.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use portolan_model::{Family, Protocol};

use super::class::{Class, List, Turn};
use super::layout::SetName;

/// An address, protocol and port: a frontend, or the identity of a Service port in one family
/// (the identity of a port that has node ports only has the unspecified address).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spot {
    /// The address.
    pub address: IpAddr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol.as_str().to_ascii_lowercase();
        write!(f, "{} . {} . {protocol}", self.address, self.port)
    }
}

/// One element of one set; its family is that of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// A frontend, its class and its identity.
    Service(Spot, Class, Spot),
    /// A node port, its class and its identity.
    NodePort(Protocol, u16, Class, Spot),
    /// A class that leads to its chain.
    Class(Family, Class),
    /// A counter that leads to its chain.
    Turn(Turn),
    /// The endpoint in one slot of an identity.
    Endpoint(Spot, u32, SocketAddr),
    /// The same, of an identity with affinity.
    StickyEndpoint(Spot, u32, SocketAddr),
    /// An endpoint in a list of an identity with affinity.
    Member(List, Spot, SocketAddr),
    /// A source that may enter a frontend.
    Allowed(Spot, IpNet),
    /// A ClusterIP.
    ClusterIp(IpAddr),
    /// An endpoint address that may talk to itself.
    Hairpin(IpAddr),
    /// An address on which node ports answer.
    NodePortIp(IpAddr),
    /// A range of pods.
    PodCidr(IpNet),
    /// A range of ClusterIPs.
    ServiceCidr(IpNet),
}

impl Element {
    /// The set that it belongs to.
    pub const fn set(&self) -> SetName {
        match self {
            Element::Service(..) => SetName::Services,
            Element::NodePort(..) => SetName::NodePorts,
            Element::Class(..) => SetName::Classes,
            Element::Turn(_) => SetName::Turns,
            Element::Endpoint(..) => SetName::Endpoints,
            Element::StickyEndpoint(..) => SetName::StickyEndpoints,
            Element::Member(List::Main, ..) => SetName::Members,
            Element::Member(List::Other, ..) => SetName::OtherMembers,
            Element::Allowed(..) => SetName::Allowed,
            Element::ClusterIp(_) => SetName::ClusterIps,
            Element::Hairpin(_) => SetName::Hairpins,
            Element::NodePortIp(_) => SetName::NodePortIps,
            Element::PodCidr(_) => SetName::PodCidrs,
            Element::ServiceCidr(_) => SetName::ServiceCidrs,
        }
    }
}

/// As `nft` shows it.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |class: &Class| {
            let [high, low] = class.pack();
            format!("{high:#010x} . {low:#010x}")
        };
        match self {
            Element::Service(spot, class, id) => {
                let to = format!("{} . {}", id.address, id.port);
                write!(f, "{spot} : 0x00000000 . {} . {to}", number(class))
            }
            Element::NodePort(protocol, port, class, id) => {
                let protocol = protocol.as_str().to_ascii_lowercase();
                let to = format!("{} . {}", id.address, id.port);
                write!(
                    f,
                    "{port} . {protocol} : 0x00000000 . {} . {to}",
                    number(class)
                )
            }
            Element::Class(_, class) => write!(f, "{} : goto {class}", number(class)),
            Element::Turn(turn) => {
                let [number, affinity_s] = turn.pack();
                let id = turn.id;
                write!(
                    f,
                    "{id} . {number:#010x} . {affinity_s:#010x} : goto {turn}"
                )
            }
            Element::Endpoint(id, slot, to) => {
                write!(f, "{id} . {slot:#010x} : {} . {}", to.ip(), to.port())
            }
            Element::StickyEndpoint(id, slot, to) => {
                let to = format!("{} . {}", to.ip(), to.port());
                write!(f, "{id} . {slot:#010x} : 0x00000000 . {to}")
            }
            Element::Member(_, id, to) => write!(f, "{} . {} . {id}", to.ip(), to.port()),
            Element::Allowed(spot, range) => write!(f, "{spot} . {range}"),
            Element::Hairpin(ip) => write!(f, "{ip} . {ip}"),
            Element::ClusterIp(ip) | Element::NodePortIp(ip) => ip.fmt(f),
            Element::PodCidr(range) | Element::ServiceCidr(range) => range.fmt(f),
        }
    }
}
