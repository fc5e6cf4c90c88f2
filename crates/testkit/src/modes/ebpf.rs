//! eBPF mode on the real kernel: the sockets of the node and its pods are made in a cgroup of the scenario.

use std::path::Path;
use std::sync::LazyLock;

use portolan_dataplane::ebpf::{self, Ebpf};
use portolan_kernel::cgroup::Cgroup;
use portolan_kernel::ebpf::{Devices, Location};
use portolan_kernel::{EbpfTarget, Netns, mount, namespace};

use crate::live::{AtSockets, Outcome, against_kernel_and_sockets};
use crate::scenario::Scenario;

/// A bpffs that only this process sees: what is pinned there goes with it. The words say why there is none.
static PINS: LazyLock<Result<(), String>> = LazyLock::new(|| {
    let mounted = mount::make_private()
        .and_then(|()| mount::bpffs(Path::new("/sys/fs/bpf")))
        .and_then(|()| mount::tmpfs(Path::new(NAMESPACES)));
    mounted.map_err(|error| error.to_string())
});

/// Where the namespaces of pods are shown: a directory of each scenario in a tmpfs of this process.
const NAMESPACES: &str = "/mnt";

/// Runs a scenario; each has a cgroup and a directory of pins of its own.
pub(super) fn run(scenario: &Scenario) -> Outcome {
    if !namespace::is_first_user() {
        return Outcome::Skipped("programs at cgroups need root".to_owned());
    }
    let proof = || -> Result<Outcome, String> {
        PINS.clone()?;
        let mut location = Location::default();
        let cgroup = Cgroup::new(&location.cgroup).map_err(|error| error.to_string())?;
        location.cgroup = cgroup.path().into();
        location.devices = Devices::Named(vec!["fabric".into(), "outside".into()]);
        location.namespaces =
            Path::new(NAMESPACES).join(cgroup.path().file_name().unwrap_or_default());
        let shown = &location.namespaces;
        std::fs::create_dir(shown).map_err(|error| error.to_string())?;
        let sockets = AtSockets {
            cgroup: &cgroup,
            connects: |state: &ebpf::State, packet, is_bound| {
                ebpf::connects(&state.sockets, packet, is_bound).is_some()
            },
            connected: |target: &EbpfTarget| {
                let outcomes = target.outcomes().map_err(|error| error.to_string())?;
                Ok(outcomes.connected)
            },
            namespaces: shown,
            look: |target| {
                let known = target.notes().refresh();
                known.map(drop).map_err(|error| error.to_string())
            },
            takes: |state: &ebpf::State, packet| {
                ebpf::outside::serves(&state.outside, packet).is_some()
            },
            taken: |target: &EbpfTarget| {
                let outcomes = target
                    .outside_outcomes()
                    .map_err(|error| error.to_string())?;
                // Two Services at one endpoint, and the same port of one client by chance.
                Ok(outcomes.taken() + outcomes.for_another)
            },
        };
        let mut node = None;
        let open = |netns: &Netns| {
            let kept = node.insert(netns.try_clone().map_err(|error| error.to_string())?);
            let target = kept.run(|| EbpfTarget::open(&location));
            let target = target.map_err(|error| error.to_string())?;
            target.map_err(|error| error.to_string())
        };
        let outcome = against_kernel_and_sockets(&Ebpf, open, &sockets, scenario);
        hide(shown).map_err(|error| error.to_string())?;
        if let Some(node) = node {
            let removed = node.run(|| EbpfTarget::remove(&location));
            let removed = removed.map_err(|error| error.to_string())?;
            removed.map_err(|error| error.to_string())?;
        }
        Ok(outcome)
    };
    proof().unwrap_or_else(|words| Outcome::Failed(vec![words]))
}

/// A namespace lives as long as it is shown.
fn hide(directory: &Path) -> portolan_kernel::Result<()> {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        mount::unmount(&entry.path())?;
    }
    Ok(())
}
