//! How a gateway is watched, and how it ends.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
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
        .args(["--http", &http, "--https", "127.0.0.1:0"])
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
            .args([
                "--silent",
                "--include",
                "--noproxy",
                "*",
                "--max-time",
                "10",
            ])
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

/// Clients that ask all the time, until they are told to stop.
struct Load {
    is_over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(usize, Vec<String>)>>,
}

impl Load {
    /// Some with a connection for each request, some that keep theirs for as long as the gateway lets them.
    fn start() -> Load {
        let is_over = Arc::<AtomicBool>::default();
        let clients = (0..4).map(|number| {
            let is_over = Arc::clone(&is_over);
            std::thread::spawn(move || {
                let (mut done, mut failed) = (0, Vec::new());
                let mut kept = None;
                while !is_over.load(Ordering::Relaxed) {
                    match ask(&mut kept, number % 2 == 0) {
                        Ok(()) => done += 1,
                        Err(words) => failed.push(words),
                    }
                }
                (done, failed)
            })
        });
        Load {
            clients: clients.collect(),
            is_over,
        }
    }

    /// How many requests were answered, and what has become of the others.
    fn stop(self) -> (usize, Vec<String>) {
        self.is_over.store(true, Ordering::Relaxed);
        let mut all = (0, Vec::new());
        for client in self.clients {
            let (done, failed) = client.join().unwrap();
            all.0 += done;
            all.1.extend(failed);
        }
        all
    }
}

/// One request, over the connection that was kept or a new one.
fn ask(kept: &mut Option<BufReader<TcpStream>>, keeps: bool) -> Result<(), String> {
    let told = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect((ADDRESS, 80)).map_err(told("connect"))?;
            let limit = Some(Duration::from_secs(10));
            stream.set_read_timeout(limit).map_err(told("limit"))?;
            BufReader::new(stream)
        }
    };
    let close = if keeps { "" } else { "Connection: close\r\n" };
    let head = format!("GET / HTTP/1.1\r\nHost: a.com\r\n{close}\r\n");
    let written = stream.get_mut().write_all(head.as_bytes());
    written.map_err(told("write"))?;
    let (mut length, mut closes) = (0, false);
    for number in 0.. {
        let mut line = String::new();
        stream.read_line(&mut line).map_err(told("read"))?;
        let line = line.trim().to_ascii_lowercase();
        if number == 0 && !line.starts_with("http/1.1 200") {
            return Err(format!("{line:?}"));
        }
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().map_err(|_| line.clone())?;
        }
        closes |= line == "connection: close";
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).map_err(told("body"))?;
    if !closes {
        *kept = Some(stream);
    }
    Ok(())
}

/// When the process was started that answers operators.
fn started() -> String {
    let metrics = page("/metrics").1;
    let mut lines = metrics.lines();
    let line = lines.find(|line| line.starts_with("process_start_time_seconds "));
    line.unwrap_or_default().to_owned()
}

/// A WebSocket through the gateway.
fn websocket() -> TcpStream {
    let mut stream = TcpStream::connect((ADDRESS, 80)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let head = "GET / HTTP/1.1\r\nHost: a.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{answer:?}");
    say(&mut stream);
    stream
}

/// A message (RFC 6455 section 5.2), and one that comes back.
fn say(stream: &mut TcpStream) {
    stream.write_all(b"\x81\x82\0\0\0\0hi").unwrap();
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[0], 0x81);
    let length = match head[1] {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            usize::from(u16::from_be_bytes(length))
        }
        length => usize::from(length),
    };
    stream.read_exact(&mut vec![0; length]).unwrap();
}

#[test]
fn a_gateway_hands_its_sockets_over_and_nobody_notices() {
    isolated!(a_gateway_hands_its_sockets_over_and_nobody_notices, {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let socket = dir.path().join("socket");
        let socket = ["--handover-socket", socket.to_str().unwrap()];
        let first = ["--metrics-address", PAGES];
        let (world, mut old) = with_web(&[socket, first].concat(), &log);
        let load = Load::start();
        for threads in ["1", "3"] {
            let more = ["--metrics-address", PAGES, "--threads", threads];
            let (mut talk, before) = (websocket(), started());
            let new = gateway(&world, &[&socket[..], &more].concat(), &log);
            until_or(
                || !started().is_empty() && started() != before,
                || "nobody has taken over".to_owned(),
            );
            // What has begun goes on, and the old one waits for it.
            say(&mut talk);
            assert!(old.0.try_wait().unwrap().is_none());
            drop(talk);
            until_or(
                || old.0.try_wait().unwrap().is_some(),
                || "the old gateway goes on".to_owned(),
            );
            assert!(old.0.wait().unwrap().success());
            old = new;
            assert_eq!(page("/readyz").0, "200");
        }
        let (done, failed) = load.stop();
        assert!(done > 100, "{done}");
        assert_eq!(failed, Vec::<String>::new(), "of {done}");
        eprintln!("{done} requests while two gateways were replaced, and none failed");
        let metrics = page("/metrics").1;
        assert!(
            metrics.contains("ingress=\"web\",code=\"2xx\"} "),
            "{metrics}"
        );
    });
}
