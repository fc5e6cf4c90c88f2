//! The class of service of a pod: what happens to it when a node runs out of memory.

use serde_json::Value;

use crate::kinds::read::{is_empty, items, text};

/// `Guaranteed` if every container limits cpu and memory and requests just that, `BestEffort` if none asks for
/// anything, else `Burstable`.
pub fn class(pod: &Value) -> &'static str {
    let spec = &pod["spec"];
    let containers = || {
        items(&spec["containers"])
            .iter()
            .chain(items(&spec["initContainers"]))
    };
    let asks = |container: &Value| {
        ["requests", "limits"].iter().any(|part| {
            ["cpu", "memory"]
                .iter()
                .any(|resource| !is_empty(&container["resources"][*part][*resource]))
        })
    };
    if !containers().any(asks) {
        "BestEffort"
    } else if containers().all(guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

fn guaranteed(container: &Value) -> bool {
    ["cpu", "memory"].iter().all(|resource| {
        let limit = &container["resources"]["limits"][*resource];
        let request = &container["resources"]["requests"][*resource];
        !is_empty(limit) && (request.is_null() || text(request) == text(limit))
    })
}
