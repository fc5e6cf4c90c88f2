//! The data planes as the proof on the real kernel runs them.

mod ebpf;

use portolan_dataplane::iptables::Iptables;
use portolan_dataplane::ipvs::Ipvs;
use portolan_dataplane::nftables::Nftables;
use portolan_kernel::iptables::Variant;
use portolan_kernel::ipvs::Settings;
use portolan_kernel::{IptablesTarget, IpvsTarget, NftTarget};

use crate::live::{Outcome, against_kernel};
use crate::pure::not_applicable;
use crate::scenario::Scenario;
use crate::userspace;

/// One data plane.
#[derive(Clone, Copy)]
pub struct Mode {
    /// As `--proxy-mode` says it.
    pub name: &'static str,
    /// Runs a scenario on the real kernel. The caller must be in namespaces of its own.
    pub run: fn(&Scenario) -> Outcome,
}

impl Mode {
    /// Whether a relay makes the connections to endpoints: they see the node's address instead of the client's, and where
    /// others choose at random it goes from one to the next.
    pub fn relays(&self) -> bool {
        self.name == "userspace"
    }

    /// The scenario as this mode makes it come true.
    pub fn seen(&self, scenario: &Scenario) -> Scenario {
        match self.relays() {
            true => userspace::seen(scenario),
            false => scenario.clone(),
        }
    }
}

/// All that there are.
pub const ALL: [Mode; 6] = [
    Mode {
        name: "nftables",
        run: nftables,
    },
    Mode {
        name: "iptables",
        run: |scenario| iptables(Variant::Nft, scenario),
    },
    Mode {
        name: "iptables-legacy",
        run: |scenario| iptables(Variant::Legacy, scenario),
    },
    Mode {
        name: "ebpf",
        run: ebpf::run,
    },
    Mode {
        name: "ipvs",
        run: ipvs,
    },
    Mode {
        name: "userspace",
        run: |scenario| against_kernel(&userspace::backend(), userspace::open, scenario),
    },
];

fn nftables(scenario: &Scenario) -> Outcome {
    let open = |netns: &portolan_kernel::Netns| match netns.run(NftTarget::open) {
        Ok(target) => target.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    against_kernel(&Nftables, open, scenario)
}

fn iptables(variant: Variant, scenario: &Scenario) -> Outcome {
    if not_applicable(&Iptables::DEFAULT, scenario).is_some() {
        return Outcome::NotApplicable(
            "rules of iptables choose at random or in turn, not by a hash of the client; a Problem says so",
        );
    }
    let open = |netns: &portolan_kernel::Netns| match netns.run(|| IptablesTarget::open(variant)) {
        Ok(target) => target.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    against_kernel(&Iptables::DEFAULT, open, scenario)
}

fn ipvs(scenario: &Scenario) -> Outcome {
    let open = |netns: &portolan_kernel::Netns| {
        let target = netns.run(|| IpvsTarget::open(&Settings::default()));
        match target {
            Ok(target) => target.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    };
    against_kernel(&Ipvs::default(), open, scenario)
}
