//! Which endpoint of a Service port gets a request: what one thread knows of each endpoint, and how it chooses. Pure: time
//! and random numbers are arguments.
//!
//! ```text
//!   Roster (who may be chosen, weights) ─▶ Group ─▶ pick ─▶ begin … finish(how it went) ─▶ latency, failures, ejection
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan_model::Balance;
use tokio::time::Instant;

use crate::roster::Roster;
use crate::traffic::Spread;

/// After this time, what an endpoint took for its answers counts only a third as much.
const LATENCY_FORGOTTEN: Duration = Duration::from_secs(10);

/// What a request that failed counts as, beside the time that it took.
const PENALTY: Duration = Duration::from_secs(1);

/// So many failures in a row take an endpoint out of rotation: one may be chance, five in a row at one that works are not.
pub(crate) const FAILURES_MAX: u32 = 5;

/// For so long at the first time, and as much longer each further time, up to [`OUT_TIMES_MAX`] times that.
pub(crate) const OUT_BASE: Duration = Duration::from_secs(10);

/// No endpoint is out for longer than this many times [`OUT_BASE`].
const OUT_TIMES_MAX: u32 = 30;

/// At most this share of the endpoints is out at one time: when more fail, it is not they who are broken.
const OUT_PERCENT_MAX: usize = 50;

/// A retry costs one of these; every request brings a fifth of one, so that at most a fifth of all requests are retried
/// for long.
const RETRY_SHARE: f64 = 0.2;

/// And every second brings these, for Services with few requests.
const RETRIES_A_SECOND: f64 = 10.0;

/// So many may be saved up.
pub(crate) const RETRIES_SAVED_MAX: f64 = 50.0;

/// Requests that one thread has under way to one Service port; further ones are answered with 503. More would only
/// wait in endpoints that do not keep up, and take the thread's memory from other Services.
pub(crate) const UNDER_WAY_MAX: usize = 8192;

/// The least that an endpoint in slow start counts for.
const START_MIN: f64 = 0.05;

/// How a request has gone, as far as its endpoint is to be blamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was answered, after this time.
    Answered(Duration),
    /// It was not, or with a status that says that the endpoint cannot.
    Failed,
}

/// What one thread knows of the endpoints of one Service port.
#[derive(Debug)]
pub(crate) struct Group {
    roster: Arc<Roster>,
    /// In the order of the roster.
    members: Vec<Member>,
    turn: usize,
    under_way: usize,
    unmeasured: usize,
    retries: f64,
    refilled: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    address: SocketAddr,
    /// When it came into rotation; `None` for those of the beginning, which need no slow start.
    since: Option<Instant>,
    /// Microseconds, as of `measured`; `None` before its first request is done.
    latency: Option<f64>,
    measured: Instant,
    pending: u32,
    failures: u32,
    out_until: Option<Instant>,
    times_out: u32,
}

impl Member {
    fn new(address: SocketAddr, since: Option<Instant>, now: Instant) -> Member {
        Member {
            address,
            since,
            latency: None,
            measured: now,
            pending: 0,
            failures: 0,
            out_until: None,
            times_out: 0,
        }
    }

    fn is_out(&self, now: Instant) -> bool {
        self.out_until.is_some_and(|until| now < until)
    }

    /// What it took lately, in microseconds; slowness is forgotten, so that everybody is tried again some time.
    fn latency(&self, now: Instant) -> f64 {
        self.latency.unwrap_or_default() * fading(now - self.measured)
    }

    fn measure(&mut self, took: Duration, now: Instant) {
        let took = took.as_micros() as f64;
        let before = self.latency(now);
        let kept = fading(now - self.measured);
        self.latency = Some(match took > before {
            true => took,
            false => before * kept + took * (1.0 - kept),
        });
        self.measured = now;
    }
}

/// How much of something is left after a time.
fn fading(age: Duration) -> f64 {
    (-age.as_secs_f64() / LATENCY_FORGOTTEN.as_secs_f64()).exp()
}

impl Group {
    /// Nothing is known yet. Threads begin their turns at different endpoints: `turn` is any number.
    pub(crate) fn new(roster: Arc<Roster>, turn: usize, now: Instant) -> Group {
        let addresses = roster.choices.addresses.iter();
        let members: Vec<Member> = addresses
            .map(|address| Member::new(*address, None, now))
            .collect();
        Group {
            unmeasured: members.len(),
            members,
            roster,
            turn,
            under_way: 0,
            retries: RETRIES_SAVED_MAX,
            refilled: now,
        }
    }

    /// Goes on with another roster, and keeps what is known of those who are in both.
    pub(crate) fn follow(&mut self, roster: &Arc<Roster>, now: Instant) {
        if Arc::ptr_eq(&self.roster, roster) {
            return;
        }
        let kept = |address: &SocketAddr| {
            let found = self.find(*address).map(|index| self.members[index]);
            found.unwrap_or_else(|| Member::new(*address, Some(now), now))
        };
        self.members = roster.choices.addresses.iter().map(kept).collect();
        self.count_unmeasured();
        self.roster = Arc::clone(roster);
    }

    fn count_unmeasured(&mut self) {
        let unmeasured = self.members.iter().filter(|m| m.latency.is_none());
        self.unmeasured = unmeasured.count();
    }

    fn find(&self, address: SocketAddr) -> Option<usize> {
        let found = self.members.binary_search_by_key(&address, |m| m.address);
        found.ok()
    }

    /// Whether there is room for one more request.
    pub(crate) fn has_room(&self) -> bool {
        self.under_way < UNDER_WAY_MAX
    }

    /// `wanted`, unless it is out of rotation or among `tried`.
    pub(crate) fn take(
        &self,
        wanted: SocketAddr,
        now: Instant,
        tried: &[SocketAddr],
    ) -> Option<SocketAddr> {
        let member = &self.members[self.find(wanted)?];
        (!member.is_out(now) && !tried.contains(&wanted)).then_some(wanted)
    }

    /// Somebody who is not among `tried`; whoever is out of rotation only if nobody else is left.
    pub(crate) fn pick(
        &mut self,
        spread: Option<&Spread>,
        hash: u64,
        now: Instant,
        tried: &[SocketAddr],
        random: &mut impl FnMut() -> u64,
    ) -> Option<SocketAddr> {
        let suits = |m: &Member| !m.is_out(now) && !tried.contains(&m.address);
        let index = self.choose(spread, hash, now, &suits, random).or_else(|| {
            self.members
                .iter()
                .position(|m| !tried.contains(&m.address))
        })?;
        Some(self.members[index].address)
    }

    fn choose(
        &mut self,
        spread: Option<&Spread>,
        hash: u64,
        now: Instant,
        suits: &dyn Fn(&Member) -> bool,
        random: &mut impl FnMut() -> u64,
    ) -> Option<usize> {
        match (spread, self.roster.balance) {
            (Some(Spread::RoundRobin), _) | (None, Some(Balance::RoundRobin)) => {
                self.turn = self.turn.wrapping_add(1);
                let turn = self.turn;
                self.first(suits, |roster, step| {
                    roster.in_turn(turn.wrapping_add(step))
                })
            }
            (Some(Spread::Hash(_)), _) | (None, Some(Balance::SourceHash | Balance::Maglev)) => {
                self.first(suits, |roster, step| {
                    roster.by_hash(hash.wrapping_add(step as u64))
                })
            }
            (Some(Spread::LeastRequests), _) => {
                self.better_of_two(suits, random, |m| f64::from(m.pending + 1), now)
            }
            (Some(Spread::Ewma) | None, _) => {
                if let Some(fresh) = self.unmeasured(suits) {
                    return Some(fresh);
                }
                let cost = |m: &Member| (m.latency(now) + 1.0) * f64::from(m.pending + 1);
                self.better_of_two(suits, random, cost, now)
            }
        }
    }

    /// Whoever has not answered anything yet comes first, with one request to begin with.
    fn unmeasured(&mut self, suits: &dyn Fn(&Member) -> bool) -> Option<usize> {
        if self.unmeasured == 0 {
            return None;
        }
        let count = self.members.len();
        let is_fresh = |m: &Member| m.latency.is_none() && m.pending == 0 && suits(m);
        self.turn = self.turn.wrapping_add(1);
        let mut indices = (0..count).map(|step| self.turn.wrapping_add(step) % count);
        indices.find(|index| is_fresh(&self.members[*index]))
    }

    /// The first who suits, from one place on.
    fn first(
        &self,
        suits: &dyn Fn(&Member) -> bool,
        place: impl Fn(&Roster, usize) -> Option<usize>,
    ) -> Option<usize> {
        // With tables of weights or hashes, neighbouring places may be one endpoint's; all are looked at in the end.
        let steps = 0..self.members.len().saturating_mul(2);
        let mut found = steps.filter_map(|step| place(&self.roster, step));
        let by_place = found.find(|index| self.members.get(*index).is_some_and(suits));
        by_place.or_else(|| self.members.iter().position(suits))
    }

    fn better_of_two(
        &self,
        suits: &dyn Fn(&Member) -> bool,
        random: &mut impl FnMut() -> u64,
        cost: impl Fn(&Member) -> f64,
        now: Instant,
    ) -> Option<usize> {
        let count = self.members.len();
        let mut draw = || {
            let start = usize::try_from(random())
                .unwrap_or(usize::MAX)
                .checked_rem(count)?;
            let mut indices = (0..count).map(|step| (start + step) % count);
            indices.find(|index| suits(&self.members[*index]))
        };
        let first = draw()?;
        let mut second = draw()?;
        if second == first {
            let mut others = (1..count).map(|step| (first + step) % count);
            second = others
                .find(|index| suits(&self.members[*index]))
                .unwrap_or(first);
        }
        let cost = |index: usize| cost(&self.members[index]) / self.share(index, now);
        Some(match cost(second) < cost(first) {
            true => second,
            false => first,
        })
    }

    /// Weight, and how far its slow start is.
    fn share(&self, index: usize, now: Instant) -> f64 {
        let weights = self.roster.choices.weights.as_deref();
        let weight = weights
            .and_then(|weights| weights.get(index))
            .map_or(1.0, |weight| f64::from(*weight));
        match (self.roster.slow_start, self.members[index].since) {
            (Some(whole), Some(since)) => {
                let part = (now - since).as_secs_f64() / whole.as_secs_f64();
                weight * part.clamp(START_MIN, 1.0)
            }
            _ => weight,
        }
    }

    /// A request goes to this endpoint.
    pub(crate) fn begin(&mut self, address: SocketAddr) {
        self.under_way += 1;
        self.retries = (self.retries + RETRY_SHARE).min(RETRIES_SAVED_MAX);
        if let Some(index) = self.find(address) {
            self.members[index].pending += 1;
        }
    }

    /// Its answer has begun, or will not: what that says of the endpoint.
    pub(crate) fn judge(&mut self, address: SocketAddr, outcome: Outcome, now: Instant) {
        let Some(index) = self.find(address) else {
            return;
        };
        let was_measured = self.members[index].latency.is_some();
        let has_room = self.has_room_outside(now);
        let member = &mut self.members[index];
        match outcome {
            Outcome::Answered(took) => {
                member.measure(took, now);
                member.failures = 0;
                member.times_out = member.times_out.saturating_sub(1);
            }
            Outcome::Failed => {
                member.measure(PENALTY, now);
                member.failures += 1;
                if member.failures >= FAILURES_MAX && !member.is_out(now) && has_room {
                    member.failures = 0;
                    member.times_out = (member.times_out + 1).min(OUT_TIMES_MAX);
                    member.out_until = Some(now + OUT_BASE * member.times_out);
                }
            }
        }
        if !was_measured && member.latency.is_some() {
            self.unmeasured -= 1;
        }
    }

    fn has_room_outside(&self, now: Instant) -> bool {
        let out = self.members.iter().filter(|m| m.is_out(now)).count();
        let count = self.members.len();
        count > 1 && (out == 0 || (out + 1) * 100 <= count * OUT_PERCENT_MAX)
    }

    /// The request is over, however.
    pub(crate) fn end(&mut self, address: SocketAddr) {
        self.under_way = self.under_way.saturating_sub(1);
        if let Some(index) = self.find(address) {
            let pending = &mut self.members[index].pending;
            *pending = pending.saturating_sub(1);
        }
    }

    /// Takes from the budget what one retry costs, if it is there.
    pub(crate) fn may_retry(&mut self, now: Instant) -> bool {
        let passed = (now - self.refilled).as_secs_f64();
        self.refilled = now;
        self.retries = (self.retries + passed * RETRIES_A_SECOND).min(RETRIES_SAVED_MAX);
        let may = self.retries >= 1.0;
        if may {
            self.retries -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests;
