//! Rules change as fast as the kernel takes it while new flows come: each of them finds an endpoint, whatever it meets.
//!
//! A flow that leaves the rules untranslated keeps that in conntrack until it ends. Those come to a socket at the
//! Service's own address, which counts them. Those that are dropped or rejected are told only: that happens while there
//! are no endpoints, and to a packet that is held up for two transactions. `PORTOLAN_RACE_SECONDS` says how long each case takes.
#![allow(clippy::unwrap_used)] // A test that cannot speak to the kernel has failed.

mod flood;

use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flood::{Flood, Sockets};
use portolan_dataplane::nftables::{Nftables, State};
use portolan_kernel::{NftTarget, isolated};
use portolan_model::{
    Affinity, Backend, Balance, Endpoint, NodeFacts, PortKey, Protocol, ServicePort, Snapshot,
    Target,
};

/// What a case changes forth and back.
struct Case {
    name: &'static str,
    /// How many endpoints there are, in turns.
    counts: [usize; 2],
    balance: Balance,
    affinity: bool,
    /// Whether another Service keeps the classes in use.
    company: bool,
}

const PLAIN: Case = Case {
    name: "",
    counts: [3, 2],
    balance: Balance::Random,
    affinity: false,
    company: true,
};

#[test]
fn no_flow_is_lost_while_endpoints_change() {
    isolated!(no_flow_is_lost_while_endpoints_change, {
        let cases = [
            Case {
                name: "3 and 2",
                ..PLAIN
            },
            Case {
                name: "1 and 2, no class is shared",
                counts: [1, 2],
                company: false,
                ..PLAIN
            },
            Case {
                name: "2 and 0",
                counts: [2, 0],
                ..PLAIN
            },
            Case {
                name: "3 and 2 in turns",
                balance: Balance::RoundRobin,
                ..PLAIN
            },
            Case {
                name: "3 and 2 with affinity",
                affinity: true,
                ..PLAIN
            },
        ];
        let (sockets, mut flood) = (Sockets::new(), Flood::new());
        let lost = cases.iter();
        let lost: Vec<String> = lost
            .filter_map(|case| run(case, &sockets, &mut flood))
            .collect();
        assert!(lost.is_empty(), "{lost:#?}");
    });
}

fn states(case: &Case) -> [State; 2] {
    case.counts.map(|count| {
        let mut snapshot = Snapshot::new(NodeFacts::default());
        let port = |index: u8, count: usize| {
            let key = PortKey::new("shop", &format!("s{index}"), "web", Protocol::Udp);
            let endpoint = |n: &_| Endpoint::ready(*n);
            ServicePort {
                cluster_ips: vec![[172, 30, 0, index].into()],
                endpoints: flood::ENDPOINTS[..count].iter().map(endpoint).collect(),
                balance: case.balance,
                affinity: case.affinity.then_some(Affinity {
                    timeout: Duration::from_secs(60),
                }),
                ..ServicePort::new(key, NonZeroU16::new(flood::PORT).unwrap())
            }
        };
        snapshot.set(port(1, count));
        if case.company {
            snapshot.set(port(2, case.counts[0]));
            snapshot.set(port(3, case.counts[1]));
        }
        Nftables.compile(&snapshot).0
    })
}

/// What went wrong, if anything did.
fn run(case: &Case, sockets: &Sockets, flood: &mut Flood) -> Option<String> {
    let [a, b] = states(case);
    let mut target = NftTarget::open().unwrap();
    target.apply(&Nftables.diff(None, &a)).unwrap();
    flood::forget_soon();
    let [there, back] = [Nftables.diff(Some(&a), &b), Nftables.diff(Some(&b), &a)];
    let done = AtomicBool::new(false);
    let (sent, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let seconds = std::env::var("PORTOLAN_RACE_SECONDS").map(|s| s.parse().unwrap());
    let end = Instant::now() + Duration::from_secs_f64(seconds.unwrap_or(0.8));
    let (mut changes, mut untranslated) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let taken = flood.some();
                sent.fetch_add(flood::SOME, Ordering::Relaxed);
                refused.fetch_add(flood::SOME - taken, Ordering::Relaxed);
            }
        });
        while Instant::now() < end || sent.load(Ordering::Relaxed) == 0 {
            target.apply(&there).unwrap();
            target.apply(&back).unwrap();
            changes += 2;
            untranslated += sockets.untranslated();
        }
        done.store(true, Ordering::Relaxed);
    });
    untranslated += sockets.untranslated();
    let (sent, refused) = (sent.into_inner(), refused.into_inner());
    let told = format!(
        "{}: {changes} changes, {sent} flows, {untranslated} untranslated, {refused} dropped or rejected",
        case.name
    );
    eprintln!("{told}");
    assert!(sent > 0 && changes > 0, "{told}");
    assert!(target.read().unwrap().unwrap() == a);
    (untranslated > 0).then_some(told)
}
