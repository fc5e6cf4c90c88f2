//! EndpointSlices and Endpoints: who stands behind each Service.
//!
//! Services with a selector get slices and a (legacy) Endpoints object made of their pods; Endpoints written by hand
//! for a Service without selector are mirrored into slices. Slices written by hand are nobody's business here.

mod desired;
mod diff;
mod legacy;
mod mirror;
pub(crate) mod pods;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Resource};

use crate::cache::Key;
use crate::pending::Awaited;
use crate::queue::Next;
use crate::world::{Shared, World, service_selector, slice_term};
use crate::{absent, random_suffix};
use diff::{Op, SliceOwner};

/// Label that says which controller a slice belongs to.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`] for slices that follow a selector.
pub(crate) const SLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// Value of [`MANAGED_BY`] for slices that mirror Endpoints.
pub(crate) const MIRRORING_CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
/// Annotation with the time of the change that made the slice what it is.
pub(crate) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Brings slices and Endpoints of one Service up to date.
pub(crate) async fn reconcile_service(shared: Arc<Shared>, key: Key) -> Result<Next, kube::Error> {
    if let Some(wait) = shared.pending.open(&slices_key(&key, SLICE_CONTROLLER)) {
        return Ok(Next::After(wait));
    }
    let (ops, legacy) = {
        let world = shared.world();
        match world.services.get(&key) {
            None => (
                Vec::new(),
                legacy::for_lost_service(world.endpoints.get(&key)),
            ),
            Some(service) => plan(&world, &key, service),
        }
    };
    apply(&shared, &key, SLICE_CONTROLLER, ops).await?;
    write_endpoints(&shared, &key, legacy).await?;
    Ok(Next::Done)
}

/// Brings the mirrored slices of one Endpoints object up to date.
pub(crate) async fn reconcile_mirror(shared: Arc<Shared>, key: Key) -> Result<Next, kube::Error> {
    if let Some(wait) = shared.pending.open(&slices_key(&key, MIRRORING_CONTROLLER)) {
        return Ok(Next::After(wait));
    }
    let ops = {
        let world = shared.world();
        let existing = managed_slices(&world, &key, MIRRORING_CONTROLLER);
        let endpoints = world.endpoints.get(&key);
        let service = world.services.get(&key);
        match endpoints.filter(|endpoints| mirror::wanted(endpoints, service.map(|s| &**s))) {
            Some(endpoints) => diff::diff(
                &mirror::owner(&key, endpoints),
                mirror::groups(endpoints),
                &existing,
            ),
            None => existing
                .iter()
                .map(|slice| Op::Delete(Key::of(&**slice).name))
                .collect(),
        }
    };
    apply(&shared, &key, MIRRORING_CONTROLLER, ops).await?;
    Ok(Next::Done)
}

fn plan(world: &World, key: &Key, service: &Service) -> (Vec<Op>, Option<legacy::Write>) {
    let external =
        service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
    let Some(selector) = service_selector(service).filter(|_| !external) else {
        return (Vec::new(), None);
    };
    let pods = world.pods_matching(&key.namespace, &selector);
    let zone = |node: &str| {
        let node = world.nodes.get(&Key::new("", node))?;
        node.metadata
            .labels
            .as_ref()?
            .get("topology.kubernetes.io/zone")
            .cloned()
    };
    let existing = managed_slices(world, key, SLICE_CONTROLLER);
    let owner = SliceOwner {
        namespace: key.namespace.clone(),
        service: key.name.clone(),
        labels: desired::labels(service),
        owner: owner_reference(service),
        managed_by: SLICE_CONTROLLER,
        trigger: desired::trigger_time(&pods),
    };
    let ops = diff::diff(&owner, desired::groups(service, &pods, &zone), &existing);
    let legacy = legacy::plan(
        service,
        &pods,
        world.endpoints.get(key).map(|endpoints| &**endpoints),
    );
    (ops, legacy)
}

fn managed_slices(world: &World, service: &Key, manager: &str) -> Vec<Arc<EndpointSlice>> {
    let mine = |slice: &&Arc<EndpointSlice>| managed_by(slice) == Some(manager);
    world
        .slices
        .find(&slice_term(service))
        .filter(mine)
        .cloned()
        .collect()
}

pub(crate) fn managed_by(slice: &EndpointSlice) -> Option<&str> {
    slice
        .metadata
        .labels
        .as_ref()?
        .get(MANAGED_BY)
        .map(String::as_str)
}

/// Under this key the slices of a Service are waited for.
pub(crate) fn slices_key(service: &Key, manager: &str) -> Key {
    Key::new(&format!("{manager} {}", service.namespace), &service.name)
}

pub(crate) fn owner_reference<K: Resource<DynamicType = ()>>(object: &K) -> OwnerReference {
    OwnerReference {
        block_owner_deletion: Some(true),
        ..object.controller_owner_ref(&()).unwrap_or_default()
    }
}

async fn apply(
    shared: &Shared,
    service: &Key,
    manager: &str,
    ops: Vec<Op>,
) -> Result<(), kube::Error> {
    let api: Api<EndpointSlice> = Api::namespaced(shared.client.clone(), &service.namespace);
    let owner = slices_key(service, manager);
    for op in ops {
        match op {
            Op::Create(mut slice) => {
                let name = format!(
                    "{}{}",
                    slice.metadata.generate_name.as_deref().unwrap_or_default(),
                    random_suffix()
                );
                let created = Key::new(&service.namespace, &name);
                slice.metadata.name = Some(name);
                shared
                    .pending
                    .expect(&owner, created.clone(), Awaited::Created);
                let result = api.create(&PostParams::default(), &slice).await;
                if matches!(result, Err(kube::Error::Api(_))) {
                    shared.pending.cancel(&owner, &created);
                }
                result?;
            }
            Op::Update(slice) => {
                let name = slice.metadata.name.clone().unwrap_or_default();
                api.replace(&name, &PostParams::default(), &slice).await?;
            }
            Op::Delete(name) => {
                absent(api.delete(&name, &DeleteParams::default()).await)?;
            }
        }
    }
    Ok(())
}

async fn write_endpoints(
    shared: &Shared,
    key: &Key,
    write: Option<legacy::Write>,
) -> Result<(), kube::Error> {
    let api: Api<Endpoints> = Api::namespaced(shared.client.clone(), &key.namespace);
    match write {
        None => Ok(()),
        Some(legacy::Write::Create(endpoints)) => api
            .create(&PostParams::default(), &endpoints)
            .await
            .map(drop),
        Some(legacy::Write::Update(endpoints)) => api
            .replace(&key.name, &PostParams::default(), &endpoints)
            .await
            .map(drop),
        Some(legacy::Write::Delete) => {
            absent(api.delete(&key.name, &DeleteParams::default()).await).map(drop)
        }
    }
}

#[cfg(test)]
mod tests;
