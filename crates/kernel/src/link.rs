//! Links, addresses and routes of one network namespace.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
    State,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use crate::error::{Error, Result};
use crate::netlink::RouteSocket;
use crate::netns::Netns;

/// The links of one network namespace, changed over a netlink socket of it.
pub struct Links {
    socket: RouteSocket,
}

/// A link that carries Ethernet frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ethernet {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The most bytes of one IP packet.
    pub mtu: u32,
    /// Its own address on the wire.
    pub mac: [u8; 6],
}

/// A route to be added.
#[derive(Debug, Clone)]
pub struct Route {
    /// Where it leads; prefix length 0 is the default route.
    pub to: IpNet,
    /// The next hop; `None` for destinations that are on the link itself.
    pub via: Option<IpAddr>,
    /// The outgoing link; needed without `via`, or when `via` is not in any connected network.
    pub dev: Option<String>,
    /// The source address for packets that this namespace sends itself.
    pub src: Option<IpAddr>,
}

impl Route {
    /// A route through a gateway of a connected network.
    pub fn via(to: IpNet, gateway: IpAddr) -> Route {
        Route {
            to,
            via: Some(gateway),
            dev: None,
            src: None,
        }
    }

    /// A route to hosts that are reached directly over `dev`.
    pub fn dev(to: IpNet, dev: &str) -> Route {
        Route {
            to,
            via: None,
            dev: Some(dev.to_string()),
            src: None,
        }
    }

    /// The same with a preferred source address.
    pub fn from(mut self, src: IpAddr) -> Route {
        self.src = Some(src);
        self
    }
}

impl Links {
    /// The links of the calling thread's namespace.
    pub fn here() -> Result<Links> {
        Ok(Links {
            socket: RouteSocket::open()?,
        })
    }

    /// The links of `netns`.
    pub fn of(netns: &Netns) -> Result<Links> {
        Ok(Links {
            socket: RouteSocket::open_in(netns)?,
        })
    }

    /// Creates the pair `name` (here) and `peer` (in `peer_netns`, or here too). Both are down.
    pub fn add_veth(&mut self, name: &str, peer: &str, peer_netns: Option<&Netns>) -> Result<()> {
        check_name(name)?;
        check_name(peer)?;
        let mut other = LinkMessage::default();
        other.attributes.push(LinkAttribute::IfName(peer.into()));
        if let Some(netns) = peer_netns {
            other
                .attributes
                .push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
        }
        let info = vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
        ];
        self.add_link(&format!("create the link pair {name}/{peer}"), name, info)
    }

    /// Creates a bridge; it is down.
    pub fn add_bridge(&mut self, name: &str) -> Result<()> {
        check_name(name)?;
        self.add_link(
            &format!("create the bridge {name}"),
            name,
            vec![LinkInfo::Kind(InfoKind::Bridge)],
        )
    }

    fn add_link(&mut self, what: &str, name: &str, info: Vec<LinkInfo>) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::LinkInfo(info),
        ];
        self.socket
            .change(what, NLM_F_CREATE | NLM_F_EXCL, Message::NewLink(message))
    }

    /// Removes a link (of a pair: both ends).
    pub fn delete(&mut self, name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        self.socket.change(
            &format!("delete the link {name}"),
            0,
            Message::DelLink(message),
        )
    }

    /// Brings a link up.
    pub fn up(&mut self, name: &str) -> Result<()> {
        let mut message = self.named(name)?;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.socket.change(
            &format!("bring up the link {name}"),
            0,
            Message::SetLink(message),
        )
    }

    /// Takes a link down.
    pub fn down(&mut self, name: &str) -> Result<()> {
        let mut message = self.named(name)?;
        message.header.change_mask = LinkFlags::Up;
        self.socket.change(
            &format!("take down the link {name}"),
            0,
            Message::SetLink(message),
        )
    }

    /// Makes a link a port of a bridge.
    pub fn set_bridge(&mut self, name: &str, bridge: &str) -> Result<()> {
        let bridge_index = self.index(bridge)?;
        let mut message = self.named(name)?;
        message
            .attributes
            .push(LinkAttribute::Controller(bridge_index));
        self.socket.change(
            &format!("make {name} a port of {bridge}"),
            0,
            Message::SetLink(message),
        )
    }

    /// Moves a link into another namespace, where it gets the name `new_name`. It is down there.
    pub fn move_to(&mut self, name: &str, netns: &Netns, new_name: &str) -> Result<()> {
        check_name(new_name)?;
        let mut message = self.named(name)?;
        message
            .attributes
            .push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
        message
            .attributes
            .push(LinkAttribute::IfName(new_name.into()));
        self.socket.change(
            &format!("move the link {name} to another namespace"),
            0,
            Message::SetLink(message),
        )
    }

    /// The names of all links.
    pub fn names(&mut self) -> Result<Vec<String>> {
        Ok(self
            .list()?
            .iter()
            .filter_map(link_name)
            .map(str::to_string)
            .collect())
    }

    /// Whether every link but the loopback is ready to carry packets. The kernel gets a link ready some time after
    /// both its ends were brought up, and loses packets until then.
    pub fn are_ready(&mut self) -> Result<bool> {
        let up = LinkAttribute::OperState(State::Up);
        let ready =
            |link: &LinkMessage| link_name(link) == Some("lo") || link.attributes.contains(&up);
        Ok(self.list()?.iter().all(ready))
    }

    /// All links that carry Ethernet frames; the loopback is none of them.
    pub fn ethernet(&mut self) -> Result<Vec<Ethernet>> {
        let read = |link: &LinkMessage| {
            let ethernet = link.header.link_layer_type == LinkLayerType::Ether;
            let (mut mtu, mut mac) = (None, None);
            for attribute in &link.attributes {
                match attribute {
                    LinkAttribute::Mtu(bytes) => mtu = Some(*bytes),
                    LinkAttribute::Address(bytes) => mac = bytes.first_chunk().copied(),
                    _ => {}
                }
            }
            Some(Ethernet {
                index: link.header.index,
                name: link_name(link).filter(|_| ethernet)?.to_string(),
                mtu: mtu?,
                mac: mac?,
            })
        };
        Ok(self.list()?.iter().filter_map(read).collect())
    }

    /// The index of a link.
    pub fn index(&mut self, name: &str) -> Result<u32> {
        let links = self.list()?;
        let link = links.iter().find(|link| link_name(link) == Some(name));
        link.map(|link| link.header.index)
            .ok_or_else(|| Error::call(format!("find the link {name}"), nix::errno::Errno::ENODEV))
    }

    fn list(&mut self) -> Result<Vec<LinkMessage>> {
        let answers = self
            .socket
            .dump("list the links", Message::GetLink(LinkMessage::default()))?;
        Ok(answers
            .into_iter()
            .filter_map(|m| {
                if let Message::NewLink(link) = m {
                    Some(link)
                } else {
                    None
                }
            })
            .collect())
    }

    fn named(&mut self, name: &str) -> Result<LinkMessage> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(name)?;
        Ok(message)
    }

    /// Adds an address; IPv6 ones are usable at once (no duplicate address detection).
    pub fn add_address(&mut self, name: &str, address: IpNet) -> Result<()> {
        self.add_scoped_address(name, address, AddressScope::Universe)
    }

    /// Adds an address that is never chosen as a source outside its link.
    pub fn add_link_address(&mut self, name: &str, address: IpNet) -> Result<()> {
        self.add_scoped_address(name, address, AddressScope::Link)
    }

    fn add_scoped_address(
        &mut self,
        name: &str,
        address: IpNet,
        scope: AddressScope,
    ) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.addr());
        message.header.prefix_len = address.prefix_len();
        message.header.index = self.index(name)?;
        message.header.scope = scope;
        message
            .attributes
            .push(AddressAttribute::Address(address.addr()));
        match address {
            IpNet::V4(_) => message
                .attributes
                .push(AddressAttribute::Local(address.addr())),
            IpNet::V6(_) => message.header.flags = AddressHeaderFlags::Nodad,
        }
        let what = format!("add the address {address} to {name}");
        self.socket.change(
            &what,
            NLM_F_CREATE | NLM_F_EXCL,
            Message::NewAddress(message),
        )
    }

    /// The addresses of all links, each with its link's index.
    pub fn addresses(&mut self) -> Result<Vec<(u32, IpNet)>> {
        let answers = self.socket.dump(
            "list the addresses",
            Message::GetAddress(AddressMessage::default()),
        )?;
        let read = |message| {
            let Message::NewAddress(message) = message else {
                return None;
            };
            let local = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(ip) => Some(*ip),
                _ => None,
            });
            let any = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            });
            let net = IpNet::new(local.or(any)?, message.header.prefix_len).ok()?;
            Some((message.header.index, net))
        };
        Ok(answers.into_iter().filter_map(read).collect())
    }

    /// Adds a route, or replaces the one with the same destination.
    pub fn set_route(&mut self, route: &Route) -> Result<()> {
        let message = self.route_message(route)?;
        let what = format!("add the route to {}", route.to);
        self.socket.change(
            &what,
            NLM_F_CREATE | NLM_F_REPLACE,
            Message::NewRoute(message),
        )
    }

    /// Removes a route.
    pub fn delete_route(&mut self, route: &Route) -> Result<()> {
        let message = self.route_message(route)?;
        self.socket.change(
            &format!("delete the route to {}", route.to),
            0,
            Message::DelRoute(message),
        )
    }

    fn route_message(&mut self, route: &Route) -> Result<RouteMessage> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(route.to.addr());
        message.header.destination_prefix_length = route.to.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.header.scope = match (route.via, route.to) {
            (None, IpNet::V4(_)) => RouteScope::Link,
            _ => RouteScope::Universe,
        };
        if route.to.prefix_len() > 0 {
            message
                .attributes
                .push(RouteAttribute::Destination(route.to.network().into()));
        }
        if let Some(gateway) = route.via {
            message
                .attributes
                .push(RouteAttribute::Gateway(gateway.into()));
        }
        if let Some(src) = route.src {
            message
                .attributes
                .push(RouteAttribute::PrefSource(src.into()));
        }
        if let Some(dev) = &route.dev {
            message
                .attributes
                .push(RouteAttribute::Oif(self.index(dev)?));
        }
        Ok(message)
    }
}

fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn link_name(link: &LinkMessage) -> Option<&str> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
}

/// The kernel's rule for link names, said before the kernel says only "invalid argument".
fn check_name(name: &str) -> Result<()> {
    let bad = name.is_empty()
        || name.len() > 15
        || name.contains(['/', ':'])
        || name.contains(char::is_whitespace);
    if bad {
        return Err(Error::Protocol(format!(
            "{name:?} can't be the name of a link: 1 to 15 characters, no / : or space"
        )));
    }
    Ok(())
}
