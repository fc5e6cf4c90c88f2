//! One request: who asks, and for what.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use serde_json::Value;

use super::accept::{self, Format};
use super::answer::{self, Body};
use super::query::Query;
use super::{body, path, resource};
use crate::api::Api;
use crate::auth::Identity;
use crate::discovery;
use crate::status::{self, Failure};

/// A request whose sender and target are known.
pub(super) struct Call {
    pub(super) api: Arc<Api>,
    pub(super) method: Method,
    pub(super) target: path::Target,
    pub(super) query: Query,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Call {
    pub(super) fn header(&self, name: HeaderName) -> &str {
        header(&self.headers, name)
    }
}

pub(super) fn header(headers: &HeaderMap, name: HeaderName) -> &str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Answers a request; never fails.
pub(super) async fn handle(
    api: Arc<Api>,
    certificate: Option<Arc<Identity>>,
    request: Request<Incoming>,
) -> Response<Body> {
    let (parts, incoming) = request.into_parts();
    let path = parts.uri.path().trim_end_matches('/').to_owned();
    let read = matches!(parts.method, Method::GET | Method::HEAD);
    if read && let Some(response) = open_to_all(&path) {
        return response;
    }
    let authorization = parts
        .headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    if api
        .authenticator
        .identify(certificate.as_deref(), authorization)
        .is_none()
    {
        let mut response = answer::failure(&status::unauthorized());
        response
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    }
    if read && let Some(response) = document(&api, &path, &parts.headers) {
        return response;
    }
    let Some(target) = path::parse(api.kinds, &path) else {
        return answer::text(404, "404 page not found\n");
    };
    let body = match body::read(incoming).await {
        Ok(body) => body,
        Err(failure) => return answer::failure(&failure),
    };
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let call = Call {
        api,
        method: parts.method,
        target,
        query,
        headers: parts.headers,
        body,
    };
    match resource::answer(call).await {
        Ok(response) => response,
        Err(failure) => answer::failure(&failure),
    }
}

/// What everybody may ask.
fn open_to_all(path: &str) -> Option<Response<Body>> {
    match path {
        "/healthz" | "/livez" | "/readyz" => Some(answer::text(200, "ok")),
        "/version" => Some(answer::value(200, Format::Json, &discovery::version())),
        _ => None,
    }
}

/// Discovery and OpenAPI.
fn document(api: &Api, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let wanted = header(headers, ACCEPT);
    match path {
        "" => Some(answer::value(
            200,
            Format::Json,
            &discovery::paths(api.kinds),
        )),
        "/api" | "/apis" if discovery::wants_aggregated(wanted) => {
            let groups = discovery::aggregated(api.kinds, path == "/api");
            Some(answer::cacheable(
                headers,
                discovery::AGGREGATED_TYPE,
                groups.to_string().into(),
            ))
        }
        "/api" => Some(format(wanted, &discovery::core_versions())),
        "/apis" => Some(format(wanted, &discovery::groups(api.kinds))),
        "/openapi/v2" => {
            // A dot where the media type has an at sign, as the real server answers: clients cannot parse the latter.
            const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
            let binary = accept::parse(wanted).iter().any(|media| {
                media
                    .kind
                    .starts_with("application/com.github.proto-openapi.spec.v2")
            });
            Some(if binary {
                answer::cacheable(headers, PROTOBUF, api.documents.v2_proto())
            } else {
                answer::cacheable(headers, "application/json", api.documents.v2_json())
            })
        }
        "/openapi/v3" => {
            let index: Value = api.documents.v3_index();
            Some(answer::cacheable(
                headers,
                "application/json",
                index.to_string().into(),
            ))
        }
        _ => {
            if let Some(name) = path.strip_prefix("/openapi/v3/") {
                let document = api.documents.v3(name)?;
                return Some(answer::cacheable(headers, "application/json", document));
            }
            discovery::one(api.kinds, path).map(|found| format(wanted, &found))
        }
    }
}

fn format(wanted: &str, value: &Value) -> Response<Body> {
    match accept::negotiate(wanted) {
        Ok((format, _)) => answer::value(200, format, value),
        Err(Failure { .. }) => answer::failure(&status::not_acceptable()),
    }
}
