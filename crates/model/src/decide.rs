//! From one Service port to what happens at each of its frontends: the decisions that data planes render.
//!
//! Rules (docs/semantics.md numbers them): which endpoints serve whom, when the source address is rewritten,
//! and what happens when nobody is there. They depend on the sender only through its [`Origin`].

use std::net::IpAddr;

use ipnet::IpNet;

use crate::balance::{Balance, Choices};
use crate::name::Family;
use crate::node::NodeFacts;
use crate::packet::Origin;
use crate::service::{
    Affinity, Endpoint, Frontend, FrontendKind, Place, ServicePort, TrafficPolicy,
};

/// What happens to a new flow of one origin at one frontend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It goes to one of the endpoints.
    Balance {
        /// The endpoints, all of the frontend's family.
        endpoints: Choices,
        /// Rewrite the source to the node's address. (A hairpin is always masqueraded, whatever this says.)
        masquerade: bool,
    },
    /// Nobody is behind the Service anywhere: answer with an error at once.
    Reject,
    /// Somebody is, but not here, and policy is Local: drop, so that the client's retry finds a better node.
    Drop,
}

/// Everything a data plane must know to serve one frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Treatment {
    /// Where it listens.
    pub frontend: Frontend,
    /// Which field it comes from.
    pub kind: FrontendKind,
    /// Sources that are let in; `None` is everybody, anybody else is dropped.
    pub sources: Option<Vec<IpNet>>,
    /// Whether clients stay with their endpoint.
    pub affinity: Option<Affinity>,
    /// How a flow's endpoint is chosen.
    pub balance: Balance,
    /// For packets from pods.
    pub pod: Action,
    /// For packets from the node's own processes.
    pub host: Action,
    /// For packets from anybody else.
    pub outside: Action,
}

impl Treatment {
    /// The action for packets of `origin`.
    pub fn action(&self, origin: Origin) -> &Action {
        match origin {
            Origin::Pod => &self.pod,
            Origin::Host => &self.host,
            Origin::Outside => &self.outside,
        }
    }

    /// Whether packets from `source` are let in.
    pub fn admits(&self, source: IpAddr) -> bool {
        let within = |ranges: &Vec<IpNet>| ranges.iter().any(|range| range.contains(&source));
        self.sources.as_ref().is_none_or(within)
    }
}

/// Decides what happens at each frontend of `port` on `node`. Same input, same output; cannot fail.
pub fn decide(node: &NodeFacts, port: &ServicePort) -> Vec<Treatment> {
    let frontends = port.frontends();
    let mut lists = [None, None];
    let mut lists_of = |family: Family| {
        let slot = &mut lists[family as usize];
        slot.get_or_insert_with(|| Lists::of(node, port, family))
            .clone()
    };
    frontends
        .into_iter()
        .map(|(frontend, kind)| {
            let lists = lists_of(frontend.place.family());
            let pods_known = node.local_pods.known(frontend.place.family());
            let (pod, host, outside) = match kind {
                FrontendKind::ClusterIp => internal(port, &lists, node.masquerade_all, pods_known),
                _ => external(port, &lists, pods_known),
            };
            let sources = match kind {
                FrontendKind::LoadBalancer => allowed_sources(node, port, frontend.place),
                _ => None,
            };
            Treatment {
                frontend,
                kind,
                sources,
                affinity: port.affinity,
                balance: port.balance,
                pod,
                host,
                outside,
            }
        })
        .collect()
}

/// The two endpoint lists of one family that all policies choose from.
#[derive(Clone)]
struct Lists {
    cluster: Choices,
    local: Choices,
}

impl Lists {
    fn of<'a>(node: &NodeFacts, port: &'a ServicePort, family: Family) -> Self {
        let all: Vec<&'a Endpoint> = port
            .endpoints
            .iter()
            .filter(|e| Family::of(e.address.ip()) == family)
            .collect();
        let cluster = match serving(&all) {
            Serving::Ready(ready) => near(node, &ready),
            Serving::Leaving(leaving) => answering(leaving),
        };
        let here: Vec<&'a Endpoint> = all.iter().copied().filter(|e| e.local).collect();
        let (Serving::Ready(local) | Serving::Leaving(local)) = serving(&here);
        Lists {
            cluster: choices(&cluster),
            local: choices(&answering(local)),
        }
    }
}

/// Who serves, out of a list of endpoints.
enum Serving<'a> {
    /// The ready ones; at least one.
    Ready(Vec<&'a Endpoint>),
    /// Nobody is ready: those that still serve while they terminate (KEP-1669), if any.
    Leaving(Vec<&'a Endpoint>),
}

fn serving<'a>(all: &[&'a Endpoint]) -> Serving<'a> {
    let of = |serves: &dyn Fn(&Endpoint) -> bool| -> Vec<&'a Endpoint> {
        all.iter().copied().filter(|e| serves(e)).collect()
    };
    let ready = of(&|e| e.ready);
    match ready.is_empty() {
        false => Serving::Ready(ready),
        true => Serving::Leaving(of(&|e| e.serving && e.terminating)),
    }
}

/// The endpoints for somebody who sends requests and not packets, such as the gateway: it stands nowhere in particular,
/// so that of all rules those about readiness, termination, ejection and weights hold, and those about places do not
/// (R-REQUEST-1). Of both families.
pub fn upstreams(port: &ServicePort) -> Choices {
    let all: Vec<&Endpoint> = port.endpoints.iter().collect();
    let (Serving::Ready(list) | Serving::Leaving(list)) = serving(&all);
    choices(&answering(list))
}

/// Without the ejected ones (R-HEALTH-1), unless nobody were left: then it stays as it is (R-HEALTH-2).
fn answering(list: Vec<&Endpoint>) -> Vec<&Endpoint> {
    let healthy: Vec<&Endpoint> = list.iter().copied().filter(|e| !e.ejected).collect();
    match healthy.is_empty() {
        true => list,
        false => healthy,
    }
}

fn choices(endpoints: &[&Endpoint]) -> Choices {
    Choices::of(endpoints.iter().map(|e| (e.address, e.weight)))
}

/// Topology hints (KEP-2433, KEP-3015): only when every ready endpoint has the hint and one is for us.
/// Those for the node, else those for the zone, else all; but rather a wider choice than one in which nobody answers
/// (R-HEALTH-3).
fn near<'a>(node: &NodeFacts, ready: &[&'a Endpoint]) -> Vec<&'a Endpoint> {
    let hinted = |mine: &dyn Fn(&Endpoint) -> bool| -> Vec<&'a Endpoint> {
        ready.iter().copied().filter(|e| mine(e)).collect()
    };
    let mut circles: Vec<Vec<&Endpoint>> = Vec::with_capacity(3);
    if ready.iter().all(|e| !e.nodes().is_empty()) {
        circles.push(hinted(&|e| e.nodes().contains(&node.name)));
    }
    if let Some(zone) = &node.zone
        && ready.iter().all(|e| !e.zones().is_empty())
    {
        circles.push(hinted(&|e| e.zones().contains(zone)));
    }
    circles.push(ready.to_vec());
    circles.retain(|circle| !circle.is_empty());
    let answers = |circle: &Vec<&Endpoint>| circle.iter().any(|e| !e.ejected);
    let chosen = circles.iter().position(answers).unwrap_or(0);
    circles
        .into_iter()
        .nth(chosen)
        .map(answering)
        .unwrap_or_default()
}

/// ClusterIP: whoever is no pod is masqueraded, so that the answer comes back through this node.
fn internal(
    port: &ServicePort,
    lists: &Lists,
    masquerade_all: bool,
    pods_known: bool,
) -> (Action, Action, Action) {
    let list = match port.internal_policy {
        TrafficPolicy::Cluster => &lists.cluster,
        TrafficPolicy::Local => &lists.local,
    };
    let act = |foreign: bool| balance(list, lists, masquerade_all || (foreign && pods_known));
    (act(false), act(true), act(true))
}

/// NodePort, externalIP, LoadBalancer: Cluster masquerades everybody.
/// Local keeps the source of outside clients; pods and the host take a short cut to every endpoint.
fn external(port: &ServicePort, lists: &Lists, pods_known: bool) -> (Action, Action, Action) {
    if port.external_policy == TrafficPolicy::Cluster {
        let act = || balance(&lists.cluster, lists, true);
        return (act(), act(), act());
    }
    let outside = balance(&lists.local, lists, false);
    let pod = match pods_known {
        true => balance(&lists.cluster, lists, false),
        false => outside.clone(),
    };
    (pod, balance(&lists.cluster, lists, true), outside)
}

fn balance(list: &Choices, lists: &Lists, masquerade: bool) -> Action {
    if !list.is_empty() {
        return Action::Balance {
            endpoints: list.clone(),
            masquerade,
        };
    }
    // Whoever is local is in the cluster.
    match lists.cluster.is_empty() {
        true => Action::Reject,
        false => Action::Drop,
    }
}

/// `loadBalancerSourceRanges` of the frontend's family. When the node itself may enter, so may packets whose
/// source is the LoadBalancer address: the node uses it as source when it talks to that address.
fn allowed_sources(node: &NodeFacts, port: &ServicePort, place: Place) -> Option<Vec<IpNet>> {
    let Place::Address(address) = place else {
        return None;
    };
    let of_family = |range: &&IpNet| Family::of(range.network()) == Family::of(address);
    let mut ranges: Vec<IpNet> = port
        .source_ranges
        .iter()
        .filter(of_family)
        .copied()
        .collect();
    if ranges.is_empty() {
        return None;
    }
    let inside = |ip: &IpAddr| ranges.iter().any(|range| range.contains(ip));
    if node.addresses.iter().any(inside) {
        ranges.push(IpNet::from(address));
    }
    ranges.sort_unstable();
    ranges.dedup();
    Some(ranges)
}

#[cfg(test)]
mod tests;
