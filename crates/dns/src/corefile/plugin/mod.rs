//! What each plugin can be told, as values. CoreDNS' manual pages are the source of names, forms and defaults.

pub mod cache;
pub mod filter;
pub mod forward;
pub mod hosts;
pub mod kubernetes;
pub mod listen;
pub mod pattern;
pub mod rewrite;
pub mod template;
pub mod watch;

use super::Error;
use super::args::{alone, none_of};
use super::key::Zone;
use super::lexer::Line;

pub use cache::Cache;
pub use filter::{Acl, Dns64, LoadBalance, Rrl};
pub use forward::Forward;
pub use hosts::Hosts;
pub use kubernetes::{Autopath, External, Kubernetes, Transfer};
pub use listen::{Bind, Reload, Tls};
pub use pattern::Pattern;
pub use rewrite::Rewrite;
pub use template::Template;
pub use watch::{Errors, Health, Log, Ready};

use super::Listen;

/// The plugins of one server block. Their order in the file means nothing, as in CoreDNS; that of several of one kind
/// does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plugins {
    /// Addresses and interfaces to listen at; all when there are none.
    pub bind: Vec<Bind>,
    /// Certificates of `tls://` and `https://` listeners.
    pub tls: Option<Tls>,
    /// Whether the file is looked at again.
    pub reload: Option<Reload>,
    /// Largest answer over UDP that is promised, in bytes.
    pub bufsize: Option<u16>,
    /// `/health`.
    pub health: Option<Health>,
    /// `/ready`.
    pub ready: Option<Ready>,
    /// `/metrics`.
    pub prometheus: Option<Listen>,
    /// Errors to standard output.
    pub errors: Option<Errors>,
    /// Queries to standard output.
    pub log: Vec<Log>,
    /// IPv6 addresses of what has only IPv4 ones.
    pub dns64: Option<Dns64>,
    /// Who may ask what.
    pub acl: Vec<Acl>,
    /// The order of addresses in answers.
    pub loadbalance: Option<LoadBalance>,
    /// How many answers a network of clients gets.
    pub rrl: Option<Rrl>,
    /// Answers of others, kept.
    pub cache: Option<Cache>,
    /// Questions and answers that are changed.
    pub rewrite: Vec<Rewrite>,
    /// The search path of a pod, tried here.
    pub autopath: Option<Autopath>,
    /// No authority and additional records that nobody needs.
    pub minimal: bool,
    /// Answers from patterns.
    pub template: Vec<Template>,
    /// Who may have whole zones.
    pub transfer: Option<Transfer>,
    /// Names of a hosts file.
    pub hosts: Option<Hosts>,
    /// Names of external addresses of Services.
    pub external: Option<External>,
    /// Names of the cluster.
    pub kubernetes: Option<Kubernetes>,
    /// Forwarding in circles ends the process.
    pub loops: bool,
    /// Other servers.
    pub forward: Vec<Forward>,
}

impl Plugins {
    /// The names of those that stand in the block, in the order in which they see a query.
    pub fn names(&self) -> Vec<&'static str> {
        let all = [
            ("bind", !self.bind.is_empty()),
            ("tls", self.tls.is_some()),
            ("reload", self.reload.is_some()),
            ("bufsize", self.bufsize.is_some()),
            ("health", self.health.is_some()),
            ("ready", self.ready.is_some()),
            ("prometheus", self.prometheus.is_some()),
            ("errors", self.errors.is_some()),
            ("log", !self.log.is_empty()),
            ("rrl", self.rrl.is_some()),
            ("dns64", self.dns64.is_some()),
            ("acl", !self.acl.is_empty()),
            ("loadbalance", self.loadbalance.is_some()),
            ("cache", self.cache.is_some()),
            ("rewrite", !self.rewrite.is_empty()),
            ("autopath", self.autopath.is_some()),
            ("minimal", self.minimal),
            ("template", !self.template.is_empty()),
            ("transfer", self.transfer.is_some()),
            ("hosts", self.hosts.is_some()),
            ("k8s_external", self.external.is_some()),
            ("kubernetes", self.kubernetes.is_some()),
            ("loop", self.loops),
            ("forward", !self.forward.is_empty()),
        ];
        let there = all.into_iter().filter(|(_, there)| *there);
        there.map(|(name, _)| name).collect()
    }
}

/// Every plugin, in the order in which they see a query.
pub const KNOWN: [&str; 25] = [
    "bind",
    "tls",
    "reload",
    "bufsize",
    "health",
    "ready",
    "prometheus",
    "errors",
    "log",
    "rrl",
    "dns64",
    "acl",
    "loadbalance",
    "cache",
    "rewrite",
    "autopath",
    "minimal",
    "template",
    "transfer",
    "hosts",
    "k8s_external",
    "kubernetes",
    "loop",
    "forward",
    "import",
];

/// Plugins of CoreDNS that are not here, so that the error can tell a slip from what is missing.
#[rustfmt::skip]
const FOREIGN: [&str; 38] = [
    "any", "atomic", "auto", "azure", "cancel", "chaos", "clouddns", "debug", "dnssec", "dnstap", "erratic", "etcd", "file",
    "geoip", "grpc", "grpc_server", "header", "https", "https3", "local", "metadata", "multisocket", "nomad", "nsid", "on",
    "pprof", "proxyproto", "quic", "root", "route53", "secondary", "sign", "timeouts", "trace", "tsig", "view", "whoami",
    "quic_server",
];

/// Whether there is such a plugin, here or in CoreDNS.
pub(super) fn is_known(name: &str) -> bool {
    KNOWN.contains(&name) || FOREIGN.contains(&name)
}

/// Reads the body of a server block.
pub(super) fn read(lines: &[Line], block: &[Zone]) -> Result<Plugins, Error> {
    let mut plugins = Plugins::default();
    for line in lines {
        once(&plugins, line)?;
        one(&mut plugins, line, block)?;
    }
    Ok(plugins)
}

fn one(into: &mut Plugins, line: &Line, block: &[Zone]) -> Result<(), Error> {
    match line.name().text.as_str() {
        "bind" => into.bind.push(listen::bind(line)?),
        "tls" => into.tls = Some(listen::tls(line)?),
        "reload" => into.reload = Some(listen::reload(line)?),
        "bufsize" => into.bufsize = Some(listen::bufsize(line)?),
        "health" => into.health = Some(watch::health(line)?),
        "ready" => into.ready = Some(watch::ready(line)?),
        "prometheus" => into.prometheus = Some(watch::prometheus(line)?),
        "errors" => into.errors = Some(watch::errors(line)?),
        "log" => into.log.extend(watch::log(line)?),
        "rrl" => into.rrl = Some(filter::rrl(line)?),
        "dns64" => into.dns64 = Some(filter::dns64(line)?),
        "acl" => into.acl.push(filter::acl(line, block)?),
        "loadbalance" => into.loadbalance = Some(filter::loadbalance(line)?),
        "cache" => into.cache = Some(cache::cache(line, block)?),
        "rewrite" => into.rewrite.push(rewrite::rewrite(line)?),
        "autopath" => into.autopath = Some(kubernetes::autopath(line, block)?),
        "minimal" => {
            alone(line)?;
            into.minimal = true;
        }
        "template" => into.template.push(template::template(line, block)?),
        "transfer" => {
            into.transfer = Some(kubernetes::transfer(line, block, into.transfer.take())?)
        }
        "hosts" => into.hosts = Some(hosts::hosts(line, block)?),
        "k8s_external" => into.external = Some(kubernetes::external(line, block)?),
        "kubernetes" => into.kubernetes = Some(kubernetes::kubernetes(line, block)?),
        "loop" => {
            alone(line)?;
            into.loops = true;
        }
        "forward" => into.forward.push(forward::forward(line)?),
        _ => return Err(unknown(line)),
    }
    Ok(())
}

/// Most plugins stand once in a block; a second one would be silently without effect.
fn once(plugins: &Plugins, line: &Line) -> Result<(), Error> {
    let name = line.name();
    let there = match name.text.as_str() {
        "tls" => plugins.tls.is_some(),
        "reload" => plugins.reload.is_some(),
        "bufsize" => plugins.bufsize.is_some(),
        "health" => plugins.health.is_some(),
        "ready" => plugins.ready.is_some(),
        "prometheus" => plugins.prometheus.is_some(),
        "errors" => plugins.errors.is_some(),
        "rrl" => plugins.rrl.is_some(),
        "dns64" => plugins.dns64.is_some(),
        "loadbalance" => plugins.loadbalance.is_some(),
        "cache" => plugins.cache.is_some(),
        "autopath" => plugins.autopath.is_some(),
        "hosts" => plugins.hosts.is_some(),
        "k8s_external" => plugins.external.is_some(),
        "kubernetes" => plugins.kubernetes.is_some(),
        _ => false,
    };
    match there {
        true => Err(name.wrong(format!("{} stands twice in this server block", name.text))),
        false => Ok(()),
    }
}

fn unknown(line: &Line) -> Error {
    let name = line.name();
    if FOREIGN.contains(&name.text.as_str()) {
        let possible = KNOWN.join(", ");
        let words = format!(
            "the plugin {} of CoreDNS is not in Portolan; possible: {possible}",
            name.text
        );
        return name.wrong(words);
    }
    none_of(name, "plugin", &KNOWN)
}
