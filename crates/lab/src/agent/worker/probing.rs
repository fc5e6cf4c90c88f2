//! Running the probes of a pod's containers and acting on what they find.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Probe};

use super::{Done, Worker};
use crate::agent::action::Action;
use crate::agent::events::Level;
use crate::agent::probe::Kind;

impl Worker {
    /// Begins to probe runs that an earlier agent started, and forgets the probes of runs that have ended.
    pub(super) fn notice_runs(&mut self, now: Timestamp) {
        let state = self.state();
        let containers: Vec<Container> = self.containers().map(|(it, _)| it.clone()).collect();
        for container in containers {
            let Some(run) = state.last_run(&container.name) else {
                continue;
            };
            let known = self.api_status(&container.name).cloned();
            let live = self.lives.entry(container.name.clone()).or_default();
            if !run.is_running() {
                live.probes.clear();
                live.stopping = None;
                live.hook_open = false;
            } else if live.attempt != Some(run.attempt) {
                let known = known.filter(|known| known.restart_count as u32 == run.attempt);
                live.begin(&container, run, known.as_ref(), now);
            }
        }
    }

    fn api_status(&self, name: &str) -> Option<&ContainerStatus> {
        let status = self.pod.status.as_ref()?;
        let init = status.init_container_statuses.iter().flatten();
        let mut all = status.container_statuses.iter().flatten().chain(init);
        all.find(|container| container.name == name)
    }

    /// Starts every probe whose time has come.
    pub(super) fn start_due_probes(&mut self, now: Timestamp) {
        let state = self.state();
        let containers: Vec<Container> = self.containers().map(|(it, _)| it.clone()).collect();
        for container in &containers {
            let name = &container.name;
            let Some(run) = state.last_run(name).filter(|run| run.is_running()) else {
                continue;
            };
            let Some(live) = self.lives.get_mut(name) else {
                continue;
            };
            let active = [Kind::Startup, Kind::Liveness, Kind::Readiness]
                .map(|kind| (kind, live.is_active(kind)));
            for (kind, _) in active.into_iter().filter(|(_, active)| *active) {
                let due = live.probe(kind).and_then(|probe| probe.due());
                if due.is_none_or(|due| due > now) {
                    continue;
                }
                let Some(schedule) = live.probe(kind) else {
                    continue;
                };
                schedule.begin(now);
                let limit = schedule.rules.timeout;
                let (Some(probe), Some(shim), Some(ip)) =
                    (probe_of(container, kind), &self.shim, self.ips.first())
                else {
                    continue;
                };
                let action = Action::of_probe(probe, container, *ip);
                let (shim, container, attempt) = (shim.clone(), name.clone(), run.attempt);
                self.tasks.spawn(async move {
                    let result = match action {
                        Ok(action) => action.perform(&shim, &container, limit).await,
                        Err(why) => Err(why),
                    };
                    Done::Probe {
                        container,
                        attempt,
                        kind,
                        result,
                    }
                });
            }
        }
    }

    /// When the next probe is due.
    pub(super) fn next_probe(&self) -> Option<Timestamp> {
        let state = self.state();
        let running = self
            .lives
            .iter()
            .filter(|(name, _)| state.last_run(name).is_some_and(|run| run.is_running()));
        let due = running.flat_map(|(_, live)| {
            let active = live
                .probes
                .iter()
                .filter(|probe| live.is_active(probe.kind));
            active.filter_map(|probe| probe.due())
        });
        due.min()
    }

    /// A probe has come back.
    pub(super) fn probed(
        &mut self,
        name: &str,
        attempt: u32,
        kind: Kind,
        result: Result<(), String>,
    ) {
        let Some(container) = self.container(name).cloned() else {
            return;
        };
        let run = self.running(name).filter(|run| run.attempt == attempt);
        let Some(live) = self
            .lives
            .get_mut(name)
            .filter(|live| live.attempt == Some(attempt))
        else {
            return;
        };
        let Some(schedule) = live.probe(kind) else {
            return;
        };
        let effect = schedule.finish(result.is_ok());
        let Some(run) = run else { return };
        if kind == Kind::Startup && effect.changed {
            live.begin_others(&container, run.started_at, None, Timestamp::now());
        }
        let may_restart = live.is_active(kind) && effect.fatal;
        if let (true, Err(why)) = (effect.failed, &result) {
            let message = format!("{} probe failed: {why}", kind.name());
            self.event(Some(name), Level::Warning, "Unhealthy", message);
        }
        if may_restart {
            let own =
                probe_of(&container, kind).and_then(|probe| probe.termination_grace_period_seconds);
            let own = own
                .and_then(|seconds| u64::try_from(seconds).ok())
                .map(Duration::from_secs);
            let deadline = Timestamp::now() + own.unwrap_or(self.grace());
            let what = kind.name().to_lowercase();
            let message = format!("Container {name} failed {what} probe, will be restarted");
            self.stop(name, deadline, &message);
        }
    }
}

fn probe_of(container: &Container, kind: Kind) -> Option<&Probe> {
    match kind {
        Kind::Startup => container.startup_probe.as_ref(),
        Kind::Liveness => container.liveness_probe.as_ref(),
        Kind::Readiness => container.readiness_probe.as_ref(),
    }
}
