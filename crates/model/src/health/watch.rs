//! What is known of one endpoint to which connections go.

use std::time::Duration;

use super::{Answer, FlowKey, Reason};
use crate::name::PortKey;
use crate::service::Listener;

/// After a check that was answered the next one waits for so long: a quiet connection is no news before that.
pub(super) const REST_FIRST: Duration = Duration::from_millis(400);
/// Signs that lead to nothing make the pauses longer, up to this.
pub(super) const REST_MAX: Duration = Duration::from_secs(10);

/// One endpoint. Times of evidence are when the connection or check *began* that showed it, so that nothing counts as
/// newer than it is.
#[derive(Debug)]
pub(super) struct Watch {
    /// The Service port through which its last connection came: there its siblings are.
    pub port: PortKey,
    /// The last connection or check.
    pub seen_at: Duration,
    /// A connection that is looked at later: when it began.
    pub look: Option<(Duration, FlowKey)>,
    /// The newest connection after that: it may be the last one, and all that ever tells.
    pub newest: Option<(Duration, FlowKey)>,
    /// Its kernel took a connection.
    pub connects_at: Option<Duration>,
    /// Its process answered a check.
    pub answers_at: Option<Duration>,
    /// Its process has finished a connection of a client.
    pub finishes: bool,
    /// When it may be asked whether it answers checks at all.
    pub learn_at: Duration,
    /// When the last trial was over.
    pub rested_at: Duration,
    /// Signs of this kind led to nothing, so that they have to wait for longer.
    pub fruitless: Option<(Sign, Duration)>,
    /// There was a sign during the rest.
    pub suspect: Option<Sign>,
    pub trial: Option<Trial>,
    pub out: Option<Out>,
    /// When it came back the last time, and how often it had failed until then.
    pub was_out: Option<(Duration, u32)>,
    /// People know that it stays although it does not answer.
    pub is_told: bool,
}

/// Why it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Unanswered,
    Quiet,
}

/// A check; later a second one, while the first still waits, so that what comes late counts; and with the second one
/// checks of siblings.
#[derive(Debug)]
pub(super) struct Trial {
    pub id: u64,
    pub began: Duration,
    /// None when it is out, and may come back.
    pub sign: Option<Sign>,
    pub first: Option<Answer>,
    /// When the second check and those of siblings began.
    pub second_at: Option<Duration>,
    pub second: Option<Answer>,
    /// Siblings that have not answered yet.
    pub controls: usize,
}

/// It is out of rotation.
#[derive(Debug)]
pub(super) struct Out {
    pub since: Duration,
    pub reason: Reason,
    pub failures: u32,
    /// When it is tried again.
    pub next: Duration,
}

/// A check that has not been reported yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    pub listener: Listener,
    pub began: Duration,
    pub role: Role,
    /// In whose trial, and in which.
    pub trial: Option<(Listener, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    First,
    Second,
    Control,
    /// Nothing is wrong: does it answer checks at all?
    Learn,
}

/// What a trial says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pending,
    Alive,
    Unclear,
    Dead(Reason),
}

impl Watch {
    pub fn new(port: PortKey, now: Duration) -> Self {
        Watch {
            port,
            seen_at: now,
            look: None,
            newest: None,
            connects_at: None,
            answers_at: None,
            finishes: false,
            learn_at: now,
            rested_at: Duration::ZERO,
            fruitless: None,
            suspect: None,
            trial: None,
            out: None,
            was_out: None,
            is_told: false,
        }
    }

    /// Whether it gave a sign of life of the kind that a `reason` lacks, at `since` or later.
    pub fn vouches(&self, reason: Reason, since: Duration) -> bool {
        let at = match reason {
            Reason::Silent => self.answers_at,
            Reason::Refused | Reason::Unreachable => self.connects_at.max(self.answers_at),
        };
        at.is_some_and(|at| at >= since)
    }

    /// It serves its clients and has never answered a check: there are servers that make nothing of one.
    pub fn is_deaf(&self) -> bool {
        self.finishes && self.answers_at.is_none()
    }

    /// Something is under way that must not be forgotten.
    pub fn is_busy(&self) -> bool {
        let trying = self.suspect.is_some() || self.trial.is_some();
        self.look.is_some() || trying || self.out.is_some()
    }

    /// When a sign of this kind may begin a trial.
    pub fn rested(&self, sign: Sign) -> Duration {
        match self.fruitless {
            Some((kind, rest)) if kind == sign => self.rested_at + rest,
            _ => self.rested_at + REST_FIRST,
        }
    }

    /// Its trial, if there is one, is over; `fruitless` says that its sign led to nothing, and must wait for twice as
    /// long as before the next time.
    pub fn pause(&mut self, since: Duration, fruitless: Option<Sign>) {
        self.trial = None;
        self.suspect = None;
        self.rested_at = since;
        self.fruitless = match (fruitless, self.fruitless) {
            (Some(sign), Some((kind, rest))) if kind == sign => {
                Some((sign, (rest * 2).min(REST_MAX)))
            }
            (Some(sign), _) => Some((sign, REST_FIRST)),
            (None, _) => None,
        };
    }

    /// What the trial says as far as it has come, whose last check is due at `end`.
    pub fn verdict(&self, now: Duration, end: Duration) -> Verdict {
        let Some(trial) = &self.trial else {
            return Verdict::Pending;
        };
        let both = [trial.first, trial.second];
        if both.contains(&Some(Answer::Answered)) {
            return Verdict::Alive;
        }
        let missing = both.contains(&None);
        if missing && now < end {
            return Verdict::Pending;
        }
        if missing || both.contains(&Some(Answer::Unknown)) {
            return Verdict::Unclear;
        }
        let silent = both.contains(&Some(Answer::Silent));
        let was = self.out.as_ref().map(|out| out.reason);
        match (silent, trial.second) {
            // What kept it out was that it took no connections.
            (true, _) if was.is_some_and(|reason| reason != Reason::Silent) => Verdict::Alive,
            (true, _) => Verdict::Dead(Reason::Silent),
            // Clients are connected though we are not: somebody keeps our checks away.
            (false, _) if trial.sign == Some(Sign::Quiet) => Verdict::Unclear,
            (false, Some(Answer::Refused)) => Verdict::Dead(Reason::Refused),
            (false, _) => Verdict::Dead(Reason::Unreachable),
        }
    }
}
