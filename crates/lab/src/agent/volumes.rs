//! A pod's volumes as directories below its own, and what they hold: emptyDir, configMap, secret, downwardAPI,
//! projected (of these), hostPath.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, DownwardAPIVolumeFile, KeyToPath, Pod, SecretVolumeSource,
    Volume, VolumeProjection,
};

use super::context::Wanted;
use super::env::{Facts, Sources, field_value};
use crate::shim::protocol::Mount;

/// The mode of a volume's files without another wish.
const FILE_MODE: i32 = 0o644;

/// A file of a volume: its path in it, what it holds, and its mode.
#[derive(Debug, PartialEq, Eq)]
struct File {
    path: String,
    bytes: Vec<u8>,
    mode: i32,
}

/// The config maps and secrets that the volumes and the environment of a pod refer to.
pub fn wanted(pod: &Pod) -> Wanted {
    let mut wanted = Wanted::default();
    let Some(spec) = &pod.spec else { return wanted };
    let mut map = |name: &str| wanted.config_maps.push(name.to_string());
    let mut secret = |name: &str| wanted.secrets.push(name.to_string());
    for volume in spec.volumes.iter().flatten() {
        volume
            .config_map
            .iter()
            .for_each(|source| map(&source.name));
        volume
            .secret
            .iter()
            .flat_map(|source| &source.secret_name)
            .for_each(|name| secret(name));
        let projected = volume
            .projected
            .iter()
            .flat_map(|source| source.sources.iter().flatten());
        for source in projected {
            source
                .config_map
                .iter()
                .for_each(|source| map(&source.name));
            source.secret.iter().for_each(|source| secret(&source.name));
        }
    }
    let init = spec.init_containers.iter().flatten();
    for container in spec.containers.iter().chain(init) {
        for from in container.env_from.iter().flatten() {
            from.config_map_ref
                .iter()
                .for_each(|source| map(&source.name));
            from.secret_ref
                .iter()
                .for_each(|source| secret(&source.name));
        }
        let variables = container.env.iter().flatten();
        for from in variables.filter_map(|variable| variable.value_from.as_ref()) {
            from.config_map_key_ref
                .iter()
                .for_each(|source| map(&source.name));
            from.secret_key_ref
                .iter()
                .for_each(|source| secret(&source.name));
        }
    }
    for names in [&mut wanted.config_maps, &mut wanted.secrets] {
        names.sort();
        names.dedup();
    }
    wanted
}

/// Makes all volumes below `dir`; where each is. On failure the volume's name and what is wrong.
pub fn prepare(
    pod: &Pod,
    dir: &Path,
    sources: &Sources,
    facts: &Facts,
) -> Result<BTreeMap<String, PathBuf>, (String, String)> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
    let mut paths = BTreeMap::new();
    for volume in volumes.unwrap_or_default() {
        let path = one(pod, volume, &dir.join(&volume.name), sources, facts);
        let path = path.map_err(|why| (volume.name.clone(), why))?;
        paths.insert(volume.name.clone(), path);
    }
    Ok(paths)
}

fn one(
    pod: &Pod,
    volume: &Volume,
    dir: &Path,
    sources: &Sources,
    facts: &Facts,
) -> Result<PathBuf, String> {
    if let Some(host) = &volume.host_path {
        let path = PathBuf::from(&host.path);
        let exists = path.try_exists().map_err(|e| e.to_string())?;
        return match exists {
            true => Ok(path),
            // The lab never writes to the machine outside its own directory.
            false => Err(format!(
                "hostPath type check failed: {} does not exist",
                host.path
            )),
        };
    }
    if volume.empty_dir.is_some() {
        make_dir(dir, 0o777)?;
        return Ok(dir.to_path_buf());
    }
    let files = if let Some(source) = &volume.config_map {
        of_config_map(source, sources)?
    } else if let Some(source) = &volume.secret {
        of_secret(source, sources)?
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(FILE_MODE);
        of_downward_api(
            source.items.as_deref().unwrap_or_default(),
            pod,
            facts,
            mode,
        )?
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(FILE_MODE);
        let mut files = Vec::new();
        for projection in source.sources.iter().flatten() {
            files.extend(of_projection(projection, mode, pod, sources, facts)?);
        }
        files
    } else {
        return Err("the lab has no volumes of this kind".into());
    };
    make_dir(dir, 0o755)?;
    files.iter().try_for_each(|file| write(dir, file))?;
    Ok(dir.to_path_buf())
}

fn of_config_map(source: &ConfigMapVolumeSource, sources: &Sources) -> Result<Vec<File>, String> {
    let found = sources.config_maps.get(&source.name);
    let what = format!("configmap {:?}", source.name);
    let mode = source.default_mode.unwrap_or(FILE_MODE);
    of_keys(found, &what, source.items.as_deref(), source.optional, mode)
}

fn of_secret(source: &SecretVolumeSource, sources: &Sources) -> Result<Vec<File>, String> {
    let name = source.secret_name.clone().unwrap_or_default();
    let mode = source.default_mode.unwrap_or(FILE_MODE);
    let what = format!("secret {name:?}");
    of_keys(
        sources.secrets.get(&name),
        &what,
        source.items.as_deref(),
        source.optional,
        mode,
    )
}

fn of_projection(
    projection: &VolumeProjection,
    mode: i32,
    pod: &Pod,
    sources: &Sources,
    facts: &Facts,
) -> Result<Vec<File>, String> {
    if let Some(source) = &projection.config_map {
        let what = format!("configmap {:?}", source.name);
        let found = sources.config_maps.get(&source.name);
        return of_keys(found, &what, source.items.as_deref(), source.optional, mode);
    }
    if let Some(source) = &projection.secret {
        let what = format!("secret {:?}", source.name);
        let found = sources.secrets.get(&source.name);
        return of_keys(found, &what, source.items.as_deref(), source.optional, mode);
    }
    if let Some(source) = &projection.downward_api {
        return of_downward_api(
            source.items.as_deref().unwrap_or_default(),
            pod,
            facts,
            mode,
        );
    }
    // The lab has no service account tokens.
    Ok(Vec::new())
}

fn of_keys(
    data: Option<&BTreeMap<String, Vec<u8>>>,
    what: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: i32,
) -> Result<Vec<File>, String> {
    let optional = optional == Some(true);
    let data = match data {
        Some(data) => data,
        None if optional => return Ok(Vec::new()),
        None => return Err(format!("{what} not found")),
    };
    let file = |path: &str, bytes: &[u8], mode| File {
        path: path.to_string(),
        bytes: bytes.to_vec(),
        mode,
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data
            .iter()
            .map(|(key, bytes)| file(key, bytes, mode))
            .collect());
    };
    let mut files = Vec::new();
    for item in items {
        match data.get(&item.key) {
            Some(bytes) => files.push(file(&item.path, bytes, item.mode.unwrap_or(mode))),
            None if optional => {}
            None => {
                return Err(format!(
                    "{what} references non-existent config key: {}",
                    item.key
                ));
            }
        }
    }
    Ok(files)
}

fn of_downward_api(
    items: &[DownwardAPIVolumeFile],
    pod: &Pod,
    facts: &Facts,
    mode: i32,
) -> Result<Vec<File>, String> {
    let one = |item: &DownwardAPIVolumeFile| {
        let text = match &item.field_ref {
            Some(field) => field_value(pod, &field.field_path, facts)?,
            // As in the environment: the lab limits nothing.
            None => "0".to_string(),
        };
        Ok(File {
            path: item.path.clone(),
            bytes: text.into_bytes(),
            mode: item.mode.unwrap_or(mode),
        })
    };
    items.iter().map(one).collect()
}

fn make_dir(dir: &Path, mode: u32) -> Result<(), String> {
    let wrong = |e| format!("create {}: {e}", dir.display());
    std::fs::create_dir_all(dir).map_err(wrong)?;
    std::fs::set_permissions(dir, PermissionsExt::from_mode(mode)).map_err(wrong)
}

/// Writes a file so that a container sees the old or the new text.
fn write(dir: &Path, file: &File) -> Result<(), String> {
    let relative = Path::new(&file.path);
    let plain = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !plain || file.path.is_empty() {
        return Err(format!("invalid path {:?}", file.path));
    }
    let path = dir.join(relative);
    let wrong = |e| format!("write {}: {e}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(wrong)?;
    }
    if std::fs::read(&path).is_ok_and(|bytes| bytes == file.bytes) {
        return Ok(());
    }
    let mut temporary = path.clone().into_os_string();
    temporary.push("..new");
    std::fs::write(&temporary, &file.bytes).map_err(wrong)?;
    let mode = PermissionsExt::from_mode(file.mode.unsigned_abs());
    std::fs::set_permissions(&temporary, mode).map_err(wrong)?;
    std::fs::rename(&temporary, &path).map_err(wrong)
}

/// The mounts of one container; `expand` replaces `$(NAME)` in a `subPathExpr`.
pub fn mounts(
    container: &Container,
    volumes: &BTreeMap<String, PathBuf>,
    expand: impl Fn(&str) -> String,
) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let source = volumes
            .get(&mount.name)
            .ok_or_else(|| format!("volume {:?} is not in the pod", mount.name))?;
        let below = match (&mount.sub_path, &mount.sub_path_expr) {
            (Some(path), _) if !path.is_empty() => path.clone(),
            (_, Some(path)) => expand(path),
            _ => String::new(),
        };
        if Path::new(&below)
            .components()
            .any(|part| !matches!(part, Component::Normal(_)))
        {
            return Err(format!("invalid subPath {below:?}"));
        }
        let source = source.join(&below);
        if !source.exists() {
            std::fs::create_dir_all(&source)
                .map_err(|e| format!("create {}: {e}", source.display()))?;
        }
        mounts.push(Mount {
            source,
            target: PathBuf::from(&mount.mount_path),
            read_only: mount.read_only == Some(true),
        });
    }
    // What is mounted above something else must come first.
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(mounts)
}

#[cfg(test)]
mod tests;
