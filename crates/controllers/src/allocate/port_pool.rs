//! The NodePorts, and who has them. A number belongs to one Service, whatever the protocol.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// The range of NodePorts.
#[derive(Clone, Debug)]
pub struct PortPool {
    range: RangeInclusive<u16>,
    taken: BTreeMap<u16, String>,
}

impl PortPool {
    /// A range in which nothing is taken.
    pub fn new(range: RangeInclusive<u16>) -> Self {
        PortPool {
            range,
            taken: BTreeMap::new(),
        }
    }

    /// Whether `owner` may have this very port; the words of the API server if not.
    pub fn check(&self, number: i64, owner: &str) -> Result<(), String> {
        let port = u16::try_from(number)
            .ok()
            .filter(|port| self.range.contains(port));
        let Some(port) = port else {
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                self.range.start(),
                self.range.end()
            ));
        };
        match self.taken.get(&port).is_some_and(|has| has != owner) {
            true => Err("provided port is already allocated".into()),
            false => Ok(()),
        }
    }

    /// Any free port that is not in `besides`: of the upper band first (KEP-3668).
    pub fn free(&self, random: &mut fastrand::Rng, besides: &[u16]) -> Option<u16> {
        let split = self.range.start().saturating_add(band(self.range.len()));
        let of = |ports: Vec<u16>, random: &mut fastrand::Rng| {
            let start = random.usize(0..ports.len().max(1));
            let turned = ports.iter().cycle().skip(start).take(ports.len());
            turned
                .copied()
                .find(|port| !self.taken.contains_key(port) && !besides.contains(port))
        };
        let upper = of((split..=*self.range.end()).collect(), random);
        upper.or_else(|| of((*self.range.start()..split).collect(), random))
    }

    /// Remembers that `owner` has this port; the first owner keeps it.
    pub fn take(&mut self, port: u16, owner: &str) {
        if self.range.contains(&port) {
            self.taken.entry(port).or_insert_with(|| owner.to_string());
        }
    }

    /// Forgets that `owner` has this port, if it does.
    pub fn release(&mut self, port: u16, owner: &str) {
        if self.taken.get(&port).is_some_and(|has| has == owner) {
            self.taken.remove(&port);
        }
    }
}

/// How many of the lowest ports are kept for people: min(max(16, size/32), 128), and none in tiny ranges.
fn band(size: usize) -> u16 {
    match size <= 16 {
        true => 0,
        false => (size / 32).clamp(16, 128) as u16,
    }
}
