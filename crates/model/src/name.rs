//! Names of the things a Snapshot speaks of: protocols, address families, Services and their ports.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Transport protocol of a Service port (`spec.ports[].protocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP, IP protocol 6; the default of a Service port.
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
    /// SCTP, IP protocol 132.
    Sctp,
}

impl Protocol {
    /// All that a Service port can have.
    pub const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

    /// The number in the IP header (IANA protocol numbers).
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// Kubernetes' spelling: `TCP`, `UDP`, `SCTP`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = String;

    /// Reads `TCP`, `UDP` or `SCTP` in any case; an empty string is TCP, as in the API.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_uppercase().as_str() {
            "" | "TCP" => Ok(Protocol::Tcp),
            "UDP" => Ok(Protocol::Udp),
            "SCTP" => Ok(Protocol::Sctp),
            _ => Err(format!("protocol {text:?} is none of TCP, UDP, SCTP")),
        }
    }
}

/// IP family of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, in the order in which tables are written.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The family that `address` belongs to.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

/// A set of families. Every Service port has one, so it needs no memory of its own.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Families([bool; 2]);

impl Families {
    /// Whether the family is in the set.
    pub const fn contains(self, family: Family) -> bool {
        self.0[family as usize]
    }

    /// Whether there is no family in the set.
    pub const fn is_empty(self) -> bool {
        !self.0[0] && !self.0[1]
    }

    /// The families in the order of [`Family::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Family> {
        let has = move |family: &Family| self.contains(*family);
        Family::ALL.into_iter().filter(has)
    }
}

impl FromIterator<Family> for Families {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        let mut set = Families::default();
        families
            .into_iter()
            .for_each(|family| set.0[family as usize] = true);
        set
    }
}

impl<const N: usize> From<[Family; N]> for Families {
    fn from(families: [Family; N]) -> Self {
        families.into_iter().collect()
    }
}

/// Namespace and name of a Service; displayed as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceName {
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl ServiceName {
    /// Names the Service `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        ServiceName {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Identity of one Service port; displayed as `namespace/name:port/TCP`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortKey {
    /// The Service that the port belongs to.
    pub service: ServiceName,
    /// `spec.ports[].name`; empty for the only port of a Service.
    pub port: Arc<str>,
    /// `spec.ports[].protocol`.
    pub protocol: Protocol,
}

impl PortKey {
    /// Names the port `port` (may be empty) with `protocol` of `namespace/name`.
    pub fn new(namespace: &str, name: &str, port: &str, protocol: Protocol) -> Self {
        PortKey {
            service: ServiceName::new(namespace, name),
            port: port.into(),
            protocol,
        }
    }
}

impl fmt::Display for PortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.service)?;
        if !self.port.is_empty() {
            write!(f, ":{}", self.port)?;
        }
        write!(f, "/{}", self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_a_set_in_order() {
        let both: Families = [Family::V6, Family::V4, Family::V6].into();
        assert_eq!(both.iter().collect::<Vec<_>>(), Family::ALL);
        let one: Families = [Family::V6].into();
        assert!(one.contains(Family::V6) && !one.contains(Family::V4) && !one.is_empty());
        assert!(Families::default().is_empty());
    }
}
