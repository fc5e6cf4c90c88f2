//! What is wrong with one object that the gateway reads, told to whoever can mend it.

use std::fmt;
use std::sync::Arc;

use portolan_k8s::ObjectMeta;

/// Namespace and name of an object; displayed as `namespace/name`, or `name` for one of the whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// `metadata.namespace`; empty for an object of the whole cluster.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl ObjectName {
    /// Names the object `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        ObjectName {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The name of the object with this metadata.
    pub fn of(metadata: &ObjectMeta) -> Self {
        let text = |field: &Option<String>| field.as_deref().unwrap_or_default().into();
        ObjectName {
            namespace: text(&metadata.namespace),
            name: text(&metadata.name),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.is_empty() {
            true => f.write_str(&self.name),
            false => write!(f, "{}/{}", self.namespace, self.name),
        }
    }
}

/// Something about one object that cannot be carried out; no other object is affected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// `Ingress` or `IngressClass`.
    pub kind: &'static str,
    /// The object.
    pub object: ObjectName,
    /// Event reason in CamelCase, from a fixed list, e.g. `ServiceNotFound`.
    pub reason: &'static str,
    /// What is wrong, where, and what to do about it: whole sentences.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem {
            kind,
            object,
            reason,
            message,
        } = self;
        write!(f, "{kind} {object}: {message} ({reason})")
    }
}
