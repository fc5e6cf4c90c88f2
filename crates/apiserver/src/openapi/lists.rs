//! How lists merge: the table behind strategic merge patch, server-side apply and the `x-kubernetes-` extensions.
//! A list that is not here is atomic: a patch replaces it.

/// How a patch treats one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Schema of the object that has the field, without its `io.k8s.` prefix.
    pub owner: &'static str,
    /// Name of the field.
    pub field: &'static str,
    /// `x-kubernetes-list-type`; `None` for a field that is no list.
    pub list: Option<ListType>,
    /// `x-kubernetes-patch-strategy`.
    pub strategy: Strategy,
    /// `x-kubernetes-patch-merge-key`; empty for lists of primitives.
    pub merge_key: &'static str,
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Items are told apart by these keys.
    Map(&'static [&'static str]),
    /// Items are told apart by their values.
    Set,
    /// The list is one value.
    Atomic,
}

/// `x-kubernetes-patch-strategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// A strategic merge patch replaces the list.
    Replace,
    /// A strategic merge patch merges the list by its key, or by value.
    Merge,
    /// As `Merge`, and `$retainKeys` in an item names the keys that stay.
    MergeRetainKeys,
    /// Not a list: `$retainKeys` names the keys that stay.
    RetainKeys,
}

impl Strategy {
    /// Whether a strategic merge patch merges the list.
    pub const fn merges(self) -> bool {
        matches!(self, Strategy::Merge | Strategy::MergeRetainKeys)
    }

    /// The value of the extension, if there is one.
    pub const fn text(self) -> Option<&'static str> {
        match self {
            Strategy::Replace => None,
            Strategy::Merge => Some("merge"),
            Strategy::MergeRetainKeys => Some("merge,retainKeys"),
            Strategy::RetainKeys => Some("retainKeys"),
        }
    }
}

/// The rule of a field of the schema `owner`, e.g. `io.k8s.api.core.v1.PodSpec` and `containers`.
pub fn rule(owner: &str, field: &str) -> Option<&'static Rule> {
    let owner = owner.strip_prefix("io.k8s.")?;
    RULES
        .iter()
        .find(|rule| rule.owner == owner && rule.field == field)
}

/// Every rule.
pub fn rules() -> &'static [Rule] {
    RULES
}

/// Objects that server-side apply treats as one value (`x-kubernetes-map-type: atomic`), without `io.k8s.`.
pub const ATOMIC_OBJECTS: &[&str] = &[
    "api.core.v1.ConfigMapKeySelector",
    "api.core.v1.FileKeySelector",
    "api.core.v1.LocalObjectReference",
    "api.core.v1.NodeSelector",
    "api.core.v1.NodeSelectorTerm",
    "api.core.v1.ObjectFieldSelector",
    "api.core.v1.ObjectReference",
    "api.core.v1.ResourceFieldSelector",
    "api.core.v1.SecretKeySelector",
    "api.core.v1.TypedLocalObjectReference",
    "api.discovery.v1.EndpointPort",
    "api.networking.v1.ServiceBackendPort",
    "apimachinery.pkg.apis.meta.v1.LabelSelector",
    "apimachinery.pkg.apis.meta.v1.OwnerReference",
];

/// Maps that server-side apply treats as one value.
pub const ATOMIC_MAPS: &[(&str, &str)] = &[
    ("api.core.v1.PodSpec", "nodeSelector"),
    ("api.core.v1.ServiceSpec", "selector"),
];

/// A list of objects that merges by its first key.
const fn map(owner: &'static str, field: &'static str, keys: &'static [&'static str]) -> Rule {
    Rule {
        owner,
        field,
        list: Some(ListType::Map(keys)),
        strategy: Strategy::Merge,
        merge_key: keys[0],
    }
}

/// A list of objects with keys that a strategic merge patch still replaces.
const fn keyed(owner: &'static str, field: &'static str, keys: &'static [&'static str]) -> Rule {
    Rule {
        owner,
        field,
        list: Some(ListType::Map(keys)),
        strategy: Strategy::Replace,
        merge_key: "",
    }
}

const fn retaining(rule: Rule) -> Rule {
    Rule {
        strategy: Strategy::MergeRetainKeys,
        ..rule
    }
}

const fn set(owner: &'static str, field: &'static str, strategy: Strategy) -> Rule {
    Rule {
        owner,
        field,
        list: Some(ListType::Set),
        strategy,
        merge_key: "",
    }
}

const CONTAINER: &str = "api.core.v1.Container";
const EPHEMERAL: &str = "api.core.v1.EphemeralContainer";
const POD_SPEC: &str = "api.core.v1.PodSpec";
const POD_STATUS: &str = "api.core.v1.PodStatus";
const NODE_STATUS: &str = "api.core.v1.NodeStatus";
const META: &str = "apimachinery.pkg.apis.meta.v1.ObjectMeta";

static RULES: &[Rule] = &[
    Rule {
        owner: "api.apps.v1.DeploymentSpec",
        field: "strategy",
        list: None,
        strategy: Strategy::RetainKeys,
        merge_key: "",
    },
    map("api.apps.v1.DeploymentStatus", "conditions", &["type"]),
    map("api.apps.v1.ReplicaSetStatus", "conditions", &["type"]),
    map(CONTAINER, "env", &["name"]),
    map(CONTAINER, "ports", &["containerPort", "protocol"]),
    map(CONTAINER, "volumeDevices", &["devicePath"]),
    map(CONTAINER, "volumeMounts", &["mountPath"]),
    map(EPHEMERAL, "env", &["name"]),
    map(EPHEMERAL, "ports", &["containerPort", "protocol"]),
    map(EPHEMERAL, "volumeDevices", &["devicePath"]),
    map(EPHEMERAL, "volumeMounts", &["mountPath"]),
    set(
        "api.core.v1.ContainerRestartRuleOnExitCodes",
        "values",
        Strategy::Replace,
    ),
    map(
        "api.core.v1.ContainerStatus",
        "allocatedResourcesStatus",
        &["name"],
    ),
    map(
        "api.core.v1.ContainerStatus",
        "volumeMounts",
        &["mountPath"],
    ),
    map("api.core.v1.NamespaceStatus", "conditions", &["type"]),
    set("api.core.v1.NodeSpec", "podCIDRs", Strategy::Merge),
    map(NODE_STATUS, "addresses", &["type"]),
    map(NODE_STATUS, "conditions", &["type"]),
    map(POD_SPEC, "containers", &["name"]),
    map(POD_SPEC, "ephemeralContainers", &["name"]),
    map(POD_SPEC, "hostAliases", &["ip"]),
    map(POD_SPEC, "imagePullSecrets", &["name"]),
    map(POD_SPEC, "initContainers", &["name"]),
    retaining(map(POD_SPEC, "resourceClaims", &["name"])),
    map(POD_SPEC, "schedulingGates", &["name"]),
    map(
        POD_SPEC,
        "topologySpreadConstraints",
        &["topologyKey", "whenUnsatisfiable"],
    ),
    retaining(map(POD_SPEC, "volumes", &["name"])),
    map(POD_STATUS, "conditions", &["type"]),
    Rule {
        owner: POD_STATUS,
        field: "hostIPs",
        list: Some(ListType::Atomic),
        strategy: Strategy::Merge,
        merge_key: "ip",
    },
    map(POD_STATUS, "podIPs", &["ip"]),
    retaining(map(POD_STATUS, "resourceClaimStatuses", &["name"])),
    keyed("api.core.v1.ResourceRequirements", "claims", &["name"]),
    keyed("api.core.v1.ResourceStatus", "resources", &["resourceID"]),
    map("api.core.v1.ServiceSpec", "ports", &["port", "protocol"]),
    map("api.core.v1.ServiceStatus", "conditions", &["type"]),
    set("api.discovery.v1.Endpoint", "addresses", Strategy::Replace),
    set(META, "finalizers", Strategy::Merge),
    map(META, "ownerReferences", &["uid"]),
];
