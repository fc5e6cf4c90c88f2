//! Manifests into the API: what `portolan lab up -f` needs of `kubectl apply`, create or merge, in file order.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use http::{Request, header::CONTENT_TYPE};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, APIResourceList};
use kube::Client;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// The objects of a YAML or JSON file, or of all such files of a directory in the order of their names.
pub fn read(path: &Path) -> Result<Vec<Value>> {
    if !path.is_dir() {
        return read_file(path);
    }
    let entries = std::fs::read_dir(path).map_err(|e| Error::file("read", path, e))?;
    let manifest = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("yaml" | "yml" | "json"))
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(manifest)
        .collect();
    files.sort();
    Ok(files
        .iter()
        .map(|file| read_file(file))
        .collect::<Result<Vec<_>>>()?
        .concat())
}

fn read_file(path: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file("read", path, e))?;
    parse(&text).map_err(|why| Error::Refused(format!("{}: {why}", path.display())))
}

/// The objects of a text of YAML documents.
pub fn parse(text: &str) -> Result<Vec<Value>, String> {
    let mut objects = Vec::new();
    for document in serde_norway::Deserializer::from_str(text) {
        let value = Value::deserialize(document).map_err(|e| e.to_string())?;
        match value {
            Value::Null => {}
            Value::Object(ref object)
                if value["kind"]
                    .as_str()
                    .is_some_and(|kind| kind.ends_with("List")) =>
            {
                objects.extend(
                    object
                        .get("items")
                        .and_then(Value::as_array)
                        .cloned()
                        .unwrap_or_default(),
                );
            }
            Value::Object(_) => objects.push(value),
            _ => return Err("a document is no object".into()),
        }
    }
    Ok(objects)
}

/// Creates or merges objects.
pub struct Applier {
    client: Client,
    resources: HashMap<String, Vec<APIResource>>,
}

impl Applier {
    /// An applier that knows no kinds yet; it asks the API for each group once.
    pub fn new(client: Client) -> Applier {
        Applier {
            client,
            resources: HashMap::new(),
        }
    }

    /// Applies one object; the answer is what kubectl would say: `service/web created`.
    pub async fn apply(&mut self, object: &Value) -> Result<String> {
        let text = |pointer: &str| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        if version.is_empty() || kind.is_empty() || name.is_empty() {
            return Err(Error::Refused(
                "an object needs apiVersion, kind and metadata.name".into(),
            ));
        }
        let resource = self.resource(version, kind).await?;
        let base = match version.contains('/') {
            true => format!("/apis/{version}"),
            false => format!("/api/{version}"),
        };
        let namespace = Some(text("/metadata/namespace"))
            .filter(|name| !name.is_empty())
            .unwrap_or("default");
        let collection = match resource.namespaced {
            true => format!("{base}/namespaces/{namespace}/{}", resource.name),
            false => format!("{base}/{}", resource.name),
        };
        let group = version
            .split_once('/')
            .map(|(group, _)| format!(".{group}"))
            .unwrap_or_default();
        let title = format!("{}{group}/{name}", kind.to_lowercase());
        let done = self
            .put(&collection, name, object)
            .await
            .map_err(|e| Error::api(format!("apply {title}"), e))?;
        Ok(format!("{title} {done}"))
    }

    async fn put(
        &self,
        collection: &str,
        name: &str,
        object: &Value,
    ) -> kube::Result<&'static str> {
        let body = remembering(object).map_err(kube::Error::SerdeError)?;
        let request = |builder: http::request::Builder| {
            builder.body(body.clone()).map_err(kube::Error::HttpError)
        };
        let post = request(Request::post(collection).header(CONTENT_TYPE, "application/json"))?;
        match self.client.request::<Value>(post).await {
            Ok(_) => return Ok("created"),
            Err(kube::Error::Api(status))
                if status.code == 409 && status.reason == "AlreadyExists" => {}
            Err(error) => return Err(error),
        }
        let patch = Request::patch(format!("{collection}/{name}"));
        let patch = request(patch.header(CONTENT_TYPE, "application/merge-patch+json"))?;
        self.client
            .request::<Value>(patch)
            .await
            .map(|_| "configured")
    }

    async fn resource(&mut self, version: &str, kind: &str) -> Result<APIResource> {
        if !self.resources.contains_key(version) {
            let list: kube::Result<APIResourceList> = match version.contains('/') {
                true => self.client.list_api_group_resources(version).await,
                false => self.client.list_core_api_resources(version).await,
            };
            let list = list.map_err(|e| Error::api(format!("ask which kinds {version} has"), e))?;
            self.resources.insert(version.to_string(), list.resources);
        }
        let known = self.resources.get(version).into_iter().flatten();
        let mut matching =
            known.filter(|resource| resource.kind == kind && !resource.name.contains('/'));
        let found = matching.next().cloned();
        found.ok_or_else(|| {
            Error::Refused(format!(
                "no matches for kind {kind:?} in version {version:?}"
            ))
        })
    }
}

/// The object with the annotation by which `kubectl apply` later knows what was applied before: the object itself
/// with `annotations` and without this one, its keys in order, and the end of a line, as kubectl writes it.
fn remembering(object: &Value) -> serde_json::Result<Vec<u8>> {
    let mut object = object.clone();
    if object["metadata"]["annotations"].is_null() {
        object["metadata"]["annotations"] = Value::Object(Default::default());
    }
    object.sort_all_objects();
    let last = serde_json::to_string(&object)? + "\n";
    object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] =
        Value::String(last);
    serde_json::to_vec(&object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_are_taken_apart() {
        let text = "# nothing\n---\nkind: A\n---\nkind: List\nitems: [{kind: B}, {kind: C}]\n";
        let kinds: Vec<_> = parse(text)
            .unwrap()
            .iter()
            .map(|value| value["kind"].clone())
            .collect();
        assert_eq!(kinds, ["A", "B", "C"]);
        assert!(parse("- 1\n").is_err());
    }

    #[test]
    fn files_of_a_directory_come_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        for (name, kind) in [("2.yaml", "B"), ("1.yml", "A"), ("3.txt", "X")] {
            std::fs::write(dir.path().join(name), format!("kind: {kind}\n")).unwrap();
        }
        let kinds: Vec<_> = read(dir.path())
            .unwrap()
            .iter()
            .map(|value| value["kind"].clone())
            .collect();
        assert_eq!(kinds, ["A", "B"]);
    }
}
