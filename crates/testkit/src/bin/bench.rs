//! `make bench`: what programming the nftables data plane costs, cold and for one change, and what an agent's Snapshot
//! and State weigh. Writes bench/out/results.json.
//!
//! Everything happens in network namespaces of this process. kube-proxy is measured beside it only when
//! `PEER_KUBE_PROXY` names its binary; that part is not written yet, and this program says so.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use portolan_dataplane::nftables::{Nftables, State};
use portolan_kernel::namespace::{Kinds, enter_new};
use portolan_kernel::nft::NftTarget;
use portolan_model::{Backend, Endpoint, PortKey, Protocol, ServicePort, Snapshot, Target};
use portolan_testkit::world;
use serde_json::{Value, json};

/// Numbers of Services, each with [`ENDPOINTS`] endpoints.
const SIZES: [u32; 3] = [1_000, 10_000, 100_000];

/// Endpoints of each Service.
const ENDPOINTS: u32 = 2;

/// Single changes that are measured at each size.
const CHANGES: u32 = 200;

fn main() -> io::Result<()> {
    if let Some(size) = std::env::args().nth(1) {
        let size = size.parse().map_err(io::Error::other)?;
        enter_new(Kinds::CLONE_NEWNET).map_err(io::Error::other)?;
        let results = measure(size).map_err(io::Error::other)?;
        return serde_json::to_writer(io::stdout(), &results).map_err(io::Error::other);
    }
    let mut out = io::stdout();
    let peer = match std::env::var_os("PEER_KUBE_PROXY") {
        None => "absent (PEER_KUBE_PROXY is not set)",
        Some(_) => "PEER_KUBE_PROXY is set, but measuring it is not written yet",
    };
    writeln!(out, "peer: {peer}; every peer value is null")?;
    let mut results: Vec<Value> = Vec::new();
    for size in SIZES {
        // Each size has a process of its own: fresh memory, fresh namespace.
        let run = Command::new(std::env::current_exe()?)
            .arg(size.to_string())
            .stderr(Stdio::inherit())
            .output()?;
        if !run.status.success() {
            return Err(io::Error::other(format!("{size} Services: {}", run.status)));
        }
        for one in serde_json::from_slice::<Vec<Value>>(&run.stdout)? {
            let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
            let value = one["value"].as_f64().unwrap_or_default();
            writeln!(out, "{:<64}{value:>12.3} {}", text("name"), text("unit"))?;
            results.push(one);
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/out");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(
        folder.join("results.json"),
        serde_json::to_string_pretty(&results)?,
    )
}

fn measure(size: u32) -> Result<Vec<Value>, String> {
    let backend = Nftables;
    let before = resident_bytes();
    let mut snapshot = Snapshot::new(world::node());
    (0..size).for_each(|index| snapshot.set(service(index, 0)));

    let mut target = NftTarget::open().map_err(|e| e.to_string())?;
    let begun = Instant::now();
    let (mut state, _) = backend.compile(&snapshot);
    let compiled = begun.elapsed();
    target
        .apply(&backend.diff(None, &state))
        .map_err(|e| e.to_string())?;
    let loaded = begun.elapsed();
    let weight = resident_bytes().saturating_sub(before);

    let mut changes: Vec<Duration> = Vec::new();
    for round in 1..=CHANGES {
        let index = round * 7919 % size;
        changes.push(change(
            &backend,
            &mut target,
            &mut snapshot,
            &mut state,
            service(index, round),
        )?);
    }
    changes.sort_unstable();
    let at = |percent: usize| millis(changes[(changes.len() - 1) * percent / 100]);
    let name = |what: &str| format!("nftables, {size} services x {ENDPOINTS}: {what}");
    Ok(vec![
        result(&name("compile"), millis(compiled), "ms"),
        result(&name("cold load, compile and apply"), millis(loaded), "ms"),
        result(&name("one endpoint changes, p50"), at(50), "ms"),
        result(&name("one endpoint changes, p99"), at(99), "ms"),
        result(
            &name("resident memory that it took"),
            weight as f64 / 1e6,
            "MB",
        ),
    ])
}

/// What the agent does for one change, from the new port to the kernel's word that it stands.
fn change(
    backend: &Nftables,
    target: &mut NftTarget,
    snapshot: &mut Snapshot,
    state: &mut State,
    port: ServicePort,
) -> Result<Duration, String> {
    let begun = Instant::now();
    let (old, standing) = (snapshot.clone(), state.clone());
    snapshot.set(port);
    backend.update(state, snapshot, &snapshot.touched(&old));
    target
        .apply(&backend.diff(Some(&standing), state))
        .map_err(|e| e.to_string())?;
    Ok(begun.elapsed())
}

/// The `index`th Service; its first endpoint is another one in each `round`.
fn service(index: u32, round: u32) -> ServicePort {
    let key = PortKey::new("bench", &format!("s{index:06}"), "http", Protocol::Tcp);
    let mut port = ServicePort::new(key, NonZeroU16::MIN.saturating_add(79));
    // The plan's Service range ends before 100,000 Services do; this one is only used in here.
    let [_, high, middle, low] = index.to_be_bytes();
    port.cluster_ips = vec![[172, 30 + high, middle, low].into()];
    let address = |slot: u32| -> SocketAddr {
        let [_, high, middle, low] = (index * ENDPOINTS + slot).to_be_bytes();
        let number = if slot == 0 {
            8_000 + (round % 1_000) as u16
        } else {
            8_000
        };
        ([10, high, middle, low], number).into()
    };
    port.endpoints = (0..ENDPOINTS)
        .map(|slot| Endpoint::ready(address(slot)))
        .collect();
    port
}

fn result(name: &str, value: f64, unit: &str) -> Value {
    json!({"name": name, "value": value, "unit": unit, "peer": null, "peer_value": null, "ratio": null})
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Resident memory of this process; 0 where /proc does not say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|rest| {
        rest.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .ok()
    });
    kilobytes.unwrap_or_default() * 1024
}
