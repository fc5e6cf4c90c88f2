//! Which names a zone has, beside what is in the cluster: the options of CoreDNS' plugin `kubernetes`.
//!
//! What selects objects (labels of Services and namespaces) is not here: it belongs into the watches. What happens to a
//! name that does not exist (`fallthrough`) is the caller's, too.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use portolan_model::names::Label;

use super::records::distinct;
use crate::wire::{Name, labels};

/// Time that answers may be kept, in seconds: CoreDNS' number.
pub const TTL_DEFAULT: u32 = 5;

/// See the options of the same names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The zones, forward (`cluster.local.`) and reverse (`10.in-addr.arpa.`); of several that fit, the longest answers.
    pub zones: Vec<Name>,
    /// Those of them whose Services are ServiceImports.
    pub multicluster: Vec<Name>,
    /// Only these namespaces have names; empty is all.
    pub namespaces: BTreeSet<Label>,
    /// Names of pods by their addresses.
    pub pods: PodNames,
    /// Endpoints without a hostname have the name of their pod.
    pub endpoint_pod_names: bool,
    /// No names of endpoints, and none of headless Services.
    pub no_endpoints: bool,
    /// A Service with a virtual address and without a ready endpoint has no name.
    pub ignore_empty_service: bool,
    /// Names of the endpoints of one zone (`ZONE.pin._zone.SERVICE`, `ZONE.prefer._zone.SERVICE`).
    pub zonal: bool,
    /// Seconds; 0 to 3600.
    pub ttl: u32,
    /// The addresses at which these answers are given: who is named in NS.
    pub own: Vec<IpAddr>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            zones: Vec::new(),
            multicluster: Vec::new(),
            namespaces: BTreeSet::new(),
            pods: PodNames::Disabled,
            endpoint_pod_names: false,
            no_endpoints: false,
            ignore_empty_service: false,
            zonal: false,
            ttl: TTL_DEFAULT,
            own: Vec::new(),
        }
    }
}

/// Names of pods by their addresses: `1-2-3-4.NAMESPACE.pod.ZONE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodNames {
    /// There are none.
    #[default]
    Disabled,
    /// Whatever is asked is answered, if the namespace exists.
    Insecure,
    /// Only what a live pod in that namespace has.
    Verified,
}

/// A [`Config`] as answers need it.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub options: Config,
    /// The longest first.
    pub zones: Vec<Apex>,
    /// In which zone of [`Prepared::zones`] the names are that PTR records lead to.
    pub primary: Option<usize>,
    /// Labels of [`Config::namespaces`].
    allowed: HashSet<Box<[u8]>>,
}

/// One zone.
#[derive(Debug)]
pub(crate) struct Apex {
    /// In lower case.
    pub name: Name,
    pub reverse: bool,
    pub multicluster: bool,
}

impl Prepared {
    pub fn new(mut options: Config) -> Self {
        options.own = distinct(std::mem::take(&mut options.own)).into();
        let lowered = |names: &[Name]| names.iter().map(Name::lowered).collect::<Vec<_>>();
        let multicluster = lowered(&options.multicluster);
        let mut names = lowered(&options.zones);
        names.extend(multicluster.iter().cloned());
        let first_forward = names
            .iter()
            .find(|name| !is_reverse(name) && !multicluster.contains(name))
            .cloned();
        names.sort_by(|a, b| (b.as_wire().len(), b).cmp(&(a.as_wire().len(), a)));
        names.dedup();
        let zones: Vec<Apex> = names
            .into_iter()
            .map(|name| Apex {
                reverse: is_reverse(&name),
                multicluster: multicluster.contains(&name),
                name,
            })
            .collect();
        let primary = zones
            .iter()
            .position(|zone| Some(&zone.name) == first_forward.as_ref());
        let allowed = options.namespaces.iter();
        Prepared {
            allowed: allowed.map(|label| label.as_bytes().into()).collect(),
            options,
            zones,
            primary,
        }
    }

    /// Whether names of the namespace are asked for.
    pub fn allows(&self, namespace: &[u8]) -> bool {
        self.allowed.is_empty() || self.allowed.contains(namespace)
    }
}

/// Whether the zone is one of addresses.
fn is_reverse(zone: &Name) -> bool {
    let all: Vec<&[u8]> = labels(zone.as_wire()).collect();
    all.ends_with(&[b"in-addr", b"arpa"]) || all.ends_with(&[b"ip6", b"arpa"])
}
