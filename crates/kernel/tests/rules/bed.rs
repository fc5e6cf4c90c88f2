//! The network in which most tests of the rules happen, and those that speak in it.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use ipnet::IpNet;
use portolan_dataplane::nftables::Nftables;
use portolan_kernel::NftTarget;
use portolan_kernel::topology::Host;
use portolan_model::{Backend, NodeFacts, Snapshot, Target};

/// Only a failure takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A node between a client outside and a host that plays all pods; neither of them forwards.
///
/// ```text
///   pods  10.1.1.x, fd00:10:1:1::x ── veth1 (.1, ::1) node (.11, ::11) eth0 ── 192.168.0.1, fd00:192:168::1  outside
/// ```
pub(crate) struct Bed {
    pub(crate) node: Host,
    pub(crate) outside: Host,
    pub(crate) pods: Host,
    pub(crate) target: NftTarget,
    pub(crate) snapshot: Snapshot,
}

impl Bed {
    /// With the addresses of these endpoints, which are in 10.1.1.0/24 and fd00:10:1:1::/64.
    pub(crate) fn new(endpoints: &[&str]) -> Bed {
        let node = Host::router().unwrap();
        let (pods, outside) = (Host::new().unwrap(), Host::new().unwrap());
        let near = [net("10.1.1.1/24"), net("fd00:10:1:1::1/64")];
        let of = |text: &&str| {
            let ip = at(text).ip();
            IpNet::new(ip, if ip.is_ipv4() { 24 } else { 64 }).unwrap()
        };
        let far: BTreeSet<IpNet> = endpoints.iter().map(of).collect();
        let far = Vec::from_iter(far);
        node.join("veth1", &near, &pods, "eth0", &far).unwrap();
        let near_out = [net("192.168.0.11/24"), net("fd00:192:168::11/64")];
        let far_out = [net("192.168.0.1/24"), net("fd00:192:168::1/64")];
        node.join("eth0", &near_out, &outside, "eth0", &far_out)
            .unwrap();
        for (host, gateways) in [(&pods, near), (&outside, near_out), (&node, far_out)] {
            host.route(net("0.0.0.0/0"), gateways[0].addr()).unwrap();
            host.route(net("::/0"), gateways[1].addr()).unwrap();
        }
        let addresses = BTreeSet::from(near_out.map(|net| net.addr()));
        let facts = NodeFacts {
            node_port_addresses: addresses.clone(),
            addresses,
            ..NodeFacts::default()
        };
        Bed {
            target: node.run(NftTarget::open).unwrap().unwrap(),
            node,
            outside,
            pods,
            snapshot: Snapshot::new(facts),
        }
    }

    /// Programs the rules.
    pub(crate) fn stand(&mut self) {
        program(&mut self.target, &self.snapshot, false);
    }
}

/// Programs the rules of a snapshot; `anew` takes nothing over from what stands.
pub(crate) fn program(target: &mut NftTarget, snapshot: &Snapshot, anew: bool) {
    let (state, _) = Nftables.compile(snapshot);
    let standing = target.read().unwrap().filter(|_| !anew);
    let ops = Nftables.diff(standing.as_ref(), &state);
    target.apply(&ops).unwrap();
}

/// Answers every byte with its own address and a line end, until the test ends.
pub(crate) fn serve(host: &Host, here: SocketAddr) {
    let listener = host.run(|| TcpListener::bind(here)).unwrap().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                while let Ok(1) = stream.read(&mut [0]) {
                    let _ = stream.write_all(format!("{here}\n").as_bytes());
                }
            });
        }
    });
}

/// Who is at the other end of a connection to one that `serve`s.
pub(crate) fn ask(stream: &mut TcpStream) -> Result<SocketAddr, ErrorKind> {
    let told = |error: std::io::Error| error.kind();
    stream.write_all(b"?").map_err(told)?;
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        stream.read_exact(&mut byte).map_err(told)?;
        line.extend(byte);
    }
    Ok(at(std::str::from_utf8(&line).unwrap().trim_end()))
}

/// All rules of a host, as `nft` shows them.
pub(crate) fn rules(host: &Host) -> String {
    let list = || Command::new("nft").args(["list", "ruleset"]).output();
    let output = host.run(list).unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
