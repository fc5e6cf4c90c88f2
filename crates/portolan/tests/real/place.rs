//! kube-proxy's place: the real binary with kube-proxy's file, in a namespace of its own, beside the real API server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::{Links, isolated};
use serde_json::Value;

use crate::node;
use crate::server::Server;

/// `portolan proxy` with a file, until dropped.
struct Proxy {
    child: Child,
    log: PathBuf,
}

impl Proxy {
    fn start(dir: &Path, file: &Path) -> Proxy {
        let log = dir.join("proxy.log");
        let output = std::fs::File::create(&log).unwrap();
        let mut command = command(file);
        command.stderr(output).die_with_parent(Signal::SIGKILL);
        let child = command.spawn().unwrap();
        Proxy { child, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until something is so; says what the proxy has said when it never is.
    fn until(&self, what: &str, so: impl Fn() -> bool) {
        let what = || format!("{what}\n{}", self.log());
        node::until_or(so, what);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As kubeadm's DaemonSet starts kube-proxy.
fn command(file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
    command
        .arg("proxy")
        .arg(format!("--config={}", file.display()))
        .arg("--hostname-override=n1")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// What is answered at a path of the port for operators; nothing when nobody listens.
fn get(path: &str) -> Option<String> {
    let mut stream = TcpStream::connect("127.0.0.1:10249").ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

fn configz() -> Option<Value> {
    let text = get("/configz")?;
    let mut value: Value = serde_json::from_str(&text).ok()?;
    Some(value["kubeproxy.config.k8s.io"].take())
}

fn nft(args: &[&str]) -> String {
    let output = Command::new("nft").args(args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nft {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// kubeadm's file, for the server of the test.
fn kubeadm(server: &Server, dir: &Path) -> PathBuf {
    let text = include_str!("../../src/cmd/proxy/config/tests/kubeadm.yaml");
    let theirs = "/var/lib/kube-proxy/kubeconfig.conf";
    assert!(text.contains(theirs));
    let ours = server.kubeconfig().display().to_string();
    let file = dir.join("config.conf");
    std::fs::write(&file, text.replace(theirs, &ours)).unwrap();
    file
}

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 172.30.0.80
  selector: {app: web}
  ports: [{port: 80}]
";

#[test]
fn kubeadms_file_runs_the_proxy_and_is_watched() {
    isolated!(kubeadms_file_runs_the_proxy_and_is_watched, {
        Links::here().unwrap().up("lo").unwrap();
        nft(&["add", "table", "ip", "others"]);
        let server = Server::start();
        let dir = tempfile::tempdir().unwrap();
        server.wait();
        server.apply(SERVICE);
        let file = kubeadm(&server, dir.path());

        let proxy = Proxy::start(dir.path(), &file);
        let stands = || nft(&["list", "ruleset"]).contains("172.30.0.80");
        proxy.until("the Service stands", stands);
        proxy.until("the mode is told", || {
            get("/proxyMode").as_deref() == Some("nftables")
        });
        let config = configz().unwrap();
        assert_eq!(config["clusterCIDR"], "10.244.0.0/16");
        assert_eq!(config["hostnameOverride"], "n1");
        assert_eq!(config["nftables"]["syncPeriod"], "30s");
        assert!(get("/statusz").unwrap().contains("nftables"));
        assert!(!proxy.log().contains("has no effect"), "{}", proxy.log());

        // What cannot be used is told, and the proxy goes on.
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(
            &file,
            text.replace("oomScoreAdj: null", "oomScoreAdj: much"),
        )
        .unwrap();
        let words = "oomScoreAdj: much is no whole number";
        proxy.until("the mistake is told", || proxy.log().contains(words));
        let bridge = text.replace("detectLocalMode: \"\"", "detectLocalMode: BridgeInterface");
        std::fs::write(&file, bridge).unwrap();
        let words = "BridgeInterface needs --pod-bridge-interface";
        proxy.until("the other mistake is told", || proxy.log().contains(words));
        assert!(stands() && configz().is_some());

        // What can be used is used: the same process begins anew, and the rules stand all the time.
        std::fs::write(&file, text.replace("10.244.0.0/16", "10.0.0.0/8")).unwrap();
        let changed = || configz().is_some_and(|config| config["clusterCIDR"] == "10.0.0.0/8");
        proxy.until("the new configuration is in use", changed);
        proxy.until("the Service stands", stands);
        let link = std::fs::read_link(format!("/proc/{}/exe", proxy.child.id())).unwrap();
        assert_eq!(link, Path::new(env!("CARGO_BIN_EXE_portolan")));

        drop(proxy);
        assert!(stands(), "rules outlive the proxy");
        let status = command(&file).arg("--cleanup").status().unwrap();
        assert!(status.success());
        let tables = nft(&["list", "tables"]);
        assert!(
            !tables.contains("portolan") && tables.contains("table ip others"),
            "{tables}"
        );
        let status = command(&file).arg("--cleanup").status().unwrap();
        assert!(status.success(), "nothing to do is no mistake");
    });
}

#[test]
fn what_is_written_can_be_read_and_mistakes_end_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.conf");
    let heading = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
    let text = format!("{heading}clusterCIDR: 10.0.0.0/8\nmagic: 1\n");
    std::fs::write(&file, text).unwrap();
    let written = dir.path().join("written");
    let to = format!("--write-config-to={}", written.display());
    let output = command(&file)
        .args([&to, "--cluster-cidr=fd00:10::/32"])
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    assert!(
        log.contains("line 4: magic: is unknown and has no effect"),
        "{log}"
    );
    assert!(
        log.contains("--cluster-cidr has no effect beside --config"),
        "{log}"
    );
    let text = std::fs::read_to_string(&written).unwrap();
    assert!(text.contains("\nclusterCIDR: 10.0.0.0/8\n"), "{text}");

    std::fs::write(&file, format!("{heading}mode: 5\noomScoreAdj: none\n")).unwrap();
    let output = command(&file).arg(&to).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(log.contains("line 3: mode: 5 is none of"), "{log}");
    assert!(
        log.contains("line 4: oomScoreAdj: none is no whole number"),
        "{log}"
    );
}

#[test]
fn init_only_writes_settings_and_ends() {
    isolated!(init_only_writes_settings_and_ends, {
        let setting = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";
        let init = |args: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
            let output = command.args(["proxy", "--init-only"]).args(args).output();
            output.unwrap().status.success()
        };
        let ours = [
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-close-wait=77s",
        ];
        assert!(init(&ours));
        assert_eq!(std::fs::read_to_string(setting).unwrap().trim(), "77");
        // The limit belongs to the whole machine, and this is a namespace.
        assert!(!init(&["--conntrack-max-per-core=1", "--conntrack-min=3"]));
    });
}
