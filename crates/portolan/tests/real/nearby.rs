//! `portolan dns --node-local` beside the proxy: who answers pods and the node, and what a kill of it costs.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use ipnet::IpNet;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portolan_kernel::cgroup::Cgroup;
use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::topology::Host;
use portolan_kernel::{Conntrack, isolated, namespace};
use portolan_model::{Family, Flow, Protocol};
use serde::Deserialize;
use serde_json::Value;

use crate::modes::modes;
use crate::node::{cgroup, pause, until_or};
use crate::server::Server;

const PORTOLAN: &str = env!("CARGO_BIN_EXE_portolan");
/// Those at which queries are answered: one that is nothing else, and the ClusterIPs.
const ADDRESSES: [&str; 3] = ["169.254.20.10", "172.30.0.10", "fd00:172:30::a"];
/// The last byte of what each answerer says.
const CLUSTER: u8 = 1;
const NEARBY: u8 = 2;
/// Between two queries of one client under load: two clients ask some 1 000 a second together.
const BETWEEN: Duration = Duration::from_millis(2);
/// A query without an answer for so long is lost.
const LOST: Duration = Duration::from_secs(1);

/// As NodeLocal DNSCache needs it, too; the numbers of the address plan.
const OBJECTS: &str = "apiVersion: v1
kind: Service
metadata:
  name: kube-dns
  annotations: {portolan.dev/node-local: 169.254.20.10}
spec:
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  clusterIPs: [172.30.0.10, 'fd00:172:30::a']
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns-4, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
endpoints: [{addresses: [10.1.1.2], conditions: {ready: true}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns-6, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv6
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
endpoints: [{addresses: ['fd00:10:1:1::2'], conditions: {ready: true}}]
";

/// Ends with the test.
struct Running(Child);

impl Running {
    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The node is the calling thread's network namespace; a pod that asks, and one that answers for the cluster.
struct Bed {
    /// Those of [`ADDRESSES`] at which the proxy leads to the cluster, too.
    addresses: &'static [&'static str],
    client: Host,
    cgroup: Option<Cgroup>,
    server: Server,
    corefiles: [PathBuf; 2],
    _pod: Host,
    _cluster: Running,
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

impl Bed {
    fn new(addresses: &'static [&'static str]) -> Bed {
        let node = Host::router().unwrap();
        let [client, pod] = [2, 1].map(|n| {
            let host = Host::new().unwrap();
            let of = |last: u8| {
                [
                    net(&format!("10.1.{n}.{last}/24")),
                    net(&format!("fd00:10:1:{n}::{last}/64")),
                ]
            };
            let link = format!("veth{n}");
            node.join(&link, &of(1), &host, "eth0", &of(2)).unwrap();
            host.route(net("0.0.0.0/0"), of(1)[0].addr()).unwrap();
            host.route(net("::/0"), of(1)[1].addr()).unwrap();
            host
        });
        // A packet of the node's own needs a route before it meets a rule.
        for (to, via) in [("0.0.0.0/0", "10.1.2.2"), ("::/0", "fd00:10:1:2::2")] {
            node.route(net(to), via.parse().unwrap()).unwrap();
        }
        node.netns.enter().unwrap();
        let cgroup = namespace::is_first_user().then(|| cgroup().unwrap());
        let server = Server::start();
        server.wait();
        server.apply(OBJECTS);
        let corefiles = [CLUSTER, NEARBY].map(|last| {
            let path = server
                .kubeconfig()
                .with_file_name(format!("Corefile-{last}"));
            let health = match last {
                NEARBY => "health {\n lameduck 1s\n }",
                _ => "errors",
            };
            let hosts = format!("hosts /dev/null {{\n 203.0.113.{last} who.test\n }}");
            std::fs::write(&path, format!(". {{\n {hosts}\n {health}\n}}\n")).unwrap();
            path
        });
        let cluster = there(&pod, &corefiles[0], server.log("dns"));
        Bed {
            addresses,
            client,
            cgroup,
            server,
            corefiles,
            _pod: pod,
            _cluster: cluster,
        }
    }

    /// `portolan proxy` in a mode, or, with a path, kube-proxy in one of its own.
    fn proxy(&self, mode: &str) -> Running {
        if let Some((mode, program)) = mode.split_once('@') {
            return self.kube_proxy(mode, program);
        }
        let mut command = Command::new(PORTOLAN);
        let state = self.server.kubeconfig().with_file_name("state");
        command
            .args(["proxy", "--cluster-cidr", "10.0.0.0/8,fd00:10::/32"])
            .args(["--hostname-override", "n1", "--proxy-mode", mode])
            .arg("--kubeconfig")
            .arg(self.server.kubeconfig())
            .arg("--state-dir")
            .arg(state)
            .stdout(Stdio::null())
            .stderr(self.server.log("proxy"))
            .die_with_parent(Signal::SIGKILL);
        Running(command.spawn().unwrap())
    }

    fn kube_proxy(&self, mode: &str, program: &str) -> Running {
        // It does not begin without its node.
        let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n";
        self.server.apply(node);
        let addresses = r#"{"status":{"addresses":[{"type":"InternalIP","address":"10.1.1.1"}]}}"#;
        let patch = [
            "patch",
            "node",
            "n1",
            "--subresource=status",
            "--type=merge",
        ];
        self.server
            .kubectl(&[&patch[..], &["-p", addresses]].concat());
        let mut command = Command::new(program);
        if mode == "nftables" {
            command.args(["--feature-gates", "NFTablesProxyMode=true"]);
        }
        command
            .args(["--cluster-cidr", "10.0.0.0/8,fd00:10::/32"])
            .args(["--hostname-override", "n1", "--proxy-mode", mode])
            .args([
                "--conntrack-max-per-core",
                "0",
                "--bind-address",
                "10.1.1.1",
            ])
            .arg("--kubeconfig")
            .arg(self.server.kubeconfig())
            .stdout(Stdio::null())
            .stderr(self.server.log("proxy"))
            .die_with_parent(Signal::SIGKILL);
        Running(command.spawn().unwrap())
    }

    fn nearby(&self) -> Running {
        let addresses = ADDRESSES.join(",");
        let log = self.server.log("dns");
        answerer(&self.corefiles[1], log, &["--node-local", &addresses])
    }

    /// Runs `work` as a process of the pod, or of the node.
    fn on<T: Send>(&self, is_pod: bool, work: impl FnOnce() -> T + Send) -> T {
        let join = || {
            if let Some(cgroup) = &self.cgroup {
                cgroup.join().unwrap();
            }
        };
        let run = || {
            join();
            work()
        };
        match is_pod {
            true => self.client.run(run).unwrap(),
            false => std::thread::scope(|scope| scope.spawn(run).join().unwrap()),
        }
    }

    /// Waits until everybody is answered by this one, at every address, over UDP and over TCP.
    fn answered_by(&self, who: u8) {
        for is_pod in [true, false] {
            for to in self.addresses.iter().map(|address| at(address)) {
                for ask in [ask_udp, ask_tcp] {
                    let mut last = None;
                    let so = || {
                        last = self.on(is_pod, || ask(to));
                        last == Some(who)
                    };
                    let log = || {
                        let logs = ["proxy", "dns"].map(|name| self.server.read_log(name));
                        format!("{who} answers at {to} (pod: {is_pod})\n{}", logs.join("\n"))
                    };
                    until_or(so, log);
                }
            }
        }
    }

    /// Clients in the pod and on the node that ask without end.
    fn load(&self) -> Load {
        let is_over = Arc::<AtomicBool>::default();
        let clients = [true, false].map(|is_pod| {
            let is_over = Arc::clone(&is_over);
            let to = at(self.addresses[usize::from(is_pod)]);
            self.on(is_pod, || std::thread::spawn(move || ask_on(&is_over, to)))
        });
        Load { is_over, clients }
    }
}

struct Load {
    is_over: Arc<AtomicBool>,
    clients: [JoinHandle<[u32; 3]>; 2],
}

impl Load {
    /// The sums of [`ask_on`].
    fn end(self) -> [u32; 3] {
        self.is_over.store(true, Ordering::Relaxed);
        let all = self.clients.map(|client| client.join().unwrap());
        [0, 1, 2].map(|index| all[0][index] + all[1][index])
    }
}

fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), 53)
}

/// An answerer in the pod. The thread that starts it stays: the process ends with it.
fn there(pod: &Host, corefile: &Path, log: File) -> Running {
    let (started, running) = mpsc::channel();
    let corefile = corefile.to_owned();
    let start = move || {
        started.send(answerer(&corefile, log, &[])).unwrap();
        loop {
            std::thread::park();
        }
    };
    pod.run(|| std::thread::spawn(start)).unwrap();
    running.recv().unwrap()
}

fn answerer(corefile: &Path, log: File, arguments: &[&str]) -> Running {
    let mut command = Command::new(PORTOLAN);
    command
        .args(["dns", "--conf"])
        .arg(corefile)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(log)
        .die_with_parent(Signal::SIGKILL);
    Running(command.spawn().unwrap())
}

/// Asks for `who.test. A`.
fn query(id: u16) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    query.extend(b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03who\x04test\x00\x00\x01\x00\x01");
    query
}

/// A new socket for each: the last byte of the answer.
fn ask_udp(to: SocketAddr) -> Option<u8> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => [0; 4].into(),
        SocketAddr::V6(_) => [0; 16].into(),
    };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.connect(to).ok()?;
    socket.set_read_timeout(Some(LOST)).unwrap();
    socket.send(&query(7)).ok()?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).ok()?;
    answer[..length].last().copied()
}

fn ask_tcp(to: SocketAddr) -> Option<u8> {
    let mut stream = TcpStream::connect_timeout(&to, LOST).ok()?;
    stream.set_read_timeout(Some(LOST)).unwrap();
    let query = query(7);
    let length = (query.len() as u16).to_be_bytes();
    stream.write_all(&[&length[..], &query].concat()).ok()?;
    let mut answer = [0; 512];
    stream.read_exact(&mut answer[..2]).ok()?;
    let length = usize::from(u16::from_be_bytes([answer[0], answer[1]]));
    stream.read_exact(&mut answer[..length]).ok()?;
    answer[..length].last().copied()
}

/// How many queries there were, how many of them had to be sent twice, and how many got no answer then.
fn ask_on(is_over: &AtomicBool, to: SocketAddr) -> [u32; 3] {
    let [mut asked, mut again, mut lost] = [0; 3];
    while !is_over.load(Ordering::Relaxed) {
        asked += 1;
        if ask_udp(to).is_none() {
            again += 1;
            lost += u32::from(ask_udp(to).is_none());
        }
        pause(BETWEEN);
    }
    [asked, again, lost]
}

/// Whether conntrack knows of a query from the pod to the Service.
fn is_tracked(bed: &Bed, to: SocketAddr) -> bool {
    let mut conntrack = Conntrack::open().unwrap();
    let mut forget = || {
        let mut count = 0;
        let is_one = |flow: &Flow| flow.destination == to;
        let swept = conntrack.sweep(Family::of(to.ip()), Protocol::Udp, is_one, &mut count);
        swept.unwrap();
        count > 0
    };
    forget();
    assert!(bed.on(true, || ask_udp(to)).is_some());
    forget()
}

/// kube-proxy in two modes, where somebody has said where it is: MODE@PROGRAM.
fn peers() -> Vec<String> {
    match std::env::var("PEER_KUBE_PROXY") {
        Ok(program) => ["iptables", "nftables"]
            .map(|mode| format!("{mode}@{program}"))
            .into(),
        Err(_) => Vec::new(),
    }
}

/// What deploy/ says can be read, and is what the program takes.
#[test]
fn the_manifest_is_understood() {
    let text = include_str!("../../../../deploy/portolan-names.yaml");
    let objects: Vec<Value> = serde_norway::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).unwrap())
        .collect();
    let of = |kind: &str| {
        objects
            .iter()
            .find(|object| object["kind"] == kind)
            .unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let corefile = folder.path().join("Corefile");
    let text = of("ConfigMap")["data"]["Corefile"].as_str().unwrap();
    std::fs::write(&corefile, text).unwrap();
    let container = &of("DaemonSet")["spec"]["template"]["spec"]["containers"][0];
    let arguments = container["command"].as_array().unwrap().iter();
    let arguments = arguments.skip(1).map(|argument| {
        let argument = argument.as_str().unwrap();
        argument.replace("/etc/portolan-names/Corefile", corefile.to_str().unwrap())
    });
    let mut command = Command::new(PORTOLAN);
    let output = command.args(arguments).arg("--check").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let resources: Vec<&str> = of("ClusterRole")["rules"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|rule| rule["resources"].as_array().unwrap())
        .map(|resource| resource.as_str().unwrap())
        .collect();
    assert_eq!(resources, ["services", "namespaces", "endpointslices"]);
}

/// One after the other in each mode: cluster, nearby, killed, started anew, stopped, going on, told to end.
#[test]
fn names_are_answered_on_the_node_itself() {
    isolated!(names_are_answered_on_the_node_itself, {
        // Userspace mode has the rules of nftables mode in front of its relay, which would outlive the test.
        let ours = modes().iter().filter(|mode| **mode != "userspace");
        let ours = ours.map(|mode| (*mode).to_owned());
        for mode in ours.chain(peers()) {
            // kube-proxy knows the ClusterIPs alone.
            let from = usize::from(mode.contains('@'));
            let bed = Bed::new(&ADDRESSES[from..]);
            let mode = mode.as_str();
            let _proxy = bed.proxy(mode);
            bed.answered_by(CLUSTER);
            let service = at(ADDRESSES[1]);
            assert!(is_tracked(&bed, service), "{mode}: packets say the address");
            let nearby = bed.nearby();
            bed.answered_by(NEARBY);
            for to in &ADDRESSES[..2] {
                assert!(!is_tracked(&bed, at(to)), "{mode}: {to} is tracked");
            }
            let load = bed.load();
            nearby.send(Signal::SIGKILL);
            bed.answered_by(CLUSTER);
            let [asked, again, lost] = load.end();
            eprintln!("{mode}: kill -9: {again} of {asked} queries were sent twice, {lost} lost");
            assert_eq!(lost, 0, "{mode}: of {asked}");
            drop(nearby);

            let nearby = bed.nearby();
            bed.answered_by(NEARBY);
            nearby.send(Signal::SIGSTOP);
            bed.answered_by(CLUSTER);
            nearby.send(Signal::SIGCONT);
            bed.answered_by(NEARBY);
            let load = bed.load();
            nearby.send(Signal::SIGTERM);
            bed.answered_by(CLUSTER);
            let [asked, again, _] = load.end();
            assert_eq!(again, 0, "{mode}: of {asked}");
        }
    });
}
