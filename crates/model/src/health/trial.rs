//! Trials: an endpoint is checked twice, siblings once, and then it is known who goes, who stays and who comes back.

use std::time::Duration;

use super::detector::{Detector, can_be_tried};
use super::watch::{Out, Role, Sign, Trial, Verdict, Watch};
use super::{Answer, News, Reason};
use crate::name::Family;
use crate::overlay::Overlay;
use crate::service::{Endpoint, Listener};

/// Siblings that are checked in a trial.
const CONTROLS_MAX: usize = 3;
/// The owner has so long to report a check beyond its patience.
const REPORT_MAX: Duration = Duration::from_millis(500);
/// Doublings of the backoff before it counts as the longest.
const DOUBLINGS_MAX: u32 = 10;
/// Who is out again within this time after it came back has to wait for longer than the first time.
const RELAPSE: Duration = Duration::from_secs(60);

impl Detector {
    /// Begins a trial with its first check; without a `sign` it is one of an endpoint that is out.
    pub(super) fn begin(
        &mut self,
        now: Duration,
        listener: Listener,
        sign: Option<Sign>,
        overlay: &mut Overlay,
    ) {
        let Some(watch) = self.watched.get_mut(&listener) else {
            return;
        };
        watch.suspect = None;
        let is_alone = siblings(overlay, watch, listener).is_empty();
        if is_alone && watch.out.is_some() {
            return self.readmit(now, listener, None, overlay);
        }
        let port = overlay.upstream().port(&watch.port);
        let tried = port.and_then(|port| port.endpoint(listener.address));
        let may_go = watch.out.is_some() || tried.is_some_and(can_be_tried);
        if is_alone || !may_go || !self.check_budget.take(now, 1) {
            // Nobody could take its place, or the budget is spent: the next sign, or the next time, may do.
            return self.put_off(now, listener, None);
        }
        let (id, patience) = (self.next_id, self.config.patience);
        watch.trial = Some(Trial {
            id,
            began: now,
            sign,
            first: None,
            second_at: None,
            second: None,
            controls: 0,
        });
        self.check(now, listener, Role::First, Some((listener, id)), patience);
        for at in [second_at(now, patience), now + patience + REPORT_MAX] {
            self.agenda.insert((at, listener));
        }
    }

    /// Carries a trial on.
    pub(super) fn judge(&mut self, now: Duration, listener: Listener, overlay: &mut Overlay) {
        let patience = self.config.patience;
        let Some(watch) = self.watched.get(&listener) else {
            return;
        };
        let Some(trial) = &watch.trial else {
            return;
        };
        let (began, sign) = (trial.began, trial.sign);
        let end = began + patience + REPORT_MAX;
        let is_second_due = trial.second_at.is_none() && now >= second_at(began, patience);
        match watch.verdict(now, end) {
            Verdict::Pending if is_second_due => self.go_on(now, listener, overlay),
            Verdict::Pending => {}
            Verdict::Alive => {
                // Clients that get no answer although we do: somebody else keeps them away.
                let fruitless = sign.filter(|sign| *sign == Sign::Unanswered);
                self.readmit(now, listener, fruitless, overlay);
            }
            Verdict::Unclear => self.put_off(now, listener, sign),
            Verdict::Dead(reason) => self.condemn(now, listener, reason, overlay),
        }
    }

    /// The second check, and those of siblings.
    fn go_on(&mut self, now: Duration, listener: Listener, overlay: &Overlay) {
        let Some(watch) = self.watched.get(&listener) else {
            return;
        };
        let Some(id) = watch.trial.as_ref().map(|trial| trial.id) else {
            return;
        };
        let key = watch.port.clone();
        let siblings = siblings(overlay, watch, listener);
        let most = siblings.len().min(CONTROLS_MAX);
        // Others every time.
        let turn = id as usize % siblings.len().max(1);
        let controls: Vec<Listener> = siblings
            .iter()
            .cycle()
            .skip(turn)
            .take(most)
            .copied()
            .collect();
        let affordable = self.check_budget.take(now, 1 + most);
        let Some(trial) = self
            .watched
            .get_mut(&listener)
            .and_then(|w| w.trial.as_mut())
        else {
            return;
        };
        trial.second_at = Some(now);
        let Some(port) = overlay
            .upstream()
            .port(&key)
            .cloned()
            .filter(|_| affordable)
        else {
            trial.second = Some(Answer::Unknown);
            self.agenda.insert((now, listener));
            return;
        };
        trial.controls = most;
        let patience = self.config.patience;
        let left = (trial.began + patience).saturating_sub(now);
        let left = left.max(patience / 4);
        self.check(now, listener, Role::Second, Some((listener, id)), left);
        for control in controls {
            self.watch(control, &port, now);
            self.check(now, control, Role::Control, Some((listener, id)), left);
        }
    }

    /// It does not answer: does another one?
    fn condemn(&mut self, now: Duration, listener: Listener, reason: Reason, all: &mut Overlay) {
        let Some(watch) = self.watched.get(&listener) else {
            return;
        };
        let Some(trial) = &watch.trial else {
            return;
        };
        let since = trial.second_at.unwrap_or(now);
        let vouches = |sibling: &Listener| {
            let watch = self.watched.get(sibling);
            watch.is_some_and(|watch| watch.vouches(reason, since))
        };
        let vouched = siblings(all, watch, listener).iter().any(vouches);
        let end = trial.began + self.config.patience + REPORT_MAX;
        if !vouched && trial.controls > 0 && now < end {
            // A sibling may still answer: its answer, or the end of the trial, brings us back.
            return;
        }
        let (sign, is_deaf) = (trial.sign, reason == Reason::Silent && watch.is_deaf());
        let port = all.upstream().port(&watch.port);
        let tried = port.and_then(|port| port.endpoint(listener.address));
        let may_go = tried.is_some_and(can_be_tried);
        match (watch.out.is_some(), vouched && !is_deaf) {
            (true, true) => self.keep_out(now, listener),
            (true, false) => self.readmit(now, listener, None, all),
            (false, _) if !may_go => self.put_off(now, listener, None),
            (false, false) => {
                // Servers that make nothing of checks are asked ever less; whoever takes no connections may be the only
                // one soon.
                let fruitless = sign.filter(|_| reason == Reason::Silent);
                self.keep(now, listener, fruitless, News::KeptAlone(listener, reason));
            }
            (false, true) if !all.has_room(listener, self.config.percent_max) => {
                self.keep(now, listener, None, News::KeptByLimit(listener, reason));
            }
            (false, true) => self.eject(now, listener, reason, all),
        }
    }

    fn eject(&mut self, now: Duration, listener: Listener, reason: Reason, overlay: &mut Overlay) {
        let Some(watch) = self.watched.get_mut(&listener) else {
            return;
        };
        let relapsed = watch.was_out.filter(|(back, _)| now < *back + RELAPSE);
        let failures = relapsed.map_or(0, |(_, failures)| failures.saturating_add(1));
        let next = now + backoff(&self.config, failures);
        watch.pause(now, None);
        watch.out = Some(Out {
            since: now,
            reason,
            failures,
            next,
        });
        overlay.eject(listener);
        self.agenda.insert((next, listener));
        self.news.push(News::Ejected(listener, reason));
    }

    fn keep_out(&mut self, now: Duration, listener: Listener) {
        let Some(watch) = self.watched.get_mut(&listener) else {
            return;
        };
        watch.trial = None;
        if let Some(out) = &mut watch.out {
            out.failures = out.failures.saturating_add(1);
            out.next = now + backoff(&self.config, out.failures);
            self.agenda.insert((out.next, listener));
        }
    }

    /// It is in rotation: as before, or again.
    fn readmit(
        &mut self,
        now: Duration,
        listener: Listener,
        fruitless: Option<Sign>,
        overlay: &mut Overlay,
    ) {
        let Some(watch) = self.watched.get_mut(&listener) else {
            return;
        };
        watch.pause(now, fruitless);
        if let Some(out) = watch.out.take() {
            watch.was_out = Some((now, out.failures));
            overlay.readmit(listener);
            self.news.push(News::Readmitted(listener, now - out.since));
        }
    }

    /// It stays though it does not answer; people are told once.
    fn keep(&mut self, now: Duration, listener: Listener, fruitless: Option<Sign>, news: News) {
        let Some(watch) = self.watched.get_mut(&listener) else {
            return;
        };
        watch.pause(now, fruitless);
        if !std::mem::replace(&mut watch.is_told, true) {
            self.news.push(news);
        }
    }

    /// Nothing has been found out: another sign, or another time, may do.
    fn put_off(&mut self, now: Duration, listener: Listener, fruitless: Option<Sign>) {
        let Some(watch) = self.watched.get_mut(&listener) else {
            return;
        };
        watch.pause(now, fruitless);
        let next = now + self.config.backoff_first;
        if let Some(out) = &mut watch.out {
            out.next = next;
            self.agenda.insert((next, listener));
        }
    }
}

fn backoff(config: &super::Config, failures: u32) -> Duration {
    let doubled = config
        .backoff_first
        .saturating_mul(1 << failures.min(DOUBLINGS_MAX));
    doubled.min(config.backoff_max)
}

/// The second check begins while the first one still waits.
fn second_at(began: Duration, patience: Duration) -> Duration {
    began + patience * 6 / 10
}

/// The endpoints that could take its place; nobody, when the Service does not want its endpoints to be judged.
fn siblings(overlay: &Overlay, watch: &Watch, listener: Listener) -> Vec<Listener> {
    let port = overlay.upstream().port(&watch.port);
    let Some(port) = port.filter(|port| port.is_watched) else {
        return Vec::new();
    };
    let family = Family::of(listener.address.ip());
    let at = |endpoint: &Endpoint| Listener {
        protocol: listener.protocol,
        address: endpoint.address,
    };
    port.endpoints
        .iter()
        .filter(|e| can_be_tried(e) && Family::of(e.address.ip()) == family)
        .map(at)
        .filter(|sibling| *sibling != listener && !overlay.is_ejected(*sibling))
        .collect()
}
