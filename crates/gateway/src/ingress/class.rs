//! Which Ingresses are ours: by IngressClass, by the old annotation, or because they have none.

use std::fmt;
use std::sync::Arc;

use portolan_k8s::wire::networking::{Ingress, IngressClass};

use super::{Objects, Options};
use crate::problem::{ObjectName, Problem};

/// `spec.controller` of the IngressClasses that are ours, unless an operator chooses another one.
pub const CONTROLLER: &str = "portolan.dev/gateway";
/// What said who serves an Ingress before there were IngressClasses; to be honoured still (networking/v1 types.go).
const OLD_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// Marks the class that new Ingresses without a class get from the API server.
const DEFAULT_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

/// An Ingress that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The Ingress.
    pub ingress: ObjectName,
    /// Why.
    pub why: Why,
}

/// Why an Ingress is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It has neither a class nor the old annotation.
    NoClass,
    /// Nobody has made the class that it names.
    UnknownClass(String),
    /// Its class is that of another controller.
    Controller(String),
    /// Its old annotation names nobody we know.
    Annotation(String),
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ingress {}: ", self.ingress)?;
        match &self.why {
            Why::NoClass => f.write_str(
                "it has no class; set spec.ingressClassName, or mark an IngressClass as default and create it anew",
            ),
            Why::UnknownClass(name) => write!(f, "there is no IngressClass {name}"),
            Why::Controller(name) => write!(f, "its IngressClass belongs to {name}"),
            Why::Annotation(value) => write!(f, "its annotation {OLD_ANNOTATION} is {value:?}, which is not ours"),
        }
    }
}

/// What [`sort`] finds.
pub(super) struct Sorted<'a> {
    /// The oldest first.
    pub(super) ours: Vec<&'a Arc<Ingress>>,
    /// In the order of their names.
    pub(super) ignored: Vec<Ignored>,
    /// About IngressClasses, and about Ingresses that are ours in a doubtful way.
    pub(super) problems: Vec<Problem>,
}

/// Tells Ingresses that are ours from the others.
pub(super) fn sort<'a>(objects: &'a Objects, options: &Options) -> Sorted<'a> {
    let mut sorted = Sorted {
        ours: Vec::new(),
        ignored: Vec::new(),
        problems: class_problems(objects, options),
    };
    for (name, ingress) in &objects.ingresses {
        match whose(objects, options, ingress) {
            Ok(()) => sorted.ours.push(ingress),
            Err(why) => sorted.ignored.push(Ignored {
                ingress: name.clone(),
                why,
            }),
        }
    }
    sorted.ours.sort_by_key(|ingress| created(ingress));
    sorted
}

/// `metadata.creationTimestamp`, in seconds.
pub(super) fn created(ingress: &Ingress) -> i64 {
    let created = &ingress.metadata.creation_timestamp;
    created.as_ref().map_or(0, |time| time.0.as_second())
}

fn whose(objects: &Objects, options: &Options, ingress: &Ingress) -> Result<(), Why> {
    let named = ingress.spec.ingress_class_name.as_deref();
    let old = ingress.metadata.annotations.as_ref();
    let old = old.and_then(|annotations| annotations.get(OLD_ANNOTATION));
    match (named.filter(|name| !name.is_empty()), old) {
        (Some(name), _) => match controller(objects, name) {
            None => Err(Why::UnknownClass(name.to_owned())),
            Some(controller) if controller == options.controller => Ok(()),
            Some(controller) => Err(Why::Controller(controller.to_owned())),
        },
        (None, Some(old)) => {
            let of_class = controller(objects, old) == Some(&options.controller);
            let ours = of_class || options.class_names.contains(old);
            ours.then_some(())
                .ok_or_else(|| Why::Annotation(old.clone()))
        }
        (None, None) => options.without_class.then_some(()).ok_or(Why::NoClass),
    }
}

fn controller<'a>(objects: &'a Objects, class: &str) -> Option<&'a str> {
    let class = objects.classes.get(&ObjectName::new("", class))?;
    Some(class.spec.controller.as_deref().unwrap_or_default())
}

fn class_problems(objects: &Objects, options: &Options) -> Vec<Problem> {
    let ours = |class: &IngressClass| class.spec.controller.as_ref() == Some(&options.controller);
    let defaults: Vec<&ObjectName> = objects
        .classes
        .iter()
        .filter(|(_, class)| is_default(class))
        .map(|(name, _)| name)
        .collect();
    let mut problems = Vec::new();
    for (name, class) in objects.classes.iter().filter(|(_, class)| ours(class)) {
        let mut wrong = |reason, message| {
            problems.push(Problem {
                kind: "IngressClass",
                object: name.clone(),
                reason,
                message,
            });
        };
        if let Some(parameters) = &class.spec.parameters {
            wrong(
                "ParametersNotRead",
                format!(
                    "spec.parameters names {} {}, and the gateway has no parameters: remove it; Ingresses of this class \
                     are served as if it were not there.",
                    parameters.kind, parameters.name
                ),
            );
        }
        if is_default(class) && defaults.len() > 1 {
            let all: Vec<String> = defaults.iter().map(ToString::to_string).collect();
            wrong(
                "SeveralDefaultClasses",
                format!(
                    "{} are all marked as default: API servers refuse an Ingress without a class, or take the newest \
                     of them; set {DEFAULT_ANNOTATION} to \"false\" on all but one.",
                    all.join(", ")
                ),
            );
        }
    }
    problems
}

fn is_default(class: &IngressClass) -> bool {
    let annotations = class.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.get(DEFAULT_ANNOTATION).is_some_and(|v| v == "true"))
}
