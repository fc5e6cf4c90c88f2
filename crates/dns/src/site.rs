//! All server blocks that answer at one place, and how the newest configuration gets there.
//!
//! A [`Door`] is what a server asks. It holds a [`Site`], which is swapped as a whole when the file changes: queries
//! that are on their way keep the old one until they are answered, and none is lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::chain::limit::Judged;
use crate::chain::{Asked, By, Chain, Reply, hold};
use crate::log;
use crate::message::{Message, encoded_for};
use crate::metrics::Tally;
use crate::server::{Answer, Client, Step, Transport};
use crate::upstream::DEADLINE;
use crate::wire::{Name, Query, rcode, refuse, rtype};

/// Entries of the cache that are fetched anew at a time, without a client that waits: others come when they have ended.
pub const REFRESHES_MAX: usize = 256;
/// A query with several steps (aliases, search paths) ends a little after that of one step would.
const ANSWER_DEADLINE: Duration = DEADLINE.saturating_add(Duration::from_millis(500));

/// TC, in the third byte of a message.
const TRUNCATED: u8 = 2;

/// One zone of one block.
struct Entry {
    zone: Name,
    chain: Arc<Chain>,
    tally: Arc<Tally>,
}

/// The server blocks of one place.
pub struct Site {
    /// Longer names first.
    entries: Vec<Entry>,
    /// Queries for names of no zone.
    nowhere: Arc<Tally>,
    refreshing: Mutex<JoinSet<()>>,
    room: Arc<Semaphore>,
}

impl Site {
    /// Zones with the blocks that answer for them, and where they are counted; `nowhere` counts all other queries.
    pub fn new(zones: Vec<(Name, Arc<Chain>, Arc<Tally>)>, nowhere: Arc<Tally>) -> Self {
        let of = |(zone, chain, tally): (Name, _, _)| Entry {
            zone: zone.lowered(),
            chain,
            tally,
        };
        let mut entries: Vec<Entry> = zones.into_iter().map(of).collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.zone.as_wire().len()));
        Site {
            entries,
            nowhere,
            refreshing: Mutex::default(),
            room: Arc::new(Semaphore::new(REFRESHES_MAX)),
        }
    }

    fn find(&self, name: &[u8]) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| hold(entry.zone.as_wire(), name))
    }

    /// The blocks.
    pub fn chains(&self) -> impl Iterator<Item = &Arc<Chain>> {
        self.entries.iter().map(|entry| &entry.chain)
    }

    /// Answers a question of our own.
    pub async fn answer(self: &Arc<Self>, asked: Asked) -> Reply {
        match self.find(asked.ask.question.name.as_wire()) {
            Some(entry) => entry.chain.answer(self, asked).await,
            None => nobody(&asked, rcode::REFUSED),
        }
    }

    /// Fetches an entry of the cache anew, unless too many are being fetched.
    pub(crate) fn refresh(self: &Arc<Self>, chain: Arc<Chain>, asked: Asked) {
        let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else {
            return;
        };
        let site = Arc::clone(self);
        let mut refreshing = self
            .refreshing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while refreshing.try_join_next().is_some() {}
        refreshing.spawn(async move {
            chain.fetched(&site, asked).await;
            drop(place);
        });
    }

    /// How many entries are being fetched anew.
    #[cfg(test)]
    pub(crate) fn refreshing(&self) -> usize {
        REFRESHES_MAX - self.room.available_permits()
    }

    /// What has to be done now and then: once a second is enough.
    pub fn tick(&self, now: Instant) {
        for chain in self.chains() {
            chain.tick(now);
        }
    }

    /// Whether a query is one that we have sent to find out who asks us in turn.
    fn is_ours(&self, asked: &Asked) -> bool {
        let name = asked.name();
        let mut forwards = self.chains().flat_map(|chain| &chain.forwards);
        asked.ask.question.rtype == rtype::HINFO && forwards.any(|forward| forward.is_token(&name))
    }
}

fn nobody(asked: &Asked, code: u16) -> Reply {
    Reply::Message(
        Message::answer(asked.ask.question.clone(), code),
        By::Nobody,
    )
}

/// Where queries come in.
pub struct Door(ArcSwap<Site>);

impl Door {
    /// A door to a site.
    pub fn new(site: Site) -> Self {
        Door(ArcSwap::from_pointee(site))
    }

    /// From now on queries go to this site.
    pub fn swap(&self, site: Site) {
        self.0.store(Arc::new(site));
    }

    /// The present site.
    pub fn site(&self) -> Arc<Site> {
        self.0.load_full()
    }
}

impl Answer for Door {
    fn at_once(&self, query: &Query<'_>, client: &Client, out: &mut Vec<u8>) -> Step {
        let began = Instant::now();
        let site = self.0.load();
        let Some(entry) = site.find(query.name) else {
            refuse(query, rcode::REFUSED, out);
            site.nowhere
                .count(query, client, By::Nobody, out, began.elapsed());
            return Step::Answered;
        };
        if let Some(limit) = entry.chain.limit.as_ref()
            && client.transport == Transport::Udp
        {
            match limit.judge(client.address.ip(), began) {
                Judged::Fine => {}
                Judged::Drop => return Step::Drop,
                Judged::Slip => {
                    refuse(query, rcode::NOERROR, out);
                    out[2] |= TRUNCATED;
                    return Step::Answered;
                }
            }
        }
        let (step, by) = entry.chain.at_once(query, client, began, out);
        if matches!(step, Step::Answered) {
            entry.told(query, client, by, out, began);
        }
        step
    }

    async fn later(&self, request: Vec<u8>, client: Client) -> Option<Vec<u8>> {
        let began = Instant::now();
        let site = self.0.load_full();
        let query = Query::read(&request).ok()?;
        let entry = site.find(query.name)?;
        let asked = Asked::of(&query, client);
        let reply = match site.is_ours(&asked) {
            true => nobody(&asked, rcode::REFUSED),
            false => {
                let answering = entry.chain.answer(&site, asked.clone());
                let answered = tokio::time::timeout(ANSWER_DEADLINE, answering).await;
                answered.unwrap_or_else(|_| nobody(&asked, rcode::SERVFAIL))
            }
        };
        let Reply::Message(message, by) = reply else {
            return None;
        };
        let out = encoded_for(&query, &message, entry.chain.bytes_max(&query, &client));
        entry.told(&query, &client, by, &out, began);
        Some(out)
    }
}

impl Entry {
    /// Counts an answer, and logs it if the file says so.
    fn told(&self, query: &Query<'_>, client: &Client, by: By, out: &[u8], began: Instant) {
        let took = began.elapsed();
        self.tally.count(query, client, by, out, took);
        let rules = &self.chain.plugins.log;
        if !rules.is_empty() {
            log::query(rules, query, client, out, took);
        }
    }
}
