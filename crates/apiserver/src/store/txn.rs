//! What one job of the writer sees and changes.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Change, Index, Key, Snapshot};
use crate::object;

/// The objects as all earlier jobs left them, and this job's own changes.
pub struct Txn<'a> {
    pub(super) index: &'a mut Index,
    pub(super) version: &'a mut u64,
    pub(super) changes: Vec<Change>,
}

impl Txn<'_> {
    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.index.get(key).cloned()
    }

    /// Everything as this job sees it now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            index: self.index.clone(),
            version: *self.version,
        }
    }

    /// Stores an object under its next version, which is set in its metadata.
    pub fn put(&mut self, key: Key, mut value: Value) -> Arc<Value> {
        *self.version += 1;
        object::set_meta(
            &mut value,
            "resourceVersion",
            json!(self.version.to_string()),
        );
        let new = Arc::new(value);
        let old = self.index.insert(key.clone(), Arc::clone(&new));
        self.changes.push(Change {
            key,
            version: *self.version,
            old,
            new: Some(Arc::clone(&new)),
        });
        new
    }

    /// Removes an object; what it was.
    pub fn remove(&mut self, key: Key) -> Option<Arc<Value>> {
        let old = self.index.remove(&key)?;
        *self.version += 1;
        self.changes.push(Change {
            key,
            version: *self.version,
            old: Some(Arc::clone(&old)),
            new: None,
        });
        Some(old)
    }
}
