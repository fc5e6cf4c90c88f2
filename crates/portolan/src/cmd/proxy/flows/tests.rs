//! In eBPF mode sockets are swept as conntrack is: by what stands.

use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU16;
use std::path::Path;

use portolan_dataplane::ebpf::Ebpf;
use portolan_kernel::cgroup::Cgroup;
use portolan_kernel::ebpf::Location;
use portolan_kernel::{EbpfTarget, Links, isolated, mount, namespace};
use portolan_model::{Backend, Endpoint, NodeFacts, PortKey, ServicePort, Target};

use super::*;

/// Only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(20);
const VIP: &str = "127.0.0.10:53";

/// A Service with these endpoints.
fn snapshot(endpoints: &[SocketAddr]) -> Snapshot {
    let mut snapshot = Snapshot::new(NodeFacts::default());
    let key = PortKey::new("shop", "dns", "", Protocol::Udp);
    snapshot.set(ServicePort {
        cluster_ips: vec!["127.0.0.10".parse().unwrap()],
        endpoints: endpoints.iter().map(|to| Endpoint::ready(*to)).collect(),
        ..ServicePort::new(key, NonZeroU16::new(53).unwrap())
    });
    snapshot
}

/// Sends a datagram; says whether `server` got it.
fn reaches(client: &UdpSocket, server: &UdpSocket) -> bool {
    client.send_to(b"?", VIP).unwrap();
    let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
    from.port() == client.local_addr().unwrap().port()
}

#[test]
fn sockets_leave_an_endpoint_that_is_gone() {
    isolated!(sockets_leave_an_endpoint_that_is_gone, {
        if !namespace::is_first_user() {
            assert!(std::env::var_os("CI").is_none(), "CI has root");
            eprintln!("SKIPPED: programs at cgroups need root");
            return;
        }
        mount::bpffs(Path::new("/sys/fs/bpf")).unwrap();
        Links::here().unwrap().up("lo").unwrap();
        let mut location = Location::default();
        let cgroup = Cgroup::new(&location.cgroup).unwrap();
        location.cgroup = cgroup.path().into();
        let bind = || {
            let socket = UdpSocket::bind("127.0.0.2:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        // Endpoints are listed in the order of their addresses.
        let mut servers = [bind(), bind()];
        servers.sort_by_key(|server| server.local_addr().unwrap());
        let endpoints = servers.each_ref().map(|s| s.local_addr().unwrap());
        let clients = std::thread::scope(|scope| {
            let work = || {
                cgroup.join().unwrap();
                [(); 2].map(|()| UdpSocket::bind("0.0.0.0:0").unwrap())
            };
            scope.spawn(work).join().unwrap()
        });
        let mut target = EbpfTarget::open(&location).unwrap();
        let telemetry = Telemetry::new(Duration::from_secs(30));
        telemetry.sockets.are_noted(target.notes());
        let mut flows = Flows::open(None, &location.pins).unwrap();
        let start = Instant::now();
        let mut stand = |endpoints: &[SocketAddr]| {
            let snapshot = snapshot(endpoints);
            let (state, _) = Ebpf.compile(&snapshot);
            let standing = target.read().unwrap();
            target.apply(&Ebpf.diff(standing.as_ref(), &state)).unwrap();
            flows.on_stands(&snapshot, &telemetry.sockets);
            while flows.sweeper.due().is_some() {
                flows.sweep(start, &telemetry);
            }
        };
        stand(&endpoints[..1]);
        clients[1].connect(VIP).unwrap();
        assert!(reaches(&clients[0], &servers[0]));
        stand(&endpoints);
        assert!(reaches(&clients[0], &servers[0]), "it keeps its endpoint");
        stand(&endpoints[1..]);
        assert!(reaches(&clients[0], &servers[1]));
        let told = clients[1].recv(&mut [0; 1]).unwrap_err();
        assert_eq!(told.kind(), std::io::ErrorKind::ConnectionAborted);
        let deleted =
            "kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv4\"} 2\n";
        assert!(telemetry.text().contains(deleted));

        // Another mode takes over, and then its endpoint goes.
        clients[0].connect(VIP).unwrap();
        clients[0].send(b"?").unwrap();
        servers[1].recv(&mut [0; 8]).unwrap();
        EbpfTarget::remove(&location).unwrap();
        telemetry.sockets.retire();
        let mut flows = Flows::open(None, &location.pins).unwrap();
        let start = Instant::now();
        let mut stand = |endpoints: &[SocketAddr]| {
            flows.on_stands(&snapshot(endpoints), &telemetry.sockets);
            while flows.sweeper.due().is_some() {
                flows.sweep(start, &telemetry);
            }
        };
        stand(&endpoints[1..]);
        clients[0].send(b"?").unwrap();
        servers[1].recv(&mut [0; 8]).unwrap();
        stand(&endpoints[..1]);
        let told = clients[0].recv(&mut [0; 1]).unwrap_err();
        assert_eq!(told.kind(), std::io::ErrorKind::ConnectionAborted);
    });
}
