//! Who gets which address and port, and what is said to those who cannot.

use super::*;

fn ranges(cidrs: &[&str]) -> Allocator {
    let service_cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
    Allocator::new(
        &Ranges {
            service_cidrs,
            node_ports: 30000..=32767,
        },
        7,
    )
}

fn dual() -> Allocator {
    ranges(&["172.30.0.0/16", "fd00:172:30::/112"])
}

fn service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec})
}

fn create(allocator: &mut Allocator, name: &str, spec: Value) -> Result<Value, String> {
    let mut new = service(name, spec);
    allocator
        .allocate(None, &mut new)
        .map_err(|e| e.to_string())?;
    allocator.stored(None, Some(&new));
    Ok(new)
}

fn update(allocator: &mut Allocator, old: &Value, spec: Value) -> Result<Value, String> {
    let mut new = service(old["metadata"]["name"].as_str().unwrap(), spec);
    allocator
        .allocate(Some(old), &mut new)
        .map_err(|e| e.to_string())?;
    allocator.stored(Some(old), Some(&new));
    Ok(new)
}

fn port(number: u16) -> Value {
    json!({"port": number, "protocol": "TCP"})
}

#[test]
fn families_are_inferred_and_filled() {
    for (given, families, policy) in [
        (json!({}), json!(["IPv4"]), "SingleStack"),
        (
            json!({"ipFamilies": ["IPv6"]}),
            json!(["IPv6"]),
            "SingleStack",
        ),
        (
            json!({"ipFamilyPolicy": "PreferDualStack"}),
            json!(["IPv4", "IPv6"]),
            "PreferDualStack",
        ),
        (
            json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}),
            json!(["IPv6", "IPv4"]),
            "RequireDualStack",
        ),
        (
            json!({"clusterIP": "fd00:172:30::99"}),
            json!(["IPv6"]),
            "SingleStack",
        ),
        (
            json!({"clusterIPs": ["172.30.9.9", "fd00:172:30::99"]}),
            json!(["IPv4", "IPv6"]),
            "RequireDualStack",
        ),
        (
            json!({"clusterIP": "None"}),
            json!(["IPv4", "IPv6"]),
            "RequireDualStack",
        ),
        (
            json!({"clusterIP": "None", "selector": {"a": "b"}}),
            json!(["IPv4"]),
            "SingleStack",
        ),
    ] {
        let made = create(&mut dual(), "web", given.clone()).unwrap();
        assert_eq!(made["spec"]["ipFamilies"], families, "{given}");
        assert_eq!(made["spec"]["ipFamilyPolicy"], policy, "{given}");
        let ips = made["spec"]["clusterIPs"].as_array().unwrap();
        let headless = given["clusterIP"] == "None";
        assert_eq!(
            ips.len(),
            if headless {
                1
            } else {
                families.as_array().unwrap().len()
            },
            "{given}"
        );
        assert_eq!(ips[0], made["spec"]["clusterIP"]);
    }
    let single = create(
        &mut ranges(&["172.30.0.0/16"]),
        "web",
        json!({"ipFamilyPolicy": "PreferDualStack"}),
    )
    .unwrap();
    assert_eq!(single["spec"]["ipFamilies"], json!(["IPv4"]));
    let external = create(&mut dual(), "web", json!({"type": "ExternalName"})).unwrap();
    assert_eq!(external["spec"], json!({"type": "ExternalName"}));
}

#[test]
fn what_cannot_be_had_is_refused_in_upstreams_words() {
    let mut allocator = dual();
    create(
        &mut allocator,
        "first",
        json!({"clusterIP": "172.30.5.5", "type": "NodePort",
        "ports": [{"port": 80, "nodePort": 30080}]}),
    )
    .unwrap();
    for (spec, words) in [
        (
            json!({"clusterIP": "172.30.5.5"}),
            "spec.clusterIPs: Invalid value: [\"172.30.5.5\"]: failed to allocate IP 172.30.5.5: provided IP is already allocated",
        ),
        (
            json!({"clusterIP": "10.0.0.1"}),
            "spec.clusterIPs: Invalid value: [\"10.0.0.1\"]: failed to allocate IP 10.0.0.1: the provided IP (10.0.0.1) is not in the valid range. The range of valid IPs is 172.30.0.0/16",
        ),
        (
            json!({"clusterIP": "172.30.0.1"}),
            "spec.clusterIPs: Invalid value: [\"172.30.0.1\"]: failed to allocate IP 172.30.0.1: provided IP is already allocated",
        ),
        (
            json!({"type": "NodePort", "ports": [port(80), {"port": 81, "nodePort": 30080}]}),
            "spec.ports[1].nodePort: Invalid value: 30080: provided port is already allocated",
        ),
        (
            json!({"type": "NodePort", "ports": [{"port": 81, "nodePort": 80}]}),
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
        ),
        (
            json!({"ipFamilies": ["IPv4"], "clusterIPs": ["fd00:172:30::9"]}),
            "spec.clusterIPs[0]: Invalid value: \"fd00:172:30::9\": expected an IPv4 value as indicated by `ipFamilies[0]`",
        ),
    ] {
        assert_eq!(
            create(&mut allocator, "second", spec.clone()).unwrap_err(),
            words,
            "{spec}"
        );
    }
    let mut single = ranges(&["172.30.0.0/16"]);
    assert_eq!(
        create(
            &mut single,
            "web",
            json!({"ipFamilyPolicy": "RequireDualStack"})
        )
        .unwrap_err(),
        "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"
    );
    assert_eq!(
        create(&mut single, "web", json!({"ipFamilies": ["IPv6"]})).unwrap_err(),
        "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"
    );
}

#[test]
fn the_lower_band_is_for_people() {
    let mut allocator = dual();
    for index in 0..500 {
        let made = create(
            &mut allocator,
            &format!("s{index}"),
            json!({"type": "NodePort", "ports": [port(80)]}),
        )
        .unwrap();
        let ip: std::net::Ipv4Addr = made["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
        assert!(
            u32::from(ip) > u32::from(std::net::Ipv4Addr::new(172, 30, 1, 0)),
            "{ip}"
        );
        assert!(made["spec"]["ports"][0]["nodePort"].as_i64().unwrap() >= 30086);
    }
}

#[test]
fn a_full_range_says_so_and_release_helps() {
    let mut allocator = ranges(&["172.30.0.0/28"]);
    let made: Vec<Value> = (0..)
        .map_while(|i| create(&mut allocator, &format!("s{i}"), json!({})).ok())
        .collect();
    assert_eq!(
        made.len(),
        12,
        "14 usable, without those of kubernetes and DNS"
    );
    assert_eq!(
        create(&mut allocator, "x", json!({})).unwrap_err(),
        "failed to allocate a serviceIP: range is full"
    );
    allocator.stored(Some(&made[3]), None);
    let again = create(&mut allocator, "x", json!({})).unwrap();
    assert_eq!(again["spec"]["clusterIP"], made[3]["spec"]["clusterIP"]);
    let mut kubernetes = json!({"metadata": {"namespace": "default", "name": "kubernetes"}, "spec": {"clusterIP": "172.30.0.1"}});
    allocator.allocate(None, &mut kubernetes).unwrap();
}

#[test]
fn a_choice_that_is_not_stored_leaves_no_trace() {
    let mut allocator = ranges(&["172.30.0.0/28"]);
    for index in 0..100 {
        allocator
            .allocate(None, &mut service(&format!("s{index}"), json!({})))
            .unwrap();
    }
}

#[test]
fn one_port_number_with_two_protocols_shares_its_node_port() {
    let ports = json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP", "nodePort": 30053},
        {"port": 9153, "protocol": "TCP"}]);
    let mut allocator = dual();
    let made = create(
        &mut allocator,
        "dns",
        json!({"type": "NodePort", "ports": ports}),
    )
    .unwrap();
    assert_eq!(made["spec"]["ports"][0]["nodePort"], 30053);
    assert_ne!(made["spec"]["ports"][2]["nodePort"], 30053);
}

#[test]
fn updates_keep_and_types_give_back() {
    let mut allocator = dual();
    let spec =
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [port(80)]});
    let old = create(&mut allocator, "web", spec.clone()).unwrap();
    let health = old["spec"]["healthCheckNodePort"].clone();
    assert!(health.as_i64().unwrap() >= 30086);
    let kept = update(&mut allocator, &old, spec).unwrap();
    assert_eq!(kept["spec"], old["spec"]);
    let mut narrowed = kept["spec"].clone();
    narrowed["type"] = json!("ClusterIP");
    let plain = update(&mut allocator, &kept, narrowed).unwrap();
    for gone in ["healthCheckNodePort", "externalTrafficPolicy"] {
        assert_eq!(plain["spec"][gone], Value::Null, "{gone}");
    }
    assert_eq!(plain["spec"]["ports"][0]["nodePort"], Value::Null);
    assert_eq!(plain["spec"]["clusterIP"], old["spec"]["clusterIP"]);
    let mut renamed = plain["spec"].clone();
    renamed["type"] = json!("ExternalName");
    let external = update(&mut allocator, &plain, renamed).unwrap();
    assert_eq!(external["spec"]["clusterIP"], Value::Null);
    let taken = json!({"clusterIP": old["spec"]["clusterIP"], "type": "NodePort",
        "ports": [{"port": 80, "nodePort": health}]});
    create(&mut allocator, "other", taken).unwrap();
}

#[test]
fn dual_stack_comes_and_goes_by_policy() {
    let mut allocator = dual();
    let single = create(&mut allocator, "web", json!({})).unwrap();
    let mut wanted = single["spec"].clone();
    wanted["ipFamilyPolicy"] = json!("PreferDualStack");
    let both = update(&mut allocator, &single, wanted).unwrap();
    assert_eq!(both["spec"]["clusterIPs"].as_array().unwrap().len(), 2);
    assert_eq!(both["spec"]["clusterIP"], single["spec"]["clusterIP"]);
    let mut wanted = both["spec"].clone();
    wanted["ipFamilyPolicy"] = json!("SingleStack");
    let again = update(&mut allocator, &both, wanted).unwrap();
    assert_eq!(again["spec"], single["spec"]);
}

#[test]
fn malformed_objects_do_not_panic() {
    for spec in [
        json!(null),
        json!("x"),
        json!({"ports": "x"}),
        json!({"ports": ["x", 1]}),
        json!({"clusterIPs": [1]}),
    ] {
        let mut new = service("web", spec);
        let _ = dual().allocate(None, &mut new);
        dual().stored(None, Some(&new));
    }
}
