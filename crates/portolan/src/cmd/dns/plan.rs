//! Which server blocks answer at which address, and which pages stand where.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, bail};
use nix::ifaddrs::getifaddrs;
use portolan_dns::corefile::plugin::{Bind, Tls};
use portolan_dns::corefile::{Block, Config, Listen, Scheme};

use super::nearby;

/// A place where queries come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// How.
    pub scheme: Scheme,
    /// Where; every address is two places, one for each family.
    pub address: SocketAddr,
}

impl Place {
    /// As metrics call it, by the port that clients ask.
    pub(super) fn server(self) -> String {
        let port = match self.address.port() {
            nearby::PORT if self.scheme == LED.0 => LED.1,
            port => port,
        };
        format!("{}://:{port}", self.scheme.name())
    }
}

/// How and where clients ask for what is led to another port on the node itself.
const LED: (Scheme, u16) = (Scheme::Dns, 53);

/// What answers there.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Behind {
    /// Zones with the numbers of their blocks.
    pub zones: Vec<(String, usize)>,
    /// The certificate of listeners in TLS.
    pub tls: Option<Tls>,
}

/// What stands at a place for HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Roles {
    /// `/health`.
    pub health: bool,
    /// `/ready`.
    pub ready: bool,
    /// `/metrics`.
    pub metrics: bool,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// For queries.
    pub places: BTreeMap<Place, Behind>,
    /// For HTTP.
    pub pages: BTreeMap<Listen, Roles>,
    /// The addresses at which names are answered, without those of loopback: whom NS records name.
    pub own: Vec<IpAddr>,
}

/// Makes the plan of a configuration. With addresses of the node, blocks that bind none answer there, and nowhere else.
pub(super) fn plan(config: &Config, nearby: &[IpAddr]) -> anyhow::Result<Plan> {
    let mut plan = Plan::default();
    let mut own = BTreeSet::new();
    for (number, block) in config.blocks.iter().enumerate() {
        let addresses =
            addresses(&block.plugins.bind, nearby).with_context(|| format!("{}", block.place))?;
        own.extend(seen(&addresses)?);
        for key in &block.keys {
            for address in &addresses {
                let is_led = nearby.contains(address) && (key.scheme, key.port) == LED;
                let port = if is_led { nearby::PORT } else { key.port };
                let address = SocketAddr::new(*address, port);
                let place = Place {
                    scheme: key.scheme,
                    address,
                };
                let behind = plan.places.entry(place).or_default();
                behind.zones.push((key.zone.as_str().to_string(), number));
                tls(behind, block, key.scheme)?;
            }
        }
        let plugins = &block.plugins;
        if let Some(health) = plugins.health {
            plan.pages.entry(health.listen).or_default().health = true;
        }
        if let Some(ready) = plugins.ready {
            plan.pages.entry(ready.listen).or_default().ready = true;
        }
        if let Some(listen) = plugins.prometheus {
            plan.pages.entry(listen).or_default().metrics = true;
        }
    }
    plan.own = own
        .into_iter()
        .filter(|address| !address.is_loopback())
        .collect();
    Ok(plan)
}

fn tls(behind: &mut Behind, block: &Block, scheme: Scheme) -> anyhow::Result<()> {
    if scheme == Scheme::Dns {
        return Ok(());
    }
    match &block.plugins.tls {
        Some(tls) => behind.tls = Some(tls.clone()),
        None => bail!(
            "{}: a {}:// server block needs its certificate: tls CERT KEY",
            block.place,
            scheme.name()
        ),
    }
    Ok(())
}

/// Where a block listens.
fn addresses(binds: &[Bind], nearby: &[IpAddr]) -> anyhow::Result<Vec<IpAddr>> {
    if binds.is_empty() && !nearby.is_empty() {
        return Ok(nearby.to_vec());
    }
    if binds.is_empty() {
        return Ok(vec![
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv6Addr::UNSPECIFIED.into(),
        ]);
    }
    let mut found = BTreeSet::new();
    for bind in binds {
        let mut here = resolve(&bind.at)?;
        for address in resolve(&bind.except)? {
            here.remove(&address);
        }
        found.extend(here);
    }
    match found.is_empty() {
        true => bail!("bind leaves no address to listen at"),
        false => Ok(found.into_iter().collect()),
    }
}

/// Addresses, and those of interfaces.
fn resolve(words: &[String]) -> anyhow::Result<BTreeSet<IpAddr>> {
    let mut found = BTreeSet::new();
    for word in words {
        if let Ok(address) = word.parse::<IpAddr>() {
            found.insert(address);
            continue;
        }
        let all = interfaces()?;
        let here: Vec<IpAddr> = all
            .iter()
            .filter(|(name, _)| name == word)
            .map(|(_, address)| *address)
            .collect();
        if here.is_empty() {
            let names: BTreeSet<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
            let names: Vec<&str> = names.into_iter().collect();
            bail!(
                "bind {word}: neither an address nor an interface with one; interfaces: {}",
                names.join(", ")
            );
        }
        found.extend(here);
    }
    Ok(found)
}

/// The addresses at which others see these.
fn seen(addresses: &[IpAddr]) -> anyhow::Result<Vec<IpAddr>> {
    match addresses.iter().any(IpAddr::is_unspecified) {
        true => Ok(interfaces()?
            .into_iter()
            .map(|(_, address)| address)
            .collect()),
        false => Ok(addresses.to_vec()),
    }
}

/// Interfaces and their addresses, without those that only mean something on one link.
fn interfaces() -> anyhow::Result<Vec<(String, IpAddr)>> {
    let all = getifaddrs().context("cannot list the addresses of the interfaces")?;
    let ip = |address: nix::ifaddrs::InterfaceAddress| {
        let storage = address.address?;
        let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        let v6 = || storage.as_sockaddr_in6().map(|v6| v6.ip());
        let found = v4.or_else(|| {
            v6().filter(|v6| !v6.is_unicast_link_local())
                .map(IpAddr::from)
        })?;
        Some((address.interface_name, found))
    };
    Ok(all.filter_map(ip).collect())
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn plan_of(text: &str) -> anyhow::Result<Plan> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Corefile");
        std::fs::write(&path, text).unwrap();
        plan(&file::read(&path, 53).unwrap().config, &[])
    }

    #[test]
    fn blocks_share_places_and_pages() {
        let plan = plan_of(
            ".:53 {\n health\n ready\n prometheus :9153\n}\nexample.org {\n bind 127.0.0.1 ::1\n health\n}\ncluster.local {\n}\n",
        )
        .unwrap();
        let places: Vec<(String, usize)> = plan
            .places
            .iter()
            .map(|(place, behind)| (place.address.to_string(), behind.zones.len()))
            .collect();
        let expected = [
            ("0.0.0.0:53", 2),
            ("127.0.0.1:53", 1),
            ("[::]:53", 2),
            ("[::1]:53", 1),
        ];
        assert_eq!(
            places,
            expected.map(|(address, zones)| (address.to_string(), zones))
        );
        let pages: Vec<u16> = plan.pages.keys().map(|listen| listen.port).collect();
        assert_eq!(pages, [8080, 8181, 9153]);
        assert!(plan.own.iter().all(|address| !address.is_loopback()));
    }

    #[test]
    fn nearby_addresses_are_for_blocks_that_bind_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Corefile");
        let text = ".:53 {\n}\ncluster.local:5353 {\n}\nexample.org {\n bind 127.0.0.1\n}\n";
        std::fs::write(&path, text).unwrap();
        let nearby = ["169.254.20.10", "fd00:172:30::a"].map(|ip| ip.parse().unwrap());
        let plan = plan(&file::read(&path, 53).unwrap().config, &nearby).unwrap();
        let places = plan
            .places
            .keys()
            .map(|place| (place.address.to_string(), place.server()));
        let expected = [
            ("127.0.0.1:53", "dns://:53"),
            ("169.254.20.10:5353", "dns://:5353"),
            ("169.254.20.10:10053", "dns://:53"),
            ("[fd00:172:30::a]:5353", "dns://:5353"),
            ("[fd00:172:30::a]:10053", "dns://:53"),
        ];
        let expected = expected.map(|(at, server)| (at.to_string(), server.to_string()));
        assert_eq!(places.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn interfaces_stand_for_their_addresses() {
        let plan = plan_of(". {\n bind lo {\n except ::1\n }\n}\n").unwrap();
        assert!(
            plan.places
                .keys()
                .any(|place| place.address.ip().is_loopback())
        );
        assert!(plan.places.keys().all(|place| place.address.ip().is_ipv4()));
        let error = format!("{:#}", plan_of(". {\n bind nowhere0\n}\n").unwrap_err());
        assert!(
            error.contains("Corefile:1:1: bind nowhere0: neither an address nor an interface"),
            "{error}"
        );
        let error = format!(
            "{:#}",
            plan_of(". {\n bind 127.0.0.1 {\n except lo\n }\n}\n").unwrap_err()
        );
        assert!(error.contains("leaves no address"), "{error}");
        let error = plan_of("tls://. {\n}\n").unwrap_err().to_string();
        assert!(
            error.contains("a tls:// server block needs its certificate"),
            "{error}"
        );
    }
}
