//! What a person types, with the real kubectl.
//!
//! `PORTOLAN_TEST_KUBECTL` may name another kubectl (an older one), which then does the everyday commands too.

use std::io::{BufRead, BufReader};

use crate::cluster::{Cluster, assert_has, eventually};

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: one, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue}
"#;

#[test]
fn everyday_commands() {
    everyday("kubectl");
}

#[test]
fn everyday_commands_of_another_kubectl() {
    match std::env::var("PORTOLAN_TEST_KUBECTL") {
        Ok(program) => everyday(&program),
        Err(_) => eprintln!(
            "PORTOLAN_TEST_KUBECTL names no other kubectl: only the one in PATH was tested"
        ),
    }
}

fn everyday(program: &str) {
    let cluster = Cluster::start();
    let run = |arguments: &[&str], input: &str| {
        let (good, text) = cluster.run(program, arguments, input);
        assert!(good, "{program} {arguments:?}: {text}");
        text
    };
    assert_has(&run(&["api-resources"], ""), "deploy");
    assert_has(
        &run(&["apply", "-f", "-"], WEB),
        "deployment.apps/web created",
    );
    assert_has(
        &run(&["apply", "-f", "-"], WEB),
        "configmap/settings unchanged",
    );
    let changed = WEB
        .replace("blue", "red")
        .replace("image: one", "image: two");
    assert_has(
        &run(&["apply", "-f", "-"], &changed),
        "deployment.apps/web configured",
    );
    assert_has(&run(&["get", "deploy", "-o", "wide"], ""), "two");
    assert_has(
        &run(&["get", "cm", "settings", "-o", "yaml"], ""),
        "colour: red",
    );
    assert_has(&run(&["describe", "deploy", "web"], ""), "2 desired");
    assert_has(
        &run(&["explain", "deployment.spec.replicas"], ""),
        "desired pods",
    );
    run(&["label", "cm", "settings", "tier=front"], "");
    assert_has(
        &run(&["get", "cm", "-l", "tier in (front)", "-o", "name"], ""),
        "configmap/settings",
    );
    run(&["annotate", "cm", "settings", "note=x"], "");
    run(&["scale", "deploy", "web", "--replicas=5"], "");
    assert_has(
        &run(
            &["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"],
            "",
        ),
        "5",
    );
    run(
        &[
            "patch",
            "deploy",
            "web",
            "-p",
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"d","image":"x"}]}}}}"#,
        ],
        "",
    );
    let images = [
        "get",
        "deploy",
        "web",
        "-o",
        "jsonpath={.spec.template.spec.containers[*].name}",
    ];
    assert_has(&run(&images, ""), "d c");
    run(
        &[
            "patch",
            "cm",
            "settings",
            "--type=merge",
            "-p",
            r#"{"data":{"colour":null,"size":"1"}}"#,
        ],
        "",
    );
    let json = r#"[{"op":"test","path":"/data/size","value":"1"},{"op":"add","path":"/data/a","value":"b"}]"#;
    run(&["patch", "cm", "settings", "--type=json", "-p", json], "");
    assert_has(
        &run(&["get", "cm", "settings", "-o", "jsonpath={.data}"], ""),
        r#""a":"b""#,
    );
    run(&["create", "configmap", "more", "--from-literal=k=v"], "");
    run(&["create", "deployment", "other", "--image=x"], "");
    assert_has(&run(&["get", "all"], ""), "deployment.apps/other");
    assert_has(&run(&["delete", "-f", "-"], WEB), "deleted");
    assert_has(&run(&["get", "cm", "-o", "name"], ""), "configmap/more");
}

#[test]
fn refusals_in_the_real_words() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "cm", "a", "--from-literal=x=1"]);
    let text = cluster.refused(&["get", "pods", "x"], "");
    assert_has(&text, "Error from server (NotFound): pods \"x\" not found");
    let text = cluster.refused(&["get", "deploy", "x"], "");
    assert_has(
        &text,
        "Error from server (NotFound): deployments.apps \"x\" not found",
    );
    let text = cluster.refused(&["create", "cm", "a"], "");
    assert_has(&text, "configmaps \"a\" already exists");
    let text = cluster.refused(&["-n", "nope", "create", "cm", "a"], "");
    assert_has(&text, "namespaces \"nope\" not found");
    let text = cluster.refused(&["delete", "ns", "default"], "");
    assert_has(
        &text,
        "namespaces \"default\" is forbidden: this namespace may not be deleted",
    );
    let text = cluster.refused(
        &["apply", "-f", "-"],
        &WEB.replace("replicas: 2", "replicas: 2\n  bogus: 1"),
    );
    assert_has(&text, "strict decoding error: unknown field \"spec.bogus\"");
    let text = cluster.refused(
        &["apply", "-f", "-"],
        &WEB.replace("replicas: 2", "replicas: two"),
    );
    assert_has(
        &text,
        "cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    let text = cluster.refused(&["apply", "--server-side", "-f", "-"], WEB);
    assert_has(&text, "application/strategic-merge-patch+json");
}

#[test]
fn old_version_conflicts() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "cm", "a", "--from-literal=x=1"]);
    let old = cluster.kubectl(&["get", "cm", "a", "-o", "json"]);
    cluster.kubectl(&["label", "cm", "a", "k=v"]);
    let text = cluster.refused(&["replace", "-f", "-"], &old);
    assert_has(
        &text,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes \
         to the latest version and try again",
    );
}

#[test]
fn edit_with_an_editor() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "cm", "a", "--from-literal=colour=blue"]);
    let mut edit = cluster.command("kubectl", &["edit", "cm", "a"]);
    let output = edit
        .env("KUBE_EDITOR", "sed -i s/blue/green/")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_has(
        &cluster.kubectl(&["get", "cm", "a", "-o", "yaml"]),
        "colour: green",
    );
}

#[test]
fn get_watch_follows() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "cm", "first"]);
    let mut watch = cluster.spawn(&["get", "cm", "-w", "--output-watch-events"]);
    let mut lines = BufReader::new(watch.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut until = |part: &str| {
        lines
            .find(|line| line.contains(part))
            .unwrap_or_else(|| panic!("no {part}"))
    };
    assert_has(&until("first"), "ADDED");
    cluster.kubectl(&["create", "cm", "second"]);
    assert_has(&until("second"), "ADDED");
    cluster.kubectl(&["label", "cm", "second", "k=v"]);
    assert_has(&until("second"), "MODIFIED");
    cluster.kubectl(&["delete", "cm", "second"]);
    assert_has(&until("second"), "DELETED");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn dry_run_stores_nothing() {
    let cluster = Cluster::start();
    assert_has(
        &cluster.kubectl_with(&["apply", "--dry-run=server", "-f", "-"], WEB),
        "(server dry run)",
    );
    cluster.refused(&["get", "deploy", "web"], "");
}

#[test]
fn namespace_takes_its_contents_along() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "ns", "shop"]);
    cluster.kubectl_with(&["-n", "shop", "apply", "-f", "-"], WEB);
    cluster.kubectl(&["delete", "ns", "shop"]);
    cluster.refused(&["get", "ns", "shop"], "");
    cluster.kubectl(&["create", "ns", "shop"]);
    assert_has(
        &cluster.kubectl(&["-n", "shop", "get", "deploy,cm"]),
        "No resources found",
    );
}

/// Nothing new comes into a namespace that a finalizer still holds.
#[test]
fn terminating_namespace_takes_nothing_new() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "ns", "shop"]);
    cluster.kubectl(&["-n", "shop", "create", "cm", "held"]);
    let finalizer = r#"{"metadata":{"finalizers":["example.com/hold"]}}"#;
    cluster.kubectl(&[
        "-n",
        "shop",
        "patch",
        "cm",
        "held",
        "--type=merge",
        "-p",
        finalizer,
    ]);
    cluster.kubectl(&["delete", "ns", "shop", "--wait=false"]);
    let text = cluster.refused(&["-n", "shop", "create", "cm", "new"], "");
    assert_has(
        &text,
        "unable to create new content in namespace shop because it is being terminated",
    );
    assert_has(&cluster.kubectl(&["get", "ns", "shop"]), "Terminating");
    let none = r#"{"metadata":{"finalizers":null}}"#;
    cluster.kubectl(&[
        "-n",
        "shop",
        "patch",
        "cm",
        "held",
        "--type=merge",
        "-p",
        none,
    ]);
    eventually("the namespace is gone", || {
        !cluster.run("kubectl", &["get", "ns", "shop"], "").0
    });
}

#[test]
fn dependents_follow_their_owner() {
    let cluster = Cluster::start();
    for (policy, stays) in [
        ("background", false),
        ("foreground", false),
        ("orphan", true),
    ] {
        cluster.kubectl(&["create", "cm", "owner"]);
        let uid = cluster.kubectl(&["get", "cm", "owner", "-o", "jsonpath={.metadata.uid}"]);
        let dependent = format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"dependent","ownerReferences":[
            {{"apiVersion":"v1","kind":"ConfigMap","name":"owner","uid":"{uid}","blockOwnerDeletion":true}}]}}}}"#
        );
        cluster.kubectl_with(&["create", "-f", "-"], &dependent);
        cluster.kubectl(&["delete", "cm", "owner", &format!("--cascade={policy}")]);
        let owners = [
            "get",
            "cm",
            "dependent",
            "-o",
            "jsonpath=owners:{.metadata.ownerReferences}",
        ];
        if stays {
            eventually("the dependent has forgotten its owner", || {
                cluster.run("kubectl", &owners, "") == (true, "owners:".to_owned())
            });
        } else {
            eventually("the dependent is gone", || {
                !cluster.run("kubectl", &owners, "").0
            });
        }
    }
}

#[test]
fn strangers_are_refused() {
    let cluster = Cluster::start();
    let kubeconfig = std::fs::read_to_string(cluster.home().join("kubeconfig")).unwrap();
    let nobody: String = kubeconfig
        .lines()
        .filter(|line| !line.contains("client-"))
        .map(|line| format!("{line}\n"))
        .collect();
    let nobody = nobody.replace("user:\n", "user: {token: wrong}\n");
    let path = cluster.home().join("nobody");
    std::fs::write(&path, nobody).unwrap();
    let as_nobody = |path: &str| {
        let kubeconfig = cluster.home().join("nobody");
        let arguments = [
            "--kubeconfig",
            kubeconfig.to_str().unwrap(),
            "get",
            "--raw",
            path,
        ];
        cluster.run("kubectl", &arguments, "")
    };
    let (good, text) = as_nobody("/api/v1/pods");
    assert!(!good);
    assert_has(&text, "Unauthorized");
    let (good, text) = as_nobody("/healthz");
    assert!(good, "{text}");
}
