//! The command line of `portolan proxy`: kube-proxy's flags and file, and what only Portolan has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use clap::{ArgAction, ValueEnum};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portolan_kernel::ebpf::{Devices, Location};
use portolan_model::sync::Pace;
use portolan_reflect::{DetectLocal, NodeOptions, NodePortAddresses};
use tokio::sync::watch;

pub(super) use super::config::text::duration;
use super::config::{self, Config, file, flags::Given};
use super::{Mode, ProxyOptions, Wanted, ejection};

/// Arguments of `portolan proxy`.
#[derive(clap::Args)]
pub struct Args {
    /// kube-proxy's file (KubeProxyConfiguration); most flags that it could hold have no effect beside it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the configuration to this file, and end.
    #[arg(long, value_name = "FILE")]
    write_config_to: Option<PathBuf>,
    /// Remove everything of ours from the kernel, of every mode, and end.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    cleanup: bool,
    /// Write the settings that need all privileges (conntrack), and end.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    init_only: bool,
    /// Address of the Kubernetes API, instead of the kubeconfig's.
    #[arg(long, value_name = "URL")]
    master: Option<String>,
    /// Ranges of the ClusterIPs: packets to addresses in them that no Service has are dropped.
    #[arg(long, value_delimiter = ',')]
    service_cidr: Vec<IpNet>,
    /// Reset TCP connections to endpoints that are gone for good, instead of letting their clients wait.
    #[arg(long)]
    reset_gone_connections: bool,
    /// Count new flows through each Service port (/metrics) and to each endpoint (/counters).
    #[arg(long)]
    count_connections: bool,
    /// Where the relay of userspace mode is found again by the next process: a directory for nobody else. By default
    /// /run/portolan, or portolan in $XDG_RUNTIME_DIR for who is not root.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Give up every privilege, system call and writing to files that the mode does not need.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    confine: bool,
    #[command(flatten)]
    ebpf: EbpfArgs,
    #[command(flatten)]
    health: ejection::flags::HealthArgs,
    #[command(flatten)]
    given: Given,
}

/// Where eBPF mode has what it needs.
#[derive(clap::Args)]
struct EbpfArgs {
    /// Cgroup at which the programs of eBPF mode stand: processes below it are served at their sockets [default: the
    /// root of the cgroup2 hierarchy].
    #[arg(long, value_name = "DIRECTORY")]
    ebpf_cgroup: Option<PathBuf>,
    /// Directory of a bpffs that is Portolan's alone [default: /sys/fs/bpf/portolan].
    #[arg(long, value_name = "DIRECTORY")]
    ebpf_pins: Option<PathBuf>,
    /// Directory in which the container runtime shows the network namespaces of pods [default: /run/netns].
    #[arg(long, value_name = "DIRECTORY")]
    ebpf_namespaces: Option<PathBuf>,
    /// Devices at which programs treat traffic from outside: names with commas between, "auto" for those of the default
    /// routes, or "none", so that the rules do it.
    #[arg(long, value_name = "DEVICES", default_value = "none")]
    ebpf_outside_devices: Devices,
    /// Carry what these programs send on in XDP, where the driver of a device can.
    #[arg(long)]
    ebpf_outside_xdp: bool,
}

impl EbpfArgs {
    fn location(self) -> Location {
        let standard = Location::default();
        Location {
            cgroup: self.ebpf_cgroup.unwrap_or(standard.cgroup),
            pins: self.ebpf_pins.unwrap_or(standard.pins),
            namespaces: self.ebpf_namespaces.unwrap_or(standard.namespaces),
            devices: self.ebpf_outside_devices,
            xdp: self.ebpf_outside_xdp,
        }
    }
}

/// What the command is to do.
#[derive(Debug)]
pub(super) enum Task {
    /// Serve; with a file, until it changes.
    Serve(Option<Box<file::File>>),
    Cleanup,
    InitOnly,
    WriteConfig(PathBuf),
}

/// A command line that makes sense.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) task: Task,
    pub(super) options: ProxyOptions,
    /// Whether everything is given up that is not needed.
    pub(super) confine: bool,
    /// What was given and has no effect.
    pub(super) warnings: Vec<String>,
}

impl Args {
    /// Checks and sorts what was given, and reads the file.
    pub(super) fn choose(self) -> anyhow::Result<Chosen> {
        let mut warnings = Vec::new();
        let (mut config, file) = match &self.config {
            None => (self.given.config().map_err(|words| anyhow!(words))?, None),
            Some(path) => {
                let (file, mut config, told) = file::load(path)?;
                warnings.extend(told);
                let ignored = self
                    .given
                    .over(&mut config)
                    .map_err(|words| anyhow!(words))?;
                let ignored = ignored
                    .iter()
                    .map(|name| format!("--{name} has no effect beside --config"));
                warnings.extend(ignored);
                (config, Some(Box::new(file)))
            }
        };
        config.ebpf = self.ebpf.location();
        if self.reset_gone_connections && config.ebpf.devices != Devices::None {
            config.ebpf.devices = Devices::None;
            warnings.push(
                "--ebpf-outside-devices has no effect beside --reset-gone-connections: programs there end no connections".into(),
            );
        }
        if config.ebpf.xdp && config.ebpf.devices == Devices::None {
            warnings.push("--ebpf-outside-xdp has no effect without --ebpf-outside-devices".into());
        }
        let dead = self.given.dead();
        warnings.extend(dead.iter().map(|name| format!("--{name} has no effect")));
        warnings.extend(config::notes(&config, &config.mode));
        let task = match (self.write_config_to, self.cleanup, self.init_only) {
            (Some(path), ..) => Task::WriteConfig(path),
            (None, true, _) => Task::Cleanup,
            (None, false, true) => Task::InitOnly,
            (None, false, false) => Task::Serve(file),
        };
        let kubeconfig = &config.client_connection.kubeconfig;
        let options = ProxyOptions {
            kubeconfig: (!kubeconfig.is_empty()).then(|| kubeconfig.into()),
            master: self.master.filter(|master| !master.is_empty()),
            wanted: watch::channel(wanted(&config, self.service_cidr)?).1,
            reset_gone_connections: self.reset_gone_connections,
            count_connections: self.count_connections,
            health: self.health.config()?,
            state_dir: self.state_dir.unwrap_or_else(state_dir),
            config,
        };
        Ok(Chosen {
            confine: self.confine,
            task,
            options,
            warnings,
        })
    }
}

/// Where a process of this user may leave something until the machine is started anew.
fn state_dir() -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !nix::unistd::geteuid().is_root());
    own.map_or("/run".into(), PathBuf::from).join("portolan")
}

/// Whether a configuration makes sense here, beyond what its file alone can say.
pub(super) fn check(config: &Config) -> anyhow::Result<()> {
    mode(config)?;
    detect_local(config)?;
    node_port_addresses(&config.node_port_addresses).map(drop)
}

/// What of a configuration depends on the mode.
pub(super) fn wanted(config: &Config, service_cidrs: Vec<IpNet>) -> anyhow::Result<Wanted> {
    Ok(Wanted {
        mode: mode(config)?,
        node: node(config, service_cidrs)?,
        pace: pace(config),
    })
}

/// Which of the modes that this version has.
pub(super) fn mode(config: &Config) -> anyhow::Result<Mode> {
    let wanted = config.mode.as_str();
    Mode::from_str(wanted, false).map_err(|_| {
        let names: Vec<&str> = Mode::value_variants()
            .iter()
            .map(|mode| mode.name())
            .collect();
        anyhow!(
            "--proxy-mode {wanted} (mode) is none of this version, which has {}",
            names.join(", ")
        )
    })
}

/// Whether a mode takes what it needs from kube-proxy's section for iptables; so does ipvs there.
fn is_iptables(config: &Config) -> bool {
    matches!(config.mode.as_str(), "iptables" | "ipvs")
}

fn node(config: &Config, service_cidrs: Vec<IpNet>) -> anyhow::Result<NodeOptions> {
    let primary = Some(config.bind_address).filter(|address| !address.is_unspecified());
    Ok(NodeOptions {
        name: name(&config.hostname_override)?,
        primary_address: primary,
        detect_local: detect_local(config)?,
        node_port_addresses: match config.node_port_addresses.is_empty() && is_iptables(config) {
            // These modes of kube-proxy have always answered everywhere.
            true => NodePortAddresses::within(everywhere().into()),
            false => node_port_addresses(&config.node_port_addresses)?,
        },
        masquerade_all: match is_iptables(config) {
            true => config.iptables.masquerade_all,
            false => config.nftables.masquerade_all,
        },
        service_cidrs,
    })
}

fn pace(config: &Config) -> Pace {
    let (min, max) = match config.mode.as_str() {
        "iptables" => (config.iptables.min_sync_period, config.iptables.sync_period),
        "ipvs" => (config.ipvs.min_sync_period, config.ipvs.sync_period),
        _ => (config.nftables.min_sync_period, config.nftables.sync_period),
    };
    Pace {
        min,
        max,
        ..Pace::default()
    }
}

/// The name of our Node object: what was given, what the pod's template gives, or the host's name.
fn name(given: &str) -> anyhow::Result<String> {
    let name = match given.is_empty() {
        false => given.into(),
        true => match std::env::var("NODE_NAME") {
            Ok(name) if !name.is_empty() => name,
            _ => nix::unistd::gethostname()?.to_string_lossy().into_owned(),
        },
    };
    // Names of Nodes are in small letters; what differs would make every endpoint one of another node (kube-proxy).
    let name = name.trim().to_lowercase();
    if name.is_empty() {
        bail!(
            "the name of this node is empty: --hostname-override takes the name of its Node object"
        );
    }
    Ok(name)
}

fn detect_local(config: &Config) -> anyhow::Result<DetectLocal> {
    let local = &config.detect_local;
    Ok(match config.detect_local_mode.as_str() {
        "ClusterCIDR" => DetectLocal::ClusterCidr(config.cluster_cidr.clone()),
        "NodeCIDR" => DetectLocal::NodeCidr,
        "BridgeInterface" if local.bridge_interface.is_empty() => bail!(
            "--detect-local-mode BridgeInterface needs --pod-bridge-interface (detectLocal.bridgeInterface)"
        ),
        "BridgeInterface" => DetectLocal::BridgeInterface(local.bridge_interface.clone()),
        "InterfaceNamePrefix" if local.interface_name_prefix.is_empty() => bail!(
            "--detect-local-mode InterfaceNamePrefix needs --pod-interface-name-prefix (detectLocal.interfaceNamePrefix)"
        ),
        "InterfaceNamePrefix" => {
            DetectLocal::InterfaceNamePrefix(local.interface_name_prefix.clone())
        }
        other => bail!(
            "--detect-local-mode {other} is none of ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix"
        ),
    })
}

fn node_port_addresses(texts: &[String]) -> anyhow::Result<NodePortAddresses> {
    let mut chosen = NodePortAddresses::within(Vec::new());
    for text in texts {
        match text.as_str() {
            "primary" => chosen.primary = true,
            "all" => chosen.ranges.extend(everywhere()),
            "localhost" => chosen.ranges.extend(localhost()),
            range => chosen.ranges.push(range.parse().with_context(|| {
                format!("--nodeport-addresses {range}: none of `primary`, `all`, a range such as 192.168.0.0/24")
            })?),
        }
    }
    match chosen.ranges.is_empty() {
        true => Ok(NodePortAddresses::PRIMARY),
        false => Ok(chosen),
    }
}

/// Every address there is.
fn everywhere() -> [IpNet; 2] {
    [
        IpNet::from(Ipv4Net::default()),
        IpNet::from(Ipv6Net::default()),
    ]
}

fn localhost() -> [IpNet; 2] {
    [
        IpNet::from(IpAddr::from(Ipv4Addr::LOCALHOST)),
        IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST)),
    ]
}

/// What of `--nodeport-addresses` can't be had; kube-proxy's nftables mode has no NodePorts on localhost either.
pub(super) fn warn_of_localhost(wanted: &NodePortAddresses) {
    for range in wanted
        .ranges
        .iter()
        .filter(|range| range.addr().is_loopback())
    {
        tracing::warn!(
            "--nodeport-addresses {range}: NodePorts do not answer on loopback addresses in this mode; use an address of the node"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn node(line: &str) -> NodeOptions {
        options(line).unwrap().wanted.borrow().node.clone()
    }

    fn options(line: &str) -> anyhow::Result<ProxyOptions> {
        let words = ["proxy", "--node-name", "n1"]
            .into_iter()
            .chain(line.split_whitespace());
        Ok(Line::try_parse_from(words)?.args.choose()?.options)
    }

    #[test]
    fn kube_proxys_flags_are_understood() {
        let given = options("--cluster-cidr 10.0.0.0/8,fd00:10::/32 --sync-period 1m30s --min-sync-period 5ms --healthz-bind-address=").unwrap();
        let wanted = given.wanted.borrow().clone();
        assert_eq!(wanted.pace.max, Duration::from_secs(90));
        assert_eq!(wanted.pace.min, Duration::from_millis(5));
        assert!(
            matches!(wanted.node.detect_local, DetectLocal::ClusterCidr(ref cidrs) if cidrs.len() == 2)
        );
        assert_eq!(
            (
                given.config.healthz_bind_address,
                given.config.metrics_bind_address
            ),
            (None, "127.0.0.1:10249".parse().ok())
        );
        let within = node("--nodeport-addresses 192.168.0.0/24").node_port_addresses;
        let wanted = NodePortAddresses::within(vec![net("192.168.0.0/24")]);
        assert_eq!(within, wanted);
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn node_port_addresses_are_words_and_ranges() {
        let wanted = |line: &str| node(line).node_port_addresses;
        let with = |primary: bool, ranges: &[&str]| NodePortAddresses {
            primary,
            ranges: ranges.iter().map(|text| net(text)).collect(),
        };
        let primary = NodePortAddresses::PRIMARY;
        for (line, is) in [
            ("", primary.clone()),
            ("--nodeport-addresses=", primary.clone()),
            ("--nodeport-addresses primary", primary),
            (
                "--nodeport-addresses all",
                with(false, &["0.0.0.0/0", "::/0"]),
            ),
            (
                "--nodeport-addresses primary,203.0.113.0/24",
                with(true, &["203.0.113.0/24"]),
            ),
            (
                "--nodeport-addresses 127.0.0.0/8,localhost",
                with(false, &["127.0.0.0/8", "127.0.0.1/32", "::1/128"]),
            ),
        ] {
            assert_eq!(wanted(line), is, "{line}");
        }
    }

    #[test]
    fn what_kube_proxy_has_not_is_off_by_default() {
        let given = options("").unwrap();
        assert!(!given.reset_gone_connections && !given.count_connections);
        let given = options("--reset-gone-connections --count-connections").unwrap();
        assert!(given.reset_gone_connections && given.count_connections);
    }

    #[test]
    fn ebpf_mode_has_its_places() {
        let standard = options("").unwrap().config.ebpf;
        assert_eq!(standard, Location::default());
        let line = "--ebpf-cgroup /c --ebpf-pins /p --ebpf-namespaces /n --ebpf-outside-devices eth0,eth1 --ebpf-outside-xdp";
        let wanted = Location {
            cgroup: "/c".into(),
            pins: "/p".into(),
            namespaces: "/n".into(),
            devices: Devices::Named(vec!["eth0".into(), "eth1".into()]),
            xdp: true,
        };
        assert_eq!(options(line).unwrap().config.ebpf, wanted);
        assert!(options("--ebpf-outside-devices eth0,,eth1").is_err());
        let both = options(&format!("{line} --reset-gone-connections")).unwrap();
        assert_eq!(both.config.ebpf.devices, Devices::None);
    }

    #[test]
    fn the_node_is_named_as_nodes_are() {
        let words = ["proxy", "--hostname-override", " N1.Example.com"];
        let given = Line::try_parse_from(words)
            .unwrap()
            .args
            .choose()
            .unwrap()
            .options;
        assert_eq!(given.wanted.borrow().node.name, "n1.example.com");
        let words = ["proxy", "--hostname-override", " "];
        let error = Line::try_parse_from(words).unwrap().args.choose().err();
        assert!(error.unwrap().to_string().contains("is empty"));
    }

    #[test]
    fn what_cannot_be_is_said() {
        for (line, words) in [
            (
                "--proxy-mode magic",
                "none of this version, which has nftables, iptables",
            ),
            (
                "--detect-local-mode BridgeInterface",
                "--pod-bridge-interface",
            ),
            ("--detect-local-mode X", "is none of"),
            ("--nodeport-addresses x", "none of primary"),
            ("--sync-period 5", "is no duration"),
        ] {
            let error = options(line)
                .err()
                .map(|error| format!("{error:#}"))
                .unwrap_or_default();
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
