//! The end of a container (preStop hook, SIGTERM, SIGKILL) and of a pod.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use nix::sys::signal::Signal;
use tokio::sync::watch;

use super::{Done, Next, Worker, is_over, sandbox};
use crate::agent::action::Action;
use crate::agent::context::bounded;
use crate::agent::decide::{Decision, is_sidecar};
use crate::agent::events::Level;
use crate::agent::shim_client::{ANSWER_MAX, Shim};
use crate::error::{Error, Result};

/// A pod without another wish has this long to end.
const GRACE_DEFAULT: i64 = 30;
/// After its preStop hook a container has at least this long (the kubelet's value).
const AFTER_HOOK_MIN: Duration = Duration::from_secs(2);
/// A pod that is to end at once still gets this long to notice.
const FORCED: Duration = Duration::from_secs(1);

impl Worker {
    /// How long the pod's containers may take to end.
    pub(super) fn grace(&self) -> Duration {
        let seconds = self
            .spec()
            .termination_grace_period_seconds
            .unwrap_or(GRACE_DEFAULT);
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    }

    /// Stops a container by `deadline`; an earlier deadline than the one before wins.
    pub(super) fn stop(&mut self, name: &str, deadline: Timestamp, message: &str) {
        let Some(run) = self.running(name) else {
            return;
        };
        let (Some(shim), Some(container)) = (self.shim.clone(), self.container(name).cloned())
        else {
            return;
        };
        let live = self.lives.entry(name.to_string()).or_default();
        if let Some(sender) = &live.stopping {
            sender.send_if_modified(|known| {
                let sooner = deadline < *known;
                *known = deadline.min(*known);
                sooner
            });
            return;
        }
        let (sender, receiver) = watch::channel(deadline);
        live.stopping = Some(sender);
        self.event(Some(name), Level::Normal, "Killing", message);
        let hook = container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        let hook = match (hook, self.ips.first()) {
            (Some(hook), Some(ip)) => Some(Action::of_hook(hook, &container, *ip)),
            _ => None,
        };
        let name = name.to_string();
        self.tasks.spawn(async move {
            let hook = stop(&shim, &name, run.attempt, hook, receiver).await;
            Done::Stopped {
                container: name,
                hook,
            }
        });
    }

    /// A container was stopped.
    pub(super) fn stopped(&mut self, name: &str, hook: Result<(), String>) {
        if let Err(why) = hook {
            tracing::debug!(
                pod = self.name(),
                container = name,
                why,
                "preStop hook failed"
            );
            self.event(
                Some(name),
                Level::Warning,
                "FailedPreStopHook",
                "PreStopHook failed",
            );
        }
    }

    /// The next step towards the end of a pod that is being deleted, or that the API has no more.
    pub(super) async fn end(&mut self, now: Timestamp) -> Result<Next> {
        let deadline = self.end_deadline(now);
        if self.stop_all(deadline) {
            self.start_due_probes(now);
            if !self.gone {
                let decision = self.decide(now);
                self.report(&decision, now).await?;
            }
            return Ok(Next::Step(self.next_probe()));
        }
        if !self.gone {
            self.finish_status(now).await?;
        }
        self.tear_down().await?;
        sandbox::remove_all(&self.context, &self.uid).await?;
        if !self.gone {
            self.delete().await?;
        }
        Ok(Next::Nothing)
    }

    /// Writes the status of a pod in which nothing runs any more; one that is gone already needs none.
    async fn finish_status(&mut self, now: Timestamp) -> Result<()> {
        if is_over(&self.pod) {
            return Ok(());
        }
        let decision = self.decide(now);
        match self.report(&decision, now).await {
            Err(Error::Api { error, .. }) if is_gone(&error) => Ok(()),
            other => other,
        }
    }

    /// Stops everything that runs: first the containers, then the sidecars that serve them. Whether something runs.
    fn stop_all(&mut self, deadline: Timestamp) -> bool {
        let state = self.state();
        let running = self.containers().filter(|(container, _)| {
            state
                .last_run(&container.name)
                .is_some_and(|run| run.is_running())
        });
        let (sidecars, others): (Vec<_>, Vec<_>) = running
            .map(|(it, _)| (it.name.clone(), is_sidecar(it)))
            .partition(|(_, sidecar)| *sidecar);
        let first = if others.is_empty() { sidecars } else { others };
        for (name, _) in &first {
            self.stop(name, deadline, &format!("Stopping container {name}"));
        }
        !first.is_empty()
    }

    /// The API writes whole seconds, so its time may be up to one second early.
    fn end_deadline(&mut self, now: Timestamp) -> Timestamp {
        let since = *self.ending_since.get_or_insert(now);
        let meta = &self.pod.metadata;
        let seconds = meta
            .deletion_grace_period_seconds
            .filter(|seconds| *seconds > 0);
        let grace = match seconds.and_then(|seconds| u64::try_from(seconds).ok()) {
            Some(seconds) if !self.gone => Duration::from_secs(seconds),
            _ => FORCED,
        };
        let told = meta
            .deletion_timestamp
            .as_ref()
            .map(|time| time.0 + Duration::from_secs(1));
        let deadline = since + grace;
        told.map_or(deadline, |told| deadline.min(told))
            .max(since + FORCED)
    }

    /// All containers have ended for good: stops the sidecars, then takes the pod's namespaces away.
    pub(super) async fn wind_down(&mut self, decision: &Decision, now: Timestamp) -> Result<Next> {
        if self.stop_all(now + self.grace()) {
            return Ok(Next::Step(None));
        }
        self.report(decision, now).await?;
        if self.shim.is_some() {
            self.tear_down().await?;
        }
        Ok(Next::Step(None))
    }

    async fn delete(&self) -> Result<()> {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), namespace);
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(self.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match bounded("delete a pod", api.delete(self.name(), &params)).await {
            Err(Error::Api { error, .. }) if is_gone(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

/// The pod is not there, or another one has its name by now.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}

/// preStop hook, SIGTERM, and SIGKILL when the time is up. Returns how the hook went, when the container has ended.
async fn stop(
    shim: &Shim,
    container: &str,
    attempt: u32,
    hook: Option<Result<Action, String>>,
    mut deadline: watch::Receiver<Timestamp>,
) -> Result<(), String> {
    let mut least = Timestamp::now();
    let mut said = Ok(());
    if let Some(hook) = hook {
        said = tokio::select! {
            result = async { hook?.perform(shim, container, Duration::MAX / 4).await } => result,
            () = passed(&mut deadline, least) => Err("it took longer than the grace period".into()),
            () = shim.wait_end(container, attempt) => Ok(()),
        };
        least = Timestamp::now() + AFTER_HOOK_MIN;
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        if let Err(why) = shim.signal(container, signal as i32).await {
            tracing::debug!(container, why, "can't send a signal");
        }
        let time_is_up = async {
            match signal {
                Signal::SIGTERM => passed(&mut deadline, least).await,
                _ => tokio::time::sleep(ANSWER_MAX).await,
            }
        };
        tokio::select! {
            () = shim.wait_end(container, attempt) => return said,
            () = time_is_up => {}
        }
    }
    // No process outlives SIGKILL for so long, so it is the shim that does not do its work.
    shim.kill();
    said
}

/// Waits until the deadline, which may become an earlier one meanwhile, and at least until `least`.
async fn passed(deadline: &mut watch::Receiver<Timestamp>, least: Timestamp) {
    loop {
        let until = (*deadline.borrow_and_update()).max(least);
        let left = Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default();
        tokio::select! {
            () = tokio::time::sleep(left) => return,
            Ok(()) = deadline.changed() => {}
        }
    }
}
