//! The rules of one Ingress.

use std::sync::Arc;

use http::StatusCode;
use portolan_k8s::wire::networking::{HttpIngressPath, Ingress, IngressBackend, IngressRule};

use super::annotation::{self, Settings};
use super::{Build, backend, class, problem, target, tls};
use crate::host::Host;
use crate::path::normalize;
use crate::problem::ObjectName;
use crate::route::{
    Conditions, Filter, HostClaim, Origin, PathMatch, Pattern, Rank, Route, Target,
};

/// What holds for a whole Ingress.
struct Context<'a> {
    name: ObjectName,
    created: i64,
    ingress: &'a Ingress,
    settings: Settings,
    /// Its default backend.
    fallback: Option<Arc<Target>>,
}

impl Context<'_> {
    fn rank(&self, index: usize) -> Rank {
        Rank {
            created: self.created,
            object: self.name.clone(),
            index,
        }
    }

    fn origin(&self, field: String) -> Origin {
        Origin {
            kind: "Ingress",
            object: self.name.clone(),
            field,
        }
    }

    /// ingress-nginx sends requests to TLS by 308 wherever a host has a certificate.
    fn filters(&self, host: &Host) -> Vec<Filter> {
        let has_tls = self.settings.tls_redirect && tls::names(self.ingress, host);
        let wanted = has_tls || self.settings.force_tls_redirect;
        let redirect = Filter::RequireTls(StatusCode::PERMANENT_REDIRECT);
        wanted.then_some(redirect).into_iter().collect()
    }
}

impl Build<'_> {
    /// Takes in an Ingress that is ours.
    pub(super) fn ingress(&mut self, ingress: &Ingress) {
        let name = ObjectName::of(&ingress.metadata);
        let (settings, problems) = annotation::settings(ingress.metadata.annotations.as_ref());
        let told = problems
            .into_iter()
            .map(|(reason, message)| problem(&name, reason, message));
        self.problems.extend(told);
        let mut context = Context {
            name,
            created: class::created(ingress),
            ingress,
            settings,
            fallback: None,
        };
        let rules = ingress.spec.rules.as_deref().unwrap_or_default();
        if let Some(backend) = &ingress.spec.default_backend {
            let field = "spec.defaultBackend".to_owned();
            let force = settings.force_tls_redirect;
            let filters = match force {
                true => context.filters(&Host::Any),
                false => Vec::new(),
            };
            let target = self.target(&context, field, backend, filters);
            let order = (!rules.is_empty(), context.rank(0));
            self.fallbacks.push((order, Arc::clone(&target)));
            context.fallback = Some(target);
        } else if rules.is_empty() {
            let message =
                "It has neither rules nor a defaultBackend: nothing is served.".to_owned();
            self.problems
                .push(problem(&context.name, "NothingToServe", message));
        }
        for (index, rule) in rules.iter().enumerate() {
            self.rule(&context, index, rule);
        }
        self.tls(ingress, &context.name, context.created);
    }

    fn rule(&mut self, context: &Context<'_>, index: usize, rule: &IngressRule) {
        let field = format!("spec.rules[{index}]");
        let text = rule.host.as_deref().unwrap_or_default();
        let host = match Host::parse(text) {
            Ok(host) => host,
            Err(error) => {
                let message = format!("{field}.host is {text:?}: {error}; the rule is left out.");
                self.problems
                    .push(problem(&context.name, "InvalidHost", message));
                return;
            }
        };
        self.claims.push(HostClaim {
            host: host.clone(),
            fallback: context.fallback.clone(),
            rank: context.rank(index),
        });
        let paths = rule
            .http
            .iter()
            .flat_map(|http| http.paths.iter().flatten());
        for (number, path) in paths.enumerate() {
            let field = format!("{field}.http.paths[{number}]");
            self.path(context, &host, field, path);
        }
    }

    fn path(&mut self, context: &Context<'_>, host: &Host, field: String, path: &HttpIngressPath) {
        let matched = match path_match(path, context.settings.regex) {
            Ok(matched) => matched,
            Err(words) => {
                let message = format!("{field}: {words}; the path is left out.");
                self.problems
                    .push(problem(&context.name, "InvalidPath", message));
                return;
            }
        };
        if let Some(message) = looks_like_regex(path, &matched) {
            let message = format!("{field}.path {message}");
            self.problems
                .push(problem(&context.name, "LooksLikeRegex", message));
        }
        let target = self.target(context, field, &path.backend, context.filters(host));
        let rank = context.rank(self.routes.len());
        self.routes.push(Route {
            host: host.clone(),
            path: matched,
            conditions: Conditions::default(),
            target,
            rank,
        });
    }

    fn target(
        &mut self,
        context: &Context<'_>,
        field: String,
        backend: &IngressBackend,
        filters: Vec<Filter>,
    ) -> Arc<Target> {
        let (to, broken) = backend::destination(self.objects, &context.name.namespace, backend);
        if let Some((reason, words)) = broken {
            let message =
                format!("The backend of {field} {words}. Its requests are answered with 503.");
            self.problems.push(problem(&context.name, reason, message));
        }
        Arc::new(target(context.origin(field), to, filters))
    }
}

/// What a path matches; the error is in words.
fn path_match(path: &HttpIngressPath, regex: bool) -> Result<PathMatch, String> {
    let text = path.path.as_deref().unwrap_or_default();
    let normalized = || {
        let path =
            normalize(text).map_err(|error| format!("path {text:?} cannot be served: {error}"))?;
        Ok(path.into_owned())
    };
    match path.path_type.as_deref() {
        Some("Exact") => normalized().map(PathMatch::Exact),
        Some("Prefix") => normalized().map(PathMatch::Prefix),
        Some("ImplementationSpecific") if text.is_empty() => Ok(PathMatch::Prefix("/".to_owned())),
        Some("ImplementationSpecific") if regex => {
            let pattern = Pattern::new(text);
            let pattern =
                pattern.map_err(|error| format!("path {text:?} is no regular expression: {error}"));
            pattern.map(PathMatch::Regex)
        }
        Some("ImplementationSpecific") => normalized().map(PathMatch::Prefix),
        Some(other) => Err(format!(
            "pathType {other:?} is none of Exact, Prefix, ImplementationSpecific"
        )),
        None => Err("it has no pathType; set Exact, Prefix or ImplementationSpecific".to_owned()),
    }
}

/// A path that was written as a regular expression matches hardly anything when it is taken word for word.
fn looks_like_regex(path: &HttpIngressPath, matched: &PathMatch) -> Option<String> {
    let signs = ['(', ')', '[', ']', '*', '^', '|', '$', '+'];
    let taken_literally = !matches!(matched, PathMatch::Regex(_));
    let specific = path.path_type.as_deref() == Some("ImplementationSpecific");
    let text = matched.text();
    (specific && taken_literally && text.contains(signs)).then(|| {
        format!(
            "is {text:?}, which is taken word for word; if it is a regular expression, set the annotation \
             nginx.ingress.kubernetes.io/use-regex to \"true\"."
        )
    })
}
