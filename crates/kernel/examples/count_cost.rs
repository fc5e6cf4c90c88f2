//! What it costs to count connections: connections through a Service, counted and not, in turns. Works in a namespace of
//! its own.
//!
//! Use: `cargo run --release --example count_cost -- 20 3000` (rounds, and connections in each).

#![allow(clippy::print_stdout, reason = "a report for a person")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::time::Instant;

use portolan_dataplane::nftables::Nftables;
use portolan_kernel::nft::ConnectionCounts;
use portolan_kernel::{Links, Netns, NftTarget};
use portolan_model::{
    Backend, Endpoint, NodeFacts, PortKey, Protocol, ServicePort, Snapshot, Target,
};

const SERVICE: &str = "127.0.0.10:80";
/// As many pairs as the proxy gives room; one is used, so that none is left out.
const PAIRS_MAX: u32 = 65_536;

/// A Service at an address of the loopback device, whose endpoint closes what it accepts.
fn serve() -> NftTarget {
    Links::here()
        .and_then(|mut links| links.up("lo"))
        .expect("a loopback device");
    let listener = TcpListener::bind("127.0.0.2:8080").expect("a port");
    let endpoint = listener.local_addr().expect("an address");
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let service: SocketAddr = SERVICE.parse().expect("an address");
    let mut snapshot = Snapshot::new(NodeFacts::default());
    snapshot.set(ServicePort {
        cluster_ips: vec![service.ip()],
        endpoints: [Endpoint::ready(endpoint)].into(),
        ..ServicePort::new(
            PortKey::new("shop", "web", "", Protocol::Tcp),
            NonZeroU16::new(service.port()).expect("a port"),
        )
    });
    let (state, _) = Nftables.compile(&snapshot);
    let mut target = NftTarget::open().expect("nf_tables works");
    target
        .apply(&Nftables.diff(None, &state))
        .expect("nf_tables works");
    target
}

/// What some connections cost: connections per second, and the time on a processor that each takes of this thread, which
/// is also the one that carries the packets of loopback. The latter hears less of what else runs on the machine.
struct Cost {
    rate: f64,
    processor_us: f64,
}

fn connect(connections: usize) -> Cost {
    let (start, before) = (Instant::now(), processor_ns());
    for _ in 0..connections {
        TcpStream::connect(SERVICE).expect("the endpoint answers");
    }
    let processor = processor_ns() - before;
    Cost {
        rate: connections as f64 / start.elapsed().as_secs_f64(),
        processor_us: processor / 1000.0 / connections as f64,
    }
}

fn processor_ns() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("a kernel that tells");
    let first = text.split(' ').next();
    first.and_then(|ns| ns.parse().ok()).expect("a number")
}

fn measure(rounds: usize, connections: usize) {
    let _rules = serve();
    connect(connections);
    let mut costs = [Vec::new(), Vec::new()];
    for round in 0..2 * rounds {
        // Each is first in every other round, so that a drift of the machine strikes both.
        let counted = (round + round / 2) % 2;
        let table = (counted == 1).then(|| ConnectionCounts::open(PAIRS_MAX).expect("a table"));
        costs[counted].push(connect(connections));
        if let Some(mut table) = table {
            let all = table
                .read()
                .expect("netlink works")
                .expect("the table stands");
            let sum: u64 = all.iter().map(|(_, count)| count).sum();
            assert_eq!(sum, connections as u64, "each counts once");
        }
    }
    let told = ["connections a second", "processor time of one, µs"];
    for (what, of) in told.into_iter().zip([
        (|cost: &Cost| cost.rate) as fn(&Cost) -> f64,
        |cost: &Cost| cost.processor_us,
    ]) {
        let [without, with] = costs.each_ref().map(|all| quartiles(all, of));
        let [low, middle, high] = without;
        println!("{what}: not counted {middle:.2} (quartiles {low:.2}, {high:.2})");
        let ratio = with[1] / middle;
        let [low, middle, high] = with;
        println!("{what}: counted {middle:.2} (quartiles {low:.2}, {high:.2}), ratio {ratio:.3}");
    }
}

fn quartiles(costs: &[Cost], of: fn(&Cost) -> f64) -> [f64; 3] {
    let mut all: Vec<f64> = costs.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| all[(all.len() - 1) * quarter / 4])
}

fn main() {
    let mut numbers = std::env::args()
        .skip(1)
        .map(|n| n.parse().expect("a number"));
    let rounds = numbers.next().unwrap_or(20);
    let connections = numbers.next().unwrap_or(3000);
    let netns = Netns::new().expect("a network namespace");
    netns
        .run(|| measure(rounds, connections))
        .expect("a thread in it");
}
