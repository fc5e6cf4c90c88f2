//! What is decoded, and what is refused.

use serde_json::json;

use super::{Error, decode};

/// What kubectl 1.32 sends for `kubectl create configmap a --from-literal=x=y`.
const CONFIG_MAP: &[u8] = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x1b\x0a\x11\x0a\x01a\x12\0\x1a\0\"\0*\x002\x008\0B\0\x12\x06\x0a\x01x\x12\x01y\x1a\0\"\0";

#[test]
fn config_map_of_kubectl() {
    let expected = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"x": "y"}});
    assert_eq!(decode(CONFIG_MAP), Ok(expected));
}

#[test]
fn cut_off_bytes_are_refused() {
    assert_eq!(decode(b"{}"), Err(Error::Prefix));
    for length in 4..CONFIG_MAP.len() {
        // Some cuts leave a whole (shorter) object; none panics.
        let _ = decode(&CONFIG_MAP[..length]);
    }
}

#[test]
fn unknown_kind_is_refused() {
    let bytes = b"k8s\0\x0a\x0b\x0a\x02v1\x12\x05Bogus";
    assert_eq!(
        decode(bytes),
        Err(Error::Kind {
            version: "v1".into(),
            kind: "Bogus".into()
        })
    );
}
