//! Elements as bytes in registers, in both directions: for the kernel codec and for `trace`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use portolan_model::{Family, Protocol};

use super::class::{Class, List, Turn};
use super::element::{Element, Spot};
use super::layout::{ChainId, SetName};

/// The data of an element: bytes, or a verdict that goes to a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// A plain set.
    None,
    /// The bytes written.
    Bytes,
    /// A verdict.
    Goto(ChainId),
}

impl Element {
    /// Appends the key (of a range, its first address).
    pub fn write_key(&self, out: &mut Vec<u8>) {
        match self {
            Element::Service(spot, ..) => put_spot(out, spot),
            Element::NodePort(protocol, port, ..) => put_port(out, *protocol, *port),
            Element::Class(_, class) => put_class(out, class),
            Element::Turn(turn) => {
                put_spot(out, &turn.id);
                out.extend(turn.pack().into_iter().flat_map(u32::to_ne_bytes));
            }
            Element::Endpoint(id, slot, _) | Element::StickyEndpoint(id, slot, _) => {
                put_spot(out, id);
                out.extend(slot.to_ne_bytes());
            }
            Element::Member(_, id, to) => {
                put_socket(out, to);
                put_spot(out, id);
            }
            Element::Allowed(spot, range) => {
                put_spot(out, spot);
                put_address(out, range.network());
            }
            Element::Hairpin(ip) => {
                put_address(out, *ip);
                put_address(out, *ip);
            }
            Element::ClusterIp(ip) | Element::NodePortIp(ip) => put_address(out, *ip),
            Element::PodCidr(range) | Element::ServiceCidr(range) => {
                put_address(out, range.network());
            }
        }
    }

    /// For a range: appends the end of its key and says true. In a set of kind `Ranges` that is the first address after
    /// it (and there is none after the last address of all), in `ConcatRanges` the last one in it.
    pub fn write_key_end(&self, out: &mut Vec<u8>) -> bool {
        match self {
            Element::Allowed(spot, range) => {
                put_spot(out, spot);
                put_address(out, range.broadcast());
                true
            }
            Element::PodCidr(range) | Element::ServiceCidr(range) => match after(*range) {
                Some(next) => {
                    put_address(out, next);
                    true
                }
                None => false,
            },
            _ => false,
        }
    }

    /// Appends the data, if they are bytes.
    pub fn write_data(&self, out: &mut Vec<u8>) -> Data {
        match self {
            Element::Service(_, class, id) | Element::NodePort(_, _, class, id) => {
                out.extend([0; 4]);
                put_class(out, class);
                put_socket(out, &SocketAddr::new(id.address, id.port));
                Data::Bytes
            }
            Element::StickyEndpoint(_, _, to) => {
                out.extend([0; 4]);
                put_socket(out, to);
                Data::Bytes
            }
            Element::Endpoint(_, _, to) => {
                put_socket(out, to);
                Data::Bytes
            }
            Element::Class(_, class) => Data::Goto(ChainId::Class(*class)),
            Element::Turn(turn) => Data::Goto(ChainId::Turn(*turn)),
            _ => Data::None,
        }
    }

    /// The element of `set` with this key, end of key and data; `None` if it is none that we write.
    /// Of a verdict map the data are not looked at.
    pub fn read(
        family: Family,
        set: SetName,
        key: &[u8],
        end: Option<&[u8]>,
        data: &[u8],
    ) -> Option<Self> {
        let (mut key, mut data) = (Reader { family, rest: key }, Reader { family, rest: data });
        let element = match set {
            SetName::Services => {
                let spot = key.spot()?;
                let (class, id) = data.entry(spot.protocol)?;
                Element::Service(spot, class, id)
            }
            SetName::NodePorts => {
                let (port, protocol) = (key.port()?, key.protocol()?);
                let (class, id) = data.entry(protocol)?;
                Element::NodePort(protocol, port, class, id)
            }
            SetName::Classes => Element::Class(family, key.class()?),
            SetName::Turns => Element::Turn(key.turn()?),
            SetName::Endpoints => Element::Endpoint(key.spot()?, key.number()?, data.socket()?),
            SetName::StickyEndpoints => {
                data.number()?;
                Element::StickyEndpoint(key.spot()?, key.number()?, data.socket()?)
            }
            SetName::Members | SetName::OtherMembers => {
                let list = match set {
                    SetName::Members => List::Main,
                    _ => List::Other,
                };
                let to = key.socket()?;
                Element::Member(list, key.spot()?, to)
            }
            SetName::Allowed => {
                let (spot, first) = (key.spot()?, key.address()?);
                let mut end = Reader { family, rest: end? };
                let last = (end.spot()? == spot).then(|| end.address())??;
                Element::Allowed(spot, range_of(first, last)?)
            }
            SetName::ClusterIps => Element::ClusterIp(key.address()?),
            SetName::Hairpins => {
                let ip = key.address()?;
                (key.address()? == ip).then_some(Element::Hairpin(ip))?
            }
            SetName::NodePortIps => Element::NodePortIp(key.address()?),
            SetName::PodCidrs => Element::PodCidr(key.range(end)?),
            SetName::ServiceCidrs => Element::ServiceCidr(key.range(end)?),
            SetName::Affinity => return None,
        };
        key.rest.is_empty().then_some(element)
    }
}

/// Takes typed values from the front of bytes.
pub(crate) struct Reader<'a> {
    pub family: Family,
    pub rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    pub(crate) fn address(&mut self) -> Option<IpAddr> {
        Some(match self.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from(self.take::<4>()?)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from(self.take::<16>()?)),
        })
    }

    pub(crate) fn protocol(&mut self) -> Option<Protocol> {
        let [number, ..] = self.take::<4>()?;
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .find(|protocol| protocol.number() == number)
    }

    pub(crate) fn port(&mut self) -> Option<u16> {
        let [high, low, ..] = self.take::<4>()?;
        Some(u16::from_be_bytes([high, low]))
    }

    pub(crate) fn number(&mut self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.take::<4>()?))
    }

    pub(crate) fn class(&mut self) -> Option<Class> {
        Class::unpack([self.number()?, self.number()?])
    }

    pub(crate) fn spot(&mut self) -> Option<Spot> {
        Some(Spot {
            address: self.address()?,
            port: self.port()?,
            protocol: self.protocol()?,
        })
    }

    pub(crate) fn turn(&mut self) -> Option<Turn> {
        let id = self.spot()?;
        Turn::unpack(id, [self.number()?, self.number()?])
    }

    /// The data of a frontend; its protocol is that of the identity too.
    fn entry(&mut self, protocol: Protocol) -> Option<(Class, Spot)> {
        self.number()?;
        let class = self.class()?;
        let (address, port) = (self.address()?, self.port()?);
        let id = Spot {
            address,
            protocol,
            port,
        };
        Some((class, id))
    }

    pub(crate) fn socket(&mut self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.address()?, self.port()?))
    }

    fn range(&mut self, end: Option<&[u8]>) -> Option<IpNet> {
        let first = self.address()?;
        let family = self.family;
        let last = match end {
            Some(rest) => before(Reader { family, rest }.address()?)?,
            None => match family {
                Family::V4 => IpAddr::V4(Ipv4Addr::BROADCAST),
                Family::V6 => IpAddr::V6(Ipv6Addr::from(u128::MAX)),
            },
        };
        range_of(first, last)
    }
}

fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(ip) => out.extend(ip.octets()),
        IpAddr::V6(ip) => out.extend(ip.octets()),
    }
}

fn put_port(out: &mut Vec<u8>, protocol: Protocol, port: u16) {
    let [high, low] = port.to_be_bytes();
    out.extend([high, low, 0, 0]);
    out.extend([protocol.number(), 0, 0, 0]);
}

fn put_spot(out: &mut Vec<u8>, spot: &Spot) {
    put_address(out, spot.address);
    put_port(out, spot.protocol, spot.port);
}

/// The parts of an identity, without padding: address, port, protocol.
pub(crate) fn identity(id: &Spot) -> [Vec<u8>; 3] {
    let mut address = Vec::new();
    put_address(&mut address, id.address);
    let port = id.port.to_be_bytes().to_vec();
    [address, port, vec![id.protocol.number()]]
}

fn put_socket(out: &mut Vec<u8>, socket: &SocketAddr) {
    put_address(out, socket.ip());
    let [high, low] = socket.port().to_be_bytes();
    out.extend([high, low, 0, 0]);
}

fn put_class(out: &mut Vec<u8>, class: &Class) {
    out.extend(class.pack().into_iter().flat_map(u32::to_ne_bytes));
}

/// The first address after a range, if there is one.
fn after(range: IpNet) -> Option<IpAddr> {
    match range.broadcast() {
        IpAddr::V4(ip) => u32::from(ip).checked_add(1).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(ip) => u128::from(ip).checked_add(1).map(|n| IpAddr::V6(n.into())),
    }
}

fn before(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(ip) => u32::from(ip).checked_sub(1).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(ip) => u128::from(ip).checked_sub(1).map(|n| IpAddr::V6(n.into())),
    }
}

/// The range from `first` to `last`, if a prefix can say it.
fn range_of(first: IpAddr, last: IpAddr) -> Option<IpNet> {
    let bits = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a) ^ u128::from(b)).leading_zeros(),
        _ => return None,
    };
    let range = IpNet::new(first, bits as u8).ok()?;
    (range.network() == first && range.broadcast() == last).then_some(range)
}

#[cfg(test)]
mod tests;
