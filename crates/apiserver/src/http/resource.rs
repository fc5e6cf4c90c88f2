//! Requests for resources: from the method and the path to the verb.

use std::sync::Arc;

use futures::StreamExt;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Response};
use serde_json::{Value, json};

use super::accept::{self, Format};
use super::answer::{self, Body};
use super::body;
use super::handle::Call;
use super::log;
use super::show::Show;
use crate::kind::Subresource;
use crate::openapi;
use crate::selector::Selector;
use crate::status::{self, Failure, bad_request};
use crate::store::Key;
use crate::verbs::delete::{Deleted, Options, delete, delete_collection};
use crate::verbs::patch::Patch;
use crate::verbs::update::{Place, update};
use crate::verbs::watch::{Scope, watch};
use crate::verbs::{create, list, subresource};

/// Answers a request for a resource.
pub(super) async fn answer(call: Call) -> Result<Response<Body>, Failure> {
    let kind = call.target.kind;
    let method = call.method.clone();
    match (&call.target.name, &call.target.subresource) {
        (None, _) => match method {
            Method::GET | Method::HEAD => collection(&call),
            Method::POST => post(&call).await,
            Method::DELETE => remove_all(&call).await,
            _ => Err(status::method_not_allowed()),
        },
        (Some(name), None) => {
            let key = Key::new(call.target.index, call.target.namespace(), name);
            match method {
                Method::GET | Method::HEAD if call.target.watch || call.query.flag("watch") => {
                    collection(&call)
                }
                Method::GET | Method::HEAD => get(&call, &key),
                Method::PUT => put(&call, key, None).await,
                Method::PATCH => patch(&call, key, None).await,
                Method::DELETE => remove(&call, key).await,
                _ => Err(status::method_not_allowed()),
            }
        }
        (Some(name), Some(part)) => {
            let key = Key::new(call.target.index, call.target.namespace(), name);
            let Some(part) = subresource::find(kind, part) else {
                return Err(Failure::new(
                    404,
                    "NotFound",
                    "the server could not find the requested resource",
                ));
            };
            sub(&call, key, part).await
        }
    }
}

async fn sub(call: &Call, key: Key, part: Subresource) -> Result<Response<Body>, Failure> {
    match (&call.method, part) {
        (&Method::GET, Subresource::Status | Subresource::Finalize) => get(call, &key),
        (&Method::GET, Subresource::Scale) => {
            respond(call, 200, &subresource::scale_of(&*current(call, &key)?))
        }
        (&Method::GET, Subresource::Log) => log::answer(call, &*current(call, &key)?).await,
        (&Method::PUT, Subresource::Status | Subresource::Scale | Subresource::Finalize) => {
            put(call, key, Some(part)).await
        }
        (&Method::PATCH, Subresource::Status | Subresource::Scale) => {
            patch(call, key, Some(part)).await
        }
        (&Method::POST, Subresource::Binding) => {
            let (binding, _) = body::decode(call.header(CONTENT_TYPE), &call.body)?;
            subresource::bind(&call.api, key, &binding, call.query.dry_run()?).await?;
            respond(call, 201, &success(json!({})))
        }
        (&Method::POST, Subresource::Eviction) => {
            let (eviction, _) = body::decode(call.header(CONTENT_TYPE), &call.body)?;
            let given = Some(&eviction["deleteOptions"]).filter(|options| options.is_object());
            delete(&call.api, key, Options::parse(&call.query, given)?).await?;
            respond(call, 201, &success(json!({})))
        }
        _ => Err(status::method_not_allowed()),
    }
}

fn current(call: &Call, key: &Key) -> Result<Arc<Value>, Failure> {
    call.api
        .store
        .snapshot()
        .get(key)
        .ok_or_else(|| status::not_found(call.target.kind, &key.name))
}

fn selector(call: &Call) -> Result<Selector, Failure> {
    Selector::parse(
        call.target.kind,
        call.query.text("labelSelector"),
        call.query.text("fieldSelector"),
    )
}

fn get(call: &Call, key: &Key) -> Result<Response<Body>, Failure> {
    show(call, 200, &*current(call, key)?)
}

/// A list or a watch.
fn collection(call: &Call) -> Result<Response<Body>, Failure> {
    let (format, shape) = accept::negotiate(call.header(ACCEPT))?;
    let show = Show::parse(shape, &call.query)?;
    let target = &call.target;
    let selector = selector(call)?;
    if target.watch || call.query.flag("watch") {
        let scope = Scope {
            index: target.index,
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            selector,
            show,
        };
        let events = watch(&call.api, scope, &call.query)?;
        return Ok(answer::stream("application/json", events.map(Ok)));
    }
    let page = list::list(
        &call.api,
        target.index,
        target.namespace.as_deref(),
        &selector,
        &call.query,
    )?;
    Ok(answer::value(
        200,
        format,
        &show.list(target.kind, &page.items, page.metadata),
    ))
}

async fn post(call: &Call) -> Result<Response<Body>, Failure> {
    let kind = call.target.kind;
    let (mut object, duplicates) = body::decode(call.header(CONTENT_TYPE), &call.body)?;
    create::check_body(kind, call.target.namespace.as_deref(), &mut object)?;
    let warnings = check_fields(call, &mut object, duplicates)?;
    let dry_run = call.query.dry_run()?;
    let stored = create::create(&call.api, call.target.index, object, dry_run).await?;
    let mut response = show(call, 201, &stored)?;
    answer::warn(&mut response, &warnings);
    Ok(response)
}

async fn put(call: &Call, key: Key, part: Option<Subresource>) -> Result<Response<Body>, Failure> {
    let kind = call.target.kind;
    let (mut given, duplicates) = body::decode(call.header(CONTENT_TYPE), &call.body)?;
    let mut warnings = Vec::new();
    if part != Some(Subresource::Scale) {
        create::check_body(kind, call.target.namespace.as_deref(), &mut given)?;
        warnings = check_fields(call, &mut given, duplicates)?;
    }
    let place = Place {
        key,
        subresource: part,
        dry_run: call.query.dry_run()?,
    };
    let stored = update(&call.api, place, move |old| match part {
        Some(Subresource::Scale) => subresource::apply_scale(kind, old, &given),
        Some(Subresource::Finalize) => Ok(subresource::finalize(old, &given)),
        _ => Ok(given),
    })
    .await?;
    finish(call, part, &stored, &warnings)
}

async fn patch(
    call: &Call,
    key: Key,
    part: Option<Subresource>,
) -> Result<Response<Body>, Failure> {
    let kind = call.target.kind;
    let patch = Patch::parse(body::media_type(call.header(CONTENT_TYPE)), &call.body)?;
    let mode = Validation::of(call)?;
    let place = Place {
        key,
        subresource: part,
        dry_run: call.query.dry_run()?,
    };
    let (sender, mut warnings) = tokio::sync::oneshot::channel();
    let stored = update(&call.api, place, move |old| {
        if part == Some(Subresource::Scale) {
            let scale = patch.apply_to_scale(&subresource::scale_of(old))?;
            return subresource::apply_scale(kind, old, &scale);
        }
        let mut object = patch.apply(kind, old)?;
        let mut unknown = openapi::decode(kind, &mut object).map_err(bad_request)?;
        if mode == Validation::Ignore {
            unknown.clear();
        }
        if mode == Validation::Strict && !unknown.is_empty() {
            return Err(status::strict_patch(&object, &unknown));
        }
        // Nobody listens any more when the request was given up.
        let _ = sender.send(unknown);
        Ok(object)
    })
    .await?;
    finish(
        call,
        part,
        &stored,
        &warnings.try_recv().unwrap_or_default(),
    )
}

fn finish(
    call: &Call,
    part: Option<Subresource>,
    stored: &Value,
    warnings: &[String],
) -> Result<Response<Body>, Failure> {
    let mut response = match part {
        Some(Subresource::Scale) => respond(call, 200, &subresource::scale_of(stored))?,
        _ => show(call, 200, stored)?,
    };
    answer::warn(&mut response, warnings);
    Ok(response)
}

async fn remove(call: &Call, key: Key) -> Result<Response<Body>, Failure> {
    let kind = call.target.kind;
    match delete(&call.api, key.clone(), delete_options(call)?).await? {
        Deleted::Pending(object) => show(call, 200, &object),
        // The real server answers with the object for these kinds.
        Deleted::Gone(object)
            if kind.group.is_empty() && ["Pod", "Service"].contains(&kind.kind) =>
        {
            show(call, 200, &object)
        }
        Deleted::Gone(object) => {
            let mut details =
                json!({"name": &*key.name, "kind": kind.plural, "uid": object["metadata"]["uid"]});
            if !kind.group.is_empty() {
                details["group"] = json!(kind.group);
            }
            respond(call, 200, &success(details))
        }
    }
}

async fn remove_all(call: &Call) -> Result<Response<Body>, Failure> {
    let target = &call.target;
    if target.kind.kind == "Namespace" && target.kind.group.is_empty() {
        return Err(status::method_not_allowed());
    }
    let options = delete_options(call)?;
    let gone = delete_collection(
        &call.api,
        target.index,
        target.namespace.as_deref(),
        &selector(call)?,
        &options,
    )
    .await?;
    let (format, shape) = accept::negotiate(call.header(ACCEPT))?;
    let version = call.api.store.snapshot().version.to_string();
    let list = Show::parse(shape, &call.query)?.list(
        target.kind,
        &gone,
        json!({"resourceVersion": version}),
    );
    Ok(answer::value(200, format, &list))
}

fn delete_options(call: &Call) -> Result<Options, Failure> {
    if call.body.is_empty() {
        return Options::parse(&call.query, None);
    }
    let (body, _) = body::decode(call.header(CONTENT_TYPE), &call.body)?;
    Options::parse(&call.query, Some(&body))
}

fn success(details: Value) -> Value {
    let mut status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    if details
        .as_object()
        .is_some_and(|details| !details.is_empty())
    {
        status["details"] = details;
    }
    status
}

fn show(call: &Call, code: u16, object: &Value) -> Result<Response<Body>, Failure> {
    let (format, shape) = accept::negotiate(call.header(ACCEPT))?;
    let shown = Show::parse(shape, &call.query)?.one(call.target.kind, object, true);
    Ok(answer::value(code, format, &shown))
}

fn respond(call: &Call, code: u16, value: &Value) -> Result<Response<Body>, Failure> {
    let (format, _) =
        accept::negotiate(call.header(ACCEPT)).unwrap_or((Format::Json, accept::Shape::Object));
    Ok(answer::value(code, format, value))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Validation {
    Ignore,
    Warn,
    Strict,
}

impl Validation {
    fn of(call: &Call) -> Result<Validation, Failure> {
        match call.query.text("fieldValidation") {
            "" | "Warn" => Ok(Validation::Warn),
            "Ignore" => Ok(Validation::Ignore),
            "Strict" => Ok(Validation::Strict),
            other => Err(bad_request(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// Holds a body against its kind's types: values of the wrong type are refused; fields that the kind does not have and
/// fields that are given twice are dropped, and refused or warned about as the client asks.
fn check_fields(
    call: &Call,
    object: &mut Value,
    duplicates: Vec<String>,
) -> Result<Vec<String>, Failure> {
    let mode = Validation::of(call)?;
    let mut problems: Vec<String> = duplicates
        .iter()
        .map(|path| format!("duplicate field \"{path}\""))
        .collect();
    problems.extend(openapi::decode(call.target.kind, object).map_err(bad_request)?);
    match mode {
        Validation::Ignore => Ok(Vec::new()),
        Validation::Strict if !problems.is_empty() => {
            Err(status::strict(call.target.kind, &problems))
        }
        _ => Ok(problems),
    }
}
