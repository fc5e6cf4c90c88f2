//! Serves names of a made-up cluster, to measure: `synthetic ADDRESS SERVICES ENDPOINTS`.
//!
//! Half of the Services have a ClusterIP, the others are headless; all have `ENDPOINTS` endpoints. With everything listed
//! it prints what memory it takes, lists everything anew, prints that again, and serves until it is ended.
#![allow(clippy::print_stdout)] // The result is for people.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use portolan_dns::server::{Answer, Client, Limits, Listener, Protocol, Step, bind};
use portolan_dns::wire::{Name, Query};
use portolan_dns::zone::{Config, Index, Live, Outcome};
use portolan_model::names::{
    Backs, Change, Endpoint, Kind, Label, ObjectName, Owner, Port, Service, ServiceKind, Slice,
};

/// Answers from the zone, and counts as somebody with metrics would.
struct Counting {
    live: Live,
    turn: AtomicUsize,
    answers: [AtomicU64; 16],
}

impl Answer for Counting {
    fn at_once(&self, query: &Query<'_>, client: &Client, out: &mut Vec<u8>) -> Step {
        let turn = self.turn.fetch_add(1, Relaxed);
        let bytes_max = client.bytes_max(query);
        let outcome = self.live.load().answer(query, bytes_max, turn, out);
        if outcome == Outcome::NotOurs {
            return Step::Drop;
        }
        self.answers[usize::from(out[3] & 15)].fetch_add(1, Relaxed);
        Step::Answered
    }

    async fn later(&self, _: Vec<u8>, _: Client) -> Option<Vec<u8>> {
        None
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "synthetic ADDRESS SERVICES ENDPOINTS";
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or(usage);
    let (address, services, endpoints) = (next()?.parse()?, next()?.parse()?, next()?.parse()?);
    let mut index = Index::new(Config {
        zones: vec![Name::parse("cluster.local")?],
        ..Config::default()
    });
    for time in ["listed", "listed anew"] {
        list(&mut index, services, endpoints);
        println!("{time}: {}", memory()?);
    }
    let answer = Counting {
        live: Live::new(&index),
        turn: AtomicUsize::new(0),
        answers: Default::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let protocol = Protocol::Plain;
    let bound = bind(&[Listener { address, protocol }], 1)?;
    let _server = bound.serve(Arc::new(answer), Limits::default(), runtime.handle())?;
    println!("serving {address}");
    runtime.block_on(std::future::pending::<()>());
    Ok(())
}

fn memory() -> std::io::Result<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let lines = status
        .lines()
        .filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
    Ok(lines.collect::<Vec<_>>().join(", ").replace('\t', " "))
}

fn list(index: &mut Index, services: u32, endpoints: u32) {
    for kind in [Kind::Namespace, Kind::Service, Kind::Slice] {
        index.apply(Change::Listing(kind), 0);
        let count = if kind == Kind::Namespace {
            100
        } else {
            services
        };
        for number in 0..count {
            let change = match kind {
                Kind::Namespace => Change::Namespace(owner(number).namespace),
                Kind::Service => service(number),
                _ => slice(number, endpoints),
            };
            index.apply(change, 0);
        }
        index.apply(Change::Listed(kind), 0);
    }
}

fn owner(number: u32) -> Owner {
    let namespace = format!("ns{}", number % 100);
    Owner::new(&namespace, &format!("svc{number}")).expect("labels")
}

fn port() -> Port {
    Port {
        name: Label::new("http"),
        protocol: portolan_model::Protocol::Tcp,
        number: 80,
    }
}

fn service(number: u32) -> Change {
    let address = Ipv4Addr::from(0xac1e_0000 + number);
    Change::Service(Service {
        owner: owner(number),
        kind: match number % 2 {
            0 => ServiceKind::ClusterIp(vec![address.into()]),
            _ => ServiceKind::Headless,
        },
        ports: vec![port()],
        external: Vec::new(),
        external_names: Vec::new(),
        publish_not_ready: false,
        selects: true,
    })
}

fn slice(number: u32, endpoints: u32) -> Change {
    let owner = owner(number);
    let endpoint = |at: u32| Endpoint {
        addresses: vec![IpAddr::from(Ipv4Addr::from(
            0x0a00_0000 + number * endpoints + at,
        ))],
        hostname: None,
        pod: Label::new(&format!("svc{number}-7d4b9c5f6d-x{at}")),
        ready: true,
        zone: Some("east".into()),
    };
    Change::Slice(Slice {
        object: ObjectName::new(&owner.namespace, &format!("{}-abcde", owner.name)),
        backs: Backs::Service(owner),
        ports: vec![port()],
        endpoints: (0..endpoints).map(endpoint).collect(),
        changed_ms: None,
    })
}
