//! The defaults of pods and of pod templates.

use serde_json::{Value, json};

use crate::kinds::read::{items_mut, set_default, text};

/// Fills in what a pod leaves open.
pub fn default(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    default_spec(spec);
    set_default(spec, "enableServiceLinks", true);
    for container in items_mut(spec, "containers") {
        requests_from_limits(container);
    }
    for container in items_mut(spec, "initContainers") {
        requests_from_limits(container);
    }
    set_default(spec, "preemptionPolicy", "PreemptLowerPriority");
    set_default(spec, "priority", 0);
}

/// Fills in what the pod template of a workload leaves open.
pub fn default_template(template: &mut Value) {
    if let Some(spec) = template.get_mut("spec").filter(|spec| spec.is_object()) {
        default_spec(spec);
    }
}

fn default_spec(spec: &mut Value) {
    set_default(spec, "restartPolicy", "Always");
    set_default(spec, "terminationGracePeriodSeconds", 30);
    set_default(spec, "dnsPolicy", "ClusterFirst");
    set_default(spec, "securityContext", json!({}));
    set_default(spec, "schedulerName", "default-scheduler");
    let service_account = match text(&spec["serviceAccountName"]) {
        "" => text(&spec["serviceAccount"]).to_owned(),
        name => name.to_owned(),
    };
    if !service_account.is_empty() {
        spec["serviceAccountName"] = json!(service_account);
        spec["serviceAccount"] = json!(service_account);
    }
    let host_network = spec["hostNetwork"] == true;
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items_mut(spec, list) {
            default_container(container, host_network);
        }
    }
    for volume in items_mut(spec, "volumes") {
        default_volume(volume);
    }
}

fn default_container(container: &mut Value, host_network: bool) {
    if !container.is_object() {
        return;
    }
    set_default(container, "terminationMessagePath", "/dev/termination-log");
    set_default(container, "terminationMessagePolicy", "File");
    let policy = pull_policy(text(&container["image"]));
    set_default(container, "imagePullPolicy", policy);
    set_default(container, "resources", json!({}));
    for port in items_mut(container, "ports") {
        set_default(port, "protocol", "TCP");
        if host_network && let Some(number) = port.get("containerPort").cloned() {
            set_default(port, "hostPort", number);
        }
    }
    for variable in items_mut(container, "env") {
        if let Some(source) = variable
            .get_mut("valueFrom")
            .and_then(|from| from.get_mut("fieldRef"))
        {
            set_default(source, "apiVersion", "v1");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).filter(|probe| probe.is_object()) {
            default_probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(action) = container
            .get_mut("lifecycle")
            .and_then(|lifecycle| lifecycle.get_mut(hook))
        {
            default_http_get(action);
        }
    }
}

/// An image whose tag may move is pulled always, another only if it is not there.
fn pull_policy(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

fn default_probe(probe: &mut Value) {
    set_default(probe, "timeoutSeconds", 1);
    set_default(probe, "periodSeconds", 10);
    set_default(probe, "successThreshold", 1);
    set_default(probe, "failureThreshold", 3);
    for key in [
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        if probe[key] == 0 {
            probe[key] = json!(match key {
                "periodSeconds" => 10,
                "failureThreshold" => 3,
                _ => 1,
            });
        }
    }
    default_http_get(probe);
    if let Some(grpc) = probe.get_mut("grpc").filter(|grpc| grpc.is_object())
        && grpc.get("service").is_none_or(Value::is_null)
    {
        grpc["service"] = json!("");
    }
}

fn default_http_get(action: &mut Value) {
    if let Some(get) = action.get_mut("httpGet").filter(|get| get.is_object()) {
        set_default(get, "path", "/");
        set_default(get, "scheme", "HTTP");
    }
}

fn default_volume(volume: &mut Value) {
    const FILE_MODE: i64 = 0o644;
    if !volume.is_object() {
        return;
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source).filter(|source| source.is_object()) {
            set_default(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(path) = volume.get_mut("hostPath").filter(|path| path.is_object())
        && path.get("type").is_none_or(Value::is_null)
    {
        path["type"] = json!("");
    }
}

/// What a container limits it also requests, unless it says otherwise.
fn requests_from_limits(container: &mut Value) {
    let Some(limits) = container["resources"]["limits"].as_object().cloned() else {
        return;
    };
    set_default(&mut container["resources"], "requests", json!({}));
    for (resource, quantity) in limits {
        set_default(&mut container["resources"]["requests"], &resource, quantity);
    }
}
