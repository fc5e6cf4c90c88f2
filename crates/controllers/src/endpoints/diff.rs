//! From the slices there are to the slices there should be, with as few writes as possible.
//!
//! An endpoint stays in the slice that it is in. New ones fill slices that are written anyway, then the fullest other
//! slice that has room for all of them, then new slices. Slices that have become empty go.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;

use super::desired::Group;
use super::{MANAGED_BY, TRIGGER_TIME};

/// Endpoints in one slice (`--max-endpoints-per-slice`): a change of one of them is sent to every node.
pub(crate) const ENDPOINTS_MAX: usize = 100;

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    /// A new slice, without a name.
    Create(EndpointSlice),
    /// The slice with this name and version becomes so.
    Update(EndpointSlice),
    /// The slice with this name goes.
    Delete(String),
}

/// Whose slices they are.
#[derive(Clone, Debug)]
pub(crate) struct SliceOwner {
    /// Namespace.
    pub(crate) namespace: String,
    /// Name of the Service.
    pub(crate) service: String,
    /// Labels besides those that say what a slice is.
    pub(crate) labels: BTreeMap<String, String>,
    /// The object that the slices go with.
    pub(crate) owner: OwnerReference,
    /// Which controller does this.
    pub(crate) managed_by: &'static str,
    /// When the newest change happened, if that is known.
    pub(crate) trigger: Option<Timestamp>,
}

/// What must be written. `existing` are the slices of this owner and controller, in the order of their names.
pub(crate) fn diff(
    owner: &SliceOwner,
    groups: Vec<Group>,
    existing: &[Arc<EndpointSlice>],
) -> Vec<Op> {
    let mut unused: Vec<&Arc<EndpointSlice>> = existing.iter().collect();
    let mut ops = Vec::new();
    for group in groups {
        let fits = |slice: &&Arc<EndpointSlice>| {
            slice.address_type == group.family && same_ports(slice.ports.as_deref(), &group.ports)
        };
        let (mine, rest) = unused.into_iter().partition::<Vec<_>, _>(fits);
        unused = rest;
        ops.extend(diff_group(owner, group, &mine));
    }
    ops.extend(
        unused
            .into_iter()
            .map(|slice| Op::Delete(slice.metadata.name.clone().unwrap_or_default())),
    );
    ops
}

/// A slice on its way to what it should be.
struct Draft<'a> {
    slice: &'a EndpointSlice,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

fn diff_group(owner: &SliceOwner, group: Group, existing: &[&Arc<EndpointSlice>]) -> Vec<Op> {
    let mut wanted: HashMap<String, Endpoint> = group
        .endpoints
        .iter()
        .map(|endpoint| (id(endpoint), endpoint.clone()))
        .collect();
    let mut drafts: Vec<Draft<'_>> = existing
        .iter()
        .map(|slice| draft(owner, slice, &mut wanted))
        .collect();
    let mut new: Vec<Endpoint> = group
        .endpoints
        .iter()
        .filter(|e| wanted.contains_key(&id(e)))
        .cloned()
        .collect();
    for draft in drafts.iter_mut().filter(|draft| draft.changed) {
        fill(draft, &mut new);
    }
    if !new.is_empty() && new.len() < ENDPOINTS_MAX {
        let has_room = |draft: &&mut Draft<'_>| draft.endpoints.len() + new.len() <= ENDPOINTS_MAX;
        let fullest = drafts
            .iter_mut()
            .filter(has_room)
            .max_by_key(|draft| draft.endpoints.len());
        if let Some(draft) = fullest {
            fill(draft, &mut new);
        }
    }
    let placeholder = group.endpoints.is_empty();
    let mut ops: Vec<Op> = Vec::new();
    let mut kept = 0;
    for draft in drafts {
        let needless = draft.endpoints.is_empty() && !(placeholder && kept == 0);
        kept += usize::from(!needless);
        match (needless, draft.changed) {
            (true, _) => ops.push(Op::Delete(
                draft.slice.metadata.name.clone().unwrap_or_default(),
            )),
            (false, true) => ops.push(Op::Update(updated(owner, draft))),
            (false, false) => {}
        }
    }
    ops.extend(
        new.chunks(ENDPOINTS_MAX)
            .map(|chunk| Op::Create(created(owner, &group, chunk))),
    );
    if placeholder && kept == 0 {
        ops.push(Op::Create(created(owner, &group, &[])));
    }
    ops
}

/// What remains of a slice; the endpoints that it keeps are taken out of `wanted`.
fn draft<'a>(
    owner: &SliceOwner,
    slice: &'a EndpointSlice,
    wanted: &mut HashMap<String, Endpoint>,
) -> Draft<'a> {
    let kept: Vec<Endpoint> = slice
        .endpoints
        .iter()
        .filter_map(|endpoint| wanted.remove(&id(endpoint)))
        .collect();
    let owned =
        slice.metadata.owner_references.as_deref() == Some(std::slice::from_ref(&owner.owner));
    let labelled = slice.metadata.labels.as_ref() == Some(&labels(owner));
    let changed = kept != slice.endpoints || !labelled || !owned;
    Draft {
        slice,
        endpoints: kept,
        changed,
    }
}

fn fill(draft: &mut Draft<'_>, new: &mut Vec<Endpoint>) {
    let room = ENDPOINTS_MAX
        .saturating_sub(draft.endpoints.len())
        .min(new.len());
    if room > 0 {
        draft.endpoints.extend(new.drain(..room));
        draft.changed = true;
    }
}

/// Which entry of a slice an endpoint is: its pod and address, so that a new pod with a reused address is another one.
fn id(endpoint: &Endpoint) -> String {
    let uid = endpoint
        .target_ref
        .as_ref()
        .and_then(|target| target.uid.as_deref())
        .unwrap_or_default();
    format!("{uid} {}", endpoint.addresses.join(","))
}

fn same_ports(a: Option<&[EndpointPort]>, b: &[EndpointPort]) -> bool {
    let plain = |port: &EndpointPort| {
        let name = port.name.clone().unwrap_or_default();
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        (name, protocol, port.port, port.app_protocol.clone())
    };
    let sorted = |ports: &[EndpointPort]| {
        let mut all: Vec<_> = ports.iter().map(plain).collect();
        all.sort();
        all
    };
    sorted(a.unwrap_or_default()) == sorted(b)
}

fn labels(owner: &SliceOwner) -> BTreeMap<String, String> {
    let mut labels = owner.labels.clone();
    labels.insert("kubernetes.io/service-name".into(), owner.service.clone());
    labels.insert(MANAGED_BY.into(), owner.managed_by.into());
    labels
}

fn updated(owner: &SliceOwner, draft: Draft<'_>) -> EndpointSlice {
    let mut slice = draft.slice.clone();
    slice.endpoints = draft.endpoints;
    slice.metadata.labels = Some(labels(owner));
    slice.metadata.owner_references = Some(vec![owner.owner.clone()]);
    let annotations = slice.metadata.annotations.get_or_insert_default();
    let before = annotations
        .remove(TRIGGER_TIME)
        .and_then(|text| text.parse::<Timestamp>().ok());
    // A time that was told before belongs to another change.
    if let Some(time) = owner
        .trigger
        .filter(|time| before.is_none_or(|before| *time > before))
    {
        annotations.insert(TRIGGER_TIME.into(), time.to_string());
    }
    slice
}

fn created(owner: &SliceOwner, group: &Group, endpoints: &[Endpoint]) -> EndpointSlice {
    let trigger = owner
        .trigger
        .map(|time| [(TRIGGER_TIME.to_string(), time.to_string())].into());
    EndpointSlice {
        metadata: ObjectMeta {
            namespace: Some(owner.namespace.clone()),
            generate_name: Some(format!("{}-", owner.service)),
            labels: Some(labels(owner)),
            annotations: trigger,
            owner_references: Some(vec![owner.owner.clone()]),
            ..ObjectMeta::default()
        },
        address_type: group.family.clone(),
        endpoints: endpoints.to_vec(),
        ports: Some(group.ports.clone()),
    }
}
