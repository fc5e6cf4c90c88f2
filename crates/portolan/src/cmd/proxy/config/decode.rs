//! The document becomes a [`Config`]: every field of v1alpha1, with kube-proxy's defaults for what is empty.

use std::time::Duration;

use super::document::{self, Value};
use super::reader::{Reader, Said, whole};
use super::text;
use super::{
    API_VERSION, Config, Conntrack, HEALTHZ_PORT, Iptables, Ipvs, KIND, Logging, METRICS_PORT,
    Nftables, Remark, default_addresses,
};

/// A configuration, and what of its text has no effect.
#[derive(Debug)]
pub(in crate::cmd::proxy) struct Decoded {
    pub(in crate::cmd::proxy) config: Config,
    pub(in crate::cmd::proxy) warnings: Vec<Remark>,
}

/// Modes that a file may name; kube-proxy's on Linux and ours.
const MODES: [&str; 6] = [
    "iptables",
    "ipvs",
    "nftables",
    "userspace",
    "ebpf",
    "loopback",
];
const LOCAL_MODES: [&str; 4] = [
    "ClusterCIDR",
    "NodeCIDR",
    "BridgeInterface",
    "InterfaceNamePrefix",
];
/// The kernel keeps timeouts in 32 bits with a sign: 68 years. What is longer is refused.
const SECONDS_MAX: Duration = Duration::from_secs(i32::MAX as u64);

/// Reads a file; the errors are all that it has.
pub(in crate::cmd::proxy) fn decode(text: &str) -> Result<Decoded, Vec<Remark>> {
    let root = document::parse(text).map_err(|error| vec![error])?;
    let Some(root) = root.filter(|root| root.value != Value::Null) else {
        let words = format!("is empty; it has to begin with apiVersion: {API_VERSION}");
        return Err(vec![Remark::new(1, "", words)]);
    };
    let mut said = Said::default();
    let mut reader = Reader::new("", &root, &mut said);
    let (mut version, mut kind) = (String::new(), String::new());
    reader.string("apiVersion", &mut version);
    reader.string("kind", &mut kind);
    if (version.as_str(), kind.as_str()) != (API_VERSION, KIND) {
        let words = format!("is {version:?} {kind:?}; understood is {API_VERSION} {KIND}");
        reader.refuse_here("apiVersion", words);
        return Err(said.errors);
    }
    let mut config = Config::default();
    read(&mut reader, &mut config);
    reader.end();
    let Said { errors, warnings } = said;
    match errors.is_empty() {
        true => Ok(Decoded { config, warnings }),
        false => Err(errors),
    }
}

fn read(reader: &mut Reader<'_, '_>, config: &mut Config) {
    reader.text("bindAddress", &mut config.bind_address, |text| {
        text.parse().map_err(|_| format!("{text} is no address"))
    });
    let (healthz, metrics) = default_addresses(config.bind_address);
    config.healthz_bind_address = Some(healthz);
    config.metrics_bind_address = Some(metrics);
    let at = |port| move |text: &str| text::bind_address(text, port);
    let healthz = &mut config.healthz_bind_address;
    reader.text("healthzBindAddress", healthz, at(HEALTHZ_PORT));
    let metrics = &mut config.metrics_bind_address;
    reader.text("metricsBindAddress", metrics, at(METRICS_PORT));
    reader.boolean("bindAddressHardFail", &mut config.bind_address_hard_fail);
    reader.section("clientConnection", |reader| {
        let client = &mut config.client_connection;
        reader.string("acceptContentTypes", &mut client.accept_content_types);
        reader.string("contentType", &mut client.content_type);
        reader.string("kubeconfig", &mut client.kubeconfig);
        let (mut burst, mut qps) = (0, 0.0);
        reader.number("burst", &mut burst, 0, i32::MAX);
        reader.fraction("qps", &mut qps);
        if burst != 0 {
            client.burst = burst;
        }
        if qps != 0.0 {
            client.qps = qps;
        }
    });
    reader.text("clusterCIDR", &mut config.cluster_cidr, text::cluster_cidr);
    reader.period("configSyncPeriod", &mut config.config_sync_period);
    reader.section("conntrack", |reader| {
        conntrack(reader, &mut config.conntrack)
    });
    let mode = &mut config.detect_local_mode;
    reader.text("detectLocalMode", mode, |text| one_of(text, &LOCAL_MODES));
    reader.section("detectLocal", |reader| {
        let local = &mut config.detect_local;
        reader.string("bridgeInterface", &mut local.bridge_interface);
        reader.string("interfaceNamePrefix", &mut local.interface_name_prefix);
    });
    reader.boolean("enableProfiling", &mut config.enable_profiling);
    reader.section("featureGates", |reader| {
        reader.truths(&mut config.feature_gates)
    });
    reader.string("hostnameOverride", &mut config.hostname_override);
    reader.section("iptables", |reader| iptables(reader, &mut config.iptables));
    reader.section("ipvs", |reader| ipvs(reader, &mut config.ipvs));
    reader.section("logging", |reader| logging(reader, &mut config.logging));
    reader.text("mode", &mut config.mode, |text| one_of(text, &MODES));
    reader.section("nftables", |reader| nftables(reader, &mut config.nftables));
    let addresses = &mut config.node_port_addresses;
    reader.list("nodePortAddresses", addresses, super::file::node_port_place);
    reader.number("oomScoreAdj", &mut config.oom_score_adj, -1000, 1000);
    reader.string("portRange", &mut config.port_range);
    let version = &mut config.show_hidden_metrics_for_version;
    reader.string("showHiddenMetricsForVersion", version);
    reader.boolean("windowsRunAsService", &mut config.windows_run_as_service);
    reader.section("winkernel", |reader| {
        let windows = &mut config.winkernel;
        reader.boolean("enableDSR", &mut windows.enable_dsr);
        let forward = &mut windows.forward_health_check_vip;
        reader.boolean("forwardHealthCheckVip", forward);
        reader.string("networkName", &mut windows.network_name);
        reader.string("rootHnsEndpointName", &mut windows.root_hns_endpoint_name);
        reader.string("sourceVip", &mut windows.source_vip);
    });
}

fn conntrack(reader: &mut Reader<'_, '_>, into: &mut Conntrack) {
    /// The kernel keeps the limit in 32 bits with a sign. What is more is refused.
    const COUNT_MAX: u32 = i32::MAX as u32;
    reader.number("maxPerCore", &mut into.max_per_core, 0, COUNT_MAX);
    reader.number("min", &mut into.min, 0, COUNT_MAX);
    reader.boolean("tcpBeLiberal", &mut into.tcp_be_liberal);
    for (name, timeout) in [
        ("tcpCloseWaitTimeout", &mut into.tcp_close_wait_timeout),
        ("tcpEstablishedTimeout", &mut into.tcp_established_timeout),
        ("udpStreamTimeout", &mut into.udp_stream_timeout),
        ("udpTimeout", &mut into.udp_timeout),
    ] {
        kernel_timeout(reader, name, timeout);
    }
}

/// The kernel counts in whole seconds, up to [`SECONDS_MAX`].
fn kernel_timeout(reader: &mut Reader<'_, '_>, name: &str, into: &mut Duration) {
    reader.text(name, into, |text| {
        let given = text::duration(text)?;
        match given <= SECONDS_MAX {
            true => Ok(given),
            false => Err(format!("{text} is longer than the kernel's timeouts")),
        }
    });
}

fn iptables(reader: &mut Reader<'_, '_>, into: &mut Iptables) {
    reader.boolean("localhostNodePorts", &mut into.localhost_node_ports);
    reader.boolean("masqueradeAll", &mut into.masquerade_all);
    reader.number("masqueradeBit", &mut into.masquerade_bit, 0, 31);
    periods(reader, &mut into.min_sync_period, &mut into.sync_period);
}

fn ipvs(reader: &mut Reader<'_, '_>, into: &mut Ipvs) {
    reader.list("excludeCIDRs", &mut into.exclude_cidrs, |text| {
        let range: Result<ipnet::IpNet, _> = text.parse();
        let wrong = |_| format!("{text} is no range such as 10.0.0.0/8");
        range.map(drop).map_err(wrong)
    });
    reader.string("scheduler", &mut into.scheduler);
    reader.boolean("strictARP", &mut into.strict_arp);
    kernel_timeout(reader, "tcpFinTimeout", &mut into.tcp_fin_timeout);
    kernel_timeout(reader, "tcpTimeout", &mut into.tcp_timeout);
    kernel_timeout(reader, "udpTimeout", &mut into.udp_timeout);
    periods(reader, &mut into.min_sync_period, &mut into.sync_period);
}

fn nftables(reader: &mut Reader<'_, '_>, into: &mut Nftables) {
    reader.boolean("masqueradeAll", &mut into.masquerade_all);
    reader.number("masqueradeBit", &mut into.masquerade_bit, 0, 31);
    periods(reader, &mut into.min_sync_period, &mut into.sync_period);
}

fn periods(reader: &mut Reader<'_, '_>, min: &mut Duration, max: &mut Duration) {
    reader.period("minSyncPeriod", min);
    reader.period("syncPeriod", max);
    if let Err(words) = super::flags::in_order(*min, *max) {
        reader.refuse_here("syncPeriod", words);
    }
}

fn logging(reader: &mut Reader<'_, '_>, into: &mut Logging) {
    reader.text("flushFrequency", &mut into.flush_frequency, |text| {
        // A bare number counts nanoseconds; kubeadm writes 0.
        let nanoseconds = whole(text, 0, i64::MAX).map(|n| Duration::from_nanos(n as u64));
        nanoseconds.or_else(|_| text::duration(text))
    });
    if into.flush_frequency.is_zero() {
        into.flush_frequency = Logging::default().flush_frequency;
    }
    reader.text("format", &mut into.format, |text| {
        one_of(text, &["text", "json"])
    });
    reader.number("verbosity", &mut into.verbosity, 0, u32::MAX);
    reader.section("options", |reader| {
        for format in ["json", "text"] {
            reader.section(format, |reader| {
                let (mut split, mut buffer) = (false, "0".to_owned());
                reader.boolean("splitStream", &mut split);
                reader.string("infoBufferSize", &mut buffer);
                if split || buffer != "0" {
                    into.dead.push(format!("logging.options.{format}"));
                }
            });
        }
    });
    if reader.given("vmodule") {
        into.dead.push("logging.vmodule".into());
    }
}

fn one_of(text: &str, names: &[&str]) -> Result<String, String> {
    match names.contains(&text) {
        true => Ok(text.into()),
        false => Err(format!("{text} is none of {}", names.join(", "))),
    }
}
