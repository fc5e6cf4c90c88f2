//! What every request works on: the kinds, the store, admission, the documents.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::auth::Authenticator;
use crate::kind::{Admission, Denied, Kind, Review};
use crate::openapi::Documents;
use crate::status::{self, Failure};
use crate::store::{Key, Snapshot, Store, Txn};

/// The server's parts, shared by all requests.
pub struct Api {
    pub(crate) kinds: &'static [&'static Kind],
    pub(crate) store: Store,
    pub(crate) admission: Vec<Arc<dyn Admission>>,
    pub(crate) documents: Documents,
    pub(crate) authenticator: Authenticator,
    /// Sockets of the nodes' agents, for logs.
    pub(crate) kubelet_dir: Option<PathBuf>,
    /// Cancelled when the server stops; watches end then.
    pub(crate) stopping: CancellationToken,
}

impl Api {
    /// Place of a kind in the table.
    pub(crate) fn find(&self, group: &str, plural: &str) -> Option<usize> {
        find(self.kinds, group, plural)
    }

    /// Lets the admission plugins look at a write.
    pub(crate) fn admit(&self, txn: &Txn<'_>, write: Admitted<'_>) -> Result<(), Failure> {
        if self.admission.is_empty() {
            return Ok(());
        }
        let snapshot = txn.snapshot();
        let lookup = |group: &str, plural: &str, namespace: &str, name: &str| {
            look_up(self.kinds, &snapshot, group, plural, namespace, name)
        };
        let kind = self.kinds[write.index];
        let mut review = Review {
            kind,
            subresource: write.subresource,
            operation: write.operation,
            dry_run: write.dry_run,
            old: write.old,
            object: write.object,
            lookup: &lookup,
        };
        for plugin in &self.admission {
            plugin.admit(&mut review).map_err(|denied| {
                let name = crate::object::name(review.object);
                match denied {
                    Denied::Forbidden(why) => status::forbidden(kind, name, &why),
                    Denied::Invalid(errors) => status::invalid(kind, name, &errors),
                    Denied::Internal(why) => status::internal(why),
                }
            })?;
        }
        Ok(())
    }
}

/// A write on its way through admission.
pub(crate) struct Admitted<'a> {
    pub(crate) index: usize,
    pub(crate) subresource: Option<crate::kind::Subresource>,
    pub(crate) operation: crate::kind::Operation,
    pub(crate) dry_run: bool,
    pub(crate) old: Option<&'a Value>,
    pub(crate) object: &'a mut Value,
}

pub(crate) fn find(kinds: &[&Kind], group: &str, plural: &str) -> Option<usize> {
    kinds
        .iter()
        .position(|kind| kind.group == group && kind.plural == plural)
}

fn look_up(
    kinds: &[&Kind],
    snapshot: &Snapshot,
    group: &str,
    plural: &str,
    namespace: &str,
    name: &str,
) -> Option<Value> {
    let index = find(kinds, group, plural)?;
    snapshot
        .get(&Key::new(index, namespace, name))
        .map(|object| Value::clone(&object))
}
