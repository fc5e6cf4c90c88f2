//! The file: redb with `Durability::Immediate` (an fsync before a commit returns).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;

use super::{Index, Key, OpenError, Snapshot};
use crate::kind::Kind;

/// `group/plural/namespace/name` → JSON.
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
/// `version` → the resourceVersion of the last write.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const VERSION: &str = "version";

pub(super) struct Disk {
    database: Database,
    kinds: &'static [&'static Kind],
}

impl Disk {
    pub(super) fn open(path: &Path, kinds: &'static [&'static Kind]) -> Result<Disk, OpenError> {
        let database = Database::create(path).map_err(redb::Error::from)?;
        let disk = Disk { database, kinds };
        disk.commit(None, &BTreeMap::new())?;
        Ok(disk)
    }

    /// Reads everything. Objects of kinds that this version does not serve stay on disk, unseen.
    pub(super) fn load(&self) -> Result<Snapshot, OpenError> {
        let txn = self.database.begin_read().map_err(redb::Error::from)?;
        let meta = txn.open_table(META).map_err(redb::Error::from)?;
        // Versions start at 1: a client takes 0 for "any version".
        let version = meta
            .get(VERSION)
            .map_err(redb::Error::from)?
            .map_or(1, |entry| entry.value());
        let objects = txn.open_table(OBJECTS).map_err(redb::Error::from)?;
        let mut index = Index::new();
        for entry in objects.iter().map_err(redb::Error::from)? {
            let (path, json) = entry.map_err(redb::Error::from)?;
            let Some(key) = self.parse(path.value()) else {
                tracing::warn!(key = path.value(), "an object of a kind that is not served");
                continue;
            };
            let object: Value =
                serde_json::from_slice(json.value()).map_err(|source| OpenError::Object {
                    key: path.value().to_owned(),
                    source,
                })?;
            index.insert(key, Arc::new(object));
        }
        Ok(Snapshot { index, version })
    }

    /// Writes a batch; it is on disk when this returns. `None` removes the object.
    pub(super) fn commit(
        &self,
        version: Option<u64>,
        changes: &BTreeMap<Key, Option<Arc<Value>>>,
    ) -> Result<(), redb::Error> {
        let mut txn = self.database.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        {
            let mut meta = txn.open_table(META)?;
            if let Some(version) = version {
                meta.insert(VERSION, version)?;
            }
            let mut objects = txn.open_table(OBJECTS)?;
            for (key, value) in changes {
                let path = self.path(key);
                match value {
                    Some(value) => {
                        let json = value.to_string();
                        objects.insert(path.as_str(), json.as_bytes())?;
                    }
                    None => {
                        objects.remove(path.as_str())?;
                    }
                }
            }
        }
        txn.commit()?;
        Ok(())
    }

    fn path(&self, key: &Key) -> String {
        let kind = self.kinds[key.kind];
        format!(
            "{}/{}/{}/{}",
            kind.group, kind.plural, key.namespace, key.name
        )
    }

    fn parse(&self, path: &str) -> Option<Key> {
        let mut parts = path.splitn(4, '/');
        let (group, plural, namespace, name) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let kind = self
            .kinds
            .iter()
            .position(|kind| kind.group == group && kind.plural == plural)?;
        Some(Key::new(kind, namespace, name))
    }
}
