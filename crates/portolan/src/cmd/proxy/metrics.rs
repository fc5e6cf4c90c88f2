//! What can be measured: names of kube-proxy where the meaning is the same, our own where it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use portolan_k8s::Timestamp;
use portolan_model::reset::Look;
use portolan_model::sync::Outcome;
use portolan_model::{Action, Family as IpFamily, FrontendKind, Snapshot, TrafficPolicy, decide};
use portolan_reflect::Reflection;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use serde_json::Value;

use super::Wanted;
use super::counts::Tally;
use super::delays::Delays;
use super::ejection::report::Measures;
use super::health::Asked;
use super::mode::Mode;
use super::pages::Pages;
use super::process::Process;
use super::relayed::Relayed;
use super::sockets::Sockets;

/// Labels of what kube-proxy, with a loop for each family, tells of each: `ip_family`.
type ByFamily = [(&'static str, &'static str); 1];
const FAMILIES: [ByFamily; 2] = [[("ip_family", "IPv4")], [("ip_family", "IPv6")]];

type Seconds = Gauge<f64, std::sync::atomic::AtomicU64>;

/// Metrics and health of one proxy.
#[derive(Debug)]
pub(super) struct Telemetry {
    registry: Registry,
    duration: Family<ByFamily, Histogram>,
    programming: Family<ByFamily, Histogram>,
    delays: Delays,
    last_sync: Family<ByFamily, Seconds>,
    failures: Family<ByFamily, Counter>,
    iptables_failures: Family<ByFamily, Counter>,
    repairs: Counter,
    flows_deleted: Family<ByFamily, Counter>,
    sweeps: Family<ByFamily, Histogram>,
    sweep_failures: Counter,
    resets: Counter,
    reset_failures: Counter,
    services: Gauge,
    ports: Gauge,
    endpoints: Gauge,
    problems: Gauge,
    tally: Option<Tally>,
    /// About endpoints that do not answer.
    pub(super) ejection: Measures,
    /// How often health was asked for.
    pub(super) asked: Asked,
    /// What programs note, in eBPF mode.
    pub(super) sockets: Sockets,
    /// What this process is and was told.
    pub(super) pages: Pages,
    process: Process,
    /// When the newest change came.
    queued: Family<ByFamily, Seconds>,
    /// Service ports whose policy drops what comes to this node, by policy and family.
    without_local: Family<[(&'static str, &'static str); 2], Gauge>,
    relayed: Relayed,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    mode: Mode,
    /// A change that waits for longer than this makes the proxy unhealthy.
    patience: Duration,
    reflection: Option<Reflection>,
    /// Since when the newest Snapshot waits to be programmed.
    waiting: Option<Instant>,
    updated: Option<SystemTime>,
    triggered: BTreeMap<IpFamily, Timestamp>,
    /// When the oldest event that waits was received.
    received: Option<Instant>,
}

/// What /healthz answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Health {
    /// No change waits for too long.
    pub(super) alive: bool,
    /// The node is not about to be removed.
    pub(super) eligible: bool,
    /// When the rules were last brought up to date.
    pub(super) updated: Option<SystemTime>,
}

impl Telemetry {
    /// `sync_period` as in `--nftables-sync-period`.
    pub(super) fn new(sync_period: Duration) -> Self {
        let mut registry = Registry::default();
        let telemetry = Telemetry {
            duration: Family::new_with_constructor(|| buckets(15)),
            programming: Family::new_with_constructor(|| buckets(18)),
            delays: Delays::default(),
            last_sync: Family::default(),
            failures: Family::default(),
            iptables_failures: Family::default(),
            repairs: Counter::default(),
            flows_deleted: Family::default(),
            sweeps: Family::new_with_constructor(|| buckets(15)),
            sweep_failures: Counter::default(),
            resets: Counter::default(),
            reset_failures: Counter::default(),
            services: Gauge::default(),
            ports: Gauge::default(),
            endpoints: Gauge::default(),
            problems: Gauge::default(),
            tally: None,
            ejection: Measures::register(&mut registry),
            asked: Asked::register(&mut registry),
            sockets: Sockets::register(&mut registry),
            pages: Pages::default(),
            process: Process::register(&mut registry),
            queued: Family::default(),
            without_local: Family::default(),
            relayed: Relayed::register(&mut registry),
            state: Mutex::new(State {
                patience: sync_period * 2,
                ..State::default()
            }),
            registry: Registry::default(),
        };
        let t = &telemetry;
        let mut kube = |name: &str, help: &str, metric: &Family<ByFamily, Histogram>| {
            registry.register(name, help, metric.clone())
        };
        kube(
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "Time that one step of the sync loop took",
            &t.duration,
        );
        kube(
            "kubeproxy_network_programming_duration_seconds",
            "From the change of a pod to the rules",
            &t.programming,
        );
        kube(
            "kubeproxy_conntrack_reconciler_sync_duration_seconds",
            "Time that one search for stale flows took",
            &t.sweeps,
        );
        registry.register(
            "portolan_change_delay_seconds",
            "From the event of a change to its commit in the kernel, of the newest changes",
            t.delays.gauges(),
        );
        registry.register(
            "kubeproxy_conntrack_reconciler_deleted_entries",
            "Stale flows that were deleted from conntrack",
            t.flows_deleted.clone(),
        );
        registry.register(
            "portolan_conntrack_failures",
            "Searches for stale flows that failed",
            t.sweep_failures.clone(),
        );
        registry.register(
            "portolan_connections_reset",
            "TCP connections that were reset because their endpoint is gone for good",
            t.resets.clone(),
        );
        registry.register(
            "portolan_connection_reset_failures",
            "Searches for connections to be reset that failed",
            t.reset_failures.clone(),
        );
        registry.register(
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
            "When the rules were last brought up to date",
            t.last_sync.clone(),
        );
        registry.register(
            "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
            "When the newest change came that has to be programmed",
            t.queued.clone(),
        );
        registry.register(
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
            "Service ports with policy Local that have endpoints, and none on this node",
            t.without_local.clone(),
        );
        registry.register(
            "kubeproxy_sync_proxy_rules_nftables_sync_failures",
            "Steps of the sync loop that failed, in every mode but iptables",
            t.failures.clone(),
        );
        registry.register(
            "kubeproxy_sync_proxy_rules_iptables_restore_failures",
            "Steps of the sync loop that failed in mode iptables",
            t.iptables_failures.clone(),
        );
        registry.register(
            "portolan_repairs",
            "Times that foreign changes of our rules were put right",
            t.repairs.clone(),
        );
        registry.register(
            "portolan_services",
            "Services that are programmed",
            t.services.clone(),
        );
        registry.register(
            "portolan_service_ports",
            "Ports of Services that are programmed",
            t.ports.clone(),
        );
        registry.register(
            "portolan_endpoints",
            "Endpoints behind all ports, each per port",
            t.endpoints.clone(),
        );
        registry.register(
            "portolan_problems",
            "Things wrong with Services as they are written",
            t.problems.clone(),
        );
        Telemetry {
            registry,
            ..telemetry
        }
    }

    /// The same, and it tells what the kernel counts from now on.
    pub(super) fn counting(mut self, pairs_max: u32) -> Self {
        self.tally = Some(Tally::new(pairs_max, &mut self.registry));
        self.sockets.counts = true;
        self
    }

    /// What was counted, endpoint by endpoint; `None` when nothing is counted.
    pub(super) fn counters(&self) -> Option<Value> {
        let reflection = self.lock().reflection.clone();
        Some(
            self.tally
                .as_ref()?
                .json(&reflection?.snapshot, &self.sockets),
        )
    }

    /// A new Snapshot is to be programmed.
    pub(super) fn wanted(&self, reflection: Reflection) {
        for family in FAMILIES {
            (self.queued.get_or_create(&family)).set(seconds(SystemTime::now()));
        }
        let mut state = self.lock();
        state.waiting.get_or_insert_with(Instant::now);
        for (family, time) in &reflection.triggered {
            let oldest = state.triggered.entry(*family).or_insert(*time);
            *oldest = (*oldest).min(*time);
        }
        state.received = [state.received, reflection.received]
            .into_iter()
            .flatten()
            .min();
        state.reflection = Some(reflection);
    }

    /// A step of the sync loop is done, for both families at once.
    pub(super) fn stepped(&self, outcome: &Outcome, took: Duration) {
        if outcome.error.is_some() {
            let failures = match self.mode() {
                Mode::Iptables => &self.iptables_failures,
                _ => &self.failures,
            };
            for family in FAMILIES {
                failures.get_or_create(&family).inc();
            }
        }
        if outcome.repaired {
            self.repairs.inc();
        }
        if !outcome.stands {
            return;
        }
        let now = SystemTime::now();
        for family in FAMILIES {
            (self.duration.get_or_create(&family)).observe(took.as_secs_f64());
            self.last_sync.get_or_create(&family).set(seconds(now));
        }
        let mut state = self.lock();
        state.waiting = None;
        // The first step programs everything that was listed: that is no change.
        if let (Some(received), Some(_)) = (state.received.take(), state.updated) {
            self.delays.observe(received.elapsed());
        }
        state.updated = Some(now);
        for (family, triggered) in std::mem::take(&mut state.triggered) {
            let took = Timestamp::now().as_millisecond() - triggered.as_millisecond();
            let programming = self.programming.get_or_create(&label(family));
            programming.observe(took.max(0) as f64 / 1000.0);
        }
    }

    /// A search for stale flows of one family is over.
    pub(super) fn swept(&self, family: IpFamily, deleted: u64, took: Duration, complete: bool) {
        let family = label(family);
        self.flows_deleted.get_or_create(&family).inc_by(deleted);
        (self.sweeps.get_or_create(&family)).observe(took.as_secs_f64());
        if !complete {
            self.sweep_failures.inc();
        }
    }

    /// A search for connections to be reset is over.
    pub(super) fn reset(&self, count: usize, look: Look) {
        match look {
            Look::Failed => drop(self.reset_failures.inc()),
            Look::Whole | Look::Part => drop(self.resets.inc_by(count as u64)),
        }
    }

    /// This data plane carries the Services now.
    pub(super) fn runs(&self, wanted: &Wanted) {
        if wanted.mode != Mode::Ebpf {
            self.sockets.retire();
        }
        let mut state = self.lock();
        (state.mode, state.patience) = (wanted.mode, wanted.pace.max * 2);
    }

    /// Where what a relay counts is told.
    pub(super) fn relayed(&self) -> Relayed {
        self.relayed.clone()
    }

    /// The data plane that carries the Services.
    pub(super) fn mode(&self) -> Mode {
        self.lock().mode
    }

    /// How the proxy is.
    pub(super) fn health(&self) -> Health {
        let state = self.lock();
        Health {
            alive: state
                .waiting
                .is_none_or(|since| since.elapsed() < state.patience),
            eligible: state
                .reflection
                .as_ref()
                .is_none_or(|reflection| reflection.node_eligible),
            updated: state.updated,
        }
    }

    /// All metrics as text (OpenMetrics). What has to be counted is counted now, not on every change.
    pub(super) fn text(&self) -> String {
        let reflection = self.lock().reflection.clone();
        let mut published = None;
        if let Some(reflection) = &reflection {
            let tally = self.tally.as_ref();
            published = tally.map(|tally| tally.publish(&reflection.snapshot, &self.sockets));
            let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
            let ports = || reflection.snapshot.ports();
            let mut names: Vec<_> = ports().map(|port| &port.key.service).collect();
            // Ports come in the order of their Services.
            names.dedup();
            self.services.set(count(names.len()));
            self.ports.set(count(reflection.snapshot.len()));
            self.endpoints
                .set(count(ports().map(|port| port.endpoints.len()).sum()));
            let lost = ports().filter(|port| !port.lost.is_empty()).count();
            let written: usize = reflection.problems.iter().count();
            self.problems.set(count(written + lost));
            for (labels, ports) in without_local(&reflection.snapshot) {
                self.without_local.get_or_create(&labels).set(ports);
            }
        }
        self.delays.tell();
        self.process.tell();
        self.sockets.tell();
        let mut text = String::new();
        let encoded = encode(&mut text, &self.registry);
        drop(published);
        match encoded {
            Ok(()) => text,
            Err(error) => format!("# {error}\n"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn label(family: IpFamily) -> ByFamily {
    match family {
        IpFamily::V4 => FAMILIES[0],
        IpFamily::V6 => FAMILIES[1],
    }
}

fn buckets(count: u16) -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, count))
}

fn seconds(at: SystemTime) -> f64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs_f64()
}

/// How many Service ports drop new flows because their endpoints are on other nodes, by the policy that says so and the
/// family.
fn without_local(snapshot: &Snapshot) -> BTreeMap<[(&'static str, &'static str); 2], i64> {
    let labels = |policy, family| [("traffic_policy", policy), label(family)[0]];
    let policies = ["internal", "external"].into_iter();
    let each = policies.flat_map(|policy| IpFamily::ALL.map(|family| (labels(policy, family), 0)));
    let mut counts: BTreeMap<_, i64> = each.collect();
    for port in snapshot.ports() {
        let policies = [port.internal_policy, port.external_policy];
        if !policies.contains(&TrafficPolicy::Local) {
            continue;
        }
        let treatments = decide(snapshot.node(), port);
        let dropping = treatments.iter().filter(|t| t.outside == Action::Drop);
        let lost: BTreeSet<_> = dropping
            .map(|treatment| match treatment.kind {
                FrontendKind::ClusterIp => labels("internal", treatment.frontend.place.family()),
                _ => labels("external", treatment.frontend.place.family()),
            })
            .collect();
        for labels in lost {
            *counts.entry(labels).or_default() += 1;
        }
    }
    counts
}
