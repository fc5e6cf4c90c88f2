//! Who may ask, how often, and how much: addresses, rates, sizes.

use std::time::Duration;

use ipnet::IpNet;

use super::{Reader, Settings};
use crate::policy::{Limits, Rate};
use crate::problem::ObjectName;

/// The limit that ingress-nginx has for bodies unless it is told otherwise.
const NGINX_BODY_BYTES: u64 = 1 << 20;

/// How many times the rate may come at once, unless it is told otherwise.
const BURST: u32 = 5;

pub(super) fn read(reader: &mut Reader<'_>, settings: &mut Settings, of: &ObjectName) {
    let policy = &mut settings.policy;
    for name in ["whitelist-source-range", "allowlist-source-range"] {
        policy.sources.allowed.extend(ranges(reader, name));
    }
    policy.sources.denied = ranges(reader, "denylist-source-range");
    policy.satisfy_any = match reader.text("satisfy") {
        None | Some("all") => false,
        Some("any") => true,
        Some(_) => {
            reader.wrong(
                "satisfy",
                "It must be \"all\" or \"any\"; \"all\" is taken.",
            );
            false
        }
    };
    let default = reader.is_compatible.then_some(NGINX_BODY_BYTES);
    policy.body_max = reader
        .size("proxy-body-size")
        .or(default)
        .filter(|max| *max > 0);
    policy.limits = limits(reader, of);
}

/// A list that is not right must not let in whom it was meant to keep out.
fn ranges(reader: &mut Reader<'_>, name: &str) -> Vec<IpNet> {
    match reader.ranges(name) {
        None => Vec::new(),
        Some(Ok(ranges)) => ranges,
        Some(Err(item)) => {
            reader.unsafe_to_serve(
                name,
                &format!("{item:?} is neither an address nor a range such as 203.0.113.0/24."),
            );
            Vec::new()
        }
    }
}

fn limits(reader: &mut Reader<'_>, of: &ObjectName) -> Limits {
    let burst = reader
        .number::<u32>("limit-burst-multiplier", "a whole number")
        .unwrap_or(BURST)
        .max(1);
    let mut rates = Vec::new();
    for (name, seconds) in [("limit-rps", 1), ("limit-rpm", 60)] {
        let requests = reader
            .number::<u32>(name, "a whole number")
            .filter(|number| *number > 0);
        rates.extend(requests.map(|requests| Rate {
            requests,
            period: Duration::from_secs(seconds),
            burst: requests.saturating_mul(burst),
        }));
    }
    let mut exempt = Vec::new();
    for name in ["limit-whitelist", "limit-allowlist"] {
        match reader.ranges(name) {
            Some(Ok(ranges)) => exempt.extend(ranges),
            Some(Err(item)) => {
                let words = format!(
                    "{item:?} is neither an address nor a range; the list is left out, and all clients are limited."
                );
                reader.wrong(name, &words);
            }
            None => {}
        }
    }
    let mut status = |name| {
        let status = reader.number::<u16>(name, "a status from 400 to 599");
        status
            .filter(|status| (400..600).contains(status))
            .unwrap_or(503)
    };
    let mut limits = Limits {
        rates,
        exempt,
        zone: ObjectName::default(),
        statuses: (
            status("limit-req-status-code"),
            status("limit-conn-status-code"),
        ),
        at_once: reader
            .number::<u32>("limit-connections", "a whole number")
            .filter(|number| *number > 0),
    };
    // Without limits, the policies of all Ingresses may be alike, and are kept once then.
    if !limits.is_empty() {
        limits.zone = of.clone();
    }
    limits
}
