//! One node with the real proxy, pods beside it, and clients outside and in a pod that never stop asking.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portolan_kernel::cgroup::Cgroup;
use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::ebpf::Location;
use portolan_kernel::offload::{self, Offload};
use portolan_kernel::topology::Host;
use portolan_kernel::{mount, namespace};

use crate::server::Server;

/// Only a failure takes so long.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Where the Service of [`Node`] answers.
pub const ADDRESSES: [&str; 2] = ["172.30.0.80:80", "192.168.0.11:30080"];
/// The program.
pub const PORTOLAN: &str = env!("CARGO_BIN_EXE_portolan");
/// Threads that ask, half of them outside and half of them in a pod.
const CLIENTS: usize = 8;

/// How much is asked of a machine.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Each client asks once in this time.
    pub between: Duration,
    /// Requests that are made at each stage, at least.
    pub enough: usize,
}

/// 1 000 requests a second in all.
pub const FULL: Effort = Effort {
    between: Duration::from_millis(8),
    enough: 300,
};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Lets time pass; no test depends on how much.
pub fn pause(time: Duration) {
    let (_hold, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(time);
}

/// Waits until something is so.
pub fn until(what: &str, so: impl FnMut() -> bool) {
    until_or(so, || what.into());
}

/// The same; what to say when that never comes is asked for then.
pub fn until_or(mut so: impl FnMut() -> bool, what: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "never: {}", what());
        pause(Duration::from_millis(2));
    }
}

/// The node is the network namespace that the calling thread is in from then on.
pub struct Node {
    outside: Host,
    /// A pod that only asks.
    client: Host,
    /// Of the pods' processes, and the root of all for the proxy.
    cgroup: Option<Cgroup>,
    pods: Host,
    hung: Hung,
    server: Server,
    proxy: Option<Child>,
    starts: usize,
    /// Who runs the proxy, if it is not us.
    user: Option<u32>,
}

impl Node {
    /// With an API and `pods` pods that serve, 10.1.1.2 and so on; no proxy yet.
    pub fn new(pods: u8) -> Node {
        let node = Host::router().unwrap();
        let [outside, client, all] = [0; 3].map(|_| Host::new().unwrap());
        let near = [net("10.1.1.1/24")];
        let far: Vec<IpNet> = (2..2 + pods)
            .map(|last| net(&format!("10.1.1.{last}/24")))
            .collect();
        node.join("veth1", &near, &all, "eth0", &far).unwrap();
        let near_client = [net("10.1.2.1/24")];
        let far_client = [net("10.1.2.2/24")];
        node.join("veth2", &near_client, &client, "eth0", &far_client)
            .unwrap();
        let near_out = [net("192.168.0.11/24")];
        let far_out = [net("192.168.0.1/24")];
        node.join("eth0", &near_out, &outside, "eth0", &far_out)
            .unwrap();
        let everywhere = net("0.0.0.0/0");
        all.route(everywhere, near[0].addr()).unwrap();
        client.route(everywhere, near_client[0].addr()).unwrap();
        outside.route(everywhere, near_out[0].addr()).unwrap();
        node.route(everywhere, far_out[0].addr()).unwrap();
        let hung = Hung::default();
        for pod in &far {
            serve(&all, SocketAddr::new(pod.addr(), 8080), &hung);
        }
        let cgroup = namespace::is_first_user().then(|| cgroup().unwrap());
        node.netns.enter().unwrap();
        let server = Server::start();
        server.wait();
        server.put("/api/v1/namespaces/default/services", SERVICE);
        Node {
            outside,
            client,
            cgroup,
            pods: all,
            hung,
            server,
            proxy: None,
            starts: 0,
            user: None,
        }
    }

    /// These pods stand behind the Service from now on.
    pub fn lead_to(&self, pods: &[u8]) {
        let endpoints: Vec<String> = pods
            .iter()
            .map(|last| format!("- {{addresses: [10.1.1.{last}], conditions: {{ready: true}}}}"))
            .collect();
        let slice = format!("{SLICE}endpoints:\n{}\n", endpoints.join("\n"));
        let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        self.server.put(path, &slice);
    }

    /// As if the process of a pod got SIGSTOP, or SIGCONT: meanwhile the kernel goes on taking connections.
    pub fn hang(&self, pod: u8, hangs: bool) {
        let (all, changed) = &*self.hung;
        let pod = at(&format!("10.1.1.{pod}:8080"));
        match hangs {
            true => all.lock().unwrap().insert(pod),
            false => all.lock().unwrap().remove(&pod),
        };
        changed.notify_all();
    }

    /// From now on nothing comes to this pod.
    pub fn cut_off(&self, pod: u8) {
        let rules = format!(
            "table ip cut {{ chain in {{ type filter hook input priority 0; ip daddr 10.1.1.{pod} drop; }}; }}"
        );
        let cut = || Command::new("nft").arg(&rules).status();
        assert!(self.pods.run(cut).unwrap().unwrap().success());
    }

    /// The client outside takes frames of XDP, as a real device does.
    pub fn take_frames_outside(&self) {
        let set = || offload::set("eth0", Offload::Gro, true);
        self.outside.run(set).unwrap().unwrap();
    }

    /// Starts the proxy with these arguments besides those that say where it is.
    pub fn start(&mut self, arguments: &[&str]) {
        self.user = None;
        self.start_program(Path::new(PORTOLAN), arguments);
    }

    /// The same with another file of the program.
    pub fn start_program(&mut self, program: &Path, arguments: &[&str]) {
        let mut command = Command::new(program);
        let kubeconfig = self.server.kubeconfig();
        command.args(["proxy", "--cluster-cidr", "10.0.0.0/8", "--kubeconfig"]);
        self.run(command.arg(kubeconfig).args(arguments));
    }

    /// The same as another user who has been given these capabilities, in setpriv's words.
    pub fn start_as(&mut self, user: u32, capabilities: &str, arguments: &[&str]) {
        let kubeconfig = self.server.kubeconfig_for(user);
        self.user = Some(user);
        std::fs::create_dir_all(self.state_dir()).unwrap();
        chown(self.state_dir(), Some(user), None).unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &user.to_string(), "--regid", &user.to_string()])
            .args(["--clear-groups", "--bounding-set", capabilities])
            .args(["--inh-caps", capabilities, "--ambient-caps", capabilities])
            .args([PORTOLAN, "proxy", "--cluster-cidr", "10.0.0.0/8"]);
        self.run(command.arg("--kubeconfig").arg(kubeconfig).args(arguments));
    }

    /// Starts the proxy with these arguments, and a variable in its environment.
    pub fn start_in(&mut self, variable: (&str, &str), arguments: &[&str]) {
        self.user = None;
        let mut command = Command::new(PORTOLAN);
        command.env(variable.0, variable.1);
        command.args(["proxy", "--cluster-cidr", "10.0.0.0/8", "--kubeconfig"]);
        let kubeconfig = self.server.kubeconfig();
        self.run(command.arg(kubeconfig).args(arguments));
    }

    fn run(&mut self, command: &mut Command) {
        command
            .args(["--hostname-override", "n1", "--state-dir"])
            .arg(self.state_dir())
            .stdout(Stdio::null())
            .stderr(self.server.log("proxy"))
            .die_with_parent(Signal::SIGKILL);
        self.proxy = Some(command.spawn().unwrap());
        self.starts += 1;
    }

    /// A field of the proxy's /proc/PID/status.
    pub fn status(&self, field: &str) -> String {
        status_of(self.pid(), field)
    }

    /// Waits until exactly these pods answer outside at the NodePort, and on the node itself at `to`.
    pub fn converged_on_the_node(&self, pods: &[u8], to: &str) {
        let wanted: BTreeSet<String> = pods.iter().map(|l| format!("10.1.1.{l}:8080")).collect();
        let outside = || self.outside.run(|| ask(at(ADDRESSES[1]))).unwrap();
        let asks: [&dyn Fn() -> std::io::Result<String>; 2] = [&|| ask(at(to)), &outside];
        for ask in asks {
            until_or(
                || {
                    let all: BTreeSet<String> = (0..8).filter_map(|_| ask().ok()).collect();
                    all == wanted
                },
                || format!("{wanted:?} at {to}\n{}", self.log()),
            );
        }
    }

    /// Writes a configuration file with these lines, in one step, for `--config`. The API has its place in it.
    pub fn configure(&self, lines: &str) -> PathBuf {
        let kubeconfig = self.server.kubeconfig();
        let text = format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
             clientConnection: {{kubeconfig: {}}}\nclusterCIDR: 10.0.0.0/8\n{lines}",
            kubeconfig.display()
        );
        let file = kubeconfig.with_file_name("proxy.conf");
        let new = kubeconfig.with_file_name("proxy.conf.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &file).unwrap();
        file
    }

    /// Starts the proxy with this file and these arguments; `path` is where it looks for programs.
    pub fn start_with(&mut self, file: &Path, arguments: &[&str], path: Option<&str>) {
        let mut command = Command::new(PORTOLAN);
        command.args(["proxy", "--config"]).arg(file);
        command.envs(path.map(|path| ("PATH", path)));
        self.run(command.args(arguments));
    }

    /// Where the proxy finds what outlives it.
    fn state_dir(&self) -> PathBuf {
        let name = match self.user {
            None => "state".into(),
            Some(user) => format!("state-{user}"),
        };
        self.server.kubeconfig().with_file_name(name)
    }

    /// `portolan proxy --cleanup`.
    pub fn clean_up(&self) {
        let status = Command::new(env!("CARGO_BIN_EXE_portolan"))
            .args([
                "proxy",
                "--cleanup",
                "--hostname-override",
                "n1",
                "--state-dir",
            ])
            .arg(self.state_dir())
            .stdout(Stdio::null())
            .stderr(self.server.log("proxy"))
            .status();
        assert!(status.unwrap().success(), "{}", self.log());
    }

    /// The processes of relays on this node.
    pub fn relays(&self) -> Vec<Pid> {
        let ours = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let is_relay = |pid: &i32| {
            let of = |name: &str| format!("/proc/{pid}/{name}");
            let words = std::fs::read_to_string(of("cmdline")).unwrap_or_default();
            let netns = std::fs::read_link(of("ns/net"));
            words.split('\0').nth(1) == Some("relay") && netns.is_ok_and(|netns| netns == ours)
        };
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.filter(is_relay).map(Pid::from_raw).collect()
    }

    /// The process of the proxy.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.proxy.as_ref().unwrap().id().cast_signed())
    }

    /// Ends the proxy with this signal.
    pub fn end(&mut self, signal: Signal) {
        let mut proxy = self.proxy.take().unwrap();
        let pid = Pid::from_raw(proxy.id().cast_signed());
        kill(pid, signal).unwrap();
        proxy.wait().unwrap();
        if signal == Signal::SIGTERM {
            let log = self.log();
            assert!(!log.contains("panicked"), "{log}");
        }
    }

    /// Whether the proxy that was started last has said that its rules stand and no other ones of ours.
    pub fn stands_alone(&self) -> bool {
        self.log().matches("the rules stand alone").count() == self.starts
    }

    /// One connection of each client to each address.
    pub fn connections(&self) -> Vec<TcpStream> {
        let hosts = [&self.outside, &self.client];
        let all = hosts
            .into_iter()
            .flat_map(|host| ADDRESSES.map(|to| (host, to)));
        all.map(|(host, to)| self.on(host, || connect(at(to))).unwrap())
            .collect()
    }

    /// One request of each client to each address: the first error, if there is one.
    pub fn ask_everywhere(&self) -> std::io::Result<()> {
        let hosts = [&self.outside, &self.client];
        let mut all = hosts
            .into_iter()
            .flat_map(|host| ADDRESSES.map(|to| (host, to)));
        all.try_for_each(|(host, to)| self.on(host, || ask(at(to))).map(drop))
    }

    /// Runs `work` as a process of one of the clients.
    fn on<T: Send>(&self, host: &Host, work: impl FnOnce() -> T + Send) -> T {
        let is_pod = std::ptr::eq(host, &self.client);
        let run = || {
            if let Some(cgroup) = self.cgroup.as_ref().filter(|_| is_pod) {
                cgroup.join().unwrap();
            }
            work()
        };
        host.run(run).unwrap()
    }

    /// Waits until exactly these pods answer everywhere.
    pub fn converged(&self, pods: &[u8]) {
        let wanted: BTreeSet<String> = pods.iter().map(|l| format!("10.1.1.{l}:8080")).collect();
        for host in [&self.outside, &self.client] {
            for to in ADDRESSES {
                // So many that one of four endpoints is missed by chance once in a hundred thousand.
                let answers = || (0..40).map(|_| self.on(host, || ask(at(to))).ok());
                until(&format!("{wanted:?} at {to}"), || {
                    let all: BTreeSet<String> = answers().flatten().collect();
                    all == wanted
                });
            }
        }
    }

    /// Clients that ask until they are told to end.
    pub fn load(&self) -> Load {
        self.load_of(FULL)
    }

    /// The same at another pace.
    pub fn load_of(&self, effort: Effort) -> Load {
        let (is_over, asked) = <(Arc<AtomicBool>, Arc<AtomicUsize>)>::default();
        let failures = Arc::<Mutex<Vec<String>>>::default();
        let clients = (0..CLIENTS).map(|index| {
            let host = [&self.outside, &self.client][index % 2];
            let to = ADDRESSES[index / 2 % 2];
            let (is_over, asked) = (Arc::clone(&is_over), Arc::clone(&asked));
            let failures = Arc::clone(&failures);
            let ask_on = move || {
                while !is_over.load(Ordering::Relaxed) {
                    let next = Instant::now() + effort.between;
                    asked.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = ask(at(to)) {
                        failures.lock().unwrap().push(format!("{to}: {error}"));
                    }
                    pause(next.saturating_duration_since(Instant::now()));
                }
            };
            self.on(host, || std::thread::spawn(ask_on))
        });
        Load {
            clients: clients.collect(),
            is_over,
            asked,
            failures,
        }
    }

    /// What the proxy has logged.
    pub fn log(&self) -> String {
        self.server.read_log("proxy")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.proxy.is_some() {
            self.end(Signal::SIGKILL);
        }
        for relay in self.relays() {
            // An error: it has just ended.
            let _ = kill(relay, Signal::SIGKILL);
        }
    }
}

/// One of the test's own, with a bpffs of its own.
pub fn cgroup() -> portolan_kernel::Result<Cgroup> {
    mount::bpffs(Path::new("/sys/fs/bpf"))?;
    let mut cgroup = Cgroup::new(&Location::default().cgroup)?;
    cgroup.show_as_root()?;
    Ok(cgroup)
}

/// Clients at work.
pub struct Load {
    clients: Vec<JoinHandle<()>>,
    is_over: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
}

impl Load {
    /// How many requests have been made.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Ends them; returns how many requests were made, and what went wrong.
    pub fn end(self) -> (usize, Vec<String>) {
        self.is_over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
        let failures = std::mem::take(&mut *self.failures.lock().unwrap());
        (self.asked.load(Ordering::Relaxed), failures)
    }
}

/// Servers that do nothing at the moment.
type Hung = Arc<(Mutex<BTreeSet<SocketAddr>>, Condvar)>;

/// Answers every connection with its own address, until the test ends.
fn serve(host: &Host, here: SocketAddr, hung: &Hung) {
    let listener = host.run(|| TcpListener::bind(here)).unwrap().unwrap();
    let hung = Arc::clone(hung);
    let wait = move || {
        let all = hung.0.lock().unwrap();
        drop(hung.1.wait_while(all, |all| all.contains(&here)).unwrap());
    };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            wait();
            let wait = wait.clone();
            std::thread::spawn(move || {
                while stream.read(&mut [0; 8]).is_ok_and(|length| length > 0) {
                    wait();
                    let _ = stream.write_all(here.to_string().as_bytes());
                }
            });
        }
    });
}

/// A field of a process' /proc/PID/status.
pub fn status_of(pid: Pid, field: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    let found = fields.clone().find(|(name, _)| *name == field);
    found.unwrap().1.trim().to_owned()
}

/// One request over a connection of its own: who answers.
pub fn ask(to: SocketAddr) -> std::io::Result<String> {
    ask_over(&mut connect(to)?)
}

fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// One request over a connection that stands: who answers.
pub fn ask_over(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.write_all(b"?")?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  clusterIP: 172.30.0.80
  ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080}]
";

const SLICE: &str = "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
";
