//! The names of one Service, with all of their records.

use std::collections::BTreeSet;
use std::net::IpAddr;

use portolan_model::names::{Owner, Port, ServiceKind};

use super::{Data, Entry, Member, Names, services, text, weight};

/// Both labels of a port, with and without underscores.
fn port_labels(name: &str, protocol: &str, import: bool) -> Vec<String> {
    let mut all = vec![
        format!("_{name}._{protocol}."),
        format!("_{name}.{protocol}."),
    ];
    if !import {
        // Without the first underscore it would be an endpoint of a cluster.
        all.push(format!("{name}._{protocol}."));
        all.push(format!("{name}.{protocol}."));
    }
    all
}

pub(super) fn enter(
    names: &mut Names,
    owner: &Owner,
    kind: &ServiceKind,
    ports: &[Port],
    members: &BTreeSet<Member>,
    import: bool,
) {
    let key = format!("{}.{}.svc.", owner.name, owner.namespace);
    let plain = |data| Entry {
        data,
        extra: Vec::new(),
    };
    names.insert(key.clone(), Vec::new());
    match kind {
        ServiceKind::ExternalName(target) => {
            let target = target.as_ref().map(|target| format!("{}.", &**target));
            names.insert(
                key,
                target.into_iter().map(|t| plain(Data::Alias(t))).collect(),
            );
            return;
        }
        ServiceKind::Pending => enter_addresses(names, &key, &[], ports, import),
        ServiceKind::ClusterIp(addresses) => enter_addresses(names, &key, addresses, ports, import),
        ServiceKind::Headless => {
            enter_headless(names, &key, members, &key);
            let ports: BTreeSet<_> = members.iter().flat_map(|m| &m.ports).collect();
            for (name, protocol, _) in ports {
                let Some(name) = name else { continue };
                for labels in port_labels(name, protocol, import) {
                    let meant = |port: &(Option<String>, String, u16)| {
                        port.0.as_ref() == Some(name) && port.1 == *protocol
                    };
                    let entries = targets(members, &key, meant);
                    names.insert(format!("{labels}{key}"), entries);
                }
            }
        }
    }
    let labels: BTreeSet<_> = members.iter().map(|m| (&m.name, &m.cluster)).collect();
    for (name, cluster) in labels {
        let same = |m: &&Member| m.name == *name && m.cluster == *cluster;
        let those: BTreeSet<Member> = members.iter().filter(same).cloned().collect();
        let cluster = cluster
            .as_ref()
            .map_or(String::new(), |cluster| format!("{cluster}."));
        let full = format!("{name}.{cluster}{key}");
        // An endpoint may have the labels of something else: it has the records.
        names.remove(&full);
        enter_headless(names, &full, &those, &key);
    }
}

fn enter_addresses(
    names: &mut Names,
    key: &str,
    addresses: &[IpAddr],
    ports: &[Port],
    import: bool,
) {
    let distinct: BTreeSet<IpAddr> = addresses.iter().copied().collect();
    let extra: Vec<(String, IpAddr)> = distinct.iter().map(|a| (key.to_owned(), *a)).collect();
    let leading = |meant: &dyn Fn(&Port) -> bool| -> Vec<Entry> {
        let count = ports.iter().filter(|port| meant(port)).count() * distinct.len();
        let numbers = ports
            .iter()
            .filter(|port| meant(port))
            .map(|port| port.number);
        let data = services(weight(count), numbers, key).into_iter();
        let data = data.filter(|_| !distinct.is_empty());
        data.map(|data| Entry {
            data,
            extra: extra.clone(),
        })
        .collect()
    };
    let own = distinct.iter().map(|address| Entry {
        data: Data::Address(*address),
        extra: Vec::new(),
    });
    let all: Vec<Entry> = own.chain(leading(&|_| true)).collect();
    names.insert(key.to_owned(), all);
    for port in ports {
        let (Some(name), protocol, _) = text(port) else {
            continue;
        };
        let meant = |other: &Port| other.name == port.name && other.protocol == port.protocol;
        for labels in port_labels(&name, &protocol, import) {
            names.insert(format!("{labels}{key}"), leading(&meant));
        }
    }
}

/// The addresses of members, and SRV of all their ports, at one name.
pub(super) fn enter_headless(names: &mut Names, name: &str, members: &BTreeSet<Member>, key: &str) {
    let addresses: BTreeSet<IpAddr> = members.iter().map(|member| member.address).collect();
    let addresses = addresses.into_iter().map(|address| Entry {
        data: Data::Address(address),
        extra: Vec::new(),
    });
    let all = addresses.chain(targets(members, key, |_| true)).collect();
    names.insert(name.to_owned(), all);
}

/// SRV of the ports of members that are meant.
fn targets(
    members: &BTreeSet<Member>,
    key: &str,
    meant: impl Fn(&(Option<String>, String, u16)) -> bool,
) -> Vec<Entry> {
    let matching = |member: &Member| member.ports.iter().filter(|port| meant(port)).count();
    let weight = weight(members.iter().map(matching).sum());
    let labels: BTreeSet<_> = members.iter().map(|m| (&m.name, &m.cluster)).collect();
    let mut entries = Vec::new();
    for (name, cluster) in labels {
        let same = |m: &&Member| m.name == *name && m.cluster == *cluster && matching(m) > 0;
        let those: Vec<&Member> = members.iter().filter(same).collect();
        let cluster = cluster
            .as_ref()
            .map_or(String::new(), |cluster| format!("{cluster}."));
        let target = format!("{name}.{cluster}{key}");
        let ports = those
            .iter()
            .flat_map(|m| &m.ports)
            .filter(|port| meant(port));
        let addresses: BTreeSet<IpAddr> = those.iter().map(|m| m.address).collect();
        let extra: Vec<_> = addresses.into_iter().map(|a| (target.clone(), a)).collect();
        for data in services(weight, ports.map(|port| port.2), &target) {
            let extra = extra.clone();
            entries.push(Entry { data, extra });
        }
    }
    entries
}
