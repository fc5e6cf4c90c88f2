//! The kubelet's rules for resolv.conf, held against cases/podresolv.json, and those for hosts and host names.

use std::collections::BTreeSet;

use super::*;
use serde_json::{Value, json};

/// The cases are limits, defaults and the names of the policies.
const CASES: &str = include_str!("../../../cases/podresolv.json");

const HOST: &str = "search example.org. local\nnameserver 192.0.2.1\noptions timeout:1\n";
const CLUSTER: &str = "search shop.svc.cluster.local svc.cluster.local cluster.local example.org local\n\
                       nameserver 172.30.0.10\noptions ndots:5\n";
const DEFAULT: &str = "search example.org local\nnameserver 192.0.2.1\noptions timeout:1\n";

fn cases() -> Value {
    serde_json::from_str(CASES).unwrap()
}

fn with_host(spec: Value, host: Option<&str>) -> ResolvConf {
    let mut spec = spec;
    spec["containers"] = json!([]);
    resolv_conf("shop", &serde_json::from_value(spec).unwrap(), host)
}

fn resolv(spec: Value) -> String {
    with_host(spec, Some(HOST)).text
}

/// The words of the line that begins so.
fn line<'a>(text: &'a str, keyword: &str) -> Vec<&'a str> {
    let mut lines = text.lines().map(str::split_whitespace);
    let found = lines.find(|words| words.clone().next() == Some(keyword));
    found.map_or(Vec::new(), |words| words.skip(1).collect())
}

fn pod(name: &str, spec: Value) -> Pod {
    let mut spec = spec;
    spec["containers"] = json!([]);
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec}))
        .unwrap()
}

#[test]
fn every_policy() {
    let table = [
        (json!({"dnsPolicy": "ClusterFirst"}), CLUSTER),
        (
            json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}),
            DEFAULT,
        ),
        (json!({"dnsPolicy": "ClusterFirstWithHostNet"}), CLUSTER),
        (
            json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}),
            CLUSTER,
        ),
        (json!({"dnsPolicy": "Default"}), DEFAULT),
        (
            json!({"dnsPolicy": "Default", "hostNetwork": true}),
            DEFAULT,
        ),
        (
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.7"]}}),
            "nameserver 192.0.2.7\n",
        ),
        (json!({}), CLUSTER),
    ];
    let mut seen = BTreeSet::new();
    for (spec, want) in table {
        assert_eq!(resolv(spec.clone()), want, "{spec}");
        seen.extend(spec["dnsPolicy"].as_str().map(str::to_string));
    }
    let all = cases()["policies"].as_object().unwrap().clone();
    assert_eq!(seen, all.keys().cloned().collect(), "policies of the cases");
}

#[test]
fn the_defaults_of_the_cases() {
    let (cases, text) = (cases(), resolv(json!({})));
    let words = |list: &Value| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        let list = list.map(|word| word.as_str().unwrap().replace("<ns>", "shop"));
        list.map(|word| word.replace("<domain>", "cluster.local"))
            .collect()
    };
    let search = words(&cases["defaults"]["search"]);
    assert_eq!(line(&text, "search")[..search.len()], search);
    assert_eq!(line(&text, "options"), words(&cases["defaults"]["options"]));
}

#[test]
fn the_limits_of_the_cases() {
    let limits = &cases()["limits"];
    let limit = |name: &str| usize::try_from(limits[name].as_u64().unwrap()).unwrap();
    let spec = |searches: Vec<String>, servers: Vec<String>| json!({"dnsPolicy": "None", "dnsConfig": {"searches": searches, "nameservers": servers}});
    let servers: Vec<_> = (1..=4).map(|i| format!("192.0.2.{i}")).collect();
    let got = with_host(spec(vec![], servers), None);
    let applied = "192.0.2.1 192.0.2.2 192.0.2.3";
    assert_eq!(got.text.lines().count(), limit("nameservers"));
    assert_eq!(
        got.left_out,
        [format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {applied}"
        )]
    );

    let paths = limit("search_paths");
    let searches: Vec<_> = (0..=paths).map(|i| format!("d{i}")).collect();
    let got = with_host(spec(searches.clone(), vec![]), None);
    assert_eq!(line(&got.text, "search"), searches[..paths]);
    assert!(
        got.left_out[0].starts_with("Search Line limits were exceeded, some search paths"),
        "{:?}",
        got.left_out
    );
    let got = with_host(spec(searches[..paths].to_vec(), vec![]), None);
    assert!(got.left_out.is_empty(), "{:?}", got.left_out);

    // Of 63 bytes each, with the spaces between them: as many as fit, and not one more.
    let bytes = limit("search_chars");
    let searches: Vec<_> = (10..42).map(|i| format!("{i}{}", "x".repeat(62))).collect();
    let got = with_host(spec(searches, vec![]), None);
    let left = line(&got.text, "search").join(" ").len();
    assert!(left <= bytes && left + 1 + 64 > bytes, "{left}");
    assert_eq!(got.left_out.len(), 1);

    let longest = "y".repeat(limit("single_search_max"));
    let searches = vec![format!("{longest}y"), longest.clone(), "end".into()];
    let got = with_host(spec(searches, vec![]), None);
    assert_eq!(line(&got.text, "search"), [longest.as_str(), "end"]);
    assert_eq!(got.left_out.len(), 1);
}

#[test]
fn the_pods_own_config_is_added_and_its_options_win() {
    let got = resolv(json!({"dnsPolicy": "Default", "dnsConfig": {
        "nameservers": ["192.0.2.1", "192.0.2.2"],
        "searches": ["local", "own"],
        "options": [{"name": "timeout", "value": "3"}, {"name": "edns0"}, {"name": "rotate", "value": ""}]
    }}));
    let want = "search example.org local own\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n\
                options timeout:3 edns0 rotate\n";
    assert_eq!(got, want);
}

#[test]
fn the_last_search_line_and_the_last_of_each_option_hold() {
    let host = "# nameserver 192.0.2.9\n; search x\nsearch a b\nsearch c. .\nnameserver\n\
                options ndots:1 rotate\noptions ndots:2\n nameserver 192.0.2.1 trailing\n";
    let got = with_host(json!({"dnsPolicy": "Default"}), Some(host)).text;
    assert_eq!(
        got,
        "search c .\nnameserver 192.0.2.1\noptions rotate ndots:2\n"
    );
}

#[test]
fn a_node_without_the_file_asks_itself() {
    let none = |spec| with_host(spec, None).text;
    assert_eq!(
        none(json!({"dnsPolicy": "Default"})),
        "search .\nnameserver 127.0.0.1\nnameserver ::1\n"
    );
    let cluster = none(json!({}));
    assert_eq!(
        line(&cluster, "search"),
        [
            "shop.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local"
        ]
    );
    assert_eq!(line(&cluster, "nameserver"), ["172.30.0.10"]);
}

#[test]
fn hosts_name_the_pod_and_its_aliases() {
    let aliases = json!([{"ip": "192.0.2.9", "hostnames": ["a", "b"]}, {"ip": "192.0.2.8", "hostnames": ["c"]}]);
    let web = pod("web-0", json!({"subdomain": "web", "hostAliases": aliases}));
    let ips = ["10.1.0.2".parse().unwrap(), "fd00:10:1::2".parse().unwrap()];
    let text = hosts(&web, &ips);
    for ip in ["10.1.0.2", "fd00:10:1::2"] {
        assert!(
            text.contains(&format!(
                "\n{ip}\tweb-0.web.shop.svc.cluster.local\tweb-0\n"
            )),
            "{text}"
        );
    }
    let end = "\n\n# Entries added by HostAliases.\n192.0.2.9\ta\tb\n192.0.2.8\tc\n";
    assert!(text.ends_with(end), "{text}");
    let node = hosts_of_node(&web, "127.0.0.1 localhost\n");
    assert_eq!(
        node,
        format!("# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost{end}")
    );
}

#[test]
fn a_pod_without_a_subdomain_has_a_short_name_only() {
    let text = hosts(&pod("web-0", json!({})), &["10.1.0.2".parse().unwrap()]);
    assert!(text.ends_with("\n10.1.0.2\tweb-0\n"), "{text}");
    // The full name needs a subdomain.
    let spec = json!({"setHostnameAsFQDN": true});
    assert_eq!(kernel_name(&pod("web-0", spec)), Ok("web-0".into()));
}

#[test]
fn the_kernel_knows_the_full_name_if_the_pod_wants_it_and_it_fits() {
    let spec = |subdomain: &str, whole| json!({"hostname": "front", "subdomain": subdomain, "setHostnameAsFQDN": whole});
    let name = |subdomain: &str, whole| kernel_name(&pod("web-0", spec(subdomain, whole)));
    assert_eq!(name("web", false), Ok("front".into()));
    assert_eq!(
        name("web", true),
        Ok("front.web.shop.svc.cluster.local".into())
    );
    // "front." and ".shop.svc.cluster.local" are 29 bytes, which leaves 35.
    assert!(name(&"x".repeat(35), true).is_ok_and(|name| name.len() == 64));
    let why = name(&"x".repeat(36), true).unwrap_err();
    assert!(
        why.ends_with("is too long (64 characters is the max, 65 characters requested)"),
        "{why}"
    );
}

#[test]
fn long_names_are_cut_to_what_the_kernel_takes() {
    let long = pod(&format!("{}-end", "x".repeat(62)), json!({}));
    assert_eq!(host_names(&long).0, "x".repeat(62));
}
