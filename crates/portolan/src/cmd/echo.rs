//! `portolan echo`: the server that example pods run. It says who it is and whom it saw, over HTTP, TCP and UDP,
//! and can be told to be slow, unready or to hang. It ends as a good server should: first it fails its readiness,
//! then it goes on serving for the drain time, then it finishes the requests that are running.

mod http;
mod lines;
mod state;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use state::{Identity, State};

/// How long running requests may take after the drain time before the server ends anyway.
const FINISH_MAX: Duration = Duration::from_secs(30);

/// Arguments of `portolan echo`.
#[derive(clap::Args)]
pub struct Args {
    /// Serve HTTP on this port; 0 for no HTTP.
    #[arg(long, default_value_t = 8080)]
    http: u16,
    /// Answer each line on this TCP port (may be repeated).
    #[arg(long)]
    tcp: Vec<u16>,
    /// Answer each datagram on this UDP port (may be repeated).
    #[arg(long)]
    udp: Vec<u16>,
    /// Wait this long before each HTTP answer, in milliseconds.
    #[arg(long, default_value_t = 0)]
    delay: u64,
    /// Fail readiness after this many seconds.
    #[arg(long)]
    unready_after: Option<u64>,
    /// Fail readiness while this file exists.
    #[arg(long)]
    unready_file: Option<PathBuf>,
    /// Accept connections but never answer.
    #[arg(long)]
    hang: bool,
    /// The name to answer with [default: $POD_NAME, or the host name].
    #[arg(long)]
    name: Option<String>,
    /// After SIGTERM, fail readiness and keep serving for this many seconds.
    #[arg(long, default_value_t = 3)]
    drain: u64,
    /// Print nothing; otherwise each request is one line on standard output.
    #[arg(long)]
    quiet: bool,
}

/// Serves until SIGTERM.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ports = describe_ports(&args);
    let state = Arc::new(State::new(
        Identity::from_env(args.name),
        args.delay,
        args.hang,
        args.unready_file,
        args.quiet,
    ));
    let stop = CancellationToken::new();
    let mut servers = JoinSet::new();
    if args.http != 0 {
        let listener = tokio::net::TcpListener::from_std(listen(Type::STREAM, args.http)?.into())?;
        servers.spawn(http::serve(listener, state.clone(), stop.clone()));
    }
    for port in args.tcp {
        let listener = tokio::net::TcpListener::from_std(listen(Type::STREAM, port)?.into())?;
        servers.spawn(lines::serve_tcp(listener, state.clone(), stop.clone()));
    }
    for port in args.udp {
        let socket = tokio::net::UdpSocket::from_std(listen(Type::DGRAM, port)?.into())?;
        servers.spawn(lines::serve_udp(socket, state.clone(), stop.clone()));
    }
    state.tell(format_args!(
        "{} is ready, listening on{ports}",
        state.identity.name
    ));
    let unready = async {
        match args.unready_after {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
        state.set_ready(false);
        std::future::pending::<()>().await
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = unready => {}
    }
    state.tell(format_args!(
        "told to end: not ready any more, serving for {} s",
        args.drain
    ));
    state.begin_termination();
    tokio::time::sleep(Duration::from_secs(args.drain)).await;
    stop.cancel();
    let finished = async { while servers.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(FINISH_MAX, finished).await;
    Ok(ExitCode::SUCCESS)
}

/// " http:8080 udp:9090".
fn describe_ports(args: &Args) -> String {
    let http = Some(args.http)
        .filter(|port| *port != 0)
        .map(|port| ("http", port));
    let others = args
        .tcp
        .iter()
        .map(|port| ("tcp", *port))
        .chain(args.udp.iter().map(|port| ("udp", *port)));
    http.into_iter()
        .chain(others)
        .map(|(what, port)| format!(" {what}:{port}"))
        .collect()
}

/// A socket on every address of both families, or of IPv4 where the kernel has no IPv6.
fn listen(kind: Type, port: u16) -> anyhow::Result<Socket> {
    let open = |domain, address: SocketAddr| -> std::io::Result<Socket> {
        let protocol = if kind == Type::DGRAM {
            Protocol::UDP
        } else {
            Protocol::TCP
        };
        let socket = Socket::new(domain, kind, Some(protocol))?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        if kind == Type::STREAM {
            socket.listen(1024)?;
        }
        Ok(socket)
    };
    open(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into())
        .or_else(|_| open(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into()))
        .with_context(|| format!("listen on port {port}"))
}
