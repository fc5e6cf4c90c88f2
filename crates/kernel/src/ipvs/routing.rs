//! Packets with the mark of virtual servers are delivered locally, whatever their address: one rule and one route for
//! each family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use portolan_dataplane::nftables::SERVER_MARK;
use portolan_model::Family;

use crate::error::Result;
use crate::link::Links;
use crate::netlink::RouteSocket;

/// The routing table: the number of the mark, so that both are recognised together.
const TABLE: u32 = SERVER_MARK;

/// Behind the table of local addresses (0), before everything else that is usual.
const PRIORITY: u32 = 50;

/// Routing of one network namespace.
pub(super) struct Routing {
    socket: RouteSocket,
    loopback: u32,
}

impl Routing {
    /// That of the calling thread's namespace.
    pub fn open() -> Result<Self> {
        Ok(Routing {
            socket: RouteSocket::open()?,
            loopback: Links::here()?.index("lo")?,
        })
    }

    /// Makes rule and route stand. Does nothing where they do.
    pub fn ensure(&mut self) -> Result<()> {
        for family in Family::ALL {
            let route = Message::NewRoute(self.route(family));
            self.socket.change(
                "add the local route of ipvs mode",
                NLM_F_CREATE | NLM_F_REPLACE,
                route,
            )?;
            let flags = NLM_F_CREATE | NLM_F_EXCL;
            let added = self.socket.change(
                "add the routing rule of ipvs mode",
                flags,
                Message::NewRule(rule(family)),
            );
            unless(added, libc::EEXIST)?;
        }
        Ok(())
    }

    /// Takes both away.
    pub fn remove(&mut self) -> Result<()> {
        for family in Family::ALL {
            let what = "remove the routing rule of ipvs mode";
            let gone = self.socket.change(what, 0, Message::DelRule(rule(family)));
            unless(gone, libc::ENOENT)?;
            let route = Message::DelRoute(self.route(family));
            let gone = self
                .socket
                .change("remove the local route of ipvs mode", 0, route);
            unless(gone, libc::ESRCH)?;
        }
        Ok(())
    }

    /// Whether an address is one of this node: packets to it come here without any mark.
    pub fn is_local(&mut self, address: IpAddr) -> Result<bool> {
        let mut message = RouteMessage::default();
        (
            message.header.address_family,
            message.header.destination_prefix_length,
        ) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.attributes = vec![RouteAttribute::Destination(address.into())];
        let what = format!("find the route to {address}");
        let answers = match self.socket.question(&what, Message::GetRoute(message)) {
            // No route leads there.
            Err(error) if error.errno() == Some(libc::ENETUNREACH) => return Ok(false),
            answers => answers?,
        };
        let local = |answer: &Message| matches!(answer, Message::NewRoute(route) if route.header.kind == RouteType::Local);
        Ok(answers.iter().any(local))
    }

    fn route(&self, family: Family) -> RouteMessage {
        let mut message = RouteMessage::default();
        let (address_family, everything) = match family {
            Family::V4 => (AddressFamily::Inet, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
            Family::V6 => (AddressFamily::Inet6, IpAddr::from(Ipv6Addr::UNSPECIFIED)),
        };
        message.header.address_family = address_family;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Local;
        message.header.scope = RouteScope::Host;
        message.attributes = vec![
            RouteAttribute::Destination(everything.into()),
            RouteAttribute::Table(TABLE),
            RouteAttribute::Oif(self.loopback),
        ];
        message
    }
}

fn rule(family: Family) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::FwMark(SERVER_MARK),
        RuleAttribute::FwMask(SERVER_MARK),
        RuleAttribute::Table(TABLE),
    ];
    message
}

/// An error that says only that nothing is to be done is none.
fn unless(done: Result<()>, passing: i32) -> Result<()> {
    match done {
        Err(error) if error.errno() == Some(passing) => Ok(()),
        done => done,
    }
}
