//! The columns of `kubectl get pods`: above all STATUS, which sums up phase, conditions and containers.

use serde_json::{Value, json};

use crate::kinds::age::{human, seconds};
use crate::kinds::read::{age, items, name, number, text, text_or};

/// The cells of one pod.
pub fn row(pod: &Value, now: i64) -> Vec<Value> {
    let summary = summarize(pod);
    let restarts = match summary.restarts.last {
        Some(then) if summary.restarts.count > 0 => {
            format!("{} ({} ago)", summary.restarts.count, human(now - then))
        }
        _ => summary.restarts.count.to_string(),
    };
    let ip = items(&pod["status"]["podIPs"])
        .first()
        .map_or("<none>", |ip| text_or(&ip["ip"], "<none>"));
    vec![
        name(pod),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.status),
        json!(restarts),
        age(pod, now),
        json!(ip),
        json!(text_or(&pod["spec"]["nodeName"], "<none>")),
        json!(text_or(&pod["status"]["nominatedNodeName"], "<none>")),
        json!(readiness_gates(pod)),
    ]
}

struct Summary {
    status: String,
    ready: usize,
    total: usize,
    restarts: Restarts,
}

/// How often containers were restarted, and when the last of them ended (seconds since the epoch).
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<i64>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += number(&status["restartCount"]);
        self.last = self
            .last
            .max(seconds(&status["lastState"]["terminated"]["finishedAt"]));
    }
}

fn summarize(pod: &Value) -> Summary {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let conditions = items(&status["conditions"]);
    let sidecars = items(&spec["initContainers"])
        .iter()
        .filter(|container| is_sidecar(container))
        .count();
    let mut summary = Summary {
        status: text_or(&status["reason"], text(&status["phase"])).to_owned(),
        ready: 0,
        total: items(&spec["containers"]).len() + sidecars,
        restarts: Restarts::default(),
    };
    let gated = |condition: &Value| {
        condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated"
    };
    if conditions.iter().any(gated) {
        summary.status = "SchedulingGated".to_owned();
    }
    let initializing = init_containers(pod, &mut summary);
    if !initializing || is_true(conditions, "Initialized") {
        containers(pod, &mut summary);
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        if status["reason"] == "NodeLost" {
            summary.status = "Unknown".to_owned();
        } else if !matches!(text(&status["phase"]), "Succeeded" | "Failed") {
            summary.status = "Terminating".to_owned();
        }
    }
    summary
}

/// Goes through the init containers up to the first that is not done, which gives the status. Whether there is one.
fn init_containers(pod: &Value, summary: &mut Summary) -> bool {
    let specs = items(&pod["spec"]["initContainers"]);
    let mut of_sidecars = Restarts::default();
    for (index, status) in items(&pod["status"]["initContainerStatuses"])
        .iter()
        .enumerate()
    {
        let sidecar = specs
            .iter()
            .any(|spec| spec["name"] == status["name"] && is_sidecar(spec));
        summary.restarts.add(status);
        if sidecar {
            of_sidecars.add(status);
        }
        let state = &status["state"];
        let (terminated, waiting) = (&state["terminated"], text(&state["waiting"]["reason"]));
        if terminated.is_object() && number(&terminated["exitCode"]) == 0 {
            continue;
        }
        if sidecar && status["started"] == true {
            summary.ready += usize::from(status["ready"] == true);
            continue;
        }
        summary.status = if terminated.is_object() {
            format!("Init:{}", end(terminated))
        } else if !matches!(waiting, "" | "PodInitializing") {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", specs.len())
        };
        return true;
    }
    summary.restarts = of_sidecars;
    false
}

/// The first container that waits or has ended gives the status.
fn containers(pod: &Value, summary: &mut Summary) {
    let mut running = false;
    for status in items(&pod["status"]["containerStatuses"]).iter().rev() {
        summary.restarts.add(status);
        let state = &status["state"];
        let waiting = text(&state["waiting"]["reason"]);
        if !waiting.is_empty() {
            summary.status = waiting.to_owned();
        } else if state["terminated"].is_object() {
            summary.status = end(&state["terminated"]);
        } else if status["ready"] == true && state["running"].is_object() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.status == "Completed" && running {
        let ready = is_true(items(&pod["status"]["conditions"]), "Ready");
        summary.status = if ready { "Running" } else { "NotReady" }.to_owned();
    }
}

/// Why a container ended: its reason, or the signal, or the exit code.
fn end(terminated: &Value) -> String {
    match (text(&terminated["reason"]), number(&terminated["signal"])) {
        ("", 0) => format!("ExitCode:{}", number(&terminated["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// An init container that keeps running beside the others.
fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn is_true(conditions: &[Value], kind: &str) -> bool {
    conditions
        .iter()
        .any(|condition| condition["type"] == kind && condition["status"] == "True")
}

fn readiness_gates(pod: &Value) -> String {
    let gates = items(&pod["spec"]["readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let conditions = items(&pod["status"]["conditions"]);
    let open = gates
        .iter()
        .filter(|gate| is_true(conditions, text(&gate["conditionType"])))
        .count();
    format!("{open}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NAME READY STATUS RESTARTS AGE of a pod made from these parts, 10 minutes after the epoch.
    fn cells(spec: Value, status: Value, deleted: bool) -> String {
        let mut pod =
            json!({"metadata": {"name": "p", "creationTimestamp": "1970-01-01T00:00:00Z"}});
        pod["spec"] = spec;
        pod["status"] = status;
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:10:00Z");
        }
        row(&pod, 600)[..5]
            .iter()
            .map(text)
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn one() -> Value {
        json!({"containers": [{"name": "a"}]})
    }

    #[test]
    fn a_pod_that_waits_for_its_node() {
        assert_eq!(
            cells(one(), json!({"phase": "Pending"}), false),
            "p 0/1 Pending 0 10m"
        );
        let gated = json!({"phase": "Pending",
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]});
        assert_eq!(cells(one(), gated, false), "p 0/1 SchedulingGated 0 10m");
    }

    #[test]
    fn containers_give_the_status() {
        let with = |state: Value, ready: bool| json!({"phase": "Running", "containerStatuses": [{"name": "a", "ready": ready, "state": state}]});
        let creating = with(json!({"waiting": {"reason": "ContainerCreating"}}), false);
        assert_eq!(
            cells(one(), creating, false),
            "p 0/1 ContainerCreating 0 10m"
        );
        let running = with(json!({"running": {}}), true);
        assert_eq!(cells(one(), running.clone(), false), "p 1/1 Running 0 10m");
        assert_eq!(cells(one(), running, true), "p 1/1 Terminating 0 10m");
        let failed = with(
            json!({"terminated": {"exitCode": 3, "reason": "Error"}}),
            false,
        );
        assert_eq!(cells(one(), failed, false), "p 0/1 Error 0 10m");
        let code = with(json!({"terminated": {"exitCode": 3}}), false);
        assert_eq!(cells(one(), code, false), "p 0/1 ExitCode:3 0 10m");
        let signal = with(json!({"terminated": {"exitCode": 137, "signal": 9}}), false);
        assert_eq!(cells(one(), signal, false), "p 0/1 Signal:9 0 10m");
    }

    #[test]
    fn restarts_say_when() {
        let status = json!({"phase": "Running", "containerStatuses": [{"name": "a", "ready": false, "restartCount": 4,
            "lastState": {"terminated": {"finishedAt": "1970-01-01T00:05:00Z"}},
            "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]});
        assert_eq!(
            cells(one(), status, false),
            "p 0/1 CrashLoopBackOff 4 (5m ago) 10m"
        );
    }

    #[test]
    fn a_finished_pod_is_completed_even_while_it_goes() {
        let status = json!({"phase": "Succeeded", "containerStatuses": [{"name": "a",
            "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]});
        assert_eq!(cells(one(), status.clone(), false), "p 0/1 Completed 0 10m");
        assert_eq!(cells(one(), status, true), "p 0/1 Completed 0 10m");
    }

    #[test]
    fn one_of_two_containers_is_done() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let status = |ready: &str| {
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}], "containerStatuses": [
                {"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
                {"name": "b", "ready": true, "state": {"running": {}}}]})
        };
        assert_eq!(
            cells(spec.clone(), status("False"), false),
            "p 1/2 NotReady 0 10m"
        );
        assert_eq!(cells(spec, status("True"), false), "p 1/2 Running 0 10m");
    }

    #[test]
    fn init_containers_come_first() {
        let spec = json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]});
        let with = |statuses: Value| json!({"phase": "Pending", "initContainerStatuses": statuses});
        let waiting = json!({"waiting": {"reason": "PodInitializing"}});
        let first =
            with(json!([{"name": "i", "state": {"running": {}}}, {"name": "j", "state": waiting}]));
        assert_eq!(cells(spec.clone(), first, false), "p 0/1 Init:0/2 0 10m");
        let done = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
        let second = with(json!([{"name": "i", "state": done}, {"name": "j", "state": waiting}]));
        assert_eq!(cells(spec.clone(), second, false), "p 0/1 Init:1/2 0 10m");
        let broken = with(json!([{"name": "i", "restartCount": 2,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]));
        assert_eq!(
            cells(spec.clone(), broken, false),
            "p 0/1 Init:CrashLoopBackOff 2 10m"
        );
        let failed = with(
            json!([{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]),
        );
        assert_eq!(cells(spec, failed, false), "p 0/1 Init:Error 0 10m");
    }

    #[test]
    fn sidecars_count_as_containers() {
        let spec = json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "a"}]});
        let status = json!({"phase": "Running",
            "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 1,
                "state": {"running": {}}}],
            "containerStatuses": [{"name": "a", "ready": true, "state": {"running": {}}}]});
        assert_eq!(cells(spec, status, false), "p 2/2 Running 1 10m");
    }

    #[test]
    fn wide_columns() {
        let pod = json!({"metadata": {"name": "p"},
            "spec": {"nodeName": "n1", "readinessGates": [{"conditionType": "x"}, {"conditionType": "y"}]},
            "status": {"podIPs": [{"ip": "10.1.0.5"}, {"ip": "fd00:10:1::5"}],
                "conditions": [{"type": "x", "status": "True"}]}});
        let wide: Vec<String> = row(&pod, 0)[5..]
            .iter()
            .map(|cell| text(cell).to_owned())
            .collect();
        assert_eq!(wide, ["10.1.0.5", "n1", "<none>", "1/2"]);
    }
}
