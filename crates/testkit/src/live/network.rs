//! The network of a scenario: namespaces for the node, its pods, the other nodes and the outside.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use portolan_kernel::Netns;
use portolan_kernel::cgroup::Cgroup;
use portolan_kernel::link::{Links, Route};
use portolan_kernel::sysctl;
use portolan_kernel::topology::Host;
use portolan_model::{Family, Protocol, Verdict};

use super::ask::{self, Answer, NoAnswer, PATIENCE, SILENCE};
use crate::scenario::{Probe, Scenario};
use crate::wait;
use crate::world::{self, Home};

/// Index of the loopback in every namespace.
const LOOPBACK: u32 = 1;

/// How long links may take. The kernel makes their addresses known in one worker for all namespaces of the machine, which
/// waits while others are made or taken away.
const LINKS_UP: Duration = Duration::from_secs(30);

/// All hosts of one scenario. They are gone when this is dropped.
pub struct Network {
    n1: Host,
    others: Host,
    outside: Host,
    pods: BTreeMap<IpAddr, Host>,
    /// Virtual addresses that the node holds itself, because one of its processes sends from there.
    held: BTreeSet<IpAddr>,
}

impl Network {
    /// Builds the hosts that `scenario` needs for its senders and for these listeners.
    pub fn build(
        scenario: &Scenario,
        listeners: &BTreeSet<(SocketAddr, Protocol)>,
    ) -> Result<Self, String> {
        let senders = scenario
            .steps
            .iter()
            .flat_map(|step| &step.probes)
            .map(|probe| &probe.packet);
        let held = senders
            .clone()
            .filter(|p| p.interface.is_none() && world::home(p.source.ip()).is_none());
        let held: BTreeSet<IpAddr> = held.map(|packet| packet.source.ip()).collect();
        let people = senders
            .map(|packet| packet.source.ip())
            .chain(listeners.iter().map(|(address, _)| address.ip()));
        let people: BTreeSet<IpAddr> = people.filter(|address| !held.contains(address)).collect();
        let network = Network::connect(&people, held).map_err(|e| e.to_string())?;
        network.wait_for_links()?;
        Ok(network)
    }

    /// Packets that are sent before a link is ready are lost, and an IPv6 address is found by nobody before the kernel
    /// has joined the group in which its neighbours ask for it; both happen some time after they were asked for.
    fn wait_for_links(&self) -> Result<(), String> {
        let hosts = [&self.n1, &self.others, &self.outside]
            .into_iter()
            .chain(self.pods.values());
        for host in hosts {
            let mut links = host.links().map_err(|e| e.to_string())?;
            let ready = || links.are_ready().unwrap_or(false) && can_be_found(&mut links);
            if !host
                .run(|| wait::until(LINKS_UP, ready))
                .map_err(|e| e.to_string())?
            {
                return Err("a link does not come up".to_owned());
            }
        }
        Ok(())
    }

    fn connect(people: &BTreeSet<IpAddr>, held: BTreeSet<IpAddr>) -> portolan_kernel::Result<Self> {
        let (n1, others, outside) = (Host::router()?, Host::router()?, Host::new()?);
        let (node, other) = (|f| world::node_address(f, 1), |f| world::node_address(f, 2));
        n1.join("fabric", &linked(node), &others, "eth0", &linked(other))?;
        n1.join(
            "outside",
            &linked(world::gateway),
            &outside,
            "eth0",
            &linked(client),
        )?;
        let mut network = Network {
            n1,
            others,
            outside,
            pods: BTreeMap::new(),
            held,
        };
        // The kernel answers one client with a few errors in a second; a scenario asks faster than that.
        let unlimited = [("ipv4/icmp_ratelimit", "0"), ("ipv6/icmp/ratelimit", "0")];
        sysctl::set(&network.n1.netns, &unlimited)?;
        for family in Family::ALL {
            network.n1.route(everywhere(family), other(family))?;
            network.others.route(everywhere(family), node(family))?;
            network
                .outside
                .route(everywhere(family), world::gateway(family))?;
        }
        for &address in &network.held {
            network
                .n1
                .links()?
                .add_address("lo", IpNet::from(address))?;
        }
        for &address in people {
            network.settle(address)?;
        }
        Ok(network)
    }

    /// Gives `address` a home. What the plan does not place, a virtual address that nobody serves, lives on the other
    /// nodes: there it answers when a packet to it passes.
    fn settle(&mut self, address: IpAddr) -> portolan_kernel::Result<()> {
        let family = Family::of(address);
        let standing = [world::node_address(family, 2), client(family)];
        match world::home(address) {
            Some(Home::Node) => Ok(()),
            _ if standing.contains(&address) => Ok(()),
            Some(Home::Pod) => self.add_pod(address),
            Some(Home::Outside) => self
                .outside
                .links()?
                .add_address("eth0", IpNet::from(address)),
            Some(Home::OtherNode) | None => {
                self.others.links()?.add_address("lo", IpNet::from(address))
            }
        }
    }

    fn add_pod(&mut self, address: IpAddr) -> portolan_kernel::Result<()> {
        let gateway = pod_gateway(Family::of(address));
        let pod = Host::new()?;
        let name = format!("pod{}", self.pods.len());
        self.n1.join(
            &name,
            &[IpNet::from(gateway)],
            &pod,
            "eth0",
            &[IpNet::from(address)],
        )?;
        self.n1
            .links()?
            .set_route(&Route::dev(IpNet::from(address), &name))?;
        let mut links = pod.links()?;
        links.set_route(&Route::dev(IpNet::from(gateway), "eth0"))?;
        links.set_route(&Route::via(everywhere(Family::of(address)), gateway))?;
        self.pods.insert(address, pod);
        Ok(())
    }

    /// The namespace of the node under test.
    pub fn netns(&self) -> &Netns {
        &self.n1.netns
    }

    /// The namespaces of its pods.
    pub fn pods(&self) -> Vec<&Netns> {
        self.pods.values().map(|pod| &pod.netns).collect()
    }

    /// Whether `address` is one of the node under test.
    pub fn is_node(&self, address: IpAddr) -> bool {
        let family = Family::of(address);
        let own = [
            world::node_address(family, 1),
            world::gateway(family),
            pod_gateway(family),
        ];
        own.contains(&address)
    }

    /// Runs `work` where `address` lives.
    pub fn at<T: Send>(
        &self,
        address: IpAddr,
        work: impl FnOnce() -> T + Send,
    ) -> Result<T, String> {
        let host = match world::home(address) {
            _ if self.held.contains(&address) => &self.n1,
            Some(Home::Node) => &self.n1,
            Some(Home::Pod) => self
                .pods
                .get(&address)
                .ok_or_else(|| format!("there is no pod {address}"))?,
            Some(Home::Outside) => &self.outside,
            Some(Home::OtherNode) | None => &self.others,
        };
        host.run(work).map_err(|e| e.to_string())
    }

    /// Whether sockets of this address are made by a process of the node or of one of its pods.
    pub fn is_on_node(&self, address: IpAddr) -> bool {
        let home = world::home(address);
        self.held.contains(&address) || matches!(home, Some(Home::Node | Home::Pod))
    }

    /// The address that the sockets of a probe are bound to, if they are.
    pub fn bound(&self, probe: &Probe) -> Option<SocketAddr> {
        let source = probe.packet.source;
        // A process of the node does what processes do: it leaves the choice of its source to the kernel.
        match (probe.fixed_port, self.is_node(source.ip())) {
            (true, _) => Some(source),
            (false, false) => Some(SocketAddr::new(source.ip(), 0)),
            (false, true) => None,
        }
    }

    /// Makes up to `most` flows like the packet of `probe`, one after the other, while `go_on` says so of what became of the last.
    pub fn ask(
        &self,
        probe: &Probe,
        most: usize,
        cgroup: Option<&Cgroup>,
        mut go_on: impl FnMut(&Result<Answer, NoAnswer>) -> bool + Send,
    ) -> Result<Vec<Result<Answer, NoAnswer>>, String> {
        let packet = &probe.packet;
        let source = packet.source.ip();
        let bound = self.bound(probe);
        let cgroup = cgroup.filter(|_| self.is_on_node(source));
        let patience = match probe.verdict {
            Verdict::Drop => SILENCE,
            _ => PATIENCE,
        };
        self.at(source, || {
            if let Some(cgroup) = cgroup {
                cgroup.join().map_err(|e| e.to_string())?;
            }
            let mut flows = Vec::new();
            while flows.len() < most {
                let flow = ask::ask(packet.protocol, bound, packet.destination, patience)?;
                let more = go_on(&flow);
                flows.push(flow);
                if !more {
                    break;
                }
            }
            Ok(flows)
        })?
    }
}

/// Whether every IPv6 address of the calling thread's namespace, apart from the loopback's, has its solicited-node
/// group (RFC 4291, section 2.7.1) on its link.
fn can_be_found(links: &mut Links) -> bool {
    let Ok(groups) = std::fs::read_to_string("/proc/thread-self/net/igmp6") else {
        return false;
    };
    let joined: BTreeSet<(u32, &str)> = groups
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let index = words.next()?.parse().ok()?;
            Some((index, words.nth(1)?))
        })
        .collect();
    let has_group = |(index, address): &(u32, IpNet)| match address.addr() {
        IpAddr::V6(address) if *index != LOOPBACK => {
            let [.., a, b, c] = address.octets();
            let group = format!("ff0200000000000000000001ff{a:02x}{b:02x}{c:02x}");
            joined.contains(&(*index, group.as_str()))
        }
        _ => true,
    };
    links.addresses().is_ok_and(|all| all.iter().all(has_group))
}

/// The address of `n1` towards its pods.
fn pod_gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => [10, 1, 0, 1].into(),
        Family::V6 => [0xfd00, 0x10, 1, 0, 0, 0, 0, 1].into(),
    }
}

/// The client outside that the address plan names.
fn client(family: Family) -> IpAddr {
    match family {
        Family::V4 => [203, 0, 113, 2].into(),
        Family::V6 => [0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 2].into(),
    }
}

/// An address of each family, with the length of the network on its link.
fn linked(address: impl Fn(Family) -> IpAddr) -> [IpNet; 2] {
    Family::ALL.map(|family| {
        let length = match family {
            Family::V4 => 24,
            Family::V6 => 64,
        };
        IpNet::new(address(family), length).expect("invariant: the length fits the family")
    })
}

/// The default route of a family.
fn everywhere(family: Family) -> IpNet {
    match family {
        Family::V4 => world::net("0.0.0.0/0"),
        Family::V6 => world::net("::/0"),
    }
}
