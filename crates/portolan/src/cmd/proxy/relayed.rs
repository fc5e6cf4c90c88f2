//! What the relay of userspace mode counts, as metrics: one series for each Service port that has had a flow.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use portolan_relay::{Counts, CountsOf};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// Reads the counts of the newest relay; there are none in other modes.
#[derive(Clone, Default)]
pub(super) struct Relayed(Arc<Mutex<Option<CountsOf>>>);

/// Name, whether it only grows, what it is, and where it is kept.
type Measure = (&'static str, bool, &'static str, fn(&Counts) -> u64);

const MEASURES: [Measure; 11] = [
    (
        "connections",
        true,
        "TCP connections that reached an endpoint",
        |c| c.connections.now(),
    ),
    (
        "connections_open",
        false,
        "TCP connections that go on",
        |c| c.connections_open.now(),
    ),
    (
        "dial_failures",
        true,
        "Tries to reach an endpoint that failed",
        |c| c.dial_failures.now(),
    ),
    (
        "unreachable",
        true,
        "TCP connections that were reset because no endpoint was reached",
        |c| c.unreachable.now(),
    ),
    (
        "limited",
        true,
        "Flows that were turned away because a limit was reached",
        |c| c.limited.now(),
    ),
    ("in_bytes", true, "Bytes from clients to endpoints", |c| {
        c.bytes_in.now()
    }),
    ("out_bytes", true, "Bytes from endpoints to clients", |c| {
        c.bytes_out.now()
    }),
    ("sessions", true, "Clients of UDP that were met", |c| {
        c.sessions.now()
    }),
    (
        "sessions_open",
        false,
        "Clients of UDP that are known",
        |c| c.sessions_open.now(),
    ),
    (
        "evicted",
        true,
        "Clients of UDP that had to make room for others",
        |c| c.evicted.now(),
    ),
    (
        "datagrams_lost",
        true,
        "Datagrams that found no room in a socket",
        |c| c.datagrams_lost.now(),
    ),
];

impl Relayed {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let relayed = Relayed::default();
        registry.register_collector(Box::new(relayed.clone()));
        relayed
    }

    /// From now on these are told.
    pub(super) fn tell(&self, counts: CountsOf) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(counts);
    }
}

impl fmt::Debug for Relayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Relayed")
    }
}

impl Collector for Relayed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let Some(counts) = counts else { return Ok(()) };
        for (name, grows, help, one) in MEASURES {
            let kind = match grows {
                true => MetricType::Counter,
                false => MetricType::Gauge,
            };
            let name = format!("portolan_relay_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, kind)?;
            let mut done = Ok(());
            counts.each(|key, counts| {
                if counts.connections.now() + counts.sessions.now() + counts.unreachable.now() == 0
                {
                    return;
                }
                let labels = super::counts::labels(key);
                let value = one(counts);
                let encoded = family
                    .encode_family(&labels)
                    .and_then(|metric| match grows {
                        true => ConstCounter::new(value).encode(metric),
                        false => {
                            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(metric)
                        }
                    });
                done = done.and(encoded);
            });
            done?;
        }
        Ok(())
    }
}
