//! Which work a change causes: from each kind to the keys that it concerns.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;

use crate::cache::{Cache, Change, Key};
use crate::endpoints::{MIRRORING_CONTROLLER, SLICE_CONTROLLER, managed_by, slices_key};
use crate::world::{
    Kept, Shared, UNSCHEDULED, World, controller_of, namespace_term, service_of_slice,
};

impl<K: Resource> Change<K> {
    /// Both sides that are there.
    fn sides(&self) -> impl Iterator<Item = &K> {
        self.old
            .iter()
            .chain(self.new.iter())
            .map(|object| &**object)
    }

    fn key(&self) -> Key {
        self.sides().next().map(Key::of).unwrap_or_default()
    }

    /// The object that controls it, if that is of this kind.
    fn controllers(&self, kind: &str) -> Vec<Key> {
        let owner = |object: &K| {
            let meta = object.meta();
            let owner = controller_of(meta).filter(|owner| owner.kind == kind)?;
            Some(Key::new(
                meta.namespace.as_deref().unwrap_or_default(),
                &owner.name,
            ))
        };
        let mut keys: Vec<Key> = self.sides().filter_map(owner).collect();
        keys.dedup();
        keys
    }
}

impl Kept for Service {
    fn cache(world: &mut World) -> &mut Cache<Self> {
        &mut world.services
    }

    fn touch(shared: &Shared, _: &World, change: &Change<Self>) {
        shared.queues.services.push(change.key());
        shared.queues.mirrored.push(change.key());
    }
}

impl Kept for Pod {
    fn cache(world: &mut World) -> &mut Cache<Self> {
        &mut world.pods
    }

    fn touch(shared: &Shared, world: &World, change: &Change<Self>) {
        let key = change.key();
        for pod in change.sides() {
            let services = world.services_selecting(&key.namespace, pod.metadata.labels.as_ref());
            services
                .into_iter()
                .for_each(|service| shared.queues.services.push(service));
        }
        let going = change
            .new
            .as_ref()
            .is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
        let owners = change.controllers("ReplicaSet");
        for owner in &owners {
            shared.pending.seen(owner, &key, going);
            shared.queues.replica_sets.push(owner.clone());
            if change.new.is_none() {
                let set = world.replica_sets.get(owner);
                let deployment = set.and_then(|set| controller_of(&set.metadata));
                let keys = deployment.map(|deployment| Key::new(&key.namespace, &deployment.name));
                keys.into_iter()
                    .for_each(|deployment| shared.queues.deployments.push(deployment));
            }
        }
        if let Some(pod) = &change.new {
            if owners.is_empty() {
                let sets = world.replica_sets.find(&namespace_term(&key.namespace));
                let wants =
                    |set: &&std::sync::Arc<ReplicaSet>| crate::replicaset::selects(set, pod);
                sets.filter(wants)
                    .for_each(|set| shared.queues.replica_sets.push(Key::of(&**set)));
            }
            if pod
                .spec
                .as_ref()
                .is_none_or(|spec| spec.node_name.as_deref().unwrap_or_default().is_empty())
            {
                shared.queues.unscheduled.push(key);
            } else if change.old.is_none() {
                let node = pod
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.node_name.as_deref())
                    .unwrap_or_default();
                shared.queues.nodes.push(Key::new("", node));
            }
        }
    }
}

impl Kept for EndpointSlice {
    fn cache(world: &mut World) -> &mut Cache<Self> {
        &mut world.slices
    }

    fn touch(shared: &Shared, _: &World, change: &Change<Self>) {
        for slice in change.sides() {
            let (Some(service), Some(manager)) = (service_of_slice(slice), managed_by(slice))
            else {
                continue;
            };
            shared.pending.seen(
                &slices_key(&service, manager),
                &change.key(),
                change.new.is_none(),
            );
            match manager {
                SLICE_CONTROLLER => shared.queues.services.push(service),
                MIRRORING_CONTROLLER => shared.queues.mirrored.push(service),
                _ => {}
            }
        }
    }
}

impl Kept for Endpoints {
    fn cache(world: &mut World) -> &mut Cache<Self> {
        &mut world.endpoints
    }

    fn touch(shared: &Shared, _: &World, change: &Change<Self>) {
        shared.queues.mirrored.push(change.key());
        shared.queues.services.push(change.key());
    }
}

impl Kept for Deployment {
    fn cache(world: &mut World) -> &mut Cache<Self> {
        &mut world.deployments
    }

    fn touch(shared: &Shared, _: &World, change: &Change<Self>) {
        shared.queues.deployments.push(change.key());
    }
}

impl Kept for ReplicaSet {
    fn cache(world: &mut World) -> &mut Cache<Self> {
        &mut world.replica_sets
    }

    fn touch(shared: &Shared, _: &World, change: &Change<Self>) {
        shared.queues.replica_sets.push(change.key());
        let owners = change.controllers("Deployment");
        owners
            .into_iter()
            .for_each(|deployment| shared.queues.deployments.push(deployment));
    }
}

impl Kept for Node {
    fn cache(world: &mut World) -> &mut Cache<Self> {
        &mut world.nodes
    }

    fn touch(shared: &Shared, world: &World, change: &Change<Self>) {
        shared.queues.nodes.push(change.key());
        // A heartbeat changes nothing for pods; what the scheduler looks at does.
        let facts =
            |node: Option<&std::sync::Arc<Node>>| node.map(|node| crate::scheduler::facts(node));
        if facts(change.old.as_ref()) != facts(change.new.as_ref()) {
            world
                .pods
                .find(UNSCHEDULED)
                .for_each(|pod| shared.queues.unscheduled.push(Key::of(&**pod)));
        }
    }
}

impl Kept for Lease {
    fn cache(world: &mut World) -> &mut Cache<Self> {
        &mut world.leases
    }

    fn touch(shared: &Shared, world: &World, change: &Change<Self>) {
        let node = Key::new("", &change.key().name);
        if change.key().namespace == "kube-node-lease" && world.nodes.get(&node).is_some() {
            shared.queues.nodes.push(node);
        }
    }
}
