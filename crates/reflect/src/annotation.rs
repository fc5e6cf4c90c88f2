//! The annotations with which people ask for what the Kubernetes API has no fields for; docs/operating.md lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;

use portolan_k8s::ObjectMeta;
use portolan_model::balance::WEIGHT_MAX;
use portolan_model::slow_start::SECONDS;
use portolan_model::{Balance, Scheduler};

use crate::address::{parse_cidr, parse_ip};

/// On a Service: how it chooses among its endpoints.
pub(crate) const BALANCE: &str = "portolan.dev/balance";

/// On a Service: the kernel's way to choose, in ipvs mode.
pub(crate) const SCHEDULER: &str = "portolan.dev/ipvs-scheduler";

/// On a Service: how long a new endpoint takes to get its full share.
pub(crate) const SLOW_START: &str = "portolan.dev/slow-start";

/// On a Service: whether its endpoints leave rotation when they do not answer.
pub(crate) const HEALTH: &str = "portolan.dev/health";

/// On a Service: that a process of each node answers at its addresses, and at which others besides.
pub(crate) const NODE_LOCAL: &str = "portolan.dev/node-local";

/// The addresses that [`NODE_LOCAL`] may name: whoever may write Services must not get hold of any other address, such as
/// that of a cloud's metadata.
const NODE_LOCAL_RANGES: [&str; 2] = ["169.254.20.0/24", "fd00:169:254:20::/64"];

/// On an EndpointSlice: how much its endpoints weigh.
pub(crate) const WEIGHTS: &str = "portolan.dev/weights";

/// The most wrong entries of one annotation that a Problem quotes; the others are counted.
const QUOTED_MAX: usize = 3;

fn text<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(name).map(|s| s.trim())
}

/// How the Service balances; what is wrong with the annotation, as a whole sentence.
pub(crate) fn balance(metadata: &ObjectMeta) -> Result<Balance, String> {
    let Some(text) = text(metadata, BALANCE) else {
        return Ok(Balance::Random);
    };
    text.parse().map_err(|()| {
        let known = Balance::ALL.map(Balance::as_str).join(", ");
        format!("annotation {BALANCE}: {text:?} is none of {known}; random is used.")
    })
}

/// The scheduler of IPVS that the Service asks for; what is wrong with the annotation, as a whole sentence.
pub(crate) fn scheduler(metadata: &ObjectMeta) -> Result<Option<Scheduler>, String> {
    let Some(text) = text(metadata, SCHEDULER) else {
        return Ok(None);
    };
    let wrong = |words| format!("annotation {SCHEDULER}: {words}; it is left out.");
    text.parse().map(Some).map_err(wrong)
}

/// Whether the Service's connections are watched; what is wrong with the annotation, as a whole sentence.
pub(crate) fn is_watched(metadata: &ObjectMeta) -> Result<bool, String> {
    match text(metadata, HEALTH) {
        None | Some("on") => Ok(true),
        Some("off") => Ok(false),
        Some(other) => Err(format!(
            "annotation {HEALTH}: {other:?} is neither on nor off; it is on."
        )),
    }
}

/// Whether a process of the node may answer for the Service, the addresses at which it answers besides its ClusterIPs, and
/// what is wrong with the annotation, as a whole sentence.
pub(crate) fn node_local(metadata: &ObjectMeta) -> (bool, Vec<IpAddr>, Option<String>) {
    let text = match text(metadata, NODE_LOCAL) {
        None | Some("off") => return (false, Vec::new(), None),
        Some("on") => return (true, Vec::new(), None),
        Some(text) => text,
    };
    let ranges = NODE_LOCAL_RANGES.map(parse_cidr);
    let is_free = |ip: &IpAddr| ranges.iter().flatten().any(|range| range.contains(ip));
    let mut all = Vec::new();
    let mut wrong = Vec::new();
    for entry in text.split(',').map(str::trim) {
        match parse_ip(entry).filter(is_free) {
            Some(ip) if !all.contains(&ip) => all.push(ip),
            Some(_) => {}
            None => wrong.push(entry),
        }
    }
    let problem = (!wrong.is_empty()).then(|| {
        format!(
            "annotation {NODE_LOCAL}: {} is neither on nor off nor an address in {}; it is left out.",
            quoted(&wrong),
            NODE_LOCAL_RANGES.join(" or ")
        )
    });
    (!all.is_empty(), all, problem)
}

/// The seconds in which a new endpoint gets its full share; what is wrong with the annotation, as a whole sentence.
pub(crate) fn slow_start(metadata: &ObjectMeta) -> Result<Option<NonZeroU16>, String> {
    let Some(text) = text(metadata, SLOW_START) else {
        return Ok(None);
    };
    let (number, unit) = match text.strip_suffix('m') {
        Some(number) => (number, 60),
        None => (text.strip_suffix('s').unwrap_or_default(), 1),
    };
    let seconds = number.parse().ok().and_then(|n: u16| n.checked_mul(unit));
    match seconds.filter(|seconds| SECONDS.contains(seconds)) {
        Some(seconds) => Ok(NonZeroU16::new(seconds)),
        None => Err(format!(
            "annotation {SLOW_START}: {text:?} is no time from 1s to 60m such as 30s or 5m; there is no slow start."
        )),
    }
}

/// The weights of a slice's endpoints by address, and what is wrong with the annotation, as a whole sentence:
/// `ADDRESS=WEIGHT`, separated by commas. What cannot be read is left out, the rest counts.
pub(crate) fn weights(metadata: &ObjectMeta) -> (BTreeMap<IpAddr, u16>, Option<String>) {
    let mut all = BTreeMap::new();
    let mut wrong: Vec<&str> = Vec::new();
    let entries = text(metadata, WEIGHTS).unwrap_or_default();
    for entry in entries.split(',').map(str::trim).filter(|e| !e.is_empty()) {
        match weight(entry) {
            Some((ip, weight)) if !all.contains_key(&ip) => drop(all.insert(ip, weight)),
            _ => wrong.push(entry),
        }
    }
    let problem = (!wrong.is_empty()).then(|| {
        format!(
            "annotation {WEIGHTS}: {} is not ADDRESS=WEIGHT with an address that is named once and a weight from 0 to \
             {WEIGHT_MAX}; it is left out.",
            quoted(&wrong)
        )
    });
    (all, problem)
}

/// What a Problem says of weights for addresses that the slice does not have.
pub(crate) fn strangers(
    weights: &BTreeMap<IpAddr, u16>,
    known: &BTreeSet<IpAddr>,
) -> Option<String> {
    let strange = weights.keys().filter(|ip| !known.contains(ip));
    let strange: Vec<String> = strange.map(IpAddr::to_string).collect();
    let strange: Vec<&str> = strange.iter().map(String::as_str).collect();
    (!strange.is_empty()).then(|| {
        format!(
            "annotation {WEIGHTS}: {} is no endpoint of this slice.",
            quoted(&strange)
        )
    })
}

fn weight(entry: &str) -> Option<(IpAddr, u16)> {
    let (address, weight) = entry.split_once('=')?;
    let weight: u16 = weight.trim().parse().ok()?;
    (weight <= WEIGHT_MAX).then_some((parse_ip(address)?, weight))
}

fn quoted(all: &[&str]) -> String {
    let some: Vec<String> = all
        .iter()
        .take(QUOTED_MAX)
        .map(|e| format!("{e:?}"))
        .collect();
    match all.len().saturating_sub(QUOTED_MAX) {
        0 => some.join(", "),
        more => format!("{} (and {more} more)", some.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> ObjectMeta {
        ObjectMeta {
            annotations: Some([(name.to_owned(), value.to_owned())].into()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_scheduler_has_the_kernels_name() {
        assert_eq!(scheduler(&ObjectMeta::default()), Ok(None));
        let sed = Ok(Some(Scheduler::ShortestDelay));
        assert_eq!(scheduler(&with(SCHEDULER, " sed ")), sed);
        let wrong = scheduler(&with(SCHEDULER, "fastest")).unwrap_err();
        assert!(wrong.contains("\"fastest\" is none of rr, wrr"), "{wrong}");
    }

    #[test]
    fn a_way_to_balance_has_a_name() {
        assert_eq!(balance(&ObjectMeta::default()), Ok(Balance::Random));
        assert_eq!(balance(&with(BALANCE, " maglev ")), Ok(Balance::Maglev));
        let wrong = balance(&with(BALANCE, "least-conn")).unwrap_err();
        assert!(
            wrong.contains("\"least-conn\" is none of random, round-robin, source-hash, maglev")
        );
    }

    #[test]
    fn health_is_on_or_off() {
        let read = |value: &str| is_watched(&with(HEALTH, value));
        assert_eq!(is_watched(&ObjectMeta::default()), Ok(true));
        assert_eq!((read("on"), read(" off ")), (Ok(true), Ok(false)));
        let problem = read("false").unwrap_err();
        assert!(problem.contains("\"false\" is neither"), "{problem}");
    }

    #[test]
    fn node_local_addresses_are_of_two_ranges() {
        let read = |value: &str| node_local(&with(NODE_LOCAL, value));
        assert_eq!(node_local(&ObjectMeta::default()), (false, vec![], None));
        assert_eq!(read("off"), (false, vec![], None));
        assert_eq!(read(" on "), (true, vec![], None));
        let two: Vec<IpAddr> = ["169.254.20.10", "fd00:169:254:20::10"]
            .map(|ip| ip.parse().unwrap())
            .into();
        assert_eq!(
            read("169.254.20.10, fd00:169:254:20::10,169.254.20.10"),
            (true, two.clone(), None)
        );
        // The address of clouds' metadata, and somebody else's.
        let (is_local, all, problem) = read("169.254.20.10,169.254.169.254,203.0.113.9,x");
        assert!(is_local && all == two[..1]);
        let problem = problem.unwrap();
        assert!(
            problem.contains("\"169.254.169.254\", \"203.0.113.9\", \"x\" is neither"),
            "{problem}"
        );
        assert!(!read("yes").0 && read("yes").2.is_some());
    }

    #[test]
    fn a_slow_start_is_a_time() {
        let read = |value: &str| slow_start(&with(SLOW_START, value));
        let seconds = |n| Ok(NonZeroU16::new(n));
        assert_eq!(slow_start(&ObjectMeta::default()), Ok(None));
        assert_eq!(read("1s"), seconds(1));
        assert_eq!(read(" 90s "), seconds(90));
        assert_eq!(read("3600s"), seconds(3600));
        assert_eq!(read("60m"), seconds(3600));
        for wrong in [
            "", "30", "0s", "-1s", "3601s", "61m", "1h", "s", "1093m", "1.5s",
        ] {
            let problem = read(wrong).unwrap_err();
            assert!(problem.contains("is no time from 1s to 60m"), "{problem}");
        }
    }

    #[test]
    fn weights_are_read_one_by_one() {
        let read = |value: &str| weights(&with(WEIGHTS, value));
        let (all, problem) = read("10.1.0.10=3, 10.1.0.11 = 0,fd00:10:1::10=100,");
        let all: Vec<String> = all.iter().map(|(ip, w)| format!("{ip}={w}")).collect();
        assert_eq!(all, ["10.1.0.10=3", "10.1.0.11=0", "fd00:10:1::10=100"]);
        assert_eq!(problem, None);
        let (all, problem) =
            read("10.1.0.10=2,10.1.0.10=3,x=1,10.1.0.11,10.1.0.12=101,10.1.0.13=-1");
        assert_eq!(all.len(), 1);
        let problem = problem.unwrap();
        assert!(
            problem.contains("\"10.1.0.10=3\", \"x=1\", \"10.1.0.11\" (and 2 more)"),
            "{problem}"
        );
        assert_eq!(weights(&ObjectMeta::default()), (BTreeMap::new(), None));
    }
}
