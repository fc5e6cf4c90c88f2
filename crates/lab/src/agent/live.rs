//! What the agent knows of one container beyond what its shim says: its probes, its postStart hook, its back-off,
//! and whether it is being stopped.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus};
use tokio::sync::watch;

use super::backoff::Backoff;
use super::probe::{Kind, Rules, Schedule};
use super::status::Found;
use crate::shim::protocol::Run;

/// One container.
#[derive(Debug, Default)]
pub struct Live {
    /// The run that probes and hook belong to.
    pub attempt: Option<u32>,
    /// Probes of this run.
    pub probes: Vec<Schedule>,
    /// Whether the postStart hook is still under way.
    pub hook_open: bool,
    /// If it is being stopped: by when at last.
    pub stopping: Option<watch::Sender<Timestamp>>,
    /// Between restarts.
    pub backoff: Backoff,
    /// The run whose end people were told to wait after.
    pub told: Option<u32>,
    /// Why it can't be started, and when to try again.
    pub trouble: Option<Trouble>,
}

/// Why a container can't be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// As `state.waiting` says it.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// When to try again.
    pub retry: Timestamp,
}

impl Live {
    /// A new run has begun. `known` is what the API says of this very run, if this agent is younger than it.
    pub fn begin(
        &mut self,
        container: &Container,
        run: &Run,
        known: Option<&ContainerStatus>,
        now: Timestamp,
    ) {
        self.attempt = Some(run.attempt);
        self.stopping = None;
        self.trouble = None;
        self.probes.clear();
        let started = known.and_then(|known| known.started);
        if let Some(probe) = &container.startup_probe {
            let rules = Rules::from(probe);
            self.probes.push(Schedule::new(
                Kind::Startup,
                rules,
                run.started_at,
                now,
                started,
            ));
        }
        let ready = known.map(|known| known.ready).filter(|ready| *ready);
        if self.startup_done() {
            self.begin_others(container, run.started_at, ready, now);
        }
    }

    /// The startup probe has succeeded: the other probes begin.
    pub fn begin_others(
        &mut self,
        container: &Container,
        started_at: Timestamp,
        ready: Option<bool>,
        now: Timestamp,
    ) {
        let others = [
            (Kind::Liveness, &container.liveness_probe, None),
            (Kind::Readiness, &container.readiness_probe, ready),
        ];
        for (kind, probe, known) in others {
            if let Some(probe) = probe {
                let rules = Rules::from(probe);
                self.probes
                    .push(Schedule::new(kind, rules, started_at, now, known));
            }
        }
    }

    /// The probe of a kind.
    pub fn probe(&mut self, kind: Kind) -> Option<&mut Schedule> {
        self.probes.iter_mut().find(|probe| probe.kind == kind)
    }

    /// Which probes still mean something: a container that is being stopped is not restarted by its probes.
    pub fn is_active(&self, kind: Kind) -> bool {
        match kind {
            Kind::Readiness => true,
            Kind::Liveness => self.stopping.is_none(),
            Kind::Startup => self.stopping.is_none() && !self.startup_done(),
        }
    }

    /// Whether there is no startup probe or it has succeeded.
    pub fn startup_done(&self) -> bool {
        self.result(Kind::Startup)
    }

    fn result(&self, kind: Kind) -> bool {
        let found = self.probes.iter().find(|probe| probe.kind == kind);
        found.is_none_or(|probe| probe.result)
    }

    /// For the status.
    pub fn found(&self, container: &Container) -> Found {
        let started = self.attempt.is_some() && self.startup_done() && !self.hook_open;
        let probed = container.readiness_probe.is_none()
            || self
                .probes
                .iter()
                .any(|probe| probe.kind == Kind::Readiness && probe.result);
        let trouble = self.trouble.as_ref();
        Found {
            started,
            ready: started && probed,
            trouble: trouble.map(|trouble| (trouble.reason.to_string(), trouble.message.clone())),
        }
    }
}
