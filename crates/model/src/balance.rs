//! Which of several endpoints gets a new flow: the ways to choose, and the tables of slots that data planes choose from.
//!
//! ```text
//!   endpoints and weights ──slots──▶ slot 0, 1, 2 … → endpoint ◀── a number: random, the next, or a hash of the client
//! ```
//!
//! Everything here is a pure function of endpoints, weights and client, so every node and every data plane that has the
//! same endpoints makes the same choice where the choice is not random. docs/decisions/0003 says why it is so.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::hash::{jhash, scale};

/// How a Service port chooses among the endpoints that are eligible (annotation `portolan.dev/balance`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Balance {
    /// Each new flow by itself, at random.
    #[default]
    Random,
    /// One after the other, counted for the Service port on this node.
    RoundRobin,
    /// By the client's address: the same client finds the same endpoint, on every node.
    SourceHash,
    /// By the client's address and port: the same flow finds the same endpoint, on every node.
    Maglev,
}

impl Balance {
    /// All of them.
    pub const ALL: [Balance; 4] = [
        Balance::Random,
        Balance::RoundRobin,
        Balance::SourceHash,
        Balance::Maglev,
    ];

    /// As it is written in the annotation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Balance::Random => "random",
            Balance::RoundRobin => "round-robin",
            Balance::SourceHash => "source-hash",
            Balance::Maglev => "maglev",
        }
    }

    /// The bytes of a client that decide, as they lie in the kernel's registers; `None` when the client does not.
    pub fn key(self, client: SocketAddr) -> Option<Vec<u8>> {
        let mut key = match client.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        match self {
            Balance::Random | Balance::RoundRobin => return None,
            Balance::SourceHash => {}
            Balance::Maglev => {
                let [high, low] = client.port().to_be_bytes();
                key.extend([high, low, 0, 0]);
            }
        }
        Some(key)
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Balance {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let named = |balance: &Balance| balance.as_str() == text;
        Balance::ALL.into_iter().find(named).ok_or(())
    }
}

/// The weight of an endpoint for which nothing is said.
pub const WEIGHT_DEFAULT: u16 = 1;

/// The largest weight that can be given: with it, forty endpoints with any weights fit into [`SLOTS_MAX`] exactly.
pub const WEIGHT_MAX: u16 = 100;

/// The most slots that weights are spread over when the choice is random or in turn. Weights that need more are rounded;
/// with more endpoints than this they all weigh the same.
pub const SLOTS_MAX: usize = 4096;

/// The most endpoints that one list can have: their numbers have 16 bits, and it is the largest table for hashes.
pub const ENDPOINTS_MAX: usize = 65_521;

/// Sizes of the tables for hashes, which must be primes. A larger one is taken when an endpoint would have fewer than
/// [`SLOTS_PER_ENDPOINT`] slots: more cost memory in the kernel, fewer make shares uneven.
pub const TABLE_SIZES: [usize; 5] = [251, 1021, 4093, 16_381, ENDPOINTS_MAX];

/// With this many slots for an endpoint, shares differ by at most 4 %.
pub const SLOTS_PER_ENDPOINT: usize = 25;

/// Seeds of the hash of clients, and of the two hashes of an endpoint. Any numbers would do, but every node, also of
/// another version, must have the same.
pub const CLIENT_SEED: u32 = 0x706f_7274;
const OFFSET_SEED: u32 = 0x6f6c_616e;
const SKIP_SEED: u32 = 0x736b_6970;

/// Endpoints to choose from: never empty inside an [`crate::Action::Balance`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Choices {
    /// Sorted, each once.
    pub addresses: Arc<[SocketAddr]>,
    /// One weight for each, none of them 0; `None` when all weigh the same.
    pub weights: Option<Arc<[u16]>>,
}

impl Choices {
    /// Of these endpoints and weights those that get new flows, sorted: an endpoint of weight 0 only if all have it.
    pub fn of(endpoints: impl IntoIterator<Item = (SocketAddr, u16)>) -> Self {
        let mut all: Vec<(SocketAddr, u16)> = endpoints.into_iter().collect();
        all.sort_unstable();
        all.dedup_by_key(|(address, _)| *address);
        if all.iter().any(|(_, weight)| *weight > 0) {
            all.retain(|(_, weight)| *weight > 0);
        }
        let first = all.first().map(|(_, weight)| *weight);
        let equal = all.iter().all(|(_, weight)| Some(*weight) == first);
        Choices {
            addresses: all.iter().map(|(address, _)| *address).collect(),
            weights: (!equal).then(|| all.iter().map(|(_, weight)| *weight).collect()),
        }
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Which endpoint each slot belongs to, as an index into `addresses`; every endpoint has at least one slot.
    /// `None` when slot i is endpoint i.
    pub fn slots(&self, balance: Balance) -> Option<Vec<u16>> {
        let addresses = self.addresses.get(..ENDPOINTS_MAX);
        let addresses = addresses.unwrap_or(&self.addresses);
        match balance {
            Balance::Random | Balance::RoundRobin => self.weights.as_deref().and_then(turns),
            Balance::SourceHash | Balance::Maglev if addresses.len() < 2 => None,
            Balance::SourceHash | Balance::Maglev => Some(maglev(
                addresses,
                self.weights.as_deref(),
                table_size(addresses.len()),
            )),
        }
    }

    /// How many slots each endpoint has that may get a flow of `client`: for hashes, exactly one endpoint has one.
    pub fn shares(&self, balance: Balance, client: SocketAddr) -> Vec<(SocketAddr, u32)> {
        let slots = self.slots(balance);
        let endpoint = |slot: usize| match &slots {
            Some(slots) => self.addresses[usize::from(slots[slot])],
            None => self.addresses[slot],
        };
        let count = slots.as_ref().map_or(self.addresses.len(), Vec::len);
        if count == 0 {
            return Vec::new();
        }
        if let Some(key) = balance.key(client) {
            let slot = scale(jhash(&key, CLIENT_SEED), count as u32);
            return vec![(endpoint(slot as usize), 1)];
        }
        let mut all: Vec<SocketAddr> = (0..count).map(endpoint).collect();
        all.sort_unstable();
        let runs = all.chunk_by(|a, b| a == b);
        runs.map(|run| (run[0], run.len() as u32)).collect()
    }
}

/// The size of the table for hashes over so many endpoints.
pub fn table_size(endpoints: usize) -> usize {
    let enough = |size: &usize| *size >= endpoints * SLOTS_PER_ENDPOINT;
    let found = TABLE_SIZES.into_iter().find(enough);
    found.unwrap_or(ENDPOINTS_MAX)
}

/// As many slots for each endpoint as its weight asks for, the slots of each spread evenly over the whole.
/// `None` when there is no room for differences.
fn turns(weights: &[u16]) -> Option<Vec<u16>> {
    let room = SLOTS_MAX.checked_sub(weights.len())? as u64;
    let mut counts: Vec<u64> = weights.iter().map(|weight| u64::from(*weight)).collect();
    let common = counts.iter().copied().fold(0, gcd).max(1);
    counts.iter_mut().for_each(|count| *count /= common);
    let sum: u64 = counts.iter().sum();
    if sum > SLOTS_MAX as u64 {
        let scaled = |count: &mut u64| *count = (*count * room / sum).max(1);
        counts.iter_mut().for_each(scaled);
    }
    // The k-th of n turns is due at (k + 1/2) / n of the way round.
    let mut due: Vec<(u64, u64, u16)> = Vec::new();
    for (index, count) in counts.iter().enumerate() {
        due.extend((0..*count).map(|turn| (2 * turn + 1, *count, index as u16)));
    }
    due.sort_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)).then(a.2.cmp(&b.2)));
    Some(due.into_iter().map(|(_, _, index)| index).collect())
}

fn gcd(a: u64, b: u64) -> u64 {
    match b {
        0 => a,
        _ => gcd(b, a % b),
    }
}

/// Maglev's table (Eisenbud and others, NSDI 2016, section 3.4): every endpoint has its own order of the slots, and in
/// turn each takes the first one in its order that is still free. A heavier endpoint gets its turn more often.
/// When an endpoint goes, its slots and few others change hands.
fn maglev(addresses: &[SocketAddr], weights: Option<&[u16]>, size: usize) -> Vec<u16> {
    const FREE: u16 = u16::MAX;
    let weight = |index: usize| weights.map_or(1, |weights| u64::from(weights[index]));
    let heaviest = (0..addresses.len()).map(weight).max().unwrap_or(1);
    let mut orders: Vec<Order> = addresses
        .iter()
        .map(|address| Order::of(*address, size))
        .collect();
    // In the first round everybody gets a turn, so that everybody has a slot.
    let mut credits: Vec<u64> = (0..addresses.len()).map(|i| heaviest - weight(i)).collect();
    let mut table = vec![FREE; size];
    let mut free = size;
    loop {
        for index in 0..addresses.len() {
            credits[index] += weight(index);
            if credits[index] < heaviest {
                continue;
            }
            credits[index] -= heaviest;
            let order = &mut orders[index];
            while table[order.next] != FREE {
                order.step(size);
            }
            table[order.next] = index as u16;
            free -= 1;
            if free == 0 {
                return table;
            }
        }
    }
}

/// One endpoint's order of the slots: since the size is a prime, steps of one length reach all of them.
struct Order {
    next: usize,
    skip: usize,
}

impl Order {
    fn of(address: SocketAddr, size: usize) -> Self {
        let mut key = match address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        key.extend(address.port().to_be_bytes());
        Order {
            next: jhash(&key, OFFSET_SEED) as usize % size,
            skip: jhash(&key, SKIP_SEED) as usize % (size - 1) + 1,
        }
    }

    fn step(&mut self, size: usize) {
        self.next = (self.next + self.skip) % size;
    }
}

#[cfg(test)]
mod tests;
