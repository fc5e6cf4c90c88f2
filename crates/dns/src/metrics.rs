//! What is counted about queries and answers, under CoreDNS' names, in the text form of Prometheus.
//!
//! Counting is a few additions in arrays: every label is a small number, and names are only made when somebody looks.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::chain::{By, transport_name};
use crate::corefile::types::{code_name, type_name};
use crate::server::{Client, Transport};
use crate::wire::{HEADER_BYTES, Query};

/// Types that have a count of their own, as in CoreDNS; all others are `other`.
const TYPES: [u16; 19] = [
    1, 2, 5, 6, 12, 15, 16, 28, 33, 35, 43, 46, 47, 48, 50, 52, 64, 65, 255,
];
/// Response codes that have a count of their own.
const CODES: usize = 24;
const TRANSPORTS: [Transport; 4] = [
    Transport::Udp,
    Transport::Tcp,
    Transport::Tls,
    Transport::Https,
];

/// Upper bounds of the buckets of times, in microseconds: CoreDNS' numbers.
const TIMES_US: [u64; 16] = [
    250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000,
    1_024_000, 2_048_000, 4_096_000, 8_192_000,
];
/// Upper bounds of the buckets of sizes, in bytes: CoreDNS' numbers.
const SIZES: [u64; 14] = [
    0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16_000, 32_000, 48_000, 64_000,
];

/// Counts of one zone at one place.
pub struct Tally {
    server: String,
    zone: String,
    /// By transport, family and type.
    requests: [[[AtomicU64; TYPES.len() + 1]; 2]; 4],
    with_do: AtomicU64,
    times: Histogram<{ TIMES_US.len() + 1 }>,
    request_sizes: [Histogram<{ SIZES.len() + 1 }>; 4],
    response_sizes: [Histogram<{ SIZES.len() + 1 }>; 4],
    /// By who answered, and code.
    responses: [[AtomicU64; CODES]; By::ALL.len()],
}

struct Histogram<const N: usize> {
    buckets: [AtomicU64; N],
    sum: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Histogram {
            buckets: [const { AtomicU64::new(0) }; N],
            sum: AtomicU64::new(0),
        }
    }
}

impl<const N: usize> Histogram<N> {
    fn add(&self, value: u64, bounds: &[u64]) {
        let bucket = bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    fn is_empty(&self) -> bool {
        self.buckets
            .iter()
            .all(|bucket| bucket.load(Ordering::Relaxed) == 0)
    }
}

impl Tally {
    /// `server` as CoreDNS names it (`dns://:53`), and a zone.
    pub fn new(server: &str, zone: &str) -> Self {
        Tally {
            server: server.to_string(),
            zone: zone.to_string(),
            requests: Default::default(),
            with_do: AtomicU64::new(0),
            times: Histogram::default(),
            request_sizes: Default::default(),
            response_sizes: Default::default(),
            responses: [const { [const { AtomicU64::new(0) }; CODES] }; By::ALL.len()],
        }
    }

    /// Counts a query and its answer.
    pub fn count(&self, query: &Query<'_>, client: &Client, by: By, answer: &[u8], took: Duration) {
        let transport = client.transport as usize;
        let family = usize::from(client.address.ip().to_canonical().is_ipv6());
        let kind = TYPES
            .iter()
            .position(|known| *known == query.rtype)
            .unwrap_or(TYPES.len());
        let one = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        one(&self.requests[transport][family][kind]);
        if query.edns.is_some_and(|edns| edns.dnssec_ok) {
            one(&self.with_do);
        }
        self.times.add(
            u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            &TIMES_US,
        );
        self.request_sizes[transport].add(request_bytes(query) as u64, &SIZES);
        self.response_sizes[transport].add(answer.len() as u64, &SIZES);
        let code = answer.get(3).map_or(0, |byte| usize::from(byte & 0xf));
        one(&self.responses[by as usize][code]);
    }
}

/// How long a query was; records other than OPT are not counted.
pub(crate) fn request_bytes(query: &Query<'_>) -> usize {
    HEADER_BYTES + query.name.len() + 4 + query.edns.map_or(0, |edns| 11 + edns.options.len())
}

/// Writes the metrics of several zones.
pub fn write_tallies<'t>(tallies: impl Iterator<Item = &'t Tally> + Clone, out: &mut String) {
    family(
        out,
        "coredns_dns_requests_total",
        "counter",
        "Counter of DNS requests made per zone, protocol and family.",
    );
    for tally in tallies.clone() {
        tally.write_requests(out);
    }
    family(
        out,
        "coredns_dns_do_requests_total",
        "counter",
        "Counter of DNS requests with DO bit set per zone.",
    );
    for tally in tallies.clone() {
        let labels = tally.labels();
        let count = tally.with_do.load(Ordering::Relaxed);
        line(out, "coredns_dns_do_requests_total", &labels, count);
    }
    family(
        out,
        "coredns_dns_request_duration_seconds",
        "histogram",
        "Histogram of the time each request took per zone.",
    );
    for tally in tallies.clone().filter(|tally| !tally.times.is_empty()) {
        let bounds = TIMES_US.map(|bound| bound as f64 / 1e6);
        let labels = tally.labels();
        histogram(
            out,
            "coredns_dns_request_duration_seconds",
            &labels,
            &tally.times,
            &bounds,
            1e6,
        );
    }
    for (name, help, sizes) in [
        (
            "coredns_dns_request_size_bytes",
            "Size of the EDNS0 UDP buffer in bytes (64K for TCP) per zone and protocol.",
            false,
        ),
        (
            "coredns_dns_response_size_bytes",
            "Size of the returned response in bytes.",
            true,
        ),
    ] {
        family(out, name, "histogram", help);
        for tally in tallies.clone() {
            tally.write_sizes(
                name,
                if sizes {
                    &tally.response_sizes
                } else {
                    &tally.request_sizes
                },
                out,
            );
        }
    }
    family(
        out,
        "coredns_dns_responses_total",
        "counter",
        "Counter of response status codes.",
    );
    for tally in tallies {
        tally.write_responses(out);
    }
}

impl Tally {
    fn labels(&self) -> String {
        format!(
            "server=\"{}\",zone=\"{}\",view=\"\"",
            self.server, self.zone
        )
    }

    fn write_requests(&self, out: &mut String) {
        let labels = self.labels();
        for (transport, families) in self.requests.iter().enumerate() {
            for (family, types) in families.iter().enumerate() {
                for (kind, count) in types.iter().enumerate() {
                    let count = count.load(Ordering::Relaxed);
                    if count == 0 {
                        continue;
                    }
                    let kind = TYPES
                        .get(kind)
                        .map_or("other".to_string(), |kind| type_name(*kind));
                    let proto = transport_name(TRANSPORTS[transport]);
                    let labels = format!(
                        "{labels},proto=\"{proto}\",family=\"{}\",type=\"{kind}\"",
                        family + 1
                    );
                    line(out, "coredns_dns_requests_total", &labels, count);
                }
            }
        }
    }

    fn write_sizes(
        &self,
        name: &str,
        sizes: &[Histogram<{ SIZES.len() + 1 }>; 4],
        out: &mut String,
    ) {
        let labels = self.labels();
        let bounds = SIZES.map(|bound| bound as f64);
        for (transport, sizes) in sizes
            .iter()
            .enumerate()
            .filter(|(_, sizes)| !sizes.is_empty())
        {
            let labels = format!(
                "{labels},proto=\"{}\"",
                transport_name(TRANSPORTS[transport])
            );
            histogram(out, name, &labels, sizes, &bounds, 1.0);
        }
    }

    fn write_responses(&self, out: &mut String) {
        let labels = self.labels();
        for by in By::ALL {
            for (code, count) in self.responses[by as usize].iter().enumerate() {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let rcode = code_name(code as u16);
                    let labels = format!("{labels},rcode=\"{rcode}\",plugin=\"{}\"", by.name());
                    line(out, "coredns_dns_responses_total", &labels, count);
                }
            }
        }
    }
}

/// The lines before those of a metric.
pub fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// One value.
pub fn line(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = match labels {
        "" => writeln!(out, "{name} {value}"),
        labels => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}

fn histogram<const N: usize>(
    out: &mut String,
    name: &str,
    labels: &str,
    values: &Histogram<N>,
    bounds: &[f64],
    unit: f64,
) {
    let counts: Vec<u64> = values
        .buckets
        .iter()
        .map(|bucket| bucket.load(Ordering::Relaxed))
        .collect();
    buckets(
        out,
        name,
        labels,
        &counts,
        bounds,
        values.sum.load(Ordering::Relaxed) as f64 / unit,
    );
}

/// A histogram: how many values lie in each bucket, of which there is one more than bounds.
pub fn buckets(
    out: &mut String,
    name: &str,
    labels: &str,
    counts: &[u64],
    bounds: &[f64],
    sum: f64,
) {
    let mut total = 0;
    let comma = if labels.is_empty() { "" } else { "," };
    for (index, count) in counts.iter().enumerate() {
        total += count;
        let bound = bounds.get(index).map_or("+Inf".to_string(), f64::to_string);
        line(
            out,
            &format!("{name}_bucket"),
            &format!("{labels}{comma}le=\"{bound}\""),
            total,
        );
    }
    line(out, &format!("{name}_sum"), labels, sum);
    line(out, &format!("{name}_count"), labels, total);
}
