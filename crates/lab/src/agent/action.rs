//! What a probe or a lifecycle hook does: one HTTP request, one connection, or one program in the container.
//! Requests go from the node to the pod's address, and their failures are told in the kubelet's words.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{
    Container, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

use super::shim_client::{Ran, Shim};

/// A resolved action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// GET; 200 to 399 is success.
    Http {
        /// Where to connect.
        to: SocketAddr,
        /// With query.
        path: String,
        /// Name and value.
        headers: Vec<(String, String)>,
    },
    /// A connection; success when it is accepted.
    Tcp(SocketAddr),
    /// A program; success when it ends with 0.
    Exec(Vec<String>),
    /// Waiting; always succeeds.
    Sleep(Duration),
}

impl Action {
    /// The action of a probe.
    pub fn of_probe(
        probe: &Probe,
        container: &Container,
        pod_ip: IpAddr,
    ) -> Result<Action, String> {
        if probe.grpc.is_some() {
            return Err("the lab has no gRPC probes".into());
        }
        let exec = probe.exec.as_ref().and_then(|exec| exec.command.clone());
        resolve(
            exec,
            probe.http_get.as_ref(),
            probe.tcp_socket.as_ref(),
            container,
            pod_ip,
        )
    }

    /// The action of a lifecycle hook.
    pub fn of_hook(
        hook: &LifecycleHandler,
        container: &Container,
        pod_ip: IpAddr,
    ) -> Result<Action, String> {
        if let Some(sleep) = &hook.sleep {
            let seconds = u64::try_from(sleep.seconds).unwrap_or_default();
            return Ok(Action::Sleep(Duration::from_secs(seconds)));
        }
        let exec = hook.exec.as_ref().and_then(|exec| exec.command.clone());
        resolve(
            exec,
            hook.http_get.as_ref(),
            hook.tcp_socket.as_ref(),
            container,
            pod_ip,
        )
    }

    /// Does it, for at most `limit`; what went wrong otherwise.
    pub async fn perform(
        &self,
        shim: &Shim,
        container: &str,
        limit: Duration,
    ) -> Result<(), String> {
        match self {
            Action::Http { to, path, headers } => {
                let url = format!("http://{to}{path}");
                match tokio::time::timeout(limit, get(*to, path, headers)).await {
                    Ok(result) => result.map_err(|why| match why {
                        Failure::Status(code) => {
                            format!("HTTP probe failed with statuscode: {code}")
                        }
                        Failure::Io(why) => format!("Get {url:?}: {why}"),
                    }),
                    Err(_) => Err(format!(
                        "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                    )),
                }
            }
            Action::Tcp(to) => match tokio::time::timeout(limit, TcpStream::connect(to)).await {
                Ok(result) => result.map(drop).map_err(|e| dial(*to, &e)),
                Err(_) => Err(format!("dial tcp {to}: i/o timeout")),
            },
            Action::Exec(argv) => match shim.run(container, argv.clone(), limit).await {
                Ran::Ended(0, _) => Ok(()),
                Ran::Ended(code, said) if said.trim().is_empty() => {
                    Err(format!("command {argv:?} ended with exit code {code}"))
                }
                Ran::Ended(_, said) => Err(said),
                Ran::TimedOut => Err(format!(
                    "command timed out: {argv:?} timed out after {limit:?}"
                )),
                Ran::Failed(why) => Err(why),
            },
            Action::Sleep(time) => {
                tokio::time::sleep(*time).await;
                Ok(())
            }
        }
    }
}

fn resolve(
    exec: Option<Vec<String>>,
    http: Option<&HTTPGetAction>,
    tcp: Option<&TCPSocketAction>,
    container: &Container,
    pod_ip: IpAddr,
) -> Result<Action, String> {
    let address = |host: Option<&str>, port: &IntOrString| -> Result<SocketAddr, String> {
        let ip = match host.filter(|host| !host.is_empty()) {
            None => pod_ip,
            Some("localhost") => IpAddr::from([127, 0, 0, 1]),
            Some(host) => host
                .parse()
                .map_err(|_| format!("the lab probes addresses, not names: {host:?}"))?,
        };
        Ok(SocketAddr::new(ip, port_number(port, container)?))
    };
    if let Some(command) = exec {
        return Ok(Action::Exec(command));
    }
    if let Some(http) = http {
        if http
            .scheme
            .as_deref()
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
        {
            return Err("the lab has no HTTPS probes".into());
        }
        let headers = http.http_headers.iter().flatten();
        let path = http.path.as_deref().unwrap_or("/");
        let slash = if path.starts_with('/') { "" } else { "/" };
        return Ok(Action::Http {
            to: address(http.host.as_deref(), &http.port)?,
            path: format!("{slash}{path}"),
            headers: headers
                .map(|header| (header.name.clone(), header.value.clone()))
                .collect(),
        });
    }
    match tcp {
        Some(tcp) => Ok(Action::Tcp(address(tcp.host.as_deref(), &tcp.port)?)),
        None => Err("missing probe handler".into()),
    }
}

fn port_number(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_ref() == Some(name));
            match named {
                Some(port) => port.container_port,
                None => name
                    .parse()
                    .map_err(|_| format!("couldn't find port: {name}"))?,
            }
        }
    };
    let valid = u16::try_from(number).ok().filter(|number| *number > 0);
    valid.ok_or_else(|| format!("invalid port number: {number}"))
}

enum Failure {
    Status(u16),
    Io(String),
}

async fn get(to: SocketAddr, path: &str, headers: &[(String, String)]) -> Result<(), Failure> {
    let io = |e: hyper::Error| Failure::Io(e.to_string());
    let stream = TcpStream::connect(to)
        .await
        .map_err(|e| Failure::Io(dial(to, &e)))?;
    let mut request = http::Request::get(path)
        .header("Connection", "close")
        .header("Accept", "*/*");
    let given = |name: &str| {
        headers
            .iter()
            .any(|(known, _)| known.eq_ignore_ascii_case(name))
    };
    if !given("Host") {
        request = request.header("Host", to.to_string());
    }
    if !given("User-Agent") {
        request = request.header("User-Agent", "kube-probe/1.35");
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|e| Failure::Io(e.to_string()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io)?;
    let mut response = std::pin::pin!(sender.send_request(request));
    // The connection is driven by this task and ends with it. When it ends first, the answer is there already.
    let response = tokio::select! {
        response = &mut response => response,
        _ = connection => response.await,
    };
    let response = response.map_err(io)?;
    match response.status().as_u16() {
        200..=399 => Ok(()),
        code => Err(Failure::Status(code)),
    }
}

fn dial(to: SocketAddr, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_string(),
        io::ErrorKind::HostUnreachable => "no route to host".to_string(),
        _ => error.to_string(),
    };
    format!("dial tcp {to}: connect: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn probe(probe: serde_json::Value) -> Result<Action, String> {
        let container = json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]});
        Action::of_probe(
            &serde_json::from_value(probe).unwrap(),
            &serde_json::from_value(container).unwrap(),
            "fd00:10:1::2".parse().unwrap(),
        )
    }

    #[test]
    fn ports_have_names_and_hosts_default_to_the_pod() {
        let got = probe(
            json!({"httpGet": {"port": "web", "path": "healthz?x=1", "httpHeaders": [{"name": "A", "value": "b"}]}}),
        );
        let want = Action::Http {
            to: "[fd00:10:1::2]:8080".parse().unwrap(),
            path: "/healthz?x=1".into(),
            headers: vec![("A".into(), "b".into())],
        };
        assert_eq!(got, Ok(want));
        let got = probe(json!({"tcpSocket": {"port": 53, "host": "192.0.2.1"}}));
        assert_eq!(got, Ok(Action::Tcp("192.0.2.1:53".parse().unwrap())));
    }

    #[test]
    fn what_cannot_be_probed_is_said() {
        let cases = [
            (json!({"httpGet": {"port": "db"}}), "couldn't find port: db"),
            (json!({"tcpSocket": {"port": 0}}), "invalid port number: 0"),
            (
                json!({"httpGet": {"port": 1, "scheme": "HTTPS"}}),
                "the lab has no HTTPS probes",
            ),
            (json!({"grpc": {"port": 1}}), "the lab has no gRPC probes"),
            (json!({}), "missing probe handler"),
        ];
        for (given, want) in cases {
            assert_eq!(probe(given).unwrap_err(), want);
        }
    }
}
