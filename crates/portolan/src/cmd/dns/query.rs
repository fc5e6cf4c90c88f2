//! `portolan dns query`: how a name is answered, and why. It asks the API for the objects and the zone for the answers,
//! and no DNS server at all: what it says holds for every server that is up to date.

mod why;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use portolan_dns::corefile::types::{code_name, type_name, type_of};
use portolan_dns::message::{Message, Question, Record, address, name_in};
use portolan_dns::upstream::Ask;
use portolan_dns::wire::{Name, Query, class, rtype};
use portolan_dns::zone::{Config, Index, Outcome, PodNames, Zone};
use portolan_k8s::wire;
use portolan_model::names::{Change, Kind};
use portolan_reflect::dns;
use serde::Serialize;

use why::Objects;

/// Dots from which on a name is tried as it stands first, in pods.
const NDOTS: usize = 5;
/// Search paths of a pod, the others are left out: so many are in its resolv.conf (kubelet, MaxDNSSearchPaths).
const SEARCH_MAX: usize = 32;

/// Arguments of `portolan dns query`.
#[derive(clap::Args)]
pub struct Args {
    /// The name, as a program would give it to its resolver; with a dot at its end it is not searched for.
    name: String,
    /// The type of record.
    #[arg(default_value = "A")]
    kind: String,
    /// Who asks: NAMESPACE/POD, or NAMESPACE for any of its pods [default: nobody; the name is not searched for].
    #[arg(long = "as")]
    client: Option<String>,
    /// The cluster's domain.
    #[arg(long, default_value = "cluster.local")]
    domain: String,
    /// How the API is reached [default: $KUBECONFIG, ~/.kube/config, or the pod].
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// How it is told.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Text,
    Json,
    Yaml,
}

/// All that is said.
#[derive(Debug, Serialize)]
struct Explanation {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    search: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    steps: Vec<Step>,
}

/// One name that is tried.
#[derive(Debug, Serialize)]
struct Step {
    name: String,
    result: String,
    records: Vec<String>,
    objects: Vec<String>,
    why: String,
    /// The client stops here.
    last: bool,
}

/// Explains a name.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let explanation = runtime.block_on(explain(&args))?;
    print(&explanation, args.output)?;
    let found = explanation.steps.iter().any(|step| step.last);
    Ok(if found {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn explain(args: &Args) -> anyhow::Result<Explanation> {
    let Some(kind) = type_of(&args.kind) else {
        bail!(
            "{:?} is no type of record, such as A, AAAA, SRV, PTR, CNAME",
            args.kind
        );
    };
    let client = portolan_k8s::client(args.kubeconfig.as_deref()).await?;
    let objects = objects(&client).await?;
    let zone = zone(&args.domain, &objects)?;
    let resolver = resolver(args, &client).await?;
    let mut steps = Vec::new();
    for name in resolver.names(&args.name) {
        let step = step(&name, kind, &zone, &objects, &args.domain)?;
        let last = step.last;
        steps.push(step);
        if last {
            break;
        }
    }
    Ok(Explanation {
        name: args.name.clone(),
        kind: type_name(kind),
        client: args.client.clone(),
        search: resolver.search,
        notes: resolver.notes,
        steps,
    })
}

/// Everything that names are made of.
async fn objects(client: &Client) -> anyhow::Result<Objects> {
    let all = ListParams::default();
    let namespaces = Api::<wire::Namespace>::all(client.clone())
        .list(&all)
        .await
        .context("cannot list namespaces")?;
    let services = Api::<wire::Service>::all(client.clone())
        .list(&all)
        .await
        .context("cannot list services")?;
    let slices = Api::<wire::EndpointSlice>::all(client.clone())
        .list(&all)
        .await;
    let slices = slices.context("cannot list endpointslices")?;
    Ok(Objects {
        namespaces: namespaces.iter().filter_map(dns::namespace).collect(),
        services: services
            .iter()
            .filter_map(|service| dns::service(service).0)
            .collect(),
        slices: slices.iter().map(dns::slice).collect(),
    })
}

fn zone(domain: &str, objects: &Objects) -> anyhow::Result<Zone> {
    let zones = [domain, "in-addr.arpa", "ip6.arpa"].map(Name::parse);
    let config = Config {
        zones: zones
            .into_iter()
            .collect::<Result<_, _>>()
            .context("--domain is no name")?,
        pods: PodNames::Insecure,
        ..Config::default()
    };
    let mut index = Index::new(config);
    let now_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let begin = Kind::ALL.into_iter().map(Change::Listing);
    let end = Kind::ALL.into_iter().map(Change::Listed);
    let namespaces = objects.namespaces.iter().cloned().map(Change::Namespace);
    let services = objects.services.iter().cloned().map(Change::Service);
    let slices = objects.slices.iter().cloned().map(Change::Slice);
    for change in begin
        .chain(namespaces)
        .chain(services)
        .chain(slices)
        .chain(end)
    {
        index.apply(change, now_s);
    }
    Ok(index.zone().clone())
}

/// What the client's resolv.conf says.
#[derive(Debug, Default, PartialEq)]
struct Resolver {
    search: Vec<String>,
    ndots: usize,
    notes: Vec<String>,
}

impl Resolver {
    /// The names that a resolver tries for one, in its order.
    fn names(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![format!("{absolute}.")];
        }
        let mut names: Vec<String> = self
            .search
            .iter()
            .take(SEARCH_MAX)
            .map(|end| format!("{name}.{end}."))
            .collect();
        let bare = format!("{name}.");
        match name.matches('.').count() >= self.ndots {
            true => names.insert(0, bare),
            false => names.push(bare),
        }
        names
    }
}

/// The resolver of the pod that asks, by the kubelet's rules.
async fn resolver(args: &Args, client: &Client) -> anyhow::Result<Resolver> {
    let Some(who) = &args.client else {
        return Ok(Resolver::default());
    };
    let (namespace, pod) = match who.split_once('/') {
        Some((namespace, pod)) => (namespace, Some(pod)),
        None => (who.as_str(), None),
    };
    let domain = &args.domain;
    let cluster = vec![
        format!("{namespace}.svc.{domain}"),
        format!("svc.{domain}"),
        domain.clone(),
    ];
    let mut resolver = Resolver {
        search: cluster,
        ndots: NDOTS,
        notes: Vec::new(),
    };
    let Some(pod) = pod else {
        return Ok(resolver);
    };
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    let found = api.get_opt(pod).await.context("cannot get the pod")?;
    let pod = found.with_context(|| format!("there is no pod {namespace}/{pod} (--as)"))?;
    adapt(&mut resolver, &pod);
    Ok(resolver)
}

/// `dnsPolicy` and `dnsConfig`.
fn adapt(resolver: &mut Resolver, pod: &Pod) {
    let Some(spec) = &pod.spec else {
        return;
    };
    let host = spec.host_network.unwrap_or(false);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    if policy == "Default" || policy == "ClusterFirst" && host {
        let why = if host {
            "it is in its node's network, and dnsPolicy is not ClusterFirstWithHostNet"
        } else {
            "dnsPolicy is Default"
        };
        resolver.notes.push(format!(
            "the pod asks the servers of its node, which may not know the cluster: {why}"
        ));
    }
    if policy == "Default" || policy == "None" || policy == "ClusterFirst" && host {
        resolver.search.clear();
        resolver.ndots = 1;
    }
    let Some(config) = &spec.dns_config else {
        return;
    };
    for end in config.searches.iter().flatten() {
        let end = end.trim_end_matches('.').to_string();
        if !resolver.search.contains(&end) {
            resolver.search.push(end);
        }
    }
    let options = config.options.iter().flatten().rev();
    let mut ndots = options.filter(|option| option.name.as_deref() == Some("ndots"));
    if let Some(value) = ndots
        .next()
        .and_then(|option| option.value.as_ref()?.parse().ok())
    {
        resolver.ndots = value;
    }
    if config.nameservers.iter().flatten().next().is_some() {
        resolver
            .notes
            .push("the pod has nameservers of its own in dnsConfig".to_string());
    }
}

fn step(
    name: &str,
    kind: u16,
    zone: &Zone,
    objects: &Objects,
    domain: &str,
) -> anyhow::Result<Step> {
    let wire = Name::parse(name).with_context(|| format!("{name:?} is no name"))?;
    let question = Question {
        name: wire,
        rtype: kind,
        class: class::IN,
    };
    let ask = Ask::of(question);
    let bytes = portolan_dns::message::Message::answer(ask.question.clone(), 0).encoded(None, 512);
    let mut request = bytes;
    // A query is an answer without QR.
    request[2] &= 0x7f;
    let query =
        Query::read(&request).map_err(|_| anyhow::anyhow!("{name:?} cannot be asked for"))?;
    let mut out = Vec::new();
    let outcome = zone.answer(&query, usize::from(u16::MAX), 0, &mut out);
    if outcome == Outcome::NotOurs {
        return Ok(Step {
            name: name.to_string(),
            result: "FORWARDED".to_string(),
            records: Vec::new(),
            objects: Vec::new(),
            why: format!(
                "it is not below {domain}: the server asks others for it, as its Corefile says (forward)"
            ),
            last: true,
        });
    }
    let message = Message::read(&out)?;
    let why = why::why(name, kind, &message, objects, domain);
    let exists = !message.answers.is_empty();
    let elsewhere = match &outcome {
        Outcome::Elsewhere(target) => format!("; {target} is then resolved outside the cluster"),
        _ => String::new(),
    };
    Ok(Step {
        name: name.to_string(),
        result: match (message.is_nodata() && !exists, code_name(message.rcode)) {
            (true, _) => "NODATA".to_string(),
            (false, code) => code,
        },
        records: message.answers.iter().map(written).collect(),
        objects: why.objects,
        why: format!("{}{elsewhere}", why.words),
        last: exists,
    })
}

/// A record as dig writes it.
fn written(record: &Record) -> String {
    let data = match record.rtype {
        rtype::SRV if record.data.len() > 6 => {
            let number = |at: usize| u16::from_be_bytes([record.data[at], record.data[at + 1]]);
            let target = name_in(record)
                .map(|name| name.to_string())
                .unwrap_or_default();
            format!("{} {} {} {target}", number(0), number(2), number(4))
        }
        rtype::TXT => format!(
            "{:?}",
            String::from_utf8_lossy(record.data.get(1..).unwrap_or_default())
        ),
        _ => {
            let address = address(record).map(|address| address.to_string());
            address
                .or_else(|| name_in(record).map(|name| name.to_string()))
                .unwrap_or_default()
        }
    };
    format!(
        "{} {} IN {} {data}",
        record.name,
        record.ttl,
        type_name(record.rtype)
    )
}

#[expect(clippy::print_stdout, reason = "the answer of the command")]
fn print(explanation: &Explanation, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(explanation)?),
        Output::Yaml => print!("{}", serde_norway::to_string(explanation)?),
        Output::Text => print!("{}", text(explanation)),
    }
    Ok(())
}

fn text(explanation: &Explanation) -> String {
    let mut lines = vec![format!("{} {}", explanation.name, explanation.kind)];
    if let Some(client) = &explanation.client {
        lines.push(format!(
            "  asked by {client}, search path: {}",
            explanation.search.join(" ")
        ));
    }
    lines.extend(
        explanation
            .notes
            .iter()
            .map(|note| format!("  note: {note}")),
    );
    for (number, step) in explanation.steps.iter().enumerate() {
        lines.push(format!("{}. {} → {}", number + 1, step.name, step.result));
        lines.extend(step.records.iter().map(|record| format!("     {record}")));
        lines.push(format!("     {}", step.why));
        if !step.objects.is_empty() {
            lines.push(format!("     made of: {}", step.objects.join(", ")));
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_tried_as_resolvers_do() {
        let search = ["a", "b"].map(str::to_string).to_vec();
        let resolver = Resolver {
            search,
            ndots: 2,
            notes: Vec::new(),
        };
        assert_eq!(resolver.names("x"), ["x.a.", "x.b.", "x."]);
        assert_eq!(resolver.names("x.y.z"), ["x.y.z.", "x.y.z.a.", "x.y.z.b."]);
        assert_eq!(resolver.names("x."), ["x."]);
    }

    #[test]
    fn search_paths_that_no_resolv_conf_holds_are_left_out() {
        let resolver = Resolver {
            search: (0..=SEARCH_MAX)
                .map(|number| format!("s{number}"))
                .collect(),
            ndots: NDOTS,
            notes: Vec::new(),
        };
        let names = resolver.names("x");
        assert_eq!(names.len(), SEARCH_MAX + 1);
        assert_eq!(names[SEARCH_MAX - 1..], ["x.s31.", "x."]);
    }

    #[test]
    fn a_pod_may_have_a_resolver_of_its_own() {
        let of = |spec| {
            let search = ["ns.svc.cluster.local"].map(str::to_string).to_vec();
            let mut resolver = Resolver {
                search,
                ndots: NDOTS,
                notes: Vec::new(),
            };
            let pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
            adapt(&mut resolver, &pod);
            resolver
        };
        let more = of(
            json!({"containers": [], "dnsConfig": {"searches": ["x."], "options": [{"name": "ndots", "value": "2"}]}}),
        );
        assert_eq!((more.search.len(), more.ndots), (2, 2));
        let host = of(json!({"containers": [], "hostNetwork": true}));
        assert!(host.search.is_empty() && host.notes[0].contains("ClusterFirstWithHostNet"));
        let fine = of(
            json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
        );
        assert_eq!((fine.search.len(), fine.notes.len()), (1, 0));
    }
}
