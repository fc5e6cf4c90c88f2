//! Parameters of operations, in paths and queries.

/// A parameter in the path or in the query.
#[derive(Clone, Copy)]
pub struct Parameter {
    /// `path` or `query`.
    pub place: &'static str,
    /// Its name.
    pub name: &'static str,
    /// `string`, `integer` or `boolean`.
    pub kind: &'static str,
    /// What it does.
    pub description: &'static str,
}

const fn query(name: &'static str, kind: &'static str, description: &'static str) -> Parameter {
    Parameter {
        place: "query",
        name,
        kind,
        description,
    }
}

const fn in_path(name: &'static str, description: &'static str) -> Parameter {
    Parameter {
        place: "path",
        name,
        kind: "string",
        description,
    }
}

/// Name in the path.
pub static NAME: Parameter = in_path("name", "name of the object");
/// Namespace in the path.
pub static NAMESPACE: Parameter = in_path(
    "namespace",
    "object name and auth scope, such as for teams and projects",
);
static DRY_RUN: Parameter = query(
    "dryRun",
    "string",
    "All: process every stage of the request, but store nothing.",
);
static FIELD_MANAGER: Parameter = query("fieldManager", "string", "Who makes this change.");
static FIELD_VALIDATION: Parameter = query(
    "fieldValidation",
    "string",
    "What to do about unknown or duplicate fields: Ignore drops them, Warn (the default) drops them and warns, Strict \
     refuses the request.",
);
static FORCE: Parameter = query(
    "force",
    "boolean",
    "An apply patch takes over fields that others manage.",
);
static ALLOW_WATCH_BOOKMARKS: Parameter = query(
    "allowWatchBookmarks",
    "boolean",
    "The watch may contain events of type BOOKMARK.",
);
static CONTINUE: Parameter = query(
    "continue",
    "string",
    "Where the next part of a list starts.",
);
static FIELD_SELECTOR: Parameter =
    query("fieldSelector", "string", "Only objects with these fields.");
static LABEL_SELECTOR: Parameter =
    query("labelSelector", "string", "Only objects with these labels.");
static LIMIT: Parameter = query("limit", "integer", "How many objects an answer may have.");
static RESOURCE_VERSION: Parameter =
    query("resourceVersion", "string", "Which state is asked for.");
static RESOURCE_VERSION_MATCH: Parameter = query(
    "resourceVersionMatch",
    "string",
    "How resourceVersion is meant: Exact or NotOlderThan.",
);
static SEND_INITIAL_EVENTS: Parameter = query(
    "sendInitialEvents",
    "boolean",
    "The watch starts with an event for each object that exists.",
);
static TIMEOUT_SECONDS: Parameter =
    query("timeoutSeconds", "integer", "How long the call may last.");
static WATCH: Parameter = query(
    "watch",
    "boolean",
    "Send changes as they happen instead of a list.",
);
static GRACE_PERIOD_SECONDS: Parameter = query(
    "gracePeriodSeconds",
    "integer",
    "How long the object may take to go.",
);
static PROPAGATION_POLICY: Parameter = query(
    "propagationPolicy",
    "string",
    "What becomes of dependents: Orphan, Background or Foreground.",
);

/// Of POST and PUT.
pub static WRITE: &[&Parameter] = &[&DRY_RUN, &FIELD_MANAGER, &FIELD_VALIDATION];
/// Of PATCH.
pub static PATCHES: &[&Parameter] = &[&DRY_RUN, &FIELD_MANAGER, &FIELD_VALIDATION, &FORCE];
/// Of lists and watches.
pub static LIST: &[&Parameter] = &[
    &ALLOW_WATCH_BOOKMARKS,
    &CONTINUE,
    &FIELD_SELECTOR,
    &LABEL_SELECTOR,
    &LIMIT,
    &RESOURCE_VERSION,
    &RESOURCE_VERSION_MATCH,
    &SEND_INITIAL_EVENTS,
    &TIMEOUT_SECONDS,
    &WATCH,
];
/// Of DELETE.
pub static DELETE: &[&Parameter] = &[&DRY_RUN, &GRACE_PERIOD_SECONDS, &PROPAGATION_POLICY];
