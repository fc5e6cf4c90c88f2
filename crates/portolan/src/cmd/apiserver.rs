//! `portolan apiserver`: serves the embedded Kubernetes API until it is told to stop.

mod allocation;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use allocation::ServiceAllocation;
use anyhow::Context;
use ipnet::IpNet;
use portolan_apiserver::auth::write_private;
use portolan_apiserver::{Config, DefaultIngressClass, KubernetesService};
use portolan_controllers::Options;
use portolan_controllers::allocate::Ranges;
use portolan_kernel::inherit;
use tokio::signal::unix::{SignalKind, signal};

/// Arguments of `portolan apiserver`.
#[derive(clap::Args)]
pub struct Args {
    /// Where the store and the certificates are kept.
    #[arg(long)]
    data_dir: PathBuf,
    /// Address to serve on [default: 127.0.0.1:6443, if there is no --listen-fd].
    #[arg(long)]
    listen: Vec<SocketAddr>,
    /// Number of an inherited listening socket to serve on.
    #[arg(long)]
    listen_fd: Vec<RawFd>,
    /// Where to write the administrator's kubeconfig.
    #[arg(long)]
    kubeconfig_out: Option<PathBuf>,
    /// Address in the administrator's kubeconfig [default: the first socket's].
    #[arg(long)]
    server_url: Option<String>,
    /// Directory of the nodes' sockets (NODE.sock), for `kubectl logs`.
    #[arg(long)]
    kubelet_dir: Option<PathBuf>,
    /// Address under which pods reach this server [default: the last socket's].
    #[arg(long)]
    advertise_address: Option<SocketAddr>,
    /// Ranges of the Services' ClusterIPs: one, or one of each family.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "172.30.0.0/16,fd00:172:30::/112"
    )]
    service_cluster_ip_range: Vec<IpNet>,
}

/// Ports that Services of type NodePort get, as in every cluster.
const NODE_PORTS: RangeInclusive<u16> = 30000..=32767;

/// Runs the command until it is done.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    super::logging::start();
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<ExitCode> {
    let listeners = listeners(&args)?;
    let addresses = listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<Vec<_>, _>>()?;
    let advertised = args
        .advertise_address
        .or(addresses.last().copied())
        .context("there is no socket to serve on")?;
    let range = args
        .service_cluster_ip_range
        .first()
        .context("--service-cluster-ip-range is empty")?;
    let ranges = Ranges {
        service_cidrs: args.service_cluster_ip_range.clone(),
        node_ports: NODE_PORTS,
    };
    let allocation = ServiceAllocation::new(&ranges, seed()?);
    let service = KubernetesService {
        cluster_ip: first(range),
        endpoint: advertised.ip(),
        port: advertised.port(),
    };
    let own_kubeconfig = args.data_dir.join("controllers.kubeconfig");
    let server = portolan_apiserver::start(Config {
        data_dir: args.data_dir,
        listeners,
        names_and_addresses: vec![advertised.ip().to_string()],
        kubelet_dir: args.kubelet_dir,
        admission: vec![
            Arc::new(allocation),
            Arc::new(DefaultIngressClass::default()),
        ],
        kubernetes_service: Some(service),
        tokens: Vec::new(),
    })
    .await?;
    let url = args
        .server_url
        .unwrap_or_else(|| format!("https://{}", addresses[0]));
    if let Some(path) = args.kubeconfig_out {
        write_private(
            &path,
            &server.kubeconfig(&url, "admin", &["system:masters"])?,
        )?;
    }
    // The last socket is the one inside the cluster, and this process is there too.
    let own_url = format!(
        "https://{}",
        addresses.last().copied().unwrap_or(advertised)
    );
    write_private(
        &own_kubeconfig,
        &server.kubeconfig(
            &own_url,
            "system:kube-controller-manager",
            &["system:masters"],
        )?,
    )?;
    let client = portolan_k8s::client(Some(&own_kubeconfig)).await?;
    let controllers = tokio::spawn(portolan_controllers::run(client, Options::default()));
    tracing::info!(%url, "serving");
    until_told().await?;
    controllers.abort();
    server.shutdown();
    server.wait().await;
    Ok(ExitCode::SUCCESS)
}

/// Waits for SIGTERM or SIGINT.
async fn until_told() -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn listeners(args: &Args) -> anyhow::Result<Vec<TcpListener>> {
    let mut addresses = args.listen.clone();
    if addresses.is_empty() && args.listen_fd.is_empty() {
        addresses.push(SocketAddr::from(([127, 0, 0, 1], 6443)));
    }
    let mut listeners = Vec::new();
    for address in addresses {
        listeners.push(
            TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?,
        );
    }
    for fd in &args.listen_fd {
        listeners.push(inherit::listener(*fd)?);
    }
    Ok(listeners)
}

/// Where the search for free addresses starts; the time is random enough for that.
fn seed() -> anyhow::Result<u64> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    Ok(since.as_nanos() as u64)
}

/// The first address of a range that a Service can have.
fn first(range: &IpNet) -> IpAddr {
    match range.network() {
        IpAddr::V4(network) => IpAddr::V4((u32::from(network) + 1).into()),
        IpAddr::V6(network) => IpAddr::V6((u128::from(network) + 1).into()),
    }
}
