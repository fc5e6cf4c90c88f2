//! Names in a lab, asked for from inside a pod by the resolvers that programs use: those of glibc, musl, Python and Go,
//! and dig, kdig and drill, over UDP, over TCP, and where an answer does not fit a datagram.

use std::collections::BTreeSet;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::{Lab, kill, wait_until};

/// Endpoints of the Service `big`: their addresses fit neither 512 bytes nor 1 232.
const BIG: usize = 120;
/// The answers of musl's resolver end at this number.
const MUSL_ADDRESSES_MAX: usize = 48;
/// What is asked for in every mode.
const WEB: &str = "web.default.svc.cluster.local";

const PODS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 172.30.0.80, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: sql, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: inside}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: out}
spec: {type: ExternalName, externalName: outside.example}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: web, image: portolan/echo, args: ["--drain", "0"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, labels: {app: db}}
spec: {hostname: db-0, subdomain: db, containers: [{name: db, image: portolan/echo}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-1, labels: {app: db}}
spec: {hostname: db-1, subdomain: db, containers: [{name: db, image: portolan/echo}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {containers: [{name: run, image: none, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client-tcp}
spec:
  dnsConfig: {options: [{name: use-vc}]}
  containers: [{name: run, image: none, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  dnsPolicy: Default
  containers: [{name: run, image: none, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Service
metadata: {name: big}
spec: {clusterIP: None, ports: [{name: p, port: 1}]}
"#;

/// Prints the IPv4 addresses of a name; the C library is musl.
const MUSL: &str = r#"
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *all, *one;
    int wrong = getaddrinfo(argv[1], NULL, &hints, &all);
    if (wrong) { fprintf(stderr, "%s\n", gai_strerror(wrong)); return 1; }
    for (one = all; one; one = one->ai_next) {
        char text[64];
        getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST);
        puts(text);
    }
    return 0;
}
"#;

const PYTHON: &str = "import socket, sys
for answer in socket.getaddrinfo(sys.argv[1], None, socket.AF_INET, socket.SOCK_STREAM): print(answer[4][0])";

/// Looks a name up again and again, until a file is there; prints how often, how often in vain, and the longest time.
const LOOKING: &str = "import os, socket, sys, time
name, stop = sys.argv[1:]
count, failed, longest = 0, 0, 0
while not os.path.exists(stop):
    began = time.monotonic()
    try: socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError: failed += 1
    count += 1
    longest = max(longest, time.monotonic() - began)
print(count, failed, longest)";

/// Times that an answerer is killed while names are looked up.
const KILLS: u64 = 6;

fn addresses() -> BTreeSet<String> {
    (1..=BIG).map(|last| format!("198.51.100.{last}")).collect()
}

fn manifest() -> String {
    let endpoints: Vec<String> = addresses()
        .iter()
        .map(|ip| format!("- {{addresses: [{ip}], conditions: {{ready: true}}}}\n"))
        .collect();
    format!(
        "{PODS}---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: big-1, labels: {{kubernetes.io/service-name: big}}}}\n\
         addressType: IPv4\nports: [{{name: p, port: 1}}]\nendpoints:\n{}",
        endpoints.concat()
    )
}

/// A lab with its pods, and what they can ask.
struct Names {
    lab: Lab,
    musl: String,
}

impl Names {
    fn up(mode: &str) -> Names {
        let lab = Lab::up_in(None, &manifest(), mode);
        for pod in ["client", "client-tcp", "plain"] {
            lab.until(&["exec", pod, "--", "true"], |_| true);
        }
        let source = lab.dir.path().join("ask.c");
        let musl = lab.dir.path().join("ask");
        std::fs::write(&source, MUSL).unwrap();
        let built = Command::new("musl-gcc")
            .args(["-static", "-O1", "-o"])
            .args([&musl, &source])
            .status();
        let built = built.expect("musl-gcc is missing: run scripts/setup.sh");
        assert!(built.success());
        let musl = musl.to_str().unwrap().to_string();
        Names { lab, musl }
    }

    /// What a command says in a pod; it must succeed.
    fn inside(&self, pod: &str, command: &[&str]) -> String {
        self.lab.must(&[&["exec", pod, "--"], command].concat())
    }

    fn asks(&self, command: &[&str]) -> String {
        self.inside("client", command)
    }

    /// The addresses that the resolvers of C libraries and languages find.
    fn found_by_all(&self, pod: &str, name: &str) -> Vec<(&'static str, BTreeSet<String>)> {
        let glibc = self.inside(pod, &["getent", "ahostsv4", name]);
        let python = self.inside(pod, &["/usr/bin/python3", "-c", PYTHON, name]);
        let musl = self.inside(pod, &[&self.musl, name]);
        [("glibc", glibc), ("python", python), ("musl", musl)]
            .map(|(who, text)| (who, first_words(&text)))
            .to_vec()
    }

    /// Go's own resolver, in a program of Go's that everybody has: kubectl gets a page of the Service.
    fn go_reaches(&self, pod: &str, name: &str) -> bool {
        let server = format!("--server=http://{name}");
        let go = ["env", "GODEBUG=netdns=go+1", "KUBECONFIG=/dev/null"];
        let asked = ["kubectl", &server, "get", "--raw", "/"];
        let command = [&["exec", pod, "--"], &go[..], &asked[..]].concat();
        let output = self.lab.run(&command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("Go's"), "{output:?}");
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("web")
    }
}

fn first_words(text: &str) -> BTreeSet<String> {
    let words = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    words.map(str::to_string).collect()
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(ToString::to_string).collect()
}

#[test]
fn every_resolver_finds_services() {
    let names = Names::up("nftables");
    for pod in ["client", "client-tcp"] {
        for name in ["web", "web.default", WEB, "web.default.svc.cluster.local."] {
            for (who, found) in names.found_by_all(pod, name) {
                assert_eq!(found, set(&["172.30.0.80"]), "{who} in {pod}: {name}");
            }
            assert!(names.go_reaches(pod, name), "go in {pod}: {name}");
        }
    }
    let tools: [&[&str]; 7] = [
        &["dig", "+short", WEB],
        &["dig", "+short", "+tcp", WEB],
        &["dig", "+short", "@fd00:172:30::a", WEB],
        &["kdig", "+short", WEB],
        &["kdig", "+short", "+tcp", WEB],
        &["drill", "-Q", WEB],
        &["drill", "-t", "-Q", WEB],
    ];
    for tool in tools {
        assert_eq!(names.asks(tool), "172.30.0.80\n", "{tool:?}");
    }
    records(&names);
    truncated(&names);
    outside(&names);
    a_changed_corefile_is_taken_up(&names);
    the_others_answer_for_one_that_does_not(&names);
}

/// SRV, headless, ExternalName and reverse names.
fn records(names: &Names) {
    let short = |name: &str, kind: &str| names.asks(&["dig", "+short", name, kind]);
    let web = short("_http._tcp.web.default.svc.cluster.local", "SRV");
    assert!(web.ends_with(&format!(" 80 {WEB}.\n")), "{web}");
    let reverse = |ip: &str| names.asks(&["dig", "+short", "-x", ip]);
    assert_eq!(reverse("172.30.0.80"), format!("{WEB}.\n"));
    let status = "jsonpath={.status.podIP}";
    let ip = |pod: &str| names.lab.kubectl(&["get", "pod", pod, "-o", status]);
    let pods = [ip("db-0"), ip("db-1")];
    let ask = ["exec", "client", "--", "getent", "ahostsv4", "db"];
    let both = pods.iter().cloned().collect::<BTreeSet<_>>();
    names.lab.until(&ask, |text| first_words(text) == both);
    let one = names.asks(&["getent", "ahostsv4", "db-1.db"]);
    assert_eq!(first_words(&one), set(&[&pods[1]]));
    let targets = short("_sql._tcp.db.default.svc.cluster.local", "SRV");
    let target = |line: &str| line.split_whitespace().nth(3).map(str::to_string);
    assert_eq!(
        targets.lines().filter_map(target).collect::<BTreeSet<_>>(),
        set(&[
            "db-0.db.default.svc.cluster.local.",
            "db-1.db.default.svc.cluster.local."
        ])
    );
    assert_eq!(reverse(&pods[0]), "db-0.db.default.svc.cluster.local.\n");
    let alias = short("inside.default.svc.cluster.local", "A");
    assert_eq!(alias, format!("{WEB}.\n172.30.0.80\n"));
}

/// Answers that are longer than a datagram may be.
fn truncated(names: &Names) {
    let big = "big.default.svc.cluster.local";
    let cut = names.asks(&["dig", "+noedns", "+ignore", big]);
    assert!(cut.contains("flags: qr aa tc"), "{cut}");
    let all = addresses();
    let tools: [&[&str]; 6] = [
        &["dig", "+short", "+noedns", big],
        &["dig", "+short", big],
        &["dig", "+short", "+ignore", "+bufsize=4096", big],
        &["kdig", "+short", "+noedns", big],
        &["kdig", "+short", "+bufsize=1232", big],
        &["drill", "-a", "-Q", big],
    ];
    for tool in tools {
        assert_eq!(first_words(&names.asks(tool)), all, "{tool:?}");
    }
    for (who, found) in names.found_by_all("client", "big") {
        if who == "musl" {
            // This one takes what fits the datagram, or stops at its own limit.
            let some = (1..=MUSL_ADDRESSES_MAX).contains(&found.len());
            assert!(some && found.is_subset(&all), "{found:?}");
        } else {
            assert_eq!(found, all, "{who}");
        }
    }
}

/// A lab is a world of its own: what it does not have does not exist, and is said at once.
fn outside(names: &Names) {
    let found = names.asks(&["dig", "+short", "outside.example"]);
    assert_eq!(found, "203.0.113.2\n");
    let out = names.asks(&["getent", "ahostsv4", "out"]);
    assert_eq!(first_words(&out), set(&["203.0.113.2"]));
    let none = names.asks(&["dig", "example.org"]);
    assert!(
        none.contains("status: NXDOMAIN") && none.contains("a lab has no way out"),
        "{none}"
    );
    let ask = ["outside", "--", "dig", "+short", "outside.example", "AAAA"];
    assert_eq!(names.lab.must(&ask), "2001:db8:113::2\n");
    // Of the machine's own resolver a lab knows nothing.
    let resolv = names.inside("plain", &["cat", "/etc/resolv.conf"]);
    assert_eq!(resolv, "nameserver 192.168.0.1\n");
    let plain = names.inside("plain", &["getent", "ahostsv4", "outside.example"]);
    assert_eq!(first_words(&plain), set(&["203.0.113.2"]));
}

fn a_changed_corefile_is_taken_up(names: &Names) {
    let kubectl = |rest: &[&str]| {
        let of_map = ["-n", "kube-system"];
        names.lab.kubectl(&[&of_map[..], rest].concat())
    };
    let text = kubectl(&[
        "get",
        "configmap",
        "coredns",
        "-o",
        "jsonpath={.data.Corefile}",
    ]);
    let change = |data: serde_json::Value| {
        let patch = serde_json::json!({"data": data}).to_string();
        let said = kubectl(&["patch", "configmap", "coredns", "-p", &patch]);
        assert!(said.contains("patched"), "{said}");
    };
    let own = "own.example:53 {\n    hosts own.hosts\n}\n";
    let hosts = "192.0.2.7 own.example\n";
    change(serde_json::json!({"Corefile": format!("{own}{text}"), "own.hosts": hosts}));
    for node in ["@192.168.0.11", "@192.168.0.12"] {
        let ask = ["exec", "client", "--", "dig", "+short", node, "own.example"];
        names.lab.until(&ask, |text| text == "192.0.2.7\n");
    }
    // One with a mistake changes nothing, and the log has it.
    let wrong = text.replace("    loop\n", "    nonsense\n");
    change(serde_json::json!({ "Corefile": wrong }));
    for node in ["n1", "n2"] {
        let log = format!("default/log/dns-{node}.log");
        let log = names.lab.dir.path().join(log);
        wait_until("the mistake in the log", || {
            std::fs::read_to_string(&log).unwrap().contains("nonsense")
        });
    }
    let ask = ["dig", "+short", "own.example"];
    assert_eq!(names.asks(&ask), "192.0.2.7\n");
    assert_eq!(names.asks(&["dig", "+short", WEB]), "172.30.0.80\n");
    change(serde_json::json!({"Corefile": text}));
}

/// One answerer hangs, and then it is killed: each time the other answers, and it comes back.
fn the_others_answer_for_one_that_does_not(names: &Names) {
    let ready = || {
        let ready = "jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].addresses[0]}";
        let label = "kubernetes.io/service-name=kube-dns";
        let of_service = ["-n", "kube-system", "get", "endpointslices", "-l", label];
        let text = names
            .lab
            .kubectl(&[&of_service[..], &["-o", ready]].concat());
        let addresses = text.split_whitespace().map(str::to_string);
        addresses.collect::<BTreeSet<_>>()
    };
    let other = set(&["192.168.0.12", "fd00:192:168::12"]);
    let mut both = set(&["192.168.0.11", "fd00:192:168::11"]);
    both.extend(other.iter().cloned());
    wait_until("both answerers", || ready() == both);
    let first = names.lab.process("dns-n1");
    let signal = |signal| {
        let pid = Pid::from_raw(first["pid"].as_i64().unwrap() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
    };
    signal(Signal::SIGSTOP);
    wait_until("the end of the endpoint that hangs", || ready() == other);
    let ask = ["dig", "+short", "+tries=1", "+timeout=1", WEB];
    let ask = [&["exec", "client", "--"], &ask[..]].concat();
    wait_until("answers of the other only", || {
        (0..20).all(|_| names.lab.run(&ask).stdout == b"172.30.0.80\n")
    });
    signal(Signal::SIGCONT);
    wait_until("its return", || ready() == both);
    kill(&first["pid"]);
    wait_until("its successor", || {
        names.lab.process("dns-n1")["starts"].as_u64() > Some(1) && ready() == both
    });
    let ask = ["dig", "+short", "@192.168.0.11", WEB];
    assert_eq!(names.asks(&ask), "172.30.0.80\n");
    no_lookup_fails_while_answerers_are_killed(names, || ready() == both);
}

/// The resolver of a program asks again when its query lay in an answerer that died, or met none.
fn no_lookup_fails_while_answerers_are_killed(names: &Names, are_ready: impl Fn() -> bool) {
    let stop = names.lab.dir.path().join("stop");
    let (web, end) = (format!("{WEB}."), stop.to_str().unwrap());
    let look = ["/usr/bin/python3", "-c", LOOKING, &web, end];
    let said = std::thread::scope(|scope| {
        let looking = scope.spawn(|| names.asks(&look));
        for number in 0..KILLS {
            let name = ["dns-n1", "dns-n2"][number as usize % 2];
            let before = names.lab.process(name);
            kill(&before["pid"]);
            wait_until("its successor", || {
                names.lab.process(name)["starts"].as_u64() > before["starts"].as_u64()
                    && are_ready()
            });
        }
        // In the pod: it does not see what appears on the node where it has looked in vain.
        names.asks(&["touch", end]);
        looking.join().unwrap()
    });
    let numbers: Vec<f64> = said
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    eprintln!("{KILLS} kills: {said}");
    assert!(numbers[0] > 100.0 && numbers[1] == 0.0, "{said}");
}

#[test]
fn names_are_answered_in_every_mode() {
    for mode in ["iptables", "userspace"] {
        let names = Names::up(mode);
        for (who, found) in names.found_by_all("client", "web") {
            assert_eq!(found, set(&["172.30.0.80"]), "{who} in mode {mode}");
        }
        assert!(names.go_reaches("client", "web"), "{mode}");
        let tools = [
            ["dig", "+short", "+tcp", WEB],
            ["dig", "+short", "@fd00:172:30::a", WEB],
        ];
        for ask in tools {
            assert_eq!(names.asks(&ask), "172.30.0.80\n", "{ask:?} in mode {mode}");
        }
    }
}
