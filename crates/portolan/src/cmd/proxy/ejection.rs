//! Endpoints that do not answer leave rotation: the thread that watches connections and checks who is under suspicion.
//!
//! ```text
//!   reflect ──Reflection──▶ Watcher { Overlay, Detector } ──the same without the ejected──▶ sync thread
//!     conntrack, relay: connections ─▶ │  ▲ answers                      the same ─▶ metrics, /ejected, log, Events
//!                                    ▼  │
//!                               looks, checks
//! ```
//!
//! What to think of all this, `model::health` says. Nothing here ever holds up a Reflection for longer than it takes to
//! read some hundred messages.

mod check;
mod dials;
mod ear;
pub(super) mod flags;
pub(super) mod report;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan_kernel::Conntrack;
use portolan_kernel::conntrack::NewFlows;
use portolan_model::health::{Answer, Config, Detector, FlowKey, FlowState, News, Order};
use portolan_model::{Listener, Overlay, Protocol};
use portolan_reflect::Reflection;
use portolan_relay::Dial;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::metrics::Telemetry;
use super::waiting;
pub(super) use dials::DIALS_WAITING_MAX;
use dials::Dials;
use ear::Ear;
use report::Reporter;

/// Rounds of orders that are carried out before other news get their turn.
const ROUNDS_MAX: usize = 16;

/// What it takes.
pub(super) struct Parts {
    /// Without it nobody is ejected.
    pub(super) config: Option<Config>,
    /// The name of this node.
    pub(super) node: String,
    pub(super) client: kube::Client,
    /// What the API says.
    pub(super) said: watch::Receiver<Option<Reflection>>,
    /// What shall stand in the kernel.
    pub(super) wanted: watch::Sender<Option<Reflection>>,
    /// Connections that a relay makes.
    pub(super) dials: mpsc::Receiver<Dial>,
    pub(super) telemetry: Arc<Telemetry>,
}

impl Parts {
    /// Watches the connections of the network namespace that the calling thread is in. Where that cannot be done,
    /// everything else goes on, and the log says why.
    pub(super) fn spawn(self, tasks: &mut JoinSet<anyhow::Result<()>>) {
        let senses = self.config.map(|config| (config, senses()));
        let (config, (conntrack, flows)) = match senses {
            Some((config, Ok(senses))) => (config, senses),
            none => {
                if let Some((_, Err(error))) = none {
                    tracing::error!("endpoints that do not answer stay in rotation: {error:#}");
                }
                tasks.spawn(pass(self.said, self.wanted));
                return;
            }
        };
        let (events, told) = mpsc::channel(report::EVENTS_WAITING_MAX);
        tasks.spawn(report::write(self.client, told));
        let watcher = move |ear| Watcher {
            conntrack,
            ear,
            detector: Detector::new(config),
            overlay: Overlay::default(),
            checks: JoinSet::new(),
            own: check::Own::default(),
            said: self.said,
            wanted: self.wanted,
            dials: Dials::new(self.dials),
            reporter: Reporter {
                node: self.node,
                events,
            },
            telemetry: self.telemetry,
        };
        tasks.spawn_blocking(move || {
            let runtime = waiting()?;
            let ear = runtime.block_on(async { Ear::of(flows) })?;
            watcher(ear).run(&runtime);
            Ok(())
        });
    }
}

fn senses() -> anyhow::Result<(Conntrack, NewFlows)> {
    let flows = NewFlows::open()?;
    flows.listen()?;
    Ok((Conntrack::open()?, flows))
}

/// The thread's belongings.
struct Watcher {
    conntrack: Conntrack,
    ear: Ear,
    detector: Detector,
    overlay: Overlay,
    checks: JoinSet<(u64, Answer)>,
    own: check::Own,
    said: watch::Receiver<Option<Reflection>>,
    wanted: watch::Sender<Option<Reflection>>,
    dials: Dials,
    reporter: Reporter,
    telemetry: Arc<Telemetry>,
}

impl Watcher {
    /// Works until no more Reflections can come, on a runtime of its own.
    fn run(mut self, runtime: &Runtime) {
        let start = Instant::now();
        // A Reflection may be there already.
        self.said.mark_changed();
        loop {
            match runtime.block_on(self.wait(start)) {
                Wake::Ended => return,
                Wake::Due => self.ear.wake(start.elapsed()),
                Wake::Said => self.take(),
                Wake::Heard => self.hear(start),
                Wake::Dialed => self.take_dials(start.elapsed()),
                Wake::Checked(id, answer) => {
                    self.telemetry.ejection.checked(answer);
                    self.detector.on_check(start.elapsed(), id, answer);
                }
            }
            // What this thread spawns lives there, too.
            let _inside = runtime.enter();
            self.step(start);
        }
    }

    async fn wait(&mut self, start: Instant) -> Wake {
        let now = start.elapsed();
        let due = [self.detector.due(), self.ear.due(now), self.dials.due(now)];
        let due = due.into_iter().flatten().min();
        let clock = async {
            match due {
                Some(due) => tokio::time::sleep(due.saturating_sub(now)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = self.said.changed() => match changed {
                Ok(()) => Wake::Said,
                Err(_) => Wake::Ended,
            },
            Some(done) = self.checks.join_next() => match done {
                Ok((id, answer)) => Wake::Checked(id, answer),
                // It has panicked: its trial ends without it.
                Err(_) => Wake::Due,
            },
            () = clock => Wake::Due,
            () = self.ear.ready(now) => Wake::Heard,
            () = self.dials.ready(now) => Wake::Dialed,
        }
    }

    fn take(&mut self) {
        let Some(reflection) = self.said.borrow_and_update().clone() else {
            return;
        };
        let forgotten = self.overlay.on_snapshot((*reflection.snapshot).clone());
        for listener in &forgotten {
            self.detector.forget(*listener);
            tracing::info!(endpoint = %listener, "ejected, and now not listed any more");
        }
        self.publish(reflection);
        if !forgotten.is_empty() {
            self.show(Duration::ZERO);
        }
    }

    fn publish(&self, mut reflection: Reflection) {
        // Mostly nobody is ejected, and then it is the same one.
        if !self.overlay.ejected().is_empty() {
            reflection.snapshot = Arc::new(self.overlay.snapshot().clone());
        }
        self.wanted.send_replace(Some(reflection));
    }

    fn hear(&mut self, start: Instant) {
        let (detector, api) = (&mut self.detector, self.overlay.upstream());
        let now = start.elapsed();
        let (sockets, own) = (&self.telemetry.sockets, &self.own);
        let heard = self.ear.hear(now, |key, replier| {
            if key.destination != replier.address {
                detector.on_flow(now, key, replier, api);
            } else if !own.has(key.source)
                && let Some(asked) = sockets.asked(replier.address)
            {
                detector.on_dial(now, asked, key, replier, api);
            }
        });
        if let Err(error) = heard {
            tracing::warn!(%error, "some new connections were not seen");
        }
    }

    fn take_dials(&mut self, now: Duration) {
        let api = self.overlay.upstream();
        for dial in self.dials.take(now) {
            let key = FlowKey {
                source: dial.source,
                destination: dial.endpoint,
            };
            let listener = Listener {
                protocol: Protocol::Tcp,
                address: dial.endpoint,
            };
            self.detector
                .on_dial(now, dial.frontend, key, listener, api);
        }
    }

    /// Does what is due.
    fn step(&mut self, start: Instant) {
        for _ in 0..ROUNDS_MAX {
            let now = start.elapsed();
            if self.detector.due().is_none_or(|due| due > now) {
                return;
            }
            let (orders, news) = self.detector.step(now, &mut self.overlay);
            for order in orders {
                self.obey(start, order);
            }
            self.tell(now, &news);
        }
    }

    fn obey(&mut self, start: Instant, order: Order) {
        match order {
            Order::Look(listener, key) => {
                let state = self.conntrack.look(&key).unwrap_or_else(|error| {
                    tracing::debug!(%error, "a connection was not looked at");
                    FlowState::Unknown
                });
                self.detector.on_look(start.elapsed(), listener, state);
            }
            Order::Check {
                id,
                listener,
                patience,
            } => {
                let socket = self.own.socket(listener.address);
                drop(self.checks.spawn(async move {
                    let answer = check::check(socket, listener.address, patience).await;
                    (id, answer)
                }));
            }
        }
    }

    fn tell(&mut self, now: Duration, news: &[News]) {
        let moved = |news: &News| matches!(news, News::Ejected(..) | News::Readmitted(..));
        if news.iter().any(moved) {
            // Out of rotation first, words later.
            let said = self.said.borrow().clone();
            if let Some(reflection) = said {
                // How long the change of the API took has been measured before.
                self.publish(Reflection {
                    triggered: BTreeMap::new(),
                    received: None,
                    ..reflection
                });
            }
        }
        for news in news {
            self.telemetry.ejection.count(news);
            self.reporter.tell(news, &self.overlay);
        }
        if news.iter().any(moved) {
            self.show(now);
        }
    }

    /// The list of all who are out.
    fn show(&self, now: Duration) {
        let all = self.overlay.ejected().iter();
        let out = all.filter_map(|(listener, keys)| {
            let (since, reason) = self.detector.ejected(*listener)?;
            Some(report::Out::new(
                *listener,
                keys,
                reason,
                now.saturating_sub(since),
            ))
        });
        self.telemetry.ejection.show(out.collect());
    }
}

enum Wake {
    Ended,
    Due,
    Said,
    Heard,
    Dialed,
    Checked(u64, Answer),
}

/// Passes Reflections on as they are, when nobody watches endpoints.
async fn pass(
    mut said: watch::Receiver<Option<Reflection>>,
    wanted: watch::Sender<Option<Reflection>>,
) -> anyhow::Result<()> {
    said.mark_changed();
    while said.changed().await.is_ok() {
        let reflection = said.borrow_and_update().clone();
        wanted.send_replace(reflection);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
