//! At which devices the programs stand, and what they must know of them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use portolan_model::{ApplyError, Family};

use crate::ebpf::refused;
use crate::link::{Ethernet, Links};

/// Devices through which traffic from outside comes and goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Devices {
    /// None: the rules do it.
    #[default]
    None,
    /// Those of the default routes.
    Routes,
    /// Those with these names.
    Named(Vec<String>),
}

/// `auto`, `none`, or names with commas between.
impl FromStr for Devices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || -> Vec<String> { text.split(',').map(|name| name.trim().into()).collect() };
        match text {
            "auto" => Ok(Devices::Routes),
            "none" => Ok(Devices::None),
            _ if names().iter().any(String::is_empty) => Err(format!(
                "{text:?} is neither auto nor none nor names of devices with commas between"
            )),
            _ => Ok(Devices::Named(names())),
        }
    }
}

/// The most devices; a node with more has its traffic from outside treated by the rules at the others.
pub(super) const DEVICES_MAX: u32 = 64;

/// A device, as the programs know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mtu: u32,
    /// Frames for this host have it.
    pub(super) mac: [u8; 6],
    /// For the source of what is sent on.
    pub(super) addresses: [Option<IpAddr>; 2],
}

/// Those of `wanted` that are there and carry Ethernet frames, in the order of their indices.
pub(crate) fn found(wanted: &Devices) -> Result<Vec<Device>, ApplyError> {
    let names = match wanted {
        Devices::None => return Ok(Vec::new()),
        Devices::Routes => of_default_routes()?,
        Devices::Named(names) => names.clone(),
    };
    let told = |error| refused("look at the devices of this node", &error);
    let mut links = Links::here().map_err(told)?;
    let mut all: Vec<Ethernet> = links.ethernet().map_err(told)?;
    let addresses = links.addresses().map_err(told)?;
    all.retain(|device| names.contains(&device.name));
    all.sort_by_key(|device| device.index);
    all.truncate(DEVICES_MAX as usize);
    let of = |index: u32, family: Family| {
        let mut own = addresses.iter().filter(|(of, _)| *of == index);
        own.find_map(|(_, net)| {
            let ip = net.addr();
            (Family::of(ip) == family && is_global(ip)).then_some(ip)
        })
    };
    let device = |device: Ethernet| Device {
        addresses: Family::ALL.map(|family| of(device.index, family)),
        index: device.index,
        name: device.name,
        mtu: device.mtu,
        mac: device.mac,
    };
    Ok(all.into_iter().map(device).collect())
}

fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_loopback() && ip != Ipv4Addr::UNSPECIFIED,
        IpAddr::V6(ip) => {
            !ip.is_unicast_link_local() && !ip.is_loopback() && ip != Ipv6Addr::UNSPECIFIED
        }
    }
}

/// The devices of the default routes of both families, in the main table.
fn of_default_routes() -> Result<Vec<String>, ApplyError> {
    let read = |file: &str| {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        text.map_err(|error| refused(format!("read /proc/net/{file}"), &error))
    };
    let mut names: Vec<String> = Vec::new();
    for line in read("route")?.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [name, "00000000", _, _, _, _, _, "00000000", ..] = words[..] {
            names.push(name.into());
        }
    }
    // Without IPv6 there is no such file.
    for line in read("ipv6_route").unwrap_or_default().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [destination, "00", .., name] = words[..]
            && destination.bytes().all(|digit| digit == b'0')
        {
            names.push(name.into());
        }
    }
    names.sort_unstable();
    names.dedup();
    names.retain(|name| name != "lo");
    Ok(names)
}

/// Below are ports that only privileged processes bind to.
const PORTS_FIRST: u16 = 1024;
/// The first NodePort that an API server gives by default.
const NODE_PORTS_FIRST: u16 = 30_000;
/// The last one.
const NODE_PORTS_LAST: u16 = 32_767;
/// With fewer ports than this, flows to one endpoint would run out of them: the rules masquerade instead.
const PORTS_MIN: u16 = 1000;

/// Ports that the kernel gives to no socket of this node by itself.
pub(super) fn source_ports() -> Result<Option<RangeInclusive<u16>>, ApplyError> {
    let file = "/proc/sys/net/ipv4/ip_local_port_range";
    let text = fs::read_to_string(file).map_err(|error| refused(format!("read {file}"), &error))?;
    let mut numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
    Ok(numbers
        .next()
        .zip(numbers.next())
        .and_then(|(first, last)| beside(first, last)))
}

fn beside(first: u16, last: u16) -> Option<RangeInclusive<u16>> {
    let below = PORTS_FIRST..=first.min(NODE_PORTS_FIRST).saturating_sub(1);
    let above = last.max(NODE_PORTS_LAST).saturating_add(1)..=u16::MAX;
    let wide = |range: &RangeInclusive<u16>| range.end().saturating_sub(*range.start());
    let widest = if wide(&above) > wide(&below) {
        above
    } else {
        below
    };
    (wide(&widest) >= PORTS_MIN).then_some(widest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_those_that_nobody_gets_by_chance() {
        assert_eq!(beside(32_768, 60_999), Some(1024..=29_999));
        assert_eq!(beside(10_000, 40_000), Some(40_001..=65_535));
        assert_eq!(beside(1024, 65_535), None);
        assert_eq!(beside(1500, 65_000), None);
        assert_eq!(beside(0, 0), Some(32_768..=65_535));
    }

    #[test]
    fn devices_are_named_or_found() {
        assert_eq!("auto".parse(), Ok(Devices::Routes));
        assert_eq!("none".parse(), Ok(Devices::None));
        let named = Devices::Named(vec!["eth0".into(), "eth1".into()]);
        assert_eq!("eth0, eth1".parse(), Ok(named));
        assert!(Devices::from_str("eth0,,eth1").is_err());
        assert!(Devices::from_str("").is_err());
    }
}
