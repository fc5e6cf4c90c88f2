//! Keeps the data plane running that is wanted. When another one is wanted, it is complete before the old one goes:
//! for a moment both stand, and a flow goes through whichever translates it first.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use portolan_model::{Problem, Snapshot};
use portolan_reflect::{NodeOptions, Problems, Reflection};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::Config;
use super::Wanted;
use super::flows::Flows;
use super::metrics::Telemetry;
use super::mode::Mode;
use super::sync::Loop;
use super::userspace::Relays;

/// A mode whose rules do not stand after this time is given up, and the old one stays: loading 100,000 Services takes
/// seconds, in modes that call other programs a minute.
const SWITCH_PATIENCE: Duration = Duration::from_secs(120);

/// What every data plane is made with.
pub(super) struct Parts {
    pub(super) reflections: watch::Receiver<Option<Reflection>>,
    /// What stands in the kernel, for those who look at flows elsewhere.
    pub(super) standing: watch::Sender<Option<Snapshot>>,
    pub(super) problems: mpsc::Sender<Vec<Problem>>,
    pub(super) telemetry: Arc<Telemetry>,
    /// What whoever reads the API is to know of the node.
    pub(super) node: watch::Sender<NodeOptions>,
    /// What is chosen of single modes.
    pub(super) config: Config,
    /// Whence userspace mode gets its relay.
    pub(super) relays: Relays,
}

/// A data plane with its sync loop.
struct Running {
    wanted: Wanted,
    /// Dropping it ends the loop; `None` when it is ended.
    stop: Option<watch::Sender<()>>,
    /// Dropping it lets the target go.
    release: watch::Sender<()>,
    stands: watch::Receiver<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Waits until its rules stand; false when that never comes.
    async fn stands(&mut self) -> bool {
        let stands = self.stands.wait_for(|stands| *stands);
        let waited = tokio::time::timeout(SWITCH_PATIENCE, stands).await;
        matches!(waited, Ok(Ok(_)))
    }

    /// Nothing changes any more. What stands in the kernel stays, and flows that go through this process go on.
    async fn stop(&mut self) {
        self.stop = None;
        // An error: its sender is gone.
        while self.stands.changed().await.is_ok() {}
    }

    /// Ends the loop, and whatever of it is in this process.
    async fn end(self) -> anyhow::Result<()> {
        drop((self.stop, self.release));
        self.task.await.context("the sync loop has died")?
    }
}

impl Parts {
    /// Runs what `wanted` says, for ever. Fails when the first one cannot begin, or when a loop dies.
    pub(super) async fn follow(self, mut wanted: watch::Receiver<Wanted>) -> anyhow::Result<()> {
        let first = wanted.borrow_and_update().clone();
        let mode = first.mode;
        let mut running = self.begin(&first)?;
        self.telemetry.runs(&first);
        if running.stands.wait_for(|stands| *stands).await.is_err() {
            return running.end().await;
        }
        self.clean_up_others(mode).await?;
        loop {
            let next = tokio::select! {
                ended = &mut running.task => return ended.context("the sync loop has died")?,
                next = next(&mut wanted) => next,
            };
            if next.mode != running.wanted.mode {
                running = self.switch(running, &next).await?;
            }
            // The facts about the node follow the mode that they are for: nothing is taken from the one before it.
            self.node.send_replace(running.wanted.node.clone());
        }
    }

    fn begin(&self, wanted: &Wanted) -> anyhow::Result<Running> {
        let mode = wanted.mode;
        let (stop, stopped) = watch::channel(());
        let (release, released) = watch::channel(());
        let (stands_in, stands) = watch::channel(false);
        let loop_ = Loop {
            flows: match mode.is_privileged() {
                true => Flows::open(mode.doors(), &self.config.ebpf.pins)?,
                false => Flows::none(),
            },
            reflections: self.reflections.clone(),
            standing: self.standing.clone(),
            problems: self.problems.clone(),
            telemetry: Arc::clone(&self.telemetry),
            told: Problems::default(),
            stopped,
            released,
            stands: stands_in,
        };
        let task = mode.spawn(loop_, &self.relays, wanted.pace, &self.config)?;
        Ok(Running {
            wanted: wanted.clone(),
            stop: Some(stop),
            release,
            stands,
            task,
        })
    }

    /// Returns what runs afterwards: the old one, if the new one cannot begin or never stands.
    async fn switch(&self, mut old: Running, wanted: &Wanted) -> anyhow::Result<Running> {
        let (from, mode) = (old.wanted.mode, wanted.mode);
        tracing::info!(from = from.name(), to = mode.name(), "changing the mode");
        if mode.shares_tables(from) {
            old.stop().await;
        }
        let mut new = match self.begin(wanted) {
            Ok(new) => new,
            Err(error) => {
                tracing::error!(
                    mode = mode.name(),
                    error = format!("{error:#}"),
                    "the mode stays as it is"
                );
                return self.go_on(old).await;
            }
        };
        let (winner, loser) = match new.stands().await {
            true => (new, old),
            false => {
                tracing::error!(
                    mode = mode.name(),
                    "its rules do not stand after {SWITCH_PATIENCE:?}; the mode stays as it is"
                );
                (self.go_on(old).await?, new)
            }
        };
        self.telemetry.runs(&winner.wanted);
        loser.end().await?;
        self.clean_up_others(winner.wanted.mode).await?;
        Ok(winner)
    }
}

impl Parts {
    async fn clean_up_others(&self, mode: Mode) -> anyhow::Result<()> {
        let (config, relays) = (self.config.clone(), self.relays.clone());
        let clean_up = move || mode.clean_up_others(&config, &relays);
        let work = tokio::task::spawn_blocking(clean_up);
        work.await.context("cleaning up has died")?;
        tracing::info!(mode = mode.name(), "the rules stand alone");
        Ok(())
    }

    /// An old one that has been stopped begins anew.
    async fn go_on(&self, old: Running) -> anyhow::Result<Running> {
        if old.stop.is_some() {
            return Ok(old);
        }
        let anew = self.begin(&old.wanted)?;
        old.end().await?;
        Ok(anew)
    }
}

/// What is wanted next; never comes when nobody can want anything any more.
async fn next(wanted: &mut watch::Receiver<Wanted>) -> Wanted {
    match wanted.changed().await {
        Ok(()) => wanted.borrow_and_update().clone(),
        Err(_) => std::future::pending().await,
    }
}
