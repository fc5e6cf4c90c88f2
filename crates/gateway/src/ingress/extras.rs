//! What annotations add to rules: canaries, redirects of whole hosts, rewrites, passwords, error pages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};
use portolan_k8s::wire::networking::{HttpIngressPath, Ingress, IngressBackend, IngressRule};

use super::annotation::{self, CanaryRule, EndpointTlsWanted, Settings, Standing, Wanted};
use super::rules::{Context, Expressions, path_match};
use super::{Build, Note, backend, problem};
use crate::endpoint_tls::{EndpointTls, Material};
use crate::host::Host;
use crate::policy::{Login, Policy, Redirect, Rewrite, StandIn, Template, Users};
use crate::problem::{ObjectName, Problem};
use crate::route::{Conditions, Destination, Origin, PathMatch, Pattern, Route, Target};

/// A canary that waits for the Ingress whose requests it gets.
pub(super) struct Waiting {
    host: Host,
    path: PathMatch,
    rule: CanaryRule,
    to: Destination,
    origin: Origin,
}

impl Build<'_> {
    /// What the annotations of an Ingress say; what is wrong is told.
    pub(super) fn settings(&mut self, ingress: &Ingress, name: &ObjectName) -> Settings {
        let (mut settings, notes) = annotation::settings(
            &name.namespace,
            &name.name,
            ingress.metadata.annotations.as_ref(),
            &self.config,
            self.options.is_compatible,
        );
        let refused = notes
            .iter()
            .filter(|note| note.standing == Standing::Refused);
        let told = refused.map(|note| problem(name, note.reason, message(note)));
        self.problems.extend(told);
        self.notes
            .extend(notes.into_iter().map(|note| (name.clone(), note)));
        if let Some(wanted) = settings.login.take() {
            settings.policy.login = self.login(name, &wanted);
            settings.policy.closed |= settings.policy.login.is_none();
        }
        if let Some(wanted) = settings.endpoint_tls.take() {
            let tls = self.endpoint_tls(name, &wanted);
            settings.policy.closed |= tls.is_none();
            settings.policy.upstream.tls = tls;
        }
        if let Some(map) = settings.header_map.take() {
            settings.policy.answer_headers = self.answer_headers(name, &map);
        }
        settings
    }

    /// What is wrong with the operator's ConfigMap.
    pub(super) fn config_problems(&mut self) {
        let Some(name) = &self.options.config else {
            return;
        };
        let wrong = |reason, message| Problem {
            kind: "ConfigMap",
            object: name.clone(),
            reason,
            message,
        };
        if !self.objects.config_maps.contains_key(name) {
            let message =
                "It does not exist: everything that it may say has its default.".to_owned();
            self.problems.push(wrong("ConfigMapNotFound", message));
        }
        let notes = annotation::config_notes(&self.config, self.options.is_compatible);
        let told = notes.iter().map(|note| {
            let message = format!("{} is {:?}: {}", note.name, note.value, note.words);
            wrong(note.reason, message)
        });
        self.problems.extend(told);
    }

    /// The hosts for which all paths are expressions as soon as one Ingress has some, as with ingress-nginx.
    pub(super) fn hosts_with_expressions(&self, ours: &[&Arc<Ingress>]) -> BTreeSet<Host> {
        if !self.options.is_compatible {
            return BTreeSet::new();
        }
        let with = ours.iter().filter(|ingress| {
            let annotations = ingress.metadata.annotations.as_ref();
            let (settings, _) = annotation::settings("", "", annotations, &self.config, true);
            settings.regex || settings.rewrite.is_some()
        });
        let rules = with.flat_map(|ingress| ingress.spec.rules.iter().flatten());
        let hosts =
            rules.filter_map(|rule| Host::parse(rule.host.as_deref().unwrap_or_default()).ok());
        hosts.collect()
    }

    /// What a path matches; the error is in words.
    pub(super) fn matched(
        &self,
        context: &Context<'_>,
        host: &Host,
        path: &HttpIngressPath,
    ) -> Result<PathMatch, String> {
        let expressions = match (self.regex_hosts.contains(host), context.settings.regex) {
            (true, _) => Expressions::All,
            (false, true) => Expressions::Specific,
            (false, false) => Expressions::None,
        };
        path_match(path, expressions)
    }

    /// The rewrite of a path, if its Ingress has one.
    pub(super) fn rewrite(
        &mut self,
        context: &Context<'_>,
        field: &str,
        matched: &PathMatch,
    ) -> Option<Rewrite> {
        let to = context.settings.rewrite.clone()?;
        let from = match matched {
            PathMatch::Regex(pattern) => pattern.clone(),
            // Everything is replaced.
            _ => Pattern::new("", true).ok()?,
        };
        if to.last_capture() > from.groups() {
            let message = format!(
                "{field}: rewrite-target names ${}, and the path has {} groups; what is missing is empty. A path with groups \
                 needs pathType ImplementationSpecific and the annotation nginx.ingress.kubernetes.io/use-regex: \"true\".",
                to.last_capture(),
                from.groups()
            );
            self.problems
                .push(problem(&context.name, "RewriteWithoutGroup", message));
        }
        Some(Rewrite { from, to })
    }

    /// Who answers instead of a backend that has no endpoints, or says that something is wrong.
    pub(super) fn stand_in(
        &mut self,
        context: &Context<'_>,
        backend: &IngressBackend,
        policy: &mut Policy,
    ) {
        let (service, at) = &context.settings.stand_in;
        let to = match (service, &self.options.default_backend) {
            (Some(name), _) => self.first_port(&ObjectName::new(&context.name.namespace, name)),
            (None, _) if at.is_empty() => return,
            (None, Some((name, port))) => {
                let port = match port.parse() {
                    Ok(number) => backend::Port::Number(number),
                    Err(_) => backend::Port::Name(port),
                };
                backend::resolve(self.objects, name, &port)
            }
            (None, None) => Err((
                "DefaultBackendMissing",
                "is none: custom-http-errors needs the annotation default-backend, or --default-backend".to_owned(),
            )),
        };
        match to {
            Ok(key) => {
                policy.stand_in = Some(StandIn {
                    to: Destination::Port(key),
                    when_empty: service.is_some(),
                    at: at.clone(),
                    told: told(&context.name, backend).into(),
                });
            }
            Err((reason, words)) => {
                let message = format!(
                    "The default backend of its annotations {words}. Answers reach clients as they are."
                );
                self.problems.push(problem(&context.name, reason, message));
            }
        }
    }

    fn first_port(&self, name: &ObjectName) -> Result<portolan_model::PortKey, backend::Broken> {
        let service = self.objects.services.get(name);
        let first = service.and_then(|service| service.spec.ports.as_ref()?.first()?.port);
        backend::resolve(
            self.objects,
            name,
            &backend::Port::Number(first.unwrap_or_default()),
        )
    }

    /// `app-root`: the path `/` leads there.
    pub(super) fn app_root(&mut self, context: &Context<'_>, host: &Host, field: &str) {
        let Some(to) = context.settings.app_root.clone() else {
            return;
        };
        let path = PathMatch::Exact("/".to_owned());
        let known = |route: &Route| {
            route.host == *host && route.path == path && route.rank.object == context.name
        };
        if self.routes.iter().any(known) {
            return;
        }
        let policy = Policy {
            redirect: Some(Redirect {
                status: StatusCode::FOUND,
                to,
            }),
            ..context.policy(host)
        };
        let target = redirecting(context.origin(format!("{field} app-root")), policy);
        self.push(context, host, path, target);
    }

    /// `from-to-www-redirect`: the host with, or without, `www.` leads here.
    pub(super) fn www(&mut self, context: &Context<'_>, host: &Host, field: &str) {
        if !context.settings.www {
            return;
        }
        let Host::Exact(name) = host else {
            let message = format!(
                "{field}.host is {host}: from-to-www-redirect is for names only; it is left out."
            );
            self.problems
                .push(problem(&context.name, "InvalidAnnotation", message));
            return;
        };
        let other = match name.strip_prefix("www.") {
            Some(rest) => rest.to_owned(),
            None => format!("www.{name}"),
        };
        let (Ok(other), Ok(to)) = (
            Host::parse(&other),
            Template::parse(&format!("$scheme://{name}$request_uri")),
        ) else {
            return;
        };
        let policy = Policy {
            redirect: Some(Redirect {
                status: context.settings.redirect_status,
                to,
            }),
            ..Policy::default()
        };
        let target = redirecting(
            context.origin(format!("{field} from-to-www-redirect")),
            policy,
        );
        let route = context.route(
            other,
            PathMatch::Prefix("/".to_owned()),
            target,
            self.www.len(),
        );
        self.www.push(route);
    }

    /// Where the gateway does as ingress-nginx did, a path without the slash of its rule is sent to the one with it.
    pub(super) fn slash(
        &mut self,
        context: &Context<'_>,
        host: &Host,
        matched: &PathMatch,
        target: &Target,
    ) {
        let (PathMatch::Exact(text) | PathMatch::Prefix(text)) = matched else {
            return;
        };
        let (true, Some(short)) = (self.options.is_compatible, text.strip_suffix('/')) else {
            return;
        };
        let Ok(to) = Template::parse("$scheme://$http_host$uri/$is_args$args") else {
            return;
        };
        if short.is_empty() {
            return;
        }
        let policy = Policy {
            redirect: Some(Redirect {
                status: StatusCode::MOVED_PERMANENTLY,
                to,
            }),
            rewrite: None,
            ..(*target.policy).clone()
        };
        let target = redirecting(target.origin.clone(), policy);
        let route = context.route(
            host.clone(),
            PathMatch::Exact(short.to_owned()),
            target,
            self.slashes.len(),
        );
        self.slashes.push(route);
    }

    /// Adds the redirects for which nobody has rules.
    pub(super) fn add_redirects(&mut self) {
        let claimed: BTreeSet<Host> = self.claims.iter().map(|claim| claim.host.clone()).collect();
        let mut taken = BTreeSet::new();
        for route in std::mem::take(&mut self.www) {
            if !claimed.contains(&route.host) && taken.insert(route.host.clone()) {
                self.routes.push(route);
            }
        }
        let known: BTreeSet<(Host, String)> = self.routes.iter().map(place).collect();
        let mut taken = BTreeSet::new();
        for route in std::mem::take(&mut self.slashes) {
            let place = place(&route);
            if !known.contains(&place) && taken.insert(place) {
                self.routes.push(route);
            }
        }
    }

    /// An Ingress that is a canary has no routes of its own.
    pub(super) fn canary(&mut self, context: &Context<'_>, rules: &[IngressRule]) {
        let Some(rule) = &context.settings.canary else {
            return;
        };
        for (index, of) in rules.iter().enumerate() {
            let Ok(host) = Host::parse(of.host.as_deref().unwrap_or_default()) else {
                continue;
            };
            let paths = of.http.iter().flat_map(|http| http.paths.iter().flatten());
            for (number, path) in paths.enumerate() {
                let field = format!("spec.rules[{index}].http.paths[{number}]");
                let Ok(matched) = self.canary_path(context, &host, path) else {
                    continue;
                };
                let (to, broken) =
                    backend::destination(self.objects, &context.name.namespace, &path.backend);
                if let Some((reason, words)) = broken {
                    let message = format!(
                        "The backend of {field} {words}. Its requests are answered with 503."
                    );
                    self.problems.push(problem(&context.name, reason, message));
                }
                self.canaries.push(Waiting {
                    host: host.clone(),
                    path: matched,
                    rule: rule.clone(),
                    to,
                    origin: context.origin(field),
                });
            }
        }
    }

    /// A canary need not repeat `use-regex`: its annotations are those of the other Ingress.
    fn canary_path(
        &self,
        context: &Context<'_>,
        host: &Host,
        path: &HttpIngressPath,
    ) -> Result<PathMatch, String> {
        let plain = self.matched(context, host, path)?;
        let is_known = |matched: &PathMatch| {
            self.routes
                .iter()
                .any(|r| r.host == *host && r.path == *matched)
        };
        match path_match(path, Expressions::Specific) {
            Ok(expression) if !is_known(&plain) && is_known(&expression) => Ok(expression),
            _ => Ok(plain),
        }
    }

    /// Gives canaries to the routes with the same host and path.
    pub(super) fn add_canaries(&mut self) {
        for waiting in std::mem::take(&mut self.canaries) {
            let same =
                |route: &&mut Route| route.host == waiting.host && route.path == waiting.path;
            let Some(route) = self.routes.iter_mut().find(same) else {
                let message = format!(
                    "{} is a canary of nothing: no other Ingress has {}{} with the same pathType.",
                    waiting.origin.field,
                    waiting.host,
                    waiting.path.text()
                );
                self.problems
                    .push(problem(&waiting.origin.object, "CanaryAlone", message));
                continue;
            };
            if route.target.policy.canary.is_some() {
                let message = format!(
                    "{} is not used: {} has a canary before it.",
                    waiting.origin.field, route.target.origin
                );
                self.problems
                    .push(problem(&waiting.origin.object, "CanaryTaken", message));
                continue;
            }
            let mut target = (*route.target).clone();
            let mut policy = (*target.policy).clone();
            policy.canary = Some(waiting.rule.with(waiting.to));
            target.policy = Arc::new(policy);
            route.target = Arc::new(target);
        }
    }

    fn endpoint_tls(
        &mut self,
        of: &ObjectName,
        wanted: &EndpointTlsWanted,
    ) -> Option<Arc<EndpointTls>> {
        let secret = self.objects.secrets.get(&wanted.secret);
        let data = secret.and_then(|secret| secret.data.as_ref());
        let value = |key: &str| {
            let value = data.and_then(|data| data.get(key));
            value.map(|value| value.0.as_slice()).unwrap_or_default()
        };
        let identity = (value("tls.crt"), value("tls.key"));
        let made = EndpointTls::new(Material {
            authorities: wanted.verifies.then(|| value("ca.crt")),
            identity: Some(identity).filter(|(chain, _)| !chain.is_empty()),
            sends_name: wanted.sends_name,
        });
        let words = match (data, made) {
            (Some(_), Ok(tls)) => return Some(Arc::new(tls)),
            (Some(_), Err(error)) => error.to_string(),
            (None, _) => {
                "it does not exist, or is neither of type kubernetes.io/tls nor Opaque".to_owned()
            }
        };
        let message = format!(
            "proxy-ssl-secret {}: {words}. All requests are answered with 503 until it is mended.",
            wanted.secret
        );
        self.problems.push(problem(of, "AccessClosed", message));
        None
    }

    fn login(&mut self, of: &ObjectName, wanted: &Wanted) -> Option<Login> {
        let secret = self.objects.secrets.get(&wanted.secret);
        let data = secret.and_then(|secret| secret.data.as_ref());
        let text = data.and_then(|data| match wanted.is_map {
            false => data
                .get("auth")
                .map(|file| String::from_utf8_lossy(&file.0).into_owned()),
            true => Some(
                data.iter()
                    .map(|(name, hash)| format!("{name}:{}\n", String::from_utf8_lossy(&hash.0)))
                    .collect(),
            ),
        });
        let Some(text) = text else {
            let message = format!(
                "auth-secret is {}, which does not exist, is not of type Opaque, or has no key \"auth\" with a file of \
                 htpasswd. All requests are answered with 503 until it is mended.",
                wanted.secret
            );
            self.problems.push(problem(of, "AccessClosed", message));
            return None;
        };
        let (users, errors) = Users::read(&text);
        for error in errors {
            let message = format!(
                "auth-secret {}: {error}. That user is not let in.",
                wanted.secret
            );
            self.problems.push(problem(of, "InvalidPassword", message));
        }
        Some(Login {
            realm: wanted.realm.clone(),
            users: Arc::new(users),
        })
    }

    fn answer_headers(
        &mut self,
        of: &ObjectName,
        map: &ObjectName,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let Some(found) = self.objects.config_maps.get(map) else {
            let message = format!(
                "custom-headers is the ConfigMap {map}, which does not exist, or has no label portolan.dev/response-headers: \
                 \"true\". Answers get no headers of it."
            );
            self.problems
                .push(problem(of, "ConfigMapNotFound", message));
            return Vec::new();
        };
        let mut headers = Vec::new();
        for (name, value) in found.data.iter().flatten() {
            match (HeaderName::try_from(name), HeaderValue::from_str(value)) {
                (Ok(name), Ok(value)) if !is_framing(&name) => headers.push((name, value)),
                _ => {
                    let message = format!(
                        "custom-headers {map}: {name} cannot be a header of answers; it is left out."
                    );
                    self.problems
                        .push(problem(of, "InvalidAnnotation", message));
                }
            }
        }
        headers
    }
}

/// Headers that say how a body is written; nobody may choose them.
fn is_framing(name: &HeaderName) -> bool {
    use http::header::{CONNECTION, CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING, UPGRADE};
    [
        CONNECTION,
        CONTENT_LENGTH,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ]
    .contains(name)
}

fn message(note: &Note) -> String {
    format!(
        "Annotation {} is {:?}: {}",
        note.name, note.value, note.words
    )
}

fn place(route: &Route) -> (Host, String) {
    let text = route.path.text();
    (route.host.clone(), text.to_owned())
}

fn redirecting(origin: Origin, policy: Policy) -> Arc<Target> {
    Arc::new(Target {
        origin,
        traffic: Arc::default(),
        policy: Arc::new(policy),
        backends: Vec::new(),
    })
}

/// What whoever answers instead of a backend is told of it, as ingress-nginx does.
fn told(of: &ObjectName, backend: &IngressBackend) -> Vec<(HeaderName, HeaderValue)> {
    let service = backend.service.as_ref();
    let port = service.map(|service| {
        let number = service.port.number.map(|number| number.to_string());
        number.or(service.port.name.clone()).unwrap_or_default()
    });
    let all: BTreeMap<&'static str, String> = BTreeMap::from([
        ("x-namespace", of.namespace.to_string()),
        ("x-ingress-name", of.name.to_string()),
        (
            "x-service-name",
            service
                .map(|service| service.name.clone())
                .unwrap_or_default(),
        ),
        ("x-service-port", port.unwrap_or_default()),
    ]);
    let pairs = all.into_iter().filter_map(|(name, value)| {
        Some((
            HeaderName::from_static(name),
            HeaderValue::from_str(&value).ok()?,
        ))
    });
    pairs.collect()
}

impl Context<'_> {
    fn route(&self, host: Host, path: PathMatch, target: Arc<Target>, index: usize) -> Route {
        Route {
            host,
            path,
            conditions: Conditions::default(),
            target,
            rank: self.rank(index),
        }
    }
}
