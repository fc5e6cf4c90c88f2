//! Random clusters that change, and random questions: the zone that is changed in place against the reference.
//!
//! Pools are small on purpose: objects clash, endpoints have the labels of ports, clusters and other addresses, slices
//! overlap, and names are asked for in odd case and with labels too many or too few.

use std::collections::BTreeSet;
use std::net::IpAddr;

use fastrand::Rng;
use portolan_dns::wire::{Name, Query};
use portolan_dns::zone::{Config, Index, Outcome, PodNames};
use portolan_model::Protocol;
use portolan_model::names::{
    Backs, Change, Endpoint, HostName, Import, Kind, Label, ObjectName, Owner, Pod, Port, Service,
    ServiceKind, Slice,
};

use super::message::{self, Message, Record, type_number};
use super::reference::{Expected, Objects, Reference, dashed, reverse_name};

const NAMESPACES: [&str; 4] = ["ns", "a", "svc", "kube-system"];
const NAMES: [&str; 5] = ["web", "db", "a", "tcp", "pod"];
const HOSTS: [&str; 8] = [
    "db-0", "web", "tcp", "udp", "10-0-0-1", "fd00--1", "c1", "db-1",
];
const PORTS: [&str; 4] = ["http", "dns", "a", "tcp"];
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
const CLUSTERS: [&str; 3] = ["c1", "c2", "tcp"];
const ZONES: [&str; 3] = ["east", "west", "corp.example"];
const ADDRESSES: [&str; 12] = [
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.3",
    "10.1.0.1",
    "172.30.0.1",
    "172.30.0.2",
    "172.30.1.1",
    "fd00::1",
    "fd00::2",
    "fd00:1::",
    "fd00:172:30::1",
    "fd00:172:30::2",
];
const ALIASES: [&str; 8] = [
    "web.ns.svc.cluster.local",
    "db.a.svc.cluster.local",
    "a.ns.svc.Cluster.Local",
    "tcp.a.svc.cluster.local",
    "example.com",
    "nobody.ns.svc.cluster.local",
    "web.ns.svc.clusterset.local",
    "pod.svc.svc.cluster.local",
];
const APEXES: [&str; 7] = [
    "cluster.local.",
    "clusterset.local.",
    "Sub.cluster.local.",
    "in-addr.arpa.",
    "0.10.in-addr.arpa.",
    "ip6.arpa.",
    "d.f.ip6.arpa.",
];
const TYPES: [&str; 11] = [
    "A", "A", "AAAA", "AAAA", "SRV", "SRV", "PTR", "TXT", "CNAME", "NS", "ANY",
];

/// Questions about one state of a cluster.
const QUESTIONS: usize = 150;

/// Changes of one cluster, each followed by questions.
const STEPS: usize = 6;

/// Bytes for an answer that is not to be cut.
const BYTES: usize = 65_535;

/// Checks the cluster that `seed` makes, step by step. Says how many questions were asked.
pub fn check(seed: u64) -> Result<usize, String> {
    let mut rng = Rng::with_seed(seed);
    let config = config(&mut rng);
    let mut index = Index::new(config.clone());
    let mut objects = Objects::default();
    let mut asked = 0;
    for step in 0..STEPS {
        for change in changes(&mut rng, step) {
            index.apply(change.clone(), step as u64);
            objects.apply(change);
        }
        let reference = Reference::new(&config, &objects);
        for _ in 0..QUESTIONS {
            let (name, rtype) = (name(&mut rng), pick(&mut rng, &TYPES));
            let turn = rng.usize(0..7);
            let expected = reference.answer(&name, rtype);
            let told = compare(&index, &name, rtype, turn, &expected);
            told.map_err(|how| format!("seed {seed}, step {step}: {name} {rtype}: {how}"))?;
            asked += 1;
        }
    }
    Ok(asked)
}

fn pick<T: Copy>(rng: &mut Rng, all: &[T]) -> T {
    all[rng.usize(0..all.len())]
}

fn label(rng: &mut Rng, all: &[&str]) -> Label {
    Label::new(pick(rng, all)).expect("a label")
}

fn address(rng: &mut Rng) -> IpAddr {
    pick(rng, &ADDRESSES).parse().expect("an address")
}

fn several<T>(rng: &mut Rng, max: usize, mut make: impl FnMut(&mut Rng) -> T) -> Vec<T> {
    (0..rng.usize(0..=max)).map(|_| make(rng)).collect()
}

fn config(rng: &mut Rng) -> Config {
    let mut zones: Vec<&str> = vec!["cluster.local."];
    zones.extend(APEXES[2..].iter().filter(|_| rng.bool()));
    if rng.u8(..) < 20 {
        zones.remove(0);
    }
    let multicluster: &[&str] = if rng.bool() {
        &["clusterset.local."]
    } else {
        &[]
    };
    let names = |texts: &[&str]| -> Vec<Name> {
        let name = |text: &&str| Name::parse(text).expect("a name");
        texts.iter().map(name).collect()
    };
    let few = rng.u8(..) < 60;
    Config {
        zones: names(&zones),
        multicluster: names(multicluster),
        namespaces: match few {
            true => [label(rng, &NAMESPACES), label(rng, &NAMESPACES)].into(),
            false => BTreeSet::new(),
        },
        pods: pick(
            rng,
            &[PodNames::Disabled, PodNames::Insecure, PodNames::Verified],
        ),
        endpoint_pod_names: rng.bool(),
        no_endpoints: rng.u8(..) < 20,
        ignore_empty_service: rng.u8(..) < 60,
        zonal: rng.bool(),
        ttl: pick(rng, &[0, 5, 30, 3600]),
        own: several(rng, 2, address),
    }
}

/// At first everything is listed, kind by kind; later something changes, or a kind is listed anew.
fn changes(rng: &mut Rng, step: usize) -> Vec<Change> {
    if step == 0 {
        let kinds = Kind::ALL.into_iter();
        let all: Vec<Change> = kinds.flat_map(|kind| listing(rng, kind)).collect();
        // Now and then the last listing is still to come.
        let keep = if rng.u8(..) < 30 {
            all.len() - 1
        } else {
            all.len()
        };
        return all.into_iter().take(keep).collect();
    }
    if rng.u8(..) < 40 {
        let kind = pick(rng, &Kind::ALL);
        return listing(rng, kind);
    }
    let kind = pick(rng, &Kind::ALL);
    let gone = rng.bool();
    (0..rng.usize(1..4))
        .map(|_| {
            if gone {
                removed(rng, kind)
            } else {
                object(rng, kind)
            }
        })
        .collect()
}

fn listing(rng: &mut Rng, kind: Kind) -> Vec<Change> {
    let count = rng.usize(0..8);
    let objects = (0..count).map(|_| object(rng, kind)).collect::<Vec<_>>();
    let mut all = vec![Change::Listing(kind)];
    all.extend(objects);
    all.push(Change::Listed(kind));
    all
}

fn owner(rng: &mut Rng) -> Owner {
    Owner {
        namespace: label(rng, &NAMESPACES),
        name: label(rng, &NAMES),
    }
}

fn object_name(rng: &mut Rng) -> ObjectName {
    ObjectName::new(
        pick(rng, &NAMESPACES),
        pick(rng, &["s1", "s2", "s.3", "s4", "s5"]),
    )
}

fn removed(rng: &mut Rng, kind: Kind) -> Change {
    match kind {
        Kind::Namespace => Change::NamespaceGone(label(rng, &NAMESPACES)),
        Kind::Service => Change::ServiceGone(owner(rng)),
        Kind::Slice => Change::SliceGone(object_name(rng)),
        Kind::Pod => Change::PodGone(object_name(rng)),
        Kind::Import => Change::ImportGone(owner(rng)),
    }
}

fn port(rng: &mut Rng) -> Port {
    Port {
        name: (rng.u8(..) > 40).then(|| label(rng, &PORTS)),
        protocol: pick(rng, &PROTOCOLS),
        number: pick(rng, &[53, 80, 443]),
    }
}

fn object(rng: &mut Rng, kind: Kind) -> Change {
    match kind {
        Kind::Namespace => Change::Namespace(label(rng, &NAMESPACES)),
        Kind::Service => Change::Service(Service {
            owner: owner(rng),
            kind: service_kind(rng),
            ports: several(rng, 3, port),
            external: several(rng, 2, address),
            external_names: Vec::new(),
            publish_not_ready: rng.u8(..) < 60,
            selects: rng.bool(),
        }),
        Kind::Slice => Change::Slice(Slice {
            object: object_name(rng),
            backs: backs(rng),
            ports: several(rng, 2, port),
            endpoints: several(rng, 5, endpoint),
            changed_ms: None,
        }),
        Kind::Pod => Change::Pod(Pod {
            object: object_name(rng),
            addresses: several(rng, 2, address),
            live: rng.u8(..) > 60,
            host_network: rng.u8(..) < 60,
        }),
        Kind::Import => Change::Import(Import {
            owner: owner(rng),
            addresses: rng.bool().then(|| several(rng, 2, address)),
            ports: several(rng, 3, port),
        }),
    }
}

fn service_kind(rng: &mut Rng) -> ServiceKind {
    match rng.u8(0..12) {
        0..5 => ServiceKind::ClusterIp(several(rng, 2, address)),
        5..9 => ServiceKind::Headless,
        9 => ServiceKind::Pending,
        10 if rng.bool() => ServiceKind::ExternalName(None),
        _ => ServiceKind::ExternalName(HostName::new(pick(rng, &ALIASES))),
    }
}

fn backs(rng: &mut Rng) -> Backs {
    match rng.u8(0..10) {
        0 => Backs::Nobody,
        1..4 => Backs::Import {
            owner: owner(rng),
            cluster: label(rng, &CLUSTERS),
        },
        _ => Backs::Service(owner(rng)),
    }
}

fn endpoint(rng: &mut Rng) -> Endpoint {
    Endpoint {
        addresses: several(rng, 2, address),
        hostname: (rng.u8(..) < 110).then(|| label(rng, &HOSTS)),
        pod: (rng.u8(..) < 110).then(|| label(rng, &HOSTS)),
        ready: rng.u8(..) > 60,
        zone: (rng.u8(..) < 150).then(|| pick(rng, &ZONES).into()),
    }
}

/// A name that may exist, or nearly.
fn name(rng: &mut Rng) -> String {
    let mut labels: Vec<String> = Vec::new();
    let mut put = |text: &str| labels.push(text.to_owned());
    let mut apex = pick(rng, &APEXES[..3]);
    match rng.u8(0..20) {
        0..4 => {}
        4..7 => host(rng, &mut put),
        7..10 => {
            let underscore = |rng: &mut Rng| if rng.u8(..) < 200 { "_" } else { "" };
            put(&format!("{}{}", underscore(rng), pick(rng, &PORTS)));
            let protocol = pick(rng, &PROTOCOLS).as_str().to_lowercase();
            put(&format!("{}{protocol}", underscore(rng)));
        }
        10 => put(pick(rng, &["_tcp", "udp", "_zone", "pin", "c1", "c2"])),
        11..13 => {
            host(rng, &mut put);
            put(pick(rng, &CLUSTERS));
        }
        13 => {
            put(pick(rng, &ZONES));
            put(pick(rng, &["pin", "prefer", "x"]));
            put("_zone");
        }
        14..16 => {
            let address = address(rng);
            let text = reverse_name(address);
            let skip = if rng.bool() { 0 } else { rng.usize(0..8) };
            let rest: Vec<&str> = text.split_inclusive('.').skip(skip).collect();
            return odd_case(rng, &rest.concat());
        }
        16 => {
            let odd = [
                "",
                "svc.",
                "pod.",
                "dns.",
                "ns.dns.",
                "x.dns.",
                "dns-version.",
                "x.dns-version.",
                "x.",
            ];
            apex = pick(rng, &APEXES);
            let text = format!("{}{apex}", pick(rng, &odd));
            return odd_case(rng, &text);
        }
        17 => {
            let address = dashed(address(rng));
            let text = format!("{address}.{}.pod.{apex}", pick(rng, &NAMESPACES));
            return odd_case(rng, &text);
        }
        18 => {
            let text = format!(
                "{}.{}.{apex}",
                pick(rng, &NAMESPACES),
                pick(rng, &["svc", "pod", "x"])
            );
            return odd_case(rng, &text);
        }
        _ => {
            host(rng, &mut put);
            host(rng, &mut put);
            host(rng, &mut put);
        }
    }
    put(pick(rng, &NAMES));
    put(pick(rng, &NAMESPACES));
    let text = format!("{}.svc.{apex}", labels.join("."));
    odd_case(rng, &text)
}

fn host(rng: &mut Rng, put: &mut impl FnMut(&str)) {
    match rng.bool() {
        true => put(pick(rng, &HOSTS)),
        false => put(&dashed(address(rng))),
    }
}

fn odd_case(rng: &mut Rng, text: &str) -> String {
    if rng.bool() {
        return text.to_owned();
    }
    text.chars()
        .map(|c| {
            if rng.bool() {
                c.to_ascii_uppercase()
            } else {
                c
            }
        })
        .collect()
}

fn ask(
    index: &Index,
    name: &str,
    rtype: &str,
    turn: usize,
    bytes: usize,
) -> (Outcome, Option<Message>) {
    let query = message::query(name, type_number(rtype), None);
    let query = Query::read(&query).expect("a query");
    let mut out = Vec::new();
    let outcome = index.zone().answer(&query, bytes, turn, &mut out);
    assert!(out.len() <= bytes, "{} bytes", out.len());
    let message = (outcome != Outcome::NotOurs).then(|| message::read(&out));
    (outcome, message)
}

fn compare(
    index: &Index,
    name: &str,
    rtype: &str,
    turn: usize,
    expected: &Expected,
) -> Result<(), String> {
    let (_, message) = ask(index, name, rtype, turn, BYTES);
    let Some(message) = message else {
        return if expected.not_ours {
            Ok(())
        } else {
            Err("is said not to be ours".to_owned())
        };
    };
    let [answer, authority, additional] = message.sections.clone().map(without_serial);
    let soa = authority.iter().map(|record| record.owner.clone()).next();
    let question = message.question.as_ref().map(|(name, ..)| name.as_str());
    let found = Expected {
        not_ours: false,
        rcode: message.rcode,
        answer,
        soa,
        additional,
    };
    let mut expected = expected.clone();
    expected.answer = without_serial(expected.answer);
    expected.additional = without_serial(expected.additional);
    if found != expected || question != Some(name) || !message.authoritative || message.truncated {
        return Err(format!("{found:#?} instead of {expected:#?}"));
    }
    cut(index, name, rtype, turn, &message)
}

/// In too little room there are some of the answers, and TC when there are not all.
fn cut(index: &Index, name: &str, rtype: &str, turn: usize, whole: &Message) -> Result<(), String> {
    let (_, message) = ask(index, name, rtype, turn, 150 + 25 * turn);
    let message = message.ok_or("is not ours in little room")?;
    let part = |short: &[Record], long: &[Record]| long.starts_with(short);
    let [answer, authority, additional] = &message.sections;
    let [all_answers, all_authority, all_additional] = &whole.sections;
    let complete = (answer.len(), authority.len()) == (all_answers.len(), all_authority.len());
    let parts = part(answer, all_answers) && part(additional, all_additional);
    if !parts || message.truncated == complete || (!complete && !additional.is_empty()) {
        return Err(format!("cut to {message:#?}"));
    }
    Ok(())
}

/// In order, and SOA without its numbers.
fn without_serial(mut records: Vec<Record>) -> Vec<Record> {
    for record in &mut records {
        if record.rtype == "SOA" {
            let words: Vec<&str> = record.data.split(' ').take(2).collect();
            record.data = words.join(" ");
        }
    }
    records.sort();
    records
}
