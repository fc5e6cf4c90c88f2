//! What the API says, brought into the names that are answered: one watch for each `kubernetes` of a configuration.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use futures::{FutureExt, Stream, StreamExt, stream};
use kube::{Api, Client};
use portolan_dns::corefile::plugin::Kubernetes;
use portolan_dns::corefile::plugin::kubernetes::Pods;
use portolan_dns::wire::Name;
use portolan_dns::zone::{Config, Index, Live, PodNames};
use portolan_k8s::watch::{Event, Filter, watch};
use portolan_k8s::wire;
use portolan_model::names::{Change, Kind, Label};
use portolan_reflect::dns;
use tokio::task::JoinSet;

use super::metrics::Programming;

/// Changes that are taken in before new names are published, when they come faster than that: an endpoint is never
/// older than the time of so many, some ten milliseconds.
const BURST_MAX: usize = 1_024;

/// The names of one cluster, kept up to date until it is dropped.
pub(super) struct Cluster {
    /// What was configured.
    pub options: Kubernetes,
    /// The addresses at which these names are answered.
    pub own: Vec<std::net::IpAddr>,
    /// The newest names.
    pub live: Arc<Live>,
    listed: Arc<AtomicBool>,
    _watching: JoinSet<()>,
}

impl Cluster {
    /// Begins to watch; there are no names before everything has been listed.
    pub(super) async fn start(
        options: &Kubernetes,
        own: &[std::net::IpAddr],
        kubeconfig: Option<PathBuf>,
        programming: Arc<Programming>,
    ) -> anyhow::Result<Cluster> {
        let client = client(options, kubeconfig).await?;
        let mut index = Index::new(config(options, own)?);
        let live = Arc::new(Live::new(&index));
        let listed = Arc::new(AtomicBool::new(false));
        let mut watching = JoinSet::new();
        let (publish, done, options_) = (Arc::clone(&live), Arc::clone(&listed), options.clone());
        watching.spawn(async move {
            let changes = changes(&client, &options_);
            follow(&mut index, changes, &publish, &done, &programming).await;
        });
        Ok(Cluster {
            options: options.clone(),
            own: own.to_vec(),
            live,
            listed,
            _watching: watching,
        })
    }

    /// Whether everything has been listed once.
    pub(super) fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed)
    }
}

async fn follow(
    index: &mut Index,
    changes: impl Stream<Item = Change>,
    live: &Live,
    listed: &AtomicBool,
    programming: &Programming,
) {
    let mut changes = std::pin::pin!(changes);
    let mut waiting = Kind::ALL.to_vec();
    let mut triggered = Vec::new();
    while let Some(first) = changes.next().await {
        let mut changed = false;
        let mut next = Some(first);
        let mut room = BURST_MAX;
        while let Some(change) = next.take() {
            if let Change::Listed(kind) = change {
                waiting.retain(|waits| *waits != kind);
                changed = true;
            }
            triggered.extend(programming.triggered(&change));
            changed |= index.apply(change, now_s());
            room -= 1;
            if room > 0 {
                next = changes.next().now_or_never().flatten();
            }
        }
        if changed {
            live.publish(index);
        }
        listed.store(waiting.is_empty(), Ordering::Relaxed);
        triggered
            .drain(..)
            .for_each(|(kind, at_ms)| programming.programmed(kind, at_ms));
    }
}

fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// How the API is reached: as the block says, or else as the command line says.
async fn client(options: &Kubernetes, kubeconfig: Option<PathBuf>) -> anyhow::Result<Client> {
    if let Some((path, context)) = &options.kubeconfig {
        return portolan_k8s::client_in(path, context.as_deref())
            .await
            .map_err(Into::into);
    }
    let made = match (&options.endpoint, &options.tls) {
        (Some(url), Some([cert, key, ca])) => portolan_k8s::client_with(url, [cert, key, ca]).await,
        (endpoint, _) => portolan_k8s::client_at(kubeconfig.as_deref(), endpoint.as_deref()).await,
    };
    made.context("the plugin kubernetes cannot reach the API")
}

fn config(options: &Kubernetes, own: &[std::net::IpAddr]) -> anyhow::Result<Config> {
    let names = |zones: &[portolan_dns::corefile::Zone]| {
        let parsed = zones.iter().map(|zone| Name::parse(zone.as_str()));
        parsed.collect::<Result<Vec<_>, _>>()
    };
    let label = |text: &String| {
        Label::new(text).with_context(|| format!("{text:?} is no name of a namespace (namespaces)"))
    };
    Ok(Config {
        zones: names(&options.zones)?,
        multicluster: names(&options.multicluster)?,
        namespaces: options
            .namespaces
            .iter()
            .map(label)
            .collect::<anyhow::Result<_>>()?,
        pods: match options.pods {
            Pods::Disabled => PodNames::Disabled,
            Pods::Insecure => PodNames::Insecure,
            Pods::Verified => PodNames::Verified,
        },
        endpoint_pod_names: options.endpoint_pod_names,
        no_endpoints: options.no_endpoints,
        ignore_empty_service: options.ignore_empty,
        zonal: options.zonal,
        ttl: options.ttl,
        own: own.to_vec(),
    })
}

/// Everything that is there, and then what changes. Kinds that are not watched are listed as empty.
fn changes(client: &Client, options: &Kubernetes) -> impl Stream<Item = Change> + Send + use<> {
    let labels = options.labels.as_deref().unwrap_or_default();
    let selected = Filter { labels, fields: "" };
    let spaces = Filter {
        labels: options.namespace_labels.as_deref().unwrap_or_default(),
        fields: "",
    };
    let none = |kind: Kind| stream::iter([Change::Listing(kind), Change::Listed(kind)]).boxed();
    let namespaces =
        watch(Api::<wire::Namespace>::all(client.clone()), spaces).filter_map(async |event| {
            told(
                event,
                Kind::Namespace,
                |object| dns::namespace(&object).map(Change::Namespace),
                |object| dns::namespace(&object).map(Change::NamespaceGone),
            )
        });
    let services =
        watch(Api::<wire::Service>::all(client.clone()), selected).filter_map(async |event| {
            told(
                event,
                Kind::Service,
                |object| dns::service(&object).0.map(Change::Service),
                |object| dns::owner(&object.metadata).map(Change::ServiceGone),
            )
        });
    let slices = watch(Api::<wire::EndpointSlice>::all(client.clone()), selected).filter_map(
        async |event| {
            told(
                event,
                Kind::Slice,
                |object| Some(Change::Slice(dns::slice(&object))),
                |object| Some(Change::SliceGone(dns::object(&object.metadata))),
            )
        },
    );
    let pods = watch(Api::<wire::Pod>::all(client.clone()), selected).filter_map(async |event| {
        told(
            event,
            Kind::Pod,
            |object| Some(Change::Pod(dns::pod(&object))),
            |object| Some(Change::PodGone(dns::object(&object.metadata))),
        )
    });
    let imports = watch(Api::<wire::ServiceImport>::all(client.clone()), selected).filter_map(
        async |event| {
            told(
                event,
                Kind::Import,
                |object| dns::import(&object).map(Change::Import),
                |object| dns::owner(&object.metadata).map(Change::ImportGone),
            )
        },
    );
    stream::select_all([
        namespaces.boxed(),
        services.boxed(),
        if options.no_endpoints {
            none(Kind::Slice)
        } else {
            slices.boxed()
        },
        if options.pods == Pods::Verified {
            pods.boxed()
        } else {
            none(Kind::Pod)
        },
        if options.multicluster.is_empty() {
            none(Kind::Import)
        } else {
            imports.boxed()
        },
    ])
}

/// An event as a change; objects that have no names are none.
fn told<K>(
    event: Event<K>,
    kind: Kind,
    there: impl Fn(K) -> Option<Change>,
    gone: impl Fn(K) -> Option<Change>,
) -> Option<Change> {
    match event {
        Event::Init => Some(Change::Listing(kind)),
        Event::InitApply(object) | Event::Apply(object) => there(object),
        Event::InitDone => Some(Change::Listed(kind)),
        Event::Delete(object) => gone(object),
    }
}

#[cfg(test)]
mod tests {
    use portolan_dns::wire::Query;
    use portolan_dns::zone::Outcome;
    use portolan_model::names::{Owner, Service, ServiceKind};

    use super::*;

    /// `a.ns.svc.cluster.local`, A.
    const QUERY: &[u8] =
        b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x01a\x02ns\x03svc\x07cluster\x05local\0\0\x01\0\x01";

    fn answers(live: &Live) -> bool {
        let query = Query::read(QUERY).unwrap();
        let mut out = Vec::new();
        let outcome = live.load().answer(&query, 512, 0, &mut out);
        outcome == Outcome::Answered && out[7] == 1
    }

    /// The first change is the Service that is asked for, the others come as fast as they are taken.
    fn change(number: usize) -> Change {
        let label = |text: &str| Label::new(text).unwrap();
        match number {
            0 => Change::Namespace(label("ns")),
            1 => Change::Service(Service {
                owner: Owner::new("ns", "a").unwrap(),
                kind: ServiceKind::ClusterIp(vec!["172.30.0.1".parse().unwrap()]),
                ports: Vec::new(),
                external: Vec::new(),
                external_names: Vec::new(),
                publish_not_ready: false,
                selects: true,
            }),
            number => Change::Namespace(label(&format!("n{number}"))),
        }
    }

    #[tokio::test]
    async fn names_are_published_after_so_many_changes_however_fast_they_come() {
        let mut index = Index::new(Config {
            zones: vec![Name::parse("cluster.local").unwrap()],
            ..Config::default()
        });
        let live = Live::new(&index);
        let mut published_at = None;
        let changes = stream::iter(0..3 * BURST_MAX).map(|number| {
            if published_at.is_none() && answers(&live) {
                published_at = Some(number);
            }
            change(number)
        });
        let (listed, programming) = (AtomicBool::new(false), Programming::default());
        follow(&mut index, changes, &live, &listed, &programming).await;
        assert_eq!(published_at, Some(BURST_MAX));
    }
}
