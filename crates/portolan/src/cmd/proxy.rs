//! `portolan proxy`: the Service data plane of this node, in kube-proxy's place.
//!
//! ```text
//!   reflect::run ──Reflection──▶ ejection: the same without endpoints that do not answer
//!                                   ▼
//!                                sync thread: model::sync ──▶ the mode's target in this network namespace,
//!                                   │                              then its conntrack (flows, resets)
//!                                   │ outcomes
//!                                   ├──▶ metrics, /healthz, healthCheckNodePorts
//!                                   └──▶ Problems: log lines and Events on the Services
//! ```

mod config;
mod confinement;
mod counts;
mod delays;
mod ejection;
mod flags;
mod flows;
pub(super) mod health;
mod interfaces;
mod metrics;
mod mode;
mod node_checks;
mod pages;
mod problems;
pub(in crate::cmd) mod process;
mod relayed;
mod resets;
mod setup;
mod sockets;
mod switch;
mod sync;
pub(super) mod trims;
mod userspace;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use portolan_model::sync::Pace;
use portolan_reflect::{NodeOptions, Options};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub use config::Config;
use config::file::Change;
pub use flags::Args;
use flags::{Chosen, Task};
pub use mode::Mode;
use pages::Pages;
pub(in crate::cmd) use userspace::raise_files;

/// Everything that [`serve`] needs to know.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// Kubeconfig file; without it `$KUBECONFIG`, `~/.kube/config`, or the pod that we run in.
    pub kubeconfig: Option<PathBuf>,
    /// Address of the API, instead of the kubeconfig's.
    pub master: Option<String>,
    /// Which data plane carries the Services, and how; another one takes its place when this changes.
    pub wanted: watch::Receiver<Wanted>,
    /// Whether TCP connections to endpoints that are gone for good are reset.
    pub reset_gone_connections: bool,
    /// Whether new flows through Services are counted.
    pub count_connections: bool,
    /// How endpoints that do not answer are found; without it they stay.
    pub health: Option<portolan_model::health::Config>,
    /// Where what outlives the process is found again: sockets of relays.
    pub state_dir: PathBuf,
    /// kube-proxy's configuration, of which the rest is made.
    pub config: Config,
}

/// What can change while the proxy runs: the mode, and what kube-proxy's file says of each mode by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Which data plane carries the Services.
    pub mode: Mode,
    /// How often the kernel is touched.
    pub pace: Pace,
    /// About the node: name, how pods are recognised, where NodePorts answer.
    pub node: NodeOptions,
}

/// Pairs of destination and endpoint that are counted in each family: each takes about 200 bytes of the kernel, and 16
/// for each CPU.
const COUNTED_MAX: u32 = 65_536;

/// Batches of Problems that may wait to be told; more are dropped, and come again when their Services change.
const PROBLEMS_WAITING_MAX: usize = 256;

/// Threads for the API's connections: the lists of Services and of EndpointSlices come at the same time. Each thread
/// has memory of its own, so a node with many cores must not get as many of them.
const WORKERS: usize = 2;

/// Threads for what blocks: the sync loop and the search for gone connections for ever, and now and then a name to look
/// up or a file to read. Those that are idle end by themselves.
const BLOCKING_MAX: usize = 16;

/// Runs the command until it is done.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Chosen {
        task,
        options,
        confine,
        warnings,
    } = args.choose()?;
    let logging = &options.config.logging;
    crate::cmd::logging::start_with(logging.verbosity, &logging.format);
    warnings.iter().for_each(|words| tracing::warn!("{words}"));
    flags::warn_of_localhost(&options.wanted.borrow().node.node_port_addresses);
    match task {
        Task::WriteConfig(path) => {
            config::file::write(&options.config, &path)?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Cleanup => Ok(clean_up(&options.config, &options.state_dir)),
        Task::InitOnly => Ok(set_up(&options.config)),
        Task::Serve(file) => {
            if options.wanted.borrow().mode.is_privileged() {
                set_up(&options.config);
            }
            if let Err(error) = setup::oom_score(options.config.oom_score_adj) {
                tracing::info!("this process can be ended when memory is short: {error:#}");
            }
            if confine {
                confinement::begin(&options, file.is_some())?;
            }
            serve_until_told(options, file)
        }
    }
}

/// Serves until a signal comes, or the file changes.
fn serve_until_told(
    mut options: ProxyOptions,
    mut file: Option<Box<config::file::File>>,
) -> anyhow::Result<ExitCode> {
    portolan_kernel::memory::share_heap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_MAX)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let first = options.wanted.borrow().clone();
    let (wanted_in, wanted) = watch::channel(first.clone());
    options.wanted = wanted;
    let told = options.config.clone();
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = stop_signals()?;
        let mut serving = std::pin::pin!(serve(options));
        loop {
            let changed =
                config::file::changed(file.as_deref_mut(), config::file::LOOK_EVERY, flags::check);
            tokio::select! {
                result = &mut serving => result?,
                change = changed => {
                    let file = file.as_ref().expect("invariant: what has changed is there");
                    match change {
                        Change::More => return Err(again()),
                        Change::Mode => wanted_in.send_replace(with_mode(&told, file, &first)?),
                    };
                    continue;
                }
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            // Rules stay: traffic must survive a restart.
            return Ok(ExitCode::SUCCESS);
        }
    })
}

/// What is wanted with the mode that stands in the file by now, and what has no meaning in it is said.
fn with_mode(told: &Config, file: &config::file::File, first: &Wanted) -> anyhow::Result<Wanted> {
    let mut config = told.clone();
    config.mode = file.config.mode.clone();
    for words in config::notes(&config, &config.mode) {
        tracing::warn!("{words}");
    }
    flags::wanted(&config, first.node.service_cidrs.clone())
}

/// Where a thread waits that blocks now and then: its own, since that of everybody may be shut down while it waits, and
/// whoever waits there panics. What it waits for tells it of the end.
fn waiting() -> anyhow::Result<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    built.context("cannot start the runtime of a thread")
}

/// Settings of the kernel that concern everything; a proxy without them is better than none.
fn set_up(config: &Config) -> ExitCode {
    let failed = setup::conntrack(&config.conntrack);
    for error in &failed {
        tracing::warn!("a setting of conntrack stays as it is: {error:#}");
    }
    match failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Takes away what is ours, whatever mode it is of.
fn clean_up(config: &Config, state_dir: &Path) -> ExitCode {
    let failed = Mode::clean_up_all(config, state_dir);
    for (mode, error) in &failed {
        tracing::error!(mode = mode.name(), %error, "something of this mode may still stand");
    }
    match failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Begins anew with the same command line, in the same process; returns only what went wrong. Rules stay, and the new
/// program takes them over.
fn again() -> anyhow::Error {
    use std::os::unix::process::CommandExt;
    tracing::info!("the configuration file has changed: beginning anew");
    let own = std::env::current_exe();
    let error = own.map(|own| {
        std::process::Command::new(own)
            .args(std::env::args_os().skip(1))
            .envs(confinement::handed_on())
            .exec()
    });
    let error = error.unwrap_or_else(|error| error);
    anyhow::Error::new(error)
        .context("the configuration file has changed, and this program cannot begin anew")
}

fn stop_signals() -> anyhow::Result<(tokio::signal::unix::Signal, tokio::signal::unix::Signal)> {
    use tokio::signal::unix::{SignalKind, signal};
    Ok((
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    ))
}

/// Programs the Services of the cluster into the network namespace of the calling thread, for ever. Dropping it stops
/// the work and leaves the rules.
pub async fn serve(options: ProxyOptions) -> anyhow::Result<()> {
    let wanted = options.wanted.borrow().clone();
    anyhow::ensure!(
        wanted.mode.is_privileged()
            || !(options.count_connections || options.reset_gone_connections),
        "--proxy-mode {} cannot do --count-connections or --reset-gone-connections, which need privileges",
        wanted.mode.name()
    );
    let (node_in, node) = watch::channel(wanted.node.clone());
    let client =
        portolan_k8s::client_at(options.kubeconfig.as_deref(), options.master.as_deref()).await?;
    let (interfaces_in, interfaces) = watch::channel(interfaces::addresses()?);
    let (said_in, said) = watch::channel(None);
    let (reflections_in, reflections) = watch::channel(None);
    let (problems_in, problems) = mpsc::channel(PROBLEMS_WAITING_MAX);
    let mut telemetry = metrics::Telemetry::new(wanted.pace.max);
    if options.count_connections {
        telemetry = telemetry.counting(COUNTED_MAX);
    }
    telemetry.pages = Pages::new(options.config.clone());
    let telemetry = Arc::new(telemetry);
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();

    let reflect = Options { node, interfaces };
    let for_reflect = client.clone();
    tasks.spawn(async move {
        portolan_reflect::run(for_reflect, reflect, said_in).await;
        Ok(())
    });
    tasks.spawn(async move { interfaces::follow(interfaces_in).await });
    let (dials_in, dials) = mpsc::channel(ejection::DIALS_WAITING_MAX);
    let ejection = ejection::Parts {
        // Without privileges nobody may look at connections; the relay tries the next endpoint anyway.
        config: options.health.filter(|_| wanted.mode.is_privileged()),
        node: wanted.node.name.clone(),
        client: client.clone(),
        said,
        wanted: reflections_in,
        dials,
        telemetry: Arc::clone(&telemetry),
    };
    ejection.spawn(&mut tasks);
    tasks.spawn(async move {
        problems::tell(client, problems).await;
        Ok(())
    });
    let (standing_in, standing) = watch::channel(None);
    let checks = node_checks::Servers::new(Arc::clone(&telemetry));
    tasks.spawn(checks.follow(standing.clone(), problems_in.clone(), node_checks::RETRY));
    if options.reset_gone_connections {
        let worker = resets::Worker::open(standing, Arc::clone(&telemetry))?;
        tasks.spawn_blocking(move || worker.run());
    }
    let parts = switch::Parts {
        reflections,
        standing: standing_in,
        problems: problems_in,
        telemetry: Arc::clone(&telemetry),
        node: node_in,
        config: options.config.clone(),
        relays: userspace::Relays {
            dials: dials_in,
            dir: options.state_dir,
            verbosity: options.config.logging.verbosity,
            logging_format: options.config.logging.format.clone(),
        },
    };
    tasks.spawn(parts.follow(options.wanted));
    for (address, whom) in [
        (
            options.config.healthz_bind_address,
            health::For::LoadBalancers,
        ),
        (options.config.metrics_bind_address, health::For::Operators),
    ] {
        if let Some(address) = address {
            let telemetry = Arc::clone(&telemetry);
            let hard_fail = options.config.bind_address_hard_fail;
            tasks.spawn(health::serve_at(
                address,
                whom,
                telemetry,
                hard_fail,
                health::BIND_RETRY,
            ));
        }
    }
    tracing::info!(
        node = wanted.node.name,
        mode = wanted.mode.name(),
        "proxy is running"
    );
    match tasks.join_next().await {
        Some(ended) => ended.context("a part of the proxy has died")?,
        None => Ok(()),
    }
}
