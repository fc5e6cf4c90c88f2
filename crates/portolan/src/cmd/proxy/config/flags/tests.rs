//! kube-proxy's command lines.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    given: Given,
}

fn given(line: &str) -> Given {
    let words = ["proxy"].into_iter().chain(line.split_whitespace());
    Line::try_parse_from(words)
        .unwrap_or_else(|error| panic!("{error}"))
        .given
}

fn config(line: &str) -> Config {
    given(line).config().unwrap()
}

#[test]
fn nothing_given_changes_nothing() {
    assert_eq!(config(""), Config::default());
}

/// `kube-proxy --help` of 1.30.5 and of 1.37 list these; the help of clap and `--version` are not among them.
#[test]
fn every_flag_of_kube_proxy_is_known() {
    let help = include_str!("tests/flags.txt");
    for name in help.lines() {
        let ours = FLAGS.iter().any(|flag| flag.name == name);
        let others = [
            "cleanup",
            "config",
            "init-only",
            "master",
            "write-config-to",
        ];
        assert!(ours || others.contains(&name), "--{name} is unknown");
    }
}

#[test]
fn flags_say_what_the_file_says() {
    let line = "--cluster-cidr=10.0.0.0/8,fd00:10::/32 --conntrack-min 5 --conntrack-tcp-timeout-close-wait 0 \
        --healthz-bind-address= --metrics-bind-address 0.0.0.0 --iptables-localhost-nodeports=false --ipvs-strict-arp \
        --ipvs-exclude-cidrs 10.0.0.0/8 --ipvs-exclude-cidrs 10.1.0.0/16,10.2.0.0/16 --masquerade-all \
        --nodeport-addresses primary,192.168.0.0/24 --oom-score-adj -5 --proxy-mode ipvs --ipvs-scheduler lc \
        --sync-period 1m30s --feature-gates A=true,B=false --node-name n1 -v 4 --logging-format json";
    let mut wanted = Config {
        cluster_cidr: vec![
            "10.0.0.0/8".parse().unwrap(),
            "fd00:10::/32".parse().unwrap(),
        ],
        healthz_bind_address: None,
        metrics_bind_address: "0.0.0.0:10249".parse().ok(),
        node_port_addresses: vec!["primary".into(), "192.168.0.0/24".into()],
        oom_score_adj: -5,
        mode: "ipvs".into(),
        feature_gates: [("A".into(), true), ("B".into(), false)].into(),
        hostname_override: "n1".into(),
        ..Config::default()
    };
    wanted.conntrack.min = 5;
    wanted.conntrack.tcp_close_wait_timeout = Duration::ZERO;
    wanted.iptables.localhost_node_ports = false;
    (
        wanted.iptables.masquerade_all,
        wanted.nftables.masquerade_all,
    ) = (true, true);
    wanted.ipvs.strict_arp = true;
    wanted.ipvs.scheduler = "lc".into();
    wanted.ipvs.exclude_cidrs = ["10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16"]
        .map(String::from)
        .into();
    wanted.nftables.sync_period = Duration::from_secs(90);
    (wanted.logging.verbosity, wanted.logging.format) = (4, "json".into());
    assert_eq!(config(line), wanted);
}

#[test]
fn families_of_ports_follow_the_bind_address_and_old_ports_still_count() {
    let ports = |line: &str| {
        let config = config(line);
        let text = |at: Option<std::net::SocketAddr>| at.map(|at| at.to_string());
        (
            text(config.healthz_bind_address),
            text(config.metrics_bind_address),
        )
    };
    let some = |text: &str| Some(text.to_owned());
    let line = "--metrics-bind-address [::1]:5 --bind-address ::";
    assert_eq!(ports(line), (some("[::]:10256"), some("[::1]:5")));
    let line = "--healthz-port 0 --metrics-port 7";
    assert_eq!(ports(line), (None, some("127.0.0.1:7")));
}

#[test]
fn a_file_goes_before_flags_but_for_those_of_this_process() {
    let mut config = Config {
        mode: "iptables".into(),
        ..Config::default()
    };
    let given = given("--proxy-mode ipvs --v=6 --hostname-override n1 --cluster-cidr 10.0.0.0/8");
    let ignored = given.over(&mut config).unwrap();
    assert_eq!(ignored, ["cluster-cidr", "proxy-mode"]);
    assert_eq!(
        (config.mode.as_str(), config.hostname_override.as_str()),
        ("iptables", "n1")
    );
    assert_eq!(config.logging.verbosity, 6);
    assert_eq!(config.cluster_cidr, []);
}

#[test]
fn flags_that_are_only_accepted_are_named() {
    let given = given("--vmodule=a=4 --boot-id-file /a,/b --log-text-split-stream -v 1");
    assert_eq!(given.config().unwrap().logging.verbosity, 1);
    assert_eq!(
        given.dead(),
        ["boot-id-file", "log-text-split-stream", "vmodule"]
    );
}

#[test]
fn what_cannot_be_is_said_with_the_flag() {
    for (line, words) in [
        (
            "--sync-period 5",
            "--nftables-sync-period: 5 is no duration",
        ),
        ("--sync-period 0s", "must be more than 0"),
        (
            "--iptables-min-sync-period 31s",
            "--iptables-sync-period 30s is shorter than minSyncPeriod 31s",
        ),
        (
            "--nodeport-addresses x",
            "--nodeport-addresses: x is none of primary",
        ),
        ("--bind-address x", "no address"),
        ("--feature-gates x", "not NAME=true"),
        ("--oom-score-adj 1001", "-1000 to 1000"),
        ("--ipvs-exclude-cidrs x", "no range"),
        ("--profiling=maybe", "neither true nor false"),
        ("--logging-format xml", "neither text nor json"),
    ] {
        let error = given(line).config().unwrap_err();
        assert!(error.contains(words), "{line}: {error}");
    }
}
