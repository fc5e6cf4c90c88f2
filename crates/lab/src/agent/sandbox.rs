//! What a pod needs before its containers: a directory, addresses, a network, its files and its shim;
//! and how all of that is taken away again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use kube::{Api, Client};

use super::env::{Facts, Sources};
use super::ipam::{Ipam, addresses};
use super::shim_client::Shim;
use super::{Shared, files, network};
use crate::dir::{private_dir, read_json, write_json};
use crate::error::{Error, Result};
use crate::shim::protocol::PodSpec as ShimSpec;

/// The node's address table and its file.
pub struct Addresses {
    path: PathBuf,
    table: Mutex<Ipam>,
}

impl Addresses {
    /// Reads what an earlier agent has left.
    pub fn open(node_dir: &Path) -> Addresses {
        let path = node_dir.join("ipam.json");
        let table = read_json(&path).unwrap_or_default();
        Addresses {
            path,
            table: Mutex::new(table),
        }
    }

    /// Changes the table and writes it.
    pub fn change<T>(&self, work: impl FnOnce(&mut Ipam) -> T) -> Result<T> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut table);
        write_json(&self.path, &*table)?;
        Ok(result)
    }
}

/// Whether the pod lives in its node's network.
pub fn on_host(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

/// The pod's addresses, IPv4 first; the same ones for the same pod.
pub fn pod_ips(shared: &Shared, pod: &Pod) -> Result<[IpAddr; 2]> {
    if on_host(pod) {
        return Ok(shared.plan.ips());
    }
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let slot = shared.addresses.change(|table| table.allocate(uid))?;
    let slot = slot.ok_or_else(|| {
        Error::Refused(format!("all addresses of {} are taken", shared.plan.name()))
    })?;
    Ok(addresses(shared.plan.pod_cidrs(), slot))
}

/// What the downward API knows.
pub fn facts(shared: &Shared, ips: [IpAddr; 2]) -> Facts {
    Facts {
        pod_ips: ips.map(|ip| ip.to_string()).into(),
        host_ips: shared.plan.ips().map(|ip| ip.to_string()).into(),
    }
}

/// Builds the network and starts the shim. Blocks.
pub fn set_up(shared: &Shared, directory: &Path, pod: &Pod, ips: [IpAddr; 2]) -> Result<Shim> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let own = match on_host(pod) {
        true => None,
        false => Some(network::build(uid, ips, shared.plan.ips())?),
    };
    let hostname = own.is_some().then(|| files::hostname(pod));
    Shim::start(
        &shared.program,
        directory,
        &ShimSpec { hostname },
        own.as_ref(),
    )?;
    Shim::connect(directory)
}

/// Makes the pod's directory and remembers the pod in it, so that a later agent can end it.
pub fn remember(directory: &Path, pod: &Pod) -> Result<()> {
    private_dir(directory)?;
    write_json(&directory.join("pod.json"), pod)
}

/// Takes everything away. The shim has ended.
pub fn tear_down(shared: &Shared, directory: &Path, uid: &str) -> Result<()> {
    network::remove(uid)?;
    shared.addresses.change(|table| table.release(uid))?;
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove", directory, error))
        }
        _ => Ok(()),
    }
}

/// Gets all config maps and secrets that the pod names. What does not exist is left out.
pub async fn sources(client: &Client, pod: &Pod) -> kube::Result<Sources> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let (config_maps, secrets) = names(pod);
    let mut sources = Sources::default();
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    for name in config_maps {
        if let Some(map) = api.get_opt(&name).await? {
            sources
                .config_maps
                .insert(name, map.data.unwrap_or_default());
        }
    }
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    for name in secrets {
        if let Some(secret) = api.get_opt(&name).await? {
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            let data: BTreeMap<_, _> = secret
                .data
                .into_iter()
                .flatten()
                .map(|(key, value)| (key, text(value.0)))
                .collect();
            sources.secrets.insert(name, data);
        }
    }
    Ok(sources)
}

fn names(pod: &Pod) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    let Some(spec) = &pod.spec else {
        return (maps, secrets);
    };
    for volume in spec.volumes.iter().flatten() {
        maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
        secrets.extend(
            volume
                .secret
                .iter()
                .filter_map(|source| source.secret_name.clone()),
        );
    }
    for container in spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
    {
        env_names(container, &mut maps, &mut secrets);
    }
    (maps, secrets)
}

fn env_names(container: &Container, maps: &mut BTreeSet<String>, secrets: &mut BTreeSet<String>) {
    for from in container.env_from.iter().flatten() {
        maps.extend(from.config_map_ref.iter().map(|source| source.name.clone()));
        secrets.extend(from.secret_ref.iter().map(|source| source.name.clone()));
    }
    for source in container
        .env
        .iter()
        .flatten()
        .filter_map(|variable| variable.value_from.as_ref())
    {
        maps.extend(source.config_map_key_ref.iter().map(|key| key.name.clone()));
        secrets.extend(source.secret_key_ref.iter().map(|key| key.name.clone()));
    }
}
