//! The names of one Service or ServiceImport: its own, those of its endpoints, ports and zones.

use std::net::IpAddr;

use super::answer::{Found, is_port, is_protocol};
use super::asked::Asked;
use super::records::{Facts, Group, Kind, Members, PortFacts, Run};
use super::write::{Answering, FIXED_BYTES, SRV_BYTES, Target, Where};
use crate::wire::{Name, Section, rtype};

/// Weights of SRV records are parts of this.
const WEIGHTS: usize = 100;

/// The label before which zones stand.
const ZONE_LABEL: &[u8] = b"_zone";

/// A Service whose name exists.
#[derive(Clone, Copy)]
pub(super) struct Named<'z> {
    pub key: &'z [u8],
    pub facts: &'z Facts,
    pub members: Option<&'z Members>,
}

/// A name at or below that of a Service.
pub(super) struct Place<'q> {
    pub named: Named<'q>,
    pub asked: &'q Asked,
    /// Labels before that of the Service.
    pub labels: usize,
    /// Where the name and its zone stand in the message.
    pub at: usize,
    pub zone_at: usize,
    pub import: bool,
    pub zonal: bool,
    /// Stands between the Service and the zone.
    pub middle: &'static [u8],
}

/// Which ports are meant.
#[derive(Clone, Copy)]
enum Ports<'q> {
    All,
    /// Name and protocol.
    One(&'q [u8], &'q [u8]),
}

impl Ports<'_> {
    fn has(self, port: &PortFacts) -> bool {
        match self {
            Ports::All => true,
            Ports::One(name, protocol) => is_port(port, name, protocol),
        }
    }

    fn count(self, ports: &[PortFacts]) -> usize {
        ports.iter().filter(|port| self.has(port)).count()
    }
}

impl<'q> Place<'q> {
    pub fn write(&self, answering: &mut Answering<'_>) -> Found {
        if let Kind::Alias(target) = &self.named.facts.kind {
            return match (self.labels, target) {
                (0, Some(target)) if answering.rtype != rtype::ANY => Found::Alias(target.clone()),
                (0, _) => Found::NoData,
                _ => Found::NoName,
            };
        }
        match self.labels {
            0 => self.write_service(answering),
            1 => self.write_one_below(answering),
            2 if self.import && !self.asked.label(0).starts_with(b"_") => {
                let cluster = self.asked.label(1);
                self.write_endpoint(answering, Some(cluster))
            }
            2 if self.asked.label(1) != ZONE_LABEL => {
                let name = without_underscore(self.asked.label(0));
                let protocol = without_underscore(self.asked.label(1));
                self.write_port(answering, Ports::One(name, protocol))
            }
            _ => self.write_zonal(answering),
        }
    }

    /// The Service itself.
    fn write_service(&self, answering: &mut Answering<'_>) -> Found {
        let members = self.headless();
        match (answering.rtype, members) {
            (rtype::A, Some(members)) => {
                for address in rotated(&members.v4, answering.turn) {
                    if !answering.record(self.at, address) {
                        break;
                    }
                }
            }
            (rtype::AAAA, Some(members)) => {
                for address in rotated(&members.v6, answering.turn) {
                    if !answering.record(self.at, address) {
                        break;
                    }
                }
            }
            (rtype::A | rtype::AAAA, None) => {
                let addresses = self.named.facts.addresses();
                answering.addresses(self.at, addresses.iter().copied());
            }
            (rtype::SRV, _) => self.write_ports(answering, Ports::All),
            _ => {}
        }
        Found::written(answering.count())
    }

    /// The endpoints, if they are what stands behind the name.
    fn headless(&self) -> Option<&'q Members> {
        let headless = self.named.facts.kind == Kind::Headless;
        self.named.members.filter(|_| headless)
    }

    /// An endpoint, a cluster, a protocol or zones.
    fn write_one_below(&self, answering: &mut Answering<'_>) -> Found {
        let label = self.asked.label(0);
        let protocol = without_underscore(label);
        if self.ports().any(|port| is_protocol(port, protocol)) {
            // Something may have both: then it is the endpoint.
            return match self.write_endpoint(answering, None) {
                Found::NoName => Found::NoData,
                found => found,
            };
        }
        if label == ZONE_LABEL && self.has_zones() {
            return Found::NoData;
        }
        if self.import {
            let mut members = self.named.members.into_iter();
            let here = |members: &Members| {
                let mut groups = members.groups();
                groups.any(|group| members.cluster_of(group) == label)
            };
            return match members.any(here) {
                true => Found::NoData,
                false => Found::NoName,
            };
        }
        self.write_endpoint(answering, None)
    }

    /// All ports that have names here.
    fn ports(&self) -> impl Iterator<Item = &'q PortFacts> {
        let headless = self.headless();
        let of_members = headless.into_iter().flat_map(Members::groups);
        let own = headless.is_none().then_some(&self.named.facts.ports);
        let of_members = of_members.flat_map(|group| &group.ports);
        own.into_iter().flatten().chain(of_members)
    }

    /// `ENDPOINT`, or `ENDPOINT.CLUSTER`.
    fn write_endpoint(&self, answering: &mut Answering<'_>, cluster: Option<&[u8]>) -> Found {
        let wanted = cluster.unwrap_or_default();
        let label = self.asked.label(0);
        let runs = || {
            let members = self.named.members.into_iter();
            let runs = members.flat_map(|members| members.named(label));
            runs.filter(|run| run.cluster().get(1..).unwrap_or_default() == wanted)
        };
        if (self.import && cluster.is_none()) || runs().next().is_none() {
            return Found::NoName;
        }
        match answering.rtype {
            rtype::A | rtype::AAAA => {
                for run in runs() {
                    let addresses = run.distinct_addresses();
                    answering.addresses(self.at, addresses);
                }
            }
            rtype::SRV => self.write_targets(answering, Ports::All, runs, |_| true),
            _ => {}
        }
        Found::written(answering.count())
    }

    /// `_PORT._PROTOCOL`.
    fn write_port(&self, answering: &mut Answering<'_>, ports: Ports<'_>) -> Found {
        if !self.ports().any(|port| ports.has(port)) {
            return Found::NoName;
        }
        if answering.rtype == rtype::SRV {
            self.write_ports(answering, ports);
        }
        Found::written(answering.count())
    }

    /// SRV of the Service.
    fn write_ports(&self, answering: &mut Answering<'_>, ports: Ports<'_>) {
        match self.headless() {
            Some(members) => {
                let turn = answering.turn;
                self.write_targets(answering, ports, || members.runs(turn), |_| true);
            }
            None => self.write_own_ports(answering, ports),
        }
    }

    /// SRV of a Service that is another name: its ports lead there.
    pub fn write_towards(&self, answering: &mut Answering<'_>, facts: &Facts, to: &Name) -> Found {
        let ports = match self.labels {
            0 => Ports::All,
            _ => Ports::One(
                without_underscore(self.asked.label(0)),
                without_underscore(self.asked.label(1)),
            ),
        };
        let meant = facts.ports.iter().filter(|port| ports.has(port));
        if meant.clone().next().is_none() {
            return if self.labels == 0 {
                Found::NoData
            } else {
                Found::NoName
            };
        }
        if answering.rtype == rtype::SRV {
            let weight = weight(meant.clone().count());
            let target = Target {
                endpoint: None,
                key: b"",
                middle: b"",
                zone: Where::Bytes(to.as_wire()),
            };
            let mut numbers: Vec<u16> = meant.map(|port| port.number).collect();
            numbers.sort_unstable();
            numbers.dedup();
            for number in numbers {
                answering.service(self.at, weight, number, &target);
            }
        }
        Found::written(answering.count())
    }

    /// SRV of virtual addresses: all ports lead to the Service's own name.
    fn write_own_ports(&self, answering: &mut Answering<'_>, ports: Ports<'_>) {
        let facts = self.named.facts;
        let addresses = facts.addresses();
        let weight = weight(ports.count(&facts.ports) * addresses.len());
        if addresses.is_empty() {
            return;
        }
        let target = self.target(None);
        let mut place = None;
        for (index, port) in facts.ports.iter().enumerate() {
            let again = |before: &PortFacts| ports.has(before) && before.number == port.number;
            if !ports.has(port) || facts.ports[..index].iter().any(again) {
                continue;
            }
            let written = answering.service(self.at, weight, port.number, &target);
            place.get_or_insert(written);
        }
        let Some(place) = place else { return };
        answering.builder.begin(Section::Additional);
        for address in addresses {
            answering.extra(place, *address);
        }
    }

    /// SRV of endpoints: each port leads to the name of each endpoint.
    fn write_targets<I: Iterator<Item = Run<'q>>>(
        &self,
        answering: &mut Answering<'_>,
        ports: Ports<'_>,
        runs: impl Fn() -> I,
        chosen: impl Fn(&Group) -> bool + Copy,
    ) {
        let parts = move |run: Run<'q>| {
            let meant = move |(group, _): &(&'q Group, Run<'q>)| chosen(group);
            run.groups().filter(meant)
        };
        let matching = |(group, part): (&Group, Run<'_>)| ports.count(&group.ports) * part.len();
        let weight = weight(runs().flat_map(parts).map(matching).sum());
        let mut place = answering.builder.position();
        for run in runs() {
            let target = self.target(Some(run));
            for_each_port(parts(run), ports, |number| {
                answering.service(self.at, weight, number, &target);
            });
        }
        let end = answering.builder.position();
        if place == end {
            return;
        }
        answering.builder.begin(Section::Additional);
        for run in runs() {
            let mut first = None;
            for_each_port(parts(run), ports, |_| {
                if place < end {
                    first.get_or_insert(place);
                    place = answering.end_of_record(place);
                }
            });
            let Some(first) = first else { continue };
            let meant = || parts(run).filter(|(group, _)| ports.count(&group.ports) > 0);
            for address in distinct(meant) {
                if !answering.extra(first + FIXED_BYTES + SRV_BYTES, address) {
                    return;
                }
            }
        }
    }

    fn target(&self, endpoint: Option<Run<'q>>) -> Target<'q> {
        let end = self.at + self.asked.offset(self.asked.count()) + 1;
        Target {
            endpoint,
            key: self.named.key,
            middle: self.middle,
            zone: Where::Written(self.zone_at, end),
        }
    }

    fn has_zones(&self) -> bool {
        self.zonal && !self.import && self.headless().is_some()
    }

    /// `ZONE.pin._zone` and `ZONE.prefer._zone`; a zone may have several labels.
    fn write_zonal(&self, answering: &mut Answering<'_>) -> Found {
        let members = self.headless().filter(|_| self.has_zones());
        let last = self.labels - 1;
        let (Some(members), ZONE_LABEL) = (members, self.asked.label(last)) else {
            return Found::NoName;
        };
        let prefer = match self.asked.label(last - 1) {
            b"pin" => false,
            b"prefer" => true,
            _ => return Found::NoName,
        };
        if last == 1 {
            return Found::NoData;
        }
        let here = |group: &Group| {
            let zone = members.zone_of(group);
            zone.is_some_and(|zone| self.is_zone(zone, last - 1))
        };
        let all = prefer && !members.groups().any(here);
        let chosen = |group: &Group| all || here(group);
        match answering.rtype {
            rtype::A | rtype::AAAA => {
                let runs = members.runs(0).flat_map(Run::groups);
                let chosen = runs.filter(|(group, _)| chosen(group));
                let mut addresses: Vec<IpAddr> =
                    chosen.flat_map(|(_, part)| part.addresses()).collect();
                addresses.sort_unstable();
                addresses.dedup();
                addresses.retain(|address| address.is_ipv4() == (answering.rtype == rtype::A));
                let turn = answering.turn;
                let rotated = rotated(&addresses, turn).copied();
                answering.addresses(self.at, rotated);
            }
            rtype::SRV => {
                let turn = answering.turn;
                self.write_targets(answering, Ports::All, || members.runs(turn), chosen);
            }
            _ => {}
        }
        Found::written(answering.count())
    }

    /// Whether the first labels of the name, with dots between them, are the zone.
    fn is_zone(&self, zone: &[u8], labels: usize) -> bool {
        let mut rest = zone;
        for label in 0..labels {
            let text = self.asked.label(label);
            let Some(after) = rest.strip_prefix(text) else {
                return false;
            };
            rest = match after.split_first() {
                Some((b'.', after)) if label + 1 < labels => after,
                None => after,
                _ => return false,
            };
        }
        rest.is_empty()
    }
}

impl Named<'_> {
    /// The names at which whoever has the address `own` serves, with the addresses of these names.
    pub fn servers(&self, own: IpAddr, zone: &[u8]) -> Vec<(Vec<u8>, Vec<IpAddr>)> {
        let written = |target: Target<'_>| {
            let mut name = Vec::new();
            target.write(&mut name);
            name
        };
        match self.facts.kind {
            Kind::Addresses(ref addresses) if !addresses.is_empty() => {
                let name = written(Target::service(self.key, zone));
                vec![(name, addresses.to_vec())]
            }
            Kind::Headless => {
                let runs = self.members.into_iter().flat_map(|members| members.at(own));
                let server = |run: Run<'_>| {
                    let name = written(Target::endpoint(run, self.key, zone));
                    (name, run.distinct_addresses().collect())
                };
                runs.map(server).collect()
            }
            Kind::Addresses(_) | Kind::Alias(_) => Vec::new(),
        }
    }
}

/// Tells every port number once.
fn for_each_port<'a>(
    parts: impl Iterator<Item = (&'a Group, Run<'a>)> + Clone,
    ports: Ports<'_>,
    mut tell: impl FnMut(u16),
) {
    for (index, (group, _)) in parts.clone().enumerate() {
        for (at, port) in group.ports.iter().enumerate() {
            let again = |before: &PortFacts| ports.has(before) && before.number == port.number;
            let earlier = || {
                parts
                    .clone()
                    .take(index)
                    .flat_map(|(group, _)| &group.ports)
            };
            let told = || group.ports[..at].iter().any(again) || earlier().any(again);
            if ports.has(port) && !told() {
                tell(port.number);
            }
        }
    }
}

/// Addresses of parts of one run, each once.
fn distinct<'a, I: Iterator<Item = (&'a Group, Run<'a>)>>(
    parts: impl Fn() -> I,
) -> impl Iterator<Item = IpAddr> {
    let numbered = parts().enumerate();
    numbered.flat_map(move |(index, (_, part))| {
        let earlier: Vec<Run<'a>> = parts().take(index).map(|(_, part)| part).collect();
        let new = move |address: &IpAddr| !earlier.iter().any(|part| part.holds(*address));
        part.addresses().filter(new)
    })
}

impl<'a> Run<'a> {
    /// Its addresses, each once.
    pub fn distinct_addresses(self) -> impl Iterator<Item = IpAddr> {
        distinct(move || self.groups())
    }
}

/// A slice that begins somewhere else.
fn rotated<T>(all: &[T], turn: usize) -> impl Iterator<Item = &T> {
    let (before, after) = all.split_at(turn.checked_rem(all.len()).unwrap_or(0));
    after.iter().chain(before)
}

fn weight(records: usize) -> u16 {
    WEIGHTS
        .checked_div(records)
        .map_or(1, |weight| weight.max(1)) as u16
}

fn without_underscore(label: &[u8]) -> &[u8] {
    label.strip_prefix(b"_").unwrap_or(label)
}
