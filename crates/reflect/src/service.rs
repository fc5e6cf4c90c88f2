//! One Service as the tracker keeps it: its ports, without endpoints.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use portolan_k8s::wire;
use portolan_model::{
    Affinity, Balance, Families, Family, PortKey, Problem, Scheduler, ServiceName, ServicePort,
    TrafficPolicy,
};

use crate::address::{parse_cidr, parse_ip};
use crate::annotation;
use crate::names::Names;

/// `sessionAffinityConfig.clientIP.timeoutSeconds` when nothing is given.
const AFFINITY_TIMEOUT_SECONDS: i64 = 10_800;

/// What of a Service matters.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ServiceFacts {
    /// Its ports, with no endpoints; none for a Service that is not proxied (ExternalName, and headless ones unless they
    /// are wanted).
    pub(crate) ports: Vec<ServicePort>,
    /// What could not be understood.
    pub(crate) problems: Vec<Problem>,
}

/// Reads a Service; a headless one has ports for those only who want them.
pub(crate) fn facts(
    name: &ServiceName,
    names: &mut Names,
    service: &wire::Service,
    with_headless: bool,
) -> ServiceFacts {
    let mut reader = Reader {
        name,
        names,
        with_headless,
        facts: ServiceFacts::default(),
    };
    reader.read(service);
    reader.facts
}

struct Reader<'a> {
    name: &'a ServiceName,
    names: &'a mut Names,
    with_headless: bool,
    facts: ServiceFacts,
}

impl Reader<'_> {
    fn read(&mut self, service: &wire::Service) {
        let spec = &service.spec;
        let mut given = given_cluster_ips(spec);
        let headless = given
            .first()
            .is_none_or(|ip| ip.is_empty() || *ip == "None");
        let is_left_out = headless && !self.with_headless;
        if spec.r#type.as_deref() == Some("ExternalName") || is_left_out {
            return;
        }
        if headless {
            given.clear();
        }
        let mut cluster_ips = self.addresses("spec.clusterIPs", &given);
        let families = families(spec, &cluster_ips);
        let (is_node_local, more) = self.node_local(service);
        cluster_ips.extend(more.into_iter().filter(|_| !headless));
        let external_ips = owned(&spec.external_ips);
        let external_ips = self.addresses_in(families, "spec.externalIPs", &external_ips);
        let load_balancer_ips = load_balancer_ips(service);
        let load_balancer_ips =
            self.addresses_in(families, "status.loadBalancer.ingress", &load_balancer_ips);
        let base = ServicePort {
            created: service
                .metadata
                .creation_timestamp
                .as_ref()
                .map_or(0, |t| t.0.as_second()),
            cluster_ips,
            external_ips,
            load_balancer_ips,
            source_ranges: self.source_ranges(&owned(&spec.load_balancer_source_ranges)),
            affinity: affinity(spec),
            balance: self.balance(service),
            scheduler: self.scheduler(service),
            slow_start: self.slow_start(service),
            is_watched: self.is_watched(service),
            is_node_local,
            internal_policy: policy(&spec.internal_traffic_policy),
            external_policy: policy(&spec.external_traffic_policy),
            health_check_node_port: health_check_node_port(spec),
            families,
            ..ServicePort::new(
                PortKey::new("", "", "", portolan_model::Protocol::Tcp),
                NonZeroU16::MIN,
            )
        };
        for port in spec.ports.iter().flatten() {
            self.port(&base, port);
        }
    }

    fn port(&mut self, base: &ServicePort, port: &wire::Port) {
        let name = port.name.as_deref().unwrap_or_default();
        let protocol = match port.protocol.as_deref().unwrap_or_default().parse() {
            Ok(protocol) => protocol,
            Err(words) => {
                return self.wrong(
                    "InvalidPort",
                    format!("Port {name:?} is left out: {words}."),
                );
            }
        };
        let Some(number) = port.port.and_then(port_number) else {
            return self.wrong(
                "InvalidPort",
                format!("Port {name:?} is left out: it has no number between 1 and 65535."),
            );
        };
        let node_port = port.node_port.unwrap_or(0);
        if node_port != 0 && port_number(node_port).is_none() {
            self.wrong(
                "InvalidPort",
                format!("nodePort {node_port} of port {name:?} is not between 1 and 65535."),
            );
        }
        let key = PortKey {
            service: self.name.clone(),
            port: self.names.share(name),
            protocol,
        };
        if self.facts.ports.iter().any(|other| other.key == key) {
            return self.wrong(
                "InvalidPort",
                format!("Port {name:?} with protocol {protocol} is there twice."),
            );
        }
        let node_port = port_number(node_port);
        self.facts.ports.push(ServicePort {
            key,
            port: number,
            node_port,
            ..base.clone()
        });
    }

    fn addresses(&mut self, field: &str, texts: &[&str]) -> Vec<IpAddr> {
        let mut all = Vec::new();
        for text in texts {
            match parse_ip(text) {
                Some(ip) if !all.contains(&ip) => all.push(ip),
                Some(_) => {}
                None => self.wrong(
                    "InvalidAddress",
                    format!("{field}: {text:?} is no IP address; it is left out."),
                ),
            }
        }
        all
    }

    fn addresses_in(&mut self, families: Families, field: &str, texts: &[&str]) -> Vec<IpAddr> {
        let mut all = self.addresses(field, texts);
        for ip in all.extract_if(.., |ip| !families.contains(Family::of(*ip))) {
            self.wrong(
                "InvalidAddress",
                format!(
                    "{field}: {ip} is left out, because the Service has no ClusterIP of its family."
                ),
            );
        }
        all
    }

    fn source_ranges(&mut self, texts: &[&str]) -> Vec<ipnet::IpNet> {
        let mut all = Vec::new();
        for text in texts {
            match parse_cidr(text) {
                Some(range) => all.push(range),
                None => self.wrong(
                    "InvalidAddress",
                    format!("spec.loadBalancerSourceRanges: {text:?} is no CIDR; it is left out."),
                ),
            }
        }
        all
    }

    fn balance(&mut self, service: &wire::Service) -> Balance {
        annotation::balance(&service.metadata).unwrap_or_else(|message| {
            self.wrong("InvalidAnnotation", message);
            Balance::default()
        })
    }

    fn scheduler(&mut self, service: &wire::Service) -> Option<Scheduler> {
        annotation::scheduler(&service.metadata).unwrap_or_else(|message| {
            self.wrong("InvalidAnnotation", message);
            None
        })
    }

    fn is_watched(&mut self, service: &wire::Service) -> bool {
        annotation::is_watched(&service.metadata).unwrap_or_else(|message| {
            self.wrong("InvalidAnnotation", message);
            true
        })
    }

    fn node_local(&mut self, service: &wire::Service) -> (bool, Vec<IpAddr>) {
        let (is_node_local, addresses, problem) = annotation::node_local(&service.metadata);
        if let Some(message) = problem {
            self.wrong("InvalidAnnotation", message);
        }
        (is_node_local, addresses)
    }

    fn slow_start(&mut self, service: &wire::Service) -> Option<NonZeroU16> {
        annotation::slow_start(&service.metadata).unwrap_or_else(|message| {
            self.wrong("InvalidAnnotation", message);
            None
        })
    }

    fn wrong(&mut self, reason: &'static str, message: String) {
        self.facts.problems.push(Problem {
            service: self.name.clone(),
            reason,
            message,
        });
    }
}

fn given_cluster_ips(spec: &wire::ServiceSpec) -> Vec<&str> {
    match spec.cluster_ips.as_deref() {
        None | Some([]) => spec.cluster_ip.as_deref().into_iter().collect(),
        Some(list) => list.iter().map(String::as_str).collect(),
    }
}

/// The families of the ClusterIPs: they are what a proxier per family would have.
fn families(spec: &wire::ServiceSpec, cluster_ips: &[IpAddr]) -> Families {
    let of_ips: Families = cluster_ips.iter().map(|ip| Family::of(*ip)).collect();
    let named = spec
        .ip_families
        .iter()
        .flatten()
        .filter_map(|text| match text.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        });
    match of_ips.is_empty() {
        true => named.collect(),
        false => of_ips,
    }
}

/// Addresses with `ipMode` VIP or none; `Proxy` asks that packets go through the load balancer (KEP-1860).
fn load_balancer_ips(service: &wire::Service) -> Vec<&str> {
    let all = service.status.load_balancer.ingress.iter().flatten();
    let vip = all.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    vip.filter_map(|ingress| ingress.ip.as_deref())
        .filter(|ip| !ip.is_empty())
        .collect()
}

fn affinity(spec: &wire::ServiceSpec) -> Option<Affinity> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref());
    let given = config.and_then(|client| client.timeout_seconds);
    let seconds = given
        .filter(|seconds| *seconds > 0)
        .unwrap_or(AFFINITY_TIMEOUT_SECONDS);
    Some(Affinity {
        timeout: Duration::from_secs(seconds.unsigned_abs()),
    })
}

fn policy(text: &Option<String>) -> TrafficPolicy {
    match text.as_deref() {
        Some("Local") => TrafficPolicy::Local,
        _ => TrafficPolicy::Cluster,
    }
}

/// Only a LoadBalancer Service with externalTrafficPolicy Local has one (kube-proxy).
fn health_check_node_port(spec: &wire::ServiceSpec) -> Option<NonZeroU16> {
    let wanted = spec.r#type.as_deref() == Some("LoadBalancer")
        && policy(&spec.external_traffic_policy) == TrafficPolicy::Local;
    spec.health_check_node_port
        .filter(|_| wanted)
        .and_then(port_number)
}

fn port_number(number: i64) -> Option<NonZeroU16> {
    u16::try_from(number).ok().and_then(NonZeroU16::new)
}

fn owned(list: &Option<Vec<String>>) -> Vec<&str> {
    list.iter().flatten().map(String::as_str).collect()
}
