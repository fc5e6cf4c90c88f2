//! `v1 ConfigMap`, slim.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// `v1 ConfigMap`; what it holds as bytes is not read.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ConfigMap {
    /// Slim metadata.
    #[serde(default, deserialize_with = "super::slim_meta")]
    pub metadata: ObjectMeta,
    /// Texts by key.
    #[serde(default)]
    pub data: Option<BTreeMap<String, String>>,
}
