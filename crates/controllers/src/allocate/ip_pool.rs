//! The addresses of one Service range, and who has them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Place of the address that is kept for `default/kubernetes`.
const KUBERNETES: u64 = 1;
/// Place of the address that installers give to cluster DNS; never chosen, but may be asked for.
const DNS: u64 = 10;
/// Owner of [`KUBERNETES`].
const KUBERNETES_OWNER: &str = "default/kubernetes";

/// One range. Places count from its first address; the first of all, and the last of IPv4, are never used.
#[derive(Clone, Debug)]
pub struct IpPool {
    cidr: IpNet,
    last: u64,
    taken: BTreeMap<u64, String>,
}

impl IpPool {
    /// A range in which nothing is taken.
    pub fn new(cidr: IpNet) -> Self {
        let cidr = cidr.trunc();
        let bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len()).min(63);
        let last = match cidr {
            IpNet::V4(_) => (1u64 << bits).saturating_sub(2),
            IpNet::V6(_) => (1u64 << bits) - 1,
        };
        IpPool {
            cidr,
            last,
            taken: BTreeMap::new(),
        }
    }

    /// The range.
    pub fn cidr(&self) -> IpNet {
        self.cidr
    }

    /// Whether `owner` may have this very address; the words of the API server if not.
    pub fn check(&self, text: &str, owner: &str) -> Result<(), String> {
        let outside = || {
            format!(
                "the provided IP ({text}) is not in the valid range. The range of valid IPs is {}",
                self.cidr
            )
        };
        let place = text
            .parse()
            .ok()
            .and_then(|ip| self.place(ip))
            .ok_or_else(outside)?;
        let other = |has: &String| has != owner;
        match self.taken.get(&place).is_some_and(other)
            || (place == KUBERNETES && owner != KUBERNETES_OWNER)
        {
            true => Err("provided IP is already allocated".into()),
            false => Ok(()),
        }
    }

    /// Any free address: of the upper band first, so that the lower one stays for addresses that people choose
    /// (KEP-3070). `None` when all are taken.
    pub fn free(&self, random: &mut fastrand::Rng) -> Option<IpAddr> {
        let band = band(self.last);
        let of = |first: u64, last: u64, random: &mut fastrand::Rng| {
            let length = (last + 1).checked_sub(first).filter(|n| *n > 0)?;
            let start = random.u64(0..length);
            let places = (0..length).map(|step| first + (start + step) % length);
            places
                .filter(|place| *place != KUBERNETES && *place != DNS)
                .find(|place| !self.taken.contains_key(place))
        };
        of(band + 1, self.last, random)
            .or_else(|| of(1, band, random))
            .map(|place| self.address(place))
    }

    /// Remembers that `owner` has this address; the first owner keeps it.
    pub fn take(&mut self, ip: IpAddr, owner: &str) {
        if let Some(place) = self.place(ip) {
            self.taken.entry(place).or_insert_with(|| owner.to_string());
        }
    }

    /// Forgets that `owner` has this address, if it does.
    pub fn release(&mut self, ip: IpAddr, owner: &str) {
        if let Some(place) = self.place(ip)
            && self.taken.get(&place).is_some_and(|has| has == owner)
        {
            self.taken.remove(&place);
        }
    }

    fn place(&self, ip: IpAddr) -> Option<u64> {
        let offset = match (self.cidr.addr(), ip) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => {
                u128::from(u32::from(ip)).checked_sub(u128::from(u32::from(base)))?
            }
            (IpAddr::V6(base), IpAddr::V6(ip)) => u128::from(ip).checked_sub(u128::from(base))?,
            _ => return None,
        };
        u64::try_from(offset)
            .ok()
            .filter(|place| (1..=self.last).contains(place))
    }

    fn address(&self, place: u64) -> IpAddr {
        match self.cidr.addr() {
            // A place is at most the size of the range, which fits.
            IpAddr::V4(base) => Ipv4Addr::from(u32::from(base).wrapping_add(place as u32)).into(),
            IpAddr::V6(base) => {
                Ipv6Addr::from(u128::from(base).wrapping_add(u128::from(place))).into()
            }
        }
    }
}

/// How many of the lowest places are kept for people: min(max(16, size/256), 256), and none in tiny ranges.
fn band(size: u64) -> u64 {
    match size <= 16 {
        true => 0,
        false => (size / 256).clamp(16, 256),
    }
}
