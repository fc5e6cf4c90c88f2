//! What can be asked of the API, in a form that both OpenAPI versions are written from.

use serde_json::{Value, json};

use super::definitions;
use super::parameters::{DELETE, LIST, NAME, NAMESPACE, PATCHES, Parameter, WRITE};
use crate::kind::{Kind, Scope, Subresource};

/// All operations on one path.
pub struct PathItem {
    /// The path, e.g. `/api/v1/namespaces/{namespace}/pods/{name}`.
    pub path: String,
    /// Parts of the path that are filled in.
    pub parameters: Vec<Parameter>,
    /// Group and version, for the tag, e.g. `core_v1`.
    pub tag: String,
    /// What can be done there.
    pub operations: Vec<Operation>,
}

/// One method on one path.
pub struct Operation {
    /// `get`, `put`, `post`, `patch` or `delete`.
    pub method: &'static str,
    /// `operationId`, e.g. `listCoreV1NamespacedPod`.
    pub id: String,
    /// One sentence.
    pub description: String,
    /// `x-kubernetes-action`.
    pub action: &'static str,
    /// `x-kubernetes-group-version-kind`.
    pub gvk: Value,
    /// Query parameters.
    pub parameters: &'static [&'static Parameter],
    /// Schema of the body.
    pub body: Option<String>,
    /// Schema of the answer; empty for text.
    pub answer: String,
}

/// Schema of the body of patches.
pub const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// Where the group and version of a kind are served: `api/v1` or `apis/apps/v1`.
pub fn prefix(kind: &Kind) -> String {
    match kind.group {
        "" => format!("api/{}", kind.version),
        group => format!("apis/{group}/{}", kind.version),
    }
}

/// Every path of one kind.
pub fn of(kind: &Kind) -> Vec<PathItem> {
    let maker = Maker::new(kind);
    let mut paths = vec![maker.collection()];
    if kind.scope == Scope::Namespaced {
        paths.push(maker.everywhere());
    }
    paths.push(maker.named());
    paths.extend(
        kind.subresources
            .iter()
            .map(|subresource| maker.subresource(*subresource)),
    );
    paths
}

struct Maker<'a> {
    kind: &'a Kind,
    /// `/api/v1/namespaces/{namespace}/pods`.
    base: String,
    /// `Namespaced` or empty.
    scope: &'static str,
    /// `CoreV1`.
    group_version: String,
    tag: String,
}

impl<'a> Maker<'a> {
    fn new(kind: &'a Kind) -> Maker<'a> {
        let group = kind
            .group
            .split('.')
            .next()
            .filter(|group| !group.is_empty())
            .unwrap_or("core");
        let (scope, base) = match kind.scope {
            Scope::Cluster => ("", format!("/{}/{}", prefix(kind), kind.plural)),
            Scope::Namespaced => (
                "Namespaced",
                format!("/{}/namespaces/{{namespace}}/{}", prefix(kind), kind.plural),
            ),
        };
        Maker {
            kind,
            base,
            scope,
            group_version: format!("{}{}", capital(group), capital(kind.version)),
            tag: format!("{group}_{}", kind.version),
        }
    }

    fn item(&self, path: String, parameters: &[Parameter], operations: Vec<Operation>) -> PathItem {
        let namespace = (path.contains("{namespace}")).then_some(NAMESPACE);
        let parameters = parameters.iter().copied().chain(namespace).collect();
        PathItem {
            path,
            parameters,
            tag: self.tag.clone(),
            operations,
        }
    }

    fn operation(
        &self,
        method: &'static str,
        action: &'static str,
        id: String,
        description: String,
    ) -> Operation {
        Operation {
            method,
            id,
            description,
            action,
            gvk: definitions::gvk(self.kind, self.kind.kind),
            parameters: &[],
            body: None,
            answer: self.kind.schema.to_owned(),
        }
    }

    /// `readCoreV1NamespacedPodStatus`.
    fn id(&self, verb: &str, infix: &str, suffix: &str) -> String {
        format!(
            "{verb}{}{infix}{}{}{suffix}",
            self.group_version, self.scope, self.kind.kind
        )
    }

    fn collection(&self) -> PathItem {
        let name = self.kind.kind;
        let list = Operation {
            parameters: LIST,
            answer: definitions::list_name(self.kind),
            ..self.operation(
                "get",
                "list",
                self.id("list", "", ""),
                format!("list or watch objects of kind {name}"),
            )
        };
        let create = Operation {
            parameters: WRITE,
            body: Some(self.kind.schema.to_owned()),
            ..self.operation(
                "post",
                "post",
                self.id("create", "", ""),
                format!("create {}", a(name)),
            )
        };
        let id = self.id("delete", "Collection", "");
        let delete = Operation {
            parameters: LIST,
            body: Some(DELETE_OPTIONS.to_owned()),
            answer: STATUS.to_owned(),
            ..self.operation(
                "delete",
                "deletecollection",
                id,
                format!("delete collection of {name}"),
            )
        };
        self.item(self.base.clone(), &[], vec![list, create, delete])
    }

    fn everywhere(&self) -> PathItem {
        let name = self.kind.kind;
        let id = format!("list{}{name}ForAllNamespaces", self.group_version);
        let list = Operation {
            parameters: LIST,
            answer: definitions::list_name(self.kind),
            ..self.operation(
                "get",
                "list",
                id,
                format!("list or watch objects of kind {name}"),
            )
        };
        self.item(
            format!("/{}/{}", prefix(self.kind), self.kind.plural),
            &[],
            vec![list],
        )
    }

    fn named(&self) -> PathItem {
        let mut operations = self.read_and_write("", "");
        operations.push(Operation {
            parameters: DELETE,
            body: Some(DELETE_OPTIONS.to_owned()),
            answer: STATUS.to_owned(),
            ..self.operation(
                "delete",
                "delete",
                self.id("delete", "", ""),
                format!("delete {}", a(self.kind.kind)),
            )
        });
        self.item(format!("{}/{{name}}", self.base), &[NAME], operations)
    }

    fn read_and_write(&self, suffix: &str, part: &str) -> Vec<Operation> {
        let name = self.kind.kind;
        let text = |verb: &str| format!("{verb} {part}the specified {name}");
        vec![
            self.operation("get", "get", self.id("read", "", suffix), text("read")),
            Operation {
                parameters: WRITE,
                body: Some(self.kind.schema.to_owned()),
                ..self.operation(
                    "put",
                    "put",
                    self.id("replace", "", suffix),
                    text("replace"),
                )
            },
            Operation {
                parameters: PATCHES,
                body: Some(PATCH.to_owned()),
                ..self.operation(
                    "patch",
                    "patch",
                    self.id("patch", "", suffix),
                    text("partially update"),
                )
            },
        ]
    }

    fn subresource(&self, subresource: Subresource) -> PathItem {
        let path = |name: &str| format!("{}/{{name}}/{name}", self.base);
        match subresource {
            Subresource::Status => self.item(
                path("status"),
                &[NAME],
                self.read_and_write("Status", "status of "),
            ),
            Subresource::Scale => {
                let schema = "io.k8s.api.autoscaling.v1.Scale";
                let mut operations = self.read_and_write("Scale", "scale of ");
                for operation in &mut operations {
                    operation.gvk =
                        json!({"group": "autoscaling", "kind": "Scale", "version": "v1"});
                    operation.answer = schema.to_owned();
                    if operation.method == "put" {
                        operation.body = Some(schema.to_owned());
                    }
                }
                self.item(path("scale"), &[NAME], operations)
            }
            Subresource::Log => {
                let read = Operation {
                    answer: String::new(),
                    ..self.operation(
                        "get",
                        "get",
                        self.id("read", "", "Log"),
                        "read log of the specified Pod".to_owned(),
                    )
                };
                self.item(path("log"), &[NAME], vec![read])
            }
            Subresource::Binding => self.post(
                path("binding"),
                "Binding",
                "io.k8s.api.core.v1.Binding",
                ("", "Binding"),
            ),
            Subresource::Eviction => self.post(
                path("eviction"),
                "Eviction",
                "io.k8s.api.policy.v1.Eviction",
                ("policy", "Eviction"),
            ),
            Subresource::Finalize => {
                let replace = self.read_and_write("Finalize", "finalize of ").remove(1);
                self.item(path("finalize"), &[NAME], vec![replace])
            }
        }
    }

    fn post(
        &self,
        path: String,
        suffix: &str,
        schema: &str,
        (group, kind): (&str, &str),
    ) -> PathItem {
        let create = Operation {
            gvk: json!({"group": group, "kind": kind, "version": "v1"}),
            parameters: WRITE,
            body: Some(schema.to_owned()),
            answer: schema.to_owned(),
            ..self.operation(
                "post",
                "post",
                self.id("create", "", suffix),
                format!("create {suffix} of a Pod"),
            )
        };
        self.item(path, &[NAME], vec![create])
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

fn a(name: &str) -> String {
    let article = if name.starts_with(['A', 'E', 'I', 'O', 'U']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {name}")
}
