//! `kubernetes`, `k8s_external`, `autopath`, `transfer`: names of the cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::corefile::Error;
use crate::corefile::args::{
    Args, alone, body, duration, fallthrough, no_body, none_of, number, unknown, zone_list,
    zones_or,
};
use crate::corefile::key::Zone;
use crate::corefile::lexer::{Line, Word};

/// Longest time to live that the plugin takes, in seconds.
pub const TTL_MAX: u32 = 3600;

/// Which names of the cluster are answered, and where its API is.
#[derive(Clone, Debug, PartialEq)]
pub struct Kubernetes {
    /// Forward and reverse zones.
    pub zones: Vec<Zone>,
    /// The API's URL, when no kubeconfig says it.
    pub endpoint: Option<String>,
    /// Certificate, key and authority for it.
    pub tls: Option<[PathBuf; 3]>,
    /// A kubeconfig file, and the context of it.
    pub kubeconfig: Option<(PathBuf, Option<String>)>,
    /// Only these; all when empty.
    pub namespaces: Vec<String>,
    /// Only namespaces with such labels.
    pub namespace_labels: Option<String>,
    /// Only Services, EndpointSlices and pods with such labels.
    pub labels: Option<String>,
    /// Names of pods.
    pub pods: Pods,
    /// Endpoints without a hostname have their pod's name.
    pub endpoint_pod_names: bool,
    /// Seconds.
    pub ttl: u32,
    /// Without EndpointSlices.
    pub no_endpoints: bool,
    /// Names below these that do not exist go on to the next plugin.
    pub fallthrough: Vec<Zone>,
    /// A Service with a ClusterIP but without ready endpoints does not exist.
    pub ignore_empty: bool,
    /// Zones of ServiceImports.
    pub multicluster: Vec<Zone>,
    /// Names of endpoints in one zone of the cloud.
    pub zonal: bool,
    /// How long the start waits for the first lists.
    pub startup_timeout: Duration,
}

/// What `1-2-3-4.namespace.pod.cluster.local` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pods {
    /// It does not exist.
    Disabled,
    /// The address in it, as kube-dns did.
    Insecure,
    /// The address in it when a pod of that namespace has it.
    Verified,
}

/// `k8s_external [ZONE…] { … }`.
#[derive(Clone, Debug, PartialEq)]
pub struct External {
    /// Names below them are `service.namespace.ZONE`.
    pub zones: Vec<Zone>,
    /// The label whose name the zone's servers have.
    pub apex: String,
    /// Seconds.
    pub ttl: u32,
    /// Also headless Services.
    pub headless: bool,
    /// Names below these that do not exist go on to the next plugin.
    pub fallthrough: Vec<Zone>,
}

/// `autopath [ZONE…] RESOLV-CONF`.
#[derive(Clone, Debug, PartialEq)]
pub struct Autopath {
    /// Names below them are searched.
    pub zones: Vec<Zone>,
    /// Where the search path comes from.
    pub from: SearchFrom,
}

/// Where a search path comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum SearchFrom {
    /// The namespace of the pod that asks.
    Kubernetes,
    /// The `search` line of a file.
    File(PathBuf),
}

/// `transfer [ZONE…] { to ADDRESS… }`; several of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transfer {
    /// Zones and who may have them; the longest zone decides.
    pub rules: Vec<(Vec<Zone>, Receivers)>,
}

/// Who may have a zone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Receivers {
    /// `*`.
    pub anyone: bool,
    /// These, who are also told of changes.
    pub addresses: Vec<SocketAddr>,
}

const OPTIONS: [&str; 19] = [
    "endpoint",
    "tls",
    "kubeconfig",
    "apiserver_qps",
    "apiserver_burst",
    "apiserver_max_inflight",
    "namespaces",
    "namespace_labels",
    "labels",
    "pods",
    "endpoint_pod_names",
    "ttl",
    "noendpoints",
    "fallthrough",
    "ignore",
    "multicluster",
    "zonal",
    "startup_timeout",
    "upstream",
];

pub(super) fn kubernetes(line: &Line, block: &[Zone]) -> Result<Kubernetes, Error> {
    let mut kubernetes = Kubernetes {
        zones: zones_or(Args::of(line).rest(), block)?,
        endpoint: None,
        tls: None,
        kubeconfig: None,
        namespaces: Vec::new(),
        namespace_labels: None,
        labels: None,
        pods: Pods::Disabled,
        endpoint_pod_names: false,
        ttl: 5,
        no_endpoints: false,
        fallthrough: Vec::new(),
        ignore_empty: false,
        multicluster: Vec::new(),
        zonal: false,
        startup_timeout: Duration::from_secs(5),
    };
    for option in body(line) {
        let mut args = Args::of(option);
        let known = cluster(&mut kubernetes, option, &mut args)?
            || names(&mut kubernetes, option, &mut args)?;
        if !known {
            return Err(unknown(option, line, &OPTIONS));
        }
        no_body(option)?;
        args.end()?;
    }
    consistent(&kubernetes, line)?;
    Ok(kubernetes)
}

fn consistent(kubernetes: &Kubernetes, line: &Line) -> Result<(), Error> {
    let wrong = |words: &str| Err(line.name().wrong(words));
    if kubernetes.zones.iter().all(Zone::is_reverse) {
        return wrong("kubernetes needs a zone that is not a reverse one, such as cluster.local");
    }
    if !kubernetes.namespaces.is_empty() && kubernetes.namespace_labels.is_some() {
        return wrong("namespaces and namespace_labels cannot both be given");
    }
    if kubernetes.no_endpoints && kubernetes.zonal {
        return wrong("zonal names are names of endpoints, which noendpoints leaves out");
    }
    let strange = kubernetes
        .multicluster
        .iter()
        .find(|zone| !kubernetes.zones.contains(zone));
    match strange {
        Some(zone) => wrong(&format!(
            "the multicluster zone {zone} is not among the zones of kubernetes"
        )),
        None => Ok(()),
    }
}

/// Options about the API and what is watched.
fn cluster(into: &mut Kubernetes, option: &Line, args: &mut Args) -> Result<bool, Error> {
    match option.name().text.as_str() {
        "endpoint" => {
            let first = args.need_rest("a URL")?.first();
            into.endpoint = first.map(|word| word.text.clone());
        }
        "tls" => {
            let what = "CERT KEY CA";
            let mut path = || args.need(what).map(|word| PathBuf::from(&word.text));
            into.tls = Some([path()?, path()?, path()?]);
        }
        "kubeconfig" => {
            let file = args.need("a file")?.text.clone().into();
            into.kubeconfig = Some((file, args.take().map(|word| word.text.clone())));
        }
        // One watch for each kind is all that is asked of the API: there is nothing to hold back.
        "apiserver_qps" | "apiserver_burst" | "apiserver_max_inflight" => {
            number(args.need("a number")?, "number", 0.0..=1e9_f64)?;
        }
        "namespaces" => {
            let words = args.need_rest("a namespace")?;
            into.namespaces
                .extend(words.iter().map(|word| word.text.clone()));
        }
        "namespace_labels" => {
            into.namespace_labels = Some(selector(args.need_rest("a label selector")?))
        }
        "labels" => into.labels = Some(selector(args.need_rest("a label selector")?)),
        "startup_timeout" => into.startup_timeout = duration(args.need("a time")?)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Options about names and answers.
fn names(into: &mut Kubernetes, option: &Line, args: &mut Args) -> Result<bool, Error> {
    match option.name().text.as_str() {
        "pods" => into.pods = pods(args.need("disabled, insecure or verified")?)?,
        "endpoint_pod_names" => into.endpoint_pod_names = true,
        "ttl" => {
            into.ttl = number(
                args.need("seconds")?,
                "time to live in seconds",
                0..=TTL_MAX,
            )?
        }
        "noendpoints" => into.no_endpoints = true,
        "fallthrough" => {
            into.fallthrough = fallthrough(option)?;
            args.rest();
        }
        "ignore" => {
            let word = args.need("empty_service")?;
            if word.text != "empty_service" {
                return Err(none_of(word, "thing to ignore", &["empty_service"]));
            }
            into.ignore_empty = true;
        }
        "multicluster" => into
            .multicluster
            .extend(zone_list(args.need_rest("a zone")?)?),
        "zonal" => into.zonal = true,
        // Names outside the cluster are always resolved by the server itself, as in CoreDNS since 1.3.
        "upstream" => {
            args.rest();
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn selector(words: &[Word]) -> String {
    let words: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    words.join(" ")
}

fn pods(word: &Word) -> Result<Pods, Error> {
    match word.text.as_str() {
        "disabled" => Ok(Pods::Disabled),
        "insecure" => Ok(Pods::Insecure),
        "verified" => Ok(Pods::Verified),
        _ => Err(none_of(
            word,
            "mode of pods",
            &["disabled", "insecure", "verified"],
        )),
    }
}

pub(super) fn external(line: &Line, block: &[Zone]) -> Result<External, Error> {
    let mut external = External {
        zones: zones_or(Args::of(line).rest(), block)?,
        apex: "dns".to_string(),
        ttl: 5,
        headless: false,
        fallthrough: Vec::new(),
    };
    for option in body(line) {
        let mut args = Args::of(option);
        match option.name().text.as_str() {
            "apex" => external.apex = args.need("a label")?.text.clone(),
            "ttl" => {
                external.ttl = number(
                    args.need("seconds")?,
                    "time to live in seconds",
                    0..=TTL_MAX,
                )?
            }
            "headless" => {
                alone(option)?;
                external.headless = true;
            }
            "fallthrough" => {
                external.fallthrough = fallthrough(option)?;
                args.rest();
            }
            _ => {
                return Err(unknown(
                    option,
                    line,
                    &["apex", "ttl", "headless", "fallthrough"],
                ));
            }
        }
        args.end()?;
    }
    Ok(external)
}

pub(super) fn autopath(line: &Line, block: &[Zone]) -> Result<Autopath, Error> {
    no_body(line)?;
    let words = Args::of(line).need_rest("@kubernetes, or a file such as /etc/resolv.conf")?;
    let (last, zones) = words
        .split_last()
        .ok_or_else(|| line.name().wrong("autopath needs @kubernetes or a file"))?;
    let from = match last.text.strip_prefix('@') {
        Some("kubernetes") => SearchFrom::Kubernetes,
        Some(_) => {
            return Err(none_of(
                last,
                "plugin that knows search paths",
                &["@kubernetes"],
            ));
        }
        None => SearchFrom::File(PathBuf::from(&last.text)),
    };
    let zones = zones_or(zones, block)?;
    Ok(Autopath { zones, from })
}

pub(super) fn transfer(
    line: &Line,
    block: &[Zone],
    before: Option<Transfer>,
) -> Result<Transfer, Error> {
    let mut transfer = before.unwrap_or_default();
    let zones = zones_or(Args::of(line).rest(), block)?;
    let mut to = Receivers::default();
    for option in body(line) {
        match option.name().text.as_str() {
            "to" => receivers(&mut to, Args::of(option).need_rest("an address or *")?)?,
            _ => return Err(unknown(option, line, &["to"])),
        }
        no_body(option)?;
    }
    if !to.anyone && to.addresses.is_empty() {
        return Err(line
            .name()
            .wrong("transfer needs a line \"to ADDRESS…\" or \"to *\""));
    }
    transfer.rules.push((zones, to));
    Ok(transfer)
}

fn receivers(into: &mut Receivers, words: &[Word]) -> Result<(), Error> {
    for word in words {
        let text = word.text.as_str();
        let alone = || Some(SocketAddr::new(text.parse().ok()?, 53));
        match text.parse().ok().or_else(alone) {
            _ if text == "*" => into.anyone = true,
            Some(address) => into.addresses.push(address),
            None => return Err(word.wrong(format!("{text:?} is neither an address nor *"))),
        }
    }
    Ok(())
}
