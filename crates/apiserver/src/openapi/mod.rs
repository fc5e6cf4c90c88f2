//! OpenAPI documents of the served kinds, and what their schemas say about an object.

mod definitions;
mod fields;
pub mod lists;
mod messages;
mod operations;
mod parameters;
mod proto;
pub mod types;
mod v2;
mod v3;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::kind::Kind;

pub use fields::{decode, unknown_fields};

const TITLE: &str = "Kubernetes";
/// The release of Kubernetes whose types are served.
pub const VERSION: &str = "v1.35.0";

/// Content types of patches.
const PATCH_TYPES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// The OpenAPI documents. Each is built when it is first asked for, and kept as the bytes that are sent.
pub struct Documents {
    kinds: &'static [&'static Kind],
    v2_json: OnceLock<Bytes>,
    v2_proto: OnceLock<Bytes>,
    v3: OnceLock<BTreeMap<String, V3>>,
}

/// The document of one group and version.
struct V3 {
    json: Bytes,
    /// Changes when the document does; clients keep what they have read by it.
    hash: String,
}

impl Documents {
    /// The documents of these kinds.
    pub fn new(kinds: &'static [&'static Kind]) -> Documents {
        Documents {
            kinds,
            v2_json: OnceLock::new(),
            v2_proto: OnceLock::new(),
            v3: OnceLock::new(),
        }
    }

    /// OpenAPI v2 as JSON.
    pub fn v2_json(&self) -> Bytes {
        self.v2_json
            .get_or_init(|| v2::document(self.kinds).to_string().into())
            .clone()
    }

    /// OpenAPI v2 as `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`.
    pub fn v2_proto(&self) -> Bytes {
        self.v2_proto
            .get_or_init(|| proto::encode(&v2::document(self.kinds)).into())
            .clone()
    }

    /// The index at `/openapi/v3`: where the document of each group and version is.
    pub fn v3_index(&self) -> Value {
        let entry = |(path, document): (&String, &V3)| {
            let url = format!("/openapi/v3/{path}?hash={}", document.hash);
            (path.clone(), json!({"serverRelativeURL": url}))
        };
        json!({"paths": self.v3_documents().iter().map(entry).collect::<Map<String, Value>>()})
    }

    /// The OpenAPI v3 document at `/openapi/v3/PATH`, e.g. `apis/apps/v1`, as JSON.
    pub fn v3(&self, path: &str) -> Option<Bytes> {
        self.v3_documents()
            .get(path)
            .map(|document| document.json.clone())
    }

    fn v3_documents(&self) -> &BTreeMap<String, V3> {
        self.v3.get_or_init(|| {
            let mut groups: BTreeMap<String, Vec<&Kind>> = BTreeMap::new();
            for kind in self.kinds {
                groups
                    .entry(operations::prefix(kind))
                    .or_default()
                    .push(kind);
            }
            let build = |(path, kinds): (String, Vec<&Kind>)| {
                let json = Bytes::from(v3::document(&kinds).to_string());
                let hash = Sha256::digest(&json)
                    .iter()
                    .map(|byte| format!("{byte:02X}"))
                    .collect();
                (path, V3 { json, hash })
            };
            groups.into_iter().map(build).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::kinds;

    fn v3(path: &str) -> Value {
        serde_json::from_slice(&Documents::new(kinds()).v3(path).unwrap()).unwrap()
    }

    #[test]
    fn the_index_leads_to_every_group() {
        let documents = Documents::new(kinds());
        let index = documents.v3_index();
        let paths: Vec<&String> = index["paths"].as_object().unwrap().keys().collect();
        assert_eq!(
            paths,
            [
                "api/v1",
                "apis/apps/v1",
                "apis/coordination.k8s.io/v1",
                "apis/discovery.k8s.io/v1",
                "apis/networking.k8s.io/v1"
            ]
        );
        for path in paths {
            let url = index["paths"][path]["serverRelativeURL"].as_str().unwrap();
            assert!(url.starts_with(&format!("/openapi/v3/{path}?hash=")));
            assert!(documents.v3(path).is_some());
        }
        assert!(documents.v3("apis/nothing/v1").is_none());
    }

    #[test]
    fn clients_see_that_fields_are_validated_here() {
        let document = v3("api/v1");
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/services/{name}"]["patch"];
        let expected = json!({"group": "", "kind": "Service", "version": "v1"});
        assert_eq!(patch["x-kubernetes-group-version-kind"], expected);
        assert_eq!(patch["x-kubernetes-action"], "patch");
        let names: Vec<&Value> = patch["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|given| &given["name"])
            .collect();
        assert_eq!(
            names,
            ["dryRun", "fieldManager", "fieldValidation", "force"]
        );
    }

    #[test]
    fn references_beside_a_description_are_wrapped() {
        let document = v3("apis/apps/v1");
        let schemas = &document["components"]["schemas"];
        let spec = &schemas["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"];
        assert_eq!(
            spec["allOf"],
            json!([{"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"}])
        );
        assert!(spec["description"].is_string());
        assert!(
            schemas.get("io.k8s.api.core.v1.ServiceSpec").is_none(),
            "not needed here"
        );
        assert!(!document.to_string().contains("#/definitions/"));
    }

    #[test]
    fn documents_are_small_enough_to_keep() {
        const BYTES_MAX: usize = 3_000_000;
        let documents = Documents::new(kinds());
        let v3: usize = documents
            .v3_documents()
            .values()
            .map(|document| document.json.len())
            .sum();
        for size in [documents.v2_json().len(), documents.v2_proto().len(), v3] {
            assert!((100_000..BYTES_MAX).contains(&size), "{size} bytes");
        }
    }

    #[test]
    fn the_same_kinds_give_the_same_documents() {
        let (a, b) = (Documents::new(kinds()), Documents::new(kinds()));
        assert_eq!(a.v3_index(), b.v3_index());
        assert_eq!(a.v2_proto(), b.v2_proto());
    }
}
