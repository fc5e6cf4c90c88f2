//! Starting a container: everything that the shim has to know, and the postStart hook.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;

use super::{Done, Worker};
use crate::agent::action::Action;
use crate::agent::decide::Decision;
use crate::agent::env::{Facts, expand};
use crate::agent::events::Level;
use crate::agent::live::Trouble;
use crate::agent::status::full_name;
use crate::agent::{env, image, service_env, volumes};
use crate::shim::protocol::{ContainerSpec, Mount};

/// A container that can't be started is tried again after this time.
const TROUBLE_RETRY: Duration = Duration::from_secs(2);
/// What a container finds in PATH before its manifest says something; our own program's directory comes last.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A postStart hook may take this long; the kubelet sets no limit, so this one is generous.
const POST_START_MAX: Duration = Duration::from_secs(600);

/// Why a container can't be started: the reason in its status, the event's reason, and the message.
struct Refusal(&'static str, &'static str, String);

fn config_error(message: String) -> Refusal {
    Refusal("CreateContainerConfigError", "Failed", message)
}

impl Worker {
    /// Starts the next run of a container, unless it failed a moment ago.
    pub(super) async fn start(&mut self, name: &str, attempt: u32, now: Timestamp) {
        let live = self.lives.entry(name.to_string()).or_default();
        if live
            .trouble
            .as_ref()
            .is_some_and(|trouble| trouble.retry > now)
        {
            return;
        }
        let Some(shim) = self.shim.clone() else {
            return;
        };
        let spec = match self.container_spec(name, attempt).await {
            Ok(spec) => spec,
            Err(refusal) => return self.refuse(name, refusal),
        };
        let before = self.state().last_run(name).cloned();
        let started = shim.start(spec).await;
        let recorded = shim
            .state()
            .and_then(|state| state.last_run(name).cloned())
            .filter(|run| run.attempt == attempt);
        if let (Some(run), Some(live)) = (&before, self.lives.get_mut(name)) {
            let finished = run.ended.as_ref().map_or(now, |ended| ended.finished_at);
            live.backoff.restarted(run.started_at, finished);
        }
        match (started, recorded) {
            (Ok(()), Some(run)) => {
                self.event(
                    Some(name),
                    Level::Normal,
                    "Created",
                    format!("Created container: {name}"),
                );
                self.event(
                    Some(name),
                    Level::Normal,
                    "Started",
                    format!("Started container {name}"),
                );
                let Some(container) = self.container(name).cloned() else {
                    return;
                };
                let live = self.lives.entry(name.to_string()).or_default();
                live.begin(&container, &run, None, Timestamp::now());
                self.begin_post_start(&container, attempt);
            }
            (Err(why), Some(_)) => {
                self.event(
                    Some(name),
                    Level::Warning,
                    "Failed",
                    format!("Error: {why}"),
                );
            }
            (result, None) => {
                let why = result
                    .err()
                    .unwrap_or_else(|| "the shim has not started it".into());
                self.refuse(name, Refusal("RunContainerError", "Failed", why));
            }
        }
    }

    fn refuse(&mut self, name: &str, Refusal(reason, event, message): Refusal) {
        let text = match event {
            "FailedMount" => message.clone(),
            _ => format!("Error: {message}"),
        };
        self.event(Some(name), Level::Warning, event, text);
        let trouble = Trouble {
            reason,
            message,
            retry: Timestamp::now() + TROUBLE_RETRY,
        };
        self.lives.entry(name.to_string()).or_default().trouble = Some(trouble);
    }

    async fn container_spec(&self, name: &str, attempt: u32) -> Result<ContainerSpec, Refusal> {
        let unknown = || config_error(format!("the pod has no container {name}"));
        let container = self.container(name).ok_or_else(unknown)?;
        let wanted = volumes::wanted(&self.pod);
        let sources = self.context.sources(&self.pod, &wanted).await;
        let sources = sources.map_err(|e| config_error(e.to_string()))?;
        let facts = self.facts();
        let made = volumes::prepare(&self.pod, &self.dir.join("volumes"), &sources, &facts);
        let volumes = made.map_err(|(volume, why)| {
            let message = format!("MountVolume.SetUp failed for volume {volume:?} : {why}");
            Refusal("ContainerCreating", "FailedMount", message)
        })?;
        let services = self.context.services().await;
        let services = services.map_err(|e| config_error(e.to_string()))?;
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        let links = self.spec().enable_service_links != Some(false);
        let of_services = service_env::build(&services, namespace, links);
        let of_services: BTreeMap<_, _> = of_services.into_iter().collect();
        let variables = env::build(&self.pod, container, &of_services, &sources, &facts);
        let variables = variables.map_err(config_error)?;
        let known: BTreeMap<_, _> = variables.iter().cloned().collect();
        let expanded = |text: &str| expand(text, |name| known.get(name).cloned());
        let words = |list: &Option<Vec<String>>| -> Vec<String> {
            list.iter().flatten().map(|word| expanded(word)).collect()
        };
        let image = container.image.as_deref().unwrap_or_default();
        let argv = image::command_line(image, &words(&container.command), &words(&container.args));
        let argv = argv.map_err(|why| Refusal("CreateContainerError", "Failed", why))?;
        let mut mounts = self.etc_mounts();
        mounts.extend(volumes::mounts(container, &volumes, expanded).map_err(config_error)?);
        Ok(ContainerSpec {
            name: name.to_string(),
            attempt,
            argv,
            env: self.with_base(variables)?,
            cwd: working_dir(container),
            mounts,
        })
    }

    pub(super) fn facts(&self) -> Facts {
        let text = |ips: &[std::net::IpAddr]| ips.iter().map(ToString::to_string).collect();
        Facts {
            pod_ips: text(&self.ips),
            host_ips: text(&self.context.node_ips()),
        }
    }

    fn with_base(
        &self,
        variables: Vec<(String, String)>,
    ) -> Result<Vec<(String, String)>, Refusal> {
        let hostname = self.kernel_name().map_err(config_error)?;
        let own = self.context.program.parent();
        let own = own.map(|dir| dir.display().to_string()).unwrap_or_default();
        let path = format!("{PATH}:{own}");
        let base = [
            ("PATH", path.as_str()),
            ("HOSTNAME", &hostname),
            ("HOME", "/root"),
        ];
        let given = |name: &str| variables.iter().any(|(known, _)| known == name);
        let missing = base.iter().filter(|(name, _)| !given(name));
        let mut all: Vec<_> = missing
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        all.extend(variables);
        Ok(all)
    }

    fn etc_mounts(&self) -> Vec<Mount> {
        let one = |name: &str| Mount {
            source: self.dir.join("etc").join(name),
            target: PathBuf::from("/etc").join(name),
            read_only: false,
        };
        ["hosts", "resolv.conf", "hostname"].map(one).to_vec()
    }

    fn begin_post_start(&mut self, container: &Container, attempt: u32) {
        let lifecycle = container.lifecycle.as_ref();
        let Some(hook) = lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref()) else {
            return;
        };
        let (Some(shim), Some(ip)) = (self.shim.clone(), self.ips.first()) else {
            return;
        };
        let action = Action::of_hook(hook, container, *ip);
        let name = container.name.clone();
        self.lives.entry(name.clone()).or_default().hook_open = true;
        self.tasks.spawn(async move {
            let result = match action {
                Ok(action) => action.perform(&shim, &name, POST_START_MAX).await,
                Err(why) => Err(why),
            };
            Done::PostStart {
                container: name,
                attempt,
                result,
            }
        });
    }

    /// A container whose postStart hook fails is killed.
    pub(super) fn post_started(&mut self, name: &str, attempt: u32, result: Result<(), String>) {
        let Some(live) = self.lives.get_mut(name) else {
            return;
        };
        if live.attempt != Some(attempt) {
            return;
        }
        live.hook_open = false;
        if let Err(why) = result {
            tracing::debug!(
                pod = self.name(),
                container = name,
                why,
                "postStart hook failed"
            );
            self.event(
                Some(name),
                Level::Warning,
                "FailedPostStartHook",
                "PostStartHook failed",
            );
            let deadline = Timestamp::now() + self.grace();
            self.stop(name, deadline, "FailedPostStartHook");
        }
    }

    /// Says once for each end that the next run has to wait.
    pub(super) fn tell_waits(&mut self, decision: &Decision) {
        let state = self.state();
        for name in decision.waits.keys() {
            let attempt = state.last_run(name).map(|run| run.attempt);
            let live = self.lives.entry(name.clone()).or_default();
            if live.told != attempt {
                live.told = attempt;
                let message = format!(
                    "Back-off restarting failed container {name} in pod {}",
                    full_name(&self.pod)
                );
                self.event(Some(name), Level::Warning, "BackOff", message);
            }
        }
    }
}

fn working_dir(container: &Container) -> PathBuf {
    let given = container
        .working_dir
        .as_deref()
        .filter(|dir| !dir.is_empty());
    PathBuf::from(given.unwrap_or("/"))
}
