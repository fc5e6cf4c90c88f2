//! Bytes that nobody would send: whatever comes, it is read or refused, and the answer keeps within its room.
#![allow(clippy::unwrap_used)]

use fastrand::Rng;
use portolan_dns::wire::{Name, Query, Unreadable, rtype, smallest_ttl};
use portolan_dns::zone::{Config, External, Index, PodNames, candidates};
use portolan_model::names::{Change, HostName, Kind, Label, Owner, Service, ServiceKind};

/// Messages of one run.
const MESSAGES: u64 = 200_000;

fn index() -> Index {
    let zones = ["cluster.local", "in-addr.arpa", "ip6.arpa"];
    let mut index = Index::new(Config {
        zones: zones
            .iter()
            .map(|zone| Name::parse(zone).unwrap())
            .collect(),
        pods: PodNames::Insecure,
        zonal: true,
        ..Config::default()
    });
    index.apply(Change::Namespace(Label::new("ns").unwrap()), 1);
    index.apply(
        Change::Service(Service {
            owner: Owner::new("ns", "web").unwrap(),
            kind: ServiceKind::ClusterIp(vec!["172.30.0.1".parse().unwrap()]),
            ports: Vec::new(),
            external: vec!["198.51.100.1".parse().unwrap()],
            external_names: Vec::new(),
            publish_not_ready: false,
            selects: true,
        }),
        1,
    );
    for kind in Kind::ALL {
        index.apply(Change::Listing(kind), 1);
    }
    index
}

/// A query that is right, or was before some of its bytes were changed, cut away or repeated.
fn message(rng: &mut Rng) -> Vec<u8> {
    let names = [
        "web.ns.svc.cluster.local",
        "1-2-3-4.ns.pod.cluster.local",
        "1.0.30.172.in-addr.arpa",
        "a.pin._zone.web.ns.svc.cluster.local",
        "web.ns.example.com",
        ".",
        "cluster.local",
    ];
    let name = Name::parse(names[rng.usize(0..names.len())]).unwrap();
    let mut message = vec![rng.u8(..), rng.u8(..), 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    message.extend_from_slice(name.as_wire());
    message.extend_from_slice(&[0, rng.u8(..), 0, 1]);
    message.extend_from_slice(&[0, 0, 41, rng.u8(..), rng.u8(..), 0, 0, 0, 0, 0, 0]);
    for _ in 0..rng.usize(0..6) {
        let at = rng.usize(0..message.len());
        match rng.u8(0..4) {
            0 => message[at] = rng.u8(..),
            1 => message[at] ^= 1 << rng.u8(0..8),
            2 => message.truncate(at.max(1)),
            _ => message.extend_from_within(at..),
        }
    }
    message
}

#[test]
fn whatever_comes_is_read_or_refused() {
    let index = index();
    let zones = vec![
        Name::parse("example.com").unwrap(),
        Name::parse("in-addr.arpa").unwrap(),
    ];
    let external = External::new(zones, Label::new("dns").unwrap(), true, 5, Vec::new());
    let search = [Name::parse("ns.svc.cluster.local").unwrap()];
    let mut out = Vec::new();
    let mut read = 0;
    for seed in 0..MESSAGES {
        let message = message(&mut Rng::with_seed(seed));
        smallest_ttl(&message);
        let query = match Query::read(&message) {
            Ok(query) => query,
            Err(Unreadable::Ignore | Unreadable::Refuse(_)) => continue,
        };
        read += 1;
        let bytes_max = query.datagram_bytes_max();
        for way in 0..2 {
            match way {
                0 => index
                    .zone()
                    .answer(&query, bytes_max, seed as usize, &mut out),
                _ => external.answer(index.zone(), &query, bytes_max, seed as usize, &mut out),
            };
            assert!(out.len() <= bytes_max, "seed {seed}");
            smallest_ttl(&out);
        }
        candidates(query.name, &search);
        if let rtype::AXFR | rtype::IXFR = query.rtype {
            index
                .zone()
                .transfer(&query, true, 0)
                .into_iter()
                .flatten()
                .for_each(drop);
        }
    }
    assert!(read > MESSAGES / 4, "{read} were queries");
}

#[test]
fn so_many_aliases_are_followed() {
    let mut index = index();
    for number in 0..12 {
        let target = format!("a{}.ns.svc.cluster.local", number + 1);
        let service = Service {
            owner: Owner::new("ns", &format!("a{number}")).unwrap(),
            kind: ServiceKind::ExternalName(HostName::new(&target)),
            ports: Vec::new(),
            external: Vec::new(),
            external_names: Vec::new(),
            publish_not_ready: false,
            selects: false,
        };
        index.apply(Change::Service(service), 1);
    }
    let name = Name::parse("a0.ns.svc.cluster.local").unwrap();
    let mut message = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(name.as_wire());
    message.extend_from_slice(&[0, 1, 0, 1]);
    let query = Query::read(&message).unwrap();
    let mut out = Vec::new();
    index.zone().answer(&query, 4096, 0, &mut out);
    assert_eq!((out[3] & 15, out[6], out[7]), (0, 0, 10));
}
