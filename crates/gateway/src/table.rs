//! The compiled routes: host → exact paths, a tree of prefixes, a list of expressions. Never changed once it is made.
//!
//! ```text
//!   host ─▶ exact name │ wildcard of one label │ any ─▶ site ─▶ exact path │ expressions and prefixes, longest first
//!                                                          └──▶ the site's default backend ─▶ that of the table
//! ```
//!
//! The most specific host that any object has rules for owns the request: what its paths do not match goes to default
//! backends, never to the rules of a less specific host (docs/gateway.md, G-HOST-3).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::host::{Host, wildcard_of};
use crate::route::{Conditions, HostClaim, Origin, PathMatch, Pattern, Request, Route, Target};

mod tree;

use tree::Tree;

/// What requests are looked up in.
#[derive(Debug, Default)]
pub struct Table {
    exact: HashMap<Box<str>, Site>,
    /// By the name behind the wildcard.
    wildcard: HashMap<Box<str>, Site>,
    any: Option<Box<Site>>,
    fallback: Option<Arc<Target>>,
    routes: usize,
    /// Whether paths of requests are resolved before they are looked up, instead of refused.
    pub(crate) is_resolving: bool,
}

/// All that is routed under one host.
#[derive(Debug, Default)]
struct Site {
    exact: HashMap<Box<str>, Vec<Entry>>,
    prefixes: Tree,
    /// The longest one first.
    patterns: Vec<(Pattern, Entry)>,
    fallback: Option<Arc<Target>>,
}

/// What stands at a path.
#[derive(Clone, Debug)]
struct Entry {
    /// Length of the path as it is written.
    length: usize,
    conditions: Conditions,
    target: Arc<Target>,
}

/// A route that no request can reach, because another one has all that it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Where the route is written that is not reached.
    pub origin: Origin,
    /// Where the one is written that has its requests.
    pub winner: Origin,
    /// Host and path of the route that is not reached.
    pub place: String,
}

impl Table {
    /// Compiles routes, hosts and the default backend that is asked last. Whatever order they come in, the table is the
    /// same.
    pub fn compile(
        mut routes: Vec<Route>,
        mut claims: Vec<HostClaim>,
        fallback: Option<Arc<Target>>,
    ) -> (Table, Vec<Lost>) {
        let mut table = Table {
            fallback,
            ..Table::default()
        };
        claims.sort_by(|a, b| a.rank.cmp(&b.rank));
        for claim in claims {
            let site = table.site_mut(&claim.host);
            site.fallback = site.fallback.take().or(claim.fallback);
        }
        table.routes = routes.len();
        routes.sort_by_cached_key(Route::precedence);
        let lost = routes.into_iter().filter_map(|route| table.insert(route));
        let mut lost: Vec<Lost> = lost.collect();
        lost.sort_by(|a, b| a.origin.cmp(&b.origin));
        let sites = table.exact.values_mut().chain(table.wildcard.values_mut());
        sites.for_each(Site::shrink);
        (table, lost)
    }

    /// How many routes it was made of.
    pub fn routes(&self) -> usize {
        self.routes
    }

    /// What happens to a request; `None` when nothing is there for it, not even a default backend.
    pub fn find(&self, request: &Request<'_>) -> Option<&Arc<Target>> {
        let site = self.site(request.host);
        let found = site.and_then(|site| site.find(request));
        let of_site = || site.and_then(|site| site.fallback.as_ref());
        found.or_else(of_site).or(self.fallback.as_ref())
    }

    fn site(&self, host: &str) -> Option<&Site> {
        let exact = self.exact.get(host);
        let wildcard = || wildcard_of(host).and_then(|name| self.wildcard.get(name));
        exact.or_else(wildcard).or(self.any.as_deref())
    }

    fn site_mut(&mut self, host: &Host) -> &mut Site {
        match host {
            Host::Exact(name) => self.exact.entry(name.clone()).or_default(),
            Host::Wildcard(name) => self.wildcard.entry(name.clone()).or_default(),
            Host::Any => self.any.get_or_insert_default(),
        }
    }

    /// Adds a route behind those that come before it; gives it back when one of those has everything.
    fn insert(&mut self, route: Route) -> Option<Lost> {
        let place = format!("{}{}", route.host, route.path.text());
        let entry = Entry {
            length: route.path.text().len(),
            conditions: route.conditions,
            target: route.target,
        };
        let site = self.site_mut(&route.host);
        let winner = match route.path {
            PathMatch::Exact(path) => {
                push(site.exact.entry(path.into()).or_default(), entry.clone())
            }
            PathMatch::Prefix(path) => push(site.prefixes.at(&path), entry.clone()),
            PathMatch::Regex(pattern) => push_pattern(&mut site.patterns, pattern, entry.clone()),
        };
        winner.map(|winner| Lost {
            origin: entry.target.origin.clone(),
            winner: winner.origin.clone(),
            place,
        })
    }
}

/// Adds `entry`, unless one before it has all that it matches; then that one's target.
fn push(entries: &mut Vec<Entry>, entry: Entry) -> Option<Arc<Target>> {
    let winner = entries.iter().find(|before| before.hides(&entry));
    let winner = winner.map(|before| Arc::clone(&before.target));
    if winner.is_none() {
        entries.push(entry);
    }
    winner
}

fn push_pattern(
    patterns: &mut Vec<(Pattern, Entry)>,
    pattern: Pattern,
    entry: Entry,
) -> Option<Arc<Target>> {
    let hides = |(before, of): &&(Pattern, Entry)| *before == pattern && of.hides(&entry);
    let winner = patterns.iter().find(hides);
    let winner = winner.map(|(_, before)| Arc::clone(&before.target));
    if winner.is_none() {
        patterns.push((pattern, entry));
    }
    winner
}

impl Entry {
    /// Whether nothing reaches `other`, which comes behind it at the same place.
    fn hides(&self, other: &Entry) -> bool {
        self.conditions.is_empty() || self.conditions == other.conditions
    }
}

impl Site {
    /// Nothing is added any more: gives back the room that was kept for it.
    fn shrink(&mut self) {
        self.exact.values_mut().for_each(Vec::shrink_to_fit);
        self.exact.shrink_to_fit();
        self.prefixes.shrink();
        self.patterns.shrink_to_fit();
    }

    fn find(&self, request: &Request<'_>) -> Option<&Arc<Target>> {
        let holds = |entry: &&Entry| entry.conditions.hold(request);
        let exact = self.exact.get(request.path).into_iter().flatten();
        if let Some(entry) = exact.into_iter().find(holds) {
            return Some(&entry.target);
        }
        let mut patterns = self.patterns.iter().peekable();
        for prefix in self.prefixes.along(request.path) {
            while let Some((pattern, entry)) = patterns.next_if(|(_, e)| e.length > prefix.length) {
                if entry.conditions.hold(request) && pattern.matches(request.path) {
                    return Some(&entry.target);
                }
            }
            if prefix.conditions.hold(request) {
                return Some(&prefix.target);
            }
        }
        let matches = |(pattern, entry): &&(Pattern, Entry)| {
            entry.conditions.hold(request) && pattern.matches(request.path)
        };
        patterns.find(matches).map(|(_, entry)| &entry.target)
    }
}

/// One line of what a table holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Host as in rules; `*` for all.
    pub host: String,
    /// `Exact`, `Prefix`, `Regex`, or `Default` for what no path matches.
    pub kind: &'static str,
    /// The path; empty for `Default`.
    pub path: String,
    /// What happens.
    pub target: Arc<Target>,
}

impl Table {
    /// Everything that the table holds, by host and path; the default backend of all hosts comes last.
    pub fn rows(&self) -> Vec<Row> {
        let exact = self.exact.iter().map(|(n, s)| (Host::Exact(n.clone()), s));
        let wildcard = self
            .wildcard
            .iter()
            .map(|(n, s)| (Host::Wildcard(n.clone()), s));
        let any = self.any.iter().map(|site| (Host::Any, &**site));
        let sites: BTreeMap<Host, &Site> = exact.chain(wildcard).chain(any).collect();
        // Exact hosts come first, as they do when a request is looked up.
        let mut rows: Vec<Row> = sites
            .iter()
            .rev()
            .flat_map(|(host, site)| site.rows(host))
            .collect();
        rows.extend(
            self.fallback
                .iter()
                .map(|target| default_row(&Host::Any, target)),
        );
        rows
    }
}

impl Site {
    fn rows(&self, host: &Host) -> Vec<Row> {
        let row = |kind, path: &str, entry: &Entry| Row {
            host: host.to_string(),
            kind,
            path: path.to_owned(),
            target: Arc::clone(&entry.target),
        };
        let exact = self
            .exact
            .iter()
            .flat_map(|(path, entries)| entries.iter().map(move |e| (path, e)));
        let mut rows: Vec<Row> = exact
            .map(|(path, entry)| row("Exact", path, entry))
            .collect();
        rows.extend(
            self.prefixes
                .all()
                .into_iter()
                .map(|(path, entry)| row("Prefix", &path, entry)),
        );
        rows.sort_by(|a, b| (&a.path, a.kind).cmp(&(&b.path, b.kind)));
        rows.extend(
            self.patterns
                .iter()
                .map(|(pattern, entry)| row("Regex", pattern.text(), entry)),
        );
        rows.extend(self.fallback.iter().map(|target| default_row(host, target)));
        rows
    }
}

fn default_row(host: &Host, target: &Arc<Target>) -> Row {
    Row {
        host: host.to_string(),
        kind: "Default",
        path: String::new(),
        target: Arc::clone(target),
    }
}

#[cfg(test)]
mod tests;
