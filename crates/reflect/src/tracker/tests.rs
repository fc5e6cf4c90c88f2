//! The order of events does not matter, a new listing equals what events would have told, nothing comes too early.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::node::{DetectLocal, NodePortAddresses};

fn tracker() -> Tracker {
    let options = NodeOptions {
        name: "n1".into(),
        primary_address: None,
        detect_local: DetectLocal::ClusterCidr(vec!["10.0.0.0/8".parse().unwrap()]),
        node_port_addresses: NodePortAddresses::PRIMARY,
        masquerade_all: false,
        service_cidrs: Vec::new(),
    };
    Tracker::new(options, BTreeSet::new())
}

fn service(name: &str, spec: Value) -> wire::Service {
    serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec}))
        .unwrap()
}

fn web(ip: &str) -> wire::Service {
    service(
        "web",
        json!({"clusterIPs": [ip], "ports": [{"name": "http", "port": 80}]}),
    )
}

fn slice(name: &str, service: &str, port: u16, endpoints: Value) -> wire::EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": port}], "endpoints": endpoints}))
    .unwrap()
}

/// Ends the listings of all kinds.
fn listed(mut tracker: Tracker) -> Tracker {
    tracker.service(Event::InitDone);
    tracker.slice(Event::InitDone);
    tracker.node(Event::InitDone);
    tracker
}

fn begun() -> Tracker {
    let mut tracker = tracker();
    tracker.service(Event::Init);
    tracker.slice(Event::Init);
    tracker.node(Event::Init);
    tracker
}

/// The one port of Service `web` with these slices.
fn port_of(
    service: wire::Service,
    slices: Vec<wire::EndpointSlice>,
) -> (Arc<ServicePort>, Vec<Problem>) {
    let mut tracker = begun();
    tracker.service(Event::InitApply(service));
    slices
        .into_iter()
        .for_each(|slice| tracker.slice(Event::InitApply(slice)));
    let told = listed(tracker).reflect().unwrap();
    let port = told.snapshot.ports().next().unwrap().clone();
    (port, told.problems.iter().cloned().collect())
}

fn addresses(port: &ServicePort) -> Vec<String> {
    port.endpoints
        .iter()
        .map(|e| e.address.to_string())
        .collect()
}

#[test]
fn nothing_is_told_before_everything_is_listed() {
    let mut tracker = begun();
    tracker.service(Event::InitApply(web("172.30.0.9")));
    tracker.service(Event::InitDone);
    assert!(tracker.reflect().is_none());
    tracker.slice(Event::InitDone);
    assert!(tracker.reflect().is_none());
    tracker.node(Event::InitDone);
    assert_eq!(tracker.reflect().unwrap().snapshot.len(), 1);
    assert!(tracker.reflect().is_none(), "nothing is new");
    tracker.service(Event::Init);
    assert!(
        tracker.reflect().is_none(),
        "nothing is removed while a listing is under way"
    );
    tracker.service(Event::InitDone);
    assert_eq!(tracker.reflect().unwrap().snapshot.len(), 0);
}

#[test]
fn an_empty_cluster_is_told_too() {
    assert!(listed(begun()).reflect().unwrap().snapshot.is_empty());
}

#[test]
fn a_named_target_port_has_a_number_in_each_slice() {
    let slices = vec![
        slice("web-a", "web", 8080, json!([{"addresses": ["10.1.0.1"]}])),
        slice("web-b", "web", 9090, json!([{"addresses": ["10.1.0.2"]}])),
        slice("other", "db", 5432, json!([{"addresses": ["10.1.0.3"]}])),
    ];
    let (port, problems) = port_of(web("172.30.0.9"), slices);
    assert_eq!(addresses(&port), ["10.1.0.1:8080", "10.1.0.2:9090"]);
    assert!(problems.is_empty());
}

#[test]
fn conditions_default_and_duplicates_go_to_the_best() {
    let slices = vec![
        slice(
            "web-a",
            "web",
            80,
            json!([{"addresses": ["10.1.0.1"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.1.0.2"], "nodeName": "n1"}]),
        ),
        slice(
            "web-b",
            "web",
            80,
            json!([{"addresses": ["10.1.0.1"]}, {"addresses": ["10.1.0.3"], "conditions": {"ready": false}}]),
        ),
    ];
    let (port, _) = port_of(web("172.30.0.9"), slices);
    let of = |index: usize| {
        let e = &port.endpoints[index];
        (e.ready, e.serving, e.terminating, e.local)
    };
    assert_eq!(of(0), (true, true, false, false));
    assert_eq!(of(1), (true, true, false, true));
    assert_eq!(of(2), (false, false, false, false));
}

#[test]
fn bad_addresses_are_normalised_or_told() {
    let spec = json!({"clusterIPs": ["172.30.0.041"], "ports": [{"port": 80, "name": "http", "nodePort": 99999}, {"port": 0, "name": "zero"}],
        "externalIPs": ["192.168.99.011", "fd00::1", "nonsense"], "loadBalancerSourceRanges": [" 203.0.113.000/025", "x"]});
    let slices = vec![slice(
        "web-a",
        "web",
        80,
        json!([{"addresses": ["1.2.3.004"]}, {"addresses": ["fd00::1"]}, {"addresses": []}]),
    )];
    let (port, problems) = port_of(service("web", spec), slices);
    assert_eq!(port.cluster_ips, ["172.30.0.41".parse::<IpAddr>().unwrap()]);
    assert_eq!(
        port.external_ips,
        ["192.168.99.11".parse::<IpAddr>().unwrap()]
    );
    assert_eq!(port.source_ranges, ["203.0.113.0/25".parse().unwrap()]);
    assert_eq!(port.node_port, None);
    assert_eq!(addresses(&port), ["1.2.3.4:80"]);
    assert_eq!(problems.len(), 7, "{problems:#?}");
}

/// R-CHECK-1.
#[test]
fn only_load_balancers_with_local_policy_have_a_health_check_port() {
    let check = |kind: &str, policy: &str, number: i64| {
        let spec = json!({"type": kind, "externalTrafficPolicy": policy, "healthCheckNodePort": number,
            "clusterIPs": ["172.30.0.1"], "ports": [{"name": "http", "port": 80}]});
        let (port, _) = port_of(service("web", spec), Vec::new());
        port.health_check_node_port.map(u16::from)
    };
    assert_eq!(check("LoadBalancer", "Local", 31000), Some(31000));
    assert_eq!(check("LoadBalancer", "Local", 0), None);
    assert_eq!(check("LoadBalancer", "Cluster", 31000), None);
    assert_eq!(check("NodePort", "Local", 31000), None);
}

#[test]
fn what_is_not_proxied_has_no_ports() {
    let mut tracker = begun();
    for (index, spec) in [
        json!({"clusterIP": "None", "ports": [{"port": 80}]}),
        json!({"clusterIP": "", "ports": [{"port": 80}]}),
        json!({"ports": [{"port": 80}]}),
        json!({"type": "ExternalName", "clusterIP": "172.30.0.1", "ports": [{"port": 80}]}),
        json!({"clusterIP": "172.30.0.1"}),
    ]
    .into_iter()
    .enumerate()
    {
        tracker.service(Event::InitApply(service(&format!("s{index}"), spec)));
    }
    assert!(listed(tracker).reflect().unwrap().snapshot.is_empty());
}

#[test]
fn the_node_is_what_its_object_says() {
    let node: wire::Node = serde_json::from_value(json!({
        "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z"}},
        "spec": {"podCIDRs": ["10.1.0.0/24", "fd00:10:1::/64"]},
        "status": {"addresses": [{"type": "Hostname", "address": "n1"}, {"type": "ExternalIP", "address": "203.0.113.9"},
            {"type": "InternalIP", "address": "192.168.0.11"}, {"type": "InternalIP", "address": "fd00:192:168::11"}]}}))
    .unwrap();
    let mut tracker = begun();
    tracker.options.as_mut().unwrap().detect_local = DetectLocal::NodeCidr;
    tracker = listed(tracker);
    assert!(
        tracker.reflect().is_none(),
        "the pod ranges are not known yet"
    );
    tracker.node(Event::Apply(node));
    let told = tracker.reflect().unwrap();
    let facts = told.snapshot.node();
    let primary: Vec<String> = facts
        .node_port_addresses
        .iter()
        .map(IpAddr::to_string)
        .collect();
    assert_eq!(primary, ["192.168.0.11", "fd00:192:168::11"]);
    assert_eq!(facts.addresses.len(), 3);
    assert_eq!(facts.zone.as_deref(), Some("z"));
    assert!(
        matches!(&facts.local_pods, portolan_model::LocalPods::Cidrs(cidrs) if cidrs.len() == 2)
    );
}

#[test]
fn what_the_operator_decides_anew_holds() {
    let mut tracker = listed(begun());
    let addresses = ["192.168.0.11", "192.168.9.9"].map(|ip| ip.parse().unwrap());
    tracker.set_interfaces(addresses.into());
    tracker.reflect().unwrap();
    let ranges = vec!["192.168.9.0/24".parse().unwrap()];
    let options = NodeOptions {
        node_port_addresses: NodePortAddresses::within(ranges),
        masquerade_all: true,
        ..tracker.options.clone().unwrap()
    };
    tracker.set_options(options.clone());
    let told = tracker.reflect().unwrap();
    let facts = told.snapshot.node();
    assert_eq!(facts.node_port_addresses, [addresses[1]].into());
    assert!(facts.masquerade_all);
    tracker.set_options(options);
    assert!(!tracker.dirty_node, "the same once more is no change");
}

#[test]
fn trigger_times_are_of_changes_not_of_listings() {
    let with_time = |time: &str| {
        let mut slice = slice("web-a", "web", 80, json!([]));
        slice.metadata.annotations = Some([(TRIGGER_TIME.to_string(), time.to_string())].into());
        slice
    };
    let mut tracker = begun();
    tracker.slice(Event::InitApply(with_time("2026-01-01T00:00:00Z")));
    tracker = listed(tracker);
    assert!(tracker.reflect().unwrap().triggered.is_empty());
    tracker.slice(Event::Apply(with_time("2026-01-01T00:00:09Z")));
    tracker.slice(Event::Apply(with_time("2026-01-01T00:00:07Z")));
    tracker.service(Event::Apply(web("172.30.0.9")));
    let oldest = "2026-01-01T00:00:07Z".parse().unwrap();
    let told = tracker.reflect().unwrap().triggered;
    assert_eq!(told, [(Family::V4, oldest)].into());
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Service {
        index: usize,
        address: u8,
        ports: u8,
    },
    NoService(usize),
    Slice {
        index: usize,
        service: usize,
        hosts: Vec<u8>,
        ready: bool,
    },
    NoSlice(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4usize, 1..6u8, 1..3u8).prop_map(|(index, address, ports)| Step::Service {
            index,
            address,
            ports
        }),
        (0..4usize).prop_map(Step::NoService),
        (
            0..6usize,
            0..4usize,
            prop::collection::vec(1..9u8, 0..5),
            any::<bool>()
        )
            .prop_map(|(index, service, hosts, ready)| Step::Slice {
                index,
                service,
                hosts,
                ready
            }),
        (0..6usize).prop_map(Step::NoSlice),
    ]
}

fn service_of_step(index: usize, address: u8, ports: u8) -> wire::Service {
    let ports: Vec<Value> = ["http", "admin"][..ports as usize]
        .iter()
        .enumerate()
        .map(|(i, name)| json!({"name": name, "port": 80 + i}))
        .collect();
    service(
        &format!("s{index}"),
        json!({"clusterIPs": [format!("172.30.0.{address}")], "ports": ports}),
    )
}

fn slice_of_step(index: usize, service: usize, hosts: &[u8], ready: bool) -> wire::EndpointSlice {
    let endpoints: Vec<Value> = hosts
        .iter()
        .map(
            |host| json!({"addresses": [format!("10.1.0.{host}")], "conditions": {"ready": ready}}),
        )
        .collect();
    slice(
        &format!("e{index}"),
        &format!("s{service}"),
        8080,
        json!(endpoints),
    )
}

fn play(tracker: &mut Tracker, step: &Step) {
    match step {
        Step::Service {
            index,
            address,
            ports,
        } => tracker.service(Event::Apply(service_of_step(*index, *address, *ports))),
        Step::NoService(index) => tracker.service(Event::Delete(service_of_step(*index, 1, 1))),
        Step::Slice {
            index,
            service,
            hosts,
            ready,
        } => {
            tracker.slice(Event::Apply(slice_of_step(*index, *service, hosts, *ready)));
        }
        Step::NoSlice(index) => tracker.slice(Event::Delete(slice_of_step(*index, 0, &[], true))),
    }
}

/// What remains at the end of a history, as one step per object.
fn remains(history: &[Step]) -> Vec<Step> {
    let mut last: BTreeMap<(bool, usize), Step> = BTreeMap::new();
    for step in history {
        match step {
            Step::Service { index, .. } => drop(last.insert((false, *index), step.clone())),
            Step::Slice { index, .. } => drop(last.insert((true, *index), step.clone())),
            Step::NoService(index) => drop(last.remove(&(false, *index))),
            Step::NoSlice(index) => drop(last.remove(&(true, *index))),
        }
    }
    last.into_values().collect()
}

proptest! {
    #[test]
    fn history_order_and_relists_do_not_matter(history in prop::collection::vec(step(), 0..40), seed in any::<u64>(), every in 1..9usize) {
        let mut incremental = listed(begun());
        for (at, step) in history.iter().enumerate() {
            play(&mut incremental, step);
            if at % every == 0 {
                incremental.reflect();
            }
        }
        incremental.dirty_node = true;
        let incremental = incremental.reflect().unwrap();

        let mut rest = remains(&history);
        let places = rest.len().max(1);
        rest.rotate_left((seed % places as u64) as usize);
        let mut fresh = begun();
        rest.iter().for_each(|step| play(&mut fresh, step));
        let fresh = listed(fresh).reflect().unwrap();
        prop_assert_eq!(&incremental.snapshot, &fresh.snapshot);

        let mut relisted = listed(begun());
        history.iter().for_each(|step| play(&mut relisted, step));
        relisted.reflect();
        relisted.service(Event::Init);
        relisted.slice(Event::Init);
        for step in rest.iter().rev() {
            play(&mut relisted, step);
        }
        relisted.dirty_node = true;
        let relisted = listed(relisted).reflect().unwrap();
        prop_assert_eq!(&relisted.snapshot, &fresh.snapshot);
    }
}

#[test]
fn annotations_say_how_to_balance() {
    let annotated = |name: &str, value: &str| json!({(name): value});
    let mut service = web("172.30.0.1");
    service.metadata.annotations =
        serde_json::from_value(annotated("portolan.dev/balance", "round-robin")).unwrap();
    let endpoints = json!([{"addresses": ["10.1.0.10"]}, {"addresses": ["10.1.0.11"]}]);
    let mut one = slice("web-1", "web", 8080, endpoints);
    one.metadata.annotations =
        serde_json::from_value(annotated("portolan.dev/weights", "10.1.0.10=3,10.1.0.99=2"))
            .unwrap();
    let (port, problems) = port_of(service, vec![one]);
    assert_eq!(port.balance, portolan_model::Balance::RoundRobin);
    let weights: Vec<u16> = port.endpoints.iter().map(|e| e.weight).collect();
    assert_eq!(weights, [3, 1]);
    let [problem] = &problems[..] else {
        panic!("{problems:?}")
    };
    assert_eq!(problem.reason, "InvalidAnnotation");
    assert!(
        problem
            .message
            .contains("\"10.1.0.99\" is no endpoint of this slice"),
        "{problem}"
    );
}

#[test]
fn a_bad_annotation_is_told_and_random_is_used() {
    let mut service = web("172.30.0.1");
    service.metadata.annotations =
        serde_json::from_value(json!({"portolan.dev/balance": "least-conn"})).unwrap();
    let (port, problems) = port_of(service, vec![]);
    assert_eq!(port.balance, portolan_model::Balance::Random);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].message.contains("least-conn"));
}

/// Somebody on no node waits for no Node, has no endpoint of its own, and sees headless Services.
#[test]
fn somebody_on_no_node_sees_headless_services() {
    let mut tracker = Tracker::of_no_node();
    let headless = service(
        "web",
        json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"name": "http", "port": 80}]}),
    );
    tracker.service(Event::Init);
    tracker.service(Event::InitApply(headless.clone()));
    tracker.service(Event::InitDone);
    assert!(tracker.reflect().is_none(), "slices have not been listed");
    tracker.slice(Event::Init);
    tracker.slice(Event::InitApply(slice(
        "web-1",
        "web",
        8080,
        json!([{"addresses": ["10.1.0.2"], "nodeName": "n1"}, {"addresses": ["10.1.0.3"]}]),
    )));
    tracker.slice(Event::InitDone);
    let told = tracker.reflect().unwrap();
    let port = told.snapshot.ports().next().unwrap();
    assert!(port.wanted().is_empty(), "it has no address");
    let endpoints: Vec<(String, bool)> = port
        .endpoints
        .iter()
        .map(|e| (e.address.to_string(), e.local))
        .collect();
    let expected = ["10.1.0.2:8080", "10.1.0.3:8080"];
    assert_eq!(endpoints, expected.map(|at| (at.to_owned(), false)));
    let (port, _) = port_of(web("172.30.0.1"), vec![]);
    assert_eq!(port.cluster_ips.len(), 1);
    let mut on_a_node = begun();
    on_a_node.service(Event::InitApply(headless));
    assert!(listed(on_a_node).reflect().unwrap().snapshot.is_empty());
}
