//! One pod on its node: a task that compares what the API wants with what the shim says and does the next thing.
//!
//! It is level-triggered: each step looks at everything anew, so it does not matter which event woke it, what an
//! earlier agent did, or what failed before. Nothing of the pod lives in this task; killing it harms no container.

mod end;
mod probing;
mod report;
mod sandbox;
mod start;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use portolan_k8s::backoff::Backoff;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::context::Context;
use super::decide::{Decision, Seen, decide};
use super::live::Live;
use super::memory;
use super::probe;
use super::shim_client::Shim;
use crate::error::Result;
use crate::shim::protocol::{PodState, Run};

/// After a failed step (the API is away, a volume is missing) the next one waits this long at first …
const RETRY_MIN: Duration = Duration::from_millis(200);
/// … and never longer than this.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// A step is made at least this often, whatever happens.
const RESYNC: Duration = Duration::from_secs(60);

/// What the API wants of a pod.
#[derive(Debug, Clone)]
pub struct Desired {
    /// The newest that was seen of it.
    pub pod: Arc<Pod>,
    /// Whether the API has it no more.
    pub gone: bool,
}

/// The task of one pod.
pub struct Worker {
    context: Arc<Context>,
    desired: watch::Receiver<Desired>,
    /// The state as the last step saw it.
    last: PodState,
    uid: String,
    dir: PathBuf,
    pod: Arc<Pod>,
    gone: bool,
    shim: Option<Shim>,
    /// What ran under an earlier shim.
    memory: PodState,
    ips: Vec<IpAddr>,
    lives: BTreeMap<String, Live>,
    tasks: JoinSet<Done>,
    /// The status that we wrote last.
    written: Option<serde_json::Value>,
    /// When the pod's deletion was first seen.
    ending_since: Option<Timestamp>,
}

/// The end of a task that a worker had started.
#[derive(Debug)]
enum Done {
    Probe {
        container: String,
        attempt: u32,
        kind: probe::Kind,
        result: Result<(), String>,
    },
    PostStart {
        container: String,
        attempt: u32,
        result: Result<(), String>,
    },
    Stopped {
        container: String,
        hook: Result<(), String>,
    },
}

/// What comes after a step.
enum Next {
    /// Another one, at the latest at this time.
    Step(Option<Timestamp>),
    /// Nothing: the pod is no more.
    Nothing,
}

impl Worker {
    /// A worker for a pod that this node has been given.
    pub fn new(context: Arc<Context>, desired: watch::Receiver<Desired>) -> Worker {
        let pod = desired.borrow().pod.clone();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        Worker {
            dir: context.pod_dir(&uid),
            context,
            desired,
            last: PodState::default(),
            uid,
            pod,
            gone: false,
            shim: None,
            memory: PodState::default(),
            ips: Vec::new(),
            lives: BTreeMap::new(),
            tasks: JoinSet::new(),
            written: None,
            ending_since: None,
        }
    }

    /// Works until the pod is no more.
    pub async fn run(mut self) {
        let mut retries = Backoff::new(RETRY_MIN, RETRY_MAX);
        self.adopt().await;
        loop {
            let wake = match self.step().await {
                Ok(Next::Nothing) => return,
                Ok(Next::Step(at)) => {
                    retries.reset();
                    at
                }
                Err(error) => {
                    tracing::info!(pod = self.name(), %error, "trying again");
                    Some(Timestamp::now() + retries.delay())
                }
            };
            self.wait(wake).await;
        }
    }

    async fn step(&mut self) -> Result<Next> {
        self.look();
        let now = Timestamp::now();
        self.notice_lost_shim(now);
        self.notice_runs(now);
        if self.gone || self.pod.metadata.deletion_timestamp.is_some() {
            return self.end(now).await;
        }
        if is_over(&self.pod) {
            self.tear_down().await?;
            return Ok(Next::Step(None));
        }
        let decision = self.decide(now);
        if decision.phase.is_final() {
            return self.wind_down(&decision, now).await;
        }
        if self.shim.is_none() {
            // People shall see that the node has taken the pod before its network and volumes stand.
            self.report(&decision, now).await?;
            self.set_up().await?;
        }
        for (name, attempt) in &decision.starts {
            self.start(name, *attempt, now).await;
        }
        let now = Timestamp::now();
        self.start_due_probes(now);
        let decision = self.decide(now);
        self.tell_waits(&decision);
        self.report(&decision, now).await?;
        Ok(Next::Step(self.next_wake(&decision)))
    }

    /// Takes in what the API says by now.
    fn look(&mut self) {
        let desired = self.desired.borrow_and_update().clone();
        self.gone = desired.gone;
        if is_newer(&desired.pod, &self.pod) {
            self.pod = desired.pod;
        }
        if let Some(shim) = &self.shim
            && shim.state().is_some()
        {
            self.last = self.state();
        }
    }

    async fn wait(&mut self, wake: Option<Timestamp>) {
        let until = wake.map_or(RESYNC, |at| {
            Duration::try_from(at.duration_since(Timestamp::now()))
                .unwrap_or_default()
                .min(RESYNC)
        });
        let shim_changed = async {
            match &mut self.shim {
                Some(shim) => shim.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.desired.changed() => if changed.is_err() {
                // The agent ends; so do we, and the pod goes on.
                std::future::pending::<()>().await
            },
            () = shim_changed => {}
            Some(done) = self.tasks.join_next() => if let Ok(done) = done {
                self.take_in(done);
            },
            () = tokio::time::sleep(until) => {}
        }
    }

    fn take_in(&mut self, done: Done) {
        match done {
            Done::Probe {
                container,
                attempt,
                kind,
                result,
            } => self.probed(&container, attempt, kind, result),
            Done::PostStart {
                container,
                attempt,
                result,
            } => self.post_started(&container, attempt, result),
            Done::Stopped { container, hook } => self.stopped(&container, hook),
        }
    }

    fn state(&self) -> PodState {
        merged(&self.memory, self.shim.as_ref())
    }

    fn decide(&self, now: Timestamp) -> Decision {
        let mut spec = self.spec().clone();
        if self.gone || self.pod.metadata.deletion_timestamp.is_some() {
            // Nothing is started again, so what has ended is final.
            spec.restart_policy = Some("Never".into());
        }
        let found = self.containers().filter(|(container, _)| {
            self.lives
                .get(&container.name)
                .is_some_and(|live| live.found(container).started)
        });
        let seen = Seen {
            started: found.map(|(container, _)| container.name.clone()).collect(),
            backoffs: self
                .lives
                .iter()
                .map(|(name, live)| (name.clone(), live.backoff))
                .collect(),
        };
        decide(&spec, &self.state(), &seen, now)
    }

    fn next_wake(&self, decision: &Decision) -> Option<Timestamp> {
        let waits = decision.waits.values().map(|(at, _)| *at);
        let starts = decision.starts.iter().filter_map(|(name, _)| {
            let trouble = self.lives.get(name)?.trouble.as_ref()?;
            Some(trouble.retry)
        });
        waits.chain(starts).chain(self.next_probe()).min()
    }

    fn spec(&self) -> &PodSpec {
        static NONE: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
        self.pod.spec.as_ref().unwrap_or(&NONE)
    }

    /// All containers, each with whether it is an init container.
    fn containers(&self) -> impl Iterator<Item = (&Container, bool)> {
        let spec = self.spec();
        let init = spec
            .init_containers
            .iter()
            .flatten()
            .map(|container| (container, true));
        init.chain(spec.containers.iter().map(|container| (container, false)))
    }

    fn container(&self, name: &str) -> Option<&Container> {
        self.containers()
            .map(|(container, _)| container)
            .find(|container| container.name == name)
    }

    fn running(&self, name: &str) -> Option<Run> {
        self.state()
            .last_run(name)
            .filter(|run| run.is_running())
            .cloned()
    }

    fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    fn in_host_network(&self) -> bool {
        self.spec().host_network == Some(true)
    }
}

/// Whether the API knows that nothing of the pod will run any more.
pub fn is_over(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn merged(memory: &PodState, shim: Option<&Shim>) -> PodState {
    memory::merge(memory, shim.and_then(Shim::state).unwrap_or_default())
}

/// Whether `a` is not older than `b`; a status that we wrote ourselves is often newer than what the watch has brought.
fn is_newer(a: &Pod, b: &Pod) -> bool {
    let version = |pod: &Pod| pod.metadata.resource_version.as_ref()?.parse::<u64>().ok();
    match (version(a), version(b)) {
        (Some(a), Some(b)) => a >= b,
        _ => true,
    }
}
