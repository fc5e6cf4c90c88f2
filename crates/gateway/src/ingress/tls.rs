//! `spec.tls`: which Secret holds the certificate of which host.

use portolan_k8s::wire::Secret;
use portolan_k8s::wire::networking::{Ingress, IngressTls};

use super::{Build, problem};
use crate::host::Host;
use crate::problem::{ObjectName, Problem};
use crate::route::Rank;

/// A Secret that holds the certificate and the key for a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Which names of SNI; `Any` for what no other certificate is for.
    pub host: Host,
    /// The Secret.
    pub secret: ObjectName,
    /// The Ingress that names it, and who is first.
    pub rank: Rank,
}

/// Whether `spec.tls` of the Ingress is for `host` of one of its rules. An entry without hosts is for all of them.
pub(super) fn names(ingress: &Ingress, host: &Host) -> bool {
    let listed = |tls: &IngressTls| {
        let hosts = tls.hosts.as_deref().unwrap_or_default();
        let mut parsed = hosts.iter().filter_map(|text| Host::parse(text).ok());
        hosts.is_empty() || parsed.any(|of| covers(&of, host))
    };
    ingress.spec.tls.iter().flatten().any(listed)
}

/// Whether a certificate for `certificate` is good for all that `host` stands for.
fn covers(certificate: &Host, host: &Host) -> bool {
    match host {
        Host::Exact(name) => certificate.covers(name),
        _ => certificate == host,
    }
}

impl Build<'_> {
    /// Takes in the certificates of an Ingress that is ours.
    pub(super) fn tls(&mut self, ingress: &Ingress, name: &ObjectName, created: i64) {
        for (index, tls) in ingress.spec.tls.iter().flatten().enumerate() {
            let field = format!("spec.tls[{index}]");
            let hosts = self.tls_hosts(ingress, name, &field, tls);
            // Without a Secret, the default certificate is meant.
            let Some(secret) = tls.secret_name.as_deref().filter(|name| !name.is_empty()) else {
                continue;
            };
            let secret = ObjectName::new(&name.namespace, secret);
            if let Some(words) =
                wrong_with(&secret, self.objects.secrets.get(&secret).map(|s| &**s))
            {
                let message =
                    format!("{field}.secretName {words} The default certificate stands in for it.");
                self.problems
                    .push(problem(name, "InvalidCertificate", message));
                continue;
            }
            self.certificates
                .extend(hosts.into_iter().map(|host| Certificate {
                    host,
                    secret: secret.clone(),
                    rank: Rank {
                        created,
                        object: name.clone(),
                        index,
                    },
                }));
        }
    }

    /// The hosts that an entry is for: those that it lists, or else those of the rules.
    fn tls_hosts(
        &mut self,
        ingress: &Ingress,
        name: &ObjectName,
        field: &str,
        tls: &IngressTls,
    ) -> Vec<Host> {
        let listed = tls.hosts.as_deref().unwrap_or_default();
        if listed.is_empty() {
            let rules = ingress.spec.rules.iter().flatten();
            let hosts =
                rules.filter_map(|rule| Host::parse(rule.host.as_deref().unwrap_or_default()).ok());
            let mut hosts: Vec<Host> = hosts.collect();
            hosts.sort();
            hosts.dedup();
            return hosts;
        }
        let mut hosts = Vec::new();
        for text in listed {
            match Host::parse(text) {
                Ok(Host::Any) => {}
                Ok(host) => hosts.push(host),
                Err(error) => {
                    let message = format!("{field}.hosts has {text:?}: {error}; it is left out.");
                    self.problems.push(problem(name, "InvalidHost", message));
                }
            }
        }
        hosts
    }
}

/// What is wrong with the Secret, in words that go on after the field. Whether certificate and key belong together is
/// seen by whoever loads them.
fn wrong_with(name: &ObjectName, secret: Option<&Secret>) -> Option<String> {
    let Some(secret) = secret else {
        return Some(format!(
            "is {name}, which does not exist, or is not of type kubernetes.io/tls."
        ));
    };
    let kind = secret.r#type.as_deref().unwrap_or_default();
    if kind != "kubernetes.io/tls" {
        return Some(format!(
            "is {name}, whose type is {kind:?} and must be \"kubernetes.io/tls\"."
        ));
    }
    let data = secret.data.as_ref();
    let has = |key: &&str| {
        data.and_then(|data| data.get(*key))
            .is_some_and(|value| !value.0.is_empty())
    };
    let missing = ["tls.crt", "tls.key"].into_iter().find(|key| !has(key));
    missing.map(|key| format!("is {name}, which has no {key}."))
}

/// Each host once: the oldest Ingress has it.
pub(super) fn settle(mut all: Vec<Certificate>) -> (Vec<Certificate>, Vec<Problem>) {
    all.sort_by(|a, b| (&a.host, &a.rank).cmp(&(&b.host, &b.rank)));
    let mut kept: Vec<Certificate> = Vec::new();
    let mut problems = Vec::new();
    for certificate in all {
        let winner = kept.last().filter(|winner| winner.host == certificate.host);
        match winner {
            None => kept.push(certificate),
            Some(winner) if winner.secret == certificate.secret => {}
            Some(winner) => problems.push(problem(
                &certificate.rank.object,
                "CertificateTaken",
                format!(
                    "Secret {} is not used for {}: Ingress {} has named {} for it before.",
                    certificate.secret, certificate.host, winner.rank.object, winner.secret
                ),
            )),
        }
    }
    (kept, problems)
}
