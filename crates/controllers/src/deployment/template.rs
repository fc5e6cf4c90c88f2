//! Which ReplicaSet carries the template of a Deployment, and how a new one is made.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sha2::{Digest, Sha256};

use super::revision;
use crate::endpoints::owner_reference;

/// Label that tells the pods of one template from those of another.
pub(super) const HASH: &str = "pod-template-hash";

/// The ReplicaSet with the template of the Deployment; the oldest, should there be several.
pub(super) fn find_new<'a>(
    deployment: &Deployment,
    sets: &'a [Arc<ReplicaSet>],
) -> Option<&'a Arc<ReplicaSet>> {
    sets.iter().find(|set| same(deployment, set))
}

/// Whether the templates are the same but for the hash.
pub(super) fn same(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let plain = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        if let Some(metadata) = &mut template.metadata {
            metadata.labels.get_or_insert_default().remove(HASH);
            metadata.creation_timestamp = None;
        }
        template
    };
    let theirs = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.as_ref())
        .map(plain);
    deployment.spec.as_ref().map(|spec| plain(&spec.template)) == theirs
}

/// A new ReplicaSet for the Deployment's template.
pub(super) fn new_set(deployment: &Deployment, replicas: i32) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let collisions = deployment
        .status
        .as_ref()
        .and_then(|status| status.collision_count);
    let hash = hash(&spec.template, collisions);
    let with_hash = |labels: Option<BTreeMap<String, String>>| {
        let mut labels = labels.unwrap_or_default();
        labels.insert(HASH.into(), hash.clone());
        Some(labels)
    };
    let mut template = spec.template;
    let mut metadata = template.metadata.unwrap_or_default();
    metadata.labels = with_hash(metadata.labels);
    let labels = metadata.labels.clone();
    template.metadata = Some(metadata);
    let mut selector = spec.selector;
    selector.match_labels = with_hash(selector.match_labels);
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: deployment.metadata.namespace.clone(),
            labels,
            annotations: Some(revision::inherited(&deployment.metadata)),
            owner_references: Some(vec![owner_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: Some(replicas),
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// Up to ten characters that make no words; the collision count makes another hash of the same template.
fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let text = serde_json::to_vec(template).unwrap_or_default();
    let digest = Sha256::new()
        .chain_update(text)
        .chain_update(collisions.unwrap_or(0).to_be_bytes())
        .finalize();
    let number = digest
        .iter()
        .take(4)
        .fold(0u32, |number, byte| number << 8 | u32::from(*byte));
    number
        .to_string()
        .bytes()
        .map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]))
        .collect()
}
