//! The environment of a container: the kubelet's rules, pure. Config maps and secrets are looked up by the caller.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod};

/// The config maps and secrets that a pod names, by name; what does not exist is absent.
#[derive(Debug, Default, Clone)]
pub struct Sources {
    /// Config maps, text and binary keys alike.
    pub config_maps: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Secrets, decoded.
    pub secrets: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
}

/// What the downward API can name.
#[derive(Debug, Default, Clone)]
pub struct Facts {
    /// The pod's addresses, IPv4 first.
    pub pod_ips: Vec<String>,
    /// The node's addresses, IPv4 first.
    pub host_ips: Vec<String>,
}

/// The variables of a container in the order in which they are defined, each name once.
/// `services` are the Service variables; the manifest's own variables win over them.
pub fn build(
    pod: &Pod,
    container: &Container,
    services: &BTreeMap<String, String>,
    sources: &Sources,
    facts: &Facts,
) -> Result<Vec<(String, String)>, String> {
    let mut variables = Variables::default();
    add_env_from(container, sources, &mut variables)?;
    for variable in container.env.iter().flatten() {
        if let Some(value) = value(pod, variable, sources, facts, &variables, services)? {
            variables.set(&variable.name, value);
        }
    }
    for (name, value) in services {
        if variables.find(name).is_none() {
            variables.set(name, value.clone());
        }
    }
    Ok(variables.list)
}

#[derive(Default)]
struct Variables {
    list: Vec<(String, String)>,
}

impl Variables {
    fn find(&self, name: &str) -> Option<&str> {
        self.list
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: &str, value: String) {
        self.list.retain(|(known, _)| known != name);
        self.list.push((name.to_string(), value));
    }
}

fn add_env_from(
    container: &Container,
    sources: &Sources,
    variables: &mut Variables,
) -> Result<(), String> {
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let found = match (&from.config_map_ref, &from.secret_ref) {
            (Some(map), _) => {
                let found = sources.config_maps.get(&map.name);
                found
                    .ok_or_else(|| format!("configmap {:?} not found", map.name))
                    .or_else(|why| optional(map.optional, why))?
            }
            (None, Some(secret)) => {
                let found = sources.secrets.get(&secret.name);
                found
                    .ok_or_else(|| format!("secret {:?} not found", secret.name))
                    .or_else(|why| optional(secret.optional, why))?
            }
            (None, None) => continue,
        };
        for (key, value) in found {
            variables.set(&format!("{prefix}{key}"), text(value));
        }
    }
    Ok(())
}

/// Variables are text; what is none is shown as well as it can be.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// What is optional and missing counts as empty.
fn optional(
    optional: Option<bool>,
    why: String,
) -> Result<&'static BTreeMap<String, Vec<u8>>, String> {
    static EMPTY: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    if optional == Some(true) {
        Ok(&EMPTY)
    } else {
        Err(why)
    }
}

fn value(
    pod: &Pod,
    variable: &EnvVar,
    sources: &Sources,
    facts: &Facts,
    variables: &Variables,
    services: &BTreeMap<String, String>,
) -> Result<Option<String>, String> {
    match (&variable.value, &variable.value_from) {
        (Some(text), _) if !text.is_empty() => {
            let find = |name: &str| {
                variables
                    .find(name)
                    .or_else(|| services.get(name).map(String::as_str))
                    .map(str::to_string)
            };
            Ok(Some(expand(text, find)))
        }
        (_, Some(source)) => value_from(pod, source, sources, facts),
        _ => Ok(Some(String::new())),
    }
}

fn value_from(
    pod: &Pod,
    source: &EnvVarSource,
    sources: &Sources,
    facts: &Facts,
) -> Result<Option<String>, String> {
    if let Some(field) = &source.field_ref {
        return field_value(pod, &field.field_path, facts).map(Some);
    }
    let (kind, map, key, optional) = if let Some(key) = &source.config_map_key_ref {
        (
            "configmap",
            sources.config_maps.get(&key.name),
            (&key.name, &key.key),
            key.optional,
        )
    } else if let Some(key) = &source.secret_key_ref {
        (
            "secret",
            sources.secrets.get(&key.name),
            (&key.name, &key.key),
            key.optional,
        )
    } else if source.resource_field_ref.is_some() {
        // The lab limits nothing, so a container may use whatever the machine has.
        return Ok(Some("0".into()));
    } else {
        return Err("valueFrom names no source".into());
    };
    match map.map(|map| map.get(key.1)) {
        Some(Some(value)) => Ok(Some(text(value))),
        _ if optional == Some(true) => Ok(None),
        Some(None) => Err(format!("couldn't find key {} in {kind} {:?}", key.1, key.0)),
        None => Err(format!("{kind} {:?} not found", key.0)),
    }
}

/// The value of a downward API field.
pub fn field_value(pod: &Pod, path: &str, facts: &Facts) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = path
        .strip_suffix("']")
        .and_then(|path| path.split_once("['"))
    {
        let map = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(map
            .and_then(|map| map.get(key))
            .cloned()
            .unwrap_or_default());
    }
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    let lines = |map: Option<&BTreeMap<String, String>>| {
        let lines = map
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={value:?}"));
        lines.collect::<Vec<_>>().join("\n")
    };
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => spec
            .and_then(|s| s.service_account_name.clone())
            .unwrap_or_else(|| "default".into()),
        "status.podIP" => text(facts.pod_ips.first()),
        "status.podIPs" => facts.pod_ips.join(","),
        "status.hostIP" => text(facts.host_ips.first()),
        "status.hostIPs" => facts.host_ips.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// Replaces `$(NAME)` where `find` knows the name; `$$` is a dollar that starts nothing.
pub fn expand(text: &str, find: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'))
        {
            out.push_str(&find(name).unwrap_or_else(|| format!("$({name})")));
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests;
