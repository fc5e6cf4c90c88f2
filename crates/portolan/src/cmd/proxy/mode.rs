//! The data planes that `--proxy-mode` chooses from.

use portolan_dataplane::ebpf::Ebpf;
use portolan_dataplane::iptables::Iptables;
use portolan_dataplane::nftables::Nftables;
use portolan_kernel::ebpf::Location;
use portolan_kernel::iptables::Variant;
use portolan_kernel::{EbpfTarget, IptablesTarget, NftTarget};
use portolan_model::ApplyError;
use portolan_model::sync::Pace;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};

use super::Config;
use super::sync::Loop;

/// One way to make verdicts come true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// nf_tables, spoken to in netlink: every Service is an element of a few maps.
    #[default]
    Nftables,
    /// kube-proxy's chains, written with `iptables-restore`; nf_tables or ip_tables, whichever the node uses.
    Iptables,
    /// eBPF programs connect sockets of this node to an endpoint at once; nftables does the rest.
    Ebpf,
}

impl Mode {
    /// All that there are.
    const ALL: [Mode; 3] = [Mode::Nftables, Mode::Iptables, Mode::Ebpf];

    /// As `--proxy-mode` and `/proxyMode` say it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Nftables => "nftables",
            Mode::Iptables => "iptables",
            Mode::Ebpf => "ebpf",
        }
    }

    /// Runs the sync loop of this mode in the network namespace of the calling thread. What the kernel lacks is said
    /// at once.
    pub(super) fn spawn(
        self,
        loop_: Loop,
        pace: Pace,
        config: &Config,
    ) -> Result<JoinHandle<anyhow::Result<()>>, ApplyError> {
        let runtime = Handle::current();
        Ok(match self {
            Mode::Nftables => {
                let target = NftTarget::open()?;
                spawn_blocking(move || loop_.run(Nftables, target, pace, &runtime))
            }
            Mode::Iptables => {
                let target = IptablesTarget::open(Variant::detect()?)?;
                tracing::info!(variant = target.variant().name(), "iptables");
                let backend = Iptables {
                    mark: 1 << config.iptables.masquerade_bit,
                    drop_invalid: !config.conntrack.tcp_be_liberal,
                };
                spawn_blocking(move || loop_.run(backend, target, pace, &runtime))
            }
            Mode::Ebpf => {
                let target = EbpfTarget::open(&Location::default())?;
                spawn_blocking(move || loop_.run(Ebpf, target, pace, &runtime))
            }
        })
    }

    /// Takes away what this mode has in the kernel; nothing happens if nothing is there.
    fn clean_up(self) -> Result<(), ApplyError> {
        match self {
            Mode::Nftables => NftTarget::open()?.remove(),
            Mode::Iptables => portolan_kernel::iptables::clean_up(),
            Mode::Ebpf => EbpfTarget::remove(&Location::default()),
        }
    }

    /// Takes away what any mode has in the kernel, and says which could not (`--cleanup`).
    pub(super) fn clean_up_all() -> Vec<(Mode, ApplyError)> {
        let failed = |mode: Mode| mode.clean_up().err().map(|error| (mode, error));
        Mode::ALL.into_iter().filter_map(failed).collect()
    }

    /// Whether this mode has what `other` has in the kernel.
    fn has(self, other: Mode) -> bool {
        self == other || (self, other) == (Mode::Ebpf, Mode::Nftables)
    }

    /// Takes away what other modes have left. Connections that they have led to endpoints live on in conntrack.
    pub(super) fn clean_up_others(self) {
        for other in Mode::ALL.into_iter().filter(|other| !self.has(*other)) {
            if let Err(error) = other.clean_up() {
                tracing::warn!(mode = other.name(), %error, "what another mode has left may still stand");
            }
        }
    }
}
