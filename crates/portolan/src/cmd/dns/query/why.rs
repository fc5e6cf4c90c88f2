//! Why a name has the records that it has, or none. Pure: objects and an answer in, words out.

use portolan_dns::message::Message;
use portolan_dns::wire::rtype;
use portolan_model::names::{Backs, Endpoint, Label, Owner, Service, ServiceKind, Slice};

/// What names are made of.
pub(super) struct Objects {
    pub namespaces: Vec<Label>,
    pub services: Vec<Service>,
    pub slices: Vec<Slice>,
}

/// Words, and the objects that they speak of.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Why {
    pub objects: Vec<String>,
    pub words: String,
}

impl Why {
    fn none(words: impl Into<String>) -> Why {
        Why {
            objects: Vec::new(),
            words: words.into(),
        }
    }
}

/// Explains the answer to a name (absolute) below the domain, or a reverse one.
pub(super) fn why(
    name: &str,
    kind: u16,
    message: &Message,
    objects: &Objects,
    domain: &str,
) -> Why {
    let name = name.to_ascii_lowercase();
    let end = format!("{}.", domain.trim_end_matches('.').to_ascii_lowercase());
    let Some(inner) = name
        .strip_suffix(&end)
        .map(|inner| inner.trim_end_matches('.'))
    else {
        return reverse(message, objects);
    };
    let labels: Vec<&str> = inner.split('.').filter(|label| !label.is_empty()).collect();
    match labels.as_slice() {
        [] => Why::none("it is the zone itself"),
        ["dns-version"] => Why::none("it tells the version of the Kubernetes DNS specification"),
        ["svc" | "pod"] => Why::none("names of Services and pods are below it"),
        [before @ .., "svc"] => service(before, kind, objects),
        [_, namespace, "pod"] => pod(namespace, objects),
        [namespace, "pod"] => pod(namespace, objects),
        _ => Why::none(format!(
            "names of the cluster end with svc.{end} or pod.{end}; this one may be meant for the world"
        )),
    }
}

fn reverse(message: &Message, objects: &Objects) -> Why {
    let _ = objects;
    match message.answers.is_empty() {
        true => {
            Why::none("no Service has this ClusterIP, and no endpoint of a Service this address")
        }
        false => Why::none("a Service has this ClusterIP, or an endpoint of it this address"),
    }
}

fn namespace_missing(namespace: &str, objects: &Objects) -> Option<Why> {
    let there = objects.namespaces.iter().any(|label| **label == *namespace);
    (!there).then(|| Why::none(format!("there is no namespace {namespace}")))
}

fn pod(namespace: &str, objects: &Objects) -> Why {
    namespace_missing(namespace, objects).unwrap_or_else(|| {
        Why::none("the name of a pod is its address with dashes; servers echo it (pods insecure), check it (verified), or know none (disabled)")
    })
}

fn service(labels: &[&str], kind: u16, objects: &Objects) -> Why {
    let (before, name, namespace) = match labels {
        [namespace] => {
            let words = "names of the namespace's Services are below it";
            return namespace_missing(namespace, objects).unwrap_or_else(|| Why::none(words));
        }
        [before @ .., name, namespace] => (before, *name, *namespace),
        [] => return Why::none("names of Services are below it"),
    };
    if let Some(missing) = namespace_missing(namespace, objects) {
        return missing;
    }
    let owner = Owner::new(namespace, name);
    let found = objects
        .services
        .iter()
        .find(|service| Some(&service.owner) == owner.as_ref());
    let Some(service) = found else {
        return Why::none(format!(
            "there is no Service {name} in namespace {namespace}{}",
            elsewhere(name, objects)
        ));
    };
    let mut why = of_service(service, before, kind, objects);
    why.objects.insert(0, format!("Service {namespace}/{name}"));
    why
}

/// Other namespaces that have a Service of that name: the usual slip.
fn elsewhere(name: &str, objects: &Objects) -> String {
    let same = objects
        .services
        .iter()
        .filter(|service| *service.owner.name == *name);
    let others: Vec<String> = same
        .map(|service| service.owner.namespace.to_string())
        .collect();
    match others.is_empty() {
        true => String::new(),
        false => format!("; namespaces with one: {}", others.join(", ")),
    }
}

fn of_service(service: &Service, before: &[&str], kind: u16, objects: &Objects) -> Why {
    let slices: Vec<&Slice> = objects
        .slices
        .iter()
        .filter(|slice| slice.backs == Backs::Service(service.owner.clone()))
        .collect();
    let made = slices.iter().map(|slice| {
        format!(
            "EndpointSlice {}/{}",
            slice.object.namespace, slice.object.name
        )
    });
    let made: Vec<String> = made.collect();
    let words = match (&service.kind, before) {
        (ServiceKind::ExternalName(Some(target)), []) => {
            format!("an ExternalName: another name for {}", &**target)
        }
        (ServiceKind::ExternalName(None), _) => {
            return Why::none(
                "its externalName is none that DNS can say (an IP address, or too long a label)",
            );
        }
        (ServiceKind::ExternalName(_), _) => {
            return Why::none("an ExternalName has no names below it");
        }
        (ServiceKind::Pending, _) => return Why::none("it has no ClusterIP yet"),
        (_, [port, protocol]) if port.starts_with('_') || protocol.starts_with('_') => {
            ports(service, &slices, port, protocol)
        }
        (ServiceKind::ClusterIp(addresses), []) => {
            match addresses.iter().any(|address| fits(kind, *address)) {
                true => "the addresses of the Service itself (its ClusterIPs)".to_string(),
                false => {
                    let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                    format!(
                        "the Service has no address of that kind, but {}",
                        all.join(", ")
                    )
                }
            }
        }
        (ServiceKind::Headless, []) => headless(&slices, service.publish_not_ready),
        (_, [host]) => endpoint(&slices, host, service.publish_not_ready),
        _ => "below a Service are _PORT._PROTOCOL and the names of its endpoints".to_string(),
    };
    let objects = match (&service.kind, before) {
        (ServiceKind::ClusterIp(_), []) => Vec::new(),
        _ => made,
    };
    Why { objects, words }
}

fn fits(kind: u16, address: std::net::IpAddr) -> bool {
    match kind {
        rtype::A => address.is_ipv4(),
        rtype::AAAA => address.is_ipv6(),
        _ => true,
    }
}

fn endpoints<'s>(slices: &'s [&Slice]) -> impl Iterator<Item = &'s Endpoint> {
    slices.iter().flat_map(|slice| &slice.endpoints)
}

fn headless(slices: &[&Slice], all_ready: bool) -> String {
    let count = endpoints(slices).count();
    let ready = endpoints(slices)
        .filter(|endpoint| endpoint.ready || all_ready)
        .count();
    match (count, ready) {
        (0, _) => {
            "a headless Service without endpoints: no pod has its labels, or none has an address"
                .to_string()
        }
        (count, 0) => format!("a headless Service with {count} endpoints, none of which is ready"),
        (count, ready) => format!("a headless Service: its {ready} ready endpoints of {count}"),
    }
}

fn endpoint(slices: &[&Slice], host: &str, all_ready: bool) -> String {
    let named = |endpoint: &&Endpoint| {
        let hostname = endpoint
            .hostname
            .as_ref()
            .is_some_and(|name| **name == *host);
        hostname
            || endpoint
                .addresses
                .iter()
                .any(|address| address.to_string().replace(['.', ':'], "-") == host)
    };
    match endpoints(slices).find(named) {
        Some(found) if found.ready || all_ready => format!("the endpoint {host}"),
        Some(_) => format!("the endpoint {host} is not ready"),
        None => {
            let names: Vec<&str> = endpoints(slices)
                .filter_map(|endpoint| endpoint.hostname.as_deref())
                .collect();
            let names = if names.is_empty() {
                "none has a hostname".to_string()
            } else {
                names.join(", ")
            };
            format!("no endpoint is called {host}; hostnames: {names}")
        }
    }
}

fn ports(service: &Service, slices: &[&Slice], port: &str, protocol: &str) -> String {
    let (port, protocol) = (
        port.trim_start_matches('_'),
        protocol.trim_start_matches('_'),
    );
    let of_slices = slices.iter().flat_map(|slice| &slice.ports);
    let all: Vec<_> = match service.kind {
        ServiceKind::Headless => of_slices.collect(),
        _ => service.ports.iter().collect(),
    };
    let fits = |known: &&&portolan_model::names::Port| {
        known.name.as_deref() == Some(port)
            && known.protocol.to_string().eq_ignore_ascii_case(protocol)
    };
    if all.iter().any(|known| fits(&known)) {
        return format!("its port {port} over {}", protocol.to_uppercase());
    }
    let named = all
        .iter()
        .filter_map(|known| Some(format!("{}/{}", known.name.as_deref()?, known.protocol)));
    let named: Vec<String> = named.collect();
    match named.is_empty() {
        true => format!("it has no port {port}: none of its ports has a name"),
        false => format!(
            "it has no port {port}/{}; it has: {}",
            protocol.to_uppercase(),
            named.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use portolan_model::Protocol;
    use portolan_model::names::{HostName, ObjectName, Port};

    use super::*;

    fn service_of(name: &str, kind: ServiceKind) -> Service {
        Service {
            owner: Owner::new("shop", name).unwrap(),
            kind,
            ports: vec![Port {
                name: Label::new("http"),
                protocol: Protocol::Tcp,
                number: 80,
            }],
            external: Vec::new(),
            external_names: Vec::new(),
            publish_not_ready: false,
            selects: true,
        }
    }

    fn objects() -> Objects {
        let endpoint = |host: &str, ready| Endpoint {
            addresses: vec!["10.1.0.5".parse().unwrap()],
            hostname: Label::new(host),
            pod: None,
            ready,
            zone: None,
        };
        let slice = |name: &str, endpoints| Slice {
            object: ObjectName::new("shop", &format!("{name}-1")),
            backs: Backs::Service(Owner::new("shop", name).unwrap()),
            ports: vec![Port {
                name: Label::new("sql"),
                protocol: Protocol::Tcp,
                number: 5432,
            }],
            endpoints,
            changed_ms: None,
        };
        let target = HostName::new("www.example.org");
        Objects {
            namespaces: ["shop", "bank"]
                .map(|name| Label::new(name).unwrap())
                .to_vec(),
            services: vec![
                service_of(
                    "web",
                    ServiceKind::ClusterIp(vec!["172.30.0.1".parse().unwrap()]),
                ),
                service_of("db", ServiceKind::Headless),
                service_of("ill", ServiceKind::Headless),
                service_of("out", ServiceKind::ExternalName(target)),
                service_of("wrong", ServiceKind::ExternalName(None)),
            ],
            slices: vec![
                slice("db", vec![endpoint("db-0", true), endpoint("db-1", false)]),
                slice("ill", vec![endpoint("ill-0", false)]),
            ],
        }
    }

    #[test]
    fn every_answer_has_its_reason() {
        let objects = objects();
        let question = portolan_dns::message::Question {
            name: portolan_dns::wire::Name::root(),
            rtype: rtype::A,
            class: 1,
        };
        let message = Message::answer(question, 0);
        for (name, kind, words) in [
            (
                "web.shop.svc.cluster.local.",
                rtype::A,
                "the addresses of the Service itself",
            ),
            (
                "web.shop.svc.cluster.local.",
                rtype::AAAA,
                "no address of that kind, but 172.30.0.1",
            ),
            (
                "db.shop.svc.cluster.local.",
                rtype::A,
                "its 1 ready endpoints of 2",
            ),
            (
                "ill.shop.svc.cluster.local.",
                rtype::A,
                "1 endpoints, none of which is ready",
            ),
            (
                "db-1.db.shop.svc.cluster.local.",
                rtype::A,
                "the endpoint db-1 is not ready",
            ),
            (
                "db-7.db.shop.svc.cluster.local.",
                rtype::A,
                "no endpoint is called db-7; hostnames: db-0, db-1",
            ),
            (
                "out.shop.svc.cluster.local.",
                rtype::A,
                "another name for www.example.org",
            ),
            (
                "wrong.shop.svc.cluster.local.",
                rtype::A,
                "none that DNS can say",
            ),
            (
                "_http._tcp.web.shop.svc.cluster.local.",
                rtype::SRV,
                "its port http over TCP",
            ),
            (
                "_https._tcp.web.shop.svc.cluster.local.",
                rtype::SRV,
                "no port https/TCP; it has: http/TCP",
            ),
            (
                "_sql._tcp.db.shop.svc.cluster.local.",
                rtype::SRV,
                "its port sql over TCP",
            ),
            (
                "web.bank.svc.cluster.local.",
                rtype::A,
                "no Service web in namespace bank; namespaces with one: shop",
            ),
            (
                "web.none.svc.cluster.local.",
                rtype::A,
                "there is no namespace none",
            ),
            (
                "example.org.cluster.local.",
                rtype::A,
                "may be meant for the world",
            ),
            (
                "10-1-0-5.shop.pod.cluster.local.",
                rtype::A,
                "the name of a pod is its address",
            ),
            (
                "1.0.30.172.in-addr.arpa.",
                rtype::PTR,
                "no Service has this ClusterIP",
            ),
            ("cluster.local.", rtype::A, "the zone itself"),
        ] {
            let why = why(name, kind, &message, &objects, "cluster.local");
            assert!(why.words.contains(words), "{name}: {}", why.words);
        }
        let why = why(
            "db.shop.svc.cluster.local.",
            rtype::A,
            &message,
            &objects,
            "cluster.local",
        );
        assert_eq!(why.objects, ["Service shop/db", "EndpointSlice shop/db-1"]);
    }
}
