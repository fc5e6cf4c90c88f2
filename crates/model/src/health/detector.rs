//! The state machine: which connections are looked at, and when to think about whom. Trials are beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::bucket::Bucket;
use super::watch::{Check, REST_MAX, Role, Sign, Watch};
use super::{Answer, Config, FlowKey, FlowState, News, Order, Reason};
use crate::name::Protocol;
use crate::overlay::Overlay;
use crate::service::{Endpoint, Listener, ServicePort};
use crate::snapshot::Snapshot;

/// A connection is looked at so long after it began: an answer takes less, within a cluster.
const LOOK_AFTER: Duration = Duration::from_millis(250);
/// Looks in one second at most: each costs some microseconds, so these are a few hundredths of a core.
pub(super) const LOOKS_PER_SECOND: u32 = 2000;
/// Endpoints that are watched at once; connections to others tell nothing. Some 400 bytes each.
pub(super) const WATCHED_MAX: usize = 16_384;
/// An endpoint without connections is forgotten after this time.
const FORGET_AFTER: Duration = Duration::from_secs(300);
/// So often it is looked who is to be forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(30);

/// Watches the endpoints to which connections go. Times count from any fixed moment.
#[derive(Debug)]
pub struct Detector {
    pub(super) config: Config,
    pub(super) watched: BTreeMap<Listener, Watch>,
    /// When to think about whom.
    pub(super) agenda: BTreeSet<(Duration, Listener)>,
    tidied_at: Duration,
    pub(super) checks: BTreeMap<u64, Check>,
    pub(super) next_id: u64,
    pub(super) check_budget: Bucket,
    look_budget: Bucket,
    pub(super) orders: Vec<Order>,
    pub(super) news: Vec<News>,
}

impl Detector {
    /// Knows nobody.
    pub fn new(config: Config) -> Self {
        Detector {
            config,
            watched: BTreeMap::new(),
            agenda: BTreeSet::new(),
            tidied_at: Duration::ZERO,
            checks: BTreeMap::new(),
            next_id: 0,
            check_budget: Bucket::full(config.checks_per_second),
            look_budget: Bucket::full(LOOKS_PER_SECOND),
            orders: Vec::new(),
            news: Vec::new(),
        }
    }

    /// A connection of TCP has begun, and goes to `replier`.
    pub fn on_flow(&mut self, now: Duration, key: FlowKey, replier: Listener, api: &Snapshot) {
        self.on_dial(now, key.destination, key, replier, api);
    }

    /// The same for a connection that somebody else, such as a relay, makes for a client of `frontend`: `key` is the flow
    /// that shows whether `replier` answers.
    pub fn on_dial(
        &mut self,
        now: Duration,
        frontend: SocketAddr,
        key: FlowKey,
        replier: Listener,
        api: &Snapshot,
    ) {
        if let Some(watch) = self.watched.get_mut(&replier) {
            watch.seen_at = now;
            if watch.look.is_some() {
                watch.newest = Some((now, key));
                return;
            }
        }
        let Some(frontend) = api.frontend(Protocol::Tcp, frontend) else {
            return;
        };
        let Some(port) = api.owner(&frontend) else {
            return;
        };
        let endpoint = port.endpoint(replier.address);
        let is_candidate = port.is_watched && endpoint.is_some_and(can_be_tried);
        let room = self.watched.contains_key(&replier) || self.watched.len() < WATCHED_MAX;
        if !is_candidate || !room || !self.look_budget.take(now, 1) {
            return;
        }
        let watch = self.watch(replier, port, now);
        if watch.port != port.key {
            watch.port = port.key.clone();
        }
        watch.look = Some((now, key));
        self.agenda.insert((now + LOOK_AFTER, replier));
        if port.endpoints.len() > 1 {
            self.learn(now, replier);
        }
    }

    /// What a look has shown.
    pub fn on_look(&mut self, now: Duration, listener: Listener, state: FlowState) {
        let Some(watch) = self.watched.get_mut(&listener) else {
            return;
        };
        let Some((began, _)) = watch.look.take() else {
            return;
        };
        watch.look = watch.newest.take();
        if let Some((began, _)) = watch.look {
            self.agenda.insert((began + LOOK_AFTER, listener));
        }
        let tested = watch.answers_at.is_some_and(|at| at >= began);
        match state {
            FlowState::Finished => {
                watch.finishes = true;
                watch.connects_at = watch.connects_at.max(Some(began));
                let during = watch.trial.as_ref().is_none_or(|t| began >= t.began);
                if watch.out.is_none() && during {
                    watch.pause(began, None);
                }
            }
            FlowState::Unknown => {}
            FlowState::Quiet if tested => {}
            FlowState::Quiet => self.suspect(now, listener, Sign::Quiet),
            // conntrack forgets a connection that was refused at once.
            FlowState::Unanswered | FlowState::Gone => {
                self.suspect(now, listener, Sign::Unanswered)
            }
        }
    }

    /// What a check has shown.
    pub fn on_check(&mut self, now: Duration, id: u64, answer: Answer) {
        let Some(check) = self.checks.remove(&id) else {
            return;
        };
        if let Some(watch) = self.watched.get_mut(&check.listener) {
            let at = Some(check.began);
            match answer {
                Answer::Answered => {
                    watch.answers_at = watch.answers_at.max(at);
                    watch.is_told = false;
                }
                Answer::Silent => watch.connects_at = watch.connects_at.max(at),
                Answer::Refused | Answer::Unreachable | Answer::Unknown => {}
            }
        }
        let Some((tried, trial_id)) = check.trial else {
            return;
        };
        let trial = self.watched.get_mut(&tried).and_then(|w| w.trial.as_mut());
        if let Some(trial) = trial.filter(|trial| trial.id == trial_id) {
            match check.role {
                Role::First => trial.first = Some(answer),
                Role::Second => trial.second = Some(answer),
                Role::Control | Role::Learn => trial.controls = trial.controls.saturating_sub(1),
            }
            self.agenda.insert((now, tried));
        }
    }

    /// The overlay has forgotten this endpoint: no port lists it any more.
    pub fn forget(&mut self, listener: Listener) {
        self.watched.remove(&listener);
    }

    /// When [`Detector::step`] wants to be called.
    pub fn due(&self) -> Option<Duration> {
        let tidy = self.tidied_at + TIDY_EVERY;
        let first = self.agenda.first().map(|(at, _)| *at);
        match self.watched.is_empty() {
            true => first,
            false => Some(first.map_or(tidy, |first| first.min(tidy))),
        }
    }

    /// How many endpoints are watched.
    pub fn watched(&self) -> usize {
        self.watched.len()
    }

    /// Since when and why an endpoint is ejected.
    pub fn ejected(&self, listener: Listener) -> Option<(Duration, Reason)> {
        let out = self.watched.get(&listener)?.out.as_ref()?;
        Some((out.since, out.reason))
    }

    /// Does what is due at `now`: who goes and who comes back stands in `overlay` after it.
    pub fn step(&mut self, now: Duration, overlay: &mut Overlay) -> (Vec<Order>, Vec<News>) {
        while let Some(&(at, listener)) = self.agenda.first()
            && at <= now
        {
            self.agenda.pop_first();
            self.think(now, listener, overlay);
        }
        if now >= self.tidied_at + TIDY_EVERY {
            self.tidied_at = now;
            self.watched
                .retain(|_, watch| now < watch.seen_at + FORGET_AFTER || watch.is_busy());
        }
        (
            std::mem::take(&mut self.orders),
            std::mem::take(&mut self.news),
        )
    }

    pub(super) fn watch(
        &mut self,
        listener: Listener,
        port: &ServicePort,
        now: Duration,
    ) -> &mut Watch {
        self.watched
            .entry(listener)
            .or_insert_with(|| Watch::new(port.key.clone(), now))
    }

    fn suspect(&mut self, now: Duration, listener: Listener, sign: Sign) {
        let Some(watch) = self.watched.get_mut(&listener) else {
            return;
        };
        match &mut watch.trial {
            Some(trial) if trial.sign.is_some() && sign == Sign::Unanswered => {
                trial.sign = Some(sign);
            }
            Some(_) => {}
            None if watch.out.is_some() => {}
            None => {
                watch.suspect = Some(sign);
                self.agenda.insert((now.max(watch.rested(sign)), listener));
            }
        }
    }

    /// Asks an endpoint that gets connections whether it answers checks, so that silence means something later.
    fn learn(&mut self, now: Duration, listener: Listener) {
        let Some(watch) = self.watched.get_mut(&listener) else {
            return;
        };
        let is_calm = watch.trial.is_none() && watch.out.is_none();
        let due = is_calm && watch.answers_at.is_none() && now >= watch.learn_at;
        if due && self.check_budget.take(now, 1) {
            watch.learn_at = now + REST_MAX;
            self.agenda.insert((now, listener));
            self.check(now, listener, Role::Learn, None, self.config.patience);
        }
    }

    pub(super) fn check(
        &mut self,
        now: Duration,
        listener: Listener,
        role: Role,
        trial: Option<(Listener, u64)>,
        patience: Duration,
    ) {
        let id = self.next_id;
        self.next_id += 1;
        let check = Check {
            listener,
            began: now,
            role,
            trial,
        };
        self.checks.insert(id, check);
        self.orders.push(Order::Check {
            id,
            listener,
            patience,
        });
    }

    /// Looks at everything that can be due for one endpoint.
    fn think(&mut self, now: Duration, listener: Listener, overlay: &mut Overlay) {
        let Some(watch) = self.watched.get_mut(&listener) else {
            return;
        };
        if let Some((began, key)) = watch.look
            && now >= began + LOOK_AFTER
        {
            self.orders.push(Order::Look(listener, key));
        }
        if watch.trial.is_some() {
            return self.judge(now, listener, overlay);
        }
        let again = watch.out.as_ref().is_some_and(|out| now >= out.next);
        let sign = watch.suspect.filter(|sign| now >= watch.rested(*sign));
        if again || (sign.is_some() && watch.out.is_none()) {
            self.begin(now, listener, sign.filter(|_| !again), overlay);
        }
    }
}

/// Whether an endpoint may be ejected at all: those that are not ready or on the way out are judged by others, and those
/// without weight get no connections anyway, nor could they take anybody's place.
pub(super) fn can_be_tried(endpoint: &Endpoint) -> bool {
    endpoint.ready && !endpoint.terminating && endpoint.weight > 0
}
