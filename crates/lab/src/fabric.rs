//! The lab's network: a switch that joins the nodes, a gateway on it, and a client outside behind the gateway.
//!
//! ```text
//!   outside 203.0.113.2 ── 203.0.113.1 [fabric: gateway, API server] 192.168.0.1 ──┬── n1 192.168.0.11
//!                                                                                   ├── n2 192.168.0.12
//! ```
//!
//! Pods' addresses are routed, as in a cloud's own network: the fabric and the nodes know which node has which pods.
//! Nobody but the nodes knows Services: their addresses mean something only where a Service proxy runs.

use ipnet::IpNet;
use portolan_kernel::Links;
use portolan_kernel::link::Route;
use portolan_kernel::topology::Host;

use crate::error::Result;
use crate::plan::{self, NodePlan};

/// The namespaces of a lab, held open by the supervisor. They go when it goes.
pub struct Fabric {
    /// The switch, the gateway, and the API server's address.
    pub fabric: Host,
    /// The client outside the cluster.
    pub outside: Host,
    /// The nodes, n1 first.
    pub nodes: Vec<(NodePlan, Host)>,
}

impl Fabric {
    /// Builds the network of a lab with `count` nodes.
    pub fn build(count: u8) -> Result<Fabric> {
        let fabric = Host::router()?;
        fabric.add_switch("nodes")?;
        let mut links = fabric.links()?;
        plan::gateway()
            .iter()
            .try_for_each(|address| links.add_address("nodes", *address))?;
        let outside = Host::new()?;
        fabric.join(
            "outside",
            &plan::outside_gateway(),
            &outside,
            "eth0",
            &plan::outside(),
        )?;
        connect_outside(&outside, count)?;
        let nodes = plan::nodes(count).map(|node| Ok((node, build_node(&fabric, node, count)?)));
        let nodes = nodes.collect::<Result<Vec<_>>>()?;
        for node in plan::nodes(count) {
            route_pods(&mut links, node)?;
        }
        Ok(Fabric {
            fabric,
            outside,
            nodes,
        })
    }

    /// The namespace behind a name that a person types: a node, `outside` or `fabric`.
    pub fn place(&self, name: &str) -> Option<&Host> {
        match name {
            "outside" => Some(&self.outside),
            "fabric" => Some(&self.fabric),
            _ => self
                .nodes
                .iter()
                .find(|(node, _)| node.name() == name)
                .map(|(_, host)| host),
        }
    }
}

/// The outside knows the nodes and the pods, through the gateway; it has no route to Services.
fn connect_outside(outside: &Host, count: u8) -> Result<()> {
    let pods = plan::nodes(count).flat_map(|node| node.pod_cidrs());
    for to in plan::gateway()
        .map(|net| net.trunc())
        .into_iter()
        .chain(pods)
    {
        outside.route(to, same_family(to, plan::outside_gateway()))?;
    }
    Ok(())
}

fn build_node(fabric: &Host, node: NodePlan, count: u8) -> Result<Host> {
    let host = Host::router()?;
    fabric.plug("nodes", &node.name(), &host, "eth0", &node.addresses())?;
    let mut links = host.links()?;
    for gateway in plan::gateway() {
        let everything = match gateway {
            IpNet::V4(_) => IpNet::V4(Default::default()),
            IpNet::V6(_) => IpNet::V6(Default::default()),
        };
        links.set_route(&Route::via(everything, gateway.addr()))?;
    }
    for other in plan::nodes(count).filter(|other| *other != node) {
        route_pods(&mut links, other)?;
    }
    Ok(host)
}

fn route_pods(links: &mut Links, node: NodePlan) -> Result<()> {
    for to in node.pod_cidrs() {
        links.set_route(&Route::via(to, same_family(to, node.addresses())))?;
    }
    Ok(())
}

fn same_family(to: IpNet, [v4, v6]: [IpNet; 2]) -> std::net::IpAddr {
    match to {
        IpNet::V4(_) => v4.addr(),
        IpNet::V6(_) => v6.addr(),
    }
}
