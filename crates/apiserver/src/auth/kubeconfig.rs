//! The file that tells kubectl where the server is, whom to trust and who the user is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::Credentials;

/// A kubeconfig with one context, everything embedded.
pub fn kubeconfig(
    server_url: &str,
    user: &str,
    authority_pem: &str,
    credentials: &Credentials,
) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "portolan",
            "cluster": {"server": server_url, "certificate-authority-data": STANDARD.encode(authority_pem)},
        }],
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": STANDARD.encode(&credentials.certificate),
                "client-key-data": STANDARD.encode(&credentials.key),
            },
        }],
        "contexts": [{"name": "portolan", "context": {"cluster": "portolan", "user": user}}],
        "current-context": "portolan",
        "preferences": {},
    });
    serde_norway::to_string(&config).expect("invariant: a JSON value is YAML")
}
