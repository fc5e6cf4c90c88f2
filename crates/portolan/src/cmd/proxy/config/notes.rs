//! What of a configuration has no meaning in the chosen mode, or none at all: each is said once, at the start.

use super::Config;

/// Says what has no effect, a line each; nothing that is as kube-proxy's default, or kubeadm's empty file, has it.
pub(in crate::cmd::proxy) fn notes(config: &Config, mode: &str) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    let everywhere = dead(config).into_iter().filter(|(given, ..)| *given);
    notes.extend(everywhere.map(|(_, name, why)| format!("{name} has no effect: {why}")));
    let gates = config.feature_gates.keys();
    notes.extend(gates.map(|gate| {
        format!(
            "featureGates.{gate} (--feature-gates) has no effect: kube-proxy's gates have no meaning here"
        )
    }));
    let logging = config.logging.dead.iter();
    notes.extend(
        logging.map(|name| format!("{name} has no effect: log lines are not held back or split, and $RUST_LOG says what single modules log")),
    );
    if mode == "iptables" && config.iptables.localhost_node_ports {
        notes.push(
            "iptables.localhostNodePorts (--iptables-localhost-nodeports) has no effect: NodePorts do not answer on \
             loopback addresses; false says so"
                .into(),
        );
    }
    for (given, name, modes) in of_modes(config) {
        if given && !modes.contains(&mode) {
            let modes = modes.join(", ");
            notes.push(format!(
                "{name} has no effect in mode {mode}, only in {modes}"
            ));
        }
    }
    notes
}

/// Options that have no meaning in any mode: whether one is given, its names, the reason.
fn dead(config: &Config) -> Vec<(bool, &'static str, &'static str)> {
    let standard = Config::default();
    let (client, windows) = (&config.client_connection, &config.winkernel);
    let read = [
        "",
        "application/vnd.kubernetes.protobuf",
        "application/json",
    ];
    let requests = "requests to the API are few, and not limited";
    let linux = "this is Linux";
    vec![
        (
            client.burst != standard.client_connection.burst,
            "clientConnection.burst (--kube-api-burst)",
            requests,
        ),
        (
            client.qps != standard.client_connection.qps,
            "clientConnection.qps (--kube-api-qps)",
            requests,
        ),
        (
            !read.contains(&client.content_type.as_str()),
            "clientConnection.contentType (--kube-api-content-type)",
            "objects are read as JSON",
        ),
        (
            !read.contains(&client.accept_content_types.as_str()),
            "clientConnection.acceptContentTypes",
            "objects are read as JSON",
        ),
        (
            config.config_sync_period != standard.config_sync_period,
            "configSyncPeriod (--config-sync-period)",
            "what is watched needs no refreshing",
        ),
        (
            config.enable_profiling,
            "enableProfiling (--profiling)",
            "there is no pprof here; perf works on the process",
        ),
        (
            config.logging.flush_frequency != standard.logging.flush_frequency,
            "logging.flushFrequency (--log-flush-frequency)",
            "log lines are not held back",
        ),
        (
            config.nftables.masquerade_bit != standard.nftables.masquerade_bit,
            "nftables.masqueradeBit (--nftables-masquerade-bit)",
            "packets are marked with bit 14, and only until they leave the node",
        ),
        (
            !config.port_range.is_empty(),
            "portRange (--proxy-port-range)",
            "no port is opened for a Service, as in kube-proxy since 1.26",
        ),
        (
            !config.show_hidden_metrics_for_version.is_empty(),
            "showHiddenMetricsForVersion (--show-hidden-metrics-for-version)",
            "no metric is hidden",
        ),
        (
            config.windows_run_as_service,
            "windowsRunAsService (--windows-service)",
            linux,
        ),
        (windows.enable_dsr, "winkernel.enableDSR", linux),
        (
            windows.forward_health_check_vip,
            "winkernel.forwardHealthCheckVip",
            linux,
        ),
        (
            !windows.network_name.is_empty(),
            "winkernel.networkName",
            linux,
        ),
        (
            !windows.root_hns_endpoint_name.is_empty(),
            "winkernel.rootHnsEndpointName",
            linux,
        ),
        (!windows.source_vip.is_empty(), "winkernel.sourceVip", linux),
    ]
}

/// Options of single modes: whether one is given, its names, the modes in which it has a meaning.
fn of_modes(config: &Config) -> Vec<(bool, &'static str, &'static [&'static str])> {
    let standard = Config::default();
    let (iptables, ipvs, nftables) = (&config.iptables, &config.ipvs, &config.nftables);
    let zero = |duration: std::time::Duration| duration.is_zero();
    const IPTABLES: &[&str] = &["iptables"];
    const MARKED: &[&str] = &["iptables", "ipvs"];
    const IPVS: &[&str] = &["ipvs"];
    const OTHERS: &[&str] = &["nftables", "ebpf", "userspace", "loopback"];
    vec![
        (
            iptables.masquerade_all && !nftables.masquerade_all,
            "iptables.masqueradeAll",
            MARKED,
        ),
        (
            iptables.masquerade_bit != standard.iptables.masquerade_bit,
            "iptables.masqueradeBit (--iptables-masquerade-bit)",
            IPTABLES,
        ),
        (
            iptables.min_sync_period != standard.iptables.min_sync_period,
            "iptables.minSyncPeriod (--iptables-min-sync-period)",
            IPTABLES,
        ),
        (
            iptables.sync_period != standard.iptables.sync_period,
            "iptables.syncPeriod (--iptables-sync-period)",
            IPTABLES,
        ),
        (
            !ipvs.exclude_cidrs.is_empty(),
            "ipvs.excludeCIDRs (--ipvs-exclude-cidrs)",
            IPVS,
        ),
        (
            ipvs.min_sync_period != standard.ipvs.min_sync_period,
            "ipvs.minSyncPeriod (--ipvs-min-sync-period)",
            IPVS,
        ),
        (
            !ipvs.scheduler.is_empty(),
            "ipvs.scheduler (--ipvs-scheduler)",
            IPVS,
        ),
        (ipvs.strict_arp, "ipvs.strictARP (--ipvs-strict-arp)", IPVS),
        (
            ipvs.sync_period != standard.ipvs.sync_period,
            "ipvs.syncPeriod (--ipvs-sync-period)",
            IPVS,
        ),
        (
            !zero(ipvs.tcp_fin_timeout),
            "ipvs.tcpFinTimeout (--ipvs-tcpfin-timeout)",
            IPVS,
        ),
        (
            !zero(ipvs.tcp_timeout),
            "ipvs.tcpTimeout (--ipvs-tcp-timeout)",
            IPVS,
        ),
        (
            !zero(ipvs.udp_timeout),
            "ipvs.udpTimeout (--ipvs-udp-timeout)",
            IPVS,
        ),
        (
            nftables.masquerade_all && !iptables.masquerade_all,
            "nftables.masqueradeAll",
            OTHERS,
        ),
        (
            nftables.min_sync_period != standard.nftables.min_sync_period,
            "nftables.minSyncPeriod (--nftables-min-sync-period)",
            OTHERS,
        ),
        (
            nftables.sync_period != standard.nftables.sync_period,
            "nftables.syncPeriod (--nftables-sync-period)",
            OTHERS,
        ),
    ]
}
