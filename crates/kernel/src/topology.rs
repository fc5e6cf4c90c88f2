//! Small networks for the lab and for tests: hosts (namespaces) on switches (bridges) and on direct links.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::error::Result;
use crate::link::{Links, Route};
use crate::netns::Netns;
use crate::sysctl;

/// A host: a network namespace with its loopback up.
#[derive(Debug)]
pub struct Host {
    /// Its namespace.
    pub netns: Netns,
}

impl Host {
    /// A host that does not forward packets.
    pub fn new() -> Result<Host> {
        let netns = Netns::new()?;
        sysctl::set_host(&netns)?;
        Links::of(&netns)?.up("lo")?;
        Ok(Host { netns })
    }

    /// A host that forwards packets.
    pub fn router() -> Result<Host> {
        let host = Host::new()?;
        sysctl::set_router(&host.netns)?;
        Ok(host)
    }

    /// Its links.
    pub fn links(&self) -> Result<Links> {
        Links::of(&self.netns)
    }

    /// Runs `work` on this host.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.netns.run(work)
    }

    /// Creates a switch (a bridge that is up).
    pub fn add_switch(&self, bridge: &str) -> Result<()> {
        let mut links = self.links()?;
        links.add_bridge(bridge)?;
        links.up(bridge)
    }

    /// Plugs `host` into the switch `bridge` of this host: there the link is `name` with `addresses`,
    /// here it is the port `port`.
    pub fn plug(
        &self,
        bridge: &str,
        port: &str,
        host: &Host,
        name: &str,
        addresses: &[IpNet],
    ) -> Result<()> {
        let mut links = self.links()?;
        links.add_veth(port, name, Some(&host.netns))?;
        links.set_bridge(port, bridge)?;
        links.up(port)?;
        host.set_up(name, addresses)
    }

    /// Joins this host's new link `name` with `peer`'s new link `peer_name`.
    pub fn join(
        &self,
        name: &str,
        addresses: &[IpNet],
        peer: &Host,
        peer_name: &str,
        theirs: &[IpNet],
    ) -> Result<()> {
        self.links()?.add_veth(name, peer_name, Some(&peer.netns))?;
        self.set_up(name, addresses)?;
        peer.set_up(peer_name, theirs)
    }

    /// Brings up a link and gives it addresses.
    pub fn set_up(&self, name: &str, addresses: &[IpNet]) -> Result<()> {
        let mut links = self.links()?;
        links.up(name)?;
        addresses
            .iter()
            .try_for_each(|address| links.add_address(name, *address))
    }

    /// Adds a route through a gateway.
    pub fn route(&self, to: IpNet, via: IpAddr) -> Result<()> {
        self.links()?.set_route(&Route::via(to, via))
    }
}
