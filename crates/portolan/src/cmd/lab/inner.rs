//! What the lab's own processes start with; not for people.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::ValueEnum;
use portolan_kernel::inherit;
use portolan_lab::dir::LabDir;
use portolan_lab::plan::{self, NodePlan};
use portolan_lab::{agent, shim, supervisor};
use portolan_model::sync::Pace;
use portolan_reflect::{DetectLocal, NodeOptions, NodePortAddresses};

use crate::cmd::proxy::{self, ProxyOptions, Wanted};

/// The number under which the supervisor inherits the lock of the lab's directory.
pub const LOCK_FD: i32 = 12;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Start the supervisor.
    #[command(hide = true)]
    Supervise {
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        name: String,
        #[arg(long)]
        nodes: u8,
        #[arg(long)]
        api_port: u16,
        #[arg(long)]
        proxy_mode: proxy::Mode,
    },
    /// Run the agent of a node.
    #[command(hide = true)]
    Agent {
        #[arg(long)]
        node: String,
        #[arg(long)]
        dir: PathBuf,
    },
    /// Start the shim of a pod.
    #[command(hide = true)]
    Shim {
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        own_netns: bool,
    },
    /// Become a container.
    #[command(hide = true)]
    Container,
}

/// Runs one of the lab's own processes.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    let log =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(log)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    match command {
        Command::Supervise {
            dir,
            name,
            nodes,
            api_port,
            proxy_mode,
        } => {
            inherit::close_others(LOCK_FD)?;
            // The lock came with the descriptor.
            let claim = std::fs::File::from(inherit::descriptor(LOCK_FD)?);
            let options = supervisor::Options {
                name,
                nodes,
                api_port,
                proxy_mode: proxy_mode.name().into(),
            };
            supervisor::start(LabDir::at(dir), &options, claim)?;
        }
        Command::Agent { node, dir } => run_agent(&node, dir)?,
        Command::Shim { dir, own_netns } => {
            let netns = own_netns
                .then(|| inherit::descriptor(agent::NETNS_FD))
                .transpose()?;
            shim::run(&dir, netns)?;
        }
        Command::Container => {
            let error_fd = inherit::descriptor(shim::container::ERROR_FD)?;
            let why = shim::container::run(error_fd);
            tracing::debug!(why, "the container did not start");
            return Ok(ExitCode::from(128));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The node's kubelet part and its Service proxy, in one process.
fn run_agent(node: &str, dir: PathBuf) -> anyhow::Result<()> {
    let plan = NodePlan::named(node).with_context(|| format!("{node:?} is no node of a lab"))?;
    let dir = LabDir::at(dir);
    let mode = dir.config()?.proxy_mode;
    let mode = proxy::Mode::from_str(&mode, false)
        .map_err(|_| anyhow::anyhow!("lab.json: {mode:?} is no mode of this version"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let kubeconfig = agent::write_kubeconfig(&dir, plan).await?;
        let wanted = Wanted {
            mode,
            pace: Pace::default(),
            node: NodeOptions {
                name: plan.name(),
                primary_address: None,
                detect_local: DetectLocal::ClusterCidr(plan::pods().into()),
                node_port_addresses: NodePortAddresses::PRIMARY,
                masquerade_all: false,
                service_cidrs: plan::services().into(),
            },
        };
        let proxy = ProxyOptions {
            kubeconfig: Some(kubeconfig.clone()),
            master: None,
            wanted: tokio::sync::watch::channel(wanted).1,
            reset_gone_connections: false,
            count_connections: true,
            health: Some(portolan_model::health::Config::default()),
            state_dir: kubeconfig.with_file_name("proxy"),
            config: proxy::Config::default(),
        };
        tokio::select! {
            ended = agent::run(dir, plan, &kubeconfig) => ended.map_err(anyhow::Error::from),
            ended = proxy::serve(proxy) => ended,
        }
    })
}
