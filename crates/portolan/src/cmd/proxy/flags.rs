//! The command line of `portolan proxy`: kube-proxy's flags, as far as they have a meaning here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portolan_model::sync::Pace;
use portolan_reflect::{DetectLocal, NodeOptions, NodePortAddresses};
use tokio::sync::watch;

use super::{Mode, ProxyOptions, ejection};

/// Arguments of `portolan proxy`.
#[derive(clap::Args)]
pub struct Args {
    /// Kubeconfig file [default: $KUBECONFIG, ~/.kube/config, or in-cluster].
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Name of this node [default: $NODE_NAME, or the host name].
    #[arg(long, visible_alias = "node-name", env = "NODE_NAME")]
    hostname_override: Option<String>,
    /// How Services are programmed.
    #[arg(long, value_enum, default_value_t)]
    proxy_mode: Mode,
    /// Ranges of all pods, one of each family.
    #[arg(long, value_delimiter = ',')]
    cluster_cidr: Vec<IpNet>,
    /// How traffic of pods is recognised: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix.
    #[arg(long, default_value = "ClusterCIDR")]
    detect_local_mode: String,
    /// The bridge of the pods, for BridgeInterface.
    #[arg(long, default_value = "")]
    pod_bridge_interface: String,
    /// How names of pod interfaces start, for InterfaceNamePrefix.
    #[arg(long, default_value = "")]
    pod_interface_name_prefix: String,
    /// Addresses on which NodePorts answer: `primary`, `all` and ranges, together.
    #[arg(long, value_delimiter = ',', default_value = "primary")]
    nodeport_addresses: Vec<String>,
    /// Masquerade everything that goes to a ClusterIP.
    #[arg(long)]
    masquerade_all: bool,
    /// Ranges of the ClusterIPs: packets to addresses in them that no Service has are dropped.
    #[arg(long, value_delimiter = ',')]
    service_cidr: Vec<IpNet>,
    /// Time between two changes of the rules, e.g. 10ms.
    #[arg(long, visible_alias = "min-sync-period", default_value = "10ms", value_parser = duration)]
    nftables_min_sync_period: Duration,
    /// Time after which it is looked whether the rules still stand, e.g. 30s.
    #[arg(long, visible_alias = "sync-period", default_value = "30s", value_parser = duration)]
    nftables_sync_period: Duration,
    /// Where /healthz and /livez are served; empty for nowhere.
    #[arg(long, default_value = "0.0.0.0:10256")]
    healthz_bind_address: String,
    /// Where /metrics is served; empty for nowhere.
    #[arg(long, default_value = "127.0.0.1:10249")]
    metrics_bind_address: String,
    /// Reset TCP connections to endpoints that are gone for good, instead of letting their clients wait.
    #[arg(long)]
    reset_gone_connections: bool,
    /// Count new flows through each Service port (/metrics) and to each endpoint (/counters).
    #[arg(long)]
    count_connections: bool,
    #[command(flatten)]
    health: ejection::flags::HealthArgs,
}

impl Args {
    /// Checks and sorts what was given.
    pub fn options(self) -> anyhow::Result<ProxyOptions> {
        let detect_local = match self.detect_local_mode.as_str() {
            "ClusterCIDR" => DetectLocal::ClusterCidr(self.cluster_cidr),
            "NodeCIDR" => DetectLocal::NodeCidr,
            "BridgeInterface" if self.pod_bridge_interface.is_empty() => {
                bail!("--detect-local-mode BridgeInterface needs --pod-bridge-interface")
            }
            "BridgeInterface" => DetectLocal::BridgeInterface(self.pod_bridge_interface),
            "InterfaceNamePrefix" if self.pod_interface_name_prefix.is_empty() => {
                bail!("--detect-local-mode InterfaceNamePrefix needs --pod-interface-name-prefix")
            }
            "InterfaceNamePrefix" => {
                DetectLocal::InterfaceNamePrefix(self.pod_interface_name_prefix)
            }
            other => bail!(
                "--detect-local-mode {other} is none of ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix"
            ),
        };
        let name = match self.hostname_override {
            Some(name) if !name.is_empty() => name,
            _ => nix::unistd::gethostname()?.to_string_lossy().into_owned(),
        };
        // Names of Nodes are in small letters; what differs would make every endpoint one of another node (kube-proxy).
        let name = name.trim().to_lowercase();
        if name.is_empty() {
            bail!(
                "the name of this node is empty: --hostname-override takes the name of its Node object"
            );
        }
        Ok(ProxyOptions {
            kubeconfig: self.kubeconfig,
            node: NodeOptions {
                name,
                detect_local,
                node_port_addresses: node_port_addresses(&self.nodeport_addresses)?,
                masquerade_all: self.masquerade_all,
                service_cidrs: self.service_cidr,
            },
            mode: watch::channel(self.proxy_mode).1,
            pace: Pace {
                min: self.nftables_min_sync_period,
                max: self.nftables_sync_period,
                ..Pace::default()
            },
            healthz: address(&self.healthz_bind_address)?,
            metrics: address(&self.metrics_bind_address)?,
            reset_gone_connections: self.reset_gone_connections,
            count_connections: self.count_connections,
            health: self.health.config()?,
        })
    }
}

fn node_port_addresses(texts: &[String]) -> anyhow::Result<NodePortAddresses> {
    let mut chosen = NodePortAddresses::within(Vec::new());
    for text in texts.iter().map(|text| text.trim()) {
        match text {
            "" => {}
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

fn address(text: &str) -> anyhow::Result<Option<SocketAddr>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .with_context(|| format!("{text} is no address with a port"))
}

/// Go's durations: `30s`, `10ms`, `1m30s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 4] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let wrong = || format!("{text} is no duration such as 30s or 10ms");
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let (unit, factor) = UNITS
            .iter()
            .find(|(unit, _)| rest.starts_with(unit))
            .ok_or_else(wrong)?;
        seconds += number * factor;
        rest = &rest[unit.len()..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn options(line: &str) -> anyhow::Result<ProxyOptions> {
        let words = ["proxy", "--node-name", "n1"]
            .into_iter()
            .chain(line.split_whitespace());
        Line::try_parse_from(words)?.args.options()
    }

    #[test]
    fn kube_proxys_flags_are_understood() {
        let given = options("--cluster-cidr 10.0.0.0/8,fd00:10::/32 --sync-period 1m30s --min-sync-period 5ms --healthz-bind-address=").unwrap();
        assert_eq!(given.pace.max, Duration::from_secs(90));
        assert_eq!(given.pace.min, Duration::from_millis(5));
        assert!(
            matches!(given.node.detect_local, DetectLocal::ClusterCidr(ref cidrs) if cidrs.len() == 2)
        );
        assert_eq!(
            (given.healthz, given.metrics),
            (None, "127.0.0.1:10249".parse().ok())
        );
        let within = options("--nodeport-addresses 192.168.0.0/24")
            .unwrap()
            .node
            .node_port_addresses;
        assert_eq!(
            within,
            NodePortAddresses::within(vec![net("192.168.0.0/24")])
        );
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn node_port_addresses_are_words_and_ranges() {
        let wanted = |line: &str| options(line).unwrap().node.node_port_addresses;
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
    fn the_node_is_named_as_nodes_are() {
        let words = ["proxy", "--hostname-override", " N1.Example.com"];
        let given = Line::try_parse_from(words).unwrap().args.options().unwrap();
        assert_eq!(given.node.name, "n1.example.com");
        let words = ["proxy", "--hostname-override", " "];
        let error = Line::try_parse_from(words).unwrap().args.options().err();
        assert!(error.unwrap().to_string().contains("is empty"));
    }

    #[test]
    fn what_cannot_be_is_said() {
        for (line, words) in [
            ("--proxy-mode magic", "possible values: nftables"),
            (
                "--detect-local-mode BridgeInterface",
                "--pod-bridge-interface",
            ),
            ("--detect-local-mode X", "is none of"),
            ("--nodeport-addresses x", "none of `primary`"),
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
