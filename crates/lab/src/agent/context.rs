//! What all workers of a node share.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::{Api, Client};
use tokio::sync::watch;

use super::env::Sources;
use super::events::Recorder;
use super::ipam::{self, Ipam};
use crate::dir::{LabDir, private_dir, read_json, write_json};
use crate::error::{Error, Result};
use crate::plan::NodePlan;

/// A request to the API may take this long before the worker goes on with its other duties.
pub const REQUEST_MAX: Duration = Duration::from_secs(5);

/// The node's shared things.
pub struct Context {
    /// Which node this is.
    pub plan: NodePlan,
    /// The way to the API.
    pub client: Client,
    /// Our own program, found before somebody replaces it.
    pub program: PathBuf,
    /// Where events go.
    pub events: Recorder,
    dir: PathBuf,
    ipam: Mutex<Ipam>,
    services: watch::Receiver<Option<BTreeMap<String, Service>>>,
}

impl Context {
    /// Reads the node's directory. The future follows the Services and must be polled all the time.
    pub fn new(
        plan: NodePlan,
        dir: &LabDir,
        client: Client,
        events: Recorder,
    ) -> Result<(Context, impl Future<Output = ()> + use<>)> {
        let dir = dir.node(&plan.name());
        let program =
            std::env::current_exe().map_err(|e| Error::conversation("find our own program", e))?;
        private_dir(&dir.join("pods"))?;
        let table = dir.join("ipam.json");
        let ipam = match table.exists() {
            true => read_json(&table)?,
            false => Ipam::default(),
        };
        let (sender, services) = watch::channel(None);
        let following = follow_services(client.clone(), sender);
        let context = Context {
            plan,
            client,
            program,
            events,
            dir,
            ipam: Mutex::new(ipam),
            services,
        };
        Ok((context, following))
    }

    /// Where the directories of the pods are.
    pub fn pods_dir(&self) -> PathBuf {
        self.dir.join("pods")
    }

    /// The directory of a pod.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.pods_dir().join(uid)
    }

    /// The pods that have a directory.
    pub fn known_pods(&self) -> Result<Vec<String>> {
        let pods = self.pods_dir();
        let entries = std::fs::read_dir(&pods).map_err(|e| Error::file("list", &pods, e))?;
        let names = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.collect())
    }

    /// The node's addresses.
    pub fn node_ips(&self) -> Vec<IpAddr> {
        self.plan.ips().to_vec()
    }

    /// The addresses of a pod, given to it now if it has none.
    pub fn allocate(&self, uid: &str) -> Result<[IpAddr; 2]> {
        let mut table = self.ipam();
        let full = || Error::Refused("no addresses are left in this node's pod networks".into());
        let slot = table.allocate(uid).ok_or_else(full)?;
        self.save(&table)?;
        Ok(ipam::addresses(self.plan.pod_cidrs(), slot))
    }

    /// Takes a pod's addresses back.
    pub fn release(&self, uid: &str) -> Result<()> {
        let mut table = self.ipam();
        table.release(uid);
        self.save(&table)
    }

    fn save(&self, table: &Ipam) -> Result<()> {
        write_json(&self.dir.join("ipam.json"), table)
    }

    fn ipam(&self) -> MutexGuard<'_, Ipam> {
        self.ipam.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All Services, as soon as they are known.
    pub async fn services(&self) -> Result<Vec<Service>> {
        let mut services = self.services.clone();
        let known = tokio::time::timeout(REQUEST_MAX, services.wait_for(Option::is_some)).await;
        let unknown = || {
            Error::Refused(
                "services have not yet been read at least once, cannot construct envvars".into(),
            )
        };
        match known {
            Ok(Ok(map)) => Ok(map.iter().flat_map(|map| map.values().cloned()).collect()),
            _ => Err(unknown()),
        }
    }

    /// The config maps and secrets of these names that exist.
    pub async fn sources(&self, pod: &Pod, wanted: &Wanted) -> Result<Sources> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let mut sources = Sources::default();
        for name in &wanted.config_maps {
            let Some(map) = bounded("read a config map", maps.get_opt(name)).await? else {
                continue;
            };
            let mut data: BTreeMap<String, Vec<u8>> = BTreeMap::new();
            data.extend(
                map.data
                    .into_iter()
                    .flatten()
                    .map(|(key, text)| (key, text.into_bytes())),
            );
            data.extend(
                map.binary_data
                    .into_iter()
                    .flatten()
                    .map(|(key, bytes)| (key, bytes.0)),
            );
            sources.config_maps.insert(name.clone(), data);
        }
        for name in &wanted.secrets {
            let Some(secret) = bounded("read a secret", secrets.get_opt(name)).await? else {
                continue;
            };
            let data = secret
                .data
                .into_iter()
                .flatten()
                .map(|(key, bytes)| (key, bytes.0));
            sources.secrets.insert(name.clone(), data.collect());
        }
        Ok(sources)
    }
}

/// The names of what a pod's manifest refers to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Config maps.
    pub config_maps: Vec<String>,
    /// Secrets.
    pub secrets: Vec<String>,
}

/// A request to the API with a limit to its time.
pub async fn bounded<T>(
    what: &'static str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(REQUEST_MAX, request).await {
        Ok(answer) => answer.map_err(|e| Error::api(what, e)),
        Err(_) => Err(Error::Refused(format!(
            "{what}: no answer within {REQUEST_MAX:?}"
        ))),
    }
}

async fn follow_services(client: Client, sender: watch::Sender<Option<BTreeMap<String, Service>>>) {
    use portolan_k8s::watch::{Event, Filter, watch};
    let mut events = std::pin::pin!(watch(Api::<Service>::all(client), Filter::default()));
    let key = |service: &Service| {
        let meta = &service.metadata;
        format!(
            "{}/{}",
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default()
        )
    };
    let mut listing = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing.clear(),
            Event::InitApply(service) => drop(listing.insert(key(&service), service)),
            Event::InitDone => drop(sender.send_replace(Some(std::mem::take(&mut listing)))),
            Event::Apply(service) => sender.send_modify(|map| {
                map.get_or_insert_default().insert(key(&service), service);
            }),
            Event::Delete(service) => sender.send_modify(|map| {
                map.get_or_insert_default().remove(&key(&service));
            }),
        }
    }
}

/// Removes a pod's directory; one that is gone already is fine.
pub fn remove_dir(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path, e)),
        _ => Ok(()),
    }
}
