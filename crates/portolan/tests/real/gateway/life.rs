//! How a gateway is watched, and how it ends.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::*;

/// Where the gateway answers operators.
const PAGES: &str = "127.0.0.1:9100";

/// A gateway with these arguments besides, and its standard output in a file.
fn gateway(world: &World, more: &[&str], output: &Path) -> Running {
    let kubeconfig = world.server.kubeconfig();
    let http = format!("{ADDRESS}:80");
    let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
    command
        .args(["gateway", "--kubeconfig", kubeconfig.to_str().unwrap()])
        .args(["--http", &http, "--https", "127.0.0.1:0", "--threads", "2"])
        .args(more)
        .stdout(File::create(output).unwrap())
        .stderr(Stdio::null());
    Running(command.die_with_parent(Signal::SIGKILL).spawn().unwrap())
}

fn signal(running: &Running, signal: Signal) {
    let pid = i32::try_from(running.0.id()).unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Status and text of a page for operators.
fn page(path: &str) -> (String, String) {
    let read = || {
        let mut stream = TcpStream::connect(PAGES)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    let text = read().unwrap_or_default();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).unwrap_or_default();
    (status.to_owned(), body.to_owned())
}

/// A world whose only gateway is this one, with a Service `web` under `a.com`.
fn with_web(more: &[&str], output: &Path) -> (World, Running) {
    let mut world = World::without_gateway();
    world.service("web", 1);
    let path = json!({"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"name": "http"}}}});
    let spec = json!({"rules": [{"host": "a.com", "http": {"paths": [path]}}]});
    let web = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"}, "spec": spec});
    world.server.apply(&manifest(&[web]));
    let gateway = gateway(&world, more, output);
    until_or(
        || world.get("a.com", "/") == (200, "web".into()),
        || format!("{:?}", world.get("a.com", "/")),
    );
    (world, gateway)
}

#[test]
fn a_gateway_tells_what_it_does_and_leaves_when_it_is_told() {
    isolated!(a_gateway_tells_what_it_does_and_leaves_when_it_is_told, {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let more = [
            "--metrics-address",
            PAGES,
            "--access-log",
            "json",
            "--lameduck-seconds",
            "600",
        ];
        let (world, mut gateway) = with_web(&more, &log);
        assert_eq!(page("/healthz").0, "200");
        assert_eq!(page("/readyz").0, "200");
        assert_eq!(page("/other").0, "404");
        for _ in 0..5 {
            assert_eq!(world.get("a.com", "/x?y").0, 200);
        }
        assert_eq!(world.get("b.com", "/").0, 404);
        let routes = Command::new(env!("CARGO_BIN_EXE_portolan"))
            .args(["gateway", "routes", "--of", PAGES])
            .output()
            .unwrap();
        let routes = String::from_utf8(routes.stdout).unwrap();
        let line: Vec<&str> = routes.lines().nth(1).unwrap().split_whitespace().collect();
        let hits: usize = line[5].parse().unwrap();
        assert!(line[0] == "a.com" && hits >= 6, "{routes}");
        let metrics = page("/metrics").1;
        for wanted in [
            "portolan_gateway_requests_total{namespace=\"default\",ingress=\"web\",code=\"2xx\"} ",
            "namespace=\"default\",ingress=\"web\",status=\"200\"} ",
            "portolan_gateway_requests_total{namespace=\"\",ingress=\"\",code=\"4xx\"} ",
            "portolan_gateway_routes 1\n",
            "\nprocess_resident_memory_bytes ",
        ] {
            assert!(metrics.contains(wanted), "{wanted}: {metrics}");
        }
        let lines = || std::fs::read_to_string(&log).unwrap();
        until_or(|| lines().contains("\"target\":\"/x?y\""), lines);
        let first: Value = serde_json::from_str(lines().lines().next().unwrap()).unwrap();
        assert!(first["request_id"].is_string(), "{first}");

        // On its way out it serves on, and says so.
        signal(&gateway, Signal::SIGTERM);
        until_or(|| page("/readyz").0 == "503", || page("/readyz").0);
        assert_eq!(page("/healthz").0, "200");
        let output = Command::new("curl")
            .args(["--silent", "--include", "--noproxy", "*", "--max-time", "10"])
            .args(["--header", "Host: a.com", &format!("http://{ADDRESS}/")])
            .output()
            .unwrap();
        let answer = String::from_utf8(output.stdout).unwrap().to_lowercase();
        assert!(answer.starts_with("http/1.1 200"), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        signal(&gateway, Signal::SIGTERM);
        assert!(gateway.0.wait().unwrap().success());
    });
}
