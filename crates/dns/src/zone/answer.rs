//! From a query to a message: which records a name has, and how they are written.
//!
//! ```text
//!   name ──▶ Asked (labels) ──▶ zone ──▶ look: what is asked for? ──▶ records, an alias, nothing, or no such name
//!                                 ▲                                      │
//!                                 └────── follow: the alias's target ◀───┘
//! ```

use std::net::IpAddr;

use super::asked::{Asked, Within};
use super::dashed::{self, Reverse};
use super::records::{Kind, PortFacts, namespace_of, v4, v6};
use super::store::{Entry, Table, Zone};
use super::write::{Answering, HOSTS, SVC, Target};
use super::{Outcome, PodNames, service};
use crate::wire::{Builder, HEADER_BYTES, Name, Query, class, eq_names, rcode, refuse, rtype};

/// Aliases that are followed: CoreDNS' number. Nobody has more of them who does not go round in circles.
const ALIASES_MAX: usize = 10;

/// Seconds that the version of the specification may be kept: CoreDNS' number.
const VERSION_TTL: u32 = 28_800;

/// The version of the Kubernetes DNS specification that is held.
const VERSION: &[u8] = b"\x051.1.0";

/// What a name turned out to be.
pub(super) enum Found {
    /// The records are written.
    Records,
    /// It exists, without records of that type.
    NoData,
    /// It does not exist.
    NoName,
    /// It is another name for this one.
    Alias(Name),
}

impl Found {
    /// For a name that exists: whether something was written.
    pub fn written(count: u16) -> Self {
        match count {
            0 => Found::NoData,
            _ => Found::Records,
        }
    }
}

impl Zone {
    /// Answers `query` into `out`, within `bytes_max`. Where several records are equal, `turn` chooses which comes first:
    /// count it up from query to query.
    pub fn answer(
        &self,
        query: &Query<'_>,
        bytes_max: usize,
        turn: usize,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let Some(asked) = Asked::read(query.name) else {
            return Outcome::NotOurs;
        };
        let Some(within) = asked.within(&self.config) else {
            return Outcome::NotOurs;
        };
        if query.class != class::IN || matches!(query.rtype, rtype::AXFR | rtype::IXFR) {
            refuse(query, rcode::REFUSED, out);
            return Outcome::Refused;
        }
        let answering = self.answering(query, bytes_max, turn, out);
        self.follow(answering, asked, within, HEADER_BYTES, 0)
    }

    /// Answers `query` as if it had asked for `name`: its own name is an alias of that one (autopath).
    pub fn answer_as(
        &self,
        query: &Query<'_>,
        name: &Name,
        bytes_max: usize,
        turn: usize,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let asked = Asked::read(name.as_wire()).filter(|_| query.class == class::IN);
        let Some(asked) = asked else {
            return Outcome::NotOurs;
        };
        let Some(within) = asked.within(&self.config) else {
            return Outcome::NotOurs;
        };
        let mut answering = self.answering(query, bytes_max, turn, out);
        let at = answering.alias(HEADER_BYTES, name);
        self.follow(answering, asked, within, at, 0)
    }

    fn answering<'o>(
        &self,
        query: &Query<'_>,
        bytes_max: usize,
        turn: usize,
        out: &'o mut Vec<u8>,
    ) -> Answering<'o> {
        let mut builder = Builder::new(query, out, bytes_max);
        builder.set_authoritative();
        Answering {
            builder,
            rtype: query.rtype,
            ttl: self.config.options.ttl,
            turn,
            aliases: 0,
            hosts: HOSTS,
        }
    }

    /// Writes what the name at `at` has, and follows aliases while they lead to names of ours.
    fn follow<'z>(
        &'z self,
        mut answering: Answering<'_>,
        mut asked: Asked,
        mut within: Within<'z>,
        mut at: usize,
        mut aliases: usize,
    ) -> Outcome {
        // A target that was met before closes a circle; these are the places of all names met.
        let mut met = [HEADER_BYTES; ALIASES_MAX];
        loop {
            met[aliases] = at;
            let zone_at = at + asked.offset(within.labels);
            let found = self.look(&mut answering, &asked, within, at);
            let target = match found {
                Found::Records => return answering.finish(Outcome::Answered),
                Found::NoData => {
                    answering.soa(zone_at, self.serial);
                    return answering.finish(Outcome::Answered);
                }
                Found::NoName => {
                    answering.soa(zone_at, self.serial);
                    return self.deny(answering, aliases > 0);
                }
                Found::Alias(target) => target,
            };
            let begin = at;
            at = answering.alias(begin, &target);
            let circle = met[..=aliases]
                .iter()
                .any(|met| answering.is_name(*met, &target));
            aliases += 1;
            if answering.rtype == rtype::CNAME || circle || aliases == ALIASES_MAX || at == begin {
                return answering.finish(Outcome::Answered);
            }
            let next = Asked::read(target.as_wire());
            let next = next.and_then(|asked| asked.within(&self.config).map(|w| (asked, w)));
            match next {
                Some(next) => (asked, within) = next,
                None => return answering.finish(Outcome::Elsewhere(target)),
            }
        }
    }

    /// The name does not exist, as far as we know.
    fn deny(&self, mut answering: Answering<'_>, aliased: bool) -> Outcome {
        if !self.listed {
            answering.builder.set_rcode(rcode::SERVFAIL);
            return answering.finish(Outcome::NotYet);
        }
        answering.builder.set_rcode(rcode::NXDOMAIN);
        // What does not exist is the target (RFC 6604); the name that was asked for does.
        answering.finish(match aliased {
            true => Outcome::Answered,
            false => Outcome::Denied,
        })
    }

    /// Writes the records of one name.
    pub(super) fn look(
        &self,
        answering: &mut Answering<'_>,
        asked: &Asked,
        within: Within<'_>,
        at: usize,
    ) -> Found {
        let found = match within.labels {
            0 => self.apex(answering, asked, within, at),
            labels => match asked.label(labels - 1) {
                b"dns" => self.name_server(answering, asked, within, at),
                _ if within.apex.reverse => self.reverse(answering, asked, at),
                b"svc" => self.below_svc(answering, asked, within, at),
                b"pod" => self.below_pod(answering, asked, labels - 1, at),
                b"dns-version" if labels == 1 => {
                    if answering.rtype == rtype::TXT {
                        answering
                            .builder
                            .record(at, rtype::TXT, VERSION_TTL, VERSION);
                    }
                    Found::written(answering.count())
                }
                _ => Found::NoName,
            },
        };
        match found {
            Found::NoData if answering.rtype == rtype::ANY => {
                answering.any(at);
                Found::Records
            }
            found => found,
        }
    }

    /// The zone's own name.
    fn apex(
        &self,
        answering: &mut Answering<'_>,
        asked: &Asked,
        within: Within<'_>,
        at: usize,
    ) -> Found {
        match answering.rtype {
            rtype::SOA => answering.soa_answer(at, self.serial),
            rtype::NS => self.write_name_servers(answering, asked, within, at),
            _ => {}
        }
        Found::written(answering.count())
    }

    /// `ns.dns.ZONE`, who is named in SOA, is whoever answers.
    fn name_server(
        &self,
        answering: &mut Answering<'_>,
        asked: &Asked,
        within: Within<'_>,
        at: usize,
    ) -> Found {
        match within.labels {
            1 => Found::NoData,
            2 if asked.label(0) == b"ns" => {
                answering.addresses(at, self.config.options.own.iter().copied());
                Found::written(answering.count())
            }
            _ => Found::NoName,
        }
    }

    fn below_svc(
        &self,
        answering: &mut Answering<'_>,
        asked: &Asked,
        within: Within<'_>,
        at: usize,
    ) -> Found {
        let rest = within.labels - 1;
        if rest == 0 {
            return Found::NoData;
        }
        if !self.has_namespace(asked.label(rest - 1)) {
            return Found::NoName;
        }
        if rest == 1 {
            return Found::NoData;
        }
        let table = match within.apex.multicluster {
            true => Table::Imports,
            false => Table::Services,
        };
        let key = asked.span(rest - 2, rest);
        let entry = self.entry(table, key);
        let Some(named) = entry.and_then(|entry| self.named(entry, key)) else {
            return Found::NoName;
        };
        let place = service::Place {
            named,
            asked,
            labels: rest - 2,
            at,
            zone_at: at + asked.offset(within.labels),
            import: within.apex.multicluster,
            zonal: self.config.options.zonal,
            middle: SVC,
        };
        place.write(answering)
    }

    /// What has records of an entry, if its name exists at all.
    pub(super) fn named<'z>(&self, entry: &'z Entry, key: &'z [u8]) -> Option<service::Named<'z>> {
        let facts = entry.facts.as_deref()?;
        let members = entry.members.as_deref();
        let empty = members.is_none();
        let options = &self.config.options;
        let exists = match facts.kind {
            Kind::Addresses(_) => !(options.ignore_empty_service && empty),
            Kind::Headless => !empty,
            Kind::Alias(_) => true,
        };
        exists.then_some(service::Named {
            key,
            facts,
            members,
        })
    }

    /// `1-2-3-4.NAMESPACE.pod.ZONE`.
    fn below_pod(
        &self,
        answering: &mut Answering<'_>,
        asked: &Asked,
        rest: usize,
        at: usize,
    ) -> Found {
        if rest == 0 {
            return Found::NoData;
        }
        let namespace = asked.label(rest - 1);
        let mode = self.config.options.pods;
        if mode == PodNames::Disabled || !self.has_namespace(namespace) {
            return Found::NoName;
        }
        let address = match rest {
            1 => return Found::NoData,
            2 => dashed::read(asked.label(0)),
            _ => None,
        };
        let known = |address: &IpAddr| {
            mode == PodNames::Insecure || self.has_pod(namespace, address.to_canonical())
        };
        let Some(address) = address.filter(known) else {
            return Found::NoName;
        };
        answering.addresses(at, [address].into_iter());
        Found::written(answering.count())
    }

    fn reverse(&self, answering: &mut Answering<'_>, asked: &Asked, at: usize) -> Found {
        let address = match dashed::read_reverse(asked.labels()) {
            Some(Reverse::Address(address)) => address,
            Some(Reverse::Range(from, to)) => {
                let mut names = self.reverse.range(from..=to);
                let exists = names.any(|(at, _)| self.holders_of(at).next().is_some());
                return if exists { Found::NoData } else { Found::NoName };
            }
            None => return Found::NoName,
        };
        if self.holders_of(&dashed::Key::of(address)).next().is_none() {
            return Found::NoName;
        }
        if answering.rtype == rtype::PTR {
            self.write_pointers(answering, address, at);
        }
        Found::written(answering.count())
    }

    /// Services with names that have the address.
    fn holders_of(&self, at: &dashed::Key) -> impl Iterator<Item = service::Named<'_>> {
        let holders = self.reverse.get(at).map_or(&[][..], |h| h.as_slice());
        // Without a zone of names there is nothing that a pointer could lead to.
        let named = self.config.primary.is_some();
        holders.iter().filter(move |_| named).filter_map(|key| {
            if !self.has_namespace(&namespace_of(key)[1..]) {
                return None;
            }
            self.named(self.entry(Table::Services, key)?, key)
        })
    }

    /// Whoever has it as a virtual address has it alone; else it is that of an endpoint.
    fn write_pointers(&self, answering: &mut Answering<'_>, address: IpAddr, at: usize) {
        let Some(primary) = self.config.primary else {
            return;
        };
        let zone = self.config.zones[primary].name.as_wire();
        let key = dashed::Key::of(address);
        let mut holders = self.holders_of(&key);
        if let Some(named) = holders.find(|named| named.facts.addresses().contains(&address)) {
            let target = Target::service(named.key, zone);
            answering.pointer(at, &target);
            return;
        }
        for named in self.holders_of(&key) {
            let runs = named
                .members
                .into_iter()
                .flat_map(|members| members.at(address));
            for run in runs {
                answering.pointer(at, &Target::endpoint(run, named.key, zone));
            }
        }
    }

    /// NS of a zone: the Services behind which we stand, else a name of our own.
    fn write_name_servers(
        &self,
        answering: &mut Answering<'_>,
        asked: &Asked,
        within: Within<'_>,
        at: usize,
    ) {
        let zone = answering.builder.written()[at..at + asked.offset(asked.count()) + 1].to_vec();
        let servers = self.name_servers(within, &zone);
        answering.name_servers(at, &servers);
    }

    /// Names of the servers of a zone, which is written as `zone`, with their addresses.
    pub(super) fn name_servers(
        &self,
        within: Within<'_>,
        zone: &[u8],
    ) -> Vec<(Vec<u8>, Vec<IpAddr>)> {
        let primary = self
            .config
            .primary
            .map(|at| self.config.zones[at].name.as_wire());
        let zone_of_names = match within.apex.reverse {
            true => primary,
            false => Some(zone),
        };
        let mut servers: Vec<(Vec<u8>, Vec<IpAddr>)> = Vec::new();
        let own = self.own.iter().filter(|_| !within.apex.multicluster);
        for ((address, keys), zone) in own.zip(std::iter::repeat(zone_of_names)) {
            let Some(zone) = zone else { continue };
            for key in keys {
                let named = self.entry(Table::Services, key);
                let Some(named) = named.and_then(|entry| self.named(entry, key)) else {
                    continue;
                };
                for server in named.servers(*address, zone) {
                    if !servers.contains(&server) {
                        servers.push(server);
                    }
                }
            }
        }
        if servers.is_empty() {
            let mut name = b"\x02ns\x03dns".to_vec();
            name.extend_from_slice(zone);
            servers.push((name, self.config.options.own.clone()));
        }
        servers
    }
}

/// Whether a port has the labels of a name; the first character of each, `_`, is left out.
pub(super) fn is_port(port: &PortFacts, name: &[u8], protocol: &[u8]) -> bool {
    let named = port
        .name
        .as_ref()
        .is_some_and(|label| label.as_bytes() == name);
    named && is_protocol(port, protocol)
}

/// Whether a port has a name below this protocol.
pub(super) fn is_protocol(port: &PortFacts, protocol: &[u8]) -> bool {
    port.name.is_some()
        && port
            .protocol
            .as_str()
            .as_bytes()
            .eq_ignore_ascii_case(protocol)
}

impl Answering<'_> {
    /// Whether the name that is written at `at` is this one.
    fn is_name(&self, at: usize, name: &Name) -> bool {
        let name = name.as_wire();
        let written = self.builder.written().get(at..at + name.len());
        written.is_some_and(|written| eq_names(written, name))
    }

    /// Writes the addresses that have the type that was asked for.
    pub(super) fn addresses(&mut self, at: usize, addresses: impl Iterator<Item = IpAddr>) {
        for address in addresses {
            match self.rtype {
                rtype::A => v4(&address).map(|v4| self.record(at, &v4)),
                rtype::AAAA => v6(&address).map(|v6| self.record(at, &v6)),
                _ => return,
            };
        }
    }
}
