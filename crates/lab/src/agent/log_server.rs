//! The agent's HTTP server on a unix socket, where the API server fetches logs: the kubelet's own path,
//! `GET /containerLogs/{namespace}/{pod}/{container}?follow=&tailLines=&previous=&timestamps=&sinceSeconds=&limitBytes=`.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::log_read::{self, Query};
use super::shim_client::Shim;
use crate::dir::read_json;
use crate::error::{Error, Result};

/// Chunks of a log that wait for a slow reader.
const CHUNKS_MAX: usize = 16;
/// How many clients are served at once.
const CLIENTS_MAX: usize = 256;

type Body = BoxBody<Bytes, Infallible>;

/// Opens the socket; what an earlier agent has left there is replaced.
pub fn listen(socket: &Path) -> Result<UnixListener> {
    if socket.exists() {
        std::fs::remove_file(socket).map_err(|e| Error::file("remove", socket, e))?;
    }
    UnixListener::bind(socket).map_err(|e| Error::file("listen on", socket, e))
}

/// Serves for ever.
pub async fn serve(listener: UnixListener, pods_dir: PathBuf) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if clients.len() < CLIENTS_MAX => {
                let Ok((stream, _)) = accepted else { continue };
                let pods_dir = pods_dir.clone();
                clients.spawn(async move {
                    let service = service_fn(|request| {
                        let pods_dir = pods_dir.clone();
                        async move { Ok::<_, Infallible>(answer(&pods_dir, &request)) }
                    });
                    // A client that goes away in the middle is its own business.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = clients.join_next() => {}
        }
    }
}

fn answer(pods_dir: &Path, request: &Request<Incoming>) -> Response<Body> {
    let parts: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    match parts[..] {
        ["containerLogs", namespace, pod, container] => {
            let query = match Query::parse(request.uri().query().unwrap_or_default()) {
                Ok(query) => query,
                Err(why) => return text(StatusCode::BAD_REQUEST, why),
            };
            logs(pods_dir, (namespace, pod, container), query)
        }
        ["healthz"] => text(StatusCode::OK, "ok".into()),
        _ => text(StatusCode::NOT_FOUND, "404 page not found".into()),
    }
}

fn logs(
    pods_dir: &Path,
    (namespace, name, container): (&str, &str, &str),
    query: Query,
) -> Response<Body> {
    let Some((directory, pod)) = find(pods_dir, namespace, name) else {
        return text(
            StatusCode::NOT_FOUND,
            format!("pod \"{namespace}/{name}\" not found\n"),
        );
    };
    let spec = pod.spec.unwrap_or_default();
    let mut all = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    if !all.any(|known| known.name == container) {
        return text(
            StatusCode::BAD_REQUEST,
            format!("container {container} is not valid for pod {name}"),
        );
    }
    let Some(attempt) = log_read::newest_attempt(&directory, container) else {
        let why = format!(
            "container \"{container}\" in pod \"{name}\" is waiting to start: ContainerCreating"
        );
        return text(StatusCode::BAD_REQUEST, why);
    };
    let attempt = match (query.previous, attempt) {
        (false, attempt) => attempt,
        (true, 1..) if log_read::exists(&directory, container, attempt - 1) => attempt - 1,
        (true, _) => {
            let why = format!(
                "previous terminated container \"{container}\" in pod \"{name}\" not found"
            );
            return text(StatusCode::BAD_REQUEST, why);
        }
    };
    let (send, mut chunks) = mpsc::channel(CHUNKS_MAX);
    let (container, over) = (container.to_string(), CancellationToken::new());
    let stop = over.clone();
    tokio::spawn(async move {
        let reading = log_read::read(&directory, &container, attempt, &query, stop, send.clone());
        let ending = async {
            if query.follow {
                end_of_run(&directory, &container, attempt).await;
            } else {
                std::future::pending::<()>().await;
            }
            over.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = reading => {}
            () = ending => {}
            () = send.closed() => {}
        }
    });
    let chunks = futures::stream::poll_fn(move |context| chunks.poll_recv(context));
    let body = StreamBody::new(chunks.map(|chunk: Bytes| Ok::<_, Infallible>(Frame::data(chunk))));
    let mut response = Response::new(BodyExt::boxed(body));
    response
        .headers_mut()
        .insert("content-type", http::HeaderValue::from_static("text/plain"));
    response
}

/// Waits until a run of a container has ended.
async fn end_of_run(directory: &Path, container: &str, attempt: u32) {
    if let Some(shim) = Shim::connect(directory).await {
        shim.wait_end(container, attempt).await;
    }
}

/// The directory of a pod, by its name.
fn find(pods_dir: &Path, namespace: &str, name: &str) -> Option<(PathBuf, Pod)> {
    let entries = std::fs::read_dir(pods_dir).ok()?.flatten();
    let pods = entries.filter_map(|entry| {
        Some((
            entry.path(),
            read_json::<Pod>(&entry.path().join("pod.json")).ok()?,
        ))
    });
    let mut pods = pods.filter(|(_, pod)| {
        pod.metadata.name.as_deref() == Some(name)
            && pod.metadata.namespace.as_deref() == Some(namespace)
    });
    pods.next()
}

fn text(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Full::from(body).boxed());
    *response.status_mut() = status;
    response
}
