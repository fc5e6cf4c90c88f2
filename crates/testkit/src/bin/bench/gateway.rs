//! What the front door costs: `portolan gateway`, nginx and haproxy with the same routes, each alone on one core; clients
//! and endpoints are on the other one, all in turns.
//!
//! ```text
//!   API ──watch──▶ portolan gateway │ nginx │ haproxy    each on a host of its own, all on the first core
//!                     ▲ veth                  │
//!              wrk, h2load, idle clients      └──veth──▶ endpoints (one thread)      on the last core
//! ```
//!
//! What counts is the server's processor time for each request: that the other core may be the busier one does not matter.

mod backend;
mod idle;
mod load;
mod pace;
mod servers;
mod site;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portolan_kernel::topology::Host;
use portolan_testkit::wait;

use load::{Client, Kind};
use servers::{Place, Program, Server};
use site::Identity;
pub use site::Site;

use crate::agent::pause;
use crate::api::{self, Api};
use crate::lane::{Figure, addresses, cores, host};
use crate::objects::ENDPOINT_RANGES;
use crate::samples::{Samples, millis};
use crate::{packets, process};

/// How often each server is asked for each kind; the middle one is told.
const TURNS: usize = 3;
/// How long one turn is, and what comes before it.
const TURN: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_secs(1);
/// For a server to have read everything, or a change.
const PATIENCE: Duration = Duration::from_secs(60);
/// After which a server is idle again.
const SETTLE: Duration = Duration::from_secs(2);
/// Connections that do nothing.
const IDLE: usize = 10_000;
/// Changes of routes that are waited for.
const CHANGES: u32 = 20;
/// Few routes, for what does not depend on them; and many.
const SITES: [Site; 3] = [
    Site { hosts: 2 },
    Site { hosts: 200 },
    Site { hosts: 1_000 },
];

/// A server at work. It ends when this is dropped.
struct Running {
    server: Server,
    child: Child,
    address: Ipv4Addr,
    folder: PathBuf,
    _host: Host,
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has children of its own ends them when it is asked to; nginx waits for connections with SIGQUIT only.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        wait::until(SETTLE, || matches!(self.child.try_wait(), Ok(Some(_))));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that is measured with one site.
struct Bench<'a> {
    say: &'a dyn Fn(&str),
    api: Api,
    client: Host,
    cores: [usize; 2],
    site: Site,
    identity: Identity,
    figures: Vec<Figure>,
    notes: Vec<String>,
}

/// The parts that there are, by their names.
pub fn parts() -> impl Iterator<Item = (String, Site)> {
    SITES
        .map(|site| (format!("gateway, {} routes", site.routes()), site))
        .into_iter()
}

/// Measures all servers that are here with one site; figures, and what was left out.
pub fn measure(
    portolan: &Path,
    site: Site,
    say: &dyn Fn(&str),
) -> Result<(Vec<Figure>, Vec<String>), String> {
    if let Some(missing) = load::missing() {
        return Err(missing.into());
    }
    let (peers, notes) = servers::peers()?;
    let client = Host::new().map_err(|e| e.to_string())?;
    let all: Vec<Server> = [Server::ours(portolan)].into_iter().chain(peers).collect();
    let hosts: Vec<Host> = (0..all.len())
        .map(|index| host_with_way(&client, index))
        .collect::<Result<_, _>>()?;
    let listen = |host: &Host| host.run(api::listen).map_err(|e| e.to_string())?;
    say("the API is being filled");
    let listeners = hosts.iter().map(listen).collect::<Result<_, _>>()?;
    let mut bench = Bench {
        say,
        api: Api::start(portolan, listeners)?,
        client,
        cores: cores()?,
        site,
        identity: Identity::new()?,
        figures: Vec::new(),
        notes,
    };
    bench.api.create(site.objects(&bench.identity))?;
    backend::start(&bench.client, bench.cores[1])?;
    bench.all(all, hosts)?;
    Ok((bench.figures, bench.notes))
}

/// A host for a server, with a way to the endpoints, which are the client's.
fn host_with_way(client: &Host, index: usize) -> Result<Host, String> {
    let host = host(client, index)?;
    let [_, way] = addresses(index);
    let range: IpNet = ENDPOINT_RANGES[0]
        .parse()
        .expect("invariant: ranges in the code are well formed");
    host.route(range, way.into()).map_err(|e| e.to_string())?;
    Ok(host)
}

impl Bench<'_> {
    fn all(&mut self, servers: Vec<Server>, hosts: Vec<Host>) -> Result<(), String> {
        let mut running = Vec::new();
        for (index, (server, host)) in servers.into_iter().zip(hosts).enumerate() {
            let peer = server.peer();
            let one = self.start(server, host, index);
            running.extend(self.or_note(peer, one)?);
        }
        let is_small = self.site == SITES[0];
        let kinds: &[Kind] = match is_small {
            true => &[
                Kind::Small,
                Kind::Large,
                Kind::Http2,
                Kind::Handshake,
                Kind::Paced,
            ],
            false => &[Kind::Routes],
        };
        for kind in kinds {
            self.turns(*kind, &running)?;
        }
        for one in &running {
            self.memory(one, "resident memory after all requests");
        }
        for one in &running {
            let result = match is_small {
                true => self.idle(one),
                false => self.changes(one),
            };
            self.or_note(one.server.peer(), result)?;
        }
        Ok(())
    }

    /// What goes wrong with a peer is news, not the end of the run.
    fn or_note<T>(
        &mut self,
        peer: Option<String>,
        result: Result<T, String>,
    ) -> Result<Option<T>, String> {
        match (result, peer) {
            (Ok(value), _) => Ok(Some(value)),
            (Err(error), None) => Err(error),
            (Err(error), Some(peer)) => {
                let note = format!("{peer}: {error}.");
                (self.say)(&note);
                self.notes.push(note);
                Ok(None)
            }
        }
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

    /// Of the process that has most of it: nginx has two, of which one does nothing.
    fn memory(&mut self, one: &Running, what: &str) {
        let all = process::family(one.child.id()).into_iter();
        let all = all.map(|pid| process::memory(&pid.to_string()).resident);
        let bytes = all.max().unwrap_or_default();
        self.add(one, what, bytes as f64 / 1e6, "MB");
    }

    fn start(&mut self, server: Server, host: Host, index: usize) -> Result<Running, String> {
        let name = server.peer().unwrap_or("portolan".into());
        (self.say)(&format!("{name} starts"));
        let folder = self.api.folder().join(format!("gateway-{index}"));
        std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
        let place = Place {
            host: &host,
            folder: &folder,
            kubeconfig: &self.api.kubeconfig(),
            identity: &self.identity,
            site: self.site,
            core: self.cores[0],
        };
        let begun = Instant::now();
        let child = server.start(&place)?;
        let [address, _] = addresses(index);
        let mut one = Running {
            server,
            child,
            address,
            folder,
            _host: host,
        };
        // The last one is there when all of them are.
        let last = Site::host(self.site.hosts - 1);
        if !self.awaits(&mut one, &last, "/p4/small")? {
            let log = std::fs::read_to_string(one.folder.join("log")).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(5).collect();
            return Err(format!("no right answer; it said last: {tail:#?}"));
        }
        self.add(
            &one,
            "from start to the last route",
            millis(begun.elapsed()),
            "ms",
        );
        pause(SETTLE);
        self.memory(&one, "resident memory after the start");
        Ok(one)
    }

    /// Waits for a right answer; false when there is none, or nobody any more to give it.
    fn awaits(&self, one: &mut Running, host: &str, path: &str) -> Result<bool, String> {
        let (address, child) = (one.address, &mut one.child);
        let mut has_ended = false;
        let answered = self.client.run(|| {
            wait::until(PATIENCE, || {
                has_ended = matches!(child.try_wait(), Ok(Some(_)));
                has_ended || idle::is_served(address, host, path)
            })
        });
        Ok(answered.map_err(|e| e.to_string())? && !has_ended)
    }

    /// All servers in turns.
    fn turns(&mut self, kind: Kind, running: &[Running]) -> Result<(), String> {
        (self.say)(&format!("{}: all take turns", kind.name()));
        let mut measured: Vec<[Vec<f64>; 2]> = vec![Default::default(); running.len()];
        for _ in 0..TURNS {
            for (one, [rates, times]) in running.iter().zip(&mut measured) {
                let turn = self.turn(kind, one);
                if let Some((rate, slow)) = self.or_note(one.server.peer(), turn)? {
                    rates.push(rate);
                    times.extend(slow);
                }
            }
        }
        for (one, [rates, times]) in running.iter().zip(measured) {
            if !rates.is_empty() {
                self.add(one, kind.name(), packets::middle(rates), "a CPU second");
            }
            if !times.is_empty() {
                let name = format!("{}, p99", kind.name());
                self.add(one, name, packets::middle(times), "ms");
            }
        }
        Ok(())
    }

    /// Requests in a second of the server's processor time, and the slowest of a hundred, if each was looked at.
    fn turn(&self, kind: Kind, one: &Running) -> Result<(f64, Option<f64>), String> {
        let client = Client {
            host: &self.client,
            core: self.cores[1],
            folder: self.api.folder(),
        };
        client.prepare(self.site)?;
        client.run(one.address, kind, WARM_UP)?;
        let before = process::family_time(one.child.id());
        let run = client.run(one.address, kind, TURN)?;
        let spent = process::family_time(one.child.id()) - before;
        Ok((run.requests / spent.as_secs_f64(), run.times.millis(99)))
    }

    /// What connections cost that do nothing after their first request.
    fn idle(&mut self, one: &Running) -> Result<(), String> {
        let held = self
            .client
            .run(|| idle::connect(one.address, &Site::host(0), IDLE));
        let held = held.map_err(|e| e.to_string())??;
        self.memory(
            one,
            &format!("resident memory with {IDLE} idle connections"),
        );
        drop(held);
        Ok(())
    }

    /// How long a new route takes: from the moment before it is written until it is served.
    fn changes(&mut self, one: &Running) -> Result<(), String> {
        let mut times = Vec::new();
        for change in 1..=CHANGES {
            let begun = Instant::now();
            match one.server.program {
                Program::Portolan => {
                    let (path, patch) = Site::patch(0, change);
                    let sent = self.api.send("PATCH", path, Some(patch));
                    self.api.runtime.block_on(sent)?;
                }
                _ => one
                    .server
                    .change(&one.folder, one.child.id(), self.site, change)?,
            }
            let path = format!("{}/small", Site::changed(change - 1));
            let host = Site::host(0);
            let address = one.address;
            let served = self
                .client
                .run(|| idle::until_served(address, &host, &path, PATIENCE));
            if !served.map_err(|e| e.to_string())? {
                return Err(format!("a new route is not served after {PATIENCE:?}"));
            }
            times.push(begun.elapsed());
        }
        let times: Samples = times.into_iter().collect();
        for percent in [50, 99] {
            if let Some(value) = times.millis(percent) {
                self.add(
                    one,
                    format!("a new route is served, p{percent}"),
                    value,
                    "ms",
                );
            }
        }
        Ok(())
    }
}
