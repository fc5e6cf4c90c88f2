//! All that is counted, under CoreDNS' names where the meaning is the same.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use portolan_dns::chain::Chain;
use portolan_dns::metrics::{Tally, buckets, family, line, write_tallies};
use portolan_dns::upstream::BUCKETS_US;
use portolan_model::names::{Backs, Change, Owner, ServiceKind};
use sha2::{Digest, Sha512};

use super::serve::{Now, State};

/// Upper bounds of the buckets of programming times in seconds: 1 ms doubled, as in CoreDNS.
const PROGRAMMING_BUCKETS: usize = 20;

/// Panics of this process.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Counts panics from now on; they are told as before.
pub(super) fn count_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(panic);
    }));
}

/// What a slice belongs to, as CoreDNS tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceClass {
    ClusterIp,
    HeadlessWithSelector,
    HeadlessWithoutSelector,
}

const CLASSES: [(ServiceClass, &str); 3] = [
    (ServiceClass::ClusterIp, "cluster_ip"),
    (ServiceClass::HeadlessWithSelector, "headless_with_selector"),
    (
        ServiceClass::HeadlessWithoutSelector,
        "headless_without_selector",
    ),
];

/// How long it takes from a change in the cluster until names say it.
pub(super) struct Programming {
    counts: [[AtomicU64; PROGRAMMING_BUCKETS + 1]; CLASSES.len()],
    sums_ms: [AtomicU64; CLASSES.len()],
    /// Services without virtual addresses; all others are the rule.
    headless: Mutex<std::collections::HashMap<Owner, ServiceClass>>,
    started_ms: u64,
}

impl Default for Programming {
    fn default() -> Self {
        Programming {
            counts: Default::default(),
            sums_ms: Default::default(),
            headless: Mutex::default(),
            started_ms: now_ms(),
        }
    }
}

impl Programming {
    /// What a change tells about time: whose it is, and when it was made. What is older than this process was not slow,
    /// but before.
    pub(super) fn triggered(&self, change: &Change) -> Option<(ServiceClass, u64)> {
        let mut headless = self.headless.lock().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Service(service) if service.kind == ServiceKind::Headless => {
                let class = match service.selects {
                    true => ServiceClass::HeadlessWithSelector,
                    false => ServiceClass::HeadlessWithoutSelector,
                };
                headless.insert(service.owner.clone(), class);
                None
            }
            Change::Service(service) => {
                headless.remove(&service.owner);
                None
            }
            Change::ServiceGone(owner) => {
                headless.remove(owner);
                None
            }
            Change::Slice(slice) => {
                let Backs::Service(owner) = &slice.backs else {
                    return None;
                };
                let class = headless
                    .get(owner)
                    .copied()
                    .unwrap_or(ServiceClass::ClusterIp);
                let at_ms = slice.changed_ms.filter(|at_ms| *at_ms >= self.started_ms)?;
                Some((class, at_ms))
            }
            _ => None,
        }
    }

    /// Names say it now.
    pub(super) fn programmed(&self, class: ServiceClass, at_ms: u64) {
        let took_ms = now_ms().saturating_sub(at_ms);
        let place = CLASSES
            .iter()
            .position(|(known, _)| *known == class)
            .unwrap_or_default();
        let bucket = (0..PROGRAMMING_BUCKETS)
            .find(|bucket| took_ms <= 1 << bucket)
            .unwrap_or(PROGRAMMING_BUCKETS);
        self.counts[place][bucket].fetch_add(1, Ordering::Relaxed);
        self.sums_ms[place].fetch_add(took_ms, Ordering::Relaxed);
    }

    fn write(&self, out: &mut String) {
        let name = "coredns_kubernetes_dns_programming_duration_seconds";
        family(
            out,
            name,
            "histogram",
            "Histogram of the time (in seconds) it took to program a dns instance.",
        );
        let bounds: Vec<f64> = (0..PROGRAMMING_BUCKETS)
            .map(|bucket| f64::from(1_u32 << bucket) / 1e3)
            .collect();
        for (place, (_, label)) in CLASSES.iter().enumerate() {
            let counts: Vec<u64> = self.counts[place]
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .collect();
            let sum = self.sums_ms[place].load(Ordering::Relaxed) as f64 / 1e3;
            buckets(
                out,
                name,
                &format!("service_kind=\"{label}\""),
                &counts,
                &bounds,
                sum,
            );
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The whole page.
pub(super) fn text(tallies: &[&Tally], now: &Now, state: &State) -> String {
    let mut out = String::new();
    family(
        &mut out,
        "coredns_build_info",
        "gauge",
        "A metric with a constant '1' value labeled by version, revision, and goversion from which CoreDNS was built.",
    );
    let version = env!("CARGO_PKG_VERSION");
    line(
        &mut out,
        "coredns_build_info",
        &format!("version=\"portolan-{version}\",revision=\"\",goversion=\"\""),
        1,
    );
    write_tallies(tallies.iter().copied(), &mut out);
    write_caches(now, &mut out);
    write_servers(now, &mut out);
    write_limits(now, &mut out);
    write_plugins(now, &mut out);
    state.programming.write(&mut out);
    family(
        &mut out,
        "coredns_reload_failed_total",
        "counter",
        "Counter of the number of failed reload attempts.",
    );
    line(
        &mut out,
        "coredns_reload_failed_total",
        "",
        state.reloads_failed.load(Ordering::Relaxed),
    );
    family(
        &mut out,
        "coredns_reload_version_info",
        "gauge",
        "A metric with a constant '1' value labeled by hash, and value which type of hash generated.",
    );
    let hash: String = Sha512::digest(&now.text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    line(
        &mut out,
        "coredns_reload_version_info",
        &format!("hash=\"sha512\",value=\"{hash}\""),
        1,
    );
    family(
        &mut out,
        "coredns_hosts_entries",
        "gauge",
        "The combined number of entries in hosts and Corefile.",
    );
    let hosts: usize = now
        .chains
        .iter()
        .filter_map(|chain| chain.hosts.as_ref())
        .map(portolan_dns::chain::Hosts::len)
        .sum();
    line(&mut out, "coredns_hosts_entries", "", hosts);
    family(
        &mut out,
        "coredns_panics_total",
        "counter",
        "A metrics that counts the number of panics.",
    );
    line(
        &mut out,
        "coredns_panics_total",
        "",
        PANICS.load(Ordering::Relaxed),
    );
    out
}

/// A counter of something that is counted in `C`.
struct Counter<C> {
    name: &'static str,
    help: &'static str,
    of: fn(&C) -> &AtomicU64,
}

fn write_caches(now: &Now, out: &mut String) {
    let with = || {
        now.chains
            .iter()
            .filter_map(|chain| Some((labels(chain), chain.cache.as_ref()?)))
    };
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    family(
        out,
        "coredns_cache_entries",
        "gauge",
        "The number of elements in the cache.",
    );
    for (labels, cache) in with() {
        let (success, denial) = cache.len();
        line(
            out,
            "coredns_cache_entries",
            &format!("{labels},type=\"success\""),
            success,
        );
        line(
            out,
            "coredns_cache_entries",
            &format!("{labels},type=\"denial\""),
            denial,
        );
    }
    family(
        out,
        "coredns_cache_hits_total",
        "counter",
        "The count of cache hits.",
    );
    for (labels, cache) in with() {
        let counts = &cache.counts;
        line(
            out,
            "coredns_cache_hits_total",
            &format!("{labels},type=\"success\""),
            load(&counts.success_hits),
        );
        line(
            out,
            "coredns_cache_hits_total",
            &format!("{labels},type=\"denial\""),
            load(&counts.denial_hits),
        );
    }
    let counters: [Counter<portolan_dns::cache::Counts>; 6] = [
        Counter {
            name: "coredns_cache_requests_total",
            help: "The count of cache requests.",
            of: |counts| &counts.requests,
        },
        Counter {
            name: "coredns_cache_misses_total",
            help: "The count of cache misses.",
            of: |counts| &counts.misses,
        },
        Counter {
            name: "coredns_cache_prefetch_total",
            help: "The number of times the cache has prefetched a cached item.",
            of: |counts| &counts.prefetched,
        },
        Counter {
            name: "coredns_cache_served_stale_total",
            help: "The number of requests served from stale cache entries.",
            of: |counts| &counts.stale,
        },
        Counter {
            name: "coredns_cache_evictions_total",
            help: "The count of cache evictions.",
            of: |counts| &counts.evicted,
        },
        Counter {
            name: "coredns_cache_drops_total",
            help: "The number responses that are not cached, because the reply is malformed.",
            of: |counts| &counts.dropped,
        },
    ];
    for Counter { name, help, of } in counters {
        family(out, name, "counter", help);
        for (labels, cache) in with() {
            line(out, name, &labels, load(of(&cache.counts)));
        }
    }
    family(
        out,
        "portolan_dns_cache_bytes",
        "gauge",
        "Bytes of all messages in the cache.",
    );
    for (labels, cache) in with() {
        line(out, "portolan_dns_cache_bytes", &labels, cache.bytes());
    }
}

fn write_plugins(now: &Now, out: &mut String) {
    let name = "coredns_plugin_enabled";
    let help = "A metric that indicates whether a plugin is enabled on per server and zone basis.";
    family(out, name, "gauge", help);
    for chain in &now.chains {
        let (server, zone) = (&chain.server, &chain.zone);
        for plugin in chain.plugins.names() {
            let labels = format!("server=\"{server}\",zone=\"{zone}\",view=\"\",name=\"{plugin}\"");
            line(out, name, &labels, 1);
        }
    }
    let name = "coredns_autopath_success_total";
    family(
        out,
        name,
        "counter",
        "Counter of requests that did autopath.",
    );
    let searching = |chain: &&std::sync::Arc<Chain>| chain.plugins.autopath.is_some();
    for chain in now.chains.iter().filter(searching) {
        let labels = format!("server=\"{}\"", chain.server);
        line(out, name, &labels, chain.searched.load(Ordering::Relaxed));
    }
    let name = "coredns_hosts_reload_timestamp_seconds";
    family(
        out,
        name,
        "gauge",
        "The timestamp of the last reload of hosts file.",
    );
    let hosts = now.chains.iter().filter_map(|chain| chain.hosts.as_ref());
    let newest = hosts.filter_map(|hosts| hosts.written()).max();
    if let Some(since) = newest.and_then(|at| at.duration_since(UNIX_EPOCH).ok()) {
        line(out, name, "", since.as_secs_f64());
    }
}

fn write_limits(now: &Now, out: &mut String) {
    let name = "portolan_dns_rate_limited_total";
    let help = "Queries beyond the limit of rrl, by what became of them.";
    family(out, name, "counter", help);
    for chain in &now.chains {
        let Some(limit) = &chain.limit else { continue };
        for (action, count) in [("drop", &limit.dropped), ("slip", &limit.slipped)] {
            let labels = format!("{},action=\"{action}\"", labels(chain));
            line(out, name, &labels, count.load(Ordering::Relaxed));
        }
    }
}

fn labels(chain: &Chain) -> String {
    format!(
        "server=\"{}\",zones=\"{}\",view=\"\"",
        chain.server, chain.zone
    )
}

fn write_servers(now: &Now, out: &mut String) {
    let servers = || {
        let forwards = now.chains.iter().flat_map(|chain| &chain.forwards);
        forwards.flat_map(|forward| forward.servers())
    };
    let label = |server: &portolan_dns::upstream::Server| {
        format!("proxy_name=\"forward\",to=\"{}\"", server.label)
    };
    let name = "coredns_proxy_request_duration_seconds";
    family(
        out,
        name,
        "histogram",
        "Histogram of the time each request took.",
    );
    let bounds = BUCKETS_US.map(|bound| bound as f64 / 1e6);
    for server in servers() {
        let counts: Vec<u64> = server
            .counts
            .times
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        let sum = server.counts.time_us.load(Ordering::Relaxed) as f64 / 1e6;
        buckets(out, name, &label(server), &counts, &bounds, sum);
    }
    let counters: [Counter<portolan_dns::upstream::Counts>; 3] = [
        Counter {
            name: "coredns_proxy_healthcheck_failures_total",
            help: "Counter of the number of failed healthchecks.",
            of: |counts| &counts.checks_failed,
        },
        Counter {
            name: "coredns_proxy_conn_cache_hits_total",
            help: "Counter of connection cache hits per upstream and protocol.",
            of: |counts| &counts.reused,
        },
        Counter {
            name: "coredns_proxy_conn_cache_misses_total",
            help: "Counter of connection cache misses per upstream and protocol.",
            of: |counts| &counts.opened,
        },
    ];
    for Counter { name, help, of } in counters {
        family(out, name, "counter", help);
        for server in servers() {
            line(
                out,
                name,
                &label(server),
                of(&server.counts).load(Ordering::Relaxed),
            );
        }
    }
    let forwards = || now.chains.iter().flat_map(|chain| &chain.forwards);
    let sum = |of: fn(&portolan_dns::upstream::Forward) -> &AtomicU64| -> u64 {
        forwards()
            .map(|forward| of(forward).load(Ordering::Relaxed))
            .sum()
    };
    family(
        out,
        "coredns_forward_max_concurrent_rejects_total",
        "counter",
        "Counter of the number of queries rejected because the concurrent queries were at maximum.",
    );
    line(
        out,
        "coredns_forward_max_concurrent_rejects_total",
        "",
        sum(|forward| &forward.rejected),
    );
    family(
        out,
        "coredns_forward_healthcheck_broken_total",
        "counter",
        "Counter of the number of complete failures of the healthchecks.",
    );
    line(
        out,
        "coredns_forward_healthcheck_broken_total",
        "",
        sum(|forward| &forward.broken),
    );
}
