//! `portolan gateway`: the HTTP front door, by the Ingresses of any Kubernetes API.
//!
//! ```text
//!   gateway::follow ──Followed──▶ server (its own threads) · status of Ingresses · Problems: log lines and Events
//! ```

mod check;
mod handover;
mod pages;
mod routes;
mod tell;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use ipnet::IpNet;
use kube::Client;
use portolan_gateway::ingress::{CONTROLLER, Options};
use portolan_gateway::server::{
    AccessLog, Config, Format, FormatError, Identity, Server, Settings,
};
use portolan_gateway::{Followed, ObjectName, World, follow};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::proxy::trims::Trims;
use handover::{Role, Taken};

/// When somebody else has our sockets, clients have so long to hear with an answer that they shall connect anew, before
/// connections that are idle are closed.
const REST: Duration = Duration::from_secs(5);

/// Arguments of `portolan gateway`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    task: Option<Task>,
    /// Kubeconfig file [default: $KUBECONFIG, ~/.kube/config, or the pod that we run in].
    #[arg(long, global = true)]
    kubeconfig: Option<PathBuf>,
    /// Address of the API, instead of the kubeconfig's.
    #[arg(long, global = true)]
    master: Option<String>,
    /// Serve HTTP at this address (may be repeated).
    #[arg(long, default_values = ["0.0.0.0:80", "[::]:80"])]
    http: Vec<SocketAddr>,
    /// Serve HTTPS at this address (may be repeated).
    #[arg(long, default_values = ["0.0.0.0:443", "[::]:443"])]
    https: Vec<SocketAddr>,
    /// Serve HTTP/3 as well, by UDP at the addresses of --https, and tell clients of HTTPS so.
    #[arg(long)]
    http3: bool,
    /// The port that clients reach HTTPS and HTTP/3 at, for redirects and Alt-Svc.
    #[arg(long, default_value_t = 443)]
    https_port: u16,
    /// Connections from these addresses begin with a header of the PROXY protocol (may be repeated).
    #[arg(long, value_name = "CIDR")]
    proxy_protocol_from: Vec<IpNet>,
    /// Believe what requests from these addresses say in X-Forwarded-For and its like (may be repeated).
    #[arg(long, value_name = "CIDR")]
    trusted_proxy: Vec<IpNet>,
    /// Serve /metrics, /routes, /healthz and /readyz for operators at this address [default: nowhere].
    #[arg(long)]
    metrics_address: Option<SocketAddr>,
    /// Write a line for each request to the standard output: json, nginx (as ingress-nginx does), or a template with
    /// nginx' variables.
    #[arg(long, value_name = "FORMAT", default_value = "off", value_parser = access_log)]
    access_log: Logged,
    /// On SIGTERM, go on serving for so many seconds while /readyz says 503, so that load balancers look elsewhere.
    #[arg(long, default_value_t = 0)]
    lameduck_seconds: u64,
    /// When it stops, requests and upgraded connections that are under way have so many seconds.
    #[arg(long, default_value_t = 30)]
    drain_seconds: u64,
    /// Take the sockets over from the gateway that runs with the same path, which ends then without losing a connection.
    #[arg(long, value_name = "PATH")]
    handover_socket: Option<PathBuf>,
    /// Threads that serve [default: one for each processor].
    #[arg(long)]
    threads: Option<usize>,
    /// Write this address or name into the status of Ingresses that are served (may be repeated).
    #[arg(long)]
    status_address: Vec<String>,
    /// IngressClasses with this spec.controller are ours.
    #[arg(long, global = true, default_value = CONTROLLER)]
    controller: String,
    /// Values of the old annotation kubernetes.io/ingress.class that are ours (may be repeated).
    #[arg(long, global = true, default_values = ["portolan"])]
    ingress_class: Vec<String>,
    /// Serve Ingresses without any class, too.
    #[arg(long, global = true)]
    watch_ingress_without_class: bool,
    /// A Service for requests that nothing else is there for, as NAMESPACE/NAME:PORT.
    #[arg(long, global = true, value_parser = service)]
    default_backend: Option<(ObjectName, String)>,
    /// Do as ingress-nginx did where the specification says otherwise, or nothing: expressions, slashes, limits.
    #[arg(long, global = true)]
    ingress_nginx_compatible: bool,
    /// A ConfigMap with keys of ingress-nginx, as NAMESPACE/NAME.
    #[arg(long, global = true, value_parser = object)]
    config_map: Option<ObjectName>,
}

#[derive(clap::Subcommand)]
enum Task {
    /// Print the routes that a gateway with these options serves by now, and what is wrong with Ingresses.
    Routes {
        /// Ask the running gateway whose --metrics-address this is, instead of the API: routes with their hits.
        #[arg(long, value_name = "ADDRESS")]
        of: Option<SocketAddr>,
    },
    /// Say what becomes of manifests that were made for ingress-nginx, annotation by annotation; nothing is asked of
    /// an API. Fails when something is refused.
    Check(check::Args),
}

/// Reads `NAMESPACE/NAME:PORT`.
fn service(text: &str) -> Result<(ObjectName, String), String> {
    let parts = text.split_once('/').and_then(|(namespace, rest)| {
        let (name, port) = rest.split_once(':')?;
        let whole = [namespace, name, port].iter().all(|part| !part.is_empty());
        whole.then(|| (ObjectName::new(namespace, name), port.to_owned()))
    });
    parts.ok_or_else(|| {
        "write NAMESPACE/NAME:PORT, with the name or the number of a port".to_owned()
    })
}

/// What the access log says of requests, if anything.
#[derive(Clone)]
struct Logged(Option<Box<Format>>);

/// Reads the format of the access log; `None` for no log.
fn access_log(text: &str) -> Result<Logged, FormatError> {
    match text {
        "off" => Ok(Logged(None)),
        text => Format::parse(text).map(|format| Logged(Some(Box::new(format)))),
    }
}

/// Reads `NAMESPACE/NAME`.
fn object(text: &str) -> Result<ObjectName, String> {
    let parts = text.split_once('/').filter(|(namespace, name)| {
        !namespace.is_empty() && !name.is_empty() && !name.contains('/')
    });
    let name = parts.map(|(namespace, name)| ObjectName::new(namespace, name));
    name.ok_or_else(|| "write NAMESPACE/NAME".to_owned())
}

impl Args {
    fn settings(&self) -> anyhow::Result<Settings> {
        let log = self.access_log.0.clone();
        let log = log.map(|format| AccessLog::start(*format, std::io::stdout()));
        Ok(Settings {
            access_log: log.transpose().context("cannot start the access log")?,
            drain_timeout: Duration::from_secs(self.drain_seconds),
            https_port: self.https_port,
            http3_port: self.http3.then_some(self.https_port),
            announcers: self.proxy_protocol_from.clone(),
            trusted_proxies: self.trusted_proxy.clone(),
            ..Settings::default()
        })
    }

    /// Gives the sockets to whoever asks for them, where that is wanted.
    fn give(
        &self,
        server: &Server,
        pages: Option<&TcpListener>,
    ) -> anyhow::Result<Option<oneshot::Receiver<()>>> {
        let Some(path) = &self.handover_socket else {
            return Ok(None);
        };
        let sockets = server.sockets()?.into_iter();
        let role = |is_tls| if is_tls { Role::Https } else { Role::Http };
        let mut sockets: Vec<_> = sockets.map(|(socket, tls)| (role(tls), socket)).collect();
        if let Some(pages) = pages {
            sockets.push((Role::Pages, pages.try_clone()?));
        }
        handover::give(path.clone(), sockets).map(Some)
    }

    /// Where and how to serve, with the sockets that were taken over.
    fn config(&self, mut taken: Option<&mut Taken>) -> anyhow::Result<Config> {
        let threads = self.threads;
        let mut sockets = Vec::new();
        for (role, is_tls) in [(Role::Http, false), (Role::Https, true)] {
            let these = taken.as_mut().map(|taken| taken.take(role));
            let these = these.into_iter().flatten();
            sockets.extend(these.map(|socket| (socket, is_tls)));
        }
        Ok(Config {
            http: self.http.clone(),
            https: self.https.clone(),
            http3: if self.http3 {
                self.https.clone()
            } else {
                Vec::new()
            },
            threads: threads
                .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
            settings: self.settings()?,
            sockets,
        })
    }

    /// The socket for operators: that of the gateway before, if it is at the same address.
    fn pages(&self, taken: Option<&mut Taken>) -> anyhow::Result<Option<TcpListener>> {
        let Some(address) = self.metrics_address else {
            return Ok(None);
        };
        let taken = taken.map(|taken| taken.take(Role::Pages));
        let mut taken = taken.into_iter().flatten();
        let same = taken.find(|socket| socket.local_addr().is_ok_and(|at| at == address));
        same.map_or_else(|| pages::listen(address), Ok).map(Some)
    }

    fn options(&self) -> Options {
        Options {
            controller: self.controller.clone(),
            class_names: self.ingress_class.clone(),
            without_class: self.watch_ingress_without_class,
            default_backend: self.default_backend.clone(),
            is_compatible: self.ingress_nginx_compatible,
            config: self.config_map.clone(),
        }
    }
}

/// Serves until SIGTERM, or prints the routes.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(Task::Check(check)) = &args.task {
        portolan_kernel::process::end_with_broken_pipe();
        return check::run(check, args.options());
    }
    crate::cmd::logging::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        match args.task {
            Some(Task::Routes { of: Some(of) }) => routes::ask(of)?,
            Some(Task::Routes { of: None }) => routes::print(&args).await?,
            _ => serve(args).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The objects of the API, followed until the receiver is gone.
async fn followed(
    args: &Args,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<(Client, watch::Receiver<Option<Followed>>)> {
    let client =
        portolan_k8s::client_at(args.kubeconfig.as_deref(), args.master.as_deref()).await?;
    let other = Identity::self_signed()
        .map_err(anyhow::Error::msg)
        .context("cannot make a certificate")?;
    let world = World::new(args.options(), other);
    let (publish, followed) = watch::channel(None);
    tasks.spawn(follow(client.clone(), world, publish));
    Ok((client, followed))
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    };
    let mut taken = match &args.handover_socket {
        Some(path) => handover::take(path)?,
        None => None,
    };
    let config = args.config(taken.as_mut())?;
    let listener = args.pages(taken.as_mut())?;
    let mut tasks = JoinSet::new();
    let (client, mut followed) = followed(&args, &mut tasks).await?;
    let state = pages::State::new(followed.clone());
    let copy = listener.as_ref().map(TcpListener::try_clone).transpose()?;
    let mut pages = None;
    // As long as another gateway serves, it answers operators, too.
    if taken.is_none() {
        pages = listener.map(|listener| tokio::spawn(pages::serve(listener, state.clone())));
    }
    // Before everything has been listed, 404 would not be true: whoever asks then finds nobody, and asks another gateway.
    let first = tokio::select! {
        first = followed.wait_for(Option::is_some) => first.map(|first| first.clone()),
        _ = signals.terminate.recv() => return Ok(()),
        _ = signals.interrupt.recv() => return Ok(()),
    };
    let first = first.context("nothing follows the API any more")?;
    let live = first.map(|first| first.live).unwrap_or_default();
    let routes = live.table.routes();
    let server = Server::start_with(config, live)?;
    tracing::info!(http = ?server.http(), https = ?server.https(), http3 = ?server.http3(), "the gateway serves");
    let mut told = followed.clone();
    told.mark_changed();
    tasks.spawn(tell::tell(client, told, args.status_address.clone()));
    state.serve(server.observer());
    let given = args.give(&server, copy.as_ref())?;
    if let Some(taken) = taken {
        pages = copy.map(|listener| tokio::spawn(pages::serve(listener, state.clone())));
        let ready = taken.ready();
        ready.context("the gateway whose sockets these are does not go")?;
        tracing::info!("the sockets are taken over");
    }
    let mut running = Running {
        server,
        state,
        pages,
        given,
        trims: Trims::default(),
        begun: Instant::now(),
    };
    running.compiled(routes);
    let lameduck = Duration::from_secs(args.lameduck_seconds);
    let result = running.until_told(signals, followed, lameduck).await;
    tasks.shutdown().await;
    running.stop().await?;
    result
}

/// Who may end the gateway.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// A gateway that serves.
struct Running {
    server: Server,
    state: pages::State,
    pages: Option<JoinHandle<()>>,
    /// Hears when another gateway serves at our sockets.
    given: Option<oneshot::Receiver<()>>,
    /// When memory is given back that reading and compiling have left behind.
    trims: Trims,
    begun: Instant,
}

impl Running {
    /// Serves by what is followed, until it is time to stop.
    async fn until_told(
        &mut self,
        mut signals: Signals,
        mut followed: watch::Receiver<Option<Followed>>,
        lameduck: Duration,
    ) -> anyhow::Result<()> {
        let mut leaves_at = None;
        loop {
            tokio::select! {
                changed = followed.changed() => {
                    changed.context("nothing follows the API any more")?;
                    if let Some(followed) = &*followed.borrow_and_update() {
                        self.compiled(followed.live.table.routes());
                        self.server.swap(followed.live.clone());
                    }
                }
                () = until(self.trims.due().map(|due| self.begun + due)) => self.trim(),
                // The second one is in a hurry.
                _ = signals.terminate.recv() => match leaves_at {
                    Some(_) => return Ok(()),
                    None => {
                        tracing::info!(?lameduck, "the gateway is about to stop");
                        self.state.leave();
                        self.server.leave();
                        leaves_at = Some(Instant::now() + lameduck);
                    }
                },
                is_served = taken_over(&mut self.given) => {
                    self.given = None;
                    if is_served {
                        tracing::info!("another gateway serves at these sockets");
                        self.rest();
                        leaves_at = Some(Instant::now() + REST);
                    }
                }
                () = until(leaves_at) => return Ok(()),
                _ = signals.interrupt.recv() => return Ok(()),
            }
        }
    }

    /// So many routes were compiled.
    fn compiled(&mut self, routes: usize) {
        self.trims.on_step(self.begun.elapsed(), routes);
    }

    fn trim(&mut self) {
        if self.trims.step(self.begun.elapsed()) {
            portolan_kernel::memory::trim();
            portolan_kernel::memory::unmap_text();
        }
    }

    fn rest(&mut self) {
        self.state.leave();
        if let Some(pages) = self.pages.take() {
            pages.abort();
        }
        self.server.rest();
    }

    /// Waits for what is under way; operators see it meanwhile.
    async fn stop(self) -> anyhow::Result<()> {
        self.state.leave();
        let server = self.server;
        let stopped = tokio::task::spawn_blocking(|| server.stop()).await;
        if let Some(pages) = self.pages {
            pages.abort();
        }
        stopped.context("the gateway has not stopped as it should")
    }
}

/// Ends when another gateway serves at our sockets (true), or none ever will (false).
async fn taken_over(given: &mut Option<oneshot::Receiver<()>>) -> bool {
    match given {
        Some(given) => given.await.is_ok(),
        None => std::future::pending().await,
    }
}

/// Ends at a time, or never.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_backends_are_whole() {
        let read = service("shop/web:http").unwrap();
        assert_eq!(read, (ObjectName::new("shop", "web"), "http".to_owned()));
        for wrong in ["web:80", "shop/web", "/web:80", "shop/:80", "shop/web:"] {
            assert!(service(wrong).is_err(), "{wrong}");
        }
    }
}
