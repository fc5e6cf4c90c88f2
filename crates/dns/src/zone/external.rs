//! Names of Services as they are seen from outside the cluster: CoreDNS' plugin `k8s_external`.
//!
//! `SERVICE.NAMESPACE.ZONE` has the `externalIPs` and load balancer addresses of a Service, or is an alias of the name of
//! its load balancer. It is answered from the same [`Zone`] as the cluster's own names.

use std::net::IpAddr;

use portolan_model::names::Label;

use super::asked::{Asked, Within};
use super::config::Prepared;
use super::dashed::{self, Reverse};
use super::records::{External as Outside, Kind, namespace_of};
use super::service::{Named, Place};
use super::store::{Entry, Table};
use super::write::{Answering, Hosts, Target, Where};
use super::{Config, Outcome, Zone};
use crate::wire::{Builder, HEADER_BYTES, Name, Query, class, rcode, refuse, rtype};

use super::answer::Found;

/// Zones for the outside.
pub struct External {
    config: Prepared,
    apex: Label,
    headless: bool,
    /// Labels before the zone in SOA and NS.
    server: Vec<u8>,
    person: Vec<u8>,
}

impl External {
    /// Zones with these names. `apex` is the label below which the server's own name stands (`dns`); with `headless`
    /// endpoints of headless Services have names, too; `own` are the addresses at which these answers are given.
    pub fn new(zones: Vec<Name>, apex: Label, headless: bool, ttl: u32, own: Vec<IpAddr>) -> Self {
        let below = |label: &[u8]| {
            let mut name = label.to_vec();
            name.push(apex.len() as u8);
            name.extend_from_slice(apex.as_bytes());
            name
        };
        External {
            server: below(b"\x03ns1"),
            person: below(b"\x0ahostmaster"),
            config: Prepared::new(Config {
                zones,
                ttl,
                own,
                ..Config::default()
            }),
            apex,
            headless,
        }
    }

    /// As [`Zone::answer`], from what `zone` has.
    pub fn answer(
        &self,
        zone: &Zone,
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
        // The answer borrows these while the buffer is borrowed, too.
        let hosts = Hosts {
            server: &self.server,
            person: &self.person,
        };
        let mut builder = Builder::new(query, out, bytes_max);
        builder.set_authoritative();
        let answering = Answering {
            builder,
            rtype: query.rtype,
            ttl: self.config.options.ttl,
            turn,
            aliases: 0,
            hosts,
        };
        self.write(zone, answering, &asked, within)
    }

    fn write(
        &self,
        zone: &Zone,
        mut answering: Answering<'_>,
        asked: &Asked,
        within: Within<'_>,
    ) -> Outcome {
        let zone_at = HEADER_BYTES + asked.offset(within.labels);
        match self.look(zone, &mut answering, asked, within) {
            Found::Records => answering.finish(Outcome::Answered),
            Found::NoData if answering.rtype == rtype::ANY => {
                answering.any(HEADER_BYTES);
                answering.finish(Outcome::Answered)
            }
            Found::NoData => {
                answering.soa(zone_at, zone.serial);
                answering.finish(Outcome::Answered)
            }
            Found::NoName => {
                answering.soa(zone_at, zone.serial);
                let (code, outcome) = match zone.listed {
                    true => (rcode::NXDOMAIN, Outcome::Denied),
                    false => (rcode::SERVFAIL, Outcome::NotYet),
                };
                answering.builder.set_rcode(code);
                answering.finish(outcome)
            }
            Found::Alias(target) => {
                answering.alias(HEADER_BYTES, &target);
                let outcome = match answering.rtype {
                    rtype::CNAME => Outcome::Answered,
                    _ => Outcome::Elsewhere(target),
                };
                answering.finish(outcome)
            }
        }
    }

    fn look(
        &self,
        zone: &Zone,
        answering: &mut Answering<'_>,
        asked: &Asked,
        within: Within<'_>,
    ) -> Found {
        let labels = within.labels;
        if labels == 0 {
            return self.apex(zone, answering, asked);
        }
        let last = asked.label(labels - 1);
        if last == self.apex.as_bytes() {
            return match labels {
                1 => Found::NoData,
                2 if asked.label(0) == b"ns1" => {
                    answering.addresses(HEADER_BYTES, self.config.options.own.iter().copied());
                    Found::written(answering.count())
                }
                _ => Found::NoName,
            };
        }
        if within.apex.reverse {
            return self.reverse(zone, answering, asked);
        }
        if !zone.has_namespace(last) {
            return Found::NoName;
        }
        if labels == 1 {
            return Found::NoData;
        }
        let key = asked.span(labels - 2, labels);
        let Some(entry) = zone.entry(Table::Services, key) else {
            return Found::NoName;
        };
        let zone_at = HEADER_BYTES + asked.offset(labels);
        let place = |named| Place {
            named,
            asked,
            labels: labels - 2,
            at: HEADER_BYTES,
            zone_at,
            import: false,
            zonal: false,
            middle: b"",
        };
        self.below(zone, answering, entry, key, place)
    }

    /// At or below the name of a Service.
    fn below<'q>(
        &self,
        zone: &'q Zone,
        answering: &mut Answering<'_>,
        entry: &'q Entry,
        key: &'q [u8],
        place: impl Fn(Named<'q>) -> Place<'q>,
    ) -> Found {
        let Some(facts) = entry.facts.as_deref() else {
            return Found::NoName;
        };
        if let Some(outside) = facts.external.as_deref() {
            let named = Named {
                key,
                facts: &outside.facts,
                members: None,
            };
            let place = place(named);
            return match &outside.name {
                Some(name) if outside.facts.addresses().is_empty() => {
                    balanced(answering, &place, outside, name)
                }
                _ => place.write(answering),
            };
        }
        let headless = self.headless && facts.kind == Kind::Headless;
        match zone.named(entry, key).filter(|_| headless) {
            Some(named) => place(named).write(answering),
            None => Found::NoName,
        }
    }

    fn apex(&self, zone: &Zone, answering: &mut Answering<'_>, asked: &Asked) -> Found {
        match answering.rtype {
            rtype::SOA => answering.soa_answer(HEADER_BYTES, zone.serial),
            rtype::NS => {
                let end = HEADER_BYTES + asked.offset(asked.count()) + 1;
                let mut name = self.server.clone();
                name.extend_from_slice(&answering.builder.written()[HEADER_BYTES..end]);
                let own = self.config.options.own.clone();
                answering.name_servers(HEADER_BYTES, &[(name, own)]);
            }
            _ => {}
        }
        Found::written(answering.count())
    }

    fn reverse(&self, zone: &Zone, answering: &mut Answering<'_>, asked: &Asked) -> Found {
        let primary = self.config.primary.map(|at| &self.config.zones[at]);
        let Some(primary) = primary else {
            return Found::NoName;
        };
        let exposed = |key: &&super::records::Key| zone.has_namespace(&namespace_of(key)[1..]);
        let address = match dashed::read_reverse(asked.labels()) {
            Some(Reverse::Address(address)) => address,
            Some(Reverse::Range(from, to)) => {
                let mut holders = zone.external.range(from..=to);
                let any =
                    holders.any(|(_, holders)| holders.as_slice().iter().any(|k| exposed(&k)));
                return if any { Found::NoData } else { Found::NoName };
            }
            None => return Found::NoName,
        };
        let holders = zone.external.get(&dashed::Key::of(address));
        let holders = holders.map_or(&[][..], |holders| holders.as_slice());
        if !holders.iter().any(|key| exposed(&key)) {
            return Found::NoName;
        }
        if answering.rtype == rtype::PTR {
            for key in holders.iter().filter(exposed) {
                let target = Target {
                    endpoint: None,
                    key,
                    middle: b"",
                    zone: Where::Bytes(primary.name.as_wire()),
                };
                answering.pointer(HEADER_BYTES, &target);
            }
        }
        Found::written(answering.count())
    }
}

/// A Service that has only the name of its load balancer.
fn balanced(
    answering: &mut Answering<'_>,
    place: &Place<'_>,
    outside: &Outside,
    name: &Name,
) -> Found {
    match (place.labels, answering.rtype) {
        (0, rtype::SRV) | (2, _) => place.write_towards(answering, &outside.facts, name),
        (0, rtype::ANY) => Found::NoData,
        (0, _) => Found::Alias(name.clone()),
        _ => place.write(answering),
    }
}
