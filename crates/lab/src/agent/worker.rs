//! One pod on this node, from its first sight to its end: a loop that looks at what is wanted (the API) and what is
//! (the shim, the probes), lets [`super::decide`] say what to do, does it, and reports. It ends with the pod.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::decide::{self, Health, Memory, Plan, Stand};
use super::env::Facts;
use super::probe::Purpose;
use super::prober::Target;
use super::probes::{Probes, Verdict};
use super::shim_client::Shim;
use super::{Shared, report, sandbox, start, stop};
use crate::shim::protocol::PodState;

/// When to try again what failed: the sandbox, or a report to the API.
const RETRY: Duration = Duration::from_secs(1);
/// A pod that vanished from the API without having been asked to end gets this grace period.
const GRACE_GONE: Duration = Duration::from_secs(1);
const GRACE_DEFAULT: Duration = Duration::from_secs(30);

/// What the API wants of a pod: the pod, or nothing when it is gone.
pub type Wanted = watch::Receiver<Option<Arc<Pod>>>;

/// The state of one pod's loop.
pub struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) pod: Arc<Pod>,
    pub(super) directory: PathBuf,
    pub(super) facts: Facts,
    pub(super) shim: Option<Shim>,
    pub(super) state: PodState,
    pub(super) memory: Memory,
    pub(super) sent: Option<Value>,
    pub(super) ending: bool,
    wanted: Wanted,
    probes: Probes,
    verdicts: mpsc::Receiver<Verdict>,
    stops: JoinSet<(String, Result<(), String>)>,
    stopping: BTreeSet<String>,
    told_backoff: BTreeSet<String>,
}

/// Runs a pod until it has ended and nothing of it is left. `pod` is how it was last seen.
pub async fn run(shared: Arc<Shared>, pod: Arc<Pod>, wanted: Wanted) {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let directory = shared.pods_dir().join(&uid);
    let (probes, verdicts) = Probes::new(shared.events.clone());
    let mut worker = Worker {
        shared,
        pod,
        directory,
        facts: Facts::default(),
        shim: None,
        state: PodState::default(),
        memory: Memory::default(),
        sent: None,
        ending: false,
        wanted,
        probes,
        verdicts,
        stops: JoinSet::new(),
        stopping: BTreeSet::new(),
        told_backoff: BTreeSet::new(),
    };
    worker.adopt();
    worker.live().await;
    worker.end().await;
}

impl Worker {
    /// Takes over what an earlier agent has left: the shim, and the health that it had reported.
    fn adopt(&mut self) {
        let Ok(shim) = Shim::connect(&self.directory) else {
            return;
        };
        self.shim = Some(shim);
        let status = self.pod.status.clone().unwrap_or_default();
        let all = status
            .container_statuses
            .into_iter()
            .flatten()
            .chain(status.init_container_statuses.into_iter().flatten());
        for known in all.filter(|known| {
            known
                .state
                .as_ref()
                .is_some_and(|state| state.running.is_some())
        }) {
            let health = Health {
                started: known.started == Some(true),
                ready: known.ready,
            };
            self.memory.health.insert(known.name, health);
        }
        if let Ok(ips) = sandbox::pod_ips(&self.shared, &self.pod) {
            self.facts = sandbox::facts(&self.shared, ips);
        }
    }

    /// Until the pod is to end.
    async fn live(&mut self) {
        loop {
            if !self.look() {
                return;
            }
            if self.shim.is_none()
                && let Err(why) = self.set_up().await
            {
                self.tell(
                    None,
                    "Warning",
                    "FailedCreatePodSandBox",
                    format!("Failed to create pod sandbox: {why}"),
                );
                report::report(self, &Plan::default()).await;
                self.wait(Some(RETRY)).await;
                continue;
            }
            if !self.refresh().await {
                continue;
            }
            let spec = self.spec();
            let plan = self.plan();
            self.tell_backoff(&plan);
            let starts = plan.starts(&spec);
            for (container, attempt) in &starts {
                start::start(self, container, *attempt).await;
            }
            if !starts.is_empty() && !self.refresh().await {
                continue;
            }
            self.probe(&spec);
            let plan = self.plan();
            let reported = report::report(self, &plan).await;
            let until = plan.wake_at().map(|at| {
                Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
            });
            let again = plan
                .stands
                .values()
                .any(|stand| matches!(stand, Stand::Start(_)))
                .then_some(Duration::ZERO);
            let retry = (!reported).then_some(RETRY);
            self.wait([until, again, retry].into_iter().flatten().min())
                .await;
        }
    }

    /// Sees what the API wants; false when the pod is to end.
    fn look(&mut self) -> bool {
        match self.wanted.borrow_and_update().clone() {
            Some(pod) => self.pod = pod,
            None => return false,
        }
        self.pod.metadata.deletion_timestamp.is_none()
    }

    async fn set_up(&mut self) -> Result<(), String> {
        let (shared, pod, directory) = (
            self.shared.clone(),
            self.pod.clone(),
            self.directory.clone(),
        );
        let ips = sandbox::pod_ips(&shared, &pod).map_err(|e| e.to_string())?;
        self.facts = sandbox::facts(&shared, ips);
        let sources = sandbox::sources(&shared.client, &pod)
            .await
            .map_err(|e| e.to_string())?;
        let facts = self.facts.clone();
        self.state = PodState::default();
        self.remember_attempts();
        let work = move || {
            sandbox::remember(&directory, &pod).map_err(|e| e.to_string())?;
            super::files::prepare(&directory, &pod, &ips, &sources, &facts)?;
            sandbox::set_up(&shared, &directory, &pod, ips).map_err(|e| e.to_string())
        };
        let shim = tokio::task::spawn_blocking(work)
            .await
            .map_err(|e| e.to_string())??;
        self.shim = Some(shim);
        Ok(())
    }

    /// A new sandbox goes on counting where an earlier one, which the API still shows, has ended.
    fn remember_attempts(&mut self) {
        let status = self.pod.status.clone().unwrap_or_default();
        let all = status
            .container_statuses
            .into_iter()
            .flatten()
            .chain(status.init_container_statuses.into_iter().flatten());
        let next = |known: ContainerStatus| {
            let ran = known.container_id.is_some();
            ran.then(|| (known.name, known.restart_count.max(0) as u32 + 1))
        };
        self.memory.first_attempt = all.filter_map(next).collect();
        self.memory.health.clear();
    }

    /// Asks the shim how the containers are; false when the shim has died, and everything in the pod with it.
    async fn refresh(&mut self) -> bool {
        let Some(shim) = &mut self.shim else {
            return false;
        };
        shim.news.mark_unchanged();
        match shim.state().await {
            Ok(state) => {
                self.state = state;
                true
            }
            Err(error) => {
                tracing::warn!(pod = %self.full_name(), %error, "the pod's shim has ended");
                self.tell(
                    None,
                    "Normal",
                    "SandboxChanged",
                    "Pod sandbox changed, it will be killed and re-created.".into(),
                );
                self.spec()
                    .containers
                    .iter()
                    .for_each(|container| self.probes.stop(&container.name));
                self.shim = None;
                false
            }
        }
    }

    pub(super) fn plan(&self) -> Plan {
        decide::plan(
            &self.spec(),
            &self.full_name(),
            &self.state,
            &self.memory,
            Timestamp::now(),
        )
    }

    fn spec(&self) -> PodSpec {
        self.pod.spec.clone().unwrap_or_default()
    }

    fn full_name(&self) -> String {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let meta = &self.pod.metadata;
        format!(
            "{}_{}({})",
            text(&meta.name),
            text(&meta.namespace),
            text(&meta.uid)
        )
    }

    /// The kubelet's event when a crash loop begins to wait.
    fn tell_backoff(&mut self, plan: &Plan) {
        for (name, stand) in &plan.stands {
            match stand {
                Stand::BackOff(..) if self.told_backoff.insert(name.clone()) => {
                    let text = format!(
                        "Back-off restarting failed container {name} in pod {}",
                        self.full_name()
                    );
                    self.tell(Some(name), "Warning", "BackOff", text);
                }
                Stand::BackOff(..) => {}
                _ => drop(self.told_backoff.remove(name)),
            }
        }
    }

    /// Probes the containers that run, and no others.
    fn probe(&mut self, spec: &PodSpec) {
        for container in spec
            .init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
        {
            match self.state.last_run(&container.name) {
                Some(run) if run.is_running() => {
                    let health = self.memory.health.get(&container.name).copied();
                    let health = health.unwrap_or_else(|| start::first_health(container));
                    self.memory.health.insert(container.name.clone(), health);
                    let (attempt, target) = (run.attempt, self.target(container));
                    self.probes.start(&self.pod, target, attempt, health);
                }
                _ => self.probes.stop(&container.name),
            }
        }
    }

    /// Waits for whatever happens next.
    async fn wait(&mut self, limit: Option<Duration>) {
        let timer = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let news = async {
            match &mut self.shim {
                Some(shim) => drop(shim.news.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.wanted.changed(), if !self.ending => {}
            () = news => {}
            Some(verdict) = self.verdicts.recv() => self.judge(&verdict),
            Some(stopped) = self.stops.join_next() => self.stopped(stopped.ok()),
            () = timer => {}
        }
    }

    fn judge(&mut self, verdict: &Verdict) {
        let current = self
            .state
            .last_run(&verdict.container)
            .map(|run| run.attempt)
            == Some(verdict.attempt);
        let spec = self.spec();
        let mut all = spec
            .init_containers
            .iter()
            .flatten()
            .chain(&spec.containers);
        let (true, Some(container)) = (
            current,
            all.find(|container| container.name == verdict.container),
        ) else {
            return;
        };
        let health = self
            .memory
            .health
            .entry(verdict.container.clone())
            .or_insert(start::first_health(container));
        match (verdict.purpose, verdict.good) {
            (Purpose::Readiness, good) => health.ready = good,
            (Purpose::Startup, true) => {
                health.started = true;
                self.probes.started(&verdict.container);
            }
            (Purpose::Liveness, true) => {}
            (purpose, false) => {
                let why = format!(
                    "failed {} probe, will be restarted",
                    purpose.word().to_lowercase()
                );
                self.kill_container(container, &why);
            }
        }
    }

    /// Stops one container because of `why`; the restart policy decides what comes then.
    pub(super) fn kill_container(&mut self, container: &Container, why: &str) {
        self.stop_container(
            container,
            self.grace(),
            format!("Container {} {why}", container.name),
        );
    }

    fn stop_container(&mut self, container: &Container, grace: Duration, text: String) {
        let Some(shim) = self.shim.clone() else {
            return;
        };
        if self.stopping.insert(container.name.clone()) {
            self.tell(Some(&container.name), "Normal", "Killing", text);
            let target = self.target(container);
            self.stops.spawn(async move {
                (
                    target.container.name.clone(),
                    stop::stop(shim, target, grace).await,
                )
            });
        }
    }

    fn stopped(&mut self, stopped: Option<(String, Result<(), String>)>) {
        let Some((name, hooked)) = stopped else {
            return;
        };
        self.stopping.remove(&name);
        if let Err(why) = hooked {
            self.tell(
                Some(&name),
                "Warning",
                "FailedPreStopHook",
                format!("PreStopHook failed: {why}"),
            );
        }
    }

    /// The grace period that the manifest gives, or the one that came with the deletion.
    fn grace(&self) -> Duration {
        let asked = self.pod.metadata.deletion_grace_period_seconds;
        let own = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.termination_grace_period_seconds);
        asked.or(own).map_or(GRACE_DEFAULT, |seconds| {
            Duration::from_secs(seconds.max(0) as u64)
        })
    }

    /// Stops all containers, reports their ends, and takes everything away.
    async fn end(&mut self) {
        self.ending = true;
        self.probes.only_readiness();
        let gone = self.wanted.borrow().is_none();
        let grace = if gone { GRACE_GONE } else { self.grace() };
        if self.shim.is_some() && self.refresh().await {
            let spec = self.spec();
            for container in spec
                .init_containers
                .iter()
                .flatten()
                .chain(&spec.containers)
            {
                if self
                    .state
                    .last_run(&container.name)
                    .is_some_and(|run| run.is_running())
                {
                    self.stop_container(
                        container,
                        grace,
                        format!("Stopping container {}", container.name),
                    );
                }
            }
        }
        while !self.stops.is_empty() {
            report::report(self, &report::ended(&self.state, &self.spec())).await;
            self.wait(None).await;
            if self.shim.is_some() && !self.refresh().await {
                self.stops.abort_all();
            }
        }
        report::report(self, &report::ended(&self.state, &self.spec())).await;
        if let Some(mut shim) = self.shim.take() {
            shim.end().await;
        }
        report::remove(self).await;
    }

    /// Where probes and hooks of a container go.
    pub(super) fn target(&self, container: &Container) -> Target {
        let ip = self.facts.pod_ips.first().and_then(|ip| ip.parse().ok());
        let ip = ip.unwrap_or(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
        Target {
            pod: self.directory.clone(),
            ip,
            container: container.clone(),
        }
    }

    pub(super) fn tell(&self, container: Option<&str>, kind: &str, reason: &str, message: String) {
        self.shared
            .events
            .tell(&self.pod, container, kind, reason, message);
    }
}
