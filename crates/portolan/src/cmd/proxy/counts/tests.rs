//! From a connection to a line of /metrics.

use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use portolan_dataplane::ebpf::Ebpf;
use portolan_dataplane::nftables::Nftables;
use portolan_kernel::cgroup::Cgroup;
use portolan_kernel::ebpf::Location;
use portolan_kernel::{EbpfTarget, Links, NftTarget, isolated, mount, namespace};
use portolan_model::{Backend, Endpoint, NodeFacts, Protocol, ServicePort, Target};
use portolan_reflect::Reflection;

use super::super::metrics::Telemetry;
use super::*;

/// A Service with one endpoint, and who listens there.
fn service() -> (Snapshot, TcpListener) {
    Links::here().unwrap().up("lo").unwrap();
    let endpoint = TcpListener::bind("127.0.0.2:0").unwrap();
    let mut snapshot = Snapshot::new(NodeFacts::default());
    snapshot.set(ServicePort {
        cluster_ips: vec!["127.0.0.10".parse().unwrap()],
        endpoints: [Endpoint::ready(endpoint.local_addr().unwrap())].into(),
        ..ServicePort::new(
            PortKey::new("shop", "web", "http", Protocol::Tcp),
            NonZeroU16::new(80).unwrap(),
        )
    });
    (snapshot, endpoint)
}

fn reflection(snapshot: Snapshot) -> Reflection {
    Reflection {
        snapshot: Arc::new(snapshot),
        problems: Default::default(),
        triggered: std::collections::BTreeMap::new(),
        received: None,
        node_eligible: true,
    }
}

fn line(made: u64) -> String {
    format!(
        "portolan_proxy_service_connections_total{{namespace=\"shop\",service=\"web\",port=\"http\",protocol=\"TCP\"}} {made}\n"
    )
}

#[test]
fn a_connection_is_a_line_of_metrics() {
    isolated!(a_connection_is_a_line_of_metrics, {
        let (snapshot, endpoint) = service();
        let address = endpoint.local_addr().unwrap();
        let (state, _) = Nftables.compile(&snapshot);
        let mut target = NftTarget::open().unwrap();
        target.apply(&Nftables.diff(None, &state)).unwrap();
        // Somebody else has the table, and gives it up in time.
        let former = ConnectionCounts::open(16).unwrap();
        let telemetry = Telemetry::new(Duration::from_secs(30)).counting(16);
        telemetry.wanted(reflection(snapshot));
        let name = "portolan_proxy_service_connections_total";
        assert!(telemetry.text().contains("portolan_proxy_other_service"));
        TcpStream::connect("127.0.0.10:80").unwrap();
        drop(former);
        assert!(!telemetry.text().contains(&format!("{name}{{")));
        for made in 1..=3 {
            TcpStream::connect("127.0.0.10:80").unwrap();
            let text = telemetry.text();
            assert!(text.contains(&line(made)), "{text}");
        }
        let told = telemetry.counters().unwrap();
        assert_eq!(told["ports"][0]["connections"], 3);
        assert_eq!(told["ports"][0]["endpoints"][address.to_string()], 3);
    });
}

/// Connections of programs and connections through the rules are one number.
#[test]
fn connections_of_programs_are_counted_as_well() {
    isolated!(connections_of_programs_are_counted_as_well, {
        if !namespace::is_first_user() {
            assert!(std::env::var_os("CI").is_none(), "CI has root");
            eprintln!("SKIPPED: programs at cgroups need root");
            return;
        }
        mount::bpffs(std::path::Path::new("/sys/fs/bpf")).unwrap();
        let mut location = Location::default();
        let cgroup = Cgroup::new(&location.cgroup).unwrap();
        location.cgroup = cgroup.path().into();
        let (snapshot, endpoint) = service();
        let address = endpoint.local_addr().unwrap();
        let (state, _) = Ebpf.compile(&snapshot);
        let mut target = EbpfTarget::open(&location).unwrap();
        target.apply(&Ebpf.diff(None, &state)).unwrap();
        let telemetry = Telemetry::new(Duration::from_secs(30)).counting(16);
        telemetry.sockets.are_noted(target.notes());
        telemetry.wanted(reflection(snapshot.clone()));
        TcpStream::connect("127.0.0.10:80").unwrap();
        let joined = std::thread::scope(|scope| {
            let work = || {
                cgroup.join().unwrap();
                [(); 2].map(|()| TcpStream::connect("127.0.0.10:80").unwrap())
            };
            scope.spawn(work).join()
        });
        joined.unwrap();
        let text = telemetry.text();
        assert!(text.contains(&line(3)), "{text}");
        assert!(text.contains("portolan_sockets_total{outcome=\"connected\"} 2\n"));
        let told = telemetry.counters().unwrap();
        assert_eq!(told["ports"][0]["endpoints"][address.to_string()], 3);
        // Without the programs nothing is lost.
        telemetry.sockets.retire();
        assert!(telemetry.text().contains(&line(3)));
    });
}
