//! The files of the answerer: every key of the ConfigMap `coredns`, as the kubelet would mount them.

use std::collections::BTreeMap;
use std::path::Path;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use portolan_k8s::watch::{Event, Filter, watch};

use crate::dir::private_dir;
use crate::error::{Error, Result};
use crate::names::{CONFIG_MAP, NAMESPACE};

/// The key without which there is nothing to do.
const COREFILE: &str = "Corefile";

/// Writes them wherever they change, for ever. What is deleted stays: an answerer without a Corefile answers nothing.
pub async fn follow(client: Client, dir: &Path) {
    let fields = format!("metadata.name={CONFIG_MAP}");
    let filter = Filter {
        labels: "",
        fields: &fields,
    };
    let maps: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    let mut events = std::pin::pin!(watch(maps, filter));
    while let Some(event) = events.next().await {
        let (Event::InitApply(map) | Event::Apply(map)) = event else {
            continue;
        };
        if let Err(error) = write(dir, &map.data.unwrap_or_default()) {
            tracing::error!(%error, "can't give the answerer of names its files");
        }
    }
}

/// Writes what differs, the Corefile last, since it may name the others.
fn write(dir: &Path, files: &BTreeMap<String, String>) -> Result<()> {
    let Some(corefile) = files.get(COREFILE) else {
        return Err(Error::Refused(format!(
            "the ConfigMap {NAMESPACE}/{CONFIG_MAP} has no key {COREFILE:?}"
        )));
    };
    private_dir(dir)?;
    let others = files.iter().filter(|(name, _)| *name != COREFILE);
    // The API takes no other keys; this one may lead out of the directory.
    for (name, text) in others.filter(|(name, _)| !name.contains('/')) {
        replace(dir, name, text)?;
    }
    replace(dir, COREFILE, corefile)
}

/// A reader sees the old text or the new one.
fn replace(dir: &Path, name: &str, text: &str) -> Result<()> {
    let path = dir.join(name);
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let new = dir.join(".new");
    std::fs::write(&new, text).map_err(|e| Error::file("write", &new, e))?;
    std::fs::rename(&new, &path).map_err(|e| Error::file("write", &path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(files: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = files.iter();
        pairs
            .map(|(name, text)| (name.to_string(), text.to_string()))
            .collect()
    }

    #[test]
    fn every_key_becomes_a_file_and_nothing_leads_out() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("dns");
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).ok();
        write(&dir, &map(&[("Corefile", "one"), ("own.hosts", "a")])).unwrap();
        assert_eq!(read("Corefile").as_deref(), Some("one"));
        assert_eq!(read("own.hosts").as_deref(), Some("a"));
        write(&dir, &map(&[("Corefile", "two"), ("../out", "b")])).unwrap();
        assert_eq!(read("Corefile").as_deref(), Some("two"));
        assert!(!base.path().join("out").exists());
    }

    #[test]
    fn without_a_corefile_the_old_one_stays() {
        let base = tempfile::tempdir().unwrap();
        write(base.path(), &map(&[("Corefile", "one")])).unwrap();
        let error = write(base.path(), &map(&[("other", "x")])).unwrap_err();
        assert!(error.to_string().contains("has no key"), "{error}");
        assert!(base.path().join("Corefile").exists());
        assert!(!base.path().join("other").exists());
    }
}
