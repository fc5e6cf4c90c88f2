//! The kubelet's rules for a container's environment.

use serde_json::json;

use super::*;

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web-1", "namespace": "shop", "uid": "u", "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": []}
    }))
    .unwrap()
}

fn env(container: serde_json::Value) -> Result<Vec<(String, String)>, String> {
    let mut container = container;
    container["name"] = json!("c");
    let container: Container = serde_json::from_value(container).unwrap();
    let map = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect::<BTreeMap<_, _>>()
    };
    let bytes = |pairs: &[(&str, &str)]| {
        let own = pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.as_bytes().to_vec()));
        own.collect::<BTreeMap<_, _>>()
    };
    let sources = Sources {
        config_maps: [("conf".to_string(), bytes(&[("A", "1"), ("B", "2")]))].into(),
        secrets: [("secret".to_string(), bytes(&[("PASS", "word")]))].into(),
    };
    let facts = Facts {
        pod_ips: vec!["10.1.0.2".into(), "fd00:10:1::2".into()],
        host_ips: vec!["192.168.0.11".into()],
    };
    build(
        &pod(),
        &container,
        &map(&[("DB_SERVICE_HOST", "172.30.0.5"), ("A", "service")]),
        &sources,
        &facts,
    )
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect()
}

#[test]
fn later_sources_win_and_service_variables_come_last() {
    let got = env(json!({
        "envFrom": [{"configMapRef": {"name": "conf"}}, {"prefix": "P_", "secretRef": {"name": "secret"}}],
        "env": [{"name": "B", "value": "own"}]
    }));
    let want = [
        ("A", "1"),
        ("P_PASS", "word"),
        ("B", "own"),
        ("DB_SERVICE_HOST", "172.30.0.5"),
    ];
    assert_eq!(got.unwrap(), pairs(&want));
}

#[test]
fn references_see_what_was_defined_before_and_services() {
    let got = env(json!({"env": [
        {"name": "X", "value": "$(LATER)/$(DB_SERVICE_HOST)/$$(A)"},
        {"name": "LATER", "value": "l"},
        {"name": "Y", "value": "$(X)-$(LATER)-$("}
    ]}))
    .unwrap();
    assert_eq!(got[0].1, "$(LATER)/172.30.0.5/$(A)");
    assert_eq!(got[2].1, "$(LATER)/172.30.0.5/$(A)-l-$(");
}

#[test]
fn the_downward_api_names_fields() {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let got = env(json!({"env": [
        field("NAME", "metadata.name"), field("APP", "metadata.labels['app']"), field("IPS", "status.podIPs"),
        field("NODE", "spec.nodeName"), field("HOST", "status.hostIP")
    ]}))
    .unwrap();
    let values: Vec<_> = got[..5].iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(
        values,
        [
            "web-1",
            "web",
            "10.1.0.2,fd00:10:1::2",
            "n1",
            "192.168.0.11"
        ]
    );
}

#[test]
fn what_is_missing_is_an_error_unless_optional() {
    let key = |optional: bool| json!({"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "Z", "optional": optional}}}]});
    assert_eq!(
        env(key(false)).unwrap_err(),
        "couldn't find key Z in configmap \"conf\""
    );
    assert!(env(key(true)).unwrap().iter().all(|(name, _)| name != "X"));
    assert_eq!(
        env(json!({"envFrom": [{"secretRef": {"name": "no"}}]})).unwrap_err(),
        "secret \"no\" not found"
    );
}
