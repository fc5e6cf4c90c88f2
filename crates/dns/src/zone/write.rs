//! The records of a zone as they are written: addresses, targets, SOA.

use std::net::IpAddr;

use super::Outcome;
use super::records::{Run, v4, v6};
use crate::wire::{Builder, Name, Section, point, rtype};

/// How long resolvers may remember that there is nothing, at most: CoreDNS' number, in seconds.
const DENIAL_TTL_MAX: u32 = 300;

/// Refresh, retry and expire of SOA, in seconds: CoreDNS' numbers.
const SOA_TIMES: [u32; 3] = [7200, 1800, 86_400];

/// Length of owner (a pointer), type, class, TTL and length of a record.
pub(super) const FIXED_BYTES: usize = 12;

/// Priority, weight and port before the target of SRV.
pub(super) const SRV_BYTES: usize = 6;

/// An answer that is being written.
pub(super) struct Answering<'o> {
    pub builder: Builder<'o>,
    pub rtype: u16,
    pub ttl: u32,
    pub turn: usize,
    /// CNAME records that were written on the way to the name that is looked at.
    pub aliases: u16,
    /// Whom SOA names.
    pub hosts: Hosts<'o>,
}

/// Names in SOA, as labels before that of the zone.
#[derive(Clone, Copy)]
pub(super) struct Hosts<'c> {
    pub server: &'c [u8],
    pub person: &'c [u8],
}

/// Names in SOA of a cluster's own zones.
pub(super) const HOSTS: Hosts<'static> = Hosts {
    server: b"\x02ns\x03dns",
    person: b"\x0ahostmaster",
};

/// Stands between the labels of a Service and those of the zone.
pub(super) const SVC: &[u8] = b"\x03svc";

/// A name that records lead to, in parts: it is never put together elsewhere than in the message.
pub(super) struct Target<'a> {
    pub endpoint: Option<Run<'a>>,
    pub key: &'a [u8],
    /// [`SVC`], or nothing in zones of what is seen from outside.
    pub middle: &'static [u8],
    pub zone: Where<'a>,
}

/// The zone of a target.
#[derive(Clone, Copy)]
pub(super) enum Where<'a> {
    /// As it is written in the message: from here to there.
    Written(usize, usize),
    /// These bytes.
    Bytes(&'a [u8]),
}

impl<'a> Target<'a> {
    /// `SERVICE.NAMESPACE.svc.ZONE`.
    pub fn service(key: &'a [u8], zone: &'a [u8]) -> Self {
        let zone = Where::Bytes(zone);
        let endpoint = None;
        Target {
            endpoint,
            key,
            middle: SVC,
            zone,
        }
    }

    /// `ENDPOINT.SERVICE.NAMESPACE.svc.ZONE`.
    pub fn endpoint(run: Run<'a>, key: &'a [u8], zone: &'a [u8]) -> Self {
        let zone = Where::Bytes(zone);
        let endpoint = Some(run);
        Target {
            endpoint,
            key,
            middle: SVC,
            zone,
        }
    }

    /// Writes it out: the targets of SRV and PTR are not compressed (RFC 2782).
    pub fn write(&self, out: &mut Vec<u8>) {
        if let Some(run) = self.endpoint {
            run.write_label(out);
            out.extend_from_slice(run.cluster());
        }
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.middle);
        match self.zone {
            Where::Written(from, to) => out.extend_from_within(from..to),
            Where::Bytes(zone) => out.extend_from_slice(zone),
        }
    }
}

impl Answering<'_> {
    /// Records of the name that is looked at: an alias before it is no record of its own.
    pub fn count(&self) -> u16 {
        self.builder.count(Section::Answer) - self.aliases
    }

    pub fn finish(self, outcome: Outcome) -> Outcome {
        self.builder.finish();
        outcome
    }

    /// Writes a record of the type that was asked for.
    pub fn record(&mut self, at: usize, data: &[u8]) -> bool {
        self.builder.record(at, self.rtype, self.ttl, data)
    }

    /// Writes CNAME; says where its target is written, or `at` when it did not fit.
    pub fn alias(&mut self, at: usize, target: &Name) -> usize {
        let mut begin = at;
        self.builder.record_with(at, rtype::CNAME, self.ttl, |out| {
            begin = out.len();
            out.extend_from_slice(target.as_wire());
        });
        match begin < self.builder.position() {
            true => {
                self.aliases += 1;
                begin
            }
            false => at,
        }
    }

    /// Writes PTR.
    pub fn pointer(&mut self, at: usize, target: &Target<'_>) {
        let write = |out: &mut Vec<u8>| target.write(out);
        self.builder.record_with(at, rtype::PTR, self.ttl, write);
    }

    /// Writes SRV; says where its target is written.
    pub fn service(&mut self, at: usize, weight: u16, port: u16, target: &Target<'_>) -> usize {
        let place = self.builder.position() + FIXED_BYTES + SRV_BYTES;
        self.builder.record_with(at, rtype::SRV, self.ttl, |out| {
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(&weight.to_be_bytes());
            out.extend_from_slice(&port.to_be_bytes());
            target.write(out);
        });
        place
    }

    /// Writes an address of the name at `at` into the additional section. Says whether it fitted.
    pub fn extra(&mut self, at: usize, address: IpAddr) -> bool {
        let ttl = self.ttl;
        match (v4(&address), v6(&address)) {
            (Some(v4), _) => self.builder.record(at, rtype::A, ttl, &v4),
            (_, Some(v6)) => self.builder.record(at, rtype::AAAA, ttl, &v6),
            (None, None) => false,
        }
    }

    /// Writes NS, and who that is.
    pub fn name_servers(&mut self, at: usize, servers: &[(Vec<u8>, Vec<IpAddr>)]) {
        let mut places = Vec::with_capacity(servers.len());
        for (name, _) in servers {
            places.push(self.builder.position() + FIXED_BYTES);
            self.builder.record(at, rtype::NS, self.ttl, name);
        }
        self.builder.begin(Section::Additional);
        for ((_, addresses), place) in servers.iter().zip(places) {
            for address in addresses {
                self.extra(place, *address);
            }
        }
    }

    /// Writes SOA of the zone at `zone_at` as the reason for an answer without records (RFC 2308).
    pub fn soa(&mut self, zone_at: usize, serial: u32) {
        self.builder.begin(Section::Authority);
        self.write_soa(zone_at, serial);
    }

    /// Writes SOA as the answer.
    pub fn soa_answer(&mut self, zone_at: usize, serial: u32) {
        self.write_soa(zone_at, serial);
    }

    fn write_soa(&mut self, zone_at: usize, serial: u32) {
        let (minimum, ttl) = (self.ttl, self.ttl.min(DENIAL_TTL_MAX));
        let Hosts { server, person } = self.hosts;
        self.builder.record_with(zone_at, rtype::SOA, ttl, |out| {
            out.extend_from_slice(server);
            point(out, zone_at);
            out.extend_from_slice(person);
            point(out, zone_at);
            let [refresh, retry, expire] = SOA_TIMES;
            for number in [serial, refresh, retry, expire, minimum] {
                out.extend_from_slice(&number.to_be_bytes());
            }
        });
    }

    /// Where the answer section, which begins at `at`, ends.
    pub fn answer_end(&self, at: usize) -> usize {
        let mut end = at;
        // In a scratch message the count says less than there is, so it is the type that tells.
        let same = |end: usize| {
            let rtype = self.builder.written().get(end + 2..end + 4);
            rtype.is_some_and(|bytes| *bytes == self.rtype.to_be_bytes())
        };
        while same(end) && self.builder.written()[end] & 0xc0 == 0xc0 {
            end = self.end_of_record(end);
        }
        end
    }

    /// Where the record that begins at `at`, with a pointer as its owner, ends.
    pub fn end_of_record(&self, at: usize) -> usize {
        let written = self.builder.written();
        let length = written.get(at + FIXED_BYTES - 2..at + FIXED_BYTES);
        let length = length.map_or(0, |l| usize::from(u16::from_be_bytes([l[0], l[1]])));
        at + FIXED_BYTES + length
    }

    /// Answers ANY without telling everything (RFC 8482, section 4.2).
    pub fn any(&mut self, at: usize) {
        let data = b"\x07RFC8482\x00";
        self.builder.record(at, rtype::HINFO, self.ttl, data);
    }
}
