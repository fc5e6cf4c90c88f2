//! The whole run: which shapes and programs are measured, how thoroughly, and where the results go.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use portolan_model::Family;
use portolan_testkit::world;

use crate::agent::{self, Plan, Run};
use crate::api::{self, Api};
use crate::bed::Bed;
use crate::contender::{self, Contender, PeerMode};
use crate::dns;
use crate::document::{self, Machine};
use crate::gateway;
use crate::haproxy;
use crate::objects::{self, Shape};
use crate::packets::Felt;
use crate::report::Report;
use crate::samples::{Samples, millis};
use crate::traffic::{self, Worth};
use crate::{plot, programming};

const fn shape(services: u32, endpoints: u32) -> Shape {
    Shape {
        services,
        endpoints,
    }
}

/// What programming is measured with.
const PROGRAMMING: [Shape; 6] = [
    shape(1_000, 2),
    shape(1_000, 10),
    shape(10_000, 2),
    shape(10_000, 10),
    shape(100_000, 2),
    shape(100_000, 10),
];
/// What programming by the tools of iptables is measured with.
const TOOLS: [Shape; 2] = [shape(1_000, 2), shape(10_000, 2)];
/// What our agent is measured with.
const AGENT: [Shape; 5] = [
    shape(1_000, 2),
    shape(1_000, 10),
    shape(10_000, 2),
    shape(10_000, 10),
    shape(100_000, 2),
];
/// What the peer is measured with.
const PEER: [Shape; 3] = [shape(1_000, 2), shape(10_000, 2), shape(10_000, 10)];
/// What packets pass through.
const PACKETS: Shape = shape(10_000, 2);
/// What was left out of the lists above, and why.
const LEFT_OUT: &str = "Left out: an agent with 100000 x 10, which the API server takes minutes to be filled with; \
    for the peer also 1000 x 10 and everything with 100,000 Services, which it takes minutes to start with.";

const OURS: Plan = Plan {
    changes: 500,
    additions: 20,
    patience: Duration::from_secs(30),
    rates: RATES,
};
const THEIRS: Plan = Plan {
    changes: 200,
    additions: 5,
    patience: Duration::from_secs(15),
    rates: RATES,
};
/// For a peer that needs as long for one change as others for everything.
const SLOW: Plan = Plan {
    changes: 1,
    additions: 0,
    patience: Duration::ZERO,
    rates: &[(20, Duration::from_secs(10))],
};
const RATES: &[(u32, Duration)] = &[
    (20, Duration::from_secs(10)),
    (100, Duration::from_secs(10)),
];
/// A peer that needs longer to start is slow, and is not started with more.
const SLOW_START: Duration = Duration::from_secs(20);
/// Fewer Services say little about the processor's time.
const RATES_FROM: u32 = 10_000;

/// Runs every part whose name contains `only`.
pub fn run(only: &str) -> Result<(), String> {
    let portolan = portolan()?;
    let mut bench = Bench {
        begun: Instant::now(),
        report: Report::default(),
        round: 0,
        slow: Vec::new(),
    };
    bench.note(load());
    let peers = bench.peers()?;
    let ours = |mode| Contender::Portolan {
        program: portolan.clone(),
        mode,
    };
    for shape in PROGRAMMING {
        if format!("programming, {shape}").contains(only) {
            bench.programming("nftables", &format!("programming, {shape}"), shape)?;
        }
    }
    for (mode, shape) in tools() {
        let name = format!("programming, {mode}, {shape}");
        if name.contains(only) {
            bench.programming(mode, &name, shape)?;
        }
    }
    for shape in AGENT {
        if format!("agent, {shape}").contains(only) {
            // One kind of iptables is enough; the older is the faster one for it.
            let slower = |peer: &&Contender| matches!(peer, Contender::Peer { mode, .. } if *mode == PeerMode::IptablesNft);
            let peers = peers
                .iter()
                .filter(|peer| PEER.contains(&shape) && !slower(peer));
            let ours = ours("nftables");
            let all: Vec<&Contender> = [&ours].into_iter().chain(peers).collect();
            bench.agents(&portolan, shape, &all)?;
        }
    }
    for mode in contender::MODES {
        if format!("traffic, {mode}").contains(only) {
            let same = |peer: &&Contender| matches!(peer, Contender::Peer { mode: of, .. } if of.mode() == mode);
            let ours = ours(mode);
            let relays = match mode {
                "userspace" => bench.relays()?,
                _ => Vec::new(),
            };
            let peers = peers.iter().filter(same).chain(&relays);
            let all: Vec<&Contender> = [&ours].into_iter().chain(peers).collect();
            bench.traffic(&portolan, mode, &all)?;
        }
    }
    if format!("dns, {}", dns::SHAPE).contains(only) {
        bench.dns(&portolan)?;
    }
    for (part, site) in gateway::parts() {
        if part.contains(only) {
            bench.gateway(&portolan, &part, site)?;
        }
    }
    bench.report.notes.push(LEFT_OUT.into());
    bench.write(only.is_empty())
}

/// Other modes of programming, with their shapes.
fn tools() -> impl Iterator<Item = (&'static str, Shape)> {
    let modes = programming::MODES.into_iter().skip(1);
    modes.flat_map(|mode| TOOLS.map(|shape| (mode, shape)))
}

struct Bench {
    begun: Instant,
    report: Report,
    /// Numbers the changes of all agents.
    round: u32,
    /// Peers that were slow.
    slow: Vec<String>,
}

impl Bench {
    fn say(&self, line: &str) {
        let elapsed = self.begun.elapsed().as_secs_f64();
        let _ = writeln!(io::stdout(), "[{elapsed:>6.1} s] {line}");
    }

    /// The peer in its modes; an absent one is said.
    fn peers(&mut self) -> Result<Vec<Contender>, String> {
        let Some(program) = std::env::var_os("PEER_KUBE_PROXY") else {
            self.note("The peer was absent: PEER_KUBE_PROXY was not set, so every value of it is missing (null).".into());
            return Ok(Vec::new());
        };
        let (peers, missing) = contender::peers(Path::new(&program))?;
        for peer in &peers {
            self.say(&format!("peer: {}", peer.name()));
        }
        missing
            .into_iter()
            .for_each(|what| self.note(format!("Missing: {what}.")));
        Ok(peers)
    }

    /// haproxy, with its defaults and with splice; an absent one is said.
    fn relays(&mut self) -> Result<Vec<Contender>, String> {
        let relays = haproxy::find()?;
        if relays.is_empty() {
            self.note(
                "The peer haproxy was absent: PEER_HAPROXY was not set, and none is installed."
                    .into(),
            );
        }
        Ok(relays)
    }

    fn note(&mut self, note: String) {
        self.say(&note);
        self.report.notes.push(note);
    }

    fn programming(&mut self, mode: &str, name: &str, shape: Shape) -> Result<(), String> {
        self.say(name);
        for found in programming::measure(mode, shape)? {
            let what = format!("{name}: {}", found.what);
            self.add(None, &what, found.value, &found.unit);
        }
        Ok(())
    }

    /// One shape: one API server, and one program after the other on a node of its own.
    fn agents(&mut self, portolan: &Path, shape: Shape, all: &[&Contender]) -> Result<(), String> {
        self.say(&format!("agent, {shape}: the API is being filled"));
        let beds: Vec<Bed> = all.iter().map(|_| Bed::build()).collect::<Result<_, _>>()?;
        let listen = |bed: &Bed| bed.node.run(api::listen).map_err(|e| e.to_string())?;
        let api = Api::start(portolan, beds.iter().map(listen).collect::<Result<_, _>>()?)?;
        api.load(shape, world::node_address(Family::V4, 1))?;
        for (contender, bed) in all.iter().zip(&beds) {
            if self.slow.contains(&contender.name()) {
                self.note(format!(
                    "Left out: {} with {shape}, for which it would take minutes.",
                    contender.name()
                ));
                continue;
            }
            self.say(&format!("agent, {shape}: {}", contender.name()));
            let result = self.agent(contender, &api, bed, shape);
            match (contender, result) {
                (_, Ok(())) => {}
                (Contender::Portolan { .. }, Err(error)) => return Err(error),
                // A peer that gives up is news, not the end of the run.
                (_, Err(error)) => {
                    self.note(format!("{} with {shape}: {error}.", contender.name()));
                }
            }
        }
        Ok(())
    }

    /// One mode: what traffic feels of us and of the peers that work in the same way, and around all Services.
    fn traffic(&mut self, portolan: &Path, mode: &str, all: &[&Contender]) -> Result<(), String> {
        self.say(&format!("traffic, {mode}: the API is being filled"));
        let beds: Vec<Bed> = all.iter().map(|_| Bed::build()).collect::<Result<_, _>>()?;
        let listen = |bed: &Bed| bed.node.run(api::listen).map_err(|e| e.to_string())?;
        let api = Api::start(portolan, beds.iter().map(listen).collect::<Result<_, _>>()?)?;
        api.load(traffic::SHAPE, world::node_address(Family::V4, 1))?;
        for number in traffic::services() {
            let [service, slice] = traffic::objects(number);
            let service = (api::SERVICES, objects::name(number), service);
            let slice = (api::SLICES, objects::slice_name(number), slice);
            for (path, name, object) in [service, slice] {
                let path = format!("{path}/{name}");
                api.runtime.block_on(api.send("PUT", path, Some(object)))?;
            }
        }
        let mut sinks = Vec::new();
        let mut running = Vec::new();
        for (contender, bed) in all.iter().zip(&beds) {
            self.say(&format!("traffic, {mode}: {} starts", contender.name()));
            sinks.push(traffic::Sinks::start(&bed.server)?);
            running.push(agent::start(
                contender,
                &api,
                bed,
                traffic::SHAPE,
                self.round,
            )?);
            self.round += 1;
        }
        self.say(&format!("traffic, {mode}: all take turns"));
        let ways = all.iter().zip(&beds).zip(&sinks);
        let ways: Vec<_> = ways
            .flat_map(|((contender, bed), sinks)| {
                traffic::ways(!contender.is_relay()).map(|way| (bed, sinks, way))
            })
            .collect();
        let worth = traffic::measure(&ways)?;
        for (contender, worth) in all.iter().zip(worth.chunks_exact(2)) {
            let name = contender.name();
            let (through, direct) = match contender {
                Contender::Portolan { .. } => (None, "direct".to_owned()),
                _ => (Some(&*name), format!("direct beside {name}")),
            };
            self.tell_traffic(through, mode, &worth[1]);
            self.tell_traffic(Some(&direct), mode, &worth[0]);
        }
        Ok(())
    }

    /// Answers to names; ours first, so that a peer's value has a ratio.
    fn dns(&mut self, portolan: &Path) -> Result<(), String> {
        let part = format!("dns, {}", dns::SHAPE);
        let (figures, notes) =
            dns::measure(portolan, &|line| self.say(&format!("{part}: {line}")))?;
        self.report.notes.extend(notes);
        for figure in figures {
            let name = format!("{part}: {}", figure.what);
            self.add(figure.peer.as_deref(), &name, figure.value, figure.unit);
        }
        Ok(())
    }

    /// Requests through the front door; ours first, so that a peer's value has a ratio.
    fn gateway(&mut self, portolan: &Path, part: &str, site: gateway::Site) -> Result<(), String> {
        let (figures, notes) =
            gateway::measure(portolan, site, &|line| self.say(&format!("{part}: {line}")))?;
        for note in notes {
            if !self.report.notes.contains(&note) {
                self.note(note);
            }
        }
        for figure in figures {
            let name = format!("{part}: {}", figure.what);
            self.add(figure.peer.as_deref(), &name, figure.value, figure.unit);
        }
        Ok(())
    }

    fn tell_traffic(&mut self, peer: Option<&str>, mode: &str, worth: &Worth) {
        let name = |what: &str| format!("traffic, {mode}: {what}");
        let felt = &worth.felt;
        self.percentiles(peer, &name("a connection opens"), &felt.opening, "µs", 1e3);
        let [one, many] = &worth.megabits;
        for (what, counts, unit) in [
            ("connections", &felt.per_second, "a second"),
            ("processor time of a connection", &felt.processor_us, "µs"),
            ("one stream", one, "Mbit a second"),
            ("16 streams", many, "Mbit a second"),
            (
                "datagrams of 64 bytes that arrive",
                &worth.datagrams,
                "a second",
            ),
        ] {
            self.add_counts(peer, &name(what), counts, unit);
        }
    }

    fn agent(
        &mut self,
        contender: &Contender,
        api: &Api,
        bed: &Bed,
        shape: Shape,
    ) -> Result<(), String> {
        let peer = match contender {
            Contender::Portolan { .. } => None,
            _ => Some(contender.name()),
        };
        let (mut running, mut run) = agent::start(contender, api, bed, shape, self.round)?;
        let felt = match shape == PACKETS {
            true => running.packets()?,
            false => Vec::new(),
        };
        let plan = self.plan(peer.as_deref(), shape, &run);
        let result = running.measure(&plan, &mut run);
        self.round = running.round();
        drop(running);
        self.tell(peer.as_deref(), shape, &run);
        self.tell_packets(peer.as_deref(), shape, &felt);
        result
    }

    /// How thoroughly somebody is measured whose start is known.
    fn plan(&mut self, peer: Option<&str>, shape: Shape, run: &Run) -> Plan {
        let mut plan = match peer {
            None => OURS,
            Some(peer) if run.cold > SLOW_START => {
                self.slow.push(peer.to_owned());
                SLOW
            }
            Some(_) => THEIRS,
        };
        if shape.services < RATES_FROM {
            plan.rates = &[];
        }
        plan
    }

    fn tell(&mut self, peer: Option<&str>, shape: Shape, run: &Run) {
        let name = |what: &str| format!("agent, {shape}: {what}");
        let mut bytes = |what: &str, bytes: u64| match bytes {
            0 => {}
            bytes => self.add(peer, &name(what), bytes as f64 / 1e6, "MB"),
        };
        bytes("resident memory after the start", run.settled.resident);
        bytes("resident memory", run.after.resident);
        bytes(
            "resident memory without the program's file",
            run.after.anonymous,
        );
        bytes("highest resident memory", run.after.highest);
        self.add(
            peer,
            &name("from start to all rules"),
            millis(run.cold),
            "ms",
        );
        self.add(
            peer,
            &name("processor time of the start"),
            millis(run.cold_processor),
            "ms",
        );
        for (quantile, value) in &run.own_clock {
            let label = match quantile.as_str() {
                "0.5" => "p50",
                "0.99" => "p99",
                _ => continue,
            };
            let what = format!("one endpoint changes, event to commit, {label}");
            self.add(peer, &name(&what), *value, "ms");
        }
        self.percentiles(
            peer,
            &name("one endpoint changes, write to commit"),
            &run.changes,
            "ms",
            1.0,
        );
        self.percentiles(
            peer,
            &name("one Service added, write to commit"),
            &run.additions,
            "ms",
            1.0,
        );
        self.percentiles(
            peer,
            &name("one Service removed, write to commit"),
            &run.removals,
            "ms",
            1.0,
        );
        for &(rate, percent) in &run.processor_percent {
            let what = format!("processor at {rate} changes a second");
            self.add(peer, &name(&what), percent, "% of a core");
        }
    }

    fn tell_packets(&mut self, peer: Option<&str>, shape: Shape, felt: &[Felt]) {
        let ways = [
            "direct",
            "through the first Service",
            "through the last Service",
        ];
        for (way, felt) in ways.iter().zip(felt) {
            let name = format!("packets, {shape}: {way}, a connection opens");
            self.percentiles(peer, &name, &felt.opening, "µs", 1e3);
        }
        for (way, felt) in ways.iter().zip(felt) {
            let name = format!("packets, {shape}: {way}, connections");
            self.add_counts(peer, &name, &felt.per_second, "a second");
        }
    }

    fn percentiles(
        &mut self,
        peer: Option<&str>,
        name: &str,
        samples: &Samples,
        unit: &str,
        per_milli: f64,
    ) {
        for percent in [50, 99] {
            if let Some(value) = samples.millis(percent) {
                self.add(
                    peer,
                    &format!("{name}, p{percent}"),
                    value * per_milli,
                    unit,
                );
            }
        }
    }

    fn add(&mut self, peer: Option<&str>, name: &str, value: f64, unit: &str) {
        let line = self.report.add(peer, name, value, unit);
        let _ = writeln!(io::stdout(), "{line}");
    }

    /// What turns have given, if there were any.
    fn add_counts(&mut self, peer: Option<&str>, name: &str, counts: &[f64], unit: &str) {
        if let Some(line) = self.report.add_counts(peer, name, counts, unit) {
            let _ = writeln!(io::stdout(), "{line}");
        }
    }

    /// Results always; the page and its picture only of a whole run.
    fn write(&self, whole: bool) -> Result<(), String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let results =
            serde_json::to_string_pretty(&self.report.json()).map_err(|e| e.to_string())?;
        let mut files = vec![("bench/out/results.json", results + "\n")];
        if whole {
            files.push((
                "docs/performance.md",
                document::markdown(&self.report, &Machine::here()),
            ));
            files.push(("docs/performance.svg", plot::svg(&self.report)));
        }
        for (path, text) in files {
            let write = std::fs::create_dir_all(root.join(path).with_file_name(""))
                .and_then(|()| std::fs::write(root.join(path), text));
            write.map_err(|e| format!("cannot write {path}: {e}"))?;
            self.say(&format!("{path} is written"));
        }
        Ok(())
    }
}

/// How busy the machine was with other things before the run.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = text.split(' ').next().unwrap_or_default();
    format!("When the run began, the machine's load average was {load}.")
}

/// The binary under measurement: `$PORTOLAN`, or the one beside this program.
fn portolan() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let path = match std::env::var_os("PORTOLAN") {
        Some(path) => PathBuf::from(path),
        None => own.with_file_name("portolan"),
    };
    match path.is_file() {
        true => Ok(path),
        false => Err(format!(
            "there is no {}; build it with: cargo build --release --package portolan",
            path.display()
        )),
    }
}
