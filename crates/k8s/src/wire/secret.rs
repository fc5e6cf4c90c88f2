//! `v1 Secret`, slim.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// `v1 Secret`. What it holds is never shown, not even to who debugs.
#[derive(Clone, Default, Deserialize)]
pub struct Secret {
    /// Slim metadata.
    #[serde(default, deserialize_with = "super::slim_meta")]
    pub metadata: ObjectMeta,
    /// `Opaque`, `kubernetes.io/tls` and others.
    #[serde(default)]
    pub r#type: Option<String>,
    /// Values by key.
    #[serde(default)]
    pub data: Option<BTreeMap<String, ByteString>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.data.as_ref().map(|data| data.keys());
        f.debug_struct("Secret")
            .field("metadata", &self.metadata)
            .field("type", &self.r#type)
            .field("keys", &keys)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_secret_holds_is_not_shown() {
        let secret: Secret = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web"}, "type": "kubernetes.io/tls", "data": {"tls.key": "aHVzaA=="}
        }))
        .unwrap();
        assert_eq!(secret.data.as_ref().unwrap()["tls.key"].0, b"hush");
        let shown = format!("{secret:?}");
        assert!(shown.contains("tls.key") && !shown.contains("hush") && !shown.contains("104"));
    }
}
