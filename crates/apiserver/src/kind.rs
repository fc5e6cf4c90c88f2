//! What a served kind is: one entry of one table. Adding a kind is adding an entry to [`KINDS`].

use serde_json::Value;

/// One kind that the API server serves. All functions are pure.
pub struct Kind {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version, e.g. `v1`.
    pub version: &'static str,
    /// Kind, e.g. `EndpointSlice`.
    pub kind: &'static str,
    /// Plural name in paths, e.g. `endpointslices`.
    pub plural: &'static str,
    /// Singular name, e.g. `endpointslice`.
    pub singular: &'static str,
    /// Short names, e.g. `svc`.
    pub short_names: &'static [&'static str],
    /// Categories, e.g. `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub scope: Scope,
    /// Subresources next to the object itself.
    pub subresources: &'static [Subresource],
    /// Columns of `kubectl get` besides the cells that [`Kind::row`] gives; same length, same order.
    pub columns: &'static [Column],
    /// The cells of one object, one for each column; `now` is seconds since the epoch, for ages.
    pub row: fn(object: &Value, now: i64) -> Vec<Value>,
    /// Fills in the defaults that a real API server would (after decoding, before admission and validation).
    pub default: fn(object: &mut Value),
    /// What is done to a new or changed object before validation: `generation`, fields that only status or spec
    /// writes may change, conditions. `old` is `None` on create.
    pub prepare: fn(object: &mut Value, old: Option<&Value>),
    /// Everything that is wrong with the object, in the words of the real API server; empty if nothing is.
    pub validate: fn(object: &Value, old: Option<&Value>) -> Vec<FieldError>,
    /// Fields that a field selector may name besides `metadata.name` and `metadata.namespace`,
    /// with their dotted paths, e.g. `spec.nodeName`.
    pub selectable: &'static [&'static str],
}

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Named once in the cluster.
    Cluster,
    /// Named once in each namespace.
    Namespaced,
}

/// A part of an object with a path of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// `/status`: writes change only `status` (and metadata that goes with it).
    Status,
    /// `/scale`: `autoscaling/v1` Scale over `spec.replicas`, `status.replicas` and `spec.selector`.
    Scale,
    /// `/log` of a Pod: text from the node.
    Log,
    /// `/binding` of a Pod: sets `spec.nodeName` once.
    Binding,
    /// `/eviction` of a Pod: deletes it.
    Eviction,
    /// `/finalize` of a Namespace: writes `spec.finalizers`.
    Finalize,
}

/// One column of a server-side table (meta.k8s.io/v1 TableColumnDefinition).
pub struct Column {
    /// Heading, e.g. `Cluster-IP`.
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: &'static str,
    /// OpenAPI format; `name` marks the column of the name.
    pub format: &'static str,
    /// What it says.
    pub description: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
}

/// One thing that is wrong with one field (field.Error in apimachinery): rendered as
/// `spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// Path of the field, e.g. `spec.ports[0].port`.
    pub field: String,
    /// What sort of error it is.
    pub reason: FieldReason,
    /// The value that was given, where the message shows it.
    pub value: Value,
    /// What is wrong with it.
    pub detail: String,
}

/// The `reason` of a cause in a 422 Status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldReason {
    /// FieldValueRequired, "Required value".
    Required,
    /// FieldValueInvalid, "Invalid value".
    Invalid,
    /// FieldValueNotSupported, "Unsupported value".
    NotSupported,
    /// FieldValueForbidden, "Forbidden".
    Forbidden,
    /// FieldValueDuplicate, "Duplicate value".
    Duplicate,
    /// FieldValueTooLong, "Too long".
    TooLong,
}

/// Something that looks at a write, and may change or refuse it, inside the write's own transaction:
/// no other write comes between what it sees and what is stored.
pub trait Admission: Send + Sync {
    /// Called after defaulting and before validation, on create, update and delete (then `object` is the old one).
    /// `lookup` reads other objects as they are in this transaction.
    fn admit(&self, review: &mut Review<'_>) -> Result<(), Denied>;

    /// Called once the write is stored, in the order of writes, so that an index can follow. Must not fail.
    fn stored(&self, _kind: &Kind, _old: Option<&Value>, _new: Option<&Value>) {}
}

/// What is being written.
pub struct Review<'a> {
    /// Kind of the object.
    pub kind: &'static Kind,
    /// Subresource, if the write goes to one.
    pub subresource: Option<Subresource>,
    /// What is done.
    pub operation: Operation,
    /// Nothing will be stored: allocations must not be remembered.
    pub dry_run: bool,
    /// The object as it stands, on update and delete.
    pub old: Option<&'a Value>,
    /// The object to be stored; may be changed.
    pub object: &'a mut Value,
    /// Reads `(group, plural, namespace or "", name)`.
    pub lookup: &'a dyn Fn(&str, &str, &str, &str) -> Option<Value>,
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// POST, or a server-side apply of something new.
    Create,
    /// PUT or PATCH.
    Update,
    /// DELETE, when the object really goes.
    Delete,
}

/// Why admission refuses a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Denied {
    /// 403 Forbidden with this message.
    Forbidden(String),
    /// 422 Invalid with these field errors.
    Invalid(Vec<FieldError>),
    /// 500 InternalError with this message (e.g. a range is full, as the real one says it).
    Internal(String),
}
