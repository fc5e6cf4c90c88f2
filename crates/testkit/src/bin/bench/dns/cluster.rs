//! The names that are asked for: a cluster for the API, the same records as text for servers that read files, and
//! questions for dnsperf.

use std::fmt::Write as _;
use std::path::Path;

use portolan_testkit::dns::message;
use serde_json::Value;

use crate::api::{SERVICES, SLICES};
use crate::objects::{self, Shape};

/// 82,000 endpoints. Every other Service is headless.
pub const SHAPE: Shape = Shape {
    services: 8_200,
    endpoints: 10,
};
/// Names of each kind that are asked for, in turns.
const ASKED: u32 = 1_000;
/// Queries that are on their way at a time, and the clients who mostly ask them.
pub const OUTSTANDING: u32 = 100;
const CLIENTS: u32 = 8;
const ZONE: &str = "cluster.local";
/// The zone of the other server.
pub const ELSEWHERE: &str = "example.org";
/// What everybody's records are good for, in seconds; kubeadm's number.
const TTL: u32 = 30;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ClusterIp,
    /// As ClusterIp, from clients with one query each.
    Alone,
    Nxdomain,
    Srv,
    Cached,
}

impl Kind {
    pub const ALL: [Kind; 5] = [
        Kind::ClusterIp,
        Kind::Alone,
        Kind::Nxdomain,
        Kind::Srv,
        Kind::Cached,
    ];

    /// What reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::ClusterIp => "ClusterIP",
            Kind::Alone => "ClusterIP, one query a client",
            Kind::Nxdomain => "NXDOMAIN",
            Kind::Srv => "SRV x 10",
            Kind::Cached => "a cached name of another server",
        }
    }

    /// The code of right answers.
    pub fn code(self) -> &'static str {
        match self {
            Kind::Nxdomain => "NXDOMAIN",
            _ => "NOERROR",
        }
    }

    /// Whether answers are longer than 512 bytes.
    pub fn needs_edns(self) -> bool {
        self == Kind::Srv
    }

    /// Clients among whom the queries that are on their way are divided.
    pub fn clients(self) -> u32 {
        match self {
            Kind::Alone => OUTSTANDING,
            _ => CLIENTS,
        }
    }

    fn question(self, number: u32) -> (String, &'static str) {
        match self {
            Kind::ClusterIp | Kind::Alone => (service(2 * number), "A"),
            Kind::Nxdomain => (format!("none{number:06}.default.svc.{ZONE}"), "A"),
            Kind::Srv => (format!("_http._tcp.{}", service(2 * number + 1)), "SRV"),
            Kind::Cached => (format!("www{number:06}.{ELSEWHERE}"), "A"),
        }
    }

    /// Questions as dnsperf reads them.
    pub fn questions(self) -> String {
        let line = |number| {
            let (name, rtype) = self.question(number);
            format!("{name} {rtype}\n")
        };
        (0..ASKED).map(line).collect()
    }

    /// One query.
    pub fn query(self) -> Vec<u8> {
        let (name, rtype) = self.question(ASKED - 1);
        let payload = self.needs_edns().then_some(4096);
        message::query(&name, message::type_number(rtype), payload)
    }

    /// Whether this is the answer to [`Kind::query`].
    pub fn is_answered_by(self, answer: &[u8]) -> bool {
        let message = message::read(answer);
        let records = match self {
            Kind::Nxdomain => 0,
            Kind::Srv => SHAPE.endpoints as usize,
            Kind::ClusterIp | Kind::Alone | Kind::Cached => 1,
        };
        let [answers, ..] = &message.sections;
        message::rcode_name(message.rcode) == self.code()
            && answers.len() == records
            && !message.truncated
    }
}

fn service(number: u32) -> String {
    format!("{}.default.svc.{ZONE}", objects::name(number))
}

fn is_headless(number: u32) -> bool {
    number % 2 == 1
}

/// Everything for the API.
pub fn objects() -> impl Iterator<Item = (String, Value)> {
    (0..SHAPE.services).flat_map(|number| {
        let mut service = objects::service(number);
        if is_headless(number) {
            service["spec"]["clusterIP"] = "None".into();
        }
        [
            (SERVICES.to_owned(), service),
            (SLICES.to_owned(), SHAPE.slice(number, None)),
        ]
    })
}

/// A record of a Service or of one of its endpoints: owner, type, data.
type Record = (String, &'static str, String);

/// What a server of the Kubernetes API makes of the Services, but for reverse names.
fn records() -> impl Iterator<Item = Record> {
    (0..SHAPE.services).flat_map(|number| {
        let name = service(number);
        let port = format!("_http._tcp.{name}");
        let mut all = Vec::new();
        if !is_headless(number) {
            all.push((name.clone(), "A", objects::cluster_ip(number).to_string()));
            all.push((
                port.clone(),
                "SRV",
                format!("0 100 {} {name}.", objects::SERVICE_PORT),
            ));
        }
        for slot in 0..SHAPE.endpoints {
            let address = SHAPE.endpoint(number, slot).to_string();
            let own = format!("{}.{name}", address.replace('.', "-"));
            all.push((own.clone(), "A", address.clone()));
            if is_headless(number) {
                all.push((name.clone(), "A", address));
                let weight = 100 / SHAPE.endpoints;
                all.push((
                    port.clone(),
                    "SRV",
                    format!("0 {weight} {} {own}.", objects::ENDPOINT_PORT),
                ));
            }
        }
        all
    })
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    std::fs::write(file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))
}

/// The records as a zone file.
pub fn write_zone(file: &Path) -> Result<(), String> {
    let mut text = format!(
        "$ORIGIN {ZONE}.\n$TTL {TTL}\n@ SOA ns.dns hostmaster 1 7200 1800 86400 {TTL}\n@ NS ns.dns\nns.dns A 192.0.2.1\n"
    );
    for (name, rtype, data) in records() {
        let _ = writeln!(text, "{name}. {rtype} {data}");
    }
    write(file, &text)
}

/// The records as lines of unbound's configuration.
pub fn write_local_data(file: &Path) -> Result<(), String> {
    let mut text = format!("server:\nlocal-zone: \"{ZONE}.\" static\n");
    let _ = writeln!(
        text,
        "local-data: \"{ZONE}. {TTL} SOA ns.dns.{ZONE}. hostmaster.{ZONE}. 1 7200 1800 86400 {TTL}\""
    );
    for (name, rtype, data) in records() {
        let _ = writeln!(text, "local-data: \"{name}. {TTL} {rtype} {data}\"");
    }
    write(file, &text)
}

/// The addresses as a hosts file.
pub fn write_hosts(file: &Path) -> Result<(), String> {
    let mut text = String::new();
    for (name, _, data) in records().filter(|(_, rtype, _)| *rtype == "A") {
        let _ = writeln!(text, "{data} {name}");
    }
    write(file, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_asked_for_are_there() {
        let all: Vec<Record> = records().collect();
        let count = |(name, rtype): (String, &str)| {
            all.iter()
                .filter(|(owner, of, _)| *owner == name && *of == rtype)
                .count()
        };
        assert_eq!(count(Kind::ClusterIp.question(ASKED - 1)), 1);
        assert_eq!(count(Kind::Srv.question(ASKED - 1)), 10);
        assert_eq!(count(Kind::Nxdomain.question(0)), 0);
        let endpoints = all
            .iter()
            .filter(|(name, rtype, _)| *rtype == "A" && name.contains('-'))
            .count();
        assert_eq!(endpoints, 82_000);
        assert_eq!(Kind::Srv.questions().lines().count(), ASKED as usize);
    }

    #[test]
    fn half_of_the_services_are_headless() {
        let headless = objects().filter(|(_, object)| object["spec"]["clusterIP"] == "None");
        assert_eq!(headless.count(), 4_100);
    }
}
