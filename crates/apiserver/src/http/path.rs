//! What a path names.

use crate::kind::{Kind, Scope};

/// A resource path, e.g. `/apis/apps/v1/namespaces/default/deployments/web/scale`.
#[derive(Clone)]
pub struct Target {
    /// Place of the kind in the table.
    pub index: usize,
    /// The kind.
    pub kind: &'static Kind,
    /// Namespace; `None` for the cluster's kinds and for all namespaces.
    pub namespace: Option<String>,
    /// Name; `None` for the collection.
    pub name: Option<String>,
    /// What stands behind the name.
    pub subresource: Option<String>,
    /// The old `/watch/` prefix.
    pub watch: bool,
}

impl Target {
    /// Namespace of the object, empty in the cluster.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("")
    }
}

/// Finds the kind that a path names; `None` if no kind is served there. Segments are percent-decoded.
pub fn parse(kinds: &'static [&'static Kind], path: &str) -> Option<Target> {
    let decoded: Vec<String> = path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(decode)
        .collect();
    let parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let (watch, rest) = match rest {
        ["watch", rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let find = |plural: &str, scope: Option<Scope>| {
        kinds.iter().position(|kind| {
            kind.group == group
                && kind.version == version
                && kind.plural == plural
                && scope.is_none_or(|scope| scope == kind.scope)
        })
    };
    let target = |index: usize, namespace: Option<&str>, rest: &[&str]| {
        let (name, subresource) = match rest {
            [] => (None, None),
            [name] => (Some(*name), None),
            [name, subresource] => (Some(*name), Some(*subresource)),
            _ => return None,
        };
        Some(Target {
            index,
            kind: kinds[index],
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            subresource: subresource.map(str::to_owned),
            watch,
        })
    };
    if let ["namespaces", namespace, plural, rest @ ..] = rest
        && let Some(index) = find(plural, Some(Scope::Namespaced))
    {
        return target(index, Some(namespace), rest);
    }
    let [plural, rest @ ..] = rest else {
        return None;
    };
    let index = find(plural, None)?;
    if kinds[index].scope == Scope::Namespaced && !rest.is_empty() {
        return None;
    }
    target(index, None, rest)
}

fn decode(part: &str) -> String {
    url::form_urlencoded::parse(
        part.replace('+', "%2B")
            .replace('&', "%26")
            .replace('=', "%3D")
            .as_bytes(),
    )
    .next()
    .map(|(key, _)| key.into_owned())
    .unwrap_or_default()
}
