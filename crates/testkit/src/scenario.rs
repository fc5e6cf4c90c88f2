//! Scenario files: Kubernetes objects, facts about the node, packets, and what must become of them.
//!
//! docs/testing.md describes the format. This module reads it and says what is wrong with a file;
//! what a packet does is for the proofs.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use portolan_model::{Family, Listener, LocalPods, NodeFacts, Packet, Protocol, Verdict};
use portolan_reflect::NodePortAddresses;
use serde::Deserialize;
use serde_json::Value;

use crate::world;

/// One scenario: what stands at first, and the steps after it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its path below `scenarios/`, without the ending.
    pub name: String,
    /// One sentence.
    pub about: String,
    /// The node under test.
    pub node: NodeFacts,
    /// What happens, in order; the first step applies the objects of the file's top level.
    pub steps: Vec<Step>,
}

/// Some changes, and packets after them.
#[derive(Clone, Debug)]
pub struct Step {
    /// One sentence; empty for the first step.
    pub say: String,
    /// Objects to create or to replace.
    pub apply: Vec<Value>,
    /// Objects to delete.
    pub delete: Vec<ObjectName>,
    /// Endpoints that the node takes out of rotation, because they do not answer.
    pub eject: Vec<Listener>,
    /// Endpoints that it takes back.
    pub readmit: Vec<Listener>,
    /// What is asked after these changes.
    pub probes: Vec<Probe>,
}

/// Names one object.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(deny_unknown_fields)]
pub struct ObjectName {
    /// `Service` or `EndpointSlice`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// One question, and the answer that is right.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The first packet of the flow.
    pub packet: Packet,
    /// What must become of it.
    pub verdict: Verdict,
    /// All flows of this sender go to one and the same endpoint of the verdict (affinity).
    pub sticks: bool,
    /// The sender's port is the packet's: it makes one flow, since another would need another port.
    pub fixed_port: bool,
    /// Which part of the flows each endpoint gets, if that is asked.
    pub shares: Option<BTreeMap<SocketAddr, u32>>,
    /// Flows go to one endpoint after the other, again and again in the same order, each as often as its share says.
    pub in_turn: bool,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Packet {
            protocol,
            source,
            destination,
            ..
        } = &self.packet;
        write!(f, "{protocol} {} → {destination}", source.ip())
    }
}

/// A scenario file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {words}")]
pub struct ScenarioError {
    path: String,
    words: String,
}

impl Scenario {
    /// Where the scenarios of this repository lie.
    pub fn folder() -> PathBuf {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = own.ancestors().nth(2).unwrap_or(own);
        root.join("scenarios")
    }

    /// Every scenario of this repository, in the order of their names.
    pub fn all() -> Result<Vec<Scenario>, ScenarioError> {
        let root = Scenario::folder();
        let mut files = Vec::new();
        list(&root, &mut files)?;
        files.sort();
        files
            .iter()
            .map(|path| {
                let name = path.strip_prefix(&root).unwrap_or(path).with_extension("");
                let text = std::fs::read_to_string(path).map_err(|e| error(path, e))?;
                Scenario::parse(&name.to_string_lossy(), &text)
            })
            .collect()
    }

    /// Reads one scenario.
    pub fn parse(name: &str, text: &str) -> Result<Scenario, ScenarioError> {
        let wrong = |words: String| error(Path::new(name), words);
        let file: File = serde_norway::from_str(text).map_err(|e| wrong(e.to_string()))?;
        let node = file.node.facts().map_err(wrong)?;
        let first = StepFile {
            say: String::new(),
            apply: file.objects,
            delete: Vec::new(),
            eject: file.eject,
            readmit: Vec::new(),
            packets: file.packets,
        };
        let steps = std::iter::once(first).chain(file.steps).map(|step| {
            let probes = step
                .packets
                .iter()
                .map(|probe| probe.resolve(&node))
                .collect::<Result<_, _>>()?;
            let listeners = |texts: &[String]| -> Result<Vec<Listener>, String> {
                texts.iter().map(|text| listener(text)).collect()
            };
            Ok(Step {
                eject: listeners(&step.eject)?,
                readmit: listeners(&step.readmit)?,
                say: step.say,
                apply: step.apply,
                delete: step.delete,
                probes,
            })
        });
        let steps = steps
            .collect::<Result<Vec<Step>, String>>()
            .map_err(wrong)?;
        let name = name.to_owned();
        Ok(Scenario {
            name,
            about: file.about,
            node,
            steps,
        })
    }
}

fn list(folder: &Path, into: &mut Vec<PathBuf>) -> Result<(), ScenarioError> {
    for entry in std::fs::read_dir(folder).map_err(|e| error(folder, e))? {
        let path = entry.map_err(|e| error(folder, e))?.path();
        if path.is_dir() {
            list(&path, into)?;
        } else if path.extension().is_some_and(|ending| ending == "yaml") {
            into.push(path);
        }
    }
    Ok(())
}

fn error(path: &Path, words: impl ToString) -> ScenarioError {
    ScenarioError {
        path: path.display().to_string(),
        words: words.to_string(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    #[serde(default)]
    node: NodeFile,
    objects: Vec<Value>,
    #[serde(default)]
    eject: Vec<String>,
    #[serde(default)]
    packets: Vec<ProbeFile>,
    #[serde(default)]
    steps: Vec<StepFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepFile {
    say: String,
    #[serde(default)]
    apply: Vec<Value>,
    #[serde(default)]
    delete: Vec<ObjectName>,
    #[serde(default)]
    eject: Vec<String>,
    #[serde(default)]
    readmit: Vec<String>,
    #[serde(default)]
    packets: Vec<ProbeFile>,
}

/// What differs from the node `n1` of the address plan.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct NodeFile {
    zone: Option<String>,
    addresses: Option<Vec<IpAddr>>,
    node_port_addresses: Option<Vec<String>>,
    #[serde(with = "serde_norway::with::singleton_map")]
    local_pods: LocalPodsFile,
    masquerade_all: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
enum LocalPodsFile {
    #[default]
    Cluster,
    Unknown,
    Interface(String),
    InterfacePrefix(String),
    Cidrs(Vec<IpNet>),
}

impl NodeFile {
    fn facts(self) -> Result<NodeFacts, String> {
        let mut facts = world::node();
        facts.zone = self.zone.map(Into::into);
        facts.masquerade_all = self.masquerade_all;
        if let Some(addresses) = self.addresses {
            facts.addresses = addresses.into_iter().collect();
            facts.node_port_addresses = facts.addresses.clone();
        }
        if let Some(words) = &self.node_port_addresses {
            let listed = Family::ALL.map(|family| world::node_address(family, 1));
            let wanted = node_port_addresses(words)?;
            facts.node_port_addresses = wanted.choose(&listed, &facts.addresses);
        }
        facts.local_pods = match self.local_pods {
            LocalPodsFile::Cluster => facts.local_pods,
            LocalPodsFile::Unknown => LocalPods::Unknown,
            LocalPodsFile::Interface(name) => LocalPods::Interface(name.into()),
            LocalPodsFile::InterfacePrefix(prefix) => LocalPods::InterfacePrefix(prefix.into()),
            LocalPodsFile::Cidrs(ranges) => LocalPods::Cidrs(ranges),
        };
        Ok(facts)
    }
}

/// `primary`, `all`, ranges and addresses, as `--nodeport-addresses` takes them.
fn node_port_addresses(words: &[String]) -> Result<NodePortAddresses, String> {
    let mut wanted = NodePortAddresses::within(Vec::new());
    for word in words {
        let range = || {
            let address = word.parse::<IpAddr>().map(IpNet::from);
            address.or_else(|_| word.parse::<IpNet>())
        };
        match word.as_str() {
            "primary" => wanted.primary = true,
            "all" => wanted
                .ranges
                .extend([world::net("0.0.0.0/0"), world::net("::/0")]),
            _ => wanted
                .ranges
                .push(range().map_err(|_| format!("nodePortAddresses: {word:?} is no range"))?),
        }
    }
    Ok(wanted)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ProbeFile {
    from: String,
    to: SocketAddr,
    #[serde(default = "tcp")]
    protocol: String,
    expect: Expect,
    #[serde(default)]
    masquerade: Masquerade,
    #[serde(default)]
    sticks: bool,
    from_port: Option<NonZeroU16>,
    shares: Option<Vec<u32>>,
    #[serde(default)]
    in_turn: bool,
}

/// Reads `10.1.0.10:8080` (TCP) or `10.1.0.10:53/UDP`.
fn listener(text: &str) -> Result<Listener, String> {
    let (address, protocol) = text.split_once('/').unwrap_or((text, ""));
    let wrong = |_| format!("{text} is no endpoint such as 10.1.0.10:8080 or 10.1.0.10:53/UDP");
    Ok(Listener {
        address: address.parse().map_err(wrong)?,
        protocol: protocol.parse()?,
    })
}

fn tcp() -> String {
    "TCP".to_owned()
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Expect {
    Endpoints(Vec<SocketAddr>),
    Word(String),
}

/// Whose source is rewritten: for all endpoints, for none, or for these.
#[derive(Deserialize)]
#[serde(untagged)]
enum Masquerade {
    All(bool),
    For(Vec<SocketAddr>),
}

impl Default for Masquerade {
    fn default() -> Self {
        Masquerade::All(false)
    }
}

impl ProbeFile {
    fn resolve(&self, node: &NodeFacts) -> Result<Probe, String> {
        let protocol: Protocol = self.protocol.parse()?;
        let family = Family::of(self.to.ip());
        let mut packet = world::packet(&self.from, family, protocol, self.to)?;
        if let Some(port) = self.from_port {
            packet.source.set_port(port.get());
        }
        if Family::of(packet.source.ip()) != family {
            return Err(format!("{} cannot send to {}", self.from, self.to));
        }
        if packet.interface.is_none()
            && !node.addresses.contains(&packet.source.ip())
            && self.from == "host"
        {
            return Err(format!("the node has no address {}", packet.source.ip()));
        }
        let verdict = match &self.expect {
            Expect::Endpoints(endpoints) if endpoints.is_empty() => {
                return Err("expect: an empty list is REJECT".into());
            }
            Expect::Endpoints(endpoints) => Verdict::Deliver(
                endpoints
                    .iter()
                    .map(|e| (*e, self.masquerades(e)))
                    .collect(),
            ),
            Expect::Word(word) => match word.as_str() {
                "REJECT" => Verdict::Reject,
                "DROP" => Verdict::Drop,
                "PASS" => Verdict::Pass,
                _ => {
                    return Err(format!(
                        "expect: {word} is none of REJECT, DROP, PASS and a list of endpoints"
                    ));
                }
            },
        };
        Ok(Probe {
            packet,
            verdict,
            sticks: self.sticks,
            fixed_port: self.from_port.is_some(),
            shares: self.shares()?,
            in_turn: self.in_turn,
        })
    }

    /// One share for each endpoint of `expect`, in the same order; all equal if only the turns are asked for.
    fn shares(&self) -> Result<Option<BTreeMap<SocketAddr, u32>>, String> {
        let endpoints = match &self.expect {
            Expect::Endpoints(endpoints) => endpoints.clone(),
            Expect::Word(_) => Vec::new(),
        };
        let shares = match &self.shares {
            Some(shares) => shares.clone(),
            None if self.in_turn => vec![1; endpoints.len()],
            None => return Ok(None),
        };
        if shares.is_empty() || shares.len() != endpoints.len() || shares.contains(&0) {
            return Err("shares: one number above 0 for each endpoint of expect".into());
        }
        Ok(Some(endpoints.into_iter().zip(shares).collect()))
    }

    fn masquerades(&self, endpoint: &SocketAddr) -> bool {
        match &self.masquerade {
            Masquerade::All(all) => *all,
            Masquerade::For(some) => some.contains(endpoint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(packet: &str) -> Result<Scenario, ScenarioError> {
        Scenario::parse(
            "t",
            &format!("about: a\nobjects: []\npackets:\n  - {packet}\n"),
        )
    }

    #[test]
    fn a_packet_says_who_and_what() {
        let text = "{from: pod, to: 172.30.0.1:80, expect: [10.1.0.10:8080, 10.2.0.10:8080], masquerade: [10.1.0.10:8080]}";
        let scenario = parse(text).unwrap();
        let probe = &scenario.steps[0].probes[0];
        assert_eq!(probe.to_string(), "TCP 10.1.0.2 → 172.30.0.1:80");
        let near = "10.1.0.10:8080".parse().unwrap();
        let far = "10.2.0.10:8080".parse().unwrap();
        assert_eq!(
            probe.verdict,
            Verdict::Deliver([(near, true), (far, false)].into())
        );
    }

    #[test]
    fn an_endpoint_may_say_its_protocol() {
        let text = "about: a\nobjects: []\neject: ['10.1.0.10:80', '[fd00:10:1::10]:53/UDP']\n";
        let step = &Scenario::parse("t", text).unwrap().steps[0];
        let told: Vec<String> = step.eject.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["10.1.0.10:80/TCP", "[fd00:10:1::10]:53/UDP"]);
        assert!(Scenario::parse("t", "about: a\nobjects: []\neject: [web]\n").is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let wrong = [
            "{from: pod, to: 172.30.0.1:80, expect: REFUSE}",
            "{from: pod, to: 172.30.0.1:80, expect: []}",
            "{from: nobody, to: 172.30.0.1:80, expect: DROP}",
            "{from: 10.1.0.2, to: '[fd00:172:30::1]:80', expect: DROP}",
            "{from: 8.8.8.8, to: 172.30.0.1:80, expect: DROP}",
            "{from: pod, to: 172.30.0.1:80, expect: DROP, protocol: QUIC}",
            "{from: pod, to: 172.30.0.1:80, expect: DROP, novel: true}",
            "{from: pod, to: 172.30.0.1:80, expect: DROP, fromPort: 0}",
            "{from: pod, to: 172.30.0.1:80, expect: DROP, inTurn: true}",
            "{from: pod, to: 172.30.0.1:80, expect: [10.1.0.10:8080], shares: [1, 2]}",
            "{from: pod, to: 172.30.0.1:80, expect: [10.1.0.10:8080], shares: [0]}",
        ];
        for text in wrong {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
