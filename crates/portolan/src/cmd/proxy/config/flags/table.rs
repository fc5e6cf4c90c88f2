//! All of kube-proxy's flags that say what its file can say as well: names, help, and what each does to a [`Config`].

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::super::file::node_port_place;
use super::super::reader::{boolean, whole};
use super::super::text::{bind_address, cluster_cidr, duration};
use super::super::{Config, HEALTHZ_PORT, METRICS_PORT, default_addresses};
use super::{Flag, always, flag};

/// In the order in which they are applied: the families of ports follow `--bind-address`.
pub(super) const FLAGS: &[Flag] = &[
    flag(
        "bind-address",
        "IP",
        "Primary address of this node, instead of its Node object's; nothing listens there",
        |c, v| {
            put(
                &mut c.bind_address,
                v.parse().map_err(|_| format!("{v} is no address")),
            )?;
            let (healthz, metrics) = default_addresses(c.bind_address);
            (c.healthz_bind_address, c.metrics_bind_address) = (Some(healthz), Some(metrics));
            Ok(())
        },
    ),
    flag(
        "bind-address-hard-fail",
        "",
        "End when a port for health or metrics cannot be had, instead of trying again",
        |c, v| put(&mut c.bind_address_hard_fail, boolean(v)),
    ),
    flag(
        "boot-id-file",
        "FILE",
        "Has no effect: nobody asks for it",
        dead,
    ),
    flag(
        "cluster-cidr",
        "CIDR,…",
        "Ranges of all pods, one of each family, for --detect-local-mode ClusterCIDR",
        |c, v| put(&mut c.cluster_cidr, cluster_cidr(v)),
    ),
    flag(
        "config-sync-period",
        "DURATION",
        "Has no effect: what is watched needs no refreshing",
        |c, v| put(&mut c.config_sync_period, duration(v).and_then(positive)),
    ),
    flag(
        "conntrack-max-per-core",
        "COUNT",
        "Connections tracked for each processor; 0 leaves the limit [default: 32768]",
        |c, v| put(&mut c.conntrack.max_per_core, count(v)),
    ),
    flag(
        "conntrack-min",
        "COUNT",
        "Connections tracked at least, whatever the processors [default: 131072]",
        |c, v| put(&mut c.conntrack.min, count(v)),
    ),
    flag(
        "conntrack-tcp-be-liberal",
        "",
        "Track TCP packets that are out of their window as well",
        |c, v| put(&mut c.conntrack.tcp_be_liberal, boolean(v)),
    ),
    flag(
        "conntrack-tcp-timeout-close-wait",
        "DURATION",
        "Of TCP connections in CLOSE_WAIT; 0 leaves it [default: 1h]",
        |c, v| put(&mut c.conntrack.tcp_close_wait_timeout, duration(v)),
    ),
    flag(
        "conntrack-tcp-timeout-established",
        "DURATION",
        "Of established TCP connections; 0 leaves it [default: 24h]",
        |c, v| put(&mut c.conntrack.tcp_established_timeout, duration(v)),
    ),
    flag(
        "conntrack-udp-timeout",
        "DURATION",
        "Of UDP flows without an answer; 0 leaves it [default: 0]",
        |c, v| put(&mut c.conntrack.udp_timeout, duration(v)),
    ),
    flag(
        "conntrack-udp-timeout-stream",
        "DURATION",
        "Of UDP flows with an answer; 0 leaves it [default: 0]",
        |c, v| put(&mut c.conntrack.udp_stream_timeout, duration(v)),
    ),
    flag(
        "detect-local-mode",
        "MODE",
        "How traffic of pods is recognised: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix [default: ClusterCIDR]",
        |c, v| {
            c.detect_local_mode = v.into();
            Ok(())
        },
    ),
    flag(
        "feature-gates",
        "NAME=true,…",
        "Gates of kube-proxy; none has a meaning here",
        |c, v| {
            for gate in v.split(',').filter(|gate| !gate.trim().is_empty()) {
                let (name, value) = gate
                    .split_once('=')
                    .ok_or_else(|| format!("{gate} is not NAME=true or NAME=false"))?;
                c.feature_gates
                    .insert(name.trim().into(), boolean(value.trim())?);
            }
            Ok(())
        },
    ),
    flag(
        "healthz-bind-address",
        "IP:PORT",
        "Where /healthz and /livez are served; empty for nowhere [default: 0.0.0.0:10256]",
        |c, v| put(&mut c.healthz_bind_address, bind_address(v, HEALTHZ_PORT)),
    ),
    flag(
        "healthz-port",
        "PORT",
        "Deprecated: the port of --healthz-bind-address, 0 for nowhere",
        |c, v| port(&mut c.healthz_bind_address, v),
    ),
    always(
        "hostname-override",
        "NAME",
        "Name of this node [default: $NODE_NAME, or the host name]",
        |c, v| {
            c.hostname_override = v.into();
            Ok(())
        },
    ),
    flag(
        "iptables-localhost-nodeports",
        "",
        "Mode iptables: NodePorts answer on 127.0.0.0/8 too [default: true]",
        |c, v| put(&mut c.iptables.localhost_node_ports, boolean(v)),
    ),
    flag(
        "iptables-masquerade-bit",
        "BIT",
        "Modes iptables, ipvs: the bit of the packet mark that asks for masquerade [default: 14]",
        |c, v| put(&mut c.iptables.masquerade_bit, whole(v, 0, 31)),
    ),
    flag(
        "iptables-min-sync-period",
        "DURATION",
        "Mode iptables: time between two changes of the rules [default: 10ms]",
        |c, v| put(&mut c.iptables.min_sync_period, duration(v)),
    ),
    flag(
        "iptables-sync-period",
        "DURATION",
        "Mode iptables: time after which it is looked whether the rules still stand [default: 30s]",
        |c, v| put(&mut c.iptables.sync_period, duration(v).and_then(positive)),
    ),
    flag(
        "ipvs-exclude-cidrs",
        "CIDR,…",
        "Mode ipvs: virtual servers in these ranges are somebody else's",
        |c, v| {
            for range in v.split(',').filter(|range| !range.is_empty()) {
                let _: IpNet = range
                    .parse()
                    .map_err(|_| format!("{range} is no range such as 10.0.0.0/8"))?;
                c.ipvs.exclude_cidrs.push(range.into());
            }
            Ok(())
        },
    ),
    flag(
        "ipvs-min-sync-period",
        "DURATION",
        "Mode ipvs: time between two changes [default: 10ms]",
        |c, v| put(&mut c.ipvs.min_sync_period, duration(v)),
    ),
    flag(
        "ipvs-scheduler",
        "NAME",
        "Mode ipvs: the kernel's scheduler [default: rr]",
        |c, v| {
            c.ipvs.scheduler = v.into();
            Ok(())
        },
    ),
    flag(
        "ipvs-strict-arp",
        "",
        "Mode ipvs: answer ARP only for addresses of the interface that is asked",
        |c, v| put(&mut c.ipvs.strict_arp, boolean(v)),
    ),
    flag(
        "ipvs-sync-period",
        "DURATION",
        "Mode ipvs: time after which it is looked whether everything still stands [default: 30s]",
        |c, v| put(&mut c.ipvs.sync_period, duration(v).and_then(positive)),
    ),
    flag(
        "ipvs-tcp-timeout",
        "DURATION",
        "Mode ipvs: of idle TCP connections; 0 leaves it",
        |c, v| put(&mut c.ipvs.tcp_timeout, duration(v)),
    ),
    flag(
        "ipvs-tcpfin-timeout",
        "DURATION",
        "Mode ipvs: of TCP connections after a FIN; 0 leaves it",
        |c, v| put(&mut c.ipvs.tcp_fin_timeout, duration(v)),
    ),
    flag(
        "ipvs-udp-timeout",
        "DURATION",
        "Mode ipvs: of UDP flows; 0 leaves it",
        |c, v| put(&mut c.ipvs.udp_timeout, duration(v)),
    ),
    flag(
        "kube-api-burst",
        "COUNT",
        "Has no effect: requests to the API are few",
        |c, v| put(&mut c.client_connection.burst, whole(v, 0, i32::MAX)),
    ),
    flag(
        "kube-api-content-type",
        "TYPE",
        "Has no effect: objects are read as JSON",
        |c, v| {
            c.client_connection.content_type = v.into();
            Ok(())
        },
    ),
    flag(
        "kube-api-qps",
        "RATE",
        "Has no effect: requests to the API are few",
        |c, v| {
            put(
                &mut c.client_connection.qps,
                v.parse().map_err(|_| format!("{v} is no number")),
            )
        },
    ),
    flag(
        "kubeconfig",
        "FILE",
        "Kubeconfig file [default: $KUBECONFIG, ~/.kube/config, or in-cluster]",
        |c, v| {
            c.client_connection.kubeconfig = v.into();
            Ok(())
        },
    ),
    always(
        "log-flush-frequency",
        "DURATION",
        "Has no effect: nothing is held back",
        |c, v| put(&mut c.logging.flush_frequency, duration(v)),
    ),
    always(
        "log-json-info-buffer-size",
        "BYTES",
        "Has no effect: nothing is held back",
        dead,
    ),
    always(
        "log-json-split-stream",
        "",
        "Has no effect: all goes to standard error",
        dead,
    ),
    always(
        "log-text-info-buffer-size",
        "BYTES",
        "Has no effect: nothing is held back",
        dead,
    ),
    always(
        "log-text-split-stream",
        "",
        "Has no effect: all goes to standard error",
        dead,
    ),
    always(
        "logging-format",
        "FORMAT",
        "text or json [default: text]",
        |c, v| match v {
            "text" | "json" => {
                c.logging.format = v.into();
                Ok(())
            }
            _ => Err(format!("{v} is neither text nor json")),
        },
    ),
    flag(
        "machine-id-file",
        "FILE",
        "Has no effect: nobody asks for it",
        dead,
    ),
    flag(
        "masquerade-all",
        "",
        "Masquerade everything that goes to a ClusterIP, in every mode",
        |c, v| {
            let all = boolean(v)?;
            (c.iptables.masquerade_all, c.nftables.masquerade_all) = (all, all);
            Ok(())
        },
    ),
    flag(
        "metrics-bind-address",
        "IP:PORT",
        "Where /metrics and more is served; empty for nowhere [default: 127.0.0.1:10249]",
        |c, v| put(&mut c.metrics_bind_address, bind_address(v, METRICS_PORT)),
    ),
    flag(
        "metrics-port",
        "PORT",
        "Deprecated: the port of --metrics-bind-address, 0 for nowhere",
        |c, v| port(&mut c.metrics_bind_address, v),
    ),
    flag(
        "nftables-masquerade-bit",
        "BIT",
        "Mode nftables: the bit of the packet mark that asks for masquerade [default: 14]",
        |c, v| put(&mut c.nftables.masquerade_bit, whole(v, 0, 31)),
    ),
    flag(
        "nftables-min-sync-period",
        "DURATION",
        "Modes nftables, ebpf, userspace: time between two changes of the rules [default: 10ms]",
        |c, v| put(&mut c.nftables.min_sync_period, duration(v)),
    ),
    flag(
        "nftables-sync-period",
        "DURATION",
        "Modes nftables, ebpf, userspace: time after which it is looked whether the rules still stand [default: 30s]",
        |c, v| put(&mut c.nftables.sync_period, duration(v).and_then(positive)),
    ),
    flag(
        "nodeport-addresses",
        "CIDR,…",
        "Addresses on which NodePorts answer: primary, all, and ranges, together [default: primary]",
        |c, v| {
            for place in v
                .split(',')
                .map(str::trim)
                .filter(|place| !place.is_empty())
            {
                node_port_place(place)?;
                c.node_port_addresses.push(place.into());
            }
            Ok(())
        },
    ),
    flag(
        "oom-score-adj",
        "SCORE",
        "How little the kernel likes to end this process when memory is short [default: -999]",
        |c, v| put(&mut c.oom_score_adj, whole(v, -1000, 1000)),
    ),
    flag(
        "pod-bridge-interface",
        "NAME",
        "The bridge of the pods, for BridgeInterface",
        |c, v| {
            c.detect_local.bridge_interface = v.into();
            Ok(())
        },
    ),
    flag(
        "pod-interface-name-prefix",
        "PREFIX",
        "How names of pod interfaces start, for InterfaceNamePrefix",
        |c, v| {
            c.detect_local.interface_name_prefix = v.into();
            Ok(())
        },
    ),
    flag(
        "profiling",
        "",
        "Has no effect: there is no pprof here",
        |c, v| put(&mut c.enable_profiling, boolean(v)),
    ),
    flag(
        "proxy-mode",
        "MODE",
        "How Services are programmed [default: nftables]",
        |c, v| {
            if !v.is_empty() {
                c.mode = v.into();
            }
            Ok(())
        },
    ),
    flag(
        "proxy-port-range",
        "RANGE",
        "Has no effect, as in kube-proxy since 1.26",
        |c, v| {
            c.port_range = v.into();
            Ok(())
        },
    ),
    flag(
        "show-hidden-metrics-for-version",
        "VERSION",
        "Has no effect: no metric is hidden",
        |c, v| {
            c.show_hidden_metrics_for_version = v.into();
            Ok(())
        },
    ),
    always(
        "v",
        "LEVEL",
        "How much is logged: 0 to 3 what is worth knowing, 4 and 5 more, from 6 on all; $RUST_LOG goes first [default: 0]",
        |c, v| put(&mut c.logging.verbosity, whole(v, 0, u32::MAX)),
    ),
    always(
        "vmodule",
        "PATTERN=N,…",
        "Has no effect: $RUST_LOG says what single modules log",
        dead,
    ),
    flag(
        "windows-service",
        "",
        "Has no effect: this is Linux",
        |c, v| put(&mut c.windows_run_as_service, boolean(v)),
    ),
];

fn put<T>(into: &mut T, value: Result<T, String>) -> Result<(), String> {
    *into = value?;
    Ok(())
}

/// What has no field either.
pub(super) fn dead(_: &mut Config, _: &str) -> Result<(), String> {
    Ok(())
}

fn count(text: &str) -> Result<u32, String> {
    whole(text, 0, i32::MAX as u32)
}

fn positive(duration: Duration) -> Result<Duration, String> {
    match duration.is_zero() {
        true => Err("must be more than 0".into()),
        false => Ok(duration),
    }
}

fn port(address: &mut Option<SocketAddr>, text: &str) -> Result<(), String> {
    match whole(text, 0, u16::MAX)? {
        0 => *address = None,
        port => address
            .iter_mut()
            .for_each(|address| address.set_port(port)),
    }
    Ok(())
}
