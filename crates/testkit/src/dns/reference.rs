//! A zone that is slow and obviously right: every record of every name is written down as text, and looked up.
//!
//! It follows docs/dns.md from object to record, with nothing encoded, indexed or changed in place.

mod enter;
mod objects;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portolan_dns::zone::{Config, PodNames};
use portolan_model::names::{Backs, Kind, Label, Owner, Pod, Port, Service, ServiceKind};

use super::message::Record;
use enter::{enter, enter_headless};
pub use objects::Objects;

/// What an answer must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The name is in no zone of ours.
    pub not_ours: bool,
    /// Code.
    pub rcode: u16,
    /// In order.
    pub answer: Vec<Record>,
    /// Owner of the SOA in the authority section.
    pub soa: Option<String>,
    /// In order.
    pub additional: Vec<Record>,
}

/// Data of a record; targets are without the zone, which is written as the question has it.
#[derive(Clone)]
enum Data {
    Address(IpAddr),
    Service {
        weight: usize,
        port: u16,
        target: String,
    },
    Whole(&'static str, String),
    Alias(String),
}

/// One record, and what goes into the additional section with it: names without the zone, and their addresses.
#[derive(Clone)]
struct Entry {
    data: Data,
    extra: Vec<(String, IpAddr)>,
}

/// An endpoint under one name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Member {
    name: String,
    cluster: Option<String>,
    address: IpAddr,
    zone: Option<String>,
    ports: Vec<(Option<String>, String, u16)>,
}

/// Every name of one zone, relative to it (`web.ns.svc.`), with its records.
type Names = BTreeMap<String, Vec<Entry>>;

/// The reference for one moment.
pub struct Reference<'a> {
    config: &'a Config,
    objects: &'a Objects,
    own: Names,
    imports: Names,
    pointers: BTreeMap<IpAddr, Vec<String>>,
}

fn text(port: &Port) -> (Option<String>, String, u16) {
    let name = port.name.as_ref().map(|name| name.to_string());
    (
        name,
        port.protocol.as_str().to_ascii_lowercase(),
        port.number,
    )
}

/// An address as a label.
pub fn dashed(address: IpAddr) -> String {
    let text = address.to_string().replace([':', '.'], "-");
    if text.ends_with('-') {
        text + "0"
    } else {
        text
    }
}

/// Distinct SRV records of ports that lead to one target.
fn services(weight: usize, ports: impl Iterator<Item = u16>, target: &str) -> Vec<Data> {
    let numbers: BTreeSet<u16> = ports.collect();
    let target = target.to_owned();
    let data = |port| Data::Service {
        weight,
        port,
        target: target.clone(),
    };
    numbers.into_iter().map(data).collect()
}

fn weight(count: usize) -> usize {
    100usize.checked_div(count).unwrap_or(100).max(1)
}

impl<'a> Reference<'a> {
    /// Writes down every name.
    pub fn new(config: &'a Config, objects: &'a Objects) -> Self {
        let mut reference = Reference {
            config,
            objects,
            own: Names::new(),
            imports: Names::new(),
            pointers: BTreeMap::new(),
        };
        for (service, _) in objects.services.values() {
            reference.enter_service(service);
        }
        for (import, _) in objects.imports.values() {
            let kind = match &import.addresses {
                Some(addresses) => ServiceKind::ClusterIp(addresses.clone()),
                None => ServiceKind::Headless,
            };
            let members = reference.members(&import.owner, true, false);
            if reference.has_namespace(&import.owner.namespace) && reference.exists(&kind, &members)
            {
                let mut names = Names::new();
                enter(
                    &mut names,
                    &import.owner,
                    &kind,
                    &import.ports,
                    &members,
                    true,
                );
                reference.imports.extend(names);
            }
        }
        reference
    }

    fn has_namespace(&self, namespace: &Label) -> bool {
        let asked = &self.config.namespaces;
        self.objects.namespaces.contains_key(namespace)
            && (asked.is_empty() || asked.contains(namespace))
    }

    fn exists(&self, kind: &ServiceKind, members: &BTreeSet<Member>) -> bool {
        match kind {
            ServiceKind::ExternalName(_) => true,
            ServiceKind::Headless => !members.is_empty(),
            ServiceKind::ClusterIp(_) | ServiceKind::Pending => {
                !(self.config.ignore_empty_service && members.is_empty())
            }
        }
    }

    fn members(&self, owner: &Owner, import: bool, publish: bool) -> BTreeSet<Member> {
        let mut members = BTreeSet::new();
        if self.config.no_endpoints {
            return members;
        }
        for (slice, _) in self.objects.slices.values() {
            let cluster = match &slice.backs {
                Backs::Service(of) if of == owner && !import => None,
                Backs::Import { owner: of, cluster } if of == owner && import => {
                    Some(cluster.to_string())
                }
                _ => continue,
            };
            for endpoint in &slice.endpoints {
                if !(endpoint.ready || publish) {
                    continue;
                }
                for &address in &endpoint.addresses {
                    let pod = endpoint
                        .pod
                        .as_ref()
                        .filter(|_| self.config.endpoint_pod_names);
                    let label = endpoint.hostname.as_ref().or(pod);
                    members.insert(Member {
                        name: label.map_or(dashed(address), |label| label.to_string()),
                        cluster: cluster.clone(),
                        address,
                        zone: endpoint.zone.as_ref().map(|zone| zone.to_string()),
                        ports: slice.ports.iter().map(text).collect(),
                    });
                }
            }
        }
        members
    }

    fn enter_service(&mut self, service: &Service) {
        let Service { owner, kind, .. } = service;
        let members = self.members(owner, false, service.publish_not_ready);
        if !self.has_namespace(&owner.namespace) || !self.exists(kind, &members) {
            return;
        }
        let mut names = Names::new();
        enter(&mut names, owner, kind, &service.ports, &members, false);
        self.own.extend(names);
        if !matches!(kind, ServiceKind::ExternalName(_)) {
            for member in &members {
                let target = format!("{}.{}.{}.svc.", member.name, owner.name, owner.namespace);
                let targets = self.pointers.entry(member.address).or_default();
                if !targets.contains(&target) {
                    targets.push(target);
                }
            }
        }
    }

    /// The answer to a question about `name`, as it is written.
    pub fn answer(&self, name: &str, rtype: &str) -> Expected {
        let mut expected = Expected::default();
        let mut met = Vec::new();
        let mut name = name.to_owned();
        let Some(mut zone) = self.zone_of(&name) else {
            expected.not_ours = true;
            return expected;
        };
        loop {
            met.push(name.to_ascii_lowercase());
            let suffix = &name[name.len() - zone.len()..];
            let found = self.look(&name, &zone, rtype);
            let Some(entries) = found else {
                expected.rcode = if self.is_listed() { 3 } else { 2 };
                expected.soa = Some(suffix.to_owned());
                return expected;
            };
            let alias = entries.iter().find_map(|entry| match &entry.data {
                Data::Alias(target) if rtype != "ANY" => Some(target.clone()),
                _ => None,
            });
            if let Some(target) = alias {
                expected
                    .answer
                    .push(self.record(&name, "CNAME", target.clone()));
                let next = self.zone_of(&target).filter(|_| rtype != "CNAME");
                let circle = met.contains(&target.to_ascii_lowercase());
                match next.filter(|_| !circle && met.len() < 10) {
                    Some(next) => (name, zone) = (target, next),
                    None => return expected,
                }
                continue;
            }
            self.write(&mut expected, &name, suffix, rtype, &entries);
            return expected;
        }
    }

    fn write(
        &self,
        expected: &mut Expected,
        name: &str,
        suffix: &str,
        rtype: &str,
        entries: &[Entry],
    ) {
        let mut wrote = false;
        for entry in entries {
            let (kind, data) = match &entry.data {
                Data::Address(address @ IpAddr::V4(_)) => ("A", address.to_string()),
                Data::Address(address) => ("AAAA", address.to_string()),
                Data::Service {
                    weight,
                    port,
                    target,
                } => ("SRV", format!("0 {weight} {port} {target}{suffix}")),
                Data::Whole(kind, data) => (*kind, data.clone()),
                Data::Alias(_) => continue,
            };
            if kind != rtype {
                continue;
            }
            wrote = true;
            expected.answer.push(self.record(name, kind, data));
            for (owner, address) in &entry.extra {
                let kind = if address.is_ipv4() { "A" } else { "AAAA" };
                // Servers are written with their zone, which may be another one.
                let full = match rtype {
                    "NS" => owner.clone(),
                    _ => format!("{owner}{suffix}"),
                };
                let record = self.record(&full, kind, address.to_string());
                if !expected.additional.contains(&record) {
                    expected.additional.push(record);
                }
            }
        }
        if rtype == "ANY" && !wrote {
            expected
                .answer
                .push(self.record(name, "HINFO", "\"RFC8482\" \"\"".to_owned()));
        } else if !wrote {
            expected.soa = Some(suffix.to_owned());
        }
    }

    fn record(&self, owner: &str, rtype: &str, data: String) -> Record {
        let ttl = if rtype == "TXT" {
            28_800
        } else {
            self.config.ttl
        };
        Record {
            owner: owner.to_owned(),
            rtype: rtype.to_owned(),
            data,
            ttl,
        }
    }

    fn is_listed(&self) -> bool {
        let needed = Kind::ALL.into_iter().filter(|kind| match kind {
            Kind::Namespace | Kind::Service => true,
            Kind::Slice => !self.config.no_endpoints,
            Kind::Pod => self.config.pods == PodNames::Verified,
            Kind::Import => !self.config.multicluster.is_empty(),
        });
        needed
            .into_iter()
            .all(|kind| self.objects.listed.contains(&kind))
    }

    /// The longest zone that a name is in.
    fn zone_of(&self, name: &str) -> Option<String> {
        let name = format!(".{}", name.to_ascii_lowercase());
        let zones = self.config.zones.iter().chain(&self.config.multicluster);
        let zones = zones.map(|zone| zone.to_string().to_ascii_lowercase());
        let within = zones.filter(|zone| name.ends_with(&format!(".{zone}")));
        within.max_by_key(String::len)
    }

    /// The records of a name; `None` when there is no such name.
    fn look(&self, name: &str, zone: &str, rtype: &str) -> Option<Vec<Entry>> {
        let lower = name.to_ascii_lowercase();
        let relative = &lower[..lower.len() - zone.len()];
        let plain = |data| Entry {
            data,
            extra: Vec::new(),
        };
        if relative.is_empty() {
            return Some(self.apex(zone, &name[name.len() - zone.len()..], rtype));
        }
        if relative == "dns." {
            return Some(Vec::new());
        }
        if relative == "ns.dns." {
            let own: BTreeSet<&IpAddr> = self.config.own.iter().collect();
            return Some(
                own.into_iter()
                    .map(|own| plain(Data::Address(*own)))
                    .collect(),
            );
        }
        if zone.ends_with("in-addr.arpa.") || zone.ends_with("ip6.arpa.") {
            return self.look_reverse(&lower);
        }
        if relative == "dns-version." {
            return Some(vec![plain(Data::Whole("TXT", "\"1.1.0\"".to_owned()))]);
        }
        let imports = self
            .config
            .multicluster
            .iter()
            .any(|m| m.to_string().eq_ignore_ascii_case(zone));
        let names = if imports { &self.imports } else { &self.own };
        if let Some(entries) = names.get(relative) {
            return Some(entries.clone());
        }
        let below = format!(".{relative}");
        let parent = names.keys().any(|known| known.ends_with(&below));
        let labels: Vec<&str> = relative.trim_end_matches('.').split('.').collect();
        let namespaces = self
            .objects
            .namespaces
            .keys()
            .filter(|n| self.has_namespace(n));
        let namespaces: Vec<String> = namespaces.map(|n| n.to_string()).collect();
        let has = |label: &str| namespaces.iter().any(|n| n == label);
        match labels[..] {
            ["svc" | "pod"] => Some(Vec::new()),
            [namespace, "svc"] => has(namespace).then(Vec::new),
            [namespace, "pod"] => {
                (self.config.pods != PodNames::Disabled && has(namespace)).then(Vec::new)
            }
            [label, namespace, "pod"] if has(namespace) => self
                .pod(label, namespace)
                .map(|address| vec![plain(Data::Address(address))]),
            _ if parent => Some(Vec::new()),
            _ => self.zonal(&labels).filter(|_| !imports),
        }
    }

    fn pod(&self, label: &str, namespace: &str) -> Option<IpAddr> {
        let four = label.matches('-').count() == 3 && !label.contains("--");
        let text = label.replace('-', if four { "." } else { ":" });
        let address: IpAddr = text.parse().ok()?;
        let lives = |pod: &Pod| {
            pod.live && *pod.object.namespace == *namespace && pod.addresses.contains(&address)
        };
        match self.config.pods {
            PodNames::Disabled => None,
            PodNames::Insecure => Some(address),
            PodNames::Verified => {
                let mut pods = self.objects.pods.values();
                pods.any(|(pod, _)| lives(pod)).then_some(address)
            }
        }
    }

    /// Names of the endpoints of one zone.
    fn zonal(&self, labels: &[&str]) -> Option<Vec<Entry>> {
        let at = labels.iter().position(|label| *label == "_zone")?;
        let [name, namespace, "svc"] = labels[at + 1..] else {
            return None;
        };
        let owner = Owner::new(namespace, name)?;
        let (service, _) = self.objects.services.get(&owner)?;
        let members = self.members(&owner, false, service.publish_not_ready);
        let there = self.has_namespace(&owner.namespace) && !members.is_empty();
        if !self.config.zonal || service.kind != ServiceKind::Headless || !there {
            return None;
        }
        let prefer = match labels[..at].last() {
            None => return Some(Vec::new()),
            Some(&"pin") => false,
            Some(&"prefer") => true,
            Some(_) => return None,
        };
        let zone = labels[..at - 1].join(".");
        let here = |member: &&Member| member.zone.as_deref() == Some(&*zone);
        let any = members.iter().any(|member| here(&member));
        let chosen: BTreeSet<Member> = match prefer && !any && at > 1 {
            true => members.clone(),
            false => members.iter().filter(here).cloned().collect(),
        };
        let mut names = Names::new();
        if !chosen.is_empty() && at > 1 {
            let key = format!("{name}.{namespace}.svc.");
            enter_headless(&mut names, &key, &chosen, &key);
            return names.remove(&key);
        }
        Some(Vec::new())
    }

    fn look_reverse(&self, name: &str) -> Option<Vec<Entry>> {
        let primary = self.primary()?;
        let mut found: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        let mut owners: BTreeMap<IpAddr, Vec<&Owner>> = BTreeMap::new();
        for (service, _) in self.objects.services.values() {
            let members = self.members(&service.owner, false, service.publish_not_ready);
            let named = self.has_namespace(&service.owner.namespace)
                && self.exists(&service.kind, &members);
            if let (ServiceKind::ClusterIp(addresses), true) = (&service.kind, named) {
                for address in addresses {
                    owners.entry(*address).or_default().push(&service.owner);
                }
            }
        }
        let addresses: BTreeSet<IpAddr> =
            owners.keys().chain(self.pointers.keys()).copied().collect();
        for address in addresses {
            let targets = match owners.get(&address) {
                // One is enough: the first in the order of names on the wire.
                Some(owners) => {
                    let wire = |owner: &&&Owner| {
                        let labels = [&owner.name, &owner.namespace];
                        labels.map(|label| (label.len(), label.to_string()))
                    };
                    let first = owners.iter().min_by_key(wire).expect("one owner");
                    vec![format!("{}.{}.svc.", first.name, first.namespace)]
                }
                None => self.pointers[&address].clone(),
            };
            let entries = targets.into_iter().map(|target| Entry {
                data: Data::Whole("PTR", format!("{target}{primary}")),
                extra: Vec::new(),
            });
            found.insert(reverse_name(address), entries.collect());
        }
        let below = format!(".{name}");
        match found.get(name) {
            Some(entries) => Some(entries.clone()),
            None => found
                .keys()
                .any(|known| known.ends_with(&below))
                .then(Vec::new),
        }
    }

    /// The zone of names that pointers lead to.
    fn primary(&self) -> Option<String> {
        let mut zones = self.config.zones.iter();
        let forward = zones.find(|zone| {
            let reverse = zone.to_string().to_ascii_lowercase().ends_with(".arpa.");
            !reverse && !self.config.multicluster.contains(zone)
        });
        forward.map(|zone| zone.to_string().to_ascii_lowercase())
    }

    fn apex(&self, zone: &str, written: &str, rtype: &str) -> Vec<Entry> {
        if rtype == "SOA" {
            let data = format!("ns.dns.{written} hostmaster.{written}");
            let data = Data::Whole("SOA", data);
            return vec![Entry {
                data,
                extra: Vec::new(),
            }];
        }
        let reverse = zone.ends_with(".arpa.");
        let imports = self
            .config
            .multicluster
            .iter()
            .any(|m| m.to_string().eq_ignore_ascii_case(zone));
        let mut servers: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        for (service, _) in self.objects.services.values() {
            let Owner { name, namespace } = &service.owner;
            let members = self.members(&service.owner, false, service.publish_not_ready);
            let own = |member: &&Member| self.config.own.contains(&member.address);
            if imports || !self.exists(&service.kind, &members) {
                continue;
            }
            for member in members.iter().filter(own) {
                match &service.kind {
                    ServiceKind::ClusterIp(addresses) if !addresses.is_empty() => {
                        servers.insert(
                            format!("{name}.{namespace}.svc."),
                            addresses.iter().copied().collect(),
                        );
                    }
                    ServiceKind::Headless => {
                        let same = members.iter().filter(|other| other.name == member.name);
                        let addresses = same.map(|other| other.address).collect();
                        servers.insert(
                            format!("{}.{name}.{namespace}.svc.", member.name),
                            addresses,
                        );
                    }
                    _ => {}
                }
            }
        }
        // In a zone of addresses these names are those of the zone of names.
        let of_names = if reverse {
            self.primary()
        } else {
            Some(written.to_owned())
        };
        let mut servers: Vec<(String, BTreeSet<IpAddr>)> = match of_names {
            Some(zone) => servers
                .into_iter()
                .map(|(name, all)| (name + &zone, all))
                .collect(),
            None => Vec::new(),
        };
        if servers.is_empty() {
            let own = self.config.own.iter().copied().collect();
            servers.push((format!("ns.dns.{written}"), own));
        }
        let entry = |(name, addresses): (String, BTreeSet<IpAddr>)| Entry {
            extra: addresses
                .iter()
                .map(|address| (name.clone(), *address))
                .collect(),
            data: Data::Whole("NS", name),
        };
        servers.into_iter().map(entry).collect()
    }
}

/// The name of an address in the reverse zones.
pub fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        IpAddr::V6(address) => {
            let digits = address
                .octets()
                .map(|octet| format!("{octet:02x}"))
                .concat();
            let nibbles: Vec<String> = digits.chars().rev().map(String::from).collect();
            format!("{}.ip6.arpa.", nibbles.join("."))
        }
    }
}
