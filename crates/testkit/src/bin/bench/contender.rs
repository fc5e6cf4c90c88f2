//! Who is measured: our agent, or the peer (a kube-proxy) in one of its modes. How each is started.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::topology::Host;
use serde_json::json;

use crate::haproxy;
use crate::objects::{Shape, cluster_ip};

/// One program in one mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contender {
    /// `portolan proxy`.
    Portolan {
        /// The binary.
        program: PathBuf,
        /// How it programs: one of [`MODES`].
        mode: &'static str,
    },
    /// kube-proxy.
    Peer {
        /// The binary.
        program: PathBuf,
        /// The minor version that it says it has.
        minor: u32,
        /// How it programs.
        mode: PeerMode,
    },
    /// haproxy, which forwards the TCP ports of the Services of `traffic`.
    Haproxy {
        /// The binary.
        program: PathBuf,
        /// What it says it is, such as `2.6.12`.
        version: String,
        /// Whether it may splice.
        splice: bool,
    },
}

/// Modes of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerMode {
    /// `nft`.
    Nftables,
    /// `iptables` of the old kernel interface, which is the faster one for it.
    IptablesLegacy,
    /// `iptables` on top of nf_tables.
    IptablesNft,
}

impl PeerMode {
    /// What reports call it.
    pub fn name(self) -> &'static str {
        match self {
            PeerMode::Nftables => "nftables",
            PeerMode::IptablesLegacy => "iptables (legacy)",
            PeerMode::IptablesNft => "iptables (nft)",
        }
    }

    /// Which of [`MODES`] it is like.
    pub fn mode(self) -> &'static str {
        match self {
            PeerMode::Nftables => "nftables",
            PeerMode::IptablesLegacy => "iptables-legacy",
            PeerMode::IptablesNft => "iptables",
        }
    }

    /// As `--proxy-mode` says it.
    pub fn flag(self) -> &'static str {
        match self {
            PeerMode::Nftables => "nftables",
            PeerMode::IptablesLegacy | PeerMode::IptablesNft => "iptables",
        }
    }

    /// The program that stands behind `iptables`, if the mode needs one.
    fn iptables(self) -> Option<&'static str> {
        match self {
            PeerMode::Nftables => None,
            PeerMode::IptablesLegacy => Some("xtables-legacy-multi"),
            PeerMode::IptablesNft => Some("xtables-nft-multi"),
        }
    }
}

/// Our modes, iptables in both of its kinds.
pub const MODES: [&str; 5] = ["nftables", "iptables", LEGACY, "ebpf", "userspace"];
/// iptables mode on a node whose kubelet uses the older kernel interface.
const LEGACY: &str = "iptables-legacy";

/// Where each proxy serves its metrics, in its own network namespace.
pub const METRICS: &str = "127.0.0.1:10249";
const HEALTHZ: &str = "127.0.0.1:10256";
/// The first minor version whose nftables mode needs no feature gate.
const NFTABLES_BETA: u32 = 31;
/// Folders in which Debian and others put programs of the network.
const SYSTEM_FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];

impl Contender {
    /// Who it is, for reports.
    pub fn name(&self) -> String {
        match self {
            Contender::Portolan { mode, .. } => format!("portolan {mode}"),
            Contender::Peer { mode, minor, .. } => format!("kube-proxy 1.{minor} {}", mode.name()),
            Contender::Haproxy {
                version, splice, ..
            } => match splice {
                true => format!("haproxy {version} with splice"),
                false => format!("haproxy {version}"),
            },
        }
    }

    /// Whether it serves the Services of `traffic` alone, and no UDP.
    pub fn is_relay(&self) -> bool {
        matches!(self, Contender::Haproxy { .. })
    }

    /// Whether the kernel tells listeners of nf_tables what it changes.
    pub fn is_told_by_netlink(&self) -> bool {
        match self {
            Contender::Portolan { mode, .. } => *mode == "nftables",
            Contender::Peer { mode, .. } => *mode != PeerMode::IptablesLegacy,
            Contender::Haproxy { .. } => false,
        }
    }

    /// The Services whose rules a packet meets first and last: those of the list, unless the rules are a list of their
    /// own, as in iptables.
    pub fn ends(&self, node: &Host, folder: &Path, shape: Shape) -> Result<(u32, u32), String> {
        let Contender::Peer {
            mode: PeerMode::IptablesLegacy | PeerMode::IptablesNft,
            ..
        } = self
        else {
            return Ok((0, shape.services - 1));
        };
        let output = Command::new(folder.join("iptables/iptables"))
            .args(["-w", "-t", "nat", "-S", "KUBE-SERVICES"])
            .env("XTABLES_LOCKFILE", folder.join("xtables.lock"))
            .in_netns(&node.netns)
            .map_err(|e| e.to_string())?
            .output()
            .map_err(|e| e.to_string())?;
        ends_of(&String::from_utf8_lossy(&output.stdout), shape)
            .ok_or_else(|| "no Service in KUBE-SERVICES".into())
    }

    /// Starts it on the node, with its words in `folder`. It ends with the calling thread.
    pub fn start(&self, node: &Host, folder: &Path, kubeconfig: &Path) -> Result<Child, String> {
        let log = File::create(folder.join("proxy.log")).map_err(|e| e.to_string())?;
        let mut command = match self {
            Contender::Portolan { program, mode } => {
                if *mode == LEGACY {
                    leave_hint(node)?;
                }
                portolan(
                    program,
                    mode.trim_end_matches("-legacy"),
                    kubeconfig,
                    folder,
                )
            }
            Contender::Peer {
                program,
                minor,
                mode,
            } => peer(program, *minor, *mode, folder, kubeconfig)?,
            Contender::Haproxy {
                program, splice, ..
            } => haproxy::command(program, *splice, node, folder)?,
        };
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|e| e.to_string())?)
            .stderr(log)
            .in_netns(&node.netns)
            .map_err(|e| e.to_string())?
            .die_with_parent(Signal::SIGKILL);
        command
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", self.name()))
    }

    /// Ends what outlives the process that was started with this folder: the relay of userspace mode.
    pub fn clean_up(&self, node: &Host, folder: &Path) -> Result<(), String> {
        let Contender::Portolan { program, mode } = self else {
            return Ok(());
        };
        if *mode != "userspace" {
            return Ok(());
        }
        let mut command = Command::new(program);
        command
            .args(["proxy", "--cleanup", "--state-dir"])
            .arg(folder.join("state"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .in_netns(&node.netns)
            .map_err(|e| e.to_string())?;
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("portolan proxy --cleanup: {status}")),
            Err(error) => Err(format!("portolan proxy --cleanup: {error}")),
        }
    }
}

/// First and last Service of the rules `-A KUBE-SERVICES -d 172.16.1.5/32 …`.
fn ends_of(rules: &str, shape: Shape) -> Option<(u32, u32)> {
    let service = |rule: &str| {
        let mut words = rule
            .split_whitespace()
            .skip_while(|word| *word != "-d")
            .skip(1);
        let address: Ipv4Addr = words.next()?.strip_suffix("/32")?.parse().ok()?;
        let index = u32::from(address).checked_sub(u32::from(cluster_ip(0)))?;
        (index < shape.services).then_some(index)
    };
    let mut services = rules.lines().filter_map(service);
    let first = services.next()?;
    Some((first, services.next_back().unwrap_or(first)))
}

/// What a kubelet leaves, so that others use its kind of iptables.
fn leave_hint(node: &Host) -> Result<(), String> {
    let program = find("xtables-legacy-multi").ok_or("xtables-legacy-multi is not installed")?;
    let mut command = Command::new(program);
    command
        .args(["iptables", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT"])
        .in_netns(&node.netns)
        .map_err(|e| e.to_string())?;
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("iptables -N KUBE-IPTABLES-HINT: {status}")),
        Err(error) => Err(format!("iptables: {error}")),
    }
}

fn portolan(program: &Path, mode: &str, kubeconfig: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["proxy", "--proxy-mode", mode, "--kubeconfig"])
        .arg(kubeconfig)
        .arg("--state-dir")
        .arg(folder.join("state"))
        .args(["--hostname-override", "n1", "--cluster-cidr", "10.0.0.0/8"])
        .args([
            "--healthz-bind-address",
            HEALTHZ,
            "--metrics-bind-address",
            METRICS,
        ]);
    command
}

fn peer(
    program: &Path,
    minor: u32,
    mode: PeerMode,
    folder: &Path,
    kubeconfig: &Path,
) -> Result<Command, String> {
    let config = folder.join("kube-proxy.json");
    let text = peer_config(minor, mode, kubeconfig).to_string();
    std::fs::write(&config, text).map_err(|e| e.to_string())?;
    let mut command = Command::new(program);
    command
        .arg("--config")
        .arg(&config)
        // Its lock shall be no one else's.
        .env("XTABLES_LOCKFILE", folder.join("xtables.lock"));
    if let Some(multi) = mode.iptables() {
        let tools = folder.join("iptables");
        link_iptables(&tools, multi)?;
        let path = std::env::var("PATH").unwrap_or_default();
        command.env(
            "PATH",
            format!("{}:{path}:{}", tools.display(), SYSTEM_FOLDERS.join(":")),
        );
    }
    Ok(command)
}

/// Everything but the periods and the kernel's settings is kube-proxy's default.
fn peer_config(minor: u32, mode: PeerMode, kubeconfig: &Path) -> serde_json::Value {
    let gates = match mode {
        PeerMode::Nftables if minor < NFTABLES_BETA => json!({"NFTablesProxyMode": true}),
        _ => json!({}),
    };
    let period = json!({"minSyncPeriod": "10ms", "syncPeriod": "30s"});
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode.flag(),
        "featureGates": gates,
        "hostnameOverride": "n1",
        "clusterCIDR": "10.0.0.0/8",
        "healthzBindAddress": HEALTHZ,
        "metricsBindAddress": METRICS,
        "clientConnection": {"kubeconfig": kubeconfig, "contentType": "application/json"},
        // The machine's own settings are not touched.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        // As fast as ours: the default of a second would only be waited for.
        "iptables": period,
        "nftables": period,
    })
}

/// The names under which kube-proxy looks for iptables.
const IPTABLES_NAMES: [&str; 6] = [
    "iptables",
    "iptables-save",
    "iptables-restore",
    "ip6tables",
    "ip6tables-save",
    "ip6tables-restore",
];

fn link_iptables(folder: &Path, multi: &str) -> Result<(), String> {
    let target = find(multi).ok_or_else(|| format!("{multi} is not installed"))?;
    std::fs::create_dir_all(folder).map_err(|e| e.to_string())?;
    for name in IPTABLES_NAMES {
        std::os::unix::fs::symlink(&target, folder.join(name)).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Where a program of the system is.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = |folder: &str| Path::new(folder).join(program);
    SYSTEM_FOLDERS
        .into_iter()
        .map(path)
        .find(|path| path.exists())
}

/// The peer in each of its modes that this machine can run; why not, for those that it cannot.
pub fn peers(program: &Path) -> Result<(Vec<Contender>, Vec<String>), String> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .map_err(|e| format!("PEER_KUBE_PROXY={}: {e}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let minor = minor_version(&text).ok_or_else(|| {
        format!(
            "PEER_KUBE_PROXY={} says {text:?} and no version",
            program.display()
        )
    })?;
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    let kind = |mode: PeerMode| {
        let found = mode.iptables().is_some_and(|multi| find(multi).is_some());
        found.then_some(mode)
    };
    let nftables = find("nft").map(|_| PeerMode::Nftables);
    for (mode, what) in [
        (
            nftables,
            "in nftables mode: this machine has no nft (apt-get install nftables)",
        ),
        (
            kind(PeerMode::IptablesLegacy),
            "in iptables mode (legacy): this machine has no xtables-legacy-multi (apt-get install iptables)",
        ),
        (
            kind(PeerMode::IptablesNft),
            "in iptables mode (nft): this machine has no xtables-nft-multi (apt-get install iptables)",
        ),
    ] {
        match mode {
            Some(mode) => found.push(Contender::Peer {
                program: program.to_owned(),
                minor,
                mode,
            }),
            None => missing.push(format!("kube-proxy {what}")),
        }
    }
    Ok((found, missing))
}

/// `Kubernetes v1.30.5` is minor version 30.
fn minor_version(text: &str) -> Option<u32> {
    let version = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix("v1."))?;
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_understood() {
        assert_eq!(minor_version("Kubernetes v1.30.5\n"), Some(30));
        assert_eq!(minor_version("Kubernetes v1.36.0-alpha.1"), Some(36));
        assert_eq!(minor_version("Kubernetes v0.0.0-master"), None);
    }

    #[test]
    fn an_old_peer_gets_the_gate_of_its_nftables_mode() {
        let gate = |minor, mode| {
            peer_config(minor, mode, Path::new("k"))["featureGates"]["NFTablesProxyMode"].clone()
        };
        assert_eq!(gate(30, PeerMode::Nftables), true);
        assert_eq!(gate(33, PeerMode::Nftables), serde_json::Value::Null);
        assert_eq!(gate(30, PeerMode::IptablesNft), serde_json::Value::Null);
        let config = peer_config(33, PeerMode::IptablesLegacy, Path::new("k"));
        assert_eq!(config["mode"], "iptables");
        assert_eq!(config["conntrack"]["maxPerCore"], 0);
    }

    #[test]
    fn the_ends_of_iptables_are_its_first_and_last_service() {
        let rules = "-N KUBE-SERVICES\n\
            -A KUBE-SERVICES -d 172.16.0.1/32 -p tcp -j KUBE-SVC-X\n\
            -A KUBE-SERVICES -d 172.16.1.7/32 -p tcp -j KUBE-SVC-A\n\
            -A KUBE-SERVICES -d 172.16.1.3/32 -p tcp -j KUBE-SVC-B\n\
            -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n";
        let shape = Shape {
            services: 10,
            endpoints: 2,
        };
        assert_eq!(ends_of(rules, shape), Some((7, 3)));
        assert_eq!(ends_of("", shape), None);
    }
}
