//! The probes of a pod's running containers: one task for each, which reports what changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Pod, Probe};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::decide::Health;
use super::events::Recorder;
use super::probe::{ProbeState, Purpose};
use super::prober::{Target, attempt};

/// Verdicts that wait for the pod's worker; each probe sends at most one a second.
const NEWS_MAX: usize = 64;

/// A new verdict about a container.
#[derive(Debug)]
pub struct Verdict {
    /// The container.
    pub container: String,
    /// Which of its runs.
    pub attempt: u32,
    /// Which probe.
    pub purpose: Purpose,
    /// What it says.
    pub good: bool,
}

/// The probes that run for one pod.
pub struct Probes {
    events: Recorder,
    running: BTreeMap<String, Running>,
    tell: mpsc::Sender<Verdict>,
}

struct Running {
    attempt: u32,
    started: watch::Sender<bool>,
    tasks: Vec<(Purpose, JoinHandle<()>)>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|(_, task)| task.abort());
    }
}

impl Probes {
    /// None yet. Verdicts come out of the receiver.
    pub fn new(events: Recorder) -> (Probes, mpsc::Receiver<Verdict>) {
        let (tell, news) = mpsc::channel(NEWS_MAX);
        (
            Probes {
                events,
                running: BTreeMap::new(),
                tell,
            },
            news,
        )
    }

    /// Starts probing a run of a container, if it is not probed yet. `health` is what holds until the first verdicts.
    pub fn start(&mut self, pod: &Arc<Pod>, target: Target, attempt: u32, health: Health) {
        let name = target.container.name.clone();
        if self
            .running
            .get(&name)
            .is_some_and(|running| running.attempt == attempt)
        {
            return;
        }
        let (started, wait_started) = watch::channel(health.started);
        let container = &target.container;
        let all = [
            (
                Purpose::Startup,
                container.startup_probe.clone().filter(|_| !health.started),
                false,
            ),
            (
                Purpose::Readiness,
                container.readiness_probe.clone(),
                health.ready,
            ),
            (Purpose::Liveness, container.liveness_probe.clone(), true),
        ];
        let began = Instant::now();
        let tasks = all.into_iter().filter_map(|(purpose, probe, verdict)| {
            let probe = probe?;
            let state = ProbeState::new(&probe, began, verdict);
            let one = One {
                pod: pod.clone(),
                target: target.clone(),
                attempt,
                purpose,
                probe,
                events: self.events.clone(),
                tell: self.tell.clone(),
                started: wait_started.clone(),
            };
            Some((purpose, tokio::spawn(one.run(state))))
        });
        let tasks = tasks.collect();
        self.running.insert(
            name,
            Running {
                attempt,
                started,
                tasks,
            },
        );
    }

    /// The container's startup probe has succeeded: the others begin.
    pub fn started(&self, container: &str) {
        if let Some(running) = self.running.get(container) {
            running.started.send_replace(true);
        }
    }

    /// Stops all probes of a container.
    pub fn stop(&mut self, container: &str) {
        self.running.remove(container);
    }

    /// Leaves only the readiness probes: the pod is ending.
    pub fn only_readiness(&mut self) {
        for (purpose, task) in self
            .running
            .values_mut()
            .flat_map(|running| &mut running.tasks)
        {
            if *purpose != Purpose::Readiness {
                task.abort();
            }
        }
    }
}

/// One probe of one run.
struct One {
    pod: Arc<Pod>,
    target: Target,
    attempt: u32,
    purpose: Purpose,
    probe: Probe,
    events: Recorder,
    tell: mpsc::Sender<Verdict>,
    started: watch::Receiver<bool>,
}

impl One {
    async fn run(mut self, mut state: ProbeState) {
        if self.purpose != Purpose::Startup
            && self.started.wait_for(|started| *started).await.is_err()
        {
            return;
        }
        loop {
            tokio::time::sleep_until(state.due().into()).await;
            let began = Instant::now();
            let result = self.attempt_once().await;
            if let Err(why) = &result {
                let text = format!("{} probe failed: {why}", self.purpose.word());
                self.events.tell(
                    &self.pod,
                    Some(&self.target.container.name),
                    "Warning",
                    "Unhealthy",
                    text,
                );
            }
            let Some(good) = state.observe(began, result.is_ok()) else {
                continue;
            };
            let verdict = Verdict {
                container: self.target.container.name.clone(),
                attempt: self.attempt,
                purpose: self.purpose,
                good,
            };
            let over = self.purpose == Purpose::Startup && good;
            if self.tell.send(verdict).await.is_err() || over {
                return;
            }
        }
    }

    async fn attempt_once(&self) -> Result<(), String> {
        // In a set of its own, so that a panic in a probe can't end the probing.
        let mut set = JoinSet::new();
        let (probe, target) = (self.probe.clone(), self.target.clone());
        set.spawn(async move { attempt(&probe, &target, ProbeState::timeout(&probe)).await });
        match set.join_next().await {
            Some(Ok(result)) => result,
            _ => Err("the probe could not be run".into()),
        }
    }
}
