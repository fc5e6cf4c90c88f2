//! `autopath`: the search path of the client, tried here, so that it needs one query in place of five.
//!
//! The namespace of a pod comes from the pods that live now; an address that could be two pods' has none. The name that
//! exists decides, whatever records it has, so that A and AAAA lead to the same name.

use super::{Asked, Chain};
use crate::corefile::plugin::kubernetes::SearchFrom;
use crate::wire::Name;
use crate::zone::candidates;

/// Names that are tried for one query: a pod has three of the cluster, and resolv.conf holds 32 in all.
pub const SEARCH_MAX: usize = 32;

impl Chain {
    /// The names that a stub resolver would ask for one after the other, the first of which is the one asked for;
    /// nothing when this is no such name.
    pub(super) fn searched(&self, asked: &Asked) -> Option<Vec<Name>> {
        let options = self.plugins.autopath.as_ref()?;
        if !super::below(&options.zones, &asked.name()) {
            return None;
        }
        let path = self.path(asked, &options.from)?;
        let mut names = candidates(asked.ask.question.name.as_wire(), &path)?;
        names.truncate(SEARCH_MAX);
        Some(names)
    }

    /// Ends of names.
    fn path(&self, asked: &Asked, from: &SearchFrom) -> Option<Vec<Name>> {
        let mut path = Vec::new();
        if *from == SearchFrom::Kubernetes {
            let names = self.names.as_ref()?;
            let zone = names.zones.iter().find(|zone| !zone.is_reverse())?;
            let loaded = names.live.load();
            let namespace = loaded.namespace_at(super::address_of(&asked.client))?;
            let namespace = String::from_utf8_lossy(namespace);
            path.push(format!("{namespace}.svc.{zone}"));
            path.push(format!("svc.{zone}"));
            path.push(zone.to_string());
        }
        path.extend(self.search.iter().cloned());
        let parsed = path.iter().map(|end| Name::parse(end).ok());
        parsed.collect()
    }
}
