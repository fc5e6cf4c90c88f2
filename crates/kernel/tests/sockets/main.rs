//! The socket programs of eBPF mode on the real kernel: processes of pods and of the node, in a cgroup of the test.
#![allow(clippy::unwrap_used)] // A test that can't set up its network has failed.

mod bed;
mod datagrams;
mod ends;

use std::net::IpAddr;
use std::path::Path;

use bed::{Bed, at, ip};
use portolan_dataplane::ebpf::{Ebpf, Op, Ops};
use portolan_kernel::ebpf::Location;
use portolan_kernel::{EbpfTarget, isolated};
use portolan_model::{Affinity, Backend, Balance, Endpoint, Protocol, ServicePort, Target};

/// Each kind of socket reaches a Service of its family without one translated packet: the rules are gone.
#[test]
fn a_socket_that_connects_is_at_an_endpoint_at_once() {
    isolated!(a_socket_that_connects_is_at_an_endpoint_at_once, {
        let Some(mut bed) = Bed::new() else { return };
        bed.set(bed.web());
        bed.stand();
        bed.flush_rules();
        let v4 = at("172.30.0.1:80");
        let cases = [
            (true, v4, "10.1.2.2"),
            (true, at("[::ffff:172.30.0.1]:80"), "10.1.2.2"),
            (true, at("[fd00:172:30::1]:80"), "fd00:10:1:2::2"),
            (false, v4, "10.1.1.1"),
            (false, at("[fd00:172:30::1]:80"), "fd00:10:1:1::1"),
        ];
        for (index, (is_pod, to, source)) in cases.into_iter().enumerate() {
            let answer = bed.ask(is_pod, None, to).unwrap();
            assert_eq!(answer.saw, ip(source), "{to}");
            assert_eq!(answer.peer, to, "getpeername(2) tells what was asked for");
            assert_eq!(bed.outcomes().connected, index as u64 + 1, "{to}");
        }
        let mut seen: Vec<u16> = (0..40)
            .map(|_| bed.ask(true, None, v4).unwrap().port)
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [8080, 8081], "both endpoints get connections");
    });
}

/// A socket that is none of the cgroup's is none of ours, and meets the rules.
#[test]
fn sockets_of_others_meet_the_rules() {
    isolated!(sockets_of_others_meet_the_rules, {
        let Some(mut bed) = Bed::new() else { return };
        bed.set(bed.web());
        bed.stand();
        let answer = bed.ask_outside_cgroup(at("172.30.0.1:80")).unwrap();
        assert_eq!(answer.saw, ip("10.1.2.2"));
        assert_eq!(bed.outcomes().connected, 0);
        bed.flush_rules();
        assert!(bed.ask_outside_cgroup(at("172.30.0.1:80")).is_err());
    });
}

/// What depends on an address that the programs do not know, or needs a packet to be changed.
#[test]
fn what_programs_cannot_do_is_left_to_the_rules() {
    isolated!(what_programs_cannot_do_is_left_to_the_rules, {
        let Some(mut bed) = Bed::new() else { return };
        bed.set(bed.web());
        bed.set(ServicePort {
            balance: Balance::SourceHash,
            cluster_ips: vec![ip("172.30.0.2")],
            ..bed.named("hashed", Protocol::Tcp)
        });
        bed.stand();
        // Masquerade: the source would be an address that no route comes back to.
        let bound: IpAddr = ip("192.168.0.11");
        let answer = bed.ask(false, Some(bound), at("172.30.0.1:80")).unwrap();
        assert_eq!(answer.saw, ip("10.1.1.1"), "masqueraded by the rules");
        assert_eq!(bed.outcomes().not_for_us, 1);
        bed.ask(true, None, at("172.30.0.2:80")).unwrap();
        assert_eq!(bed.outcomes().no_service, 1);
        // Nobody is there, and the rules say so at once.
        let refused = bed.ask(true, None, at("172.30.0.1:81")).unwrap_err();
        assert_eq!(refused, std::io::ErrorKind::ConnectionRefused);
        assert_eq!(bed.outcomes().connected, 0);
    });
}

/// A pod is a client, whatever its sockets are; the next agent goes on where the last one was.
#[test]
fn a_pod_stays_with_its_endpoint() {
    isolated!(a_pod_stays_with_its_endpoint, {
        let Some(mut bed) = Bed::new() else { return };
        bed.set(ServicePort {
            affinity: Some(Affinity {
                timeout: std::time::Duration::from_secs(600),
            }),
            ..bed.web()
        });
        bed.stand();
        let vip = at("172.30.0.1:80");
        let before = bed.ask(true, None, vip).unwrap().port;
        for _ in 0..20 {
            assert_eq!(bed.ask(true, None, vip).unwrap().port, before);
        }
        bed.target = None;
        bed.open();
        bed.stand();
        assert_eq!(bed.ask(true, None, vip).unwrap().port, before);
        assert_eq!(bed.outcomes().connected, 22);
        // It is a client of the rules when it is one of the node.
        bed.ask(false, None, vip).unwrap();
        assert_eq!(
            (bed.outcomes().connected, bed.outcomes().not_for_us),
            (22, 1)
        );
        // The other endpoint alone.
        let other = if before == 8080 { 8081 } else { 8080 };
        let mut web = bed.web();
        web.affinity = Some(Affinity {
            timeout: std::time::Duration::from_secs(600),
        });
        web.endpoints = web
            .endpoints
            .iter()
            .filter(|e| e.address.port() == other)
            .cloned()
            .collect();
        bed.set(web);
        bed.stand();
        assert_eq!(bed.ask(true, None, vip).unwrap().port, other);
    });
}

#[test]
fn nobody_is_there_and_the_socket_is_told() {
    isolated!(nobody_is_there_and_the_socket_is_told, {
        let Some(mut bed) = Bed::new() else { return };
        bed.set(ServicePort {
            endpoints: [].into(),
            ..bed.web()
        });
        bed.stand();
        bed.flush_rules();
        for is_pod in [true, false] {
            for to in [
                "172.30.0.1:80",
                "[::ffff:172.30.0.1]:80",
                "[fd00:172:30::1]:80",
            ] {
                let refused = bed.ask(is_pod, None, at(to)).unwrap_err();
                assert_eq!(refused, std::io::ErrorKind::ConnectionRefused, "{to}");
            }
        }
        assert_eq!(bed.outcomes().refused, 6);
    });
}

/// Flows are counted by what was asked for and who got them.
#[test]
fn flows_are_counted() {
    isolated!(flows_are_counted, {
        let Some(mut bed) = Bed::new() else { return };
        bed.set(bed.web());
        bed.stand();
        let (vip, notes) = (at("172.30.0.1:80"), bed.notes());
        bed.ask(true, None, vip).unwrap();
        assert!(
            notes.pairs(|_| false).unwrap().is_empty(),
            "nobody wants to know"
        );
        notes.want_pairs().unwrap();
        let ports: Vec<u16> = (0..20)
            .map(|_| bed.ask(true, None, vip).unwrap().port)
            .collect();
        let mut pairs = notes.pairs(|flow| flow.replier.port() == 8080).unwrap();
        pairs.sort_by_key(|(flow, _)| flow.replier);
        for (index, port) in [8080, 8081].into_iter().enumerate() {
            let (flow, count) = pairs[index];
            assert_eq!((flow.destination, flow.protocol), (vip, Protocol::Tcp));
            assert_eq!(
                flow.replier,
                std::net::SocketAddr::new(ip("10.1.1.2"), port)
            );
            assert_eq!(count as usize, ports.iter().filter(|p| **p == port).count());
        }
        assert_eq!(pairs.len(), 2);
        // What was old is forgotten.
        assert_eq!(notes.pairs(|_| false).unwrap().len(), 1);
    });
}

/// Programs and maps are the kernel's: they stand without an agent, and the next one takes them over.
#[test]
fn an_agent_that_dies_changes_nothing() {
    isolated!(an_agent_that_dies_changes_nothing, {
        let Some(mut bed) = Bed::new() else { return };
        bed.set(bed.web());
        bed.stand();
        assert!(bed.target.as_ref().unwrap().lacks().is_empty());
        bed.target = None;
        bed.ask(true, None, at("172.30.0.1:80")).unwrap();
        bed.open();
        assert_eq!(bed.outcomes().connected, 1, "the same maps as before");
        let (state, _) = Ebpf.compile(&bed.snapshot);
        let target = bed.target.as_mut().unwrap();
        // Of traffic from outside nothing stands: there is no program at any device.
        let found = target.read().unwrap().unwrap();
        assert!((found.rules, found.sockets) == (state.rules, state.sockets));
        assert!(target.unchanged().unwrap());
        // An endpoint that goes while nobody looks is found gone.
        bed.set(ServicePort {
            endpoints: [Endpoint::ready(at("10.1.1.2:8081"))].into(),
            ..bed.web()
        });
        bed.stand();
        let ports = (0..20).map(|_| bed.ask(true, None, at("172.30.0.1:80")).unwrap().port);
        assert!(ports.into_iter().all(|port| port == 8081));
    });
}

/// Somebody empties the directory of pins: links without a pin are gone, and the next look brings all of it back.
#[test]
fn programs_that_somebody_has_taken_away_come_back() {
    isolated!(programs_that_somebody_has_taken_away_come_back, {
        let Some(mut bed) = Bed::new() else { return };
        bed.set(bed.web());
        bed.stand();
        bed.remove();
        assert_eq!(std::fs::read_dir(&bed.location.pins).unwrap().count(), 0);
        // Sockets meet the rules meanwhile.
        bed.ask(true, None, at("172.30.0.1:80")).unwrap();
        let target = bed.target.as_mut().unwrap();
        assert!(!target.unchanged().unwrap());
        bed.stand();
        bed.ask(true, None, at("172.30.0.1:80")).unwrap();
        assert_eq!(bed.outcomes().connected, 1);
    });
}

/// What an agent of another version has pinned goes as soon as ours stands; clean-up leaves only other nodes'.
#[test]
fn the_programs_of_another_version_go() {
    isolated!(the_programs_of_another_version_go, {
        let Some(mut bed) = Bed::new() else { return };
        bed.set(bed.web_of(Protocol::Udp));
        bed.stand();
        let vip = at("172.30.0.1:80");
        let socket = bed.datagrams(true, "0.0.0.0:0");
        socket.connect(vip).unwrap();
        bed.target = None;
        let pins = bed.location.pins.clone();
        let list = |directory: &Path| -> Vec<_> {
            let entries = std::fs::read_dir(directory).unwrap();
            entries.map(|entry| entry.unwrap().path()).collect()
        };
        let [node] = &list(&pins)[..] else {
            panic!("{:?}", list(&pins))
        };
        let before = list(node);
        std::fs::rename(&before[0], node.join("0123456789abcdef-1")).unwrap();
        let neighbour = pins.join("node-1/0123456789abcdef-1");
        std::fs::create_dir_all(&neighbour).unwrap();
        bed.open();
        assert_eq!(list(node), before);
        // What the others remembered is known.
        assert_eq!(bed.outcomes().connected, 0);
        assert_eq!(socket.peer_addr().unwrap(), vip);
        assert_eq!(
            bed.notes().sweep(|flow| flow.destination == vip).unwrap(),
            1
        );
        bed.remove();
        bed.remove();
        assert!(!node.exists() && neighbour.exists());
    });
}

/// The limits of the maps, told in the kernel's words.
#[test]
fn what_has_no_room_is_told() {
    isolated!(what_has_no_room_is_told, {
        let Some(mut bed) = Bed::new() else { return };
        let target = bed.target.as_mut().unwrap();
        let mut put = |range: std::ops::Range<u32>| {
            let sockets = range.map(|n| Op::PutNodePortIp(IpAddr::V4(n.into())));
            let ops = Ops {
                sockets: sockets.collect(),
                ..Ops::default()
            };
            target.apply(&ops)
        };
        put(0..1024).unwrap();
        let told = put(1024..1025).unwrap_err().to_string();
        assert!(
            told.contains("PutNodePortIp") && told.contains("Argument list too long"),
            "{told}"
        );
    });
}

/// What programs and agent remember has limits, too: who finds no room is left to the rules, or not counted.
#[test]
fn what_is_full_does_no_harm() {
    isolated!(what_is_full_does_no_harm, {
        let Some(mut bed) = Bed::new() else { return };
        bed.set(bed.web_of(Protocol::Udp));
        bed.stand();
        let notes = bed.notes();
        notes.want_pairs().unwrap();
        bed.fill::<8, 40>("datagram_peers", 32_768);
        bed.fill_counts::<44>("pairs", 65_536);
        let socket = bed.datagrams(true, "0.0.0.0:0");
        socket.connect(at("172.30.0.1:80")).unwrap();
        socket.send(b"?").unwrap();
        assert!(socket.recv(&mut [0; 64]).is_ok());
        let outcomes = bed.outcomes();
        assert_eq!((outcomes.connected, outcomes.not_for_us), (0, 1));
        let asking = bed.datagrams(true, "0.0.0.0:0");
        asking.send_to(b"?", at("172.30.0.1:80")).unwrap();
        assert!(asking.recv(&mut [0; 64]).is_ok());
        assert_eq!(bed.outcomes().connected, 1);
        assert!(notes.pairs(|_| true).unwrap().is_empty());
        // Those that were used longest ago give way.
        for (name, most) in [("flows", 16_384), ("clients", 16_384)] {
            bed.fill::<32, 24>(name, most + 1);
        }
        asking.send_to(b"?", at("172.30.0.1:80")).unwrap();
        assert!(asking.recv(&mut [0; 64]).is_ok());
        // More namespaces than a node has.
        bed.show(4100);
        assert_eq!(notes.refresh().unwrap(), 4096);
    });
}

/// A machine that lacks something is told what.
#[test]
fn what_is_missing_is_told() {
    isolated!(what_is_missing_is_told, {
        let Some(bed) = Bed::new() else { return };
        let open = |cgroup: &Path, pins: &Path| {
            let location = Location {
                cgroup: cgroup.into(),
                pins: pins.into(),
                ..Location::default()
            };
            let opened = EbpfTarget::open(&location).map(drop);
            opened.unwrap_err().to_string()
        };
        let Location { cgroup, pins, .. } = &bed.location;
        let told = open(Path::new("/proc"), pins);
        assert!(told.contains("it is not a directory of cgroup2"), "{told}");
        let other = std::env::temp_dir().join(format!("portolan-pins-{}", std::process::id()));
        std::fs::create_dir(&other).unwrap();
        let told = open(cgroup, &other);
        assert!(told.contains("it is not a directory of bpffs"), "{told}");
        // It is empty: nothing was made there.
        std::fs::remove_dir(&other).unwrap();
        let told = open(Path::new("/sys/fs/cgroup/nobody-made-this"), pins);
        assert!(told.contains("No such file or directory"), "{told}");
    });
}
