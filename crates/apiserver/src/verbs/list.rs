//! GET of a collection, in pages if the client asks for them.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::http::query::Query;
use crate::selector::Selector;
use crate::status::{self, Failure, bad_request};
use crate::store::{Key, Snapshot};

/// A page of a collection.
pub struct Page {
    /// The objects, in order of namespace and name.
    pub items: Vec<Arc<Value>>,
    /// `metadata` of the list: resourceVersion, continue, remainingItemCount.
    pub metadata: Value,
}

const TOO_OLD: &str = "The resourceVersion for the provided list is too old.";
const CONTINUE_TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list result. You can \
     start a new list without the continue parameter, or use the continue token in this response to retrieve the \
     remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were \
     created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Lists what matches, as the query's limit, continue and resourceVersion say.
pub fn list(
    api: &Api,
    index: usize,
    namespace: Option<&str>,
    selector: &Selector,
    query: &Query,
) -> Result<Page, Failure> {
    let limit = query
        .number::<usize>("limit")?
        .filter(|limit| *limit > 0)
        .unwrap_or(usize::MAX);
    let (snapshot, after) = match query.text("continue") {
        "" => (snapshot_for(api, query)?, None),
        token => resume(api, index, token, query)?,
    };
    let mut rest = snapshot
        .list(index, namespace, after.as_ref())
        .filter(|(_, object)| selector.matches(object))
        .peekable();
    let mut items = Vec::new();
    let mut last = None;
    for (key, object) in rest.by_ref().take(limit) {
        items.push(Arc::clone(object));
        last = Some(key.clone());
    }
    let mut metadata = Map::new();
    metadata.insert(
        "resourceVersion".into(),
        json!(snapshot.version.to_string()),
    );
    if let Some(last) = last.filter(|_| limit != usize::MAX && rest.peek().is_some()) {
        metadata.insert("continue".into(), json!(token(snapshot.version, &last)));
        if selector.is_empty() {
            metadata.insert("remainingItemCount".into(), json!(rest.count()));
        }
        api.store.retain(&snapshot);
    }
    Ok(Page {
        items,
        metadata: Value::Object(metadata),
    })
}

/// The state that `resourceVersion` and `resourceVersionMatch` ask for.
fn snapshot_for(api: &Api, query: &Query) -> Result<Snapshot, Failure> {
    let current = api.store.snapshot();
    let asked = query.text("resourceVersion");
    let rule = query.text("resourceVersionMatch");
    if asked.is_empty() {
        return if rule.is_empty() || query.flag("sendInitialEvents") {
            Ok(current)
        } else {
            Err(forbidden_match(
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ))
        };
    }
    let version = parse_version(asked)?;
    if version > current.version {
        return Err(status::too_large_version(version, current.version));
    }
    match rule {
        "" | "NotOlderThan" => Ok(current),
        "Exact" if version == 0 => Err(forbidden_match(
            "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
        )),
        "Exact" => api
            .store
            .retained(version)
            .ok_or_else(|| status::expired(TOO_OLD)),
        other => {
            let message = format!(
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Unsupported value: {other:?}: \
                 supported values: \"Exact\", \"NotOlderThan\", \"\""
            );
            Err(Failure::new(422, "Invalid", message))
        }
    }
}

fn forbidden_match(why: &str) -> Failure {
    let message =
        format!("ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: {why}");
    Failure::new(422, "Invalid", message)
}

/// A resourceVersion of a query as a number.
pub fn parse_version(text: &str) -> Result<u64, Failure> {
    text.parse().map_err(|_| {
        bad_request(format!(
            "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}

fn token(version: u64, last: &Key) -> String {
    let body = json!({"v": "meta.k8s.io/v1", "rv": version, "start": format!("{}/{}", last.namespace, last.name)});
    URL_SAFE_NO_PAD.encode(body.to_string())
}

/// Where a continue token goes on; version 0 in a token means "as things are now".
fn resume(
    api: &Api,
    index: usize,
    text: &str,
    query: &Query,
) -> Result<(Snapshot, Option<Key>), Failure> {
    if !matches!(query.text("resourceVersion"), "" | "0") {
        return Err(bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    let wrong = || bad_request("continue key is not valid: it is not one that this server gave");
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
    let body: Value = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    let version = body["rv"].as_u64().ok_or_else(wrong)?;
    let (namespace, name) = body["start"]
        .as_str()
        .and_then(|start| start.split_once('/'))
        .ok_or_else(wrong)?;
    let key = Key::new(index, namespace, name);
    let snapshot = if version == 0 {
        Some(api.store.snapshot())
    } else {
        api.store.retained(version)
    };
    match snapshot {
        Some(snapshot) => Ok((snapshot, Some(key))),
        None => {
            let mut failure = status::expired(CONTINUE_TOO_OLD);
            failure.continue_token = Some(token(0, &key));
            Err(failure)
        }
    }
}
