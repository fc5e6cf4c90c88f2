//! Defaults, preparation and validation of pods.

use serde_json::{Value, json};

use super::KIND;
use crate::kinds::check::tests::{changed, created};

fn with(container: Value) -> Value {
    let mut full = json!({"name": "a", "image": "x"});
    for (key, value) in container.as_object().unwrap() {
        full[key] = value.clone();
    }
    json!({"spec": {"containers": [full]}})
}

#[test]
fn defaults_are_those_of_the_api() {
    let mut pod = with(
        json!({"image": "r.example/x:1", "ports": [{"containerPort": 80}],
        "readinessProbe": {"httpGet": {"port": 80}},
        "resources": {"limits": {"cpu": "1"}},
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}),
    );
    (KIND.default)(&mut pod);
    let spec = &pod["spec"];
    assert_eq!(spec["restartPolicy"], "Always");
    assert_eq!(spec["dnsPolicy"], "ClusterFirst");
    assert_eq!(spec["terminationGracePeriodSeconds"], 30);
    assert_eq!(spec["schedulerName"], "default-scheduler");
    assert_eq!(spec["enableServiceLinks"], true);
    let container = &spec["containers"][0];
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(container["terminationMessagePath"], "/dev/termination-log");
    assert_eq!(container["ports"][0]["protocol"], "TCP");
    assert_eq!(container["resources"]["requests"]["cpu"], "1");
    assert_eq!(
        container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"],
        "v1"
    );
    let probe = json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
        "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3});
    assert_eq!(container["readinessProbe"], probe);
}

#[test]
fn an_image_that_may_move_is_pulled_always() {
    for (image, policy) in [
        ("x", "Always"),
        ("x:latest", "Always"),
        ("r:5000/x", "Always"),
        ("x:1", "IfNotPresent"),
        ("x@sha256:ab", "IfNotPresent"),
    ] {
        let mut pod = with(json!({"image": image}));
        (KIND.default)(&mut pod);
        assert_eq!(
            pod["spec"]["containers"][0]["imagePullPolicy"], policy,
            "{image}"
        );
    }
}

#[test]
fn a_new_pod_is_pending_and_has_a_class() {
    let class = |resources: Value| {
        let mut pod = with(json!({"resources": resources}));
        (KIND.default)(&mut pod);
        (KIND.prepare)(&mut pod, None);
        assert_eq!(pod["status"]["phase"], "Pending");
        pod["status"]["qosClass"].as_str().unwrap().to_owned()
    };
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
    assert_eq!(
        class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})),
        "Guaranteed"
    );
}

#[test]
fn a_plain_pod_passes() {
    assert_eq!(created(&KIND, with(json!({}))), [""; 0]);
    let full = json!({"spec": {"containers": [{"name": "a", "image": "x", "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "livenessProbe": {"tcpSocket": {"port": "http"}}, "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}}],
        "volumes": [{"name": "v", "emptyDir": {}}], "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a.b"]}]}});
    assert_eq!(created(&KIND, full), [""; 0]);
}

#[test]
fn what_a_pod_can_get_wrong() {
    let cases = [
        (json!({"spec": {}}), "spec.containers: Required value"),
        (
            with(json!({"image": ""})),
            "spec.containers[0].image: Required value",
        ),
        (
            with(json!({"image": " x"})),
            "spec.containers[0].image: Invalid value: \" x\": must not have leading or trailing whitespace",
        ),
        (
            with(json!({"ports": [{"containerPort": 70000}]})),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            with(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        ),
        (
            with(json!({"livenessProbe": {}})),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            with(json!({"livenessProbe": {"tcpSocket": {"port": 80}, "successThreshold": 2}})),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            with(json!({"readinessProbe": {"exec": {"command": []}}})),
            "spec.containers[0].readinessProbe.exec.command: Required value",
        ),
        (
            with(
                json!({"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}),
            ),
            "spec.containers[0].resources.requests[memory]: Invalid value: \"2Gi\": must be less than or equal to memory \
             limit of 1Gi",
        ),
        (
            json!({"spec": {"restartPolicy": "Sometimes", "containers": [{"name": "a", "image": "x"}]}}),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\"",
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "a", "image": "y"}]}}),
            "spec.containers[1].name: Duplicate value: \"a\"",
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "image": "x"}], "volumes": [{"name": "v"}]}}),
            "spec.volumes[0]: Required value: must specify a volume type",
        ),
    ];
    for (pod, expected) in cases {
        assert_eq!(created(&KIND, pod), [expected]);
    }
}

#[test]
fn updates_change_images_and_little_else() {
    let free = |change: fn(&mut Value)| changed(&KIND, with(json!({})), change);
    assert!(free(|pod| pod["spec"]["containers"][0]["image"] = json!("y")).is_empty());
    assert!(free(|pod| pod["spec"]["activeDeadlineSeconds"] = json!(5)).is_empty());
    assert!(free(|pod| pod["spec"]["tolerations"] = json!([{"key": "a"}])).is_empty());
    assert!(
        free(|pod| pod["spec"]["nodeName"] = json!("n1")).is_empty(),
        "a binding"
    );
    assert!(free(|pod| pod["metadata"]["labels"] = json!({"a": "b"})).is_empty());
    let errors = free(|pod| pod["spec"]["containers"][0]["command"] = json!(["x"]));
    assert_eq!(
        errors,
        [
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
          `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
          tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n\
          - spec.containers[0].command: null\n+ spec.containers[0].command: [\"x\"]\n"
        ]
    );
    let added = free(|pod| {
        pod["spec"]["containers"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "b", "image": "x"}))
    });
    assert_eq!(
        added,
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
}

#[test]
fn a_bound_pod_stays_where_it_is() {
    let mut pod = with(json!({}));
    pod["spec"]["nodeName"] = json!("n1");
    let errors = changed(&KIND, pod, |pod| pod["spec"]["nodeName"] = json!("n2"));
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("- spec.nodeName: \"n1\"\n+ spec.nodeName: \"n2\""));
}

#[test]
fn status_writes_change_only_the_status() {
    let mut old = with(json!({}));
    old["metadata"] = json!({"name": "p", "resourceVersion": "1", "uid": "u"});
    (KIND.default)(&mut old);
    (KIND.prepare)(&mut old, None);
    let mut new = old.clone();
    new["spec"]["nodeName"] = json!("elsewhere");
    new["metadata"]["uid"] = json!("v");
    new["status"] = json!({"phase": "Running", "qosClass": "Guaranteed"});
    (KIND.prepare_status)(&mut new, &old);
    assert_eq!(new["spec"], old["spec"]);
    assert_eq!(new["metadata"]["uid"], "u");
    assert_eq!(
        new["status"],
        json!({"phase": "Running", "qosClass": "BestEffort"})
    );
}
