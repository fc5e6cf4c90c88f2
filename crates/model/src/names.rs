//! What names say: the objects of a cluster as its DNS sees them, as small values that cannot be wrong.
//!
//! `reflect` makes them of wire objects; the zone of crate `dns` encodes and forgets them. Nothing here is kept for
//! long, so these values are simple rather than small.

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;

use crate::Protocol;

/// Longest label of a name in bytes (RFC 1035, section 2.3.4).
pub const LABEL_BYTES_MAX: usize = 63;

/// Longest name as text, without the last dot (RFC 1035, section 2.3.4: 255 bytes on the wire).
pub const NAME_BYTES_MAX: usize = 253;

/// One label of a name: 1 to 63 bytes without a dot, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Box<str>);

impl Label {
    /// Reads a label of any case; `None` when no name can hold it.
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=LABEL_BYTES_MAX).contains(&text.len()) && !text.contains('.');
        fits.then(|| Label(text.to_ascii_lowercase().into()))
    }
}

impl Deref for Label {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name outside of its object: labels with dots between them, without the last dot, and no IP address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(Box<str>);

impl HostName {
    /// Reads a name with or without its last dot. An IP address is not a name, though old clients took one for it.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let fits = text.len() <= NAME_BYTES_MAX && text.split('.').all(|l| Label::new(l).is_some());
        let address = text.parse::<IpAddr>().is_ok();
        (fits && !address).then(|| HostName(text.into()))
    }
}

impl Deref for HostName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Namespace and name of an object that has records of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// `metadata.namespace`.
    pub namespace: Label,
    /// `metadata.name`.
    pub name: Label,
}

impl Owner {
    /// `None` when names cannot hold one of them.
    pub fn new(namespace: &str, name: &str) -> Option<Self> {
        Some(Owner {
            namespace: Label::new(namespace)?,
            name: Label::new(name)?,
        })
    }
}

/// Identity of an object that has no records of its own: a slice, a pod. Its name may have dots.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// `metadata.namespace`.
    pub namespace: Box<str>,
    /// `metadata.name`.
    pub name: Box<str>,
}

impl ObjectName {
    /// Names the object `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        ObjectName {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// A port with a name, or the one without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// `None` for a port without a name, which has no name in DNS either.
    pub name: Option<Label>,
    /// Protocol.
    pub protocol: Protocol,
    /// Number.
    pub number: u16,
}

/// `v1 Service`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Whose records these are.
    pub owner: Owner,
    /// What stands behind the name.
    pub kind: ServiceKind,
    /// `spec.ports`.
    pub ports: Vec<Port>,
    /// `spec.externalIPs` and the addresses of the load balancer, for names seen from outside.
    pub external: Vec<IpAddr>,
    /// Host names of the load balancer, for names seen from outside.
    pub external_names: Vec<HostName>,
    /// Whether endpoints that are not ready have names, too.
    pub publish_not_ready: bool,
    /// Whether `spec.selector` chooses its pods; else somebody writes its slices.
    pub selects: bool,
}

/// What stands behind the name of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// Virtual addresses, one for each family.
    ClusterIp(Vec<IpAddr>),
    /// The endpoints themselves.
    Headless,
    /// Another name; `None` when it is none that DNS can say (an IP address, a label that is too long).
    ExternalName(Option<HostName>),
    /// No address yet.
    Pending,
}

/// `discovery.k8s.io/v1 EndpointSlice`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its identity.
    pub object: ObjectName,
    /// Whose endpoints these are.
    pub backs: Backs,
    /// Ports of all its endpoints.
    pub ports: Vec<Port>,
    /// Who stands behind the Service.
    pub endpoints: Vec<Endpoint>,
    /// When the change that it tells of was made (annotation `endpoints.kubernetes.io/last-change-trigger-time`), in
    /// milliseconds since 1970.
    pub changed_ms: Option<u64>,
}

/// Whose endpoints a slice has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backs {
    /// Nobody's: the slice says nothing.
    Nobody,
    /// Those of a Service (`kubernetes.io/service-name`).
    Service(Owner),
    /// Those of a ServiceImport (`multicluster.kubernetes.io/service-name`).
    Import {
        /// The ServiceImport.
        owner: Owner,
        /// The cluster that they come from (`multicluster.kubernetes.io/source-cluster`).
        cluster: Label,
    },
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its addresses, all of one family.
    pub addresses: Vec<IpAddr>,
    /// `hostname`: the name below that of the Service.
    pub hostname: Option<Label>,
    /// Name of the pod, when there is one and a label can hold it (`targetRef`).
    pub pod: Option<Label>,
    /// `conditions.ready`; absent is true.
    pub ready: bool,
    /// `zone`: where it runs, in lower case.
    pub zone: Option<Box<str>>,
}

/// `v1 Pod`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its identity.
    pub object: ObjectName,
    /// `status.podIPs`.
    pub addresses: Vec<IpAddr>,
    /// Whether it still uses its addresses: it has neither succeeded nor failed. One that is being deleted still does.
    pub live: bool,
    /// `spec.hostNetwork`: its addresses are those of its node, and say nothing about who asks.
    pub host_network: bool,
}

/// `multicluster.x-k8s.io ServiceImport`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Whose records these are.
    pub owner: Owner,
    /// `None` for a headless one (`spec.type` is `Headless`).
    pub addresses: Option<Vec<IpAddr>>,
    /// `spec.ports`.
    pub ports: Vec<Port>,
}

/// The kinds of objects that names are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Namespaces.
    Namespace,
    /// Services.
    Service,
    /// EndpointSlices.
    Slice,
    /// Pods.
    Pod,
    /// ServiceImports.
    Import,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] = [
        Kind::Namespace,
        Kind::Service,
        Kind::Slice,
        Kind::Pod,
        Kind::Import,
    ];
}

/// One thing that happened to the objects of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A full listing of a kind begins: what is not set until [`Change::Listed`] is gone.
    Listing(Kind),
    /// The listing is complete.
    Listed(Kind),
    /// There is such a namespace.
    Namespace(Label),
    /// There is no such namespace any more.
    NamespaceGone(Label),
    /// There is such a Service.
    Service(Service),
    /// It is gone.
    ServiceGone(Owner),
    /// There is such a slice.
    Slice(Slice),
    /// It is gone.
    SliceGone(ObjectName),
    /// There is such a pod.
    Pod(Pod),
    /// It is gone.
    PodGone(ObjectName),
    /// There is such a ServiceImport.
    Import(Import),
    /// It is gone.
    ImportGone(Owner),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_what_a_name_can_hold() {
        assert_eq!(&*Label::new("Web-0").unwrap(), "web-0");
        assert!(Label::new(&"a".repeat(63)).is_some());
        for wrong in ["", "a.b", &"a".repeat(64)] {
            assert_eq!(Label::new(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_host_name_is_no_address() {
        assert_eq!(&*HostName::new("Example.net.").unwrap(), "Example.net");
        for wrong in ["", ".", "a..b", "192.168.0.1", "fd00::1", &"a.".repeat(128)] {
            assert_eq!(HostName::new(wrong), None, "{wrong:?}");
        }
    }
}
