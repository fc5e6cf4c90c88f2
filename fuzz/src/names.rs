//! Queries of clients, messages of other servers, and Corefiles.

use std::sync::OnceLock;

use portolan_dns::corefile::{self, Sources};
use portolan_dns::message::{Message, Record};
use portolan_dns::wire::{Name, Query, eq_names, rtype};
use portolan_dns::zone::{Config, Index, Outcome, PodNames};
use portolan_model::Protocol;
use portolan_model::names::{Change, HostName, Kind, Label, Owner, Port, Service, ServiceKind};

/// The longest message there is.
const MESSAGE_BYTES_MAX: usize = 65_535;

/// A query of a client: it is refused, or answered with a message that can be read and keeps within its room.
pub fn query(bytes: &[u8]) {
    let Ok(query) = Query::read(bytes) else {
        return;
    };
    let bytes_max = query.datagram_bytes_max();
    let zone = cluster().zone();
    let mut out = Vec::new();
    let outcome = zone.answer(&query, bytes_max, bytes.len(), &mut out);
    if !matches!(outcome, Outcome::NotOurs | Outcome::Elsewhere(_)) {
        assert!(out.len() <= bytes_max, "{} of {bytes_max} bytes", out.len());
        let answer = Message::read(&out).expect("our own answers can be read");
        assert!(answer.response && answer.id == query.id);
        assert_eq!(answer.question.name.as_wire(), query.name);
    }
    if matches!(query.rtype, rtype::AXFR | rtype::IXFR) {
        let messages = zone.transfer(&query, true, 0).into_iter().flatten();
        messages.for_each(|message| drop(Message::read(&message).expect("so can transfers")));
    }
}

/// A message of another server: what has been read can be written and read again, and is then the same.
pub fn message(bytes: &[u8]) {
    let Ok(first) = Message::read(bytes) else {
        return;
    };
    let written = first.encoded(None, MESSAGE_BYTES_MAX);
    let second = Message::read(&written).expect("our own messages can be read");
    // Uncompressed, a message may be too long; then it has TC and fewer records.
    if !second.truncated {
        assert_eq!(first.question, second.question);
        same(&first.answers, &second.answers);
        same(&first.authorities, &second.authorities);
        same(&first.additionals, &second.additionals);
        assert_eq!(first.rcode & 0xf, second.rcode);
        assert_eq!(second.encoded(None, MESSAGE_BYTES_MAX), written);
    }
}

/// A name that is compressed gets the case of the one that it points to (RFC 4343, section 4.1).
fn same(first: &[Record], second: &[Record]) {
    assert_eq!(first.len(), second.len());
    for (one, other) in first.iter().zip(second) {
        assert!(eq_names(one.name.as_wire(), other.name.as_wire()));
        let rest = |of: &Record| (of.rtype, of.class, of.ttl, of.data.to_ascii_lowercase());
        assert_eq!(rest(one), rest(other));
    }
}

/// A Corefile: it is read, or the error names a place that is in it.
pub fn corefile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match corefile::parse("Corefile", text, 53, &Nothing) {
        Ok(config) => assert!(config.blocks.iter().all(|block| !block.keys.is_empty())),
        Err(error) => {
            // The end of the file may be a line of its own.
            let lines = text.split('\n').count() + 1;
            let (line, column) = (error.place.line as usize, error.place.column as usize);
            assert!((1..=lines).contains(&line), "{error}");
            assert!(column >= 1, "{error}");
            assert!(!error.words.is_empty());
        }
    }
}

/// No variables and no files.
struct Nothing;

impl Sources for Nothing {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "A").then(|| "example.org".to_owned())
    }

    fn import(&self, pattern: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        Err(format!("{pattern}: there are no files"))
    }
}

fn cluster() -> &'static Index {
    static CLUSTER: OnceLock<Index> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let zones = ["cluster.local", "in-addr.arpa", "ip6.arpa"];
        let mut index = Index::new(Config {
            zones: zones.iter().flat_map(|zone| Name::parse(zone)).collect(),
            pods: PodNames::Insecure,
            zonal: true,
            ..Config::default()
        });
        let address = [172, 30, 0, 1].into();
        let kinds = [
            ("web", ServiceKind::ClusterIp(vec![address])),
            (
                "out",
                ServiceKind::ExternalName(HostName::new("www.example.org")),
            ),
            (
                "in",
                ServiceKind::ExternalName(HostName::new("web.ns.svc.cluster.local")),
            ),
        ];
        let services = kinds.into_iter().filter_map(|(name, kind)| {
            Some(Change::Service(Service {
                owner: Owner::new("ns", name)?,
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
            }))
        });
        let begin = Kind::ALL.into_iter().map(Change::Listing);
        let namespace = Label::new("ns").map(Change::Namespace);
        let end = Kind::ALL.into_iter().map(Change::Listed);
        for change in begin.chain(namespace).chain(services).chain(end) {
            index.apply(change, 1);
        }
        index
    })
}
