//! Patches, each with an object before and after; the bodies are of the form that kubectl sends.

use serde_json::{Value, json};

use super::strategic;
use crate::kind::Kind;

fn kind(name: &str) -> &'static Kind {
    crate::kinds::kinds()
        .iter()
        .find(|kind| kind.kind == name)
        .unwrap()
}

/// Patches the spec of a Service.
fn service(before: Value, patch: Value) -> Result<Value, String> {
    let merged = strategic(
        kind("Service"),
        &json!({"spec": before}),
        &json!({"spec": patch}),
    )?;
    Ok(merged["spec"].clone())
}

/// Patches the pod spec of a Deployment.
fn template(before: Value, patch: Value) -> Result<Value, String> {
    let wrap = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
    let merged = strategic(kind("Deployment"), &wrap(before), &wrap(patch))?;
    Ok(merged["spec"]["template"]["spec"].clone())
}

#[test]
fn objects_merge_and_null_deletes() {
    let before = json!({"type": "NodePort", "selector": {"app": "a", "tier": "web"}, "clusterIP": "172.30.0.7"});
    let patch = json!({"type": "ClusterIP", "selector": {"tier": null, "v": "2"}});
    let after =
        json!({"type": "ClusterIP", "selector": {"app": "a", "v": "2"}, "clusterIP": "172.30.0.7"});
    assert_eq!(service(before, patch).unwrap(), after);
}

#[test]
fn null_for_what_is_not_there_leaves_nothing() {
    assert_eq!(
        service(json!({}), json!({"selector": {"a": null}, "type": null})).unwrap(),
        json!({"selector": {}})
    );
}

#[test]
fn service_ports_merge_by_port() {
    let before = json!({"ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}, {"port": 443, "name": "tls"}]});
    let patch = json!({"$setElementOrder/ports": [{"port": 80}, {"port": 443}],
        "ports": [{"port": 80, "targetPort": 8080}]});
    let after = json!({"ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080, "targetPort": 8080},
        {"port": 443, "name": "tls"}]});
    assert_eq!(service(before, patch).unwrap(), after);
}

#[test]
fn kubectl_apply_replaces_a_port() {
    let before = json!({"ports": [{"port": 80, "name": "http"}]});
    let patch = json!({"$setElementOrder/ports": [{"port": 81}],
        "ports": [{"name": "http", "port": 81, "targetPort": 80}, {"$patch": "delete", "port": 80}]});
    let after = json!({"ports": [{"name": "http", "port": 81, "targetPort": 80}]});
    assert_eq!(service(before, patch).unwrap(), after);
}

#[test]
fn kubectl_set_image_changes_one_container() {
    let before = json!({"containers": [{"name": "a", "image": "x:1", "env": [{"name": "K", "value": "1"}]},
        {"name": "b", "image": "y:1"}]});
    let patch = json!({"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
        "containers": [{"image": "y:2", "name": "b"}]});
    let after = json!({"containers": [{"name": "a", "image": "x:1", "env": [{"name": "K", "value": "1"}]},
        {"name": "b", "image": "y:2"}]});
    assert_eq!(template(before, patch).unwrap(), after);
}

#[test]
fn lists_inside_lists_merge_too() {
    let before = json!({"containers": [{"name": "a", "env": [{"name": "K", "value": "1"}, {"name": "L", "value": "2"}]}]});
    let patch = json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a",
        "$setElementOrder/env": [{"name": "M"}, {"name": "K"}],
        "env": [{"name": "M", "value": "3"}, {"$patch": "delete", "name": "L"}]}]});
    let after = json!({"containers": [{"name": "a", "env": [{"name": "M", "value": "3"}, {"name": "K", "value": "1"}]}]});
    assert_eq!(template(before, patch).unwrap(), after);
}

#[test]
fn atomic_lists_are_replaced() {
    let before = json!({"containers": [{"name": "a", "command": ["x", "y"]}], "tolerations": [{"key": "k"}]});
    let patch =
        json!({"containers": [{"name": "a", "command": ["z"]}], "tolerations": [{"key": "l"}]});
    let after =
        json!({"containers": [{"name": "a", "command": ["z"]}], "tolerations": [{"key": "l"}]});
    assert_eq!(template(before, patch).unwrap(), after);
}

#[test]
fn what_only_the_server_has_keeps_its_place() {
    let before = json!({"containers": [{"name": "sidecar"}, {"name": "a"}, {"name": "b"}, {"name": "late"}]});
    let patch = json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
        "containers": [{"name": "b", "image": "y"}]});
    let after = json!(["sidecar", "b", "a", "late"]);
    let merged = template(before, patch).unwrap();
    let names: Vec<Value> = merged["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|container| container["name"].clone())
        .collect();
    assert_eq!(Value::from(names), after);
}

#[test]
fn finalizers_are_a_set() {
    let before = json!({"metadata": {"finalizers": ["a", "b"]}});
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"],
        "$setElementOrder/finalizers": ["c", "b"], "finalizers": ["c"]}});
    let merged = strategic(kind("Pod"), &before, &patch).unwrap();
    assert_eq!(merged, json!({"metadata": {"finalizers": ["c", "b"]}}));
    let plain = strategic(
        kind("Pod"),
        &before,
        &json!({"metadata": {"finalizers": ["b", "d"]}}),
    )
    .unwrap();
    assert_eq!(plain, json!({"metadata": {"finalizers": ["a", "b", "d"]}}));
}

#[test]
fn retain_keys_clears_the_other_form() {
    let before = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    let merged = strategic(kind("Deployment"), &before, &patch).unwrap();
    assert_eq!(merged, json!({"spec": {"strategy": {"type": "Recreate"}}}));
    let volumes = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
    let patch = json!({"$setElementOrder/volumes": [{"name": "v"}],
        "volumes": [{"$retainKeys": ["configMap", "name"], "configMap": {"name": "c"}, "name": "v", "emptyDir": null}]});
    let after = json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}]});
    assert_eq!(template(volumes, patch).unwrap(), after);
}

#[test]
fn a_patch_can_replace_an_object_or_a_list() {
    let before = json!({"selector": {"a": "1"}, "ports": [{"port": 80}, {"port": 443}]});
    let patch = json!({"selector": {"$patch": "replace", "b": "2"}, "ports": [{"$patch": "replace"}, {"port": 81}]});
    let after = json!({"selector": {"b": "2"}, "ports": [{"port": 81}]});
    assert_eq!(service(before.clone(), patch).unwrap(), after);
    let deleted = service(before, json!({"selector": {"$patch": "delete"}})).unwrap();
    assert_eq!(deleted["selector"], json!({}));
}

#[test]
fn directives_are_not_stored_when_there_is_nothing_to_merge_with() {
    let patch = json!({"$setElementOrder/ports": [{"port": 80}], "ports": [{"port": 80}, {"$patch": "delete", "port": 81}],
        "sessionAffinityConfig": {"$retainKeys": ["clientIP"], "clientIP": {"timeoutSeconds": 5}}});
    let after = json!({"ports": [{"port": 80}], "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}});
    assert_eq!(service(json!({}), patch).unwrap(), after);
}

#[test]
fn kubelets_patch_conditions_by_type() {
    let before =
        json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "x"}]}});
    let patch = json!({"status": {"$setElementOrder/conditions": [{"type": "Initialized"}, {"type": "Ready"}],
        "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True", "reason": null}]}});
    let merged = strategic(kind("Pod"), &before, &patch).unwrap();
    assert_eq!(
        merged["status"]["conditions"],
        json!([{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}])
    );
}

#[test]
fn bad_patches_are_refused() {
    let before = json!({"ports": [{"port": 80}]});
    let cases = [
        (
            json!({"ports": [{"name": "x"}]}),
            r#"map: {"name":"x"} does not contain declared merge key: port"#,
        ),
        (
            json!({"ports": [{"$patch": "delete"}]}),
            "delete patch type with no merge key defined",
        ),
        (
            json!({"ports": [{"$patch": "x", "port": 80}]}),
            "unknown patch type found: x",
        ),
        (
            json!({"$setElementOrder/ports": 3}),
            "invalid patch format of setElementOrder list",
        ),
        (
            json!({"selector": {}, "$retainKeys": ["type"]}),
            "retainKeys list doesn't contain all fields present in the patch",
        ),
    ];
    for (patch, expected) in cases {
        assert_eq!(service(before.clone(), patch).unwrap_err(), expected);
    }
    let mismatch = json!({"$setElementOrder/ports": [{"port": 81}], "ports": [{"port": 80}]});
    assert!(
        service(before, mismatch)
            .unwrap_err()
            .starts_with("The order in patch list:")
    );
    assert!(strategic(kind("Service"), &json!({}), &json!([])).is_err());
}
