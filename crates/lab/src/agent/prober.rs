//! One try of a probe, from the node towards the pod (exec: inside the pod), with the kubelet's words for what failed.

use std::io::Read;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

use crate::exec::{Outcome, Program, ask};
use crate::shim::protocol::Question;

/// The kubelet shows no more of a probe's output.
const OUTPUT_MAX: usize = 10 * 1024;

/// How long to wait for the rest of a command's output after its end.
const OUTPUT_WAIT: Duration = Duration::from_secs(1);

/// Where a try goes.
#[derive(Debug, Clone)]
pub struct Target {
    /// The pod's directory, for its shim.
    pub pod: std::path::PathBuf,
    /// The pod's first address.
    pub ip: IpAddr,
    /// The container.
    pub container: Container,
}

/// Tries once. The error is what goes into the event.
pub async fn attempt(probe: &Probe, target: &Target, timeout: Duration) -> Result<(), String> {
    if let Some(http) = &probe.http_get {
        return http_get(http, target, timeout).await;
    }
    if let Some(tcp) = &probe.tcp_socket {
        let port = port(&tcp.port, &target.container)?;
        let host = tcp.host.clone().unwrap_or_else(|| target.ip.to_string());
        return connect(&host, port, timeout).await.map(drop);
    }
    if let Some(exec) = &probe.exec {
        return run(exec, target, timeout).await;
    }
    Err("the lab has httpGet, tcpSocket and exec probes".into())
}

/// The number of a port that may be a name of the container's ports.
pub fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let ports = container.ports.iter().flatten();
            let named = ports
                .into_iter()
                .find(|port| port.name.as_deref() == Some(name))
                .map(|port| port.container_port);
            named.map_or_else(|| name.parse().ok(), |number| u16::try_from(number).ok())
        }
    };
    number
        .filter(|number| *number != 0)
        .ok_or_else(|| match port {
            IntOrString::Int(number) => format!("invalid port number: {number}"),
            IntOrString::String(name) => format!("couldn't find port: {name:?}"),
        })
}

/// A GET request to the container; lifecycle hooks use it too.
pub async fn http_get(
    http: &HTTPGetAction,
    target: &Target,
    timeout: Duration,
) -> Result<(), String> {
    let port = port(&http.port, &target.container)?;
    let scheme = http.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    if scheme != "http" {
        return Err(format!("the lab's probes speak HTTP, not {scheme}"));
    }
    let host = http.host.clone().unwrap_or_else(|| target.ip.to_string());
    let path = http
        .path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    let path = if path.starts_with('/') {
        path.to_string()
    } else {
        format!("/{path}")
    };
    let authority = authority(&host, port);
    let url = format!("http://{authority}{path}");
    let tried =
        tokio::time::timeout(timeout, get(http, &host, port, &authority, &path, timeout)).await;
    match tried {
        Ok(Ok(status)) if (200..400).contains(&status) => Ok(()),
        Ok(Ok(status)) => Err(format!("HTTP probe failed with statuscode: {status}")),
        Ok(Err(why)) => Err(format!("Get {url:?}: {why}")),
        Err(_) => Err(format!(
            "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

async fn get(
    http: &HTTPGetAction,
    host: &str,
    port: u16,
    authority: &str,
    path: &str,
    timeout: Duration,
) -> Result<u16, String> {
    let stream = connect(host, port, timeout).await?;
    let mut request = http::Request::get(path);
    let mut headers = vec![
        ("User-Agent".to_string(), "kube-probe/1.35".to_string()),
        ("Accept".to_string(), "*/*".to_string()),
        ("Connection".to_string(), "close".to_string()),
    ];
    let own: Vec<_> = http
        .http_headers
        .iter()
        .flatten()
        .map(|h| (h.name.clone(), h.value.clone()))
        .collect();
    headers.retain(|(name, _)| {
        !own.iter()
            .any(|(other, _)| other.eq_ignore_ascii_case(name))
    });
    if !own
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        headers.push(("Host".to_string(), authority.to_string()));
    }
    for (name, value) in headers.into_iter().chain(own) {
        request = request.header(name, value);
    }
    let request = request
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|e| e.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    // The connection ends with the exchange; it is driven beside it and not waited for.
    let exchange = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        let _ = response.into_body().frame().await;
        Ok(status)
    };
    let connection = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = exchange => result,
        () = connection => Err("invariant: a connection that is over stays so".into()),
    }
}

async fn connect(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, String> {
    let address = authority(host, port);
    match tokio::time::timeout(timeout, TcpStream::connect(&address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("dial tcp {address}: connect: {}", go_words(&error))),
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The words of Go programs, which people search for: no capital, no number.
fn go_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_lowercase().chain(chars).collect())
        .unwrap_or_default()
}

/// Runs a command inside the container; lifecycle hooks use it too.
pub async fn run(exec: &ExecAction, target: &Target, timeout: Duration) -> Result<(), String> {
    let (socket, argv) = (
        target.pod.join("shim.sock"),
        exec.command.clone().unwrap_or_default(),
    );
    let container = target.container.name.clone();
    let work = tokio::task::spawn_blocking(move || run_blocking(&socket, container, argv, timeout));
    match work.await {
        Ok(Ok((0, _))) => Ok(()),
        Ok(Ok((TIMED_OUT, _))) => Err(format!(
            "command timed out: {:?} timed out after {}s",
            exec.command.as_deref().unwrap_or_default().join(" "),
            timeout.as_secs()
        )),
        Ok(Ok((_, output))) => Err(output.trim_end().to_string()),
        Ok(Err(why)) => Err(why),
        Err(error) => Err(error.to_string()),
    }
}

/// The exit code that stands for a command which took too long.
const TIMED_OUT: i32 = i32::MIN;

fn run_blocking(
    socket: &Path,
    container: String,
    argv: Vec<String>,
    timeout: Duration,
) -> Result<(i32, String), String> {
    let text = |e: std::io::Error| e.to_string();
    let (output, write) = std::io::pipe().map_err(text)?;
    let null = std::fs::File::open("/dev/null").map_err(text)?;
    let program = Program {
        argv,
        env: Vec::new(),
        cwd: None,
        tty: false,
        limit_ms: Some(timeout.as_millis() as u64),
    };
    let fds = [null.as_raw_fd(), write.as_raw_fd(), write.as_raw_fd()];
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = output.take(OUTPUT_MAX as u64).read_to_end(&mut bytes);
        // Nobody listens any more when a process in the background has kept the output open.
        let _ = tell.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    let outcome: Outcome =
        ask(socket, &Question::Run { container, program }, &fds).map_err(|e| e.to_string())?;
    drop(write);
    match outcome {
        Outcome::Exited(code) => Ok((code, told.recv_timeout(OUTPUT_WAIT).unwrap_or_default())),
        Outcome::TimedOut => Ok((TIMED_OUT, String::new())),
        Outcome::Failed(why) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_may_be_names() {
        let container: Container = serde_json::from_value(
            serde_json::json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}),
        )
        .unwrap();
        assert_eq!(
            port(&IntOrString::String("web".into()), &container),
            Ok(8080)
        );
        assert_eq!(port(&IntOrString::String("81".into()), &container), Ok(81));
        assert_eq!(
            port(&IntOrString::String("no".into()), &container),
            Err("couldn't find port: \"no\"".into())
        );
        assert_eq!(
            port(&IntOrString::Int(0), &container),
            Err("invalid port number: 0".into())
        );
    }
}
