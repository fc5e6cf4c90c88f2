//! What a served kind is: one entry of one table. Adding a kind is adding an entry to [`crate::kinds::kinds`].

use std::fmt;

use schemars::{Schema, SchemaGenerator};
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
    /// Name of the schema in OpenAPI documents, e.g. `io.k8s.api.core.v1.Pod`.
    pub schema: &'static str,
    /// Adds the schema of the object, and those that it refers to, to what the generator collects.
    pub describe: fn(&mut SchemaGenerator) -> Schema,
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
    /// What is done to a new or changed object before validation, on writes to the object itself: `generation`,
    /// the status that such a write may not change. `old` is `None` on create.
    pub prepare: fn(object: &mut Value, old: Option<&Value>),
    /// The same for a write to `/status`: everything that such a write may not change comes from `old`.
    pub prepare_status: fn(object: &mut Value, old: &Value),
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

impl Column {
    /// The column of the object's name.
    pub const NAME: Column = Column {
        name: "Name",
        kind: "string",
        format: "name",
        description: "Name of the object.",
        priority: 0,
    };
    /// The column that says how long ago the object was created.
    pub const AGE: Column = Column::new("Age", "string", "Time since the object was created.");

    /// A column that is always shown.
    pub const fn new(name: &'static str, kind: &'static str, description: &'static str) -> Column {
        Column {
            name,
            kind,
            format: "",
            description,
            priority: 0,
        }
    }

    /// A column that `-o wide` shows.
    pub const fn wide(name: &'static str, kind: &'static str, description: &'static str) -> Column {
        Column {
            name,
            kind,
            format: "",
            description,
            priority: 1,
        }
    }
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
    /// FieldValueNotFound, "Not found".
    NotFound,
    /// FieldValueTooMany, "Too many".
    TooMany,
    /// FieldValueTypeInvalid, "Invalid value".
    TypeInvalid,
}

impl FieldError {
    /// A field that must be given is not.
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldReason::Required, field, Value::Null, detail)
    }

    /// A field has a value that it can't have.
    pub fn invalid(
        field: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(FieldReason::Invalid, field, value, detail)
    }

    /// A field has a value that is none of the `supported` ones.
    pub fn not_supported(
        field: impl Into<String>,
        value: impl Into<Value>,
        supported: &[&str],
    ) -> Self {
        let mut quoted: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        quoted.sort();
        Self::new(
            FieldReason::NotSupported,
            field,
            value,
            format!("supported values: {}", quoted.join(", ")),
        )
    }

    /// A field may not be set here.
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldReason::Forbidden, field, Value::Null, detail)
    }

    /// A value occurs twice where it may occur once.
    pub fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(FieldReason::Duplicate, field, value, "")
    }

    /// A value names something that is not there.
    pub fn not_found(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(FieldReason::NotFound, field, value, "")
    }

    /// A value is longer than `bytes_max`.
    pub fn too_long(field: impl Into<String>, bytes_max: usize) -> Self {
        Self::new(
            FieldReason::TooLong,
            field,
            Value::Null,
            format!("may not be more than {bytes_max} bytes"),
        )
    }

    /// A list has `actual` items and may have `items_max`.
    pub fn too_many(field: impl Into<String>, actual: usize, items_max: usize) -> Self {
        let items = if items_max == 1 { "item" } else { "items" };
        Self::new(
            FieldReason::TooMany,
            field,
            actual,
            format!("must have at most {items_max} {items}"),
        )
    }

    fn new(
        reason: FieldReason,
        field: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        FieldError {
            field: field.into(),
            reason,
            value: value.into(),
            detail: detail.into(),
        }
    }

    /// The message without the field, as it stands in a cause of a 422 Status:
    /// `Invalid value: 0: must be between 1 and 65535, inclusive`.
    pub fn message(&self) -> String {
        let mut message = self.reason.words().to_owned();
        if !matches!(
            self.reason,
            FieldReason::Required | FieldReason::Forbidden | FieldReason::TooLong
        ) {
            message.push_str(": ");
            message.push_str(&self.value.to_string());
        }
        if !self.detail.is_empty() {
            message.push_str(": ");
            message.push_str(&self.detail);
        }
        message
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message())
    }
}

impl FieldReason {
    /// The `reason` of a cause, e.g. `FieldValueInvalid`.
    pub const fn code(self) -> &'static str {
        match self {
            FieldReason::Required => "FieldValueRequired",
            FieldReason::Invalid => "FieldValueInvalid",
            FieldReason::NotSupported => "FieldValueNotSupported",
            FieldReason::Forbidden => "FieldValueForbidden",
            FieldReason::Duplicate => "FieldValueDuplicate",
            FieldReason::TooLong => "FieldValueTooLong",
            FieldReason::NotFound => "FieldValueNotFound",
            FieldReason::TooMany => "FieldValueTooMany",
            FieldReason::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    /// How a message starts, e.g. `Invalid value`.
    pub const fn words(self) -> &'static str {
        match self {
            FieldReason::Required => "Required value",
            FieldReason::Invalid | FieldReason::TypeInvalid => "Invalid value",
            FieldReason::NotSupported => "Unsupported value",
            FieldReason::Forbidden => "Forbidden",
            FieldReason::Duplicate => "Duplicate value",
            FieldReason::TooLong => "Too long",
            FieldReason::NotFound => "Not found",
            FieldReason::TooMany => "Too many",
        }
    }
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
