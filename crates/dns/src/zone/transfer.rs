//! Zone transfer (RFC 5936): every record of a zone, message by message, from one value of the zone.
//!
//! The records are those that answers have: each name is asked for, and what comes back is copied. Names that only exist
//! when they are asked for (pods without verification, names of zones) are not in it.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;

use super::answer::Found;
use super::asked::Asked;
use super::dashed;
use super::records::Key;
use super::store::{Table, Zone};
use super::write::{Answering, FIXED_BYTES, HOSTS};
use crate::wire::{Builder, HEADER_BYTES, Name, Query, rtype};

/// Messages are closed when they have so many bytes: pointers do not reach further (RFC 5936, section 3.4).
const MESSAGE_BYTES: usize = 16 << 10;

/// Types that names of a cluster have.
const TYPES: [u16; 6] = [
    rtype::A,
    rtype::AAAA,
    rtype::CNAME,
    rtype::SRV,
    rtype::TXT,
    rtype::PTR,
];

/// The messages of a transfer, one after the other.
pub struct Transfer {
    zone: Zone,
    /// The query without what it borrows.
    query: Query<'static>,
    apex: Name,
    steps: VecDeque<Step>,
    records: VecDeque<Record>,
}

/// What is still to come; a step is as much as is held in memory at a time.
enum Step {
    Soa,
    Servers,
    Version,
    Service(Table, Key),
    Address(IpAddr),
}

struct Record {
    owner: Vec<u8>,
    rtype: u16,
    ttl: u32,
    data: Vec<u8>,
}

impl Zone {
    /// The transfer that `query` (AXFR or IXFR) asks for; `None` when its name is not that of a zone. A client of IXFR
    /// that holds the present serial gets SOA alone, any other one the whole zone (RFC 1995, section 4); over datagrams
    /// SOA is all that is told.
    ///
    /// A serial is a second, and in this one (`now_s`) there may be more changes: a copy gets the serial before, so that it
    /// asks once more.
    pub fn transfer(&self, query: &Query<'_>, stream: bool, now_s: u64) -> Option<Transfer> {
        let asked = Asked::read(query.name)?;
        let within = asked
            .within(&self.config)
            .filter(|within| within.labels == 0)?;
        let current = query.rtype == rtype::IXFR && query.serial == Some(self.serial);
        let mut steps = VecDeque::from([Step::Soa]);
        if stream && !current {
            steps.push_back(Step::Servers);
            match within.apex.reverse {
                true => steps.extend(self.reverse_steps(within.apex.name.as_wire())),
                false => steps.extend(self.forward_steps(within.apex.multicluster)),
            }
            steps.push_back(Step::Soa);
        }
        let mut zone = self.clone();
        if stream && self.serial == now_s as u32 {
            zone.serial = zone.serial.wrapping_sub(1);
        }
        Some(Transfer {
            zone,
            query: query.unborrowed(),
            apex: Name::from_wire(query.name)?,
            steps,
            records: VecDeque::new(),
        })
    }

    fn forward_steps(&self, imports: bool) -> impl Iterator<Item = Step> {
        let table = match imports {
            true => Table::Imports,
            false => Table::Services,
        };
        let keys: BTreeSet<Key> = self.entries(table).map(|(key, _)| key.clone()).collect();
        let services = keys.into_iter().map(move |key| Step::Service(table, key));
        [Step::Version].into_iter().chain(services)
    }

    fn reverse_steps(&self, zone: &[u8]) -> Vec<Step> {
        let asked = Asked::read(zone);
        let range = asked.and_then(|asked| match dashed::read_reverse(asked.labels())? {
            dashed::Reverse::Range(from, to) => Some((from, to)),
            dashed::Reverse::Address(_) => None,
        });
        let Some((from, to)) = range else {
            return Vec::new();
        };
        let all = self.reverse.range(from..=to);
        all.map(|(key, _)| Step::Address(key.address())).collect()
    }
}

impl Iterator for Transfer {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut record = Some(self.next_record()?);
        let apex = self.apex.clone();
        let query = self.query.about(apex.as_wire());
        let mut out = Vec::with_capacity(MESSAGE_BYTES);
        let mut builder = Builder::new(&query, &mut out, usize::MAX);
        builder.set_authoritative();
        while let Some(next) = record.take() {
            if !builder.record_of(&next.owner, next.rtype, next.ttl, &next.data) {
                self.records.push_front(next);
                break;
            }
            if builder.position() >= MESSAGE_BYTES {
                break;
            }
            record = self.next_record();
        }
        builder.finish();
        Some(out)
    }
}

impl Transfer {
    fn next_record(&mut self) -> Option<Record> {
        while self.records.is_empty() {
            let step = self.steps.pop_front()?;
            self.take(step);
        }
        self.records.pop_front()
    }

    fn take(&mut self, step: Step) {
        let apex = self.apex.as_wire().to_vec();
        match step {
            Step::Soa => self.ask(&apex, &[rtype::SOA]),
            Step::Servers => {
                self.ask(&apex, &[rtype::NS]);
                let server = [b"\x02ns\x03dns", &apex[..]].concat();
                self.ask(&server, &TYPES);
            }
            Step::Version => self.ask(&[b"\x0bdns-version", &apex[..]].concat(), &TYPES),
            Step::Address(address) => self.ask(&dashed::reverse_name(address), &TYPES),
            Step::Service(table, key) => {
                for labels in self.zone.names_of(table, &key) {
                    self.ask(&[&labels, &key[..], b"\x03svc", &apex].concat(), &TYPES);
                }
            }
        }
    }

    /// Copies the records of one name.
    fn ask(&mut self, name: &[u8], rtypes: &[u16]) {
        let mut out = Vec::new();
        for &rtype in rtypes {
            let Some(end) = self.zone.records(&self.query.about(name), rtype, &mut out) else {
                continue;
            };
            let mut at = HEADER_BYTES + name.len() + 4;
            while let Some(fixed) = out.get(at..at + FIXED_BYTES).filter(|_| at < end) {
                let length = usize::from(u16::from_be_bytes([fixed[10], fixed[11]]));
                let data = &out[at + FIXED_BYTES..at + FIXED_BYTES + length];
                self.records.push_back(Record {
                    owner: name.to_vec(),
                    rtype,
                    ttl: u32::from_be_bytes([fixed[6], fixed[7], fixed[8], fixed[9]]),
                    data: whole(rtype, data, &out),
                });
                at += FIXED_BYTES + length;
            }
        }
    }
}

/// Data without pointers: only SOA has some, which lead to the zone's name.
fn whole(rtype: u16, data: &[u8], message: &[u8]) -> Vec<u8> {
    if rtype != rtype::SOA {
        return data.to_vec();
    }
    let zone_end = crate::wire::skip_name(message, HEADER_BYTES).unwrap_or(HEADER_BYTES);
    let zone = &message[HEADER_BYTES..zone_end];
    let numbers = &data[data.len() - 20..];
    [HOSTS.server, zone, HOSTS.person, zone, numbers].concat()
}

impl Zone {
    /// Writes the answer section for one name without any limit; says where it ends.
    fn records(&self, query: &Query<'_>, rtype: u16, out: &mut Vec<u8>) -> Option<usize> {
        let asked = Asked::read(query.name)?;
        let within = asked.within(&self.config)?;
        let mut answering = Answering {
            builder: Builder::scratch(query, out),
            rtype,
            ttl: self.config.options.ttl,
            turn: 0,
            aliases: 0,
            hosts: HOSTS,
        };
        match self.look(&mut answering, &asked, within, HEADER_BYTES) {
            Found::Records => Some(answering.answer_end(HEADER_BYTES + query.name.len() + 4)),
            Found::Alias(target) if rtype == rtype::CNAME => {
                answering.alias(HEADER_BYTES, &target);
                Some(answering.builder.position())
            }
            Found::Alias(_) | Found::NoData | Found::NoName => None,
        }
    }

    /// Labels of all names at and below a Service.
    fn names_of(&self, table: Table, key: &[u8]) -> Vec<Vec<u8>> {
        let mut names = BTreeSet::from([Vec::new()]);
        let Some(entry) = self.entry(table, key) else {
            return Vec::new();
        };
        let facts = entry.facts.iter().flat_map(|facts| &facts.ports);
        let members = entry.members.iter();
        let groups = members.clone().flat_map(|members| members.groups());
        let ports = facts.chain(groups.flat_map(|group| &group.ports));
        for port in ports {
            let Some(name) = &port.name else { continue };
            let protocol = port.protocol.as_str().to_ascii_lowercase();
            let mut labels = Vec::new();
            for label in [&**name, &*protocol] {
                // A port's name of 63 bytes has no room for the underscore, and so no name.
                let Some(length) = u8::try_from(label.len() + 1).ok().filter(|l| *l < 64) else {
                    labels.clear();
                    break;
                };
                labels.extend_from_slice(&[length, b'_']);
                labels.extend_from_slice(label.as_bytes());
            }
            names.insert(labels);
        }
        for run in members.flat_map(|members| members.runs(0)) {
            let mut labels = Vec::new();
            run.write_label(&mut labels);
            labels.extend_from_slice(run.cluster());
            names.insert(labels);
        }
        names.into_iter().collect()
    }
}
