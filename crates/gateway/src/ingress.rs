//! Ingress objects become routes: the rules of `networking.k8s.io/v1` with all of its defaults, and nothing of any
//! other controller but the annotations that [`annotation`] names.
//!
//! What cannot be carried out becomes a [`Problem`] of its object, never blocks another one, and never lets requests
//! slip to a rule that they were not meant for: a path with a broken backend stands, and answers 503.

mod annotation;
mod backend;
mod class;
mod extras;
mod rules;
mod tls;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use http::StatusCode;
use portolan_k8s::wire::networking::{Ingress, IngressClass};
use portolan_k8s::wire::{ConfigMap, Secret, Service};

use crate::host::Host;
use crate::policy::Policy;
use crate::problem::{ObjectName, Problem};
use crate::route::{Backend, Destination, HostClaim, Origin, Rank, Route, Target};
use crate::table::{Lost, Table};
use crate::traffic::Traffic;

pub use annotation::{Note, Standing};
pub use class::{CONTROLLER, Ignored};
pub use tls::Certificate;

/// Everything that routes depend on, as the API has it.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// All Ingresses, also those that are somebody else's.
    pub ingresses: BTreeMap<ObjectName, Arc<Ingress>>,
    /// All IngressClasses.
    pub classes: BTreeMap<ObjectName, Arc<IngressClass>>,
    /// All Services.
    pub services: BTreeMap<ObjectName, Arc<Service>>,
    /// The Secrets of type `kubernetes.io/tls`, and those with passwords.
    pub secrets: BTreeMap<ObjectName, Arc<Secret>>,
    /// The operator's ConfigMap, and those with headers of answers.
    pub config_maps: BTreeMap<ObjectName, Arc<ConfigMap>>,
}

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct Options {
    /// IngressClasses with this `spec.controller` are ours.
    pub controller: String,
    /// Values of the old annotation `kubernetes.io/ingress.class` that are ours though no IngressClass has that name.
    pub class_names: Vec<String>,
    /// Whether Ingresses without any class are ours.
    pub without_class: bool,
    /// A Service, and the name or number of its port, for requests that nothing else is there for.
    pub default_backend: Option<(ObjectName, String)>,
    /// Whether what the specification leaves open, or forbids, is done as ingress-nginx did (docs/gateway.md).
    pub is_compatible: bool,
    /// A ConfigMap with keys of ingress-nginx.
    pub config: Option<ObjectName>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            controller: CONTROLLER.to_owned(),
            class_names: vec!["portolan".to_owned()],
            without_class: false,
            default_backend: None,
            is_compatible: false,
            config: None,
        }
    }
}

/// What [`build`] makes.
#[derive(Debug, Default)]
pub struct Routing {
    /// Where requests go.
    pub table: Arc<Table>,
    /// Which Secrets hold certificates for which hosts; each host once.
    pub certificates: Vec<Certificate>,
    /// The Ingresses that are ours, the oldest first.
    pub served: Vec<ObjectName>,
    /// The other Ingresses, and why they are not.
    pub ignored: Vec<Ignored>,
    /// What cannot be carried out, in order.
    pub problems: Vec<Problem>,
    /// What is said of each annotation of each Ingress that is ours.
    pub notes: Vec<(ObjectName, Note)>,
}

/// Makes the routes of all Ingresses that are ours. The same objects give the same routes.
pub fn build(objects: &Objects, options: &Options) -> Routing {
    let sorted = class::sort(objects, options);
    let mut build = Build::new(objects, options);
    build.problems = sorted.problems;
    build.config_problems();
    build.regex_hosts = build.hosts_with_expressions(&sorted.ours);
    for ingress in &sorted.ours {
        build.ingress(ingress);
    }
    let served = sorted.ours.iter().map(|i| ObjectName::of(&i.metadata));
    let served = served.collect();
    build.finish(options, served, sorted.ignored)
}

/// Policies that are compared with a new one, so that many routes with one policy have it once: it is 1.5 kB. Most are
/// like one of their own Ingress, or have none.
const SHARED_MAX: usize = 16;

/// What has been made so far.
struct Build<'a> {
    objects: &'a Objects,
    options: &'a Options,
    config: BTreeMap<String, String>,
    /// Hosts all of whose paths are expressions, because one Ingress has said so: only where the gateway does as
    /// ingress-nginx did.
    regex_hosts: BTreeSet<Host>,
    /// Canaries by host and path.
    canaries: Vec<extras::Waiting>,
    /// Hosts that redirect to another one, unless somebody has rules for them.
    www: Vec<Route>,
    /// Redirects to a path with a slash at its end, unless somebody has rules for the one without.
    slashes: Vec<Route>,
    notes: Vec<(ObjectName, Note)>,
    routes: Vec<Route>,
    claims: Vec<HostClaim>,
    /// Default backends of whole Ingresses; those of Ingresses without rules are asked first.
    fallbacks: Vec<((bool, Rank), Arc<Target>)>,
    certificates: Vec<Certificate>,
    problems: Vec<Problem>,
    /// Policies that several targets may share, the newest at the end.
    shared: VecDeque<(Arc<Policy>, Arc<Traffic>)>,
}

impl<'a> Build<'a> {
    fn new(objects: &'a Objects, options: &'a Options) -> Self {
        let config = options
            .config
            .as_ref()
            .and_then(|name| objects.config_maps.get(name));
        let config = config.and_then(|map| map.data.clone()).unwrap_or_default();
        Build {
            objects,
            options,
            config,
            regex_hosts: BTreeSet::new(),
            canaries: Vec::new(),
            www: Vec::new(),
            slashes: Vec::new(),
            notes: Vec::new(),
            routes: Vec::new(),
            claims: Vec::new(),
            fallbacks: Vec::new(),
            certificates: Vec::new(),
            problems: Vec::new(),
            shared: VecDeque::new(),
        }
    }

    /// This policy, and how requests get to its endpoints; the same values as another target's where they are equal.
    fn shared(&mut self, policy: Policy) -> (Arc<Policy>, Arc<Traffic>) {
        let known = self.shared.iter().rev();
        if let Some((policy, traffic)) = known.into_iter().find(|(known, _)| **known == policy) {
            return (Arc::clone(policy), Arc::clone(traffic));
        }
        if self.shared.len() == SHARED_MAX {
            self.shared.pop_front();
        }
        let traffic = Arc::new(Traffic::of(&policy.upstream));
        let both = (Arc::new(policy), traffic);
        self.shared.push_back(both.clone());
        both
    }

    fn finish(
        mut self,
        options: &Options,
        served: Vec<ObjectName>,
        ignored: Vec<Ignored>,
    ) -> Routing {
        self.add_canaries();
        self.add_redirects();
        let mut problems = self.problems;
        let mut fallbacks = self.fallbacks;
        fallbacks.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut fallbacks = fallbacks
            .into_iter()
            .map(|((has_rules, _), target)| (has_rules, target));
        let first = fallbacks.next().map(|(_, target)| target);
        let last = || options_target(self.objects, options);
        let (mut table, lost) = Table::compile(self.routes, self.claims, first.or_else(last));
        table.is_resolving = options.is_compatible;
        problems.extend(lost.into_iter().map(not_reached));
        problems.extend(fallbacks.map(|(has_rules, target)| taken(has_rules, &target)));
        let (certificates, more) = tls::settle(self.certificates);
        problems.extend(more);
        problems.sort();
        problems.dedup();
        Routing {
            table: Arc::new(table),
            certificates,
            served,
            ignored,
            problems,
            notes: self.notes,
        }
    }
}

/// Of a default backend that is not the one of all hosts.
fn taken(has_rules: bool, target: &Target) -> Problem {
    let field = &target.origin.field;
    let message = match has_rules {
        true => format!(
            "{field} is asked for hosts of its own rules only: another Ingress, which is older or has no rules, has the \
             default backend of all other hosts."
        ),
        false => format!(
            "{field} gets no requests: another Ingress, which is older, has the default backend of all hosts."
        ),
    };
    problem(&target.origin.object, "DefaultBackendTaken", message)
}

fn not_reached(lost: Lost) -> Problem {
    let message = format!(
        "{} is not reached: {} has all requests for {}; remove one of them.",
        lost.origin.field, lost.winner, lost.place
    );
    problem(&lost.origin.object, "PathTaken", message)
}

/// A Problem of an Ingress.
fn problem(object: &ObjectName, reason: &'static str, message: String) -> Problem {
    Problem {
        kind: "Ingress",
        object: object.clone(),
        reason,
        message,
    }
}

/// The default backend that the operator has given: whoever runs the gateway sees in its log what is wrong with it.
fn options_target(objects: &Objects, options: &Options) -> Option<Arc<Target>> {
    let (service, port) = options.default_backend.as_ref()?;
    let port = match port.parse() {
        Ok(number) => backend::Port::Number(number),
        Err(_) => backend::Port::Name(port),
    };
    let to = match backend::resolve(objects, service, &port) {
        Ok(key) => Destination::Port(key),
        Err(_) => Destination::Broken(StatusCode::SERVICE_UNAVAILABLE),
    };
    let origin = Origin {
        kind: "option",
        object: service.clone(),
        field: "--default-backend".to_owned(),
    };
    let policy = Policy::default();
    let traffic = Arc::new(Traffic::of(&policy.upstream));
    Some(target(origin, to, (Arc::new(policy), traffic)))
}

fn target(
    origin: Origin,
    to: Destination,
    (policy, traffic): (Arc<Policy>, Arc<Traffic>),
) -> Arc<Target> {
    Arc::new(Target {
        origin,
        traffic,
        policy,
        backends: vec![Backend { to, weight: 1 }],
    })
}

#[cfg(test)]
mod tests;
