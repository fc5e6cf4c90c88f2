//! `GET …/pods/NAME/log`: text from the node's agent, over its unix socket.

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, BodyStream, Empty};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::answer::{self, Body};
use super::handle::Call;
use crate::object;
use crate::status::{Failure, bad_request, internal};

/// Parameters that the agent understands.
const PASSED_ON: &[&str] = &[
    "follow",
    "tailLines",
    "previous",
    "timestamps",
    "sinceSeconds",
    "sinceTime",
    "limitBytes",
];

/// What an agent says when it refuses; more is cut off.
const REFUSAL_MAX: usize = 64 * 1024;

/// Passes a log on.
pub(super) async fn answer(call: &Call, pod: &Value) -> Result<Response<Body>, Failure> {
    let name = object::name(pod);
    let node = object::field(pod, "spec.nodeName");
    let container = container(pod, call.query.text("container"))?;
    if node.is_empty() {
        // As the real server: a Pod without a node has no log yet.
        return Ok(answer::text(200, ""));
    }
    let directory = call
        .api
        .kubelet_dir
        .as_ref()
        .ok_or_else(|| internal("this server knows no nodes' sockets"))?;
    let path = node_path(call, object::namespace(pod), name, &container);
    let unreachable =
        |error: &dyn std::fmt::Display| internal(format!("node {node} does not answer: {error}"));
    let stream = UnixStream::connect(directory.join(format!("{node}.sock")))
        .await
        .map_err(|error| unreachable(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unreachable(&error))?;
    // Ends with the answer's body: nothing else uses this connection.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a log stream ended");
        }
    });
    let request = Request::get(path)
        .header(http::header::HOST, "node")
        .body(Empty::<Bytes>::new())
        .map_err(|error| internal(error.to_string()))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| unreachable(&error))?;
    let code = response.status().as_u16();
    if code != 200 {
        let body = http_body_util::Limited::new(response.into_body(), REFUSAL_MAX)
            .collect()
            .await;
        let text = body
            .map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned())
            .unwrap_or_default();
        return Err(match code {
            400 => bad_request(text),
            404 => Failure::new(404, "NotFound", text),
            _ => internal(text),
        });
    }
    let stopping = call.api.stopping.clone();
    let chunks = BodyStream::new(response.into_body())
        .filter_map(|frame| async move {
            match frame {
                Ok(frame) => frame.into_data().ok().map(Ok),
                Err(error) => Some(Err(std::io::Error::other(error))),
            }
        })
        .take_until(async move { stopping.cancelled().await });
    Ok(answer::stream("text/plain", chunks))
}

/// Path and query of the agent's answer to this request.
fn node_path(call: &Call, namespace: &str, pod: &str, container: &str) -> String {
    let mut query = Serializer::new(String::new());
    for name in PASSED_ON {
        let value = call.query.text(name);
        if !value.is_empty() {
            query.append_pair(name, value);
        }
    }
    let part = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    format!(
        "/containerLogs/{}/{}/{}?{}",
        part(namespace),
        part(pod),
        part(container),
        query.finish()
    )
}

/// The container that is meant; a Pod with one container needs no name.
fn container(pod: &Value, asked: &str) -> Result<String, Failure> {
    let names = |list: &str| -> Vec<String> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers
            .filter_map(|container| container["name"].as_str())
            .map(str::to_owned)
            .collect()
    };
    let (containers, init) = (names("containers"), names("initContainers"));
    let pod_name = object::name(pod);
    if !asked.is_empty() {
        return if containers.iter().chain(&init).any(|name| name == asked) {
            Ok(asked.to_owned())
        } else {
            Err(bad_request(format!(
                "container {asked} is not valid for pod {pod_name}"
            )))
        };
    }
    match containers.as_slice() {
        [only] if init.is_empty() => Ok(only.clone()),
        [first, ..] if containers.len() == 1 => Ok(first.clone()),
        _ => {
            let mut message = format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                containers.join(" ")
            );
            if !init.is_empty() {
                message.push_str(&format!(
                    " or one of the init containers: [{}]",
                    init.join(" ")
                ));
            }
            Err(bad_request(message))
        }
    }
}
