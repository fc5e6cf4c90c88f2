//! The front door of a lab: Ingresses at 203.0.113.1, from the first second and after the gateway has died.

use crate::{Lab, NOBODY, kill, wait_until};

const SHOP: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: web, image: portolan/echo, args: ["--drain", "0"]}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  rules:
  - host: shop.apps.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {name: http}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: broken}
spec:
  rules:
  - host: broken.apps.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: nobody, port: {name: http}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: others}
spec:
  ingressClassName: somebody-else
  defaultBackend: {service: {name: web, port: {name: http}}}
"#;

/// What curl says of a URL, in the network of `outside` or in the pod: status, protocol version, and the body.
fn curl(lab: &Lab, from: &[&str], arguments: &[&str]) -> String {
    let curl = [
        "--",
        "curl",
        "--silent",
        "--max-time",
        "10",
        "--noproxy",
        "*",
    ];
    let json = ["--header", "Accept: application/json"];
    let show = ["--write-out", "\n%{http_code} %{http_version}"];
    let output = lab.run(&[from, &curl, &json, &show, arguments].concat());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn is_served(lab: &Lab) -> bool {
    curl(lab, &["outside"], &["http://shop.apps.example/x"]).ends_with("\n200 1.1")
}

fn serve(user: Option<u32>) {
    let lab = Lab::up_with(user, SHOP);
    // `lab up` has waited for all of this.
    let of = |name: &str, path: &str| {
        let path = format!("jsonpath={path}");
        lab.kubectl(&["get", "ingress", name, "-o", &path])
    };
    let ips = "{.status.loadBalancer.ingress[*].ip}";
    assert_eq!(of("web", ips), "203.0.113.1 2001:db8:113::1");
    assert_eq!(of("web", "{.spec.ingressClassName}"), "portolan");
    assert_eq!(of("others", ips), "");
    wait_until("the first answer", || is_served(&lab));

    for (from, arguments) in [
        (&["outside"][..], &["-4", "http://shop.apps.example/x"][..]),
        (&["outside"], &["-6", "http://shop.apps.example/x"]),
        (&["exec", "web"], &["http://shop.apps.example/x"]),
    ] {
        let said = curl(&lab, from, arguments);
        assert!(
            said.contains(r#""pod":"web""#),
            "{from:?} {arguments:?}: {said}"
        );
        assert!(
            said.ends_with("\n200 1.1"),
            "{from:?} {arguments:?}: {said}"
        );
    }
    let tls = curl(
        &lab,
        &["outside"],
        &["--insecure", "https://shop.apps.example/x"],
    );
    assert!(tls.ends_with("\n200 2"), "{tls}");
    let other = curl(&lab, &["outside"], &["http://other.apps.example/"]);
    assert!(other.ends_with("\n404 1.1"), "{other}");
    let broken = curl(&lab, &["outside"], &["http://broken.apps.example/"]);
    assert!(broken.ends_with("\n503 1.1"), "{broken}");
    wait_until("an Event of the broken one", || {
        lab.kubectl(&["describe", "ingress", "broken"])
            .contains("ServiceNotFound")
    });

    let program = lab.program.to_str().unwrap();
    let socket = [
        "outside",
        "--",
        program,
        "ask",
        "ws://shop.apps.example/chat",
    ];
    let path = lab.must(&[&socket[..], &["--field", "path", "-n", "3"]].concat());
    assert!(path.contains("3  /chat"), "{path}");
    let said = lab.must(&[&socket[..], &["--field", "said", "-n", "3"]].concat());
    assert!(said.contains("3  who"), "{said}");

    kill(&lab.process("gateway")["pid"]);
    wait_until("its successor", || {
        lab.process("gateway")["starts"].as_u64() > Some(1) && is_served(&lab)
    });
}

#[test]
fn ingresses_are_served_at_the_labs_front_door() {
    serve(None);
    if nix::unistd::geteuid().is_root() {
        serve(Some(NOBODY));
    }
}
