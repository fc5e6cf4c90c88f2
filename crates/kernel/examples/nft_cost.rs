//! What it costs to program nf_tables: first load, one changed endpoint, read-back. Works in a namespace of its own.
//!
//! Use: `cargo run --example nft_cost -- 10000 100000` (numbers of Services, each with two endpoints).

#![allow(clippy::print_stdout, reason = "a report for a person")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use portolan_dataplane::nftables::Nftables;
use portolan_kernel::{Netns, NftTarget};
use portolan_model::{Backend, ServicePort, Snapshot, Target};

#[path = "../../dataplane/tests/fake/mod.rs"]
mod fake;

/// Runs and says how long it took.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}

/// One Service gets another endpoint address.
fn change(snapshot: &mut Snapshot, service: usize, address: u32) {
    let port = snapshot.ports().nth(service).expect("there are so many");
    let mut port = ServicePort::clone(port);
    let mut endpoints = port.endpoints.to_vec();
    let ip = IpAddr::from((0x0a70_0000 + address).to_be_bytes());
    endpoints[0].address.set_ip(ip);
    port.endpoints = endpoints.into();
    snapshot.set(port);
}

fn measure(count: usize) {
    let mut target = NftTarget::open().expect("nf_tables works");
    let mut snapshot = fake::many_services(count);
    let ((mut state, _), compile) = timed(|| Nftables.compile(&snapshot));
    let (ops, diff) = timed(|| Nftables.diff(None, &state));
    let (_, apply) = timed(|| target.apply(&ops).expect("nf_tables works"));
    drop(ops);
    println!("{count} Services x 2: compile {compile:.1?}, diff {diff:.1?}, apply {apply:.1?}");
    let mut pure = Vec::new();
    let mut all = Vec::new();
    for round in 0..200 {
        let (before, old) = (snapshot.clone(), state.clone());
        change(&mut snapshot, (round * 7919) % count, round as u32);
        let start = Instant::now();
        let touched = snapshot.touched(&before);
        Nftables.update(&mut state, &snapshot, &touched);
        let ops = Nftables.diff(Some(&old), &state);
        pure.push(start.elapsed());
        target.apply(&ops).expect("nf_tables works");
        all.push(start.elapsed());
    }
    let quantile = |times: &mut Vec<Duration>, of: usize| {
        times.sort();
        times[(times.len() - 1) * of / 100]
    };
    println!(
        "  one endpoint changed: p50 {:.2?}, p99 {:.2?} (of it compile and diff: p50 {:.2?})",
        quantile(&mut all, 50),
        quantile(&mut all, 99),
        quantile(&mut pure, 50),
    );
    let (read, time) = timed(|| target.read().expect("nf_tables works"));
    assert!(read.expect("our own tables") == state);
    let (_, cheap) = timed(|| assert!(target.unchanged().expect("nf_tables works")));
    println!("  read back {time:.1?}; asking whether anything changed {cheap:.1?}");
}

fn main() {
    for count in std::env::args().skip(1) {
        let count = count.parse().expect("a number of Services");
        let netns = Netns::new().expect("a network namespace");
        netns.run(|| measure(count)).expect("a thread in it");
    }
}
