//! A service is asked whether a request may go on, as nginx' `auth_request` does.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use super::super::answer;
use super::super::body::Body;
use super::super::headers;
use super::{Exchange, ask, uri};
use crate::policy::{Judge, Template};

const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const REDIRECT: HeaderName = HeaderName::from_static("x-auth-request-redirect");

/// Lets a request on that the service answers with 2xx. Of its refusals the client gets 401 and 403, or is sent to where
/// people sign in; everything else is 500.
pub(super) async fn ask(
    exchange: &Exchange<'_>,
    judge: &Judge,
    request: &mut Request<Body>,
) -> Result<(), Response<Body>> {
    let url = exchange.render(&judge.url, request);
    let question = question(exchange, judge, request);
    let verdict = match ask::ask_url(&url, question).await {
        Ok(verdict) => verdict,
        Err(error) => {
            tracing::warn!(target = %exchange.target.origin, %error, "auth-url was not answered");
            return Err(answer::plain(StatusCode::INTERNAL_SERVER_ERROR));
        }
    };
    if verdict.status().is_success() {
        for name in &judge.passed {
            take(request.headers_mut(), verdict.headers(), name);
        }
        return Ok(());
    }
    Err(refusal(exchange, judge, request, &verdict))
}

/// What the service sees: the request without its body, and where it was going.
fn question(exchange: &Exchange<'_>, judge: &Judge, request: &Request<Body>) -> Request<Body> {
    let mut headers = request.headers().clone();
    headers::forward(&mut headers, &exchange.client());
    for name in [HOST, CONTENT_LENGTH, CONTENT_TYPE] {
        headers.remove(name);
    }
    let original = format!(
        "{}://{}{}",
        exchange.scheme(),
        exchange.http_host,
        uri(request)
    );
    let back = match &judge.return_to {
        Some(template) => exchange.render(template, request),
        None => uri(request).to_owned(),
    };
    let told = [
        (ORIGINAL_URL, &*original),
        (ORIGINAL_METHOD, request.method().as_str()),
        (REDIRECT, &*back),
    ];
    for (name, text) in told {
        match HeaderValue::from_str(text) {
            Ok(value) => drop(headers.insert(name, value)),
            Err(_) => drop(headers.remove(name)),
        }
    }
    let mut question = Request::new(Body::Own(Full::default()));
    *question.method_mut() = judge
        .method
        .clone()
        .unwrap_or_else(|| request.method().clone());
    *question.headers_mut() = headers;
    question
}

/// A header of the service's answer takes the place of the client's; what the client says in it is not believed.
fn take(headers: &mut HeaderMap, verdict: &HeaderMap, name: &HeaderName) {
    headers.remove(name);
    for value in verdict.get_all(name) {
        headers.append(name.clone(), value.clone());
    }
}

fn refusal(
    exchange: &Exchange<'_>,
    judge: &Judge,
    request: &Request<Body>,
    verdict: &Response<Incoming>,
) -> Response<Body> {
    let status = verdict.status();
    let mut refusal = match (&judge.sign_in, status) {
        (Some(sign_in), StatusCode::UNAUTHORIZED) => {
            let to = place(exchange, judge, sign_in, request);
            answer::redirect(StatusCode::FOUND, &to)
        }
        (_, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => answer::plain(status),
        _ => answer::plain(StatusCode::INTERNAL_SERVER_ERROR),
    };
    let passed: &[HeaderName] = match refusal.headers().contains_key(LOCATION) {
        true => &[SET_COOKIE],
        false => &[SET_COOKIE, WWW_AUTHENTICATE],
    };
    for name in passed {
        for value in verdict.headers().get_all(name) {
            refusal.headers_mut().append(name.clone(), value.clone());
        }
    }
    refusal
}

/// Where people sign in, with where they wanted to go, unless the URL says that itself.
fn place(
    exchange: &Exchange<'_>,
    judge: &Judge,
    sign_in: &Template,
    request: &Request<Body>,
) -> String {
    let to = exchange.render(sign_in, request);
    let parameter = &judge.return_parameter;
    let query = to.split_once('?').map(|(_, query)| query);
    let has = |query: &str| {
        query
            .split('&')
            .any(|pair| pair.split('=').next() == Some(parameter))
    };
    if query.is_some_and(has) {
        return to;
    }
    let Ok(back) = Template::parse("$scheme://$http_host$request_uri") else {
        return to;
    };
    let escaped: String = exchange
        .render(&back, request)
        .bytes()
        .map(escaped)
        .collect();
    let sign = match query {
        None => '?',
        Some(_) => '&',
    };
    format!("{to}{sign}{parameter}={escaped}")
}

fn escaped(byte: u8) -> String {
    match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    }
}
