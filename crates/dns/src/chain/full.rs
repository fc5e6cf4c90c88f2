//! The long way: every plugin, on whole messages. A function is a plugin, and calls the one behind it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures::future::BoxFuture;

use super::{Asked, By, Chain, DEPTH_MAX, Reply, acl, below, dns64, order, rewrite, template};
use crate::cache::Hit;
use crate::corefile::plugin::filter::Action;
use crate::message::{Message, Record, name_in};
use crate::site::Site;
use crate::upstream::{Failed, Forward};
use crate::wire::{MESSAGE_BYTES_MAX, Name, class, rcode, rtype};
use crate::zone::Outcome;

/// Extended errors (RFC 8914).
const STALE: u16 = 3;
const BLOCKED: u16 = 15;
const FILTERED: u16 = 17;
const UNREACHABLE: u16 = 22;

impl Chain {
    /// Answers a question; `site` answers those to which it leads.
    pub fn answer<'a>(
        self: &'a Arc<Self>,
        site: &'a Arc<Site>,
        asked: Asked,
    ) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            let name = asked.name();
            let judged = acl::judge(
                &self.plugins.acl,
                &name,
                asked.ask.question.rtype,
                super::address_of(&asked.client),
            );
            match judged {
                Action::Allow => {}
                Action::Drop => return Reply::Drop,
                Action::Block => return refused(&asked, rcode::REFUSED, BLOCKED, By::Acl),
                Action::Filter => return refused(&asked, rcode::NOERROR, FILTERED, By::Acl),
            }
            let mut reply = self.translated(site, asked).await;
            if let (Some(options), Reply::Message(message, by)) =
                (&self.plugins.loadbalance, &mut reply)
                && (*by != By::Kubernetes || !options.prefer.is_empty())
            {
                order::balance(options, message);
            }
            reply
        })
    }

    /// `dns64`.
    async fn translated(self: &Arc<Self>, site: &Arc<Site>, asked: Asked) -> Reply {
        let options = self
            .plugins
            .dns64
            .filter(|options| dns64::concerns(options, &asked));
        let first = self.cached(site, asked.clone()).await;
        let (Some(options), Reply::Message(before, _)) = (options, &first) else {
            return first;
        };
        if !dns64::wanted(&options, before) {
            return first;
        }
        let name = asked.ask.question.name.clone();
        match self.cached(site, asked.about(name, rtype::A)).await {
            Reply::Message(found, by) if !found.answers.is_empty() => {
                Reply::Message(dns64::translate(&options, before, found), by)
            }
            _ => first,
        }
    }

    /// `cache`: for names that are not ours.
    fn cached<'a>(self: &'a Arc<Self>, site: &'a Arc<Site>, asked: Asked) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            let Some(cache) = self.cache.as_ref().filter(|_| !self.is_own(&asked)) else {
                return self.rewritten(site, asked).await;
            };
            let mut out = Vec::new();
            cache.counts.requests.fetch_add(1, Ordering::Relaxed);
            let hit = cache.answer(&asked.query(), MESSAGE_BYTES_MAX, Instant::now(), &mut out);
            let kept = Message::read(&out).ok().filter(|_| hit != Hit::Miss);
            match (hit, kept) {
                (Hit::Fresh, Some(message)) => Reply::Message(message, By::Cache),
                (Hit::Popular, Some(message)) => {
                    site.refresh(Arc::clone(self), asked);
                    Reply::Message(message, By::Cache)
                }
                (Hit::Stale, Some(message)) => self.stale(site, asked, message).await,
                _ => {
                    cache.counts.misses.fetch_add(1, Ordering::Relaxed);
                    self.fetched(site, asked).await
                }
            }
        })
    }

    /// An answer that has ended: at once, or only when there is no newer one.
    async fn stale(
        self: &Arc<Self>,
        site: &Arc<Site>,
        asked: Asked,
        mut message: Message,
    ) -> Reply {
        message.error = Some((STALE, String::new()));
        let Some(cache) = &self.cache else {
            return Reply::Message(message, By::Cache);
        };
        if cache.verifies() {
            let newer = self.fetched(site, asked).await;
            if !matches!(&newer, Reply::Message(newer, _) if newer.rcode == rcode::SERVFAIL) {
                return newer;
            }
        } else {
            site.refresh(Arc::clone(self), asked);
        }
        cache.counts.stale.fetch_add(1, Ordering::Relaxed);
        Reply::Message(message, By::Cache)
    }

    /// Asks the plugins behind the cache, and keeps what comes from other servers.
    pub(crate) async fn fetched(self: &Arc<Self>, site: &Arc<Site>, asked: Asked) -> Reply {
        let reply = self.rewritten(site, asked.clone()).await;
        if let (Some(cache), Reply::Message(message, By::Forward)) = (&self.cache, &reply) {
            cache.keep(&asked.query(), &asked.name(), message, Instant::now());
        }
        reply
    }

    /// Whether the name is below a zone of `kubernetes`: its answers change without notice.
    fn is_own(&self, asked: &Asked) -> bool {
        let names = self.names.as_ref();
        names.is_some_and(|names| below(&names.zones, &asked.name()))
    }

    /// `rewrite`.
    async fn rewritten(self: &Arc<Self>, site: &Arc<Site>, asked: Asked) -> Reply {
        let rules = &self.plugins.rewrite;
        if rules.is_empty() {
            return self.searching(site, asked).await;
        }
        let (changed, turned) = rewrite::turn(rules, &asked);
        let mut reply = self.searching(site, changed).await;
        if let Reply::Message(message, _) = &mut reply {
            if let Some((index, target)) = rewrite::new_target(rules, message) {
                message.answers.truncate(index + 1);
                if let Some(alias) = crate::message::with_name(&message.answers[index], &target) {
                    message.answers[index] = alias;
                }
                self.follow(site, &asked, message, target).await;
            }
            turned.back(message);
        }
        reply
    }

    /// `autopath`.
    async fn searching(self: &Arc<Self>, site: &Arc<Site>, asked: Asked) -> Reply {
        let names = match asked.searched {
            true => None,
            false => self.searched(&asked),
        };
        let Some(names) = names else {
            return self.minimal(site, asked).await;
        };
        let mut first = None;
        for (index, name) in names.into_iter().enumerate() {
            let mut next = asked.about(name.clone(), asked.ask.question.rtype);
            next.searched = true;
            let reply = match index {
                0 => self.minimal(site, next).await,
                _ => self.cached(site, next).await,
            };
            match reply {
                Reply::Message(message, by) if message.is_nxdomain() => {
                    first.get_or_insert((message, by));
                }
                Reply::Message(mut message, by) if index > 0 => {
                    alias(&asked, &name, &mut message);
                    self.searched.fetch_add(1, Ordering::Relaxed);
                    return Reply::Message(message, by);
                }
                other => return other,
            }
        }
        match first {
            Some((message, by)) => Reply::Message(message, by),
            None => refused(&asked, rcode::SERVFAIL, UNREACHABLE, By::Nobody),
        }
    }

    /// `minimal`.
    async fn minimal(self: &Arc<Self>, site: &Arc<Site>, asked: Asked) -> Reply {
        let mut reply = self.known(site, asked).await;
        if let Reply::Message(message, _) = &mut reply
            && self.plugins.minimal
            && !message.answers.is_empty()
        {
            message.authorities.clear();
            message.additionals.clear();
        }
        reply
    }

    /// `template`, `hosts`, `k8s_external`, `kubernetes`: those that know something themselves.
    async fn known(self: &Arc<Self>, site: &Arc<Site>, asked: Asked) -> Reply {
        let name = asked.name();
        for template in &self.plugins.template {
            match template::ask(template, &asked, &name) {
                template::Said::Nothing => {}
                template::Said::Answer(mut message) => {
                    self.follow_last(site, &asked, &mut message).await;
                    return Reply::Message(message, By::Template);
                }
                template::Said::Wrong(words) => {
                    self.errors
                        .tell(&asked, &format!("a template makes no record: {words}"));
                    return refused(&asked, rcode::SERVFAIL, 0, By::Template);
                }
            }
        }
        let hosts = self
            .hosts
            .as_ref()
            .and_then(|hosts| hosts.answer(&asked.ask.question, &name));
        if let Some(message) = hosts {
            return Reply::Message(message, By::Hosts);
        }
        match self.own(site, &asked, &name).await {
            Some(reply) => reply,
            None => self.forwarded(asked, &name).await,
        }
    }

    /// `k8s_external` and `kubernetes`; `None`: the next plugin is asked.
    async fn own(self: &Arc<Self>, site: &Arc<Site>, asked: &Asked, name: &str) -> Option<Reply> {
        let names = self
            .names
            .as_ref()
            .filter(|_| asked.ask.question.class == class::IN)?;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut out = Vec::new();
        let (by, outcome) = {
            let zone = names.live.load();
            let query = asked.query();
            let external = names.external.as_ref();
            let outcome = external
                .map(|external| external.answer(&zone, &query, MESSAGE_BYTES_MAX, turn, &mut out));
            match outcome.filter(|outcome| !self.passes(By::External, outcome, name)) {
                Some(outcome) => (By::External, outcome),
                None => (
                    By::Kubernetes,
                    zone.answer(&query, MESSAGE_BYTES_MAX, turn, &mut out),
                ),
            }
        };
        if self.passes(by, &outcome, name) {
            return None;
        }
        let Ok(mut message) = Message::read(&out) else {
            return Some(refused(asked, rcode::SERVFAIL, 0, by));
        };
        if let Outcome::Elsewhere(target) = outcome {
            self.follow(site, asked, &mut message, target).await;
        }
        Some(Reply::Message(message, by))
    }

    /// Whether the plugin behind is asked: the name is not ours, or it does not exist and `fallthrough` names it.
    fn passes(&self, by: By, outcome: &Outcome, name: &str) -> bool {
        let zones = match by {
            By::External => self
                .plugins
                .external
                .as_ref()
                .map(|external| &external.fallthrough),
            _ => self
                .plugins
                .kubernetes
                .as_ref()
                .map(|kubernetes| &kubernetes.fallthrough),
        };
        match outcome {
            Outcome::NotOurs => true,
            Outcome::Denied => zones.is_some_and(|zones| below(zones, name)),
            _ => false,
        }
    }

    /// `forward`.
    async fn forwarded(self: &Arc<Self>, asked: Asked, name: &str) -> Reply {
        let taking: Vec<&Forward> = self
            .forwards
            .iter()
            .filter(|forward| forward.takes(name))
            .collect();
        for (index, forward) in taking.iter().enumerate() {
            let last = index + 1 == taking.len();
            match forward.ask(&asked.ask).await {
                Ok(report) if !last && forward.passes(&report.message) => {}
                Ok(report) => return Reply::Message(report.message, By::Forward),
                Err(failed) => return self.failed(&asked, &failed),
            }
        }
        refused(&asked, rcode::REFUSED, 0, By::Nobody)
    }

    fn failed(&self, asked: &Asked, failed: &Failed) -> Reply {
        let servers = match failed {
            Failed::Busy => {
                self.errors.tell(
                    asked,
                    "too many queries wait for other servers (max_concurrent)",
                );
                return refused(asked, rcode::REFUSED, 0, By::Forward);
            }
            Failed::Servers(servers) => servers,
        };
        let words: Vec<String> = servers
            .iter()
            .map(|(server, failure)| format!("{server}: {failure}"))
            .collect();
        let words = match words.is_empty() {
            true => "no server is well".to_string(),
            false => words.join("; "),
        };
        self.errors.tell(asked, &words);
        refused(asked, rcode::SERVFAIL, UNREACHABLE, By::Forward)
    }

    /// Resolves the target of the last alias of an answer, when the client has asked for something else.
    async fn follow_last(self: &Arc<Self>, site: &Arc<Site>, asked: &Asked, message: &mut Message) {
        let wanted = asked.ask.question.rtype;
        let Some(last) = message.answers.last() else {
            return;
        };
        if last.rtype == rtype::CNAME
            && wanted != rtype::CNAME
            && wanted != rtype::ANY
            && let Some(target) = name_in(last)
        {
            self.follow(site, asked, message, target).await;
        }
    }

    /// Adds what the target of an alias has. When nobody knows it the alias itself is the answer: a failure of others
    /// is no failure of ours.
    async fn follow(
        self: &Arc<Self>,
        site: &Arc<Site>,
        asked: &Asked,
        message: &mut Message,
        target: Name,
    ) {
        if asked.depth >= DEPTH_MAX {
            self.errors.tell(asked, "aliases lead in circles");
            return;
        }
        let mut next = asked.about(target, asked.ask.question.rtype);
        next.depth += 1;
        next.searched = true;
        if let Reply::Message(found, _) = site.answer(next).await {
            match found.rcode {
                rcode::NOERROR => message.answers.extend(found.answers),
                // The code is that of the last name (RFC 6604, section 3).
                rcode::NXDOMAIN => {
                    message.rcode = rcode::NXDOMAIN;
                    message.answers.extend(found.answers);
                    message.authorities = found.authorities;
                }
                _ => {}
            }
        }
    }
}

/// The answer of another name becomes that of the name asked for.
fn alias(asked: &Asked, name: &Name, message: &mut Message) {
    let question = &asked.ask.question;
    if message.rcode == rcode::NOERROR && !message.answers.is_empty() {
        let ttl = message
            .answers
            .iter()
            .map(|record| record.ttl)
            .min()
            .unwrap_or_default();
        let record = Record::new(question.name.clone(), rtype::CNAME, ttl, name.as_wire());
        message.answers.insert(0, record);
    }
    message.question = question.clone();
}

fn refused(asked: &Asked, code: u16, error: u16, by: By) -> Reply {
    let mut message = Message::answer(asked.ask.question.clone(), code);
    message.error = (error > 0).then(|| (error, String::new()));
    Reply::Message(message, by)
}
