//! What the relay of userspace mode counts, as metrics: one series for each Service port that has had a flow.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portolan_model::{PortKey, Snapshot};
use portolan_relay::Counted;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// What the relay has told of its counts; nothing in other modes.
#[derive(Clone, Default)]
pub(super) struct Relayed(Arc<Mutex<BTreeMap<PortKey, Counted>>>);

/// Name, whether it only grows, what it is, and where it is kept.
type Measure = (&'static str, bool, &'static str, fn(&Counted) -> u64);

const MEASURES: [Measure; 11] = [
    (
        "connections",
        true,
        "TCP connections that reached an endpoint",
        |c| c.connections,
    ),
    (
        "connections_open",
        false,
        "TCP connections that go on",
        |c| c.connections_open,
    ),
    (
        "dial_failures",
        true,
        "Tries to reach an endpoint that failed",
        |c| c.dial_failures,
    ),
    (
        "unreachable",
        true,
        "TCP connections that were reset because no endpoint was reached",
        |c| c.unreachable,
    ),
    (
        "limited",
        true,
        "Flows that were turned away because a limit was reached",
        |c| c.limited,
    ),
    ("in_bytes", true, "Bytes from clients to endpoints", |c| {
        c.bytes_in
    }),
    ("out_bytes", true, "Bytes from endpoints to clients", |c| {
        c.bytes_out
    }),
    ("sessions", true, "Clients of UDP that were met", |c| {
        c.sessions
    }),
    (
        "sessions_open",
        false,
        "Clients of UDP that are known",
        |c| c.sessions_open,
    ),
    (
        "evicted",
        true,
        "Clients of UDP that had to make room for others",
        |c| c.evicted,
    ),
    (
        "datagrams_lost",
        true,
        "Datagrams that found no room in a socket",
        |c| c.datagrams_lost,
    ),
];

impl Relayed {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let relayed = Relayed::default();
        registry.register_collector(Box::new(relayed.clone()));
        relayed
    }

    /// These have changed.
    pub(super) fn tell(&self, counts: Vec<(PortKey, Counted)>) {
        self.lock().extend(counts);
    }

    /// Only Service ports that are there have counts.
    pub(super) fn keep(&self, snapshot: &Snapshot) {
        self.lock().retain(|key, _| snapshot.port(key).is_some());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PortKey, Counted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Relayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Relayed")
    }
}

impl Collector for Relayed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.lock().clone();
        if counts.is_empty() {
            return Ok(());
        }
        for (name, grows, help, one) in MEASURES {
            let kind = match grows {
                true => MetricType::Counter,
                false => MetricType::Gauge,
            };
            let name = format!("portolan_relay_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, kind)?;
            for (key, counts) in &counts {
                if counts.connections + counts.sessions + counts.unreachable == 0 {
                    continue;
                }
                let labels = super::counts::labels(key);
                let value = one(counts);
                let metric = family.encode_family(&labels)?;
                match grows {
                    true => ConstCounter::new(value).encode(metric)?,
                    false => {
                        ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(metric)?;
                    }
                }
            }
        }
        Ok(())
    }
}
