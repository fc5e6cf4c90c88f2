//! How a container is stopped: the preStop hook, SIGTERM, the grace period, SIGKILL.

use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;
use tokio::time::{Instant, timeout, timeout_at};

use super::prober::{Target, http_get, run};
use super::shim_client::Shim;

/// What a container gets after its preStop hook even when that has used up the grace period (the kubelet's minimum).
const AFTER_HOOK_MIN: Duration = Duration::from_secs(2);
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// Stops a running container and returns when it has ended. The error is that of its preStop hook.
pub async fn stop(mut shim: Shim, target: Target, grace: Duration) -> Result<(), String> {
    let name = target.container.name.clone();
    let hook = target
        .container
        .lifecycle
        .as_ref()
        .and_then(|lifecycle| lifecycle.pre_stop.clone());
    let deadline = Instant::now() + grace;
    let hooked = match hook {
        Some(hook) => timeout(grace, run_hook(&hook, &target, grace))
            .await
            .unwrap_or_else(|_| {
                Err(format!(
                    "the hook took longer than the grace period, {}s",
                    grace.as_secs()
                ))
            }),
        None => Ok(()),
    };
    shim.signal(&name, SIGTERM).await;
    let deadline = deadline.max(Instant::now() + AFTER_HOOK_MIN.min(grace));
    if timeout_at(deadline, ended(&mut shim, &name)).await.is_err() {
        shim.signal(&name, SIGKILL).await;
        ended(&mut shim, &name).await;
    }
    hooked
}

/// Runs a lifecycle hook.
pub async fn run_hook(
    hook: &LifecycleHandler,
    target: &Target,
    limit: Duration,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        return run(exec, target, limit).await;
    }
    if let Some(http) = &hook.http_get {
        return http_get(http, target, limit).await;
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0) as u64)).await;
        return Ok(());
    }
    Err("the lab has exec, httpGet and sleep hooks".into())
}

/// Waits until a container has ended (or the whole pod has).
async fn ended(shim: &mut Shim, container: &str) {
    loop {
        let gone = shim.news.borrow_and_update().is_none();
        let running = match shim.state().await {
            Ok(state) => state
                .last_run(container)
                .is_some_and(|run| run.is_running()),
            Err(_) => false,
        };
        if gone || !running || shim.news.changed().await.is_err() {
            return;
        }
    }
}
