//! A cluster written as JSON, and the changes that bring it into an index.

use portolan_dns::zone::{Config, Index};
use portolan_k8s::wire;
use portolan_model::names::{Change, Kind};
use portolan_reflect::dns;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// All objects of a cluster as changes, kind by kind, each between the beginning and the end of its listing.
pub fn changes(cluster: &Value) -> Vec<Change> {
    let mut all = Vec::new();
    let kinds: [(Kind, &[&str]); 5] = [
        (Kind::Namespace, &["namespaces"]),
        (Kind::Service, &["services"]),
        (Kind::Slice, &["endpointslices", "mc_endpointslices"]),
        (Kind::Pod, &["pods"]),
        (Kind::Import, &["serviceimports"]),
    ];
    for (kind, lists) in kinds {
        all.push(Change::Listing(kind));
        for (number, list) in lists.iter().enumerate() {
            let objects = cluster[*list].as_array().into_iter().flatten();
            all.extend(objects.filter_map(|object| change(kind, object, number)));
        }
        all.push(Change::Listed(kind));
    }
    all
}

/// One object as a change. Two lists of slices may use one name; the second one's get another.
fn change(kind: Kind, object: &Value, list: usize) -> Option<Change> {
    Some(match kind {
        Kind::Namespace => Change::Namespace(dns::namespace(&read(object))?),
        Kind::Service => Change::Service(dns::service(&read(object)).0?),
        Kind::Slice => {
            let mut slice = dns::slice(&read::<wire::EndpointSlice>(object));
            slice.object.name = format!("{}-{list}", slice.object.name).into();
            Change::Slice(slice)
        }
        Kind::Pod => Change::Pod(dns::pod(&read(object))),
        Kind::Import => Change::Import(dns::import(&read(object))?),
    })
}

fn read<T: DeserializeOwned>(object: &Value) -> T {
    serde_json::from_value(object.clone()).expect("an object of a fixture")
}

/// An index of the whole cluster.
pub fn index(config: Config, cluster: &Value, now_s: u64) -> Index {
    let mut index = Index::new(config);
    for change in changes(cluster) {
        index.apply(change, now_s);
    }
    index
}
