//! The programs of eBPF mode at the devices of a node, on the real kernel: a client far away, pods near and far.
#![allow(clippy::unwrap_used)] // A test that can't set up its network has failed.

mod bed;
mod fast;
mod frames;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use aya::maps::{HashMap, Map, MapData};
use bed::{Bed, FAR, NEAR, at, echo, echo_datagram, greeting, net, node_port};
use portolan_dataplane::ebpf::outside::{Op, TRANSLATION_LEN, TUPLE_LEN, Tuple, tuple_of};
use portolan_dataplane::ebpf::{Ebpf, Ops};
use portolan_kernel::ebpf::{Devices, sweep};
use portolan_kernel::{EbpfTarget, isolated};
use portolan_model::{Backend, Family, Flow, Protocol, Snapshot, Sweep, Target, TrafficPolicy};

fn client(family: Family) -> IpAddr {
    let ip = ["203.0.113.2", "2001:db8:113::2"][family as usize];
    ip.parse().unwrap()
}

/// Several times what fits into buffers, so that segments are as large as they can be.
const MANY_BYTES: usize = 3_000_000;

/// A far pod answers through the program, which sends packets on by itself. Its segments are too large for the narrow
/// link to the client, the client's for that to the pod: routers tell the node so, and must be understood.
#[test]
fn many_bytes_reach_a_pod_of_another_node() {
    isolated!(many_bytes_reach_a_pod_of_another_node, {
        let Some(mut bed) = Bed::new() else { return };
        bed.stand(Protocol::Tcp, &[&FAR]);
        for family in Family::ALL {
            let mut stream = bed.connect(node_port(family)).unwrap();
            let told = greeting(&mut stream);
            assert_eq!(told.who, at(FAR[family as usize]));
            assert_eq!(told.saw, node_port(family).ip(), "an address of the node");
            echo(&mut stream, MANY_BYTES);
            assert_eq!(bed.outcomes().to_send, family as u64 + 1);
        }
        assert_eq!(bed.outcomes().without_route, 0);
        assert_eq!(conntrack_entries(&bed), 0, "the kernel tracks none of it");
    });
}

/// How many flows to or from pods conntrack knows on the node.
fn conntrack_entries(bed: &Bed) -> usize {
    let all = bed.run_on_node("cat", &["/proc/net/nf_conntrack"]);
    all.lines()
        .filter(|line| line.contains("dport=8080"))
        .count()
}

/// A pod of this node is masqueraded by the rules, and its answers are translated where they leave.
#[test]
fn many_bytes_reach_a_pod_of_this_node() {
    isolated!(many_bytes_reach_a_pod_of_this_node, {
        let Some(mut bed) = Bed::new() else { return };
        bed.stand(Protocol::Tcp, &[&NEAR]);
        for family in Family::ALL {
            let mut stream = bed.connect(node_port(family)).unwrap();
            let told = greeting(&mut stream);
            assert_eq!(told.who, at(NEAR[family as usize]));
            assert_ne!(told.saw, client(family));
            echo(&mut stream, MANY_BYTES);
            assert_eq!(bed.outcomes().to_masquerade, family as u64 + 1);
        }
    });
}

/// With policy Local a pod sees the client.
#[test]
fn many_bytes_reach_a_pod_that_sees_the_client() {
    isolated!(many_bytes_reach_a_pod_that_sees_the_client, {
        let Some(mut bed) = Bed::new() else { return };
        let mut port = bed.port(Protocol::Tcp, &[&NEAR]);
        port.external_policy = TrafficPolicy::Local;
        bed.stand_with(port);
        for family in Family::ALL {
            let mut stream = bed.connect(node_port(family)).unwrap();
            assert_eq!(greeting(&mut stream).saw, client(family));
            echo(&mut stream, MANY_BYTES);
            assert_eq!(bed.outcomes().to_stack, family as u64 + 1);
        }
    });
}

/// Datagrams that are larger than a packet come in pieces, of which only the first has ports.
#[test]
fn large_datagrams_come_and_go_in_pieces() {
    isolated!(large_datagrams_come_and_go_in_pieces, {
        let Some(mut bed) = Bed::new() else { return };
        for (endpoints, masquerade) in [(&FAR, true), (&NEAR, true), (&NEAR, false)] {
            let mut port = bed.port(Protocol::Udp, &[endpoints]);
            if !masquerade {
                port.external_policy = TrafficPolicy::Local;
            }
            bed.stand_with(port);
            for family in Family::ALL {
                let socket = bed.datagrams(node_port(family));
                // A small one first: a datagram in pieces begins a flow as well.
                for count in [10, 4000, 9000, 10] {
                    let told = echo_datagram(&socket, count);
                    let told = told.unwrap_or_else(|e| panic!("{endpoints:?} {count}: {e}"));
                    assert_eq!(told.who, at(endpoints[family as usize]), "{count} bytes");
                    assert_eq!(told.saw == client(family), !masquerade, "{count} bytes");
                }
                let large = bed.datagrams(node_port(family));
                echo_datagram(&large, 5000).unwrap();
            }
        }
        let outcomes = bed.outcomes();
        let all = [outcomes.to_send, outcomes.to_masquerade, outcomes.to_stack];
        assert_eq!(all, [4, 4, 4], "{outcomes:?}");
    });
}

/// An endpoint that nobody listens at says so, and the client hears it.
#[test]
fn a_port_where_nobody_listens_is_told() {
    isolated!(a_port_where_nobody_listens_is_told, {
        let Some(mut bed) = Bed::new() else { return };
        let closed = [
            ["10.2.0.10:9", "[fd00:10:2::10]:9"],
            ["10.1.0.10:9", "[fd00:10:1::10]:9"],
        ];
        for (index, endpoints) in closed.iter().enumerate() {
            bed.stand(Protocol::Udp, &[endpoints]);
            for family in Family::ALL {
                let socket = bed.datagrams(node_port(family));
                let told = echo_datagram(&socket, 10).unwrap_err();
                assert_eq!(told, ErrorKind::ConnectionRefused, "{endpoints:?}");
            }
            assert_eq!(bed.outcomes().taken(), 2 * index as u64 + 2);
        }
    });
}

/// Programs, maps and flows are the kernel's: they stand without an agent, and the next one takes them over, also one
/// with other programs.
#[test]
fn flows_go_on_without_an_agent_and_with_a_newer_one() {
    isolated!(flows_go_on_without_an_agent_and_with_a_newer_one, {
        let Some(mut bed) = Bed::new() else { return };
        bed.stand(Protocol::Tcp, &[&FAR]);
        let mut stream = bed.connect(node_port(Family::V4)).unwrap();
        greeting(&mut stream);
        bed.target = None;
        echo(&mut stream, 10_000);
        greeting(&mut bed.connect(node_port(Family::V4)).unwrap());
        let [own, other] = make_older(&bed);
        bed.open();
        assert!(own.exists() && !other.exists());
        echo(&mut stream, 10_000);
        assert_eq!(bed.outcomes().taken(), 0, "other programs, other counters");
        // New maps are empty, and filled from what the node shall do.
        let (state, _) = Ebpf.compile(&bed.snapshot);
        assert!(bed.agent(|target| target.read().unwrap()) != Some(state));
        bed.stand(Protocol::Tcp, &[&FAR]);
        greeting(&mut bed.connect(node_port(Family::V4)).unwrap());
        assert_eq!(bed.outcomes().taken(), 1);
        echo(&mut stream, 10_000);
    });
}

/// What is pinned is another version's from now on; where it was, and where it is.
fn make_older(bed: &Bed) -> [std::path::PathBuf; 2] {
    let list = |path: &std::path::Path| -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(path).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let all = list(&bed.location.pins);
    let outside = all
        .iter()
        .find(|path| path.to_string_lossy().contains("outside-"));
    let outside = outside.unwrap();
    let own = list(outside)
        .into_iter()
        .find(|path| path.join("served").exists())
        .unwrap();
    let other = outside.join("0123456789abcdef");
    std::fs::rename(&own, &other).unwrap();
    [own, other]
}

/// Another mode takes over: programs stay as long as somebody needs them, and take nobody any more.
#[test]
fn flows_go_on_when_another_mode_takes_over() {
    isolated!(flows_go_on_when_another_mode_takes_over, {
        let Some(mut bed) = Bed::new() else { return };
        bed.stand(Protocol::Tcp, &[&FAR]);
        let mut stream = bed.connect(node_port(Family::V4)).unwrap();
        greeting(&mut stream);
        let location = bed.location.clone();
        bed.agent(|_| EbpfTarget::retire(&location)).unwrap();
        echo(&mut stream, 10_000);
        greeting(&mut bed.connect(node_port(Family::V4)).unwrap());
        assert_eq!(bed.outcomes().taken(), 1, "the rules have the second one");
        drop(stream);
        let gone = || {
            bed.node
                .run(|| EbpfTarget::retire(&location))
                .unwrap()
                .unwrap();
            std::fs::read_dir(&location.pins).unwrap().count() == 0
        };
        let began = std::time::Instant::now();
        while !gone() {
            assert!(began.elapsed() < bed::PATIENCE, "programs stay for nobody");
            std::thread::yield_now();
        }
    });
}

/// A connection that the rules have taken stays theirs when programs come.
#[test]
fn flows_of_the_rules_stay_theirs() {
    isolated!(flows_of_the_rules_stay_theirs, {
        let Some(mut bed) = Bed::new() else { return };
        let devices = std::mem::replace(&mut bed.location.devices, Devices::None);
        bed.open();
        bed.snapshot.set(bed.port(Protocol::Tcp, &[&FAR, &NEAR]));
        let (state, _) = Ebpf.compile(&bed.snapshot);
        let ops = Ebpf.diff(None, &state);
        bed.agent(|target| target.apply(&ops)).unwrap();
        let mut streams: Vec<_> = Family::ALL
            .map(|family| bed.connect(node_port(family)).unwrap())
            .into();
        for stream in &mut streams {
            greeting(stream);
        }
        assert_eq!(bed.outcomes().taken(), 0);
        bed.location.devices = devices;
        bed.open();
        bed.stand(Protocol::Tcp, &[&FAR, &NEAR]);
        streams.iter_mut().for_each(|stream| echo(stream, 10_000));
        assert_eq!(bed.outcomes().taken(), 0);
        greeting(&mut bed.connect(node_port(Family::V4)).unwrap());
        assert_eq!(bed.outcomes().taken(), 1);
    });
}

/// A flow of datagrams leaves an endpoint that is gone (R-STALE-1), and one whose endpoint stays does not move.
#[test]
fn datagrams_leave_an_endpoint_that_is_gone() {
    isolated!(datagrams_leave_an_endpoint_that_is_gone, {
        let Some(mut bed) = Bed::new() else { return };
        bed.stand(Protocol::Udp, &[&FAR]);
        let before: Snapshot = bed.snapshot.clone();
        let socket = bed.datagrams(node_port(Family::V6));
        assert_eq!(echo_datagram(&socket, 10).unwrap().who, at(FAR[1]));
        let swept = |bed: &Bed, before: &Snapshot| {
            let found = Sweep::new(Some(before), &bed.snapshot);
            let pins = &bed.location.pins;
            let mut deleted = 0;
            let look = || {
                let is_stale = |flow: &Flow| found.is_stale(flow);
                let mut sweep = |family| sweep(pins, family, Protocol::Udp, is_stale, &mut deleted);
                Family::ALL.into_iter().try_for_each(&mut sweep)
            };
            bed.node.run(look).unwrap().unwrap();
            deleted
        };
        bed.stand(Protocol::Udp, &[&FAR, &NEAR]);
        assert_eq!(swept(&bed, &before), 0);
        assert_eq!(echo_datagram(&socket, 10).unwrap().who, at(FAR[1]));
        let before = bed.snapshot.clone();
        bed.stand(Protocol::Udp, &[&NEAR]);
        assert_eq!(swept(&bed, &before), 1);
        assert_eq!(echo_datagram(&socket, 10).unwrap().who, at(NEAR[1]));
    });
}

/// Where the kernel may give any port to any socket, none is left for the programs, and the rules masquerade.
#[test]
fn without_ports_of_its_own_the_program_lets_the_rules_masquerade() {
    isolated!(
        without_ports_of_its_own_the_program_lets_the_rules_masquerade,
        {
            let Some(mut bed) = Bed::new() else { return };
            let all = "net.ipv4.ip_local_port_range=1024 65535";
            bed.run_on_node("sysctl", &["-w", all]);
            bed.location.devices =
                Devices::Named(vec!["out".into(), "fabric".into(), "none".into()]);
            bed.open();
            bed.stand(Protocol::Tcp, &[&FAR]);
            for family in Family::ALL {
                let mut stream = bed.connect(node_port(family)).unwrap();
                assert_ne!(greeting(&mut stream).saw, client(family));
                echo(&mut stream, MANY_BYTES);
                assert_eq!(bed.outcomes().to_masquerade, family as u64 + 1);
            }
        }
    );
}

/// An endpoint behind a device where no program stands: its answers come to the kernel.
#[test]
fn a_pod_behind_another_device_is_left_to_the_kernels_routes() {
    isolated!(a_pod_behind_another_device_is_left_to_the_kernels_routes, {
        let Some(mut bed) = Bed::new() else { return };
        bed.location.devices = Devices::Routes;
        bed.open();
        bed.stand(Protocol::Tcp, &[&FAR]);
        for family in Family::ALL {
            let mut stream = bed.connect(node_port(family)).unwrap();
            assert_ne!(greeting(&mut stream).saw, client(family));
            echo(&mut stream, MANY_BYTES);
            assert_eq!(bed.outcomes().to_masquerade, family as u64 + 1);
        }
    });
}

/// Somebody empties the directory of pins, or a device comes late: the next look brings all of it back.
#[test]
fn programs_come_back_and_follow_devices() {
    isolated!(programs_come_back_and_follow_devices, {
        let Some(mut bed) = Bed::new() else { return };
        bed.stand(Protocol::Tcp, &[&FAR]);
        assert!(bed.agent(|target| target.unchanged().unwrap()));
        let location = bed.location.clone();
        bed.agent(|_| EbpfTarget::remove(&location)).unwrap();
        greeting(&mut bed.connect(node_port(Family::V4)).unwrap());
        assert!(!bed.agent(|target| target.unchanged().unwrap()));
        bed.stand(Protocol::Tcp, &[&FAR]);
        greeting(&mut bed.connect(node_port(Family::V4)).unwrap());
        assert_eq!(bed.outcomes().to_send, 1);
        bed.run_on_node("ip", &["link", "set", "fabric", "name", "later"]);
        bed.agent(|target| target.unchanged().unwrap());
        let mut stream = bed.connect(node_port(Family::V4)).unwrap();
        greeting(&mut stream);
        assert_eq!(bed.outcomes().to_masquerade, 1, "no program at that device");
        bed.run_on_node("ip", &["link", "set", "later", "name", "fabric"]);
        bed.agent(|target| target.unchanged().unwrap());
        greeting(&mut bed.connect(node_port(Family::V4)).unwrap());
        assert_eq!(bed.outcomes().to_send, 2);
        echo(&mut stream, 10_000);
    });
}

/// What the programs count is told with what is counted at sockets (`--count-connections`).
#[test]
fn flows_are_counted_by_what_they_asked_for() {
    isolated!(flows_are_counted_by_what_they_asked_for, {
        let Some(mut bed) = Bed::new() else { return };
        bed.stand(Protocol::Tcp, &[&FAR]);
        let to = node_port(Family::V6);
        greeting(&mut bed.connect(to).unwrap());
        let notes = bed.target.as_ref().unwrap().notes();
        bed.agent(|_| notes.want_pairs()).unwrap();
        for _ in 0..3 {
            greeting(&mut bed.connect(to).unwrap());
        }
        let asked = Flow {
            protocol: Protocol::Tcp,
            destination: to,
            replier: at(FAR[1]),
        };
        let pairs = bed.agent(|_| notes.pairs(|_| true)).unwrap();
        assert_eq!(pairs, [(asked, 3)], "those since somebody wants to know");
        assert_eq!(bed.agent(|_| notes.pairs(|_| false)).unwrap(), []);
    });
}

/// The limits of the maps, told in the kernel's words.
#[test]
fn what_has_no_room_is_told() {
    isolated!(what_has_no_room_is_told, {
        let Some(mut bed) = Bed::new() else { return };
        let mut put = |outside: Vec<Op>| {
            let ops = Ops {
                outside,
                ..Ops::default()
            };
            bed.agent(|target| target.apply(&ops))
        };
        let ip = |n: u32| Op::PutNodePortIp(IpAddr::V4(n.into()));
        put((0..1024).map(ip).collect()).unwrap();
        let told = put(vec![ip(1024)]).unwrap_err().to_string();
        assert!(told.contains("PutNodePortIp"), "{told}");
        let range = |n: u32| Op::PutPods(net(&format!("{}/32", std::net::Ipv4Addr::from(n))));
        put((0..1024).map(range).collect()).unwrap();
        let told = put(vec![range(1024)]).unwrap_err().to_string();
        assert!(told.contains("PutPods"), "{told}");
        let _ = bed.keep();
    });
}

/// A flow as the program writes it: `becomes` at the front, 52 bytes in all.
fn living(becomes: Tuple) -> [u8; TRANSLATION_LEN] {
    const SEND: u8 = 3;
    const ANSWERED: u8 = 1;
    let mut bytes = [0; TRANSLATION_LEN];
    bytes[..TUPLE_LEN].copy_from_slice(&tuple_of(&becomes));
    // Not seen for a time that is longer than any machine runs: answered connections stay, however quiet.
    bytes[48..51].copy_from_slice(&[SEND, ANSWERED, 1]);
    bytes
}

fn table(bed: &Bed) -> HashMap<MapData, [u8; TUPLE_LEN], [u8; TRANSLATION_LEN]> {
    let outside = std::fs::read_dir(&bed.location.pins).unwrap();
    let mut all = outside.map(|entry| entry.unwrap().path().join("flows-1/flows_v4"));
    let path = all.find(|path| path.exists()).unwrap();
    let map = MapData::from_pin(path).unwrap();
    HashMap::try_from(Map::LruHashMap(map)).unwrap()
}

/// With so many flows to one endpoint that the program finds no source port, the rules give one.
#[test]
fn when_source_ports_run_out_the_rules_masquerade() {
    isolated!(when_source_ports_run_out_the_rules_masquerade, {
        let Some(mut bed) = Bed::new() else { return };
        bed.stand(Protocol::Tcp, &[&FAR]);
        let mut flows = table(&bed);
        for port in 1024..30_000 {
            let node = SocketAddr::new("192.168.0.11".parse().unwrap(), port);
            let back = Tuple {
                protocol: Protocol::Tcp,
                from: at(FAR[0]),
                to: node,
            };
            let others = Tuple {
                from: node_port(Family::V4),
                to: SocketAddr::new("203.0.113.99".parse().unwrap(), port),
                ..back
            };
            flows.insert(tuple_of(&back), living(others), 0).unwrap();
        }
        let mut stream = bed.connect(node_port(Family::V4)).unwrap();
        assert_ne!(greeting(&mut stream).saw, client(Family::V4));
        echo(&mut stream, 10_000);
        assert_eq!(
            (bed.outcomes().to_send, bed.outcomes().to_masquerade),
            (0, 1)
        );
    });
}

/// A table that is full forgets whom it has not heard of for long, and takes new flows.
#[test]
fn a_full_table_takes_new_flows() {
    isolated!(a_full_table_takes_new_flows, {
        let Some(mut bed) = Bed::new() else { return };
        bed.stand(Protocol::Tcp, &[&FAR]);
        let mut flows = table(&bed);
        const MORE_THAN_FIT: u32 = 300_000;
        for number in 0..MORE_THAN_FIT {
            let from = SocketAddr::new(Ipv4Addr::from(0x0b00_0000 + number).into(), 1024);
            let there = Tuple {
                protocol: Protocol::Tcp,
                from,
                to: node_port(Family::V4),
            };
            flows.insert(tuple_of(&there), living(there), 0).unwrap();
        }
        let kept = flows.keys().count();
        assert!(kept <= 262_144, "{kept}");
        for _ in 0..5 {
            let mut stream = bed.connect(node_port(Family::V4)).unwrap();
            greeting(&mut stream);
            echo(&mut stream, 10_000);
        }
        assert_eq!(bed.outcomes().to_send, 5);
    });
}
