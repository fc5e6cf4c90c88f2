//! What an answer to a name costs: `portolan dns` with kubeadm's file and a whole cluster, and other servers with the
//! same records, each alone on one core; dnsperf asks from another host on another core, all in turns.
//!
//! ```text
//!   API ──watch──▶ portolan dns │ CoreDNS │ knot │ …   each on a host of its own, all on the first core
//!                        ▲ veth
//!                     dnsperf, on the last core        one kind of question after the other, one server after the other
//! ```

mod cluster;
mod dnsperf;
mod servers;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portolan_kernel::topology::Host;
use portolan_testkit::wait;
use serde_json::json;

use cluster::Kind;
pub use cluster::SHAPE;
use dnsperf::Length;
use servers::{Place, Server};

use crate::agent::pause;
use crate::api::{self, Api};
use crate::contender::find;
use crate::lane::{Figure, addresses, cores, host};
use crate::{packets, process};

/// How often each server is asked for each kind; the middle one is told.
const TURNS: usize = 5;
/// How long one turn is.
const TURN_S: u64 = 2;
/// For a server to have read everything.
const PATIENCE: Duration = Duration::from_secs(120);
/// After which a server is idle again.
const SETTLE: Duration = Duration::from_secs(3);
/// To list everything anew takes more processor time than this.
const RELIST_MIN: Duration = Duration::from_millis(50);
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server at work. It ends when this is dropped.
struct Running {
    server: Server,
    child: Child,
    address: Ipv4Addr,
    _host: Host,
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has children of its own ends them when it is asked to.
        let _ = kill(self.pid(), Signal::SIGTERM);
        wait::until(SETTLE, || matches!(self.child.try_wait(), Ok(Some(_))));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

/// Everything that is measured together.
struct Bench<'a> {
    say: &'a dyn Fn(&str),
    api: Api,
    client: Host,
    cores: [usize; 2],
    figures: Vec<Figure>,
    notes: Vec<String>,
}

/// Measures all servers that are here; figures, and what was left out.
pub fn measure(portolan: &Path, say: &dyn Fn(&str)) -> Result<(Vec<Figure>, Vec<String>), String> {
    if find("dnsperf").is_none() {
        return Err("there is no dnsperf: apt-get install dnsperf".into());
    }
    let (peers, notes) = servers::peers()?;
    let client = Host::new().map_err(|e| e.to_string())?;
    let all: Vec<Server> = [Server::ours(portolan)].into_iter().chain(peers).collect();
    let hosts: Vec<Host> = (0..all.len())
        .map(|index| host(&client, index))
        .collect::<Result<_, _>>()?;
    let listen = |host: &Host| host.run(api::listen).map_err(|e| e.to_string())?;
    say("the API is being filled");
    let api = Api::start(
        portolan,
        hosts.iter().map(listen).collect::<Result<_, _>>()?,
    )?;
    api.create(cluster::objects())?;
    let mut bench = Bench {
        say,
        api,
        client,
        cores: cores()?,
        figures: Vec::new(),
        notes,
    };
    let mut upstream = servers::start_upstream(portolan, &bench.client, bench.api.folder())?;
    let done = bench.all(all, hosts);
    let _ = upstream.kill();
    let _ = upstream.wait();
    done?;
    Ok((bench.figures, bench.notes))
}

impl Bench<'_> {
    fn all(&mut self, servers: Vec<Server>, hosts: Vec<Host>) -> Result<(), String> {
        let mut running = Vec::new();
        for (index, (server, host)) in servers.into_iter().zip(hosts).enumerate() {
            let peer = server.peer();
            match (self.start(server, host, index), peer) {
                (Ok(one), _) => running.push(one),
                // A peer that does not start is news, not the end of the run.
                (Err(error), Some(peer)) => self.note(format!("{peer}: {error}.")),
                (Err(error), None) => return Err(error),
            }
        }
        for kind in Kind::ALL {
            self.answers(kind, &running)?;
        }
        for one in &running {
            self.memory(one, "resident memory after all answers", |memory| {
                memory.resident
            });
        }
        for one in running.iter().filter(|one| one.server.watches()) {
            self.relist(one)?;
        }
        Ok(())
    }

    fn note(&mut self, note: String) {
        (self.say)(&note);
        self.notes.push(note);
    }

    fn add(&mut self, one: &Running, what: impl Into<String>, value: f64, unit: &'static str) {
        let (peer, what) = (one.server.peer(), what.into());
        self.figures.push(Figure {
            peer,
            what,
            value,
            unit,
        });
    }

    fn memory(&mut self, one: &Running, what: &str, of: fn(&process::Memory) -> u64) {
        let all = process::family(one.child.id()).into_iter();
        let largest = all.map(|pid| of(&process::memory(&pid.to_string()))).max();
        self.add(one, what, largest.unwrap_or_default() as f64 / 1e6, "MB");
    }

    fn start(&mut self, server: Server, host: Host, index: usize) -> Result<Running, String> {
        let name = server.peer().unwrap_or("portolan".into());
        (self.say)(&format!("{name} starts"));
        let folder = self.api.folder().join(format!("dns-{index}"));
        std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
        let [address, upstream] = addresses(index);
        let kubeconfig = self.api.kubeconfig();
        let place = Place {
            host: &host,
            folder: &folder,
            kubeconfig: &kubeconfig,
            upstream,
            core: self.cores[0],
        };
        let begun = Instant::now();
        let child = server.start(&place)?;
        let mut one = Running {
            server,
            child,
            address,
            _host: host,
        };
        for kind in Kind::ALL {
            if !one.server.knows(kind) {
                continue;
            }
            if !self.awaits(&mut one, kind)? {
                let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(5).collect();
                let what = kind.name();
                return Err(format!("no right answer, {what}; it said last: {tail:#?}"));
            }
            if kind == Kind::ClusterIp {
                let time = begun.elapsed().as_secs_f64() * 1e3;
                self.add(&one, "from start to the first right answer", time, "ms");
            }
        }
        pause(SETTLE);
        self.memory(&one, "resident memory after the start", |of| of.resident);
        self.memory(&one, "highest resident memory of the start", |of| {
            of.highest
        });
        Ok(one)
    }

    /// Waits for a right answer; false when there is none, or nobody any more to give it.
    fn awaits(&self, one: &mut Running, kind: Kind) -> Result<bool, String> {
        let address = one.address;
        let child = &mut one.child;
        let mut has_ended = false;
        let answered = self.client.run(|| {
            wait::until(PATIENCE, || {
                has_ended = matches!(child.try_wait(), Ok(Some(_)));
                has_ended || is_answered(address, kind)
            })
        });
        Ok(answered.map_err(|e| e.to_string())? && !has_ended)
    }

    /// All servers that know the kind, in turns.
    fn answers(&mut self, kind: Kind, running: &[Running]) -> Result<(), String> {
        (self.say)(&format!("{}: all take turns", kind.name()));
        let file: PathBuf = self.api.folder().join("questions");
        std::fs::write(&file, kind.questions()).map_err(|e| e.to_string())?;
        let [_, client_core] = self.cores;
        let mut measured: Vec<[Vec<f64>; 3]> = vec![Default::default(); running.len()];
        for turn in 0..TURNS {
            for (one, measured) in running
                .iter()
                .zip(&mut measured)
                .filter(|(one, _)| one.server.knows(kind))
            {
                let ask = |length| {
                    dnsperf::run(&self.client, client_core, one.address, kind, &file, length)
                };
                let result = ask(Length::Once).and_then(|_| {
                    let before = process::family_time(one.child.id());
                    let run = ask(Length::Seconds(TURN_S))?;
                    let spent = process::family_time(one.child.id()) - before;
                    Ok([
                        spent.as_secs_f64() * 1e6 / run.answers,
                        run.per_second,
                        run.latency_us,
                    ])
                });
                match (result, one.server.peer()) {
                    (Ok(values), _) => measured
                        .iter_mut()
                        .zip(values)
                        .for_each(|(all, value)| all.push(value)),
                    (Err(error), None) => {
                        return Err(format!("{}, turn {turn}: {error}", kind.name()));
                    }
                    (Err(error), Some(peer)) => {
                        let note = format!("{peer}, {}: {error}.", kind.name());
                        (self.say)(&note);
                        self.notes.push(note);
                    }
                }
            }
        }
        let kinds = [
            ("processor time of an answer", "µs"),
            ("answers", "a second"),
            ("time of a query among 100", "µs"),
        ];
        for (index, (what, unit)) in kinds.into_iter().enumerate() {
            for (one, measured) in running.iter().zip(&measured) {
                if !measured[index].is_empty() {
                    self.add(
                        one,
                        format!("{what}, {}", kind.name()),
                        packets::middle(measured[index].clone()),
                        unit,
                    );
                }
            }
        }
        Ok(())
    }

    /// The API ends, and what it says anew has versions that nobody knows: everything is listed again.
    fn relist(&mut self, one: &Running) -> Result<(), String> {
        let name = one.server.peer().unwrap_or("portolan".into());
        (self.say)(&format!("{name} lists everything anew"));
        let signal = |signal| kill(one.pid(), signal).map_err(|e| e.to_string());
        signal(Signal::SIGSTOP)?;
        let mark = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("mark-{}", one.child.id()), "namespace": "default"},
        });
        self.api
            .runtime
            .block_on(self.api.send("POST", CONFIG_MAPS.into(), Some(mark)))?;
        self.api.restart()?;
        let clear = format!("/proc/{}/clear_refs", one.child.id());
        // 5 makes what is resident now the most that ever was (proc_pid_clear_refs(5)).
        std::fs::write(&clear, "5").map_err(|e| format!("{clear}: {e}"))?;
        let before = process::family_time(one.child.id());
        signal(Signal::SIGCONT)?;
        let spent = || process::family_time(one.child.id()) - before;
        if !wait::until(PATIENCE, || spent() > RELIST_MIN) {
            return Err(format!("{name} does not list anew"));
        }
        // Done when nothing more is spent for a while.
        let mut last = spent();
        loop {
            pause(SETTLE);
            let now = spent();
            if now - last < RELIST_MIN {
                break;
            }
            last = now;
        }
        self.add(
            one,
            "processor time of a relist",
            last.as_secs_f64() * 1e3,
            "ms",
        );
        self.memory(one, "highest resident memory of a relist", |memory| {
            memory.highest
        });
        self.memory(one, "resident memory after a relist", |memory| {
            memory.resident
        });
        Ok(())
    }
}

/// Whether a server answers a question of this kind as it must.
fn is_answered(server: Ipv4Addr, kind: Kind) -> bool {
    let ask = || -> std::io::Result<bool> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        socket.connect(SocketAddr::from((server, 53)))?;
        socket.send(&kind.query())?;
        let mut answer = [0; 4096];
        let length = socket.recv(&mut answer)?;
        Ok(kind.is_answered_by(&answer[..length]))
    };
    ask().unwrap_or(false)
}
