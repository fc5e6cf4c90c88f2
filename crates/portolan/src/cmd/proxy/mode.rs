//! The data planes that `--proxy-mode` chooses from.

use std::path::Path;
use std::time::Duration;

use portolan_dataplane::ebpf::Ebpf;
use portolan_dataplane::iptables::Iptables;
use portolan_dataplane::ipvs::Ipvs;
use portolan_dataplane::nftables::Nftables;
use portolan_kernel::confine::{self, Capability};
use portolan_kernel::iptables::Variant;
use portolan_kernel::ipvs::{Settings, Timeouts};
use portolan_kernel::{EbpfTarget, IptablesTarget, IpvsTarget, NftTarget};
use portolan_model::sync::Pace;
use portolan_model::{ApplyError, Doors, Scheduler};
use tokio::task::{JoinHandle, spawn_blocking};

use super::Config;
use super::sync::Loop;
use super::userspace::{self, Relays};

/// One way to make verdicts come true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// nf_tables, spoken to in netlink: every Service is an element of a few maps.
    #[default]
    Nftables,
    /// kube-proxy's chains, written with `iptables-restore`; nf_tables or ip_tables, whichever the node uses.
    Iptables,
    /// The kernel's virtual servers, with its schedulers; nf_tables decides what goes there.
    Ipvs,
    /// eBPF programs connect sockets of this node to an endpoint at once; nftables does the rest.
    Ebpf,
    /// A relay of our own makes the connections to endpoints, the next one when one does not answer.
    Userspace,
    /// The same without privileges: Services are reached on addresses of 127.0.0.0/8, and no rule is written.
    Loopback,
}

impl Mode {
    /// All that there are.
    pub(super) const ALL: [Mode; 6] = [
        Mode::Nftables,
        Mode::Iptables,
        Mode::Ipvs,
        Mode::Ebpf,
        Mode::Userspace,
        Mode::Loopback,
    ];

    /// As `--proxy-mode` and `/proxyMode` say it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Nftables => "nftables",
            Mode::Iptables => "iptables",
            Mode::Ipvs => "ipvs",
            Mode::Ebpf => "ebpf",
            Mode::Userspace => "userspace",
            Mode::Loopback => "loopback",
        }
    }

    /// Runs the sync loop of this mode in the network namespace of the calling thread. What the kernel lacks is said
    /// at once.
    pub(super) fn spawn(
        self,
        loop_: Loop,
        relays: &Relays,
        pace: Pace,
        config: &Config,
    ) -> Result<JoinHandle<anyhow::Result<()>>, ApplyError> {
        Ok(match self {
            Mode::Nftables => {
                let target = NftTarget::open()?;
                spawn_blocking(move || loop_.run(Nftables, target, pace))
            }
            Mode::Iptables => {
                let target = IptablesTarget::open(Variant::detect()?)?;
                tracing::info!(variant = target.variant().name(), "iptables");
                let backend = Iptables {
                    mark: 1 << config.iptables.masquerade_bit,
                    drop_invalid: !config.conntrack.tcp_be_liberal,
                };
                spawn_blocking(move || loop_.run(backend, target, pace))
            }
            Mode::Ipvs => {
                let (backend, target) = ipvs(config)?;
                spawn_blocking(move || loop_.run(backend, target, pace))
            }
            Mode::Ebpf => {
                let target = EbpfTarget::open(&config.ebpf)?;
                for words in target.lacks() {
                    tracing::warn!("this kernel lacks something for eBPF mode: {words}");
                }
                loop_.telemetry.sockets.are_noted(target.notes());
                spawn_blocking(move || loop_.run(Ebpf, target, pace))
            }
            Mode::Userspace => {
                let target = relays.open(&loop_.telemetry)?;
                let backend = userspace::backend();
                spawn_blocking(move || loop_.run(backend, target, pace))
            }
            Mode::Loopback => {
                let target = relays.open_loopback(&loop_.telemetry)?;
                let backend = userspace::loopback();
                spawn_blocking(move || loop_.run(backend, target, pace))
            }
        })
    }

    /// Whether it changes the kernel's rules, which an ordinary user may not.
    pub(super) fn is_privileged(self) -> bool {
        self != Mode::Loopback
    }

    /// Which relay carries its flows, if one does.
    pub(super) fn relay(self) -> Option<userspace::Kind> {
        match self {
            Mode::Userspace => Some(userspace::Kind::Portal),
            Mode::Loopback => Some(userspace::Kind::Loopback),
            _ => None,
        }
    }

    /// Where the relay of this mode waits behind a portal, if it does.
    pub(super) fn doors(self) -> Option<Doors> {
        (self == Mode::Userspace).then(|| userspace::backend().doors)
    }

    /// Whether this mode and `other` write the same tables: then one must have stopped before the other begins, and the
    /// first change of the other leads from one to the other in one transaction.
    pub(super) fn shares_tables(self, other: Mode) -> bool {
        self.has(Mode::Nftables) && other.has(Mode::Nftables)
    }

    /// Takes away what this mode has in the kernel; nothing happens if nothing is there. What flows need that go on may
    /// stay, if `they_go_on`.
    fn clean_up(self, config: &Config, they_go_on: bool) -> Result<(), ApplyError> {
        match self {
            Mode::Nftables | Mode::Userspace => NftTarget::open()?.remove(),
            Mode::Iptables => portolan_kernel::iptables::clean_up(),
            Mode::Ipvs => portolan_kernel::ipvs::clean_up(),
            Mode::Ebpf if they_go_on => EbpfTarget::retire(&config.ebpf),
            Mode::Ebpf => EbpfTarget::remove(&config.ebpf),
            // Its sockets are those of its relay.
            Mode::Loopback => Ok(()),
        }
    }

    /// Takes away what any mode has in the kernel, and says which could not (`--cleanup`).
    pub(super) fn clean_up_all(config: &Config, state_dir: &Path) -> Vec<(Mode, ApplyError)> {
        let failed = |mode: Mode| Some((mode, mode.clean_up(config, false).err()?));
        let mut all: Vec<_> = Mode::ALL.into_iter().filter_map(failed).collect();
        // Rules that lead to it are gone.
        let ended = userspace::end_all(state_dir);
        all.extend(ended.err().map(|error| (Mode::Userspace, error)));
        all
    }

    /// Whether this mode has what [`Mode::clean_up`] of `other` takes away.
    fn has(self, other: Mode) -> bool {
        match other {
            Mode::Nftables | Mode::Userspace => !matches!(self, Mode::Iptables | Mode::Loopback),
            Mode::Iptables | Mode::Ipvs | Mode::Ebpf | Mode::Loopback => self == other,
        }
    }

    /// Takes away what other modes have left, unless this one has no privileges to do so. Connections that they have led
    /// to endpoints live on in conntrack, or by programs that stay.
    pub(super) fn clean_up_others(self, config: &Config, relays: &Relays) {
        let others = Mode::ALL.into_iter().filter(|other| !self.has(*other));
        let may = self.is_privileged() || confine::has(Capability::NetAdmin);
        for other in others.filter(|_| may) {
            if let Err(error) = other.clean_up(config, true) {
                tracing::warn!(mode = other.name(), %error, "what another mode has left may still stand");
            }
        }
        relays.retire_others(self);
    }
}

/// What kube-proxy's options of ipvs mode ask for, as far as this kernel has it.
fn ipvs(config: &Config) -> Result<(Ipvs, IpvsTarget), ApplyError> {
    let wanted = &config.ipvs;
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let settings = Settings {
        strict_arp: wanted.strict_arp,
        timeouts: Timeouts {
            tcp_s: seconds(wanted.tcp_timeout),
            tcp_fin_s: seconds(wanted.tcp_fin_timeout),
            udp_s: seconds(wanted.udp_timeout),
        },
    };
    let unknown = |words: String| ApplyError {
        doing: "--ipvs-scheduler (ipvs.scheduler) is none of the kernel's schedulers".into(),
        words,
    };
    let scheduler: Scheduler = match wanted.scheduler.as_str() {
        "" => Scheduler::default(),
        name => name.parse().map_err(unknown)?,
    };
    let mut target = IpvsTarget::open(&settings)?;
    let missing = target.missing()?;
    if missing.contains(&scheduler) {
        return Err(unknown(format!("this kernel has no scheduler {scheduler}")));
    }
    let excluded = wanted.exclude_cidrs.iter();
    let backend = Ipvs {
        scheduler,
        missing,
        // The configuration has been checked.
        excluded: excluded.filter_map(|range| range.parse().ok()).collect(),
    };
    Ok((backend, target))
}
