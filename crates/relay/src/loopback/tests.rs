//! Which doors stand where, and who is told that there is none.

use std::num::NonZeroU16;
use std::sync::Arc;

use portolan_model::{Endpoint, NodeFacts};

use super::*;

const LOOPBACK: Loopback = Loopback { first_port: 1024 };

fn port(name: &str, number: u16, cluster_ips: &[&str]) -> ServicePort {
    let key = PortKey::new("shop", name, "", Protocol::Tcp);
    let mut port = ServicePort::new(key, NonZeroU16::new(number).unwrap());
    port.cluster_ips = cluster_ips.iter().map(|ip| ip.parse().unwrap()).collect();
    port.endpoints = [Endpoint::ready("10.1.0.10:8080".parse().unwrap())].into();
    port
}

fn open(ports: &[ServicePort]) -> (Open, Vec<Problem>) {
    let mut snapshot = Snapshot::new(NodeFacts {
        node_port_addresses: ["192.168.0.11".parse().unwrap()].into(),
        ..NodeFacts::default()
    });
    ports.iter().for_each(|port| snapshot.set(port.clone()));
    LOOPBACK.compile(&snapshot)
}

fn places(open: &Open) -> Vec<String> {
    let place = |door: &Door| {
        let meant = door.leads_to.unwrap();
        format!("{} for {meant} from {:?}", door.listen, door.origin)
    };
    open.doors.iter().map(place).collect()
}

#[test]
fn an_address_keeps_its_last_three_numbers() {
    for (address, number, place) in [
        ("172.30.0.80", 80, Some("127.30.0.80:8080")),
        ("172.30.0.80", 1023, Some("127.30.0.80:9023")),
        ("172.30.0.80", 1024, Some("127.30.0.80:1024")),
        ("127.0.5.1", 8080, Some("127.0.5.1:8080")),
        ("fd00:172:30::1", 80, None),
    ] {
        let place = place.map(|text| text.parse().unwrap());
        assert_eq!(LOOPBACK.place(address.parse().unwrap(), number), place);
    }
}

#[test]
fn cluster_ips_and_node_ports_have_doors() {
    let mut web = port("web", 80, &["172.30.0.80"]);
    web.node_port = NonZeroU16::new(30080);
    web.families = [Family::V4].into();
    web.external_ips = vec!["198.51.100.1".parse().unwrap()];
    let (open, problems) = open(&[web]);
    let wanted = [
        "127.30.0.80:8080 for 172.30.0.80:80 from Host",
        "192.168.0.11:30080 for 192.168.0.11:30080 from Outside",
    ];
    assert_eq!(places(&open), wanted);
    let told: Vec<&str> = problems.iter().map(|problem| &*problem.message).collect();
    assert!(told.len() == 1 && told[0].contains("external"), "{told:?}");
}

/// Port 80 would be moved to where the same address has port 8080 already.
#[test]
fn who_is_moved_gives_way() {
    let (low, high) = (
        port("a", 80, &["172.30.0.80"]),
        port("b", 8080, &["172.30.0.80"]),
    );
    let (open, problems) = open(&[low, high]);
    assert_eq!(
        places(&open),
        ["127.30.0.80:8080 for 172.30.0.80:8080 from Host"]
    );
    let [problem] = &problems[..] else {
        panic!("{problems:?}")
    };
    assert_eq!(&*problem.service.name, "a");
}

#[test]
fn there_are_no_more_doors_than_may_be() {
    let one = |n: u32| {
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 30, 0, 0)) + n);
        port(&format!("s{n:05}"), 2000, &[&address.to_string()])
    };
    let all: Vec<ServicePort> = (1..=DOORS_MAX as u32 + 3).map(one).collect();
    let (open, problems) = open(&all);
    assert_eq!((open.doors.len(), problems.len()), (DOORS_MAX, 3));
}

#[test]
fn what_cannot_be_is_told() {
    let mut sctp = port("sctp", 2000, &["172.30.0.1"]);
    sctp.key.protocol = Protocol::Sctp;
    let (open, problems) = open(&[sctp, port("six", 2000, &["fd00:172:30::1"])]);
    assert_eq!(places(&open), Vec::<String>::new());
    let reasons: Vec<&str> = problems.iter().map(|problem| problem.reason).collect();
    assert_eq!(reasons, [Problem::NOT_IN_THIS_MODE; 2]);
}

#[test]
fn without_an_endpoint_there_is_no_door() {
    let mut web = port("web", 2000, &["172.30.0.80"]);
    let packet = Packet {
        protocol: Protocol::Tcp,
        source: "127.0.0.1:4000".parse().unwrap(),
        destination: "127.30.0.80:2000".parse().unwrap(),
        interface: None,
    };
    let (full, _) = open(&[web.clone()]);
    let endpoint = "10.1.0.10:8080".parse().unwrap();
    assert_eq!(
        LOOPBACK.trace(&full, &packet),
        Verdict::Deliver([(endpoint, true)].into())
    );
    assert_eq!(LOOPBACK.shares(&full, &packet), [(endpoint, 1)].into());
    web.endpoints = Arc::new([]);
    let (empty, _) = open(&[web]);
    assert_eq!(LOOPBACK.trace(&empty, &packet), Verdict::Reject);
    assert!(LOOPBACK.diff(Some(&full), &empty).is_some());
    assert!(LOOPBACK.is_empty(&LOOPBACK.diff(Some(&full), &full)));
}
