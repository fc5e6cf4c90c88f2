//! Files as people have them, and what is said about their mistakes.

use super::decode::Decoded;
use super::*;

/// What kubeadm puts into the ConfigMap kube-proxy: every field, most of them empty.
const KUBEADM: &str = include_str!("tests/kubeadm.yaml");
/// What `kube-proxy --write-config-to` of 1.30.5 writes.
const WRITTEN: &str = include_str!("tests/kube-proxy-1.30.yaml");

fn read(text: &str) -> Decoded {
    decode(text).unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// With these lines below the heading, which has two.
fn file(lines: &str) -> String {
    format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{lines}")
}

fn remarks(all: &[Remark]) -> Vec<String> {
    all.iter().map(Remark::to_string).collect()
}

#[test]
fn what_kubeadm_writes_is_accepted() {
    let Decoded { config, warnings } = read(KUBEADM);
    assert_eq!(warnings, []);
    assert_eq!(notes(&config, "nftables"), Vec::<String>::new());
    let mut wanted = Config::default();
    wanted.client_connection.kubeconfig = "/var/lib/kube-proxy/kubeconfig.conf".into();
    wanted.cluster_cidr = vec!["10.244.0.0/16".parse().unwrap()];
    assert_eq!(config, wanted);
}

#[test]
fn what_kube_proxy_writes_is_accepted() {
    let Decoded { config, warnings } = read(WRITTEN);
    assert_eq!(warnings, []);
    let second = Duration::from_secs(1);
    let mut wanted = Config {
        mode: "iptables".into(),
        ..Config::default()
    };
    wanted.iptables.min_sync_period = second;
    wanted.nftables.min_sync_period = second;
    assert_eq!(config, wanted);
    let told = notes(&config, "iptables");
    let words = ["iptables.localhostNodePorts", "nftables.minSyncPeriod"];
    assert!(
        told.iter()
            .zip(words)
            .all(|(note, word)| note.starts_with(word)),
        "{told:?}"
    );
    assert_eq!(told.len(), words.len());
}

/// Nothing as it is by default.
fn other() -> Config {
    let mut config = read(&file(include_str!("tests/other.yaml"))).config;
    config.healthz_bind_address = "[::1]:1".parse().ok();
    config
}

#[test]
fn what_is_written_is_read_again() {
    let other = other();
    let standard = serde_json::to_value(Config::default()).unwrap();
    let mut same = Vec::new();
    alike(
        "",
        &standard,
        &serde_json::to_value(&other).unwrap(),
        &mut same,
    );
    assert_eq!(
        same,
        ["apiVersion", "kind"],
        "the test has to change all others"
    );
    for config in [Config::default(), other] {
        let text = serde_norway::to_string(&config).unwrap();
        let again = read(&text);
        assert_eq!(again.warnings, [], "{text}");
        assert_eq!(again.config, config, "{text}");
    }
}

/// The fields that have the same value in both.
fn alike(path: &str, a: &serde_json::Value, b: &serde_json::Value, found: &mut Vec<String>) {
    if let (Some(a), Some(b)) = (a.as_object(), b.as_object()) {
        for (name, value) in a {
            let path = format!("{path}.{name}");
            alike(path.trim_start_matches('.'), value, &b[name], found);
        }
    } else if a == b {
        found.push(path.into());
    }
}

#[test]
fn fields_and_order_are_kube_proxys() {
    let ours = serde_norway::to_string(&Config::default()).unwrap();
    let names = |text: &str| -> Vec<String> {
        let names = text.lines().filter_map(|line| line.split_once(':'));
        names.map(|(name, _)| name.to_owned()).collect()
    };
    let mut wanted = names(WRITTEN);
    // Buffers of klog, which are read but not kept.
    let buffers = ["  options", "    json", "    text", "      infoBufferSize"];
    wanted.retain(|name| !buffers.contains(&name.as_str()));
    assert_eq!(names(&ours), wanted);
}

#[test]
fn every_mistake_is_told_with_its_line_and_field() {
    let text = file(
        "bindAddress: node1\nclusterCIDR: 10.0.0.0/8,10.1.0.0/16\nconntrack:\n  maxPerCore: -1\n  tcpCloseWaitTimeout: 1d\n  udpTimeout: 9999999h\n  tcpBeLiberal: \"true\"\ndetectLocalMode: Magic\nfeatureGates:\n  A: 3\nhealthzBindAddress: somewhere\niptables: 5\nipvs:\n  syncPeriod: 1s\n  minSyncPeriod: 2s\n  excludeCIDRs: [10.0.0.0/8, here]\n  strictARP: maybe\nmode: magic\nnodePortAddresses: 10.0.0.0/8\noomScoreAdj: 1001\nlogging:\n  format: xml\n  flushFrequency: soon\n",
    );
    let errors = remarks(&decode(&text).unwrap_err());
    let wanted = [
        "line 3: bindAddress: node1 is no address",
        "line 13: healthzBindAddress: somewhere is no address with a port, such as 0.0.0.0:10256",
        "line 4: clusterCIDR: 10.0.0.0/8,10.1.0.0/16 is neither one range nor one of each family (10.244.0.0/16,fd00:10:244::/56)",
        "line 6: conntrack.maxPerCore: -1 is no whole number from 0 to 2147483647",
        "line 9: conntrack.tcpBeLiberal: is the text \"true\"; write it without quotes",
        "line 7: conntrack.tcpCloseWaitTimeout: 1d is no duration such as 30s or 10ms",
        "line 8: conntrack.udpTimeout: 9999999h is longer than the kernel's timeouts",
        "line 10: detectLocalMode: Magic is none of ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix",
        "line 12: featureGates.A: 3 is neither true nor false",
        "line 14: iptables: has to be a map (name: value)",
        "line 18: ipvs.excludeCIDRs[1]: here is no range such as 10.0.0.0/8",
        "line 19: ipvs.strictARP: maybe is neither true nor false",
        "line 16: ipvs.syncPeriod: 1s is shorter than minSyncPeriod 2s",
        "line 25: logging.flushFrequency: soon is no duration such as 30s or 10ms",
        "line 24: logging.format: xml is none of text, json",
        "line 20: mode: magic is none of iptables, ipvs, nftables, userspace, ebpf, loopback",
        "line 21: nodePortAddresses: has to be a list (- value)",
        "line 22: oomScoreAdj: 1001 is no whole number from -1000 to 1000",
    ];
    assert_eq!(errors, wanted);
}

#[test]
fn what_is_unknown_or_twice_is_told_and_does_not_hurt() {
    let text = file(
        "mode: nftables\nmagic: 1\nipvs:\n  strictArp: true\n  scheduler: wrr\n  scheduler: lc\nlogging:\n  options:\n    text:\n      splitStream: true\n  vmodule:\n  - filePattern: a\n    verbosity: 4\n",
    );
    let Decoded { config, warnings } = read(&text);
    assert_eq!(
        remarks(&warnings),
        [
            "line 8: ipvs.scheduler: comes twice; the last one counts",
            "line 6: ipvs.strictArp: is unknown and has no effect",
            "line 4: magic: is unknown and has no effect",
        ]
    );
    assert_eq!(config.ipvs.scheduler, "lc");
    assert_eq!(
        config.logging.dead,
        ["logging.options.text", "logging.vmodule"]
    );
}

#[test]
fn other_documents_are_refused() {
    for (text, words) in [
        ("", "is empty"),
        ("# only words\n", "is empty"),
        (
            "{}",
            "understood is kubeproxy.config.k8s.io/v1alpha1 KubeProxyConfiguration",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\n",
            "is \"v1\" \"ConfigMap\"",
        ),
        ("- a\n", "has to be a map"),
        ("a: ]", "no YAML"),
    ] {
        let errors = decode(text).unwrap_err();
        let said = remarks(&errors).join("\n");
        assert!(
            said.contains(words) && said.starts_with("line 1"),
            "{text}: {said}"
        );
    }
}

#[test]
fn addresses_follow_the_family_of_the_bind_address() {
    let at = |lines: &str| {
        let config = read(&file(lines)).config;
        let text = |at: Option<SocketAddr>| at.map(|at| at.to_string()).unwrap_or_default();
        (
            text(config.healthz_bind_address),
            text(config.metrics_bind_address),
        )
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(at(""), pair("0.0.0.0:10256", "127.0.0.1:10249"));
    assert_eq!(at("bindAddress: '::'\n"), pair("[::]:10256", "[::1]:10249"));
    let given = "healthzBindAddress: 127.0.0.1\nmetricsBindAddress: 0.0.0.0:9\n";
    assert_eq!(at(given), pair("127.0.0.1:10256", "0.0.0.0:9"));
}

#[test]
fn each_option_without_a_meaning_is_told() {
    let other = other();
    let told = |mode: &str| notes(&other, mode);
    let names = |mode: &str| -> Vec<String> {
        let name = |note: &String| note.split(' ').next().unwrap_or_default().to_owned();
        told(mode).iter().map(name).collect()
    };
    let everywhere: Vec<String> = names("nothing");
    assert_eq!(everywhere.len(), 18 + 13, "{everywhere:#?}");
    let gone = |mode: &str| everywhere.len() - names(mode).len();
    assert_eq!(
        (gone("iptables"), gone("ipvs"), gone("nftables")),
        (3, 8, 2)
    );
    assert!(told("nftables").contains(
        &"ipvs.scheduler (--ipvs-scheduler) has no effect in mode nftables, only in ipvs".into()
    ));
}
