//! What stands in the kernel after the target has worked.

use std::cell::RefCell;
use std::process::Command;

use portolan_dataplane::ipvs::{Ipvs, State};
use portolan_kernel::ipvs::{Settings, Timeouts};
use portolan_kernel::topology::Host;
use portolan_kernel::{IpvsTarget, sysctl};
use portolan_model::{
    Backend, Endpoint, NodeFacts, PortKey, Protocol, Scheduler, ServicePort, Snapshot, Target,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::bed::{at, ip};
use crate::world;

pub(crate) fn open(host: &Host, settings: Settings) -> IpvsTarget {
    host.run(|| IpvsTarget::open(&settings)).unwrap().unwrap()
}

/// Runs a program in the namespace of a host and returns what it says.
pub(crate) fn said(host: &Host, words: &[&str]) -> String {
    let run = || Command::new(words[0]).args(&words[1..]).output();
    let output = host.run(run).unwrap().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The lines of `ipvsadm --save -n`, sorted.
pub(crate) fn listed(host: &Host) -> Vec<String> {
    let text = said(host, &["ipvsadm", "--save", "-n"]);
    let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    lines.sort();
    lines
}

/// A Service at 172.30.0.1 with these endpoints.
pub(crate) fn web(protocol: Protocol, endpoints: &[&str]) -> ServicePort {
    let ready = endpoints.iter().map(|to| Endpoint::ready(at(to)));
    let port = 80.try_into().unwrap();
    ServicePort {
        cluster_ips: vec![ip("172.30.0.1")],
        endpoints: ready.collect(),
        ..ServicePort::new(PortKey::new("shop", "web", "", protocol), port)
    }
}

fn snapshot(port: ServicePort) -> Snapshot {
    let mut snapshot = Snapshot::new(NodeFacts::default());
    snapshot.set(port);
    snapshot
}

fn compiled(snapshot: &Snapshot) -> State {
    Ipvs::default().compile(snapshot).0
}

/// Random worlds, changed step by step.
pub(crate) fn what_is_applied_is_read_back() {
    let host = Host::router().unwrap();
    let target = RefCell::new(open(&host, Settings::default()));
    let config = ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let ipvs = Ipvs::default();
    let worlds = (world::snapshot(), vec(vec(world::change(), 1..4), 1..6));
    let result = TestRunner::new(config).run(&worlds, |(mut snapshot, steps)| {
        let mut target = target.borrow_mut();
        let (mut state, _) = ipvs.compile(&snapshot);
        target.apply(&ipvs.diff(None, &state)).unwrap();
        prop_assert!(target.read().unwrap().as_ref() == Some(&state));
        for step in steps {
            let (before, old) = (snapshot.clone(), state.clone());
            step.iter().for_each(|change| change.make(&mut snapshot));
            state = match snapshot.node() == before.node() {
                true => {
                    ipvs.update(&mut state, &snapshot, &snapshot.touched(&before));
                    state
                }
                false => ipvs.compile(&snapshot).0,
            };
            target.apply(&ipvs.diff(Some(&old), &state)).unwrap();
            prop_assert!(target.read().unwrap().as_ref() == Some(&state));
        }
        Ok(())
    });
    result.unwrap();
}

pub(crate) fn every_scheduler_of_the_kernel_stands() {
    let host = Host::router().unwrap();
    let mut target = open(&host, Settings::default());
    let snapshot = snapshot(web(Protocol::Tcp, &["10.1.1.2:8080"]));
    let missing = target.missing().unwrap();
    assert!(listed(&host).is_empty());
    // Debian's kernel for clouds is built without it.
    assert_eq!(missing, [Scheduler::PowerOfTwo]);
    for scheduler in Scheduler::ALL.into_iter().filter(|s| !missing.contains(s)) {
        let ipvs = Ipvs {
            scheduler,
            ..Ipvs::default()
        };
        let (state, _) = ipvs.compile(&snapshot);
        let standing = target.read().unwrap();
        target.apply(&ipvs.diff(standing.as_ref(), &state)).unwrap();
        assert!(target.read().unwrap() == Some(state));
        let server = format!("-A -t 172.30.0.1:80 -s {scheduler}");
        let lines = listed(&host);
        assert!(
            lines.iter().any(|line| line.starts_with(&server)),
            "{lines:?}"
        );
    }
}

pub(crate) fn a_new_target_takes_over_what_stands() {
    let host = Host::router().unwrap();
    let ipvs = Ipvs::default();
    let state = compiled(&snapshot(web(
        Protocol::Tcp,
        &["10.1.1.2:8080", "10.1.1.3:8080"],
    )));
    let mut first = open(&host, Settings::default());
    assert!(first.read().unwrap().is_none());
    first.apply(&ipvs.diff(None, &state)).unwrap();
    drop(first);
    let mut second = open(&host, Settings::default());
    let found = second.read().unwrap();
    assert!(ipvs.is_empty(&ipvs.diff(found.as_ref(), &state)));
    // Somebody removes an endpoint, and the way to the virtual servers.
    said(
        &host,
        &[
            "ipvsadm",
            "-d",
            "-t",
            "172.30.0.1:80",
            "-r",
            "10.1.1.3:8080",
        ],
    );
    said(&host, &["nft", "delete", "table", "ip", "portolan-ipvs"]);
    said(&host, &["ip", "rule", "del", "priority", "50"]);
    let found = second.read().unwrap();
    assert!(found.is_some() && found != Some(state.clone()));
    second.apply(&ipvs.diff(found.as_ref(), &state)).unwrap();
    assert!(second.read().unwrap() == Some(state));
    assert_eq!(listed(&host).len(), 3);
    assert!(said(&host, &["nft", "list", "tables"]).contains("ip portolan-ipvs"));
    assert!(said(&host, &["ip", "rule"]).contains("fwmark 0x2000/0x2000 lookup 8192"));
}

/// Virtual servers of other programs stay, also when everything is rewritten; one that stands where a Service wants
/// one becomes ours, with the endpoints of the Service.
pub(crate) fn servers_of_others_stay() {
    let host = Host::router().unwrap();
    let (foreign, end) = ("203.0.113.9:80", "10.9.9.9:80");
    for to in [foreign, "172.30.0.1:80"] {
        said(&host, &["ipvsadm", "-A", "-t", to, "-s", "wlc"]);
        said(&host, &["ipvsadm", "-a", "-t", to, "-r", end, "-m"]);
    }
    let ipvs = Ipvs::default();
    let state = compiled(&snapshot(web(Protocol::Tcp, &["10.1.1.2:8080"])));
    let mut target = open(&host, Settings::default());
    for _ in 0..2 {
        target.apply(&ipvs.diff(None, &state)).unwrap();
        assert!(target.read().unwrap() == Some(state.clone()));
        let lines = listed(&host);
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(
            lines.contains(&format!("-A -t {foreign} -s wlc")),
            "{lines:?}"
        );
        assert!(
            lines.contains(&"-a -t 172.30.0.1:80 -r 10.1.1.2:8080 -m -w 1".to_owned()),
            "{lines:?}"
        );
    }
    let nothing = compiled(&Snapshot::new(NodeFacts::default()));
    target.apply(&ipvs.diff(None, &nothing)).unwrap();
    assert_eq!(listed(&host).len(), 2);
}

pub(crate) fn the_namespace_is_set_up() {
    let host = Host::router().unwrap();
    let timeouts = Timeouts {
        tcp_s: 1800,
        tcp_fin_s: 0,
        udp_s: 60,
    };
    let settings = Settings {
        strict_arp: true,
        timeouts,
    };
    open(&host, settings);
    for (name, value) in [
        ("ipv4/vs/conntrack", "1"),
        ("ipv4/vs/expire_nodest_conn", "1"),
        ("ipv4/vs/expire_quiescent_template", "1"),
        ("ipv4/ip_forward", "1"),
        ("ipv4/conf/all/arp_ignore", "1"),
        ("ipv4/conf/all/arp_announce", "2"),
    ] {
        assert_eq!(sysctl::read(&host.netns, name).unwrap(), value, "{name}");
    }
    // What is 0 stays as the kernel has it.
    let told = said(&host, &["ipvsadm", "-l", "--timeout"]);
    assert!(told.contains("1800 120 60"), "{told}");
}
