//! The proof on the real kernel: a scenario becomes a small network, its endpoints become servers that say who they
//! are and whom they see, and its packets become connections.
//!
//! ```text
//!   outside ──┐            ┌── pod 10.1.0.2
//!             ├── n1 ──────┼── pod 10.1.0.10 …       every box is a network namespace;
//!   n2, n3 … ─┘  (rules)   └── processes of n1       the rules under test stand in n1 only
//! ```
//!
//! A verdict is known by what happens: an answer names its endpoint and the source it saw, a refusal is REJECT,
//! silence is DROP, an answer of the very destination is PASS. The caller must be in namespaces of its own.

mod ask;
mod network;
mod sctp;
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::Path;

use portolan_kernel::cgroup::Cgroup;
use portolan_kernel::{Netns, mount};
use portolan_model::{Backend, Packet, Protocol, Snapshot, Target, Verdict};

use crate::cluster::Cluster;
use crate::scenario::{Probe, Scenario, Step};
use network::Network;
use servers::Servers;

/// How a scenario went on the real kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was as expected, in so many flows.
    Passed(usize),
    /// What was not.
    Failed(Vec<String>),
    /// This kernel cannot do it, and why.
    Skipped(String),
    /// This mode does otherwise, as docs/semantics.md says; why.
    NotApplicable(&'static str),
}

/// What a mode does with sockets, so that no packet shows it.
pub struct AtSockets<'a, B: Backend, T> {
    /// Where the sockets of the node under test and its pods are made.
    pub cgroup: &'a Cgroup,
    /// Whether a socket is connected to an endpoint at once; the last says whether it is bound to an address.
    pub connects: fn(&B::State, &Packet, bool) -> bool,
    /// How many the mode says it has connected.
    pub connected: fn(&T) -> Result<u64, String>,
    /// Where namespaces of pods are shown.
    pub namespaces: &'a Path,
    /// Tells the mode that all of them are there now.
    pub look: fn(&T) -> Result<(), String>,
    /// Whether the flow of a packet that comes in by the fabric or from outside is taken before it meets any rule.
    pub takes: fn(&B::State, &Packet) -> bool,
    /// How many such flows the mode says it has taken.
    pub taken: fn(&T) -> Result<u64, String>,
}

/// Runs `scenario` with the data plane of `backend`, whose target for a namespace `target` makes.
pub fn against_kernel<B, T>(
    backend: &B,
    target: impl FnOnce(&Netns) -> Result<T, String>,
    scenario: &Scenario,
) -> Outcome
where
    B: Backend,
    T: Target<B>,
{
    against(backend, target, None, scenario)
}

/// The same for a mode that does something with sockets. It must have connected exactly those that it should.
pub fn against_kernel_and_sockets<B, T>(
    backend: &B,
    target: impl FnOnce(&Netns) -> Result<T, String>,
    sockets: &AtSockets<'_, B, T>,
    scenario: &Scenario,
) -> Outcome
where
    B: Backend,
    T: Target<B>,
{
    against(backend, target, Some(sockets), scenario)
}

fn against<B, T>(
    backend: &B,
    target: impl FnOnce(&Netns) -> Result<T, String>,
    sockets: Option<&AtSockets<'_, B, T>>,
    scenario: &Scenario,
) -> Outcome
where
    B: Backend,
    T: Target<B>,
{
    if uses(scenario, Protocol::Sctp) && !ask::has_sctp() {
        return Outcome::Skipped("this kernel does not track SCTP".to_owned());
    }
    let run = || -> Result<(usize, Vec<String>), String> {
        let listeners = listeners(scenario);
        let network = Network::build(scenario, &listeners)?;
        let servers = Servers::start(&network, &listeners)?;
        let mut node = Node {
            backend,
            target: target(network.netns())?,
            cluster: Cluster::new(&scenario.node),
            standing: None,
        };
        if let Some(sockets) = sockets {
            let shown = show(sockets.namespaces, &network.pods());
            shown.map_err(|error| error.to_string())?;
            (sockets.look)(&node.target)?;
        }
        let (mut flows, mut wrong) = (0, Vec::new());
        let (mut connected, mut taken) = (0, 0);
        for step in &scenario.steps {
            node.take(step)?;
            for probe in &step.probes {
                let way = Way {
                    cgroup: sockets.map(|sockets| sockets.cgroup),
                    at_socket: sockets
                        .is_some_and(|sockets| node.connects(sockets, &network, probe)),
                };
                let (made, found) = judge(probe, &network, &way)?;
                flows += made;
                connected += if way.at_socket { made as u64 } else { 0 };
                let takes = sockets.is_some_and(|sockets| node.takes(sockets, &network, probe));
                taken += if takes { made as u64 } else { 0 };
                wrong.extend(found.into_iter().map(|words| match step.say.as_str() {
                    "" => format!("{probe}: {words}"),
                    say => format!("({say}) {probe}: {words}"),
                }));
            }
        }
        if let Some(sockets) = sockets {
            let told = (sockets.connected)(&node.target)?;
            if told != connected {
                wrong.push(format!(
                    "{told} sockets were connected at once, expected {connected}"
                ));
            }
            let told = (sockets.taken)(&node.target)?;
            if told != taken {
                wrong.push(format!(
                    "{told} flows were taken where they came in, expected {taken}"
                ));
            }
        }
        drop(servers);
        Ok((flows, wrong))
    };
    match run() {
        Ok((flows, wrong)) if wrong.is_empty() => Outcome::Passed(flows),
        Ok((_, wrong)) => Outcome::Failed(wrong),
        Err(words) => Outcome::Failed(vec![words]),
    }
}

/// As a container runtime does. A namespace lives as long as it is shown.
fn show(directory: &Path, pods: &[&Netns]) -> portolan_kernel::Result<()> {
    for (index, pod) in pods.iter().enumerate() {
        let file = directory.join(format!("pod{index}"));
        let made = std::fs::write(&file, "");
        made.map_err(|error| portolan_kernel::Error::file("make", &file, error))?;
        let handle = format!("/proc/self/fd/{}", pod.as_raw_fd());
        mount::bind(Path::new(&handle), &file)?;
    }
    Ok(())
}

fn uses(scenario: &Scenario, protocol: Protocol) -> bool {
    let mut probes = scenario.steps.iter().flat_map(|step| &step.probes);
    probes.any(|probe| probe.packet.protocol == protocol)
}

/// Everybody who could answer: every endpoint that any step knows, ready or not, and the destination of every packet
/// that shall pass.
fn listeners(scenario: &Scenario) -> BTreeSet<(SocketAddr, Protocol)> {
    let mut all = BTreeSet::new();
    let mut cluster = Cluster::new(&scenario.node);
    for step in &scenario.steps {
        cluster.take(step);
        for port in cluster.snapshot().ports() {
            all.extend(
                port.endpoints
                    .iter()
                    .map(|e| (e.address, port.key.protocol)),
            );
        }
        let passing = step
            .probes
            .iter()
            .filter(|probe| probe.verdict == Verdict::Pass);
        all.extend(passing.map(|probe| (probe.packet.destination, probe.packet.protocol)));
    }
    all
}

/// The node under test: what its rules are compiled from, and what stands in its kernel.
struct Node<'a, B: Backend, T> {
    backend: &'a B,
    target: T,
    cluster: Cluster,
    standing: Option<(Snapshot, B::State)>,
}

/// How the flows of one probe go.
struct Way<'a> {
    cgroup: Option<&'a Cgroup>,
    /// Its sockets are connected to an endpoint at once.
    at_socket: bool,
}

impl<B: Backend, T: Target<B>> Node<'_, B, T> {
    fn connects(&self, sockets: &AtSockets<'_, B, T>, network: &Network, probe: &Probe) -> bool {
        let Some((_, state)) = &self.standing else {
            return false;
        };
        let is_bound = network.bound(probe).is_some();
        network.is_on_node(probe.packet.source.ip())
            && (sockets.connects)(state, &probe.packet, is_bound)
    }

    fn takes(&self, sockets: &AtSockets<'_, B, T>, network: &Network, probe: &Probe) -> bool {
        let Some((_, state)) = &self.standing else {
            return false;
        };
        !network.is_on_node(probe.packet.source.ip()) && (sockets.takes)(state, &probe.packet)
    }

    /// Carries out the changes of a step in the kernel, and reads them back.
    fn take(&mut self, step: &Step) -> Result<(), String> {
        self.cluster.take(step);
        let snapshot = self.cluster.snapshot().clone();
        let (state, ops) = match self.standing.take() {
            None => {
                let (state, _) = self.backend.compile(&snapshot);
                let ops = self.backend.diff(None, &state);
                (state, ops)
            }
            Some((before, standing)) => {
                let mut state = standing.clone();
                self.backend
                    .update(&mut state, &snapshot, &snapshot.touched(&before));
                let ops = self.backend.diff(Some(&standing), &state);
                (state, ops)
            }
        };
        self.target.apply(&ops).map_err(|e| e.to_string())?;
        match self.target.read().map_err(|e| e.to_string())? {
            Some(read) if read == state => {}
            Some(_) => {
                return Err("what is read back from the kernel is not what was applied".to_owned());
            }
            None => return Err("nothing can be read back from the kernel".to_owned()),
        }
        self.standing = Some((snapshot, state));
        Ok(())
    }
}

/// Flows for each endpoint at most, before an endpoint that nobody saw counts as not served.
/// At this number a fair choice misses one of twelve endpoints once in 10^20 runs.
const FLOWS_PER_ENDPOINT_MAX: usize = 50;

/// Flows that are made even if every endpoint has been seen: who must not answer gets this many chances to.
/// One stranger beside one endpoint stays unseen once in 16 million runs.
const FLOWS_MIN: usize = 24;

/// Rounds that are made to see that endpoints come in turn.
const ROUNDS: usize = 4;

/// Flows that are made to see shares: shares of 3 to 1 and of 1 to 1 then differ by 11 standard deviations.
const FLOWS_FOR_SHARES: usize = 400;

/// So many standard deviations off is not by chance: that happens once in ten thousand million runs.
const DEVIATIONS_MAX: f64 = 6.5;

/// Makes the flows of one probe; says how many they were, and what was not as expected.
fn judge(probe: &Probe, network: &Network, way: &Way<'_>) -> Result<(usize, Vec<String>), String> {
    let most = match &probe.verdict {
        _ if probe.fixed_port => 1,
        Verdict::Deliver(_) if probe.sticks => 2 * FLOWS_MIN,
        Verdict::Deliver(_) if probe.in_turn => ROUNDS * period(probe),
        Verdict::Deliver(_) if probe.shares.is_some() => FLOWS_FOR_SHARES,
        Verdict::Deliver(choices) => FLOWS_PER_ENDPOINT_MAX * choices.len(),
        Verdict::Drop => 1,
        _ => 2,
    };
    let mut seen = BTreeMap::new();
    let flows = network.ask(probe, most, way.cgroup, |answer| {
        let Ok(answer) = answer else { return false };
        *seen.entry(answer.who).or_insert(0_usize) += 1;
        let all = probe
            .verdict
            .endpoints()
            .all(|endpoint| seen.contains_key(&endpoint));
        probe.sticks || probe.shares.is_some() || !all || seen.values().sum::<usize>() < FLOWS_MIN
    })?;
    let mut wrong: Vec<String> = flows
        .iter()
        .filter_map(|flow| judge_flow(probe, flow, network, way))
        .collect();
    wrong.dedup();
    let unseen: Vec<SocketAddr> = probe
        .verdict
        .endpoints()
        .filter(|endpoint| !seen.contains_key(endpoint))
        .collect();
    if probe.sticks && seen.len() > 1 {
        wrong.push(format!("one client was answered by several: {seen:?}"));
    }
    if wrong.is_empty() {
        wrong.extend(judge_shares(probe, &flows, &seen));
    }
    if !probe.sticks && !unseen.is_empty() && wrong.is_empty() {
        wrong.push(format!(
            "{} flows, but {unseen:?} never answered",
            flows.len()
        ));
    }
    Ok((flows.len(), wrong))
}

/// How many flows make one round.
fn period(probe: &Probe) -> usize {
    probe
        .shares
        .iter()
        .flat_map(|shares| shares.values())
        .sum::<u32>() as usize
}

/// What is wrong with who got how many flows, and in which order.
fn judge_shares(
    probe: &Probe,
    flows: &[Result<ask::Answer, ask::NoAnswer>],
    seen: &BTreeMap<SocketAddr, usize>,
) -> Option<String> {
    let shares = probe.shares.as_ref()?;
    let period = period(probe);
    if probe.in_turn {
        let who: Vec<SocketAddr> = flows.iter().flatten().map(|answer| answer.who).collect();
        let (first, _) = who.split_at_checked(period)?;
        let count = |endpoint: &SocketAddr| first.iter().filter(|who| *who == endpoint).count();
        let fair = shares
            .iter()
            .all(|(endpoint, share)| count(endpoint) == *share as usize);
        let cyclic = who.iter().zip(first.iter().cycle()).all(|(a, b)| a == b);
        return (!fair || !cyclic).then(|| format!("expected the turns {shares:?}, got {who:?}"));
    }
    let flows = flows.len() as f64;
    let off = |(endpoint, share): &(&SocketAddr, &u32)| {
        let chance = f64::from(**share) / period as f64;
        let count = seen.get(endpoint).copied().unwrap_or(0) as f64;
        let deviation = (flows * chance * (1.0 - chance)).sqrt();
        (count - flows * chance).abs() > DEVIATIONS_MAX * deviation
    };
    let unfair = shares.iter().any(|share| off(&share));
    unfair.then(|| format!("expected the shares {shares:?}, got {seen:?}"))
}

/// What is wrong with what became of one flow.
fn judge_flow(
    probe: &Probe,
    flow: &Result<ask::Answer, ask::NoAnswer>,
    network: &Network,
    way: &Way<'_>,
) -> Option<String> {
    let source = probe.packet.source.ip();
    match (&probe.verdict, flow) {
        (Verdict::Reject, Err(ask::NoAnswer::Refused(_)))
        | (Verdict::Drop, Err(ask::NoAnswer::Silence)) => None,
        (Verdict::Pass, Ok(answer))
            if answer.who == probe.packet.destination && answer.saw == source =>
        {
            None
        }
        (Verdict::Deliver(choices), Ok(answer)) => match choices.get(&answer.who) {
            None => Some(format!(
                "{} answered, who is not one of {:?}",
                answer.who,
                choices.keys()
            )),
            // The node's own source is the node's address with and without masquerade.
            Some(_) if network.is_node(source) && network.is_node(answer.saw) => None,
            Some(true) if network.is_node(answer.saw) && answer.saw != source => None,
            // A pod that reaches itself at its socket does not leave itself: R-HAIRPIN-1.
            Some(true) if way.at_socket && answer.who.ip() == source && answer.saw == source => {
                None
            }
            Some(false) if answer.saw == source => None,
            Some(masquerade) => Some(format!(
                "{} saw the source {}, expected {}",
                answer.who,
                answer.saw,
                if *masquerade {
                    "one of the node's addresses"
                } else {
                    "the client's own"
                }
            )),
        },
        (verdict, flow) => Some(format!("expected {verdict:?}, got {flow:?}")),
    }
}
