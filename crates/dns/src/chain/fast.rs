//! The way of most queries: our own names and what the cache has, without a task and without memory of their own.

use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::{Asked, By, Chain, acl, address_of, hold, rewrite, text_of};
use crate::cache::Hit;
use crate::corefile::plugin::filter::Action;
use crate::server::{Client, Step, Transport};
use crate::wire::{Query, class, rcode, refuse, rtype};
use crate::zone::Outcome;

impl Chain {
    /// How many bytes an answer may have.
    pub(crate) fn bytes_max(&self, query: &Query<'_>, client: &Client) -> usize {
        let wanted = client.bytes_max(query);
        match (self.plugins.bufsize, client.transport) {
            (Some(size), Transport::Udp) => wanted.min(usize::from(size)),
            _ => wanted,
        }
    }

    /// Answers into `out`, or says that it needs the long way.
    pub fn at_once(
        &self,
        query: &Query<'_>,
        client: &Client,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> (Step, By) {
        if matches!(query.rtype, rtype::AXFR | rtype::IXFR) {
            return (self.transfer(query, client, out), By::Kubernetes);
        }
        if !self.is_direct(query, client) {
            return (Step::Later, By::Nobody);
        }
        let bytes_max = self.bytes_max(query, client);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        if let Some(names) = &self.names {
            let zone = names.live.load();
            if let Some(external) = &names.external {
                match external.answer(&zone, query, bytes_max, turn, out) {
                    Outcome::NotOurs => {}
                    outcome => return self.outcome(&outcome, query, By::External),
                }
            }
            match zone.answer(query, bytes_max, turn, out) {
                Outcome::NotOurs => {}
                outcome => return self.outcome(&outcome, query, By::Kubernetes),
            }
        }
        let Some(cache) = &self.cache else {
            return (Step::Later, By::Nobody);
        };
        match cache.answer(query, bytes_max, now, out) {
            Hit::Fresh => {
                cache.counts.requests.fetch_add(1, Ordering::Relaxed);
                (Step::Answered, By::Cache)
            }
            _ => (Step::Later, By::Nobody),
        }
    }

    fn outcome(&self, outcome: &Outcome, query: &Query<'_>, by: By) -> (Step, By) {
        let zones = match by {
            By::External => &self.passes_external,
            _ => &self.passes_names,
        };
        let step = match outcome {
            Outcome::Elsewhere(_) | Outcome::NotOurs => Step::Later,
            Outcome::Denied if zones.iter().any(|zone| hold(zone.as_wire(), query.name)) => {
                Step::Later
            }
            Outcome::Answered | Outcome::Denied | Outcome::NotYet | Outcome::Refused => {
                Step::Answered
            }
        };
        (step, by)
    }

    /// Whether no plugin before `kubernetes` has to do with the query, and none after it changes the answer.
    fn is_direct(&self, query: &Query<'_>, client: &Client) -> bool {
        let plugins = &self.plugins;
        let plain = self.direct && query.class == class::IN && query.rtype != rtype::HINFO;
        let made = plugins.dns64.is_some() && query.rtype == rtype::AAAA;
        let sorted = plugins
            .loadbalance
            .as_ref()
            .is_some_and(|balance| !balance.prefer.is_empty());
        if !plain || made || sorted {
            return false;
        }
        // From here on only blocks with plugins that need the name as text pay for it.
        if plugins.acl.is_empty() && plugins.rewrite.is_empty() && self.hosts.is_none() {
            return true;
        }
        let name = text_of(query.name);
        let allowed =
            acl::judge(&plugins.acl, &name, query.rtype, address_of(client)) == Action::Allow;
        let hosts = self
            .hosts
            .as_ref()
            .is_some_and(|hosts| hosts.concerns(&name));
        allowed && !hosts && !rewrite::concerns(&plugins.rewrite, &Asked::of(query, *client))
    }

    /// Zone transfers: for those whom `transfer` names, and nobody else.
    fn transfer(&self, query: &Query<'_>, client: &Client, out: &mut Vec<u8>) -> Step {
        let stream = client.transport != Transport::Udp;
        let allowed = self.may_transfer(query, client);
        let zone = self
            .names
            .as_ref()
            .filter(|_| allowed)
            .map(|names| names.live.load());
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_s = since.map_or(0, |since| since.as_secs());
        match zone.and_then(|zone| zone.transfer(query, stream, now_s)) {
            Some(transfer) if stream => Step::Transfer(Box::new(transfer)),
            Some(mut transfer) => {
                out.clear();
                out.extend(transfer.next().unwrap_or_default());
                Step::Answered
            }
            None => {
                refuse(query, rcode::REFUSED, out);
                Step::Answered
            }
        }
    }

    fn may_transfer(&self, query: &Query<'_>, client: &Client) -> bool {
        let Some(transfer) = &self.plugins.transfer else {
            return false;
        };
        let name = text_of(query.name);
        let longest = |zones: &[crate::corefile::Zone]| {
            super::zone_of(zones, &name).map(|zone| zone.as_str().len())
        };
        let rules = transfer
            .rules
            .iter()
            .filter_map(|(zones, to)| Some((longest(zones)?, to)));
        let Some((_, to)) = rules.max_by_key(|(length, _)| *length) else {
            return false;
        };
        let from = address_of(client);
        to.anyone
            || to
                .addresses
                .iter()
                .any(|address| address.ip().to_canonical() == from)
    }
}
