//! Headless Services of which one endpoint is replaced again and again, by an address that never was there before: an
//! answer shows which change it knows, and so how old it is.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portolan_testkit::dns::message;
use serde_json::{Value, json};

/// Endpoints of each Service; the last ones never change.
pub const ENDPOINTS: u32 = 10;
/// Changes of a Service that are remembered: at one in a second, far more than an answer may be old.
const HISTORY_MAX: usize = 16;
/// Where the addresses of changes begin, and those of other endpoints.
const CHANGED: u32 = 0x0a80_0001;
const CONSTANT: u32 = 0x0a10_0000;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// A change of a Service.
#[derive(Clone, Copy, Debug)]
struct Change {
    round: u32,
    /// When the API said that it is written.
    acknowledged: Option<Instant>,
    /// When another watch than the answerer's heard of it.
    heard: Option<Instant>,
}

/// What an answer is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Worth {
    /// It knows everything that was written before it was asked for: up to this change.
    Right(u32),
    /// It knows this change, but not one that had been written for so long when it was asked for.
    Stale(u32, Duration),
    /// It is none, or has endpoints too many or too few.
    Wrong(String),
}

/// The Services.
pub struct Fleet(Vec<Mutex<VecDeque<Change>>>);

impl Fleet {
    /// So many, each with its first change, round 0 and up.
    pub fn new(services: u32) -> Fleet {
        let service = |round| {
            let at = Some(Instant::now());
            let first = Change {
                round,
                acknowledged: at,
                heard: at,
            };
            Mutex::new(VecDeque::from([first]))
        };
        Fleet((0..services).map(service).collect())
    }

    /// How many there are; changes are numbered from here.
    pub fn len(&self) -> u32 {
        self.0.len() as u32
    }

    /// Everything for the API.
    pub fn objects(&self) -> impl Iterator<Item = (String, Value)> {
        (0..self.len()).flat_map(|service| {
            [
                (SERVICES.to_owned(), object(service)),
                (SLICES.to_owned(), slice(service)),
            ]
        })
    }

    fn of(&self, service: u32) -> MutexGuard<'_, VecDeque<Change>> {
        self.0[service as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A change is about to be written: what to send where.
    pub fn begin(&self, service: u32, round: u32) -> (String, Value) {
        let mut history = self.of(service);
        if history.len() == HISTORY_MAX {
            history.pop_front();
        }
        history.push_back(Change {
            round,
            acknowledged: None,
            heard: None,
        });
        (
            format!("{SLICES}/{}", name(service)),
            json!({"endpoints": endpoints(service, round)}),
        )
    }

    /// It is written.
    pub fn acknowledge(&self, service: u32, round: u32, at: Instant) {
        for change in self
            .of(service)
            .iter_mut()
            .filter(|change| change.round == round)
        {
            change.acknowledged = Some(at);
        }
    }

    /// A watch says that a Service (by its slice's name) has an endpoint with this address.
    pub fn hear(&self, slice: &str, address: Ipv4Addr, at: Instant) {
        let number = slice
            .strip_prefix('c')
            .and_then(|number| number.parse::<u32>().ok());
        let (Some(service), Some(round)) = (number, round_of(address)) else {
            return;
        };
        if service >= self.len() {
            return;
        }
        for change in self
            .of(service)
            .iter_mut()
            .filter(|change| change.round == round)
        {
            change.heard.get_or_insert(at);
        }
    }

    /// When another watch heard of a change.
    pub fn heard(&self, service: u32, round: u32) -> Option<Instant> {
        let history = self.of(service);
        history.iter().find(|change| change.round == round)?.heard
    }

    /// What an answer is worth that was asked for at that time.
    pub fn judge(&self, service: u32, asked: Instant, answer: &[u8]) -> Worth {
        let round = match round_in(service, answer) {
            Ok(round) => round,
            Err(wrong) => return Worth::Wrong(wrong),
        };
        let history = self.of(service);
        let missed = history.iter().find(|change| change.round > round);
        let since = missed.and_then(|change| asked.checked_duration_since(change.acknowledged?));
        match since {
            Some(since) if !since.is_zero() => Worth::Stale(round, since),
            _ => Worth::Right(round),
        }
    }
}

/// The change that an answer knows.
fn round_in(service: u32, answer: &[u8]) -> Result<u32, String> {
    let message = message::read(answer);
    let addresses = message.sections[0]
        .iter()
        .filter_map(|record| record.data.parse().ok());
    let addresses: Vec<Ipv4Addr> = addresses.collect();
    let constant = (1..ENDPOINTS).filter(|slot| addresses.contains(&constant(service, *slot)));
    let rounds: Vec<u32> = addresses
        .iter()
        .filter_map(|address| round_of(*address))
        .collect();
    match rounds[..] {
        [round]
            if message.rcode == 0
                && constant.count() + 1 == addresses.len()
                && addresses.len() == ENDPOINTS as usize =>
        {
            Ok(round)
        }
        _ => Err(format!(
            "{}: {} {addresses:?}",
            name(service),
            message::rcode_name(message.rcode)
        )),
    }
}

fn round_of(address: Ipv4Addr) -> Option<u32> {
    u32::from(address).checked_sub(CHANGED)
}

fn constant(service: u32, slot: u32) -> Ipv4Addr {
    Ipv4Addr::from(CONSTANT + service * ENDPOINTS + slot)
}

fn name(service: u32) -> String {
    format!("c{service:05}")
}

/// The query for a Service's addresses; its first two bytes are its number.
pub fn query(service: u32) -> Vec<u8> {
    message::query(
        &format!("{}.default.svc.cluster.local", name(service)),
        1,
        None,
    )
}

fn object(service: u32) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name(service), "namespace": "default"},
        "spec": {"clusterIP": "None", "ports": [{"name": "http", "protocol": "TCP", "port": 80}]},
    })
}

fn slice(service: u32) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name(service),
            "namespace": "default",
            "labels": {
                "endpointslice.kubernetes.io/managed-by": "names.portolan.dev",
                "kubernetes.io/service-name": name(service),
            },
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
        "endpoints": endpoints(service, service),
    })
}

fn endpoints(service: u32, round: u32) -> Vec<Value> {
    let endpoint = |slot: u32| {
        let address = match slot {
            0 => Ipv4Addr::from(CHANGED + round),
            slot => constant(service, slot),
        };
        json!({"addresses": [address.to_string()], "conditions": {"ready": true}})
    };
    (0..ENDPOINTS).map(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer as an answerer that knows `round` gives it.
    fn answer(service: u32, round: u32) -> Vec<u8> {
        let mut bytes = query(service);
        bytes[2] |= 0x84;
        bytes[7] = ENDPOINTS as u8;
        for endpoint in endpoints(service, round) {
            let address: Ipv4Addr = endpoint["addresses"][0].as_str().unwrap().parse().unwrap();
            bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4]);
            bytes.extend(address.octets());
        }
        bytes
    }

    #[test]
    fn an_answer_is_as_old_as_the_change_that_it_does_not_know() {
        let fleet = Fleet::new(2);
        let second = Duration::from_secs(1);
        let written = Instant::now();
        assert_eq!(fleet.judge(1, written, &answer(1, 1)), Worth::Right(1));
        fleet.begin(1, 7);
        // Not acknowledged: both the old and the new one are right.
        assert_eq!(fleet.judge(1, written, &answer(1, 1)), Worth::Right(1));
        assert_eq!(fleet.judge(1, written, &answer(1, 7)), Worth::Right(7));
        fleet.acknowledge(1, 7, written);
        assert_eq!(fleet.judge(1, written, &answer(1, 1)), Worth::Right(1));
        assert_eq!(
            fleet.judge(1, written + second, &answer(1, 1)),
            Worth::Stale(1, second)
        );
        fleet.begin(1, 9);
        fleet.acknowledge(1, 9, written + second);
        assert_eq!(
            fleet.judge(1, written + second * 2, &answer(1, 1)),
            Worth::Stale(1, second * 2)
        );
        assert_eq!(
            fleet.judge(1, written + second * 2, &answer(1, 7)),
            Worth::Stale(7, second)
        );
    }

    #[test]
    fn what_is_no_whole_answer_is_wrong() {
        let fleet = Fleet::new(2);
        let is_wrong =
            |answer: &[u8]| matches!(fleet.judge(0, Instant::now(), answer), Worth::Wrong(_));
        assert!(!is_wrong(&answer(0, 0)));
        assert!(is_wrong(&answer(1, 1)), "another Service's endpoints");
        let mut none = query(0);
        none[2] |= 0x80;
        none[3] |= 3;
        assert!(is_wrong(&none));
    }

    #[test]
    fn a_watch_tells_of_changes() {
        let fleet = Fleet::new(2);
        fleet.begin(1, 7);
        assert_eq!(fleet.heard(1, 7), None);
        let at = Instant::now();
        fleet.hear("c00001", Ipv4Addr::from(CHANGED + 7), at);
        fleet.hear("kubernetes", Ipv4Addr::from(CHANGED + 7), at);
        fleet.hear("c99999", Ipv4Addr::from(CHANGED + 7), at);
        assert_eq!(fleet.heard(1, 7), Some(at));
    }
}
