//! Which pod has which addresses of the node's pod networks. Pure, and kept in a file by its user.
//!
//! A slot is the host part of both families' addresses. Slots are given out in turn, so that a freed address rests as
//! long as possible: whoever still speaks to it should not meet another pod.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::plan::decimal_digits;

/// Slot 1 is left to the node.
const FIRST: u8 = 2;
/// 255 is the broadcast address of the IPv4 network.
const LAST: u8 = 254;

/// The table of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipam {
    next: u8,
    used: BTreeMap<String, u8>,
}

impl Default for Ipam {
    fn default() -> Ipam {
        Ipam {
            next: FIRST,
            used: BTreeMap::new(),
        }
    }
}

impl Ipam {
    /// The pod's slot: the one that it has, or the next free one. `None` when all are taken.
    pub fn allocate(&mut self, pod: &str) -> Option<u8> {
        if let Some(slot) = self.used.get(pod) {
            return Some(*slot);
        }
        let start = self.next.clamp(FIRST, LAST);
        let slot = (start..=LAST)
            .chain(FIRST..start)
            .find(|slot| !self.used.values().any(|used| used == slot))?;
        self.next = if slot == LAST { FIRST } else { slot + 1 };
        self.used.insert(pod.to_string(), slot);
        Some(slot)
    }

    /// Gives the pod's slot back.
    pub fn release(&mut self, pod: &str) {
        self.used.remove(pod);
    }
}

/// The addresses of a slot: 10.1.0.12 and fd00:10:1::12 read alike.
pub fn addresses(cidrs: [IpNet; 2], slot: u8) -> [IpAddr; 2] {
    cidrs.map(|net| match net.network() {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) | u32::from(slot)).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) | u128::from(decimal_digits(slot))).into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::NodePlan;

    #[test]
    fn freed_slots_are_given_out_last() {
        let mut ipam = Ipam::default();
        assert_eq!([ipam.allocate("a"), ipam.allocate("b")], [Some(2), Some(3)]);
        assert_eq!(ipam.allocate("a"), Some(2), "a pod keeps its slot");
        ipam.release("a");
        assert_eq!(ipam.allocate("c"), Some(4));
        let rest: Vec<_> = (5..=LAST).map(|n| ipam.allocate(&n.to_string())).collect();
        assert_eq!(rest.last(), Some(&Some(LAST)));
        assert_eq!(ipam.allocate("d"), Some(2), "only now");
        assert_eq!(ipam.allocate("e"), None);
    }

    #[test]
    fn a_slot_reads_alike_in_both_families() {
        let cidrs = NodePlan { number: 3 }.pod_cidrs();
        assert_eq!(
            addresses(cidrs, 112).map(|ip| ip.to_string()),
            ["10.3.0.112", "fd00:10:3::112"]
        );
    }
}
