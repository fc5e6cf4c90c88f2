//! What a pod knows of names: its host name, /etc/hosts, /etc/resolv.conf and the Service variables.

use crate::{Lab, wait_until};

const PODS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: my-db}
spec: {clusterIP: 172.30.0.77, ports: [{name: sql, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: kube-public}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: full}
spec:
  hostname: front
  subdomain: web
  setHostnameAsFQDN: true
  hostAliases: [{ip: 192.0.2.9, hostnames: [first.example, second.example]}]
  dnsPolicy: None
  dnsConfig:
    nameservers: [192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4]
    searches: [one.example, two.example]
    options: [{name: ndots, value: "2"}, {name: edns0}]
  containers:
  - {name: run, image: none, command: [sh, -c, "exec sleep infinity"]}
---
apiVersion: v1
kind: Pod
metadata: {name: alone}
spec:
  enableServiceLinks: false
  containers:
  - name: run
    image: none
    command: [sh, -c, "exec sleep infinity"]
    env: [{name: KUBERNETES_PORT, value: mine}]
"#;

#[test]
fn a_pod_finds_what_the_kubelet_would_have_told_it() {
    let lab = Lab::up_with(None, PODS);
    let inside = |pod: &str, script: &str| {
        lab.until(&["exec", pod, "--", "true"], |_| true);
        lab.must(&["exec", pod, "--", "sh", "-c", script])
    };
    assert_eq!(
        inside("full", "hostname; cat /etc/hostname; echo $HOSTNAME"),
        { "front.web.default.svc.cluster.local\n".repeat(3) }
    );
    assert_eq!(
        inside("full", "cat /etc/resolv.conf"),
        "search one.example two.example\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n\
         nameserver 192.0.2.3\noptions ndots:2 edns0\n"
    );
    let hosts = inside("full", "cat /etc/hosts");
    assert!(
        hosts.contains("\tfront.web.default.svc.cluster.local\tfront\n"),
        "{hosts}"
    );
    assert!(
        hosts.ends_with("192.0.2.9\tfirst.example\tsecond.example\n"),
        "{hosts}"
    );
    wait_until("an event about the fourth name server", || {
        let events = lab.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"]);
        events.contains("the applied nameserver line is: 192.0.2.1 192.0.2.2 192.0.2.3")
    });

    // `portolan env` tells the same as a pod that has started, and what is not told is not there.
    let told = |namespace: &str, more: &[&str]| lab.portolan(&["env", namespace], more);
    let mut variables = inside("full", "env");
    variables.push('\n');
    let of_default = told("default", &[]);
    assert!(
        of_default.contains("MY_DB_PORT=tcp://172.30.0.77:5432\n"),
        "{of_default}"
    );
    for line in of_default.lines() {
        assert!(variables.contains(&format!("{line}\n")), "{line}");
    }
    let links = |text: &str| text.matches("_SERVICE_HOST=").count();
    assert_eq!(links(&variables), links(&of_default), "{variables}");
    let alone = inside("alone", "env");
    let without = told("default", &["--enable-service-links", "false"]);
    assert_eq!(links(&alone), 1, "{alone}");
    assert_eq!(links(&without), 1, "{without}");
    assert!(
        alone.contains("\nKUBERNETES_PORT=mine\n") || alone.starts_with("KUBERNETES_PORT=mine\n")
    );
    assert!(told("kube-public", &[]).contains("OTHER_SERVICE_PORT=80\n"));
    let json: serde_json::Value = serde_json::from_str(&told("default", &["-o", "json"])).unwrap();
    let names = json.as_array().unwrap().iter();
    let names: Vec<_> = names.map(|variable| &variable["name"]).collect();
    assert_eq!(names.len(), of_default.lines().count());
    assert!(told("default", &["-o", "yaml"]).starts_with("- name: KUBERNETES_SERVICE_HOST\n"));
    let unknown = lab.run_portolan(&["env", "nowhere"], &[]);
    let why = String::from_utf8_lossy(&unknown.stderr);
    assert!(why.contains("there is no namespace \"nowhere\""), "{why}");
}
