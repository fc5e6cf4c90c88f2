//! The plugins of one server block, in their fixed order.
//!
//! ```text
//!   query ─▶ acl ─▶ dns64 ─▶ loadbalance ─▶ cache ─▶ rewrite ─▶ autopath ─▶ minimal ─▶ template ─▶ hosts
//!                                                               ─▶ k8s_external ─▶ kubernetes ─▶ loop ─▶ forward
//! ```
//!
//! There are two ways through. [`Chain::at_once`] answers what needs neither waiting nor memory: our own names, when no
//! plugin before `kubernetes` has anything to do with this query, and what the cache has. Everything else goes through
//! [`Chain::answer`], which runs every plugin on whole messages.

mod acl;
mod autopath;
mod dns64;
mod fast;
mod full;
mod hosts;
pub mod limit;
mod order;
mod rewrite;
mod template;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Instant;

use crate::cache::Cache;
use crate::corefile::plugin::Plugins;
use crate::corefile::plugin::kubernetes::SearchFrom;
use crate::corefile::{Block, Place, Zone as ZoneName};
use crate::message::{Message, Question};
use crate::notify::Notifier;
use crate::server::{Client, Transport};
use crate::upstream::{Ask, Forward, TlsError, read_resolv_conf};
use crate::wire::{Edns, Name, Query, eq_names, labels, opcode};
use crate::zone::{External, Live};

pub use hosts::{HOSTS_BYTES_MAX, Hosts};

/// How often a question may lead to another (CNAME out of the cluster, rewritten targets) before it goes in circles.
pub const DEPTH_MAX: u8 = 8;

/// Who has made an answer; the label `plugin` of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Nobody: it is refused before any plugin, or there was none left.
    Nobody,
    /// `acl`.
    Acl,
    /// `cache`.
    Cache,
    /// `template`.
    Template,
    /// `hosts`.
    Hosts,
    /// `k8s_external`.
    External,
    /// `kubernetes`.
    Kubernetes,
    /// `forward`.
    Forward,
}

impl By {
    /// All of them, in their order.
    pub const ALL: [By; 8] = [
        By::Nobody,
        By::Acl,
        By::Cache,
        By::Template,
        By::Hosts,
        By::External,
        By::Kubernetes,
        By::Forward,
    ];

    /// As in a Corefile.
    pub fn name(self) -> &'static str {
        match self {
            By::Nobody => "",
            By::Acl => "acl",
            By::Cache => "cache",
            By::Template => "template",
            By::Hosts => "hosts",
            By::External => "k8s_external",
            By::Kubernetes => "kubernetes",
            By::Forward => "forward",
        }
    }
}

/// A question on its way through the plugins.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What for, and how.
    pub ask: Ask,
    /// Who asks.
    pub client: Client,
    /// How many questions have led to this one.
    pub depth: u8,
    /// It is one of those that a search path has made.
    pub searched: bool,
}

impl Asked {
    /// What a query asks.
    pub fn of(query: &Query<'_>, client: Client) -> Self {
        Asked {
            ask: Ask {
                question: Question::of(query),
                recursion_desired: query.recursion_desired,
                checking_disabled: query.checking_disabled,
                dnssec_ok: query.edns.is_some_and(|edns| edns.dnssec_ok),
                options: Vec::new(),
            },
            client,
            depth: 0,
            searched: false,
        }
    }

    /// The question as a query; the flags of the client are those that change the answer.
    pub fn query(&self) -> Query<'_> {
        let ask = &self.ask;
        Query {
            id: 0,
            opcode: opcode::QUERY,
            recursion_desired: ask.recursion_desired,
            checking_disabled: ask.checking_disabled,
            authentic_data: true,
            name: ask.question.name.as_wire(),
            rtype: ask.question.rtype,
            class: ask.question.class,
            edns: ask.dnssec_ok.then_some(Edns {
                payload: u16::MAX,
                version: 0,
                dnssec_ok: true,
                options: &[],
            }),
            serial: None,
        }
    }

    /// The same question about another name or type.
    pub fn about(&self, name: Name, rtype: u16) -> Self {
        let mut asked = self.clone();
        asked.ask.question.name = name;
        asked.ask.question.rtype = rtype;
        asked
    }

    /// The name in small letters, as text.
    pub fn name(&self) -> String {
        text_of(self.ask.question.name.as_wire())
    }
}

/// What comes out of the plugins.
#[derive(Clone, Debug)]
pub enum Reply {
    /// An answer, and who has made it.
    Message(Message, By),
    /// None.
    Drop,
}

/// The names of a cluster, as the plugins of one block see them.
#[derive(Clone)]
pub struct Names {
    /// The newest ones.
    pub live: Arc<Live>,
    /// Zones of `kubernetes`.
    pub zones: Vec<ZoneName>,
    /// What `k8s_external` makes of them.
    pub external: Option<Arc<External>>,
}

/// The plugins of one server block, ready to answer.
pub struct Chain {
    /// Its first key as CoreDNS' metrics name it: where it listens, and its zone.
    pub server: String,
    /// See [`Chain::server`].
    pub zone: String,
    /// What the file says.
    pub plugins: Plugins,
    /// The names of the cluster.
    pub names: Option<Names>,
    /// Answers that are kept.
    pub cache: Option<Cache>,
    /// Names of files.
    pub hosts: Option<Hosts>,
    /// Other servers.
    pub forwards: Vec<Forward>,
    /// The search path of this machine, for `autopath`.
    search: Vec<String>,
    /// Which of several equal records comes first.
    turn: AtomicUsize,
    /// What `fallthrough` names, on the wire.
    passes_names: Vec<Name>,
    passes_external: Vec<Name>,
    /// No plugin before `kubernetes` has to see every query.
    direct: bool,
    /// Queries to which `autopath` found an answer further down the search path.
    pub searched: AtomicU64,
    /// How many answers one network of clients gets.
    pub limit: Option<limit::Limit>,
    /// Who is told of changes of the zones.
    notifier: Option<Notifier>,
    /// Answers that could not be given, for `errors`.
    errors: crate::log::Errors,
}

/// A server block cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {source}")]
pub struct SetupError {
    /// The block.
    pub place: Place,
    /// Why not.
    pub source: TlsError,
}

/// Where the host's own search path stands, for `autopath @kubernetes`.
const RESOLV_CONF: &str = "/etc/resolv.conf";

impl Chain {
    /// Sets up a block; inside tokio's runtime.
    pub fn new(block: &Block, names: Option<Names>) -> Result<Chain, SetupError> {
        let plugins = block.plugins.clone();
        let wrong = |source| SetupError {
            place: block.place.clone(),
            source,
        };
        let forwards = plugins
            .forward
            .iter()
            .map(|options| Forward::new(options, plugins.loops));
        let forwards = forwards.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        let search = match plugins.autopath.as_ref().map(|autopath| &autopath.from) {
            Some(SearchFrom::File(path)) => read_resolv_conf(path).map_err(wrong)?.1,
            // Without the file there is only the search path of the cluster.
            Some(SearchFrom::Kubernetes) => read_resolv_conf(&PathBuf::from(RESOLV_CONF))
                .map(|(_, search)| search)
                .unwrap_or_default(),
            None => Vec::new(),
        };
        let key = block.keys.first();
        Ok(Chain {
            server: key.map_or_else(String::new, |key| {
                format!("{}://:{}", key.scheme.name(), key.port)
            }),
            zone: key.map_or_else(String::new, |key| key.zone.to_string()),
            cache: plugins.cache.as_ref().map(Cache::new),
            hosts: plugins.hosts.as_ref().map(Hosts::new),
            searched: AtomicU64::new(0),
            limit: plugins.rrl.as_ref().map(limit::Limit::new),
            notifier: names.as_ref().and_then(|names| {
                let transfer = plugins.transfer.as_ref()?;
                Notifier::new(transfer, &names.zones)
            }),
            errors: crate::log::Errors::new(plugins.errors.as_ref()),
            direct: plugins.template.is_empty() && plugins.autopath.is_none() && !plugins.minimal,
            names,
            passes_names: wire_names(
                plugins
                    .kubernetes
                    .as_ref()
                    .map(|plugin| &plugin.fallthrough),
            ),
            passes_external: wire_names(
                plugins.external.as_ref().map(|plugin| &plugin.fallthrough),
            ),
            forwards,
            search,
            turn: AtomicUsize::new(fastrand::usize(..)),
            plugins,
        })
    }

    /// What has to be done now and then; inside tokio's runtime.
    pub fn tick(&self, now: Instant) {
        self.errors.tick(now);
        if let Some(hosts) = &self.hosts {
            hosts.refresh(now);
        }
        if let (Some(notifier), Some(names)) = (&self.notifier, &self.names) {
            notifier.tick(names.live.load().serial(), now);
        }
    }
}

/// A name on the wire as text in small letters, with its last dot.
pub(crate) fn text_of(wire: &[u8]) -> String {
    let name = Name::from_wire(wire).unwrap_or_else(Name::root);
    name.lowered().to_string()
}

/// Names of zones on the wire.
fn wire_names(zones: Option<&Vec<ZoneName>>) -> Vec<Name> {
    let names = zones.into_iter().flatten();
    names
        .filter_map(|zone| Name::parse(zone.as_str()).ok())
        .collect()
}

/// Whether a zone holds a name, both on the wire.
pub(crate) fn hold(zone: &[u8], name: &[u8]) -> bool {
    let Some(begin) = name.len().checked_sub(zone.len()) else {
        return false;
    };
    let mut at = 0;
    let mut boundary = begin == 0;
    for label in labels(name) {
        at += label.len() + 1;
        boundary |= at == begin;
    }
    boundary && eq_names(&name[begin..], zone)
}

/// Whether a name is below one of several zones.
fn below(zones: &[ZoneName], name: &str) -> bool {
    zones.iter().any(|zone| zone.holds(name))
}

/// The longest of several zones that a name is below.
fn zone_of<'z>(zones: &'z [ZoneName], name: &str) -> Option<&'z ZoneName> {
    let fitting = zones.iter().filter(|zone| zone.holds(name));
    fitting.max_by_key(|zone| zone.as_str().len())
}

/// The word for a transport in logs and metrics.
pub(crate) fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        Transport::Tls => "tls",
        Transport::Https => "https",
    }
}

/// Addresses as `acl` and `autopath` see them.
fn address_of(client: &Client) -> IpAddr {
    client.address.ip().to_canonical()
}
