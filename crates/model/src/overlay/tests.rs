//! Ejections meet changes of the cluster.

use std::net::SocketAddr;
use std::num::NonZeroU16;

use super::*;
use crate::{NodeFacts, Protocol};

fn listener(last: u8) -> Listener {
    Listener {
        protocol: Protocol::Tcp,
        address: SocketAddr::from(([10, 1, 0, last], 8080)),
    }
}

fn port(name: &str, lasts: &[u8]) -> ServicePort {
    let key = PortKey::new("shop", name, "http", Protocol::Tcp);
    let mut port = ServicePort::new(key, NonZeroU16::new(80).unwrap());
    let endpoint = |last: &u8| Endpoint::ready(listener(*last).address);
    port.endpoints = lasts.iter().map(endpoint).collect();
    port
}

fn snapshot(ports: &[ServicePort]) -> Snapshot {
    let mut snapshot = Snapshot::new(NodeFacts::default());
    ports.iter().cloned().for_each(|port| snapshot.set(port));
    snapshot
}

fn overlay(ports: &[ServicePort]) -> Overlay {
    let mut overlay = Overlay::default();
    overlay.on_snapshot(snapshot(ports));
    overlay
}

/// The last bytes of the endpoints of `name` that are ejected.
fn out(overlay: &Overlay, name: &str) -> Vec<u8> {
    let key = port(name, &[]).key;
    let port = overlay.snapshot().port(&key).unwrap();
    let last = |e: &Endpoint| match e.address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => 0,
    };
    let ejected = port.endpoints.iter().filter(|e| e.ejected);
    ejected.map(last).collect()
}

#[test]
fn every_port_that_lists_it_is_flagged_and_no_other_is_touched() {
    let mut overlay = overlay(&[port("a", &[1, 2]), port("b", &[2, 3]), port("c", &[3])]);
    let before = overlay.snapshot().clone();
    assert!(overlay.eject(listener(2)));
    assert!(!overlay.eject(listener(2)), "it is ejected already");
    assert!(!overlay.eject(listener(9)), "nobody lists it");
    assert_eq!((out(&overlay, "a"), out(&overlay, "b")), (vec![2], vec![2]));
    assert_eq!(overlay.snapshot().touched(&before).len(), 2);
    assert_eq!(overlay.upstream(), &before);
    let all = newly_ejected(&before, overlay.snapshot());
    assert_eq!(all.into_iter().collect::<Vec<_>>(), [listener(2)]);
    assert!(overlay.readmit(listener(2)));
    assert!(newly_ejected(&before, overlay.snapshot()).is_empty());
    assert!(!overlay.readmit(listener(2)));
    assert_eq!(overlay.snapshot(), &before);
}

#[test]
fn a_change_of_the_cluster_keeps_who_is_ejected() {
    let mut overlay = overlay(&[port("a", &[1, 2]), port("b", &[3])]);
    overlay.eject(listener(2));
    // Another Service takes it in, and its own gets one more.
    let ports = [port("a", &[1, 2, 4]), port("b", &[2, 3])];
    let before = overlay.snapshot().clone();
    assert!(overlay.on_snapshot(snapshot(&ports)).is_empty());
    let both = ports.each_ref().map(|port| port.key.clone());
    assert_eq!(overlay.listed_by(listener(2)), both);
    assert_eq!(overlay.listed_by(listener(4)), both[..1]);
    // There it came as one that is out already.
    let new = newly_ejected(&before, overlay.snapshot());
    assert_eq!(new, [listener(2)].into());
    assert_eq!((out(&overlay, "a"), out(&overlay, "b")), (vec![2], vec![2]));
    let before = overlay.snapshot().clone();
    overlay.on_snapshot(snapshot(&[port("a", &[1, 2, 4]), port("b", &[2, 5])]));
    let touched = overlay.snapshot().touched(&before);
    assert_eq!(touched, [port("b", &[]).key]);
}

#[test]
fn who_is_listed_no_more_is_forgotten() {
    let mut overlay = overlay(&[port("a", &[1, 2]), port("b", &[2, 3])]);
    overlay.eject(listener(2));
    assert!(
        overlay
            .on_snapshot(snapshot(&[port("b", &[2, 3])]))
            .is_empty()
    );
    assert_eq!(
        overlay.on_snapshot(snapshot(&[port("b", &[3])])),
        [listener(2)]
    );
    assert!(!overlay.is_ejected(listener(2)));
    // When the address comes back, it is somebody else.
    overlay.on_snapshot(snapshot(&[port("b", &[2, 3])]));
    assert!(out(&overlay, "b").is_empty());
}

#[test]
fn there_is_room_for_one_always_and_for_the_last_never() {
    let room = |lasts: &[u8], gone: &[u8], percent| {
        let mut overlay = overlay(&[port("a", lasts)]);
        for last in gone {
            overlay.eject(listener(*last));
        }
        overlay.has_room(listener(1), percent)
    };
    assert!(!room(&[1], &[], 100), "the last one");
    assert!(!room(&[1, 2], &[2], 100), "the last one that is left");
    assert!(room(&[1, 2], &[], 0), "one may always go");
    assert!(room(&[1, 2, 3, 4], &[2], 50));
    assert!(!room(&[1, 2, 3, 4], &[2, 3], 50));
    assert!(room(&[1, 2, 3, 4], &[2, 3], 75));
}

#[test]
fn who_has_no_weight_takes_nobodys_place() {
    let mut weightless = port("a", &[1, 2]);
    let weigh = |e: &Endpoint| Endpoint {
        weight: u16::from(e.address == listener(1).address),
        ..e.clone()
    };
    weightless.endpoints = weightless.endpoints.iter().map(weigh).collect();
    assert!(!overlay(&[weightless]).has_room(listener(1), 50));
}

#[test]
fn every_port_that_lists_it_must_have_room() {
    let mut overlay = overlay(&[port("a", &[1, 2, 3]), port("b", &[1])]);
    assert!(!overlay.has_room(listener(1), 50), "b would have nobody");
    let mut unready = port("b", &[1, 2]);
    unready.endpoints = unready
        .endpoints
        .iter()
        .map(|e| Endpoint {
            ready: e.address == listener(1).address,
            ..e.clone()
        })
        .collect();
    overlay.on_snapshot(snapshot(&[port("a", &[1, 2, 3]), unready]));
    assert!(!overlay.has_room(listener(1), 50), "the other is not ready");
    overlay.on_snapshot(snapshot(&[port("a", &[1, 2, 3]), port("b", &[1, 2])]));
    assert!(overlay.has_room(listener(1), 50));
}
