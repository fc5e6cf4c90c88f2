//! From a Service and its pods, against what is there, to the writes: which slices, with whom, in which condition.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::desired::groups;
use super::*;

fn service(spec: Value) -> Service {
    let spec: Value = match spec {
        Value::Object(fields) => {
            let mut all = json!({"selector": {"app": "web"}, "ipFamilies": ["IPv4"], "ports": [{"name": "http", "port": 80, "targetPort": "http"}]});
            fields
                .into_iter()
                .for_each(|(key, value)| drop(all.as_object_mut().unwrap().insert(key, value)));
            all
        }
        other => other,
    };
    serde_json::from_value(
        json!({"metadata": {"name": "web", "namespace": "shop", "uid": "s"}, "spec": spec}),
    )
    .unwrap()
}

fn pod(index: usize, port: u16, ready: bool) -> Arc<Pod> {
    let status = if ready { "True" } else { "False" };
    let ip = format!("10.1.{}.{}", index / 250, index % 250 + 1);
    pod_of(json!({
        "metadata": {"name": format!("web-{index}"), "namespace": "shop", "uid": format!("u{index}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": ip}, {"ip": format!("fd00:10:1::{:x}", index + 1)}],
            "conditions": [{"type": "Ready", "status": status}]}}))
}

fn pod_of(value: Value) -> Arc<Pod> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn owner() -> SliceOwner {
    SliceOwner {
        namespace: "shop".into(),
        service: "web".into(),
        labels: Default::default(),
        owner: owner_reference(&service(json!({}))),
        managed_by: SLICE_CONTROLLER,
        trigger: None,
    }
}

fn ops(service: &Service, pods: &[Arc<Pod>], existing: &[Arc<EndpointSlice>]) -> Vec<Op> {
    diff::diff(
        &owner(),
        groups(service, pods, &|_| Some("z1".into())),
        existing,
    )
}

/// What is there after these writes.
fn after(existing: &[Arc<EndpointSlice>], ops: &[Op]) -> Vec<Arc<EndpointSlice>> {
    let mut all: Vec<EndpointSlice> = existing.iter().map(|slice| (**slice).clone()).collect();
    for op in ops {
        match op {
            Op::Create(slice) => {
                let mut slice = slice.clone();
                slice.metadata.name = Some(format!("web-{}", all.len()));
                all.push(slice);
            }
            Op::Update(slice) => {
                let place = all
                    .iter()
                    .position(|old| old.metadata.name == slice.metadata.name)
                    .unwrap();
                all[place] = slice.clone();
            }
            Op::Delete(name) => all.retain(|slice| slice.metadata.name.as_ref() != Some(name)),
        }
    }
    all.into_iter().map(Arc::new).collect()
}

#[test]
fn conditions_follow_the_pod_and_the_service() {
    let terminating = |mut pod: Arc<Pod>| {
        let time = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        Arc::make_mut(&mut pod).metadata.deletion_timestamp = Some(time);
        pod
    };
    let unready =
        pod_of(json!({"metadata": {"name": "x"}, "status": {"podIPs": [{"ip": "10.1.0.9"}]}}));
    for (spec, pod, expected) in [
        (json!({}), pod(0, 80, true), (true, true, false)),
        (json!({}), pod(0, 80, false), (false, false, false)),
        (
            json!({}),
            terminating(pod(0, 80, true)),
            (false, true, true),
        ),
        (json!({}), unready, (false, false, false)),
        (
            json!({"publishNotReadyAddresses": true}),
            pod(0, 80, false),
            (true, false, false),
        ),
        (
            json!({"publishNotReadyAddresses": true}),
            terminating(pod(0, 80, true)),
            (true, true, true),
        ),
    ] {
        let groups = groups(&service(spec.clone()), std::slice::from_ref(&pod), &|_| {
            None
        });
        let is = groups[0].endpoints[0].conditions.clone().unwrap();
        assert_eq!(
            (
                is.ready.unwrap(),
                is.serving.unwrap(),
                is.terminating.unwrap()
            ),
            expected,
            "{spec} {:?}",
            pod.metadata
        );
    }
}

#[test]
fn who_is_over_or_without_address_is_no_endpoint() {
    let over = pod_of(json!({"status": {"phase": "Succeeded", "podIPs": [{"ip": "10.1.0.1"}]}}));
    let starting = pod_of(json!({"status": {"phase": "Pending"}}));
    let all = groups(&service(json!({})), &[over, starting], &|_| None);
    assert!(
        all.len() == 1 && all[0].endpoints.is_empty(),
        "one empty group, so that there is a slice to see"
    );
}

#[test]
fn a_named_port_with_two_numbers_makes_two_slices() {
    let made = ops(
        &service(json!({})),
        &[pod(0, 8080, true), pod(1, 9090, true)],
        &[],
    );
    let numbers: Vec<i32> = after(&[], &made)
        .iter()
        .map(|slice| slice.ports.as_ref().unwrap()[0].port.unwrap())
        .collect();
    assert_eq!(numbers, [8080, 9090]);
}

#[test]
fn each_family_has_its_slice() {
    let made = after(
        &[],
        &ops(
            &service(json!({"ipFamilies": ["IPv4", "IPv6"]})),
            &[pod(0, 80, true)],
            &[],
        ),
    );
    let families: Vec<&str> = made
        .iter()
        .map(|slice| slice.address_type.as_str())
        .collect();
    assert_eq!(families, ["IPv4", "IPv6"]);
    assert_eq!(made[1].endpoints[0].addresses, ["fd00:10:1::1"]);
    assert_eq!(made[0].endpoints[0].zone.as_deref(), Some("z1"));
}

#[test]
fn slices_are_bounded_and_change_little() {
    let service = service(json!({}));
    let pods: Vec<Arc<Pod>> = (0..250).map(|i| pod(i, 80, true)).collect();
    let all = after(&[], &ops(&service, &pods, &[]));
    assert_eq!(
        all.iter()
            .map(|slice| slice.endpoints.len())
            .collect::<Vec<_>>(),
        [100, 100, 50]
    );
    assert!(ops(&service, &pods, &all).is_empty(), "nothing has changed");

    let mut changed = pods.clone();
    changed[7] = pod(7, 80, false);
    let writes = ops(&service, &changed, &all);
    assert!(
        matches!(&writes[..], [Op::Update(_)]),
        "one slice knows of it"
    );

    let more: Vec<Arc<Pod>> = pods.iter().cloned().chain([pod(250, 80, true)]).collect();
    let writes = ops(&service, &more, &all);
    assert!(
        matches!(&writes[..], [Op::Update(slice)] if slice.endpoints.len() == 51),
        "where there is room"
    );

    let fewer: Vec<Arc<Pod>> = pods[..1].to_vec();
    let left = after(&all, &ops(&service, &fewer, &all));
    assert_eq!(left.len(), 1);
    let none = after(&left, &ops(&service, &[], &left));
    assert!(
        none.len() == 1 && none[0].endpoints.is_empty(),
        "the placeholder stays"
    );
}

#[test]
fn hints_come_from_traffic_distribution() {
    let of = |distribution: &str| {
        let made = groups(
            &service(json!({"trafficDistribution": distribution})),
            &[pod(0, 80, true)],
            &|_| Some("z1".into()),
        );
        serde_json::to_value(&made[0].endpoints[0].hints).unwrap()
    };
    assert_eq!(of("PreferSameZone"), json!({"forZones": [{"name": "z1"}]}));
    assert_eq!(
        of("PreferSameNode"),
        json!({"forZones": [{"name": "z1"}], "forNodes": [{"name": "n1"}]})
    );
}

#[test]
fn endpoints_name_one_family_and_leave_out_who_goes() {
    let service = service(json!({}));
    let pods = [pod(1, 80, true), pod(0, 80, false)];
    let Some(legacy::Write::Create(made)) = legacy::plan(&service, &pods, None) else {
        panic!("nothing is made");
    };
    let subsets = made.subsets.clone().unwrap();
    assert_eq!(subsets.len(), 1);
    assert_eq!(subsets[0].addresses.as_ref().unwrap()[0].ip, "10.1.0.2");
    assert_eq!(
        subsets[0].not_ready_addresses.as_ref().unwrap()[0].ip,
        "10.1.0.1"
    );
    assert_eq!(
        legacy::plan(&service, &pods, Some(&made)),
        None,
        "nothing has changed"
    );
}

#[test]
fn hand_written_endpoints_are_mirrored() {
    let endpoints: Endpoints = serde_json::from_value(json!({"metadata": {"name": "db", "namespace": "shop"}, "subsets": [
        {"addresses": [{"ip": "203.0.113.9"}, {"ip": "2001:db8::9"}], "notReadyAddresses": [{"ip": "203.0.113.8"}],
         "ports": [{"port": 5432}]}]})).unwrap();
    let groups = mirror::groups(&endpoints);
    assert_eq!(groups.len(), 2);
    assert_eq!(groups[0].endpoints.len(), 2);
    let without = service(json!({"selector": null}));
    assert!(mirror::wanted(&endpoints, Some(&without)));
    assert!(!mirror::wanted(&endpoints, Some(&service(json!({})))));
    assert!(!mirror::wanted(&endpoints, None));
}
