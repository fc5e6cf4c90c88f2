//! From a container's manifest to a running process: sources, environment, mounts, and the shim's order.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Container;

use super::decide::{Blocked, Health};
use super::worker::Worker;
use super::{env, files, image, sandbox, service_env, stop};
use crate::shim::protocol::ContainerSpec;

/// Containers find programs here; our own program's directory comes last.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// When to try again what could not be prepared.
const RETRY: SignedDuration = SignedDuration::from_secs(3);
/// How long a postStart hook may take; the kubelet has no limit here, but everything of ours has one.
const POST_START_MAX: Duration = Duration::from_secs(120);

/// Starts a container, or remembers why it can't be started.
pub async fn start(worker: &mut Worker, container: &Container, attempt: u32) {
    let name = container.name.clone();
    let spec = match prepare(worker, container, attempt).await {
        Ok(spec) => spec,
        Err((reason, message)) => return block(worker, &name, reason, message),
    };
    worker.memory.blocked.remove(&name);
    if let Some(run) = worker.state.last_run(&name)
        && let Some(ended) = &run.ended
    {
        worker
            .memory
            .backoff
            .entry(name.clone())
            .or_default()
            .restarted(run.started_at, ended.finished_at);
    }
    worker
        .memory
        .health
        .insert(name.clone(), first_health(container));
    worker.tell(
        Some(&name),
        "Normal",
        "Created",
        format!("Created container: {name}"),
    );
    let Some(shim) = worker.shim.clone() else {
        return;
    };
    if let Err(why) = shim.start_container(spec).await {
        return worker.tell(Some(&name), "Warning", "Failed", format!("Error: {why}"));
    }
    worker.tell(
        Some(&name),
        "Normal",
        "Started",
        format!("Started container {name}"),
    );
    let hook = container
        .lifecycle
        .as_ref()
        .and_then(|lifecycle| lifecycle.post_start.clone());
    if let Some(hook) = hook {
        let target = worker.target(container);
        let done = tokio::time::timeout(
            POST_START_MAX,
            stop::run_hook(&hook, &target, POST_START_MAX),
        )
        .await;
        if let Err(why) = done.unwrap_or_else(|_| Err("took too long".into())) {
            worker.tell(
                Some(&name),
                "Warning",
                "FailedPostStartHook",
                format!("PostStartHook failed: {why}"),
            );
            worker.kill_container(container, "FailedPostStartHook");
        }
    }
}

/// What holds before the first probe.
pub fn first_health(container: &Container) -> Health {
    Health {
        started: container.startup_probe.is_none(),
        ready: container.readiness_probe.is_none(),
    }
}

fn block(worker: &mut Worker, name: &str, reason: &'static str, message: String) {
    let known = worker
        .memory
        .blocked
        .get(name)
        .map(|blocked| blocked.message.clone());
    if known.as_ref() != Some(&message) {
        worker.tell(Some(name), "Warning", "Failed", format!("Error: {message}"));
    }
    let until = Timestamp::now()
        .checked_add(RETRY)
        .unwrap_or(Timestamp::MAX);
    worker.memory.blocked.insert(
        name.to_string(),
        Blocked {
            reason,
            message,
            until,
        },
    );
}

async fn prepare(
    worker: &Worker,
    container: &Container,
    attempt: u32,
) -> Result<ContainerSpec, (&'static str, String)> {
    let config = |message| ("CreateContainerConfigError", message);
    let (pod, shared) = (&worker.pod, &worker.shared);
    let words = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let image = container.image.as_deref().unwrap_or_default();
    let argv = image::command_line(image, &words(&container.command), &words(&container.args))
        .map_err(|why| ("CreateContainerError", why))?;
    let sources = sandbox::sources(&shared.client, pod)
        .await
        .map_err(|e| config(e.to_string()))?;
    let spec = pod.spec.as_ref();
    let links = spec.and_then(|spec| spec.enable_service_links) != Some(false);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let services = shared.services.state();
    let services = service_env::build(services.iter().map(AsRef::as_ref), namespace, links);
    let own = env::build(pod, container, &services, &sources, &worker.facts).map_err(config)?;
    let find = |name: &str| {
        own.iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    };
    let argv = argv.iter().map(|word| env::expand(word, find)).collect();
    Ok(ContainerSpec {
        name: container.name.clone(),
        attempt,
        argv,
        env: with_defaults(worker, own),
        cwd: container
            .working_dir
            .as_deref()
            .filter(|dir| !dir.is_empty())
            .map_or_else(|| "/".into(), PathBuf::from),
        mounts: files::mounts(&worker.directory, pod, container).map_err(config)?,
    })
}

/// What an image and a runtime would set, unless the manifest does.
fn with_defaults(worker: &Worker, own: Vec<(String, String)>) -> Vec<(String, String)> {
    let program = worker
        .shared
        .program
        .parent()
        .map(|dir| dir.display().to_string())
        .unwrap_or_default();
    let hostname = match sandbox::on_host(&worker.pod) {
        true => worker.shared.plan.name(),
        false => files::hostname(&worker.pod),
    };
    let defaults = [
        ("PATH", format!("{PATH}:{program}")),
        ("HOSTNAME", hostname),
        ("HOME", "/root".to_string()),
    ];
    let missing = defaults
        .into_iter()
        .filter(|(name, _)| !own.iter().any(|(known, _)| known == name));
    let missing: Vec<_> = missing
        .map(|(name, value)| (name.to_string(), value))
        .collect();
    [missing, own].concat()
}
