//! KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1): kube-proxy's file, whole, as values that can't be wrong.
//!
//! ```text
//!   --config FILE ─▶ document (lines) ─▶ decode ─┐
//!                                                ├─▶ Config ─▶ ProxyOptions; notes: what has no meaning here
//!   flags ───────────────────────────────────────┘       └──▶ --write-config-to, /configz
//! ```
//!
//! As with kube-proxy, a file replaces the flags, but for the few that say something about this very process.
//! Names, defaults and limits are those of k8s.io/kube-proxy/config/v1alpha1, with two defaults of our own: the mode is
//! nftables, and rules follow after 10 ms instead of 1 s.

mod decode;
mod document;
pub(super) mod file;
pub(super) mod flags;
mod notes;
mod reader;
pub(super) mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use portolan_kernel::ebpf::Location;
use serde::Serialize;

pub(super) use decode::decode;
pub(super) use notes::notes;

/// The kind and version of the file.
pub(super) const KIND: &str = "KubeProxyConfiguration";
pub(super) const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";

/// Ports of kube-proxy.
pub(super) const HEALTHZ_PORT: u16 = 10256;
pub(super) const METRICS_PORT: u16 = 10249;

/// Something to say about one field of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remark {
    /// From 1.
    pub(super) line: usize,
    /// As in `ipvs.strictARP`; empty for the whole file.
    pub(super) field: String,
    pub(super) words: String,
}

impl Remark {
    fn new(line: usize, field: impl Into<String>, words: impl Into<String>) -> Self {
        let (field, words) = (field.into(), words.into());
        Remark { line, field, words }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Remark { line, field, words } = self;
        match field.is_empty() {
            true => write!(f, "line {line}: {words}"),
            false => write!(f, "line {line}: {field}: {words}"),
        }
    }
}

/// The whole configuration; the order is that of the alphabet, as kube-proxy writes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    pub(super) api_version: &'static str,
    pub(super) bind_address: IpAddr,
    pub(super) bind_address_hard_fail: bool,
    pub(super) client_connection: ClientConnection,
    #[serde(rename = "clusterCIDR", serialize_with = "text::write_ranges")]
    pub(super) cluster_cidr: Vec<IpNet>,
    #[serde(serialize_with = "text::write_duration")]
    pub(super) config_sync_period: Duration,
    pub(super) conntrack: Conntrack,
    pub(super) detect_local: DetectLocal,
    pub(super) detect_local_mode: String,
    /// Ours, and no part of the file: only flags say it.
    #[serde(skip)]
    pub(super) ebpf: Location,
    pub(super) enable_profiling: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) feature_gates: BTreeMap<String, bool>,
    #[serde(serialize_with = "text::write_address")]
    pub(super) healthz_bind_address: Option<SocketAddr>,
    pub(super) hostname_override: String,
    pub(super) iptables: Iptables,
    pub(super) ipvs: Ipvs,
    pub(super) kind: &'static str,
    pub(super) logging: Logging,
    #[serde(serialize_with = "text::write_address")]
    pub(super) metrics_bind_address: Option<SocketAddr>,
    pub(super) mode: String,
    pub(super) nftables: Nftables,
    #[serde(serialize_with = "text::write_list")]
    pub(super) node_port_addresses: Vec<String>,
    pub(super) oom_score_adj: i32,
    pub(super) port_range: String,
    pub(super) show_hidden_metrics_for_version: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) windows_run_as_service: bool,
    pub(super) winkernel: Winkernel,
}

/// How the API is reached.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientConnection {
    pub(super) accept_content_types: String,
    pub(super) burst: i32,
    pub(super) content_type: String,
    pub(super) kubeconfig: String,
    #[serde(serialize_with = "text::write_number")]
    pub(super) qps: f32,
}

/// Settings of the kernel's connection tracking; 0 leaves one as it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Conntrack {
    pub(super) max_per_core: u32,
    pub(super) min: u32,
    pub(super) tcp_be_liberal: bool,
    #[serde(serialize_with = "text::write_duration")]
    pub(super) tcp_close_wait_timeout: Duration,
    #[serde(serialize_with = "text::write_duration")]
    pub(super) tcp_established_timeout: Duration,
    #[serde(serialize_with = "text::write_duration")]
    pub(super) udp_stream_timeout: Duration,
    #[serde(serialize_with = "text::write_duration")]
    pub(super) udp_timeout: Duration,
}

/// What the modes of `detectLocalMode` need.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DetectLocal {
    pub(super) bridge_interface: String,
    pub(super) interface_name_prefix: String,
}

/// Mode iptables.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Iptables {
    pub(super) localhost_node_ports: bool,
    pub(super) masquerade_all: bool,
    pub(super) masquerade_bit: u8,
    #[serde(serialize_with = "text::write_duration")]
    pub(super) min_sync_period: Duration,
    #[serde(serialize_with = "text::write_duration")]
    pub(super) sync_period: Duration,
}

/// Mode ipvs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ipvs {
    #[serde(rename = "excludeCIDRs", serialize_with = "text::write_list")]
    pub(super) exclude_cidrs: Vec<String>,
    #[serde(serialize_with = "text::write_duration")]
    pub(super) min_sync_period: Duration,
    pub(super) scheduler: String,
    #[serde(rename = "strictARP")]
    pub(super) strict_arp: bool,
    #[serde(serialize_with = "text::write_duration")]
    pub(super) sync_period: Duration,
    #[serde(serialize_with = "text::write_duration")]
    pub(super) tcp_fin_timeout: Duration,
    #[serde(serialize_with = "text::write_duration")]
    pub(super) tcp_timeout: Duration,
    #[serde(serialize_with = "text::write_duration")]
    pub(super) udp_timeout: Duration,
}

/// What goes to the log, and how. `options` are those of klog's buffers, which have no meaning here.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Logging {
    #[serde(serialize_with = "text::write_duration")]
    pub(super) flush_frequency: Duration,
    pub(super) format: String,
    pub(super) verbosity: u32,
    #[serde(skip)]
    pub(super) dead: Vec<String>,
}

/// Mode nftables; the modes that kube-proxy does not have take what they need from here.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Nftables {
    pub(super) masquerade_all: bool,
    pub(super) masquerade_bit: u8,
    #[serde(serialize_with = "text::write_duration")]
    pub(super) min_sync_period: Duration,
    #[serde(serialize_with = "text::write_duration")]
    pub(super) sync_period: Duration,
}

/// Windows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Winkernel {
    #[serde(rename = "enableDSR")]
    pub(super) enable_dsr: bool,
    pub(super) forward_health_check_vip: bool,
    pub(super) network_name: String,
    pub(super) root_hns_endpoint_name: String,
    pub(super) source_vip: String,
}

/// Rules follow a change after this time at the earliest; kube-proxy waits for a second.
const MIN_SYNC_PERIOD: Duration = Duration::from_millis(10);
const SYNC_PERIOD: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);
const MASQUERADE_BIT: u8 = 14;

impl Default for Config {
    fn default() -> Self {
        let bind_address = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        let (healthz, metrics) = default_addresses(bind_address);
        Config {
            api_version: API_VERSION,
            bind_address,
            bind_address_hard_fail: false,
            client_connection: ClientConnection::default(),
            cluster_cidr: Vec::new(),
            config_sync_period: HOUR / 4,
            conntrack: Conntrack::default(),
            detect_local: DetectLocal::default(),
            detect_local_mode: "ClusterCIDR".into(),
            ebpf: Location::default(),
            enable_profiling: false,
            feature_gates: BTreeMap::new(),
            healthz_bind_address: Some(healthz),
            hostname_override: String::new(),
            iptables: Iptables::default(),
            ipvs: Ipvs::default(),
            kind: KIND,
            logging: Logging::default(),
            metrics_bind_address: Some(metrics),
            mode: "nftables".into(),
            nftables: Nftables::default(),
            node_port_addresses: Vec::new(),
            oom_score_adj: -999,
            port_range: String::new(),
            show_hidden_metrics_for_version: String::new(),
            windows_run_as_service: false,
            winkernel: Winkernel::default(),
        }
    }
}

/// Where health and metrics are served when nobody says it: the family is that of `bindAddress`.
pub(super) fn default_addresses(bind: IpAddr) -> (SocketAddr, SocketAddr) {
    let (everywhere, loopback): (IpAddr, IpAddr) = match bind {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into()),
    };
    (
        (everywhere, HEALTHZ_PORT).into(),
        (loopback, METRICS_PORT).into(),
    )
}

impl Default for ClientConnection {
    fn default() -> Self {
        ClientConnection {
            accept_content_types: String::new(),
            burst: 10,
            content_type: "application/vnd.kubernetes.protobuf".into(),
            kubeconfig: String::new(),
            qps: 5.0,
        }
    }
}

impl Default for Conntrack {
    fn default() -> Self {
        Conntrack {
            max_per_core: 32 * 1024,
            min: 128 * 1024,
            tcp_be_liberal: false,
            tcp_close_wait_timeout: HOUR,
            tcp_established_timeout: HOUR * 24,
            udp_stream_timeout: Duration::ZERO,
            udp_timeout: Duration::ZERO,
        }
    }
}

impl Default for Iptables {
    fn default() -> Self {
        Iptables {
            localhost_node_ports: true,
            masquerade_all: false,
            masquerade_bit: MASQUERADE_BIT,
            min_sync_period: MIN_SYNC_PERIOD,
            sync_period: SYNC_PERIOD,
        }
    }
}

impl Default for Ipvs {
    fn default() -> Self {
        Ipvs {
            exclude_cidrs: Vec::new(),
            min_sync_period: MIN_SYNC_PERIOD,
            scheduler: String::new(),
            strict_arp: false,
            sync_period: SYNC_PERIOD,
            tcp_fin_timeout: Duration::ZERO,
            tcp_timeout: Duration::ZERO,
            udp_timeout: Duration::ZERO,
        }
    }
}

impl Default for Logging {
    fn default() -> Self {
        Logging {
            flush_frequency: Duration::from_secs(5),
            format: "text".into(),
            verbosity: 0,
            dead: Vec::new(),
        }
    }
}

impl Default for Nftables {
    fn default() -> Self {
        Nftables {
            masquerade_all: false,
            masquerade_bit: MASQUERADE_BIT,
            min_sync_period: MIN_SYNC_PERIOD,
            sync_period: SYNC_PERIOD,
        }
    }
}

#[cfg(test)]
mod tests;
