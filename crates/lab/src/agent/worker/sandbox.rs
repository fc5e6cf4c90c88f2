//! A pod's namespaces, network, files and shim: set up, found again, taken away.

use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;
use portolan_kernel::Netns;

use super::Worker;
use crate::agent::backoff::Backoff;
use crate::agent::context::{Context, remove_dir};
use crate::agent::events::Level;
use crate::agent::shim_client::{self, Shim};
use crate::agent::{files, memory, network};
use crate::dir::{private_dir, write_json};
use crate::error::{Error, Result};
use crate::shim::protocol::PodSpec;

impl Worker {
    /// Finds what an earlier agent has left of this pod.
    pub(super) async fn adopt(&mut self) {
        let known = self
            .pod
            .status
            .as_ref()
            .map(memory::of_status)
            .unwrap_or_default();
        self.shim = Shim::connect(&self.dir).await;
        if self.shim.is_some() {
            tracing::info!(pod = self.name(), "found it running");
            self.memory = known;
            self.ips = self.addresses().unwrap_or_default();
        } else {
            self.memory = memory::without_shim(known, Timestamp::now());
        }
        for (name, runs) in self.state().containers {
            let restarts = runs.last().map_or(0, |run| run.attempt);
            self.lives.entry(name).or_default().backoff = Backoff::after(restarts);
        }
    }

    fn addresses(&self) -> Result<Vec<IpAddr>> {
        match self.in_host_network() {
            true => Ok(self.context.node_ips()),
            false => Ok(self.context.allocate(&self.uid)?.to_vec()),
        }
    }

    /// Makes the pod's namespaces and starts its shim.
    pub(super) async fn set_up(&mut self) -> Result<()> {
        let made = self.try_set_up().await;
        if let Err(error) = &made {
            let message = format!("Failed to create pod sandbox: {error}");
            self.event(None, Level::Warning, "FailedCreatePodSandBox", message);
        }
        made
    }

    async fn try_set_up(&mut self) -> Result<()> {
        self.ips = self.addresses()?;
        private_dir(&self.dir)?;
        // A later agent ends the pod by this when the API has it no more; `logs` and `exec` find it by its name.
        write_json(&self.dir.join("pod.json"), self.pod.as_ref())?;
        self.write_etc()?;
        let hostname = self.kernel_name().map_err(Error::Refused)?;
        let hostname = (!self.in_host_network()).then_some(hostname);
        let netns = match self.in_host_network() {
            true => None,
            false => Some(self.build_network().await?),
        };
        let shim = Shim::launch(
            self.context.program.clone(),
            self.dir.clone(),
            PodSpec { hostname },
            netns,
        )
        .await?;
        self.shim = Some(shim);
        Ok(())
    }

    async fn build_network(&self) -> Result<Netns> {
        let pair = <[IpAddr; 2]>::try_from(self.ips.clone());
        let ips = pair.map_err(|_| Error::Refused("a pod needs two addresses".into()))?;
        let (uid, node_ips) = (self.uid.clone(), self.context.plan.ips());
        let built = tokio::task::spawn_blocking(move || network::build(&uid, ips, node_ips)).await;
        built.map_err(|e| Error::conversation("build a pod's network", std::io::Error::other(e)))?
    }

    fn write_etc(&self) -> Result<()> {
        let etc = self.dir.join("etc");
        private_dir(&etc)?;
        let of_node = |path: &str| std::fs::read_to_string(path).ok();
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        let hosts = match self.in_host_network() {
            true => files::hosts_of_node(&self.pod, &of_node("/etc/hosts").unwrap_or_default()),
            false => files::hosts(&self.pod, &self.ips),
        };
        write(&etc.join("hosts"), &hosts)?;
        let host = of_node("/etc/resolv.conf");
        let resolv = files::resolv_conf(namespace, self.spec(), host.as_deref());
        write(&etc.join("resolv.conf"), &resolv.text)?;
        for message in resolv.left_out {
            self.event(None, Level::Warning, "DNSConfigForming", message);
        }
        let hostname = self.kernel_name().map_err(Error::Refused)?;
        write(&etc.join("hostname"), &format!("{hostname}\n"))
    }

    /// What the pod's kernel calls the machine.
    pub(super) fn kernel_name(&self) -> Result<String, String> {
        match self.in_host_network() {
            true => Ok(self.context.plan.name()),
            false => files::kernel_name(&self.pod),
        }
    }

    /// A shim that is gone took the containers with it.
    pub(super) fn notice_lost_shim(&mut self, now: Timestamp) {
        let Some(shim) = &self.shim else { return };
        if shim.state().is_some() {
            return;
        }
        self.memory = memory::without_shim(self.last.clone(), now);
        self.shim = None;
        self.tasks.abort_all();
        for live in self.lives.values_mut() {
            live.probes.clear();
            live.stopping = None;
        }
        let message = "Pod sandbox changed, it will be killed and re-created.";
        self.event(None, Level::Normal, "SandboxChanged", message);
    }

    /// Ends the shim and takes the network away; the logs stay. What was is remembered.
    pub(super) async fn tear_down(&mut self) -> Result<()> {
        self.memory = memory::without_shim(self.state(), Timestamp::now());
        self.shim = None;
        self.tasks.abort_all();
        remove_sandbox(&self.context, &self.uid).await
    }

    /// An event about the pod or one of its containers.
    pub(super) fn event(
        &self,
        container: Option<&str>,
        level: Level,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.context
            .events
            .pod(&self.pod, container, level, reason, message);
    }
}

/// Removes everything of a pod but its directory. What is gone already is fine.
async fn remove_sandbox(context: &Context, uid: &str) -> Result<()> {
    let dir = context.pod_dir(uid);
    match Shim::connect(&dir).await {
        Some(shim) => {
            let ended = shim.end().await;
            ended.map_err(|why| Error::Refused(format!("end the pod {uid}: {why}")))?;
        }
        None => shim_client::kill(&dir),
    }
    let name = uid.to_string();
    let removed = tokio::task::spawn_blocking(move || network::remove(&name)).await;
    removed
        .map_err(|e| Error::conversation("remove a pod's network", std::io::Error::other(e)))??;
    context.release(uid)
}

/// Removes everything of a pod.
pub async fn remove_all(context: &Context, uid: &str) -> Result<()> {
    remove_sandbox(context, uid).await?;
    remove_dir(&context.pod_dir(uid))
}

/// Containers hold the file itself, so it is written in place.
fn write(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).map_err(|e| Error::file("write", path, e))?;
    let mode = PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(path, mode).map_err(|e| Error::file("write", path, e))
}
