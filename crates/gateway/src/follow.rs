//! Follows the objects of an API, and makes from them what the server serves by.
//!
//! ```text
//!   watch Ingresses, classes, Services, Secrets, maps ──┐
//!   watch EndpointSlices ──▶ reflect::Tracker ─Snapshot─┴─▶ World ──▶ Followed { Live, Routing }
//! ```
//!
//! Nothing is said before every kind has been listed fully, and what a new listing does not name is gone (law 9).
//! A change of EndpointSlices alone costs no new table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{FutureExt, Stream, StreamExt, stream};
use kube::{Api, Client, Resource};
use portolan_k8s::watch::{Event, Filter, watch};
use portolan_k8s::wire::networking::{Ingress, IngressClass};
use portolan_k8s::wire::{ConfigMap, EndpointSlice, Secret, Service};
use portolan_reflect::Tracker;
use tokio::sync::watch as channel;

use crate::ingress::{Objects, Options, Routing, build};
use crate::problem::{ObjectName, Problem};
use crate::roster::Rosters;
use crate::server::{CertificateError, Certificates, Identity, Live};

/// Events that are taken in before something is published, when they come faster than they are taken in:
/// more would let a flood of events keep the server waiting.
const BURST_MAX: usize = 4096;

/// Secrets of this type hold certificates.
const TLS_SECRETS: &str = "type=kubernetes.io/tls";

/// Secrets of this type may hold passwords (`auth-secret`).
const OPAQUE_SECRETS: &str = "type=Opaque";

/// ConfigMaps with this label may hold headers of answers (`custom-headers`).
const HEADER_MAPS: &str = "portolan.dev/response-headers=true";

/// What has become of the objects.
#[derive(Clone, Debug)]
pub struct Followed {
    /// For the server.
    pub live: Live,
    /// For people.
    pub routing: Arc<Routing>,
    /// The Ingresses, for those who write to them.
    pub ingresses: Arc<BTreeMap<ObjectName, Arc<Ingress>>>,
}

/// One event of any kind.
#[derive(Debug)]
pub enum News {
    /// About Ingresses.
    Ingress(Event<Ingress>),
    /// About IngressClasses.
    Class(Event<IngressClass>),
    /// About Services.
    Service(Box<Event<Service>>),
    /// About EndpointSlices.
    Slice(Event<EndpointSlice>),
    /// About Secrets of type `kubernetes.io/tls`.
    Secret(Event<Secret>),
    /// About Secrets of type `Opaque`.
    Opaque(Event<Secret>),
    /// About ConfigMaps with headers of answers.
    HeaderMap(Event<ConfigMap>),
    /// About the operator's ConfigMap.
    Config(Event<ConfigMap>),
}

/// How far the listing of one kind is.
#[derive(Debug, Default)]
struct Listing {
    is_complete: bool,
    /// What the listing that is under way has named.
    named: BTreeSet<ObjectName>,
    /// What is there because of this listing: others may bring objects of the same kind.
    known: BTreeSet<ObjectName>,
}

/// All objects, and what was made of them last.
pub struct World {
    options: Options,
    objects: Objects,
    /// Services with their endpoints.
    tracker: Tracker,
    rosters: Rosters,
    listings: [Listing; 7],
    are_slices_listed: bool,
    /// Identities by Secret, so that only what has changed is read again.
    identities: BTreeMap<ObjectName, (Arc<Secret>, Result<Identity, CertificateError>)>,
    /// Shown for names that have no certificate.
    other: Identity,
    has_new_objects: bool,
    last: Option<Followed>,
}

impl World {
    /// Knows nothing yet. `other` is shown for names that have no certificate.
    pub fn new(options: Options, other: Identity) -> World {
        let mut listings: [Listing; 7] = Default::default();
        // Without a ConfigMap, nothing is listed.
        listings[6].is_complete = options.config.is_none();
        World {
            options,
            objects: Objects::default(),
            tracker: Tracker::of_no_node(),
            rosters: Rosters::default(),
            listings,
            are_slices_listed: false,
            identities: BTreeMap::new(),
            other,
            has_new_objects: true,
            last: None,
        }
    }

    /// Takes in an event.
    pub fn take(&mut self, news: News) {
        let [
            ingresses,
            classes,
            services,
            secrets,
            opaque,
            header_maps,
            config,
        ] = &mut self.listings;
        self.has_new_objects |= !matches!(news, News::Slice(_));
        match news {
            News::Ingress(event) => take(&mut self.objects.ingresses, ingresses, event),
            News::Class(event) => take(&mut self.objects.classes, classes, event),
            News::Service(event) => {
                self.tracker.service((*event).clone());
                take(&mut self.objects.services, services, *event);
            }
            News::Secret(event) => take(&mut self.objects.secrets, secrets, event),
            News::Opaque(event) => take(&mut self.objects.secrets, opaque, event),
            News::HeaderMap(event) => take(&mut self.objects.config_maps, header_maps, event),
            News::Config(event) => take(&mut self.objects.config_maps, config, event),
            News::Slice(event) => {
                self.are_slices_listed |= matches!(event, Event::InitDone);
                self.tracker.slice(event);
            }
        }
    }

    /// What there is to serve, once: `None` when nothing has changed since the last call, or when not every kind has
    /// been listed yet.
    pub fn followed(&mut self) -> Option<Followed> {
        let listed = self.listings.iter().all(|listing| listing.is_complete);
        if !(listed && self.are_slices_listed) {
            return None;
        }
        let reflection = self.tracker.reflect();
        if reflection.is_none() && !self.has_new_objects {
            return None;
        }
        if let Some(reflection) = reflection {
            self.rosters.follow(&reflection.snapshot);
        }
        let mut followed = match self.last.take() {
            Some(last) if !self.has_new_objects => last,
            _ => self.rebuilt(),
        };
        followed.live.endpoints = self.rosters.clone();
        self.has_new_objects = false;
        self.last = Some(followed.clone());
        Some(followed)
    }

    fn rebuilt(&mut self) -> Followed {
        let mut routing = build(&self.objects, &self.options);
        let (certificates, problems) = self.certificates(&routing);
        routing.problems.extend(problems);
        routing.problems.sort();
        Followed {
            live: Live {
                table: Arc::clone(&routing.table),
                endpoints: Rosters::default(),
                certificates: Arc::new(certificates),
            },
            routing: Arc::new(routing),
            ingresses: Arc::new(self.objects.ingresses.clone()),
        }
    }

    /// The certificates of all hosts, and what is wrong with Secrets that hold something else.
    fn certificates(&mut self, routing: &Routing) -> (Certificates, Vec<Problem>) {
        let mut before = std::mem::take(&mut self.identities);
        let mut problems = Vec::new();
        let mut found = Vec::new();
        for certificate in &routing.certificates {
            let Some(secret) = self.objects.secrets.get(&certificate.secret) else {
                continue;
            };
            let identity = self
                .identities
                .entry(certificate.secret.clone())
                .or_insert_with(|| {
                    let known = before.remove(&certificate.secret);
                    known
                        .filter(|(of, _)| Arc::ptr_eq(of, secret))
                        .unwrap_or_else(|| (Arc::clone(secret), read(secret)))
                });
            match &identity.1 {
                Ok(identity) => found.push((certificate.host.clone(), identity.clone())),
                Err(error) => problems.push(Problem {
                    kind: "Ingress",
                    object: certificate.rank.object.clone(),
                    reason: "InvalidCertificate",
                    message: format!(
                        "Secret {} is of no use for {}: {error}. The default certificate stands in for it.",
                        certificate.secret, certificate.host
                    ),
                }),
            }
        }
        (Certificates::new(found, self.other.clone()), problems)
    }
}

fn read(secret: &Secret) -> Result<Identity, CertificateError> {
    let value = |key: &str| {
        let data = secret.data.as_ref().and_then(|data| data.get(key));
        data.map(|value| value.0.as_slice()).unwrap_or_default()
    };
    Identity::from_pem(value("tls.crt"), value("tls.key"))
}

fn take<K: Resource>(
    all: &mut BTreeMap<ObjectName, Arc<K>>,
    listing: &mut Listing,
    event: Event<K>,
) {
    match event {
        Event::Init => listing.named.clear(),
        Event::InitApply(object) => {
            let name = ObjectName::of(object.meta());
            listing.named.insert(name.clone());
            listing.known.insert(name.clone());
            all.insert(name, Arc::new(object));
        }
        Event::InitDone => {
            let named = std::mem::take(&mut listing.named);
            for gone in listing.known.difference(&named) {
                all.remove(gone);
            }
            listing.known = named;
            listing.is_complete = true;
        }
        Event::Apply(object) => {
            let name = ObjectName::of(object.meta());
            listing.known.insert(name.clone());
            all.insert(name, Arc::new(object));
        }
        Event::Delete(object) => {
            let name = ObjectName::of(object.meta());
            listing.known.remove(&name);
            all.remove(&name);
        }
    }
}

/// Watches for ever, and sends what is to be served after each burst of events; the channel holds `None` until every
/// kind has been listed once. Ends when nobody listens any more.
pub async fn follow(client: Client, mut world: World, publish: channel::Sender<Option<Followed>>) {
    let mut news = Box::pin(news(client, world.options.config.as_ref()));
    loop {
        let first = tokio::select! {
            first = news.next() => first,
            () = publish.closed() => None,
        };
        let Some(first) = first else {
            return;
        };
        world.take(first);
        for _ in 1..BURST_MAX {
            match news.next().now_or_never().flatten() {
                Some(next) => world.take(next),
                None => break,
            }
        }
        if let Some(followed) = world.followed() {
            publish.send_replace(Some(followed));
        }
    }
}

fn news(client: Client, config: Option<&ObjectName>) -> impl Stream<Item = News> + Send + use<> {
    let all = Filter::default();
    let tls = Filter {
        fields: TLS_SECRETS,
        ..all
    };
    let opaque = Filter {
        fields: OPAQUE_SECRETS,
        ..all
    };
    let header_maps = Filter {
        labels: HEADER_MAPS,
        ..all
    };
    let config = config.map(|name| {
        let fields = format!("metadata.name={}", name.name);
        let one = Filter {
            fields: &fields,
            ..all
        };
        let api = Api::<ConfigMap>::namespaced(client.clone(), &name.namespace);
        watch(api, one).map(News::Config).boxed()
    });
    let others = [
        watch(Api::<Ingress>::all(client.clone()), all)
            .map(News::Ingress)
            .boxed(),
        watch(Api::<IngressClass>::all(client.clone()), all)
            .map(News::Class)
            .boxed(),
        watch(Api::<Service>::all(client.clone()), all)
            .map(|event| News::Service(Box::new(event)))
            .boxed(),
        watch(Api::<Secret>::all(client.clone()), tls)
            .map(News::Secret)
            .boxed(),
        watch(Api::<Secret>::all(client.clone()), opaque)
            .map(News::Opaque)
            .boxed(),
        watch(Api::<ConfigMap>::all(client.clone()), header_maps)
            .map(News::HeaderMap)
            .boxed(),
        watch(Api::<EndpointSlice>::all(client), all)
            .map(News::Slice)
            .boxed(),
    ];
    stream::select_all(others.into_iter().chain(config))
}

#[cfg(test)]
mod tests;
