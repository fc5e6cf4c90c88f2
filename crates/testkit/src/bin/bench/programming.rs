//! What programming costs by itself: compile, diff and apply in one process, no API and no other thread.
//!
//! Each shape has a process of its own (fresh memory, fresh namespace): this program calls itself, and reads from the
//! child's standard output a JSON list of [`Found`].

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use portolan_dataplane::iptables::Iptables;
use portolan_dataplane::nftables::Nftables;
use portolan_kernel::iptables::Variant;
use portolan_kernel::namespace::{Kinds, enter_new};
use portolan_kernel::{IptablesTarget, NftTarget};
use portolan_model::{Backend, Endpoint, PortKey, Protocol, ServicePort, Snapshot, Target};
use portolan_testkit::world;

use crate::objects::{ENDPOINT_PORT, SERVICE_PORT, Shape, cluster_ip, name, replacement};
use crate::process::memory;
use crate::samples::{Samples, millis};

/// First argument of the process that measures one shape.
pub const FLAG: &str = "--programming";
/// What is programmed: nf_tables by netlink, and both kernels behind the tools of iptables.
pub const MODES: [&str; 3] = ["nftables", "iptables", "iptables-legacy"];

/// How much is measured of each shape.
#[derive(Clone, Copy)]
struct Plan {
    /// Single changes of an endpoint.
    changes: u32,
    /// Services that are added, and removed again.
    additions: u32,
}

const PLAN: Plan = Plan {
    changes: 1000,
    additions: 200,
};
/// Where each change starts a program, and takes up to half a second.
const PLAN_OF_TOOLS: Plan = Plan {
    changes: 50,
    additions: 20,
};

/// One measured thing.
#[derive(Debug, serde::Deserialize, serde::Serialize)]
pub struct Found {
    /// What was measured.
    pub what: String,
    /// How much, in the unit.
    pub value: f64,
    /// The unit.
    pub unit: String,
}

/// Measures one shape in a child process.
pub fn measure(mode: &str, shape: Shape) -> Result<Vec<Found>, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let run = Command::new(own)
        .args([
            FLAG,
            mode,
            &shape.services.to_string(),
            &shape.endpoints.to_string(),
        ])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| e.to_string())?;
    match run.status.success() {
        true => serde_json::from_slice(&run.stdout).map_err(|e| e.to_string()),
        false => Err(format!("programming {mode} {shape}: {}", run.status)),
    }
}

/// The child process: a namespace of its own, and the results on standard output.
pub fn child(mode: &str, shape: Shape) -> Result<(), Box<dyn std::error::Error>> {
    enter_new(Kinds::CLONE_NEWNET)?;
    let tools = |variant| IptablesTarget::open(variant);
    let found = match mode {
        "nftables" => run(shape, PLAN, Nftables, NftTarget::open()?)?,
        "iptables" => {
            let target = tools(Variant::Nft)?;
            run(shape, PLAN_OF_TOOLS, Iptables::DEFAULT, target)?
        }
        "iptables-legacy" => {
            let target = tools(Variant::Legacy)?;
            run(shape, PLAN_OF_TOOLS, Iptables::DEFAULT, target)?
        }
        other => return Err(format!("{other} is none of {}", MODES.join(", ")).into()),
    };
    Ok(serde_json::to_writer(std::io::stdout(), &found)?)
}

fn run<B: Backend, T: Target<B>>(
    shape: Shape,
    plan: Plan,
    backend: B,
    target: T,
) -> Result<Vec<Found>, String> {
    let before = memory("self").resident;
    let snapshot = Snapshot::new(world::node());
    let mut data_plane = DataPlane {
        shape,
        state: backend.compile(&snapshot).0,
        backend,
        target,
        snapshot,
    };
    let mut found: Vec<Found> = Vec::new();
    let mut tell = |what: &str, value: f64, unit: &str| {
        let (what, unit) = (what.to_owned(), unit.to_owned());
        found.push(Found { what, value, unit });
    };
    (0..shape.services).for_each(|index| data_plane.snapshot.set(data_plane.service(index, 0)));
    let (compiled, loaded) = data_plane.load()?;
    tell("compile", millis(compiled), "ms");
    tell("cold load", millis(loaded), "ms");
    let weight = memory("self").resident.saturating_sub(before);
    tell(
        "resident memory of Snapshot, State and load",
        weight as f64 / 1e6,
        "MB",
    );

    let changes =
        (1..=plan.changes).map(|round| data_plane.change(round * 7919 % shape.services, round));
    let changes: Samples = changes.collect::<Result<_, _>>()?;
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    for index in shape.services..shape.services + plan.additions {
        added.push(data_plane.change(index, 0)?);
        removed.push(data_plane.remove(index)?);
    }
    let all: [(&str, Samples); 3] = [
        ("one endpoint changes", changes),
        ("one Service added", added.into_iter().collect()),
        ("one Service removed", removed.into_iter().collect()),
    ];
    for (what, samples) in all {
        for percent in [50, 99] {
            let value = samples.millis(percent).unwrap_or_default();
            tell(&format!("{what}, p{percent}"), value, "ms");
        }
    }
    Ok(found)
}

/// What the agent's sync thread holds.
struct DataPlane<B: Backend, T> {
    shape: Shape,
    backend: B,
    target: T,
    snapshot: Snapshot,
    state: B::State,
}

impl<B: Backend, T: Target<B>> DataPlane<B, T> {
    /// Writes everything into an empty kernel; the time of the compilation, and of all of it.
    fn load(&mut self) -> Result<(Duration, Duration), String> {
        let begun = Instant::now();
        (self.state, _) = self.backend.compile(&self.snapshot);
        let compiled = begun.elapsed();
        self.target
            .apply(&self.backend.diff(None, &self.state))
            .map_err(|e| e.to_string())?;
        Ok((compiled, begun.elapsed()))
    }

    /// Another first endpoint for a Service, or a new Service.
    fn change(&mut self, index: u32, round: u32) -> Result<Duration, String> {
        let port = self.service(index, round);
        self.step(|snapshot| snapshot.set(port))
    }

    fn remove(&mut self, index: u32) -> Result<Duration, String> {
        self.step(|snapshot| snapshot.remove(&key(index)))
    }

    /// What the agent does for one change, from the new port to the kernel's word that it stands.
    fn step(&mut self, edit: impl FnOnce(&mut Snapshot)) -> Result<Duration, String> {
        let begun = Instant::now();
        let (old, standing) = (self.snapshot.clone(), self.state.clone());
        edit(&mut self.snapshot);
        self.backend.update(
            &mut self.state,
            &self.snapshot,
            &self.snapshot.touched(&old),
        );
        self.target
            .apply(&self.backend.diff(Some(&standing), &self.state))
            .map_err(|e| e.to_string())?;
        Ok(begun.elapsed())
    }

    /// The `index`th Service; its first endpoint is another one in each `round`.
    fn service(&self, index: u32, round: u32) -> ServicePort {
        let port_number = NonZeroU16::new(SERVICE_PORT).expect("invariant: the port is not 0");
        let mut port = ServicePort::new(key(index), port_number);
        port.cluster_ips = vec![cluster_ip(index).into()];
        let address = |slot: u32| -> SocketAddr {
            let address = match (slot, round) {
                (0, 1..) => replacement(round),
                _ => self.shape.endpoint(index, slot),
            };
            (address, ENDPOINT_PORT).into()
        };
        let slots = 0..self.shape.endpoints;
        port.endpoints = slots.map(|slot| Endpoint::ready(address(slot))).collect();
        port
    }
}

fn key(index: u32) -> PortKey {
    PortKey::new("default", &name(index), "http", Protocol::Tcp)
}
