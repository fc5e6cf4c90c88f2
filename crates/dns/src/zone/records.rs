//! The records of one name, encoded: what a Service says of itself, and its endpoints.
//!
//! Both are values that are made anew when an object changes. A cluster has tens of thousands of endpoints, so an
//! endpoint is 24 bytes here, and all labels of a Service lie in one piece of memory.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use portolan_model::Protocol;
use portolan_model::names::{HostName, Import, Label, Port, Service, ServiceKind};

use super::dashed;
use crate::wire::Name;

/// Labels of a Service and its namespace on the wire, in lower case: `\x03web\x02ns`.
pub(crate) type Key = Arc<[u8]>;

/// No label.
const NONE: u32 = u32::MAX;

/// What the object itself says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub kind: Kind,
    pub ports: Box<[PortFacts]>,
    pub publish_not_ready: bool,
    /// What is seen from outside the cluster.
    pub external: Option<Box<External>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Virtual addresses.
    Addresses(Box<[IpAddr]>),
    Headless,
    /// Another name, if it is one.
    Alias(Option<Name>),
}

/// A Service as it is seen from outside: with its addresses there, and the first name of its load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct External {
    pub facts: Facts,
    pub name: Option<Name>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortFacts {
    pub name: Option<Label>,
    pub protocol: Protocol,
    pub number: u16,
}

impl Facts {
    pub fn of_service(service: Service) -> Self {
        let ports: Box<[PortFacts]> = service.ports.into_iter().map(PortFacts::of).collect();
        let addresses = distinct(service.external);
        let name = service.external_names.first().and_then(wire_name);
        let outside = (!addresses.is_empty() || name.is_some()).then(|| External {
            facts: Facts {
                kind: Kind::Addresses(addresses),
                ports: ports.clone(),
                publish_not_ready: false,
                external: None,
            },
            name,
        });
        Facts {
            kind: match service.kind {
                ServiceKind::ClusterIp(addresses) => Kind::Addresses(distinct(addresses)),
                ServiceKind::Pending => Kind::Addresses(Box::default()),
                ServiceKind::Headless => Kind::Headless,
                ServiceKind::ExternalName(name) => Kind::Alias(name.as_ref().and_then(wire_name)),
            },
            ports,
            publish_not_ready: service.publish_not_ready,
            external: outside.map(Box::new),
        }
    }

    pub fn of_import(import: Import) -> Self {
        Facts {
            kind: match import.addresses {
                Some(addresses) => Kind::Addresses(distinct(addresses)),
                None => Kind::Headless,
            },
            ports: import.ports.into_iter().map(PortFacts::of).collect(),
            publish_not_ready: false,
            external: None,
        }
    }

    /// The virtual addresses; a headless Service and an alias have none.
    pub fn addresses(&self) -> &[IpAddr] {
        match &self.kind {
            Kind::Addresses(addresses) => addresses,
            Kind::Headless | Kind::Alias(_) => &[],
        }
    }
}

fn wire_name(name: &HostName) -> Option<Name> {
    Name::parse(name).ok()
}

/// Each address once, as what it is.
pub(crate) fn distinct(addresses: Vec<IpAddr>) -> Box<[IpAddr]> {
    let mut kept: Vec<IpAddr> = Vec::with_capacity(addresses.len());
    for address in addresses {
        let address = address.to_canonical();
        if !kept.contains(&address) {
            kept.push(address);
        }
    }
    kept.into()
}

impl PortFacts {
    fn of(port: Port) -> Self {
        let Port {
            name,
            protocol,
            number,
        } = port;
        PortFacts {
            name,
            protocol,
            number,
        }
    }
}

/// What a slice says, as the index keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SliceFacts {
    /// Whose endpoints these are, and whether that is a ServiceImport.
    pub key: Key,
    pub import: bool,
    pub cluster: Option<Label>,
    pub ports: Box<[PortFacts]>,
    pub endpoints: Box<[Held]>,
    /// Labels and zones of endpoints, each with its length before it.
    pub labels: Box<[u8]>,
}

/// One address of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    address: [u8; 16],
    /// Where its label stands; [`NONE`] for the one made of its address.
    label: u32,
    zone: u32,
    ready: bool,
}

impl SliceFacts {
    pub fn new(
        slice: portolan_model::names::Slice,
        key: Key,
        cluster: Option<Label>,
        pod_names: bool,
    ) -> Self {
        let import = cluster.is_some();
        let mut labels = Vec::new();
        let mut endpoints = Vec::new();
        for endpoint in &slice.endpoints {
            let pod = endpoint.pod.as_ref().filter(|_| pod_names);
            let name = endpoint.hostname.as_ref().or(pod);
            for address in &endpoint.addresses {
                let address = address.to_canonical();
                let own = |label: &&Label| dashed::read_exact(label.as_bytes()) != Some(address);
                endpoints.push(Held {
                    address: octets(address),
                    label: name
                        .filter(own)
                        .map_or(NONE, |label| put(&mut labels, label)),
                    zone: endpoint
                        .zone
                        .as_ref()
                        .map_or(NONE, |zone| put(&mut labels, zone)),
                    ready: endpoint.ready,
                });
            }
        }
        SliceFacts {
            key,
            import,
            cluster,
            ports: slice.ports.into_iter().map(PortFacts::of).collect(),
            endpoints: endpoints.into(),
            labels: labels.into(),
        }
    }
}

/// Appends text with its length; the same text as the last time is not repeated.
fn put(labels: &mut Vec<u8>, text: &str) -> u32 {
    let text = text.as_bytes();
    let Ok(length) = u8::try_from(text.len()) else {
        return NONE;
    };
    let entry = 1 + text.len();
    let before = labels.len().checked_sub(entry);
    if let Some(at) = before
        && labels[at] == length
        && &labels[at + 1..] == text
    {
        return at as u32;
    }
    let at = labels.len() as u32;
    labels.push(length);
    labels.extend_from_slice(text);
    at
}

/// Reads what [`put`] has written, with its length.
fn entry(labels: &[u8], at: u32) -> Option<&[u8]> {
    let at = at as usize;
    let length = usize::from(*labels.get(at)?);
    labels.get(at..=at + length)
}

/// IPv4 as it is mapped into IPv6; addresses are canonical before, so that this loses nothing.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// One endpoint that has names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    address: [u8; 16],
    label: u32,
    group: u32,
}

/// What endpoints have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub ports: Box<[PortFacts]>,
    /// How many members it has.
    pub size: u32,
    cluster: u32,
    zone: u32,
}

/// The endpoints of one Service that have names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// Without a label of their own by address, then the others by label and address.
    all: Box<[Member]>,
    unnamed: u32,
    groups: Box<[Group]>,
    labels: Box<[u8]>,
    /// Their addresses, each once, in order.
    pub v4: Box<[[u8; 4]]>,
    pub v6: Box<[[u8; 16]]>,
}

/// Members that have one name, in one cluster: by group, then by address.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    members: &'a Members,
    run: &'a [Member],
}

impl Members {
    /// Those of all slices that are ready, or of all when `publish_not_ready`.
    pub fn new<'a>(
        slices: impl Iterator<Item = &'a SliceFacts>,
        publish_not_ready: bool,
    ) -> Members {
        let mut draft = Draft::default();
        slices.for_each(|slice| draft.add(slice, publish_not_ready));
        draft.finish()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// What they have in common.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter()
    }

    /// All of them, name by name, beginning somewhere that `turn` chooses.
    pub fn runs(&self, turn: usize) -> impl Iterator<Item = Run<'_>> {
        let same = |a: &Member, b: &Member| self.is_same_name(a, b);
        let mut begin = turn.checked_rem(self.all.len()).unwrap_or(0);
        while begin > 0 && begin < self.all.len() && same(&self.all[begin - 1], &self.all[begin]) {
            begin += 1;
        }
        let (before, after) = self.all.split_at(begin);
        let runs = after.chunk_by(same).chain(before.chunk_by(same));
        runs.map(|run| Run { members: self, run })
    }

    /// Those with the label, which is in lower case; one run for each cluster.
    pub fn named<'a>(&'a self, label: &[u8]) -> impl Iterator<Item = Run<'a>> {
        let (unnamed, named) = self.all.split_at(self.unnamed as usize);
        let by_address = dashed::read_exact(label).map_or(0..0, |address| {
            let octets = octets(address);
            range(unnamed, |member| member.address.cmp(&octets))
        });
        // Nobody is in both: Draft::name_doubles.
        let by_label = range(named, |member| self.label(member.label).cmp(label));
        let found = [&unnamed[by_address], &named[by_label]];
        let same = |a: &Member, b: &Member| self.is_same_name(a, b);
        let runs = found
            .into_iter()
            .flat_map(move |found| found.chunk_by(same));
        runs.map(|run| Run { members: self, run })
    }

    /// Those with the address, name by name.
    pub fn at(&self, address: IpAddr) -> impl Iterator<Item = Run<'_>> {
        let octets = octets(address);
        let (unnamed, named) = self.all.split_at(self.unnamed as usize);
        let first = range(unnamed, |member| member.address.cmp(&octets));
        let same = |a: &Member, b: &Member| self.is_same_name(a, b);
        let holds = move |run: &&[Member]| run.iter().any(|member| member.address == octets);
        let others = named.chunk_by(same).filter(holds);
        let runs = unnamed[first].chunk_by(same).chain(others);
        runs.map(|run| Run { members: self, run })
    }

    fn label(&self, at: u32) -> &[u8] {
        entry(&self.labels, at).map_or(&[], |entry| &entry[1..])
    }

    /// Whether both have one name, in one cluster.
    fn is_same_name(&self, a: &Member, b: &Member) -> bool {
        let cluster = |member: &Member| self.groups[member.group as usize].cluster;
        let unnamed = a.label == NONE;
        a.label == b.label && (!unnamed || a.address == b.address) && cluster(a) == cluster(b)
    }
}

/// The members of an ordered slice for which `compare` says that they are equal.
fn range(
    members: &[Member],
    compare: impl Fn(&Member) -> std::cmp::Ordering,
) -> std::ops::Range<usize> {
    let begin = members.partition_point(|member| compare(member).is_lt());
    let length = members[begin..].partition_point(|member| compare(member).is_eq());
    begin..begin + length
}

impl<'a> Run<'a> {
    /// Its members by group.
    pub fn groups(self) -> impl Iterator<Item = (&'a Group, Run<'a>)> + Clone {
        let Run { members, run } = self;
        let parts = run.chunk_by(|a, b| a.group == b.group);
        parts.map(move |run| {
            let group = &members.groups[run[0].group as usize];
            (group, Run { members, run })
        })
    }

    pub fn len(self) -> usize {
        self.run.len()
    }

    /// The addresses, in order within each group; twice when two groups have one.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        let run = self.run.iter();
        run.map(|member| Ipv6Addr::from(member.address).to_canonical())
    }

    /// Whether this part of a run, which is of one group, has the address.
    pub fn holds(self, address: IpAddr) -> bool {
        let octets = octets(address);
        let found = self.run.binary_search_by(|m| m.address.cmp(&octets));
        found.is_ok()
    }

    /// Label of its cluster with its length before it; empty for a cluster's own Services.
    pub fn cluster(self) -> &'a [u8] {
        let group = self.run.first().map(|first| first.group);
        let group = group.and_then(|at| self.members.groups.get(at as usize));
        group
            .and_then(|group| entry(&self.members.labels, group.cluster))
            .unwrap_or_default()
    }

    /// Writes its label with the length before it.
    pub fn write_label(self, out: &mut Vec<u8>) {
        let Some(first) = self.run.first() else {
            return;
        };
        match entry(&self.members.labels, first.label) {
            Some(entry) => out.extend_from_slice(entry),
            None => dashed::write(out, Ipv6Addr::from(first.address).to_canonical()),
        }
    }
}

impl Members {
    /// Where members of a group run, in lower case.
    pub fn zone_of(&self, group: &Group) -> Option<&[u8]> {
        entry(&self.labels, group.zone).map(|entry| &entry[1..])
    }

    /// The cluster of members of a group, without its length.
    pub fn cluster_of(&self, group: &Group) -> &[u8] {
        self.label(group.cluster)
    }
}

/// [`Members`] that are being made.
#[derive(Default)]
struct Draft {
    all: Vec<Member>,
    groups: Vec<Group>,
    labels: Vec<u8>,
    /// Where each text stands, so that equal ones are equal numbers.
    places: HashMap<Box<[u8]>, u32>,
}

impl Draft {
    fn add(&mut self, slice: &SliceFacts, publish_not_ready: bool) {
        let cluster = match &slice.cluster {
            Some(cluster) => self.place(cluster.as_bytes()),
            None => NONE,
        };
        let mut group = None;
        for held in &slice.endpoints {
            if !(held.ready || publish_not_ready) {
                continue;
            }
            let zone = self.copy(slice, held.zone);
            let label = self.copy(slice, held.label);
            let known = group.filter(|at: &u32| self.groups[*at as usize].zone == zone);
            let at = known.unwrap_or_else(|| self.group(&slice.ports, cluster, zone));
            group = Some(at);
            self.all.push(Member {
                address: held.address,
                label,
                group: at,
            });
        }
    }

    fn group(&mut self, ports: &[PortFacts], cluster: u32, zone: u32) -> u32 {
        let same = |group: &Group| {
            group.zone == zone && group.cluster == cluster && *group.ports == *ports
        };
        let at = self.groups.iter().position(same).unwrap_or_else(|| {
            let ports = ports.into();
            self.groups.push(Group {
                ports,
                size: 0,
                cluster,
                zone,
            });
            self.groups.len() - 1
        });
        at as u32
    }

    fn copy(&mut self, slice: &SliceFacts, at: u32) -> u32 {
        match entry(&slice.labels, at) {
            Some(entry) => self.place(&entry[1..]),
            None => NONE,
        }
    }

    fn place(&mut self, text: &[u8]) -> u32 {
        if let Some(at) = self.places.get(text) {
            return *at;
        }
        let at = self.labels.len() as u32;
        self.labels.push(text.len() as u8);
        self.labels.extend_from_slice(text);
        self.places.insert(text.into(), at);
        at
    }

    fn finish(mut self) -> Members {
        self.name_doubles();
        let Draft {
            mut all,
            mut groups,
            labels,
            ..
        } = self;
        let text = |at: u32| entry(&labels, at).map_or(&[][..], |entry| &entry[1..]);
        all.sort_unstable_by_key(|member| {
            let named = member.label != NONE;
            let name = if named { [0; 16] } else { member.address };
            let cluster = groups[member.group as usize].cluster;
            let within = (cluster, member.group, member.address);
            (named, text(member.label), name, within)
        });
        all.dedup();
        for member in &all {
            groups[member.group as usize].size += 1;
        }
        let unnamed = all.partition_point(|member| member.label == NONE) as u32;
        let mut addresses: Vec<IpAddr> = all
            .iter()
            .map(|member| Ipv6Addr::from(member.address).to_canonical())
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        let v4 = |address: &IpAddr| match address {
            IpAddr::V4(address) => Some(address.octets()),
            IpAddr::V6(_) => None,
        };
        let v6 = |address: &IpAddr| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address.octets()),
        };
        Members {
            v4: addresses.iter().filter_map(v4).collect(),
            v6: addresses.iter().filter_map(v6).collect(),
            all: all.into(),
            unnamed,
            groups: groups.into(),
            labels: labels.into(),
        }
    }

    /// Somebody's hostname may be what the label of another one's address is: then both are found under that label.
    fn name_doubles(&mut self) {
        let doubles: HashMap<IpAddr, u32> = self
            .places
            .iter()
            .filter_map(|(text, at)| Some((dashed::read_exact(text)?, *at)))
            .collect();
        if doubles.is_empty() {
            return;
        }
        for member in &mut self.all {
            let address = Ipv6Addr::from(member.address).to_canonical();
            if member.label == NONE
                && let Some(at) = doubles.get(&address)
            {
                member.label = *at;
            }
        }
    }
}

/// The wire form of both labels.
pub(crate) fn key_of(owner: &portolan_model::names::Owner) -> Key {
    let mut key = Vec::with_capacity(owner.name.len() + owner.namespace.len() + 2);
    for label in [&owner.name, &owner.namespace] {
        key.push(label.len() as u8);
        key.extend_from_slice(label.as_bytes());
    }
    key.into()
}

/// The label of the namespace within a key, with its length before it.
pub(crate) fn namespace_of(key: &[u8]) -> &[u8] {
    let name = key.first().map_or(0, |length| usize::from(*length) + 1);
    key.get(name..).unwrap_or_default()
}

/// An IPv4 address as the wire has it, or `None`.
pub(crate) fn v4(address: &IpAddr) -> Option<[u8; 4]> {
    match address {
        IpAddr::V4(address) => Some(Ipv4Addr::octets(address)),
        IpAddr::V6(_) => None,
    }
}

/// An IPv6 address as the wire has it, or `None`.
pub(crate) fn v6(address: &IpAddr) -> Option<[u8; 16]> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(address.octets()),
    }
}
