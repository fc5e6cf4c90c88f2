//! The files that every pod gets, /etc/hosts and /etc/resolv.conf, and the volumes of its manifest.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, KeyToPath, Pod, SecretVolumeSource, Volume,
};

use super::env::{Facts, Sources, field_value};
use crate::plan::DNS_SERVICE;
use crate::shim::protocol::Mount;

/// The text of a pod's /etc/resolv.conf: the cluster's names first, then whatever the name server knows.
pub fn resolv_conf(pod: &Pod) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let spec = pod.spec.as_ref();
    let config = spec.and_then(|spec| spec.dns_config.as_ref());
    let mut servers = vec![DNS_SERVICE.to_string()];
    let mut searches: Vec<String> = ["svc.cluster.local", "cluster.local"]
        .map(str::to_string)
        .into_iter()
        .collect();
    searches.insert(0, format!("{namespace}.svc.cluster.local"));
    let mut options = vec!["ndots:5".to_string()];
    if spec.and_then(|spec| spec.dns_policy.as_deref()) == Some("None") {
        (servers, searches, options) = Default::default();
    }
    if let Some(config) = config {
        servers.extend(config.nameservers.iter().flatten().cloned());
        searches.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            options.retain(|known| known.split(':').next() != Some(name));
            options.push(
                option
                    .value
                    .as_ref()
                    .map_or(name.clone(), |value| format!("{name}:{value}")),
            );
        }
    }
    let mut text = String::new();
    if !searches.is_empty() {
        text += &format!("search {}\n", searches.join(" "));
    }
    servers
        .iter()
        .for_each(|server| text += &format!("nameserver {server}\n"));
    if !options.is_empty() {
        text += &format!("options {}\n", options.join(" "));
    }
    text
}

/// The text of a pod's /etc/hosts.
pub fn hosts(pod: &Pod, hostname: &str, ips: &[IpAddr]) -> String {
    let mut text = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_string();
    ips.iter()
        .for_each(|ip| text += &format!("{ip}\t{hostname}\n"));
    let aliases = pod
        .spec
        .iter()
        .flat_map(|spec| spec.host_aliases.iter().flatten());
    for alias in aliases {
        text += &format!(
            "{}\t{}\n",
            alias.ip,
            alias.hostnames.as_deref().unwrap_or_default().join("\t")
        );
    }
    text
}

/// The host name of a pod.
pub fn hostname(pod: &Pod) -> String {
    let own = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.hostname.clone())
        .filter(|name| !name.is_empty());
    let mut name = own.unwrap_or_else(|| pod.metadata.name.clone().unwrap_or_default());
    // The kernel's limit (64) is shorter than a pod's name may be; the kubelet cuts at 63.
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_string()
}

/// Where a pod's volume is, below its directory.
fn volume_path(directory: &Path, name: &str) -> PathBuf {
    directory.join("volumes").join(name)
}

/// Writes a pod's own files and makes its volumes. An existing volume is kept, with its data brought up to date.
pub fn prepare(
    directory: &Path,
    pod: &Pod,
    ips: &[IpAddr],
    sources: &Sources,
    facts: &Facts,
) -> Result<(), String> {
    let etc = directory.join("etc");
    let write = |path: PathBuf, text: &[u8]| write_file(&path, text, None);
    write(etc.join("resolv.conf"), resolv_conf(pod).as_bytes())?;
    write(
        etc.join("hosts"),
        hosts(pod, &hostname(pod), ips).as_bytes(),
    )?;
    write(
        etc.join("hostname"),
        format!("{}\n", hostname(pod)).as_bytes(),
    )?;
    let scratch = directory.join("scratch");
    std::fs::create_dir_all(&scratch).map_err(|e| format!("create {}: {e}", scratch.display()))?;
    for volume in pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
    {
        let path = volume_path(directory, &volume.name);
        if volume.host_path.is_none() {
            std::fs::create_dir_all(&path)
                .map_err(|e| format!("create {}: {e}", path.display()))?;
        }
        fill(&path, pod, volume, sources, facts)?;
    }
    Ok(())
}

fn fill(
    path: &Path,
    pod: &Pod,
    volume: &Volume,
    sources: &Sources,
    facts: &Facts,
) -> Result<(), String> {
    if let Some(source) = &volume.config_map {
        return fill_config_map(path, source, sources);
    }
    if let Some(source) = &volume.secret {
        return fill_secret(path, source, sources);
    }
    if let Some(source) = &volume.downward_api {
        for item in source.items.iter().flatten() {
            let Some(field) = &item.field_ref else {
                continue;
            };
            let text = field_value(pod, &field.field_path, facts)?;
            write_file(
                &inside(path, &item.path)?,
                text.as_bytes(),
                item.mode.or(source.default_mode),
            )?;
        }
        return Ok(());
    }
    match volume.empty_dir.is_some() || volume.host_path.is_some() {
        true => Ok(()),
        false => Err(format!(
            "volume {:?}: the lab has emptyDir, configMap, secret, downwardAPI and hostPath",
            volume.name
        )),
    }
}

fn fill_config_map(
    path: &Path,
    source: &ConfigMapVolumeSource,
    sources: &Sources,
) -> Result<(), String> {
    match sources.config_maps.get(&source.name) {
        Some(data) => fill_keys(
            path,
            data.iter(),
            source.items.as_deref(),
            source.default_mode,
        ),
        None if source.optional == Some(true) => Ok(()),
        None => Err(format!("configmap {:?} not found", source.name)),
    }
}

fn fill_secret(path: &Path, source: &SecretVolumeSource, sources: &Sources) -> Result<(), String> {
    let name = source.secret_name.as_deref().unwrap_or_default();
    match sources.secrets.get(name) {
        Some(data) => fill_keys(
            path,
            data.iter(),
            source.items.as_deref(),
            source.default_mode,
        ),
        None if source.optional == Some(true) => Ok(()),
        None => Err(format!("secret {name:?} not found")),
    }
}

fn fill_keys<'a>(
    path: &Path,
    data: impl Iterator<Item = (&'a String, &'a String)>,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
) -> Result<(), String> {
    for (key, value) in data {
        match items {
            None => write_file(&inside(path, key)?, value.as_bytes(), mode)?,
            Some(items) => {
                for item in items.iter().filter(|item| item.key == *key) {
                    write_file(
                        &inside(path, &item.path)?,
                        value.as_bytes(),
                        item.mode.or(mode),
                    )?;
                }
            }
        }
    }
    Ok(())
}

/// A path below a volume; one that leads out of it is refused.
fn inside(path: &Path, relative: &str) -> Result<PathBuf, String> {
    let ok = Path::new(relative)
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)));
    if ok && !relative.is_empty() {
        Ok(path.join(relative))
    } else {
        Err(format!("{relative:?} leads out of the volume"))
    }
}

fn write_file(path: &Path, text: &[u8], mode: Option<i32>) -> Result<(), String> {
    let wrong = |e: std::io::Error| format!("write {}: {e}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(wrong)?;
    }
    std::fs::write(path, text).map_err(wrong)?;
    let mode = mode.map_or(0o644, |mode| mode as u32 & 0o777);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(wrong)
}

/// What is mounted into a container: the pod's own files, and the volumes in the order of their paths' depth.
pub fn mounts(directory: &Path, pod: &Pod, container: &Container) -> Result<Vec<Mount>, String> {
    let etc = |file: &str| Mount {
        source: directory.join("etc").join(file),
        target: Path::new("/etc").join(file),
        read_only: false,
    };
    let mut mounts: Vec<Mount> = ["resolv.conf", "hosts", "hostname"].map(etc).into();
    let volumes = || {
        pod.spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten())
    };
    let mut wanted: Vec<_> = container.volume_mounts.iter().flatten().collect();
    wanted.sort_by_key(|mount| Path::new(&mount.mount_path).components().count());
    for mount in wanted {
        let volume = volumes().find(|volume| volume.name == mount.name);
        let volume =
            volume.ok_or_else(|| format!("volume {:?} is mounted but not defined", mount.name))?;
        let base = match &volume.host_path {
            Some(host) => PathBuf::from(&host.path),
            None => volume_path(directory, &volume.name),
        };
        let source = match mount.sub_path.as_deref().filter(|path| !path.is_empty()) {
            Some(sub) => inside(&base, sub)?,
            None => base,
        };
        if !source.exists() {
            std::fs::create_dir_all(&source)
                .map_err(|e| format!("create {}: {e}", source.display()))?;
        }
        let always_read_only = volume.config_map.is_some() || volume.secret.is_some();
        mounts.push(Mount {
            source,
            target: PathBuf::from(&mount.mount_path),
            read_only: always_read_only || mount.read_only == Some(true),
        });
    }
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "web-1", "namespace": "shop"}, "spec": spec}),
        )
        .unwrap()
    }

    #[test]
    fn names_are_searched_in_the_namespace_first() {
        let text = resolv_conf(&pod(
            json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}),
        ));
        assert_eq!(
            text,
            "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 172.30.0.10\noptions ndots:2\n"
        );
    }

    #[test]
    fn volumes_are_filled_and_mounted() {
        let directory = tempfile::tempdir().unwrap();
        let pod = pod(json!({
            "containers": [{"name": "c", "volumeMounts": [
                {"name": "data", "mountPath": "/a/b"}, {"name": "conf", "mountPath": "/a"}
            ]}],
            "volumes": [
                {"name": "conf", "configMap": {"name": "m", "items": [{"key": "k", "path": "sub/file"}]}},
                {"name": "data", "emptyDir": {}}
            ]
        }));
        let sources = Sources {
            config_maps: [("m".into(), [("k".into(), "v".into())].into())].into(),
            ..Sources::default()
        };
        prepare(directory.path(), &pod, &[], &sources, &Facts::default()).unwrap();
        assert_eq!(
            std::fs::read_to_string(directory.path().join("volumes/conf/sub/file")).unwrap(),
            "v"
        );
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let mounts = mounts(directory.path(), &pod, container).unwrap();
        let targets: Vec<_> = mounts[3..]
            .iter()
            .map(|m| (m.target.to_str().unwrap(), m.read_only))
            .collect();
        assert_eq!(targets, [("/a", true), ("/a/b", false)]);
    }

    #[test]
    fn a_path_that_leads_out_of_a_volume_is_refused() {
        for path in ["../x", "/etc/passwd", "a/../../b", ""] {
            assert!(inside(Path::new("/v"), path).is_err(), "{path}");
        }
    }
}
