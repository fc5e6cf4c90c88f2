//! What the controllers know of the cluster: every watched object, with indexes, so that no event needs a full list.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use kube::Resource;
use portolan_k8s::watch::Event;

/// Namespace (empty for cluster-wide kinds) and name of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// `metadata.namespace`, or empty.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl Key {
    /// Names an object.
    pub fn new(namespace: &str, name: &str) -> Self {
        Key {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of this object.
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Key::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.is_empty() {
            true => f.write_str(&self.name),
            false => write!(f, "{}/{}", self.namespace, self.name),
        }
    }
}

/// An object as it was and as it is; one of the two is there at least.
#[derive(Debug)]
pub struct Change<K> {
    /// Before.
    pub old: Option<Arc<K>>,
    /// Now; `None` when it is gone.
    pub new: Option<Arc<K>>,
}

/// All objects of one kind. `index` says under which terms an object can be looked up.
#[derive(Debug)]
pub struct Cache<K> {
    objects: HashMap<Key, Arc<K>>,
    terms: HashMap<String, BTreeSet<Key>>,
    index: fn(&K) -> Vec<String>,
    named: Option<HashSet<Key>>,
    complete: bool,
}

impl<K: Resource> Cache<K> {
    /// Knows nothing yet.
    pub fn new(index: fn(&K) -> Vec<String>) -> Self {
        Cache {
            objects: HashMap::new(),
            terms: HashMap::new(),
            index,
            named: None,
            complete: false,
        }
    }

    /// Whether the first listing has arrived fully.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The object with this key.
    pub fn get(&self, key: &Key) -> Option<&Arc<K>> {
        self.objects.get(key)
    }

    /// All objects, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }

    /// The objects under one term, in the order of their keys.
    pub fn find<'a>(&'a self, term: &str) -> impl Iterator<Item = &'a Arc<K>> + use<'a, K> {
        let keys = self.terms.get(term);
        keys.into_iter()
            .flatten()
            .filter_map(|key| self.objects.get(key))
    }

    /// How many objects are under one term.
    pub fn count(&self, term: &str) -> usize {
        self.terms.get(term).map_or(0, BTreeSet::len)
    }

    /// Takes in one event of a watch; what has really changed comes back.
    pub fn take(&mut self, event: Event<K>) -> Vec<Change<K>> {
        match event {
            Event::Init => {
                self.named = Some(HashSet::new());
                Vec::new()
            }
            Event::InitApply(object) | Event::Apply(object) => {
                self.put(object).into_iter().collect()
            }
            Event::Delete(object) => self.remove(&Key::of(&object)).into_iter().collect(),
            Event::InitDone => {
                self.complete = true;
                let named = self.named.take().unwrap_or_default();
                let gone: Vec<Key> = self
                    .objects
                    .keys()
                    .filter(|key| !named.contains(*key))
                    .cloned()
                    .collect();
                gone.iter().filter_map(|key| self.remove(key)).collect()
            }
        }
    }

    fn put(&mut self, object: K) -> Option<Change<K>> {
        let key = Key::of(&object);
        if let Some(named) = &mut self.named {
            named.insert(key.clone());
        }
        let version = |object: &K| object.meta().resource_version.clone();
        let old = self.objects.get(&key).cloned();
        if old
            .as_ref()
            .is_some_and(|old| version(old).is_some() && version(old) == version(&object))
        {
            return None;
        }
        if let Some(old) = &old {
            self.unindex(&key, old);
        }
        let new = Arc::new(object);
        for term in (self.index)(&new) {
            self.terms.entry(term).or_default().insert(key.clone());
        }
        self.objects.insert(key, Arc::clone(&new));
        Some(Change {
            old,
            new: Some(new),
        })
    }

    fn remove(&mut self, key: &Key) -> Option<Change<K>> {
        let old = self.objects.remove(key)?;
        self.unindex(key, &old);
        Some(Change {
            old: Some(old),
            new: None,
        })
    }

    fn unindex(&mut self, key: &Key, object: &K) {
        for term in (self.index)(object) {
            if let Some(keys) = self.terms.get_mut(&term) {
                keys.remove(key);
                if keys.is_empty() {
                    self.terms.remove(&term);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn map(name: &str, version: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.into());
        map.metadata.resource_version = Some(version.into());
        map
    }

    #[test]
    fn a_new_listing_removes_what_it_does_not_name() {
        let mut cache = Cache::new(|map: &ConfigMap| {
            vec![format!(
                "v{}",
                map.metadata.resource_version.clone().unwrap()
            )]
        });
        cache.take(Event::Init);
        assert_eq!(cache.take(Event::InitApply(map("a", "1"))).len(), 1);
        cache.take(Event::InitApply(map("b", "2")));
        assert!(!cache.is_complete());
        assert!(cache.take(Event::InitDone).is_empty());
        assert!(
            cache.take(Event::Apply(map("a", "1"))).is_empty(),
            "nothing is new"
        );
        cache.take(Event::Apply(map("a", "3")));
        assert_eq!((cache.count("v1"), cache.count("v3")), (0, 1));
        cache.take(Event::Init);
        cache.take(Event::InitApply(map("b", "2")));
        let gone = cache.take(Event::InitDone);
        assert!(gone.len() == 1 && gone[0].new.is_none());
        assert_eq!((cache.all().count(), cache.count("v3")), (1, 0));
    }
}
