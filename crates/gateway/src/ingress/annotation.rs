//! Annotations of Ingresses: those of ingress-nginx, read into [`Settings`], and what is said of each.
//!
//! ```text
//!   annotations, ConfigMap ─▶ Reader ─▶ one module for each group ─▶ Settings { policy, … } and a Note for each annotation
//! ```
//!
//! No annotation is passed over in silence, since that would be a setting which somebody believes to be in force. One
//! that restricts access and cannot be carried out closes the routes of its Ingress.

mod access;
mod auth;
mod canary;
mod catalog;
mod paths;
mod reader;
mod traffic;

use std::collections::BTreeMap;

use crate::host::Host;
use crate::policy::{Policy, Template};
use crate::problem::ObjectName;

pub(super) use auth::Wanted;
pub(super) use canary::CanaryRule;
pub use catalog::Standing;
pub(super) use reader::Reader;

/// Prefix of the annotations of ingress-nginx.
pub(super) const NGINX: &str = "nginx.ingress.kubernetes.io/";
/// Prefix of our own; there are none for Ingresses.
const OURS: &str = "portolan.dev/";

/// What is said of one annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The annotation with its prefix, or a key of the ConfigMap.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Whether it is carried out.
    pub standing: Standing,
    /// What differs, or what is wrong and what to do: whole sentences; empty if it is carried out as it was.
    pub words: String,
    /// Event reason.
    pub reason: &'static str,
}

/// How TLS is spoken to endpoints.
#[derive(Clone, Debug)]
pub(super) struct EndpointTlsWanted {
    /// A certificate for endpoints, its key, and authorities.
    pub(super) secret: ObjectName,
    /// Whether certificates of endpoints are checked.
    pub(super) verifies: bool,
    /// Whether the name is sent.
    pub(super) sends_name: bool,
}

/// What annotations say. Everything that depends on a path, a backend or a Secret is not in `policy` yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    /// What holds for all paths.
    pub(super) policy: Policy,
    /// `ssl-redirect`: hosts with a certificate send requests without TLS to where there is TLS.
    pub(super) tls_redirect: bool,
    /// `force-ssl-redirect`: all hosts do, because somebody in front ends TLS.
    pub(super) force_tls_redirect: bool,
    /// `http-redirect-code` of the ConfigMap.
    pub(super) redirect_status: http::StatusCode,
    /// `use-regex`: paths of type ImplementationSpecific are regular expressions.
    pub(super) regex: bool,
    /// `rewrite-target`.
    pub(super) rewrite: Option<Template>,
    /// `app-root`.
    pub(super) app_root: Option<Template>,
    /// `from-to-www-redirect`.
    pub(super) www: bool,
    /// `server-alias`.
    pub(super) aliases: Vec<Host>,
    /// `canary`: the Ingress is one.
    pub(super) canary: Option<CanaryRule>,
    /// `auth-type: basic`.
    pub(super) login: Option<Wanted>,
    /// `proxy-ssl-secret` and `proxy-ssl-verify`.
    pub(super) endpoint_tls: Option<EndpointTlsWanted>,
    /// `default-backend`, and `custom-http-errors`.
    pub(super) stand_in: (Option<String>, Vec<http::StatusCode>),
    /// `custom-headers`: a ConfigMap.
    pub(super) header_map: Option<ObjectName>,
}

/// Reads the annotations of an Ingress in `namespace`, with the operator's ConfigMap for what they do not say.
pub(super) fn settings(
    namespace: &str,
    name: &str,
    annotations: Option<&BTreeMap<String, String>>,
    config: &BTreeMap<String, String>,
    is_compatible: bool,
) -> (Settings, Vec<Note>) {
    let none = BTreeMap::new();
    let mut reader = Reader::new(annotations.unwrap_or(&none), config, is_compatible);
    let settings = read(&mut reader, &ObjectName::new(namespace, name));
    (settings, reader.finish())
}

/// What is said of the operator's ConfigMap.
pub(super) fn config_notes(config: &BTreeMap<String, String>, is_compatible: bool) -> Vec<Note> {
    let none = BTreeMap::new();
    let mut reader = Reader::of_config(&none, config, is_compatible);
    read(&mut reader, &ObjectName::default());
    reader.finish_config()
}

fn read(reader: &mut Reader<'_>, of: &ObjectName) -> Settings {
    let mut settings = Settings::default();
    paths::read(reader, &mut settings);
    access::read(reader, &mut settings, of);
    auth::read(reader, &mut settings, of);
    canary::read(reader, &mut settings);
    traffic::read(reader, &mut settings, of);
    settings.policy.closed |= reader.is_unsafe;
    settings
}
