//! `portolan dns` as a process: names of an API and of another server, asked for by dig.

use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::namespace::is_first_user;
use portolan_kernel::{Links, isolated};

use crate::node::until;
use crate::server::Server;

/// An answer that comes at all takes less, also on a busy machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// kubeadm's own, as it stands in the ConfigMap; only the pace of `reload` and the other server are the test's.
const KUBEADM: &str = ".:53 {
    errors
    health {
       lameduck 2s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . OTHER {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload 2s 1s
    loadbalance
}
";

/// The other server, at a port of its own.
const OTHER: &str = ".:1053 {
    bind 127.0.0.2
    hosts /dev/null {
        203.0.113.2 www.example.org
        203.0.113.3 other.example.org
    }
}
";

const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  clusterIP: 172.30.7.7
  selector: {app: web}
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: out, namespace: default}
spec: {type: ExternalName, externalName: www.example.org}
";

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn is_over(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

fn start(conf: &Path, kubeconfig: &Path) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
    command
        .arg("dns")
        .arg("--conf")
        .arg(conf)
        .arg("--kubeconfig")
        .arg(kubeconfig);
    command
        .stdout(Stdio::null())
        .die_with_parent(Signal::SIGKILL);
    Running(command.spawn().unwrap())
}

/// What dig prints with `+short`, or else the status.
fn dig(words: &str) -> String {
    let args = [
        "@127.0.0.1",
        "+tries=1",
        "+time=2",
        "+noall",
        "+answer",
        "+comments",
    ];
    let output = Command::new("dig")
        .args(args)
        .args(words.split(' '))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let answers: Vec<String> = text
        .lines()
        .filter(|line| !line.starts_with(';') && !line.is_empty())
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let status = text
        .split("status: ")
        .nth(1)
        .and_then(|rest| rest.split(',').next());
    match answers.is_empty() {
        true => status.unwrap_or("nothing").to_string(),
        false => answers.join("; "),
    }
}

/// The body and the code of a page.
fn page(url: &str) -> String {
    let output = Command::new("curl")
        .args(["-s", "-m", "2", "-w", " %{http_code}", url])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_file_of_kubeadm_serves_a_cluster() {
    isolated!(the_file_of_kubeadm_serves_a_cluster, {
        Links::here().unwrap().up("lo").unwrap();
        let server = Server::start();
        server.wait();
        server.apply(OBJECTS);
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let text = KUBEADM.replace("OTHER", "127.0.0.2:1053");
        let corefile = write("Corefile", &text);
        let other = start(&write("Other", OTHER), &server.kubeconfig());
        let mut dns = start(&corefile, &server.kubeconfig());

        until("names are answered", || {
            dig("web.default.svc.cluster.local") != "nothing"
        });
        let web = "web.default.svc.cluster.local. 30 IN A 172.30.7.7";
        assert_eq!(dig("web.default.svc.cluster.local"), web);
        assert_eq!(dig("+tcp web.default.svc.cluster.local"), web);
        assert_eq!(dig("no.default.svc.cluster.local"), "NXDOMAIN");
        assert_eq!(dig("web.default.svc.cluster.local AAAA"), "NOERROR");
        assert_eq!(
            dig("-x 172.30.7.7"),
            "7.7.30.172.in-addr.arpa. 30 IN PTR web.default.svc.cluster.local."
        );
        until("the other server answers", || {
            dig("www.example.org").contains("203.0.113.2")
        });
        let out = dig("out.default.svc.cluster.local");
        let alias =
            "out.default.svc.cluster.local. 30 IN CNAME www.example.org.; www.example.org. ";
        assert!(
            out.starts_with(alias) && out.ends_with("IN A 203.0.113.2"),
            "{out}"
        );
        assert_eq!(dig("no.example.net"), "NXDOMAIN");

        // A Service that comes and goes is a name that comes and goes.
        server.kubectl(&[
            "create",
            "service",
            "clusterip",
            "new",
            "--clusterip=172.30.7.8",
            "--tcp=80",
        ]);
        until("the new name", || {
            dig("new.default.svc.cluster.local").contains("172.30.7.8")
        });
        server.kubectl(&["delete", "service", "new"]);
        until("the name is gone", || {
            dig("new.default.svc.cluster.local") == "NXDOMAIN"
        });

        assert_eq!(page("http://127.0.0.1:8080/health"), "OK 200");
        assert_eq!(page("http://127.0.0.1:8181/ready"), "OK 200");
        let metrics = page("http://127.0.0.1:9153/metrics");
        for name in [
            "coredns_dns_requests_total{server=\"dns://:53\",zone=\".\"",
            "coredns_cache_entries{",
            "coredns_proxy_request_duration_seconds_bucket{",
        ] {
            assert!(metrics.contains(name), "{name}: {metrics}");
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", dns.0.id())).unwrap();
        assert!(
            status.contains("CapEff:\t0000000000000400"),
            "only ports below 1024: {status}"
        );

        // Without the other server the cluster goes on.
        drop(other);
        assert_eq!(dig("other.example.org"), "SERVFAIL");
        assert_eq!(dig("web.default.svc.cluster.local"), web);

        // A bad file changes nothing, a good one is used.
        write(
            "Corefile",
            &text.replace("kubernetes cluster", "kubernets cluster"),
        );
        until("the bad file is told", || {
            page("http://127.0.0.1:9153/metrics").contains("coredns_reload_failed_total 1")
        });
        assert_eq!(dig("web.default.svc.cluster.local"), web);
        write("Corefile", &text.replace("ttl 30", "ttl 7"));
        until("the new file is used", || {
            dig("web.default.svc.cluster.local").contains(" 7 IN A")
        });

        // Lameduck: unready at once, and still answering.
        kill(Pid::from_raw(dns.0.id() as i32), Signal::SIGTERM).unwrap();
        until("it is not ready any more", || {
            page("http://127.0.0.1:8181/ready").ends_with("503")
        });
        assert!(dig("web.default.svc.cluster.local").contains("172.30.7.7"));
        until("it ends", || dns.is_over());
    });
}

/// Asks again and again until it is told to stop; says how many queries there were, and how many got no answer.
fn ask_on(stop: &AtomicBool) -> (u32, u32) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect("127.0.0.1:53").unwrap();
    socket.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
    let (mut asked, mut lost) = (0, 0);
    let mut query = *b"\x00\x00\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01x\x00\x00\x01\x00\x01";
    let mut answer = [0; 512];
    while !stop.load(Ordering::Relaxed) {
        asked += 1;
        query[..2].copy_from_slice(&(asked as u16).to_be_bytes());
        socket.send(&query).unwrap();
        let fine = socket
            .recv(&mut answer)
            .is_ok_and(|_| answer[..2] == query[..2] && answer[7] == 1);
        lost += u32::from(!fine);
    }
    (asked, lost)
}

#[test]
fn no_query_is_lost_when_the_file_changes() {
    isolated!(no_query_is_lost_when_the_file_changes, {
        Links::here().unwrap().up("lo").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Corefile");
        let write = |last: u8| {
            let text = format!(
                ".:53 {{\n hosts /dev/null {{\n 203.0.113.{last} x\n }}\n reload 2s 0s\n}}\n"
            );
            std::fs::write(&path, text).unwrap();
        };
        write(1);
        let _dns = start(&path, Path::new("/nowhere"));
        until("names are answered", || dig("x").contains("203.0.113.1"));
        let stop = Arc::new(AtomicBool::new(false));
        let asking = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || ask_on(&stop))
        };
        for last in 2..5 {
            write(last);
            until("the new file is used", || {
                dig("x").contains(&format!("203.0.113.{last}"))
            });
        }
        stop.store(true, Ordering::Relaxed);
        let (asked, lost) = asking.join().unwrap();
        assert!(asked > 100, "{asked}");
        assert_eq!(lost, 0, "of {asked}");
    });
}

/// What many clients, each with a socket of its own, are told about the name `x`: the last byte of its address. Each asks
/// once.
fn asked_by_many() -> BTreeMap<Option<u8>, u32> {
    let query = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01x\x00\x00\x01\x00\x01";
    let sockets: Vec<UdpSocket> = (0..64)
        .map(|_| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect("127.0.0.1:53").unwrap();
            let patience = Some(ANSWER_WITHIN);
            socket.set_read_timeout(patience).unwrap();
            socket.send(query).unwrap();
            socket
        })
        .collect();
    let mut told = BTreeMap::new();
    for socket in sockets {
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).ok();
        let last = length.map(|length| answer[length - 1]);
        *told.entry(last).or_default() += 1;
    }
    told
}

#[test]
fn two_processes_share_a_port_and_only_who_can_answer_is_asked() {
    isolated!(
        two_processes_share_a_port_and_only_who_can_answer_is_asked,
        {
            Links::here().unwrap().up("lo").unwrap();
            let dir = tempfile::tempdir().unwrap();
            let kubeconfig = dir.path().join("kubeconfig");
            let begin = |last: u8, more: &str| {
                let path = dir.path().join(format!("Corefile-{last}"));
                let hosts = format!("hosts /dev/null {{\n 203.0.113.{last} x\n }}");
                let text = format!(".:53 {{\n bind 127.0.0.1\n {hosts}\n {more}\n}}\n");
                std::fs::write(&path, text).unwrap();
                start(&path, &kubeconfig)
            };
            let told_by = |who: &[u8]| {
                let told = asked_by_many();
                told.keys().copied().eq(who.iter().map(|last| Some(*last)))
            };
            let first = begin(1, "");
            until("the first one answers", || told_by(&[1]));
            // An API that never says anything.
            let mute = TcpListener::bind("127.0.0.1:0").unwrap();
            mute.set_nonblocking(true).unwrap();
            let text = format!(
                "{{apiVersion: v1, kind: Config, current-context: x, users: [{{name: u, user: {{}}}}],
                clusters: [{{name: c, cluster: {{server: \"http://{}\"}}}}],
                contexts: [{{name: x, context: {{cluster: c, user: u}}}}]}}",
                mute.local_addr().unwrap()
            );
            std::fs::write(&kubeconfig, text).unwrap();
            let second = begin(2, "kubernetes cluster.local {\n startup_timeout 60s\n }");
            let mut asked = None;
            until("the API is asked", || {
                asked = mute.accept().ok();
                asked.is_some()
            });
            for _ in 0..10 {
                assert_eq!(asked_by_many(), BTreeMap::from([(Some(1), 64)]));
            }
            drop(second);
            let _third = begin(3, "");
            until("both answer", || told_by(&[1, 3]));
            // kill -9
            drop(first);
            for _ in 0..10 {
                assert_eq!(asked_by_many(), BTreeMap::from([(Some(3), 64)]));
            }
        }
    );
}

#[test]
fn another_user_keeps_the_right_to_its_ports_and_no_more() {
    isolated!(another_user_keeps_the_right_to_its_ports_and_no_more, {
        Links::here().unwrap().up("lo").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Corefile");
        let text = ".:53 {\n bind 127.0.0.1\n hosts /dev/null {\n 203.0.113.1 x\n }\n}\n";
        std::fs::write(&path, text).unwrap();
        // In a user namespace of ours there is nobody else.
        let user = if is_first_user() { "65534" } else { "0" };
        let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
        command.args(["dns", "--user", user, "--conf"]).arg(&path);
        command.die_with_parent(Signal::SIGKILL);
        let dns = Running(command.spawn().unwrap());
        until("names are answered", || dig("x").contains("203.0.113.1"));
        let status = std::fs::read_to_string(format!("/proc/{}/status", dns.0.id())).unwrap();
        let users = format!("Uid:\t{user}\t{user}\t{user}\t{user}");
        assert!(status.contains(&users), "{status}");
        for set in ["CapEff", "CapPrm", "CapInh"] {
            let only = format!("{set}:\t0000000000000400");
            assert!(status.contains(&only), "only ports below 1024: {status}");
        }
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    });
}

#[test]
fn a_query_is_explained() {
    isolated!(a_query_is_explained, {
        Links::here().unwrap().up("lo").unwrap();
        let server = Server::start();
        server.wait();
        server.apply(OBJECTS);
        let query = |args: &[&str]| {
            let output = Command::new(env!("CARGO_BIN_EXE_portolan"))
                .args(["dns", "query", "--kubeconfig"])
                .arg(server.kubeconfig())
                .args(args)
                .output()
                .unwrap();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            (
                String::from_utf8(output.stdout).unwrap() + &errors,
                output.status.success(),
            )
        };
        let (text, found) = query(&["web", "--as", "default"]);
        assert!(
            found && text.contains("1. web.default.svc.cluster.local. → NOERROR"),
            "{text}"
        );
        assert!(text.contains("made of: Service default/web"), "{text}");
        let (text, found) = query(&["web.kube-system", "--as", "default"]);
        assert!(
            found
                && text.contains(
                    "no Service web in namespace kube-system; namespaces with one: default"
                ),
            "{text}"
        );
        assert!(text.contains("→ FORWARDED"), "{text}");
        let (text, found) = query(&["web.nowhere.svc.cluster.local.", "-o", "json"]);
        assert!(
            !found && text.contains("there is no namespace nowhere"),
            "{text}"
        );
        let (text, _) = query(&["web", "--as", "default/none"]);
        assert!(text.contains("there is no pod default/none"), "{text}");
    });
}

#[test]
fn a_corefile_is_checked_without_being_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Corefile");
    std::fs::write(&path, ". {\n  forward . nowhere\n}\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_portolan"))
        .args(["dns", "--check", "--conf"])
        .arg(&path)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && errors.contains("Corefile:2:13: \"nowhere\" is no server"),
        "{errors}"
    );
    std::fs::write(&path, KUBEADM.replace("OTHER", "/etc/resolv.conf")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_portolan"))
        .args(["dns", "--check", "--conf"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success());
}
