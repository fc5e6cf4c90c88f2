//! The rules of one Ingress.

use std::sync::Arc;

use portolan_k8s::wire::networking::{HttpIngressPath, Ingress, IngressBackend, IngressRule};

use super::annotation::Settings;
use super::{Build, backend, class, problem, target, tls};
use crate::host::Host;
use crate::path::normalize;
use crate::policy::Policy;
use crate::problem::ObjectName;
use crate::route::{Conditions, HostClaim, Origin, PathMatch, Pattern, Rank, Route, Target};

/// What holds for a whole Ingress.
pub(super) struct Context<'a> {
    pub(super) name: ObjectName,
    created: i64,
    ingress: &'a Ingress,
    pub(super) settings: Settings,
    /// Its default backend.
    fallback: Option<Arc<Target>>,
}

impl Context<'_> {
    pub(super) fn rank(&self, index: usize) -> Rank {
        Rank {
            created: self.created,
            object: self.name.clone(),
            index,
        }
    }

    pub(super) fn origin(&self, field: String) -> Origin {
        Origin {
            kind: "Ingress",
            object: self.name.clone(),
            field,
        }
    }

    /// The policy of the paths of a host. ingress-nginx sends requests to TLS by 308 wherever a host has a certificate.
    pub(super) fn policy(&self, host: &Host) -> Policy {
        let has_tls = self.settings.tls_redirect && tls::names(self.ingress, host);
        let wanted = has_tls || self.settings.force_tls_redirect;
        Policy {
            require_tls: wanted.then_some(self.settings.redirect_status),
            ..self.settings.policy.clone()
        }
    }
}

impl Build<'_> {
    /// Takes in an Ingress that is ours.
    pub(super) fn ingress(&mut self, ingress: &Ingress) {
        let name = ObjectName::of(&ingress.metadata);
        let settings = self.settings(ingress, &name);
        let mut context = Context {
            name,
            created: class::created(ingress),
            ingress,
            settings,
            fallback: None,
        };
        let rules = ingress.spec.rules.as_deref().unwrap_or_default();
        if context.settings.canary.is_some() {
            return self.canary(&context, rules);
        }
        if let Some(backend) = &ingress.spec.default_backend {
            let field = "spec.defaultBackend".to_owned();
            let policy = match context.settings.force_tls_redirect {
                true => context.policy(&Host::Any),
                false => context.settings.policy.clone(),
            };
            let target = self.target(&context, field, backend, policy);
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
            for host in self.hosts(&context, index, rule) {
                self.rule(&context, index, host, rule);
            }
        }
        self.tls(ingress, &context.name, context.created);
    }

    /// The hosts of a rule: its own, and every alias.
    fn hosts(&mut self, context: &Context<'_>, index: usize, rule: &IngressRule) -> Vec<Host> {
        let text = rule.host.as_deref().unwrap_or_default();
        match Host::parse(text) {
            Ok(host) => {
                let mut hosts = vec![host];
                hosts.extend(context.settings.aliases.iter().cloned());
                hosts.dedup();
                hosts
            }
            Err(error) => {
                let message =
                    format!("spec.rules[{index}].host is {text:?}: {error}; the rule is left out.");
                self.problems
                    .push(problem(&context.name, "InvalidHost", message));
                Vec::new()
            }
        }
    }

    fn rule(&mut self, context: &Context<'_>, index: usize, host: Host, rule: &IngressRule) {
        let field = format!("spec.rules[{index}]");
        self.claims.push(HostClaim {
            host: host.clone(),
            fallback: context.fallback.clone(),
            rank: context.rank(index),
        });
        self.app_root(context, &host, &field);
        self.www(context, &host, &field);
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
        let matched = match self.matched(context, host, path) {
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
        let mut policy = context.policy(host);
        policy.rewrite = self.rewrite(context, &field, &matched);
        if let (Some(affinity), PathMatch::Exact(path) | PathMatch::Prefix(path)) =
            (&mut policy.upstream.affinity, &matched)
        {
            affinity.path.get_or_insert_with(|| path.clone());
        }
        self.stand_in(context, &path.backend, &mut policy);
        let target = self.target(context, field, &path.backend, policy);
        self.slash(context, host, &matched, &target);
        self.push(context, host, matched, target);
    }

    /// Adds a route behind all that there are.
    pub(super) fn push(
        &mut self,
        context: &Context<'_>,
        host: &Host,
        path: PathMatch,
        target: Arc<Target>,
    ) {
        let rank = context.rank(self.routes.len());
        self.routes.push(Route {
            host: host.clone(),
            path,
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
        policy: Policy,
    ) -> Arc<Target> {
        let (to, broken) = backend::destination(self.objects, &context.name.namespace, backend);
        if let Some((reason, words)) = broken {
            let message =
                format!("The backend of {field} {words}. Its requests are answered with 503.");
            self.problems.push(problem(&context.name, reason, message));
        }
        target(context.origin(field), to, self.shared(policy))
    }
}

/// How expressions are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Expressions {
    /// There are none.
    None,
    /// Paths of type ImplementationSpecific are some, for whole paths.
    Specific,
    /// All paths are some, for beginnings, and case does not matter: as with ingress-nginx, once one Ingress of the host
    /// has one.
    All,
}

/// What a path matches; the error is in words.
pub(super) fn path_match(
    path: &HttpIngressPath,
    expressions: Expressions,
) -> Result<PathMatch, String> {
    let text = path.path.as_deref().unwrap_or_default();
    let normalized = || {
        let path =
            normalize(text).map_err(|error| format!("path {text:?} cannot be served: {error}"))?;
        Ok(path.into_owned())
    };
    let expression = |is_loose| {
        let pattern = Pattern::new(text, is_loose);
        let pattern =
            pattern.map_err(|error| format!("path {text:?} is no regular expression: {error}"));
        pattern.map(PathMatch::Regex)
    };
    match path.path_type.as_deref() {
        Some("Exact" | "Prefix" | "ImplementationSpecific")
            if expressions == Expressions::All && !text.is_empty() =>
        {
            expression(true)
        }
        Some("Exact") => normalized().map(PathMatch::Exact),
        Some("Prefix") => normalized().map(PathMatch::Prefix),
        Some("ImplementationSpecific") if text.is_empty() => Ok(PathMatch::Prefix("/".to_owned())),
        Some("ImplementationSpecific") if expressions == Expressions::Specific => expression(false),
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
    let needed = match specific {
        true => "",
        false => "pathType ImplementationSpecific and ",
    };
    let text = matched.text();
    (taken_literally && text.contains(signs)).then(|| {
        format!(
            "is {text:?}, which is taken word for word; if it is a regular expression, set {needed}the annotation \
             nginx.ingress.kubernetes.io/use-regex to \"true\"."
        )
    })
}
