//! `portolan lab`: a whole cluster of network namespaces on this machine.

mod inner;
mod outer;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cmd::proxy::Mode;

/// Arguments of `portolan lab`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// Which lab.
#[derive(clap::Args)]
struct Lab {
    /// The lab's name; several can run side by side.
    #[arg(long, default_value = "default", env = "PORTOLAN_LAB")]
    name: String,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Start a lab and apply manifests.
    Up {
        #[command(flatten)]
        lab: Lab,
        /// How many nodes.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=i64::from(portolan_lab::plan::NODES_MAX)))]
        nodes: u8,
        /// A file or a directory of manifests to apply (may be repeated).
        #[arg(short, long = "filename")]
        filename: Vec<PathBuf>,
        /// The API's port on 127.0.0.1; 0 for a free one.
        #[arg(long, default_value_t = 0)]
        api_port: u16,
        /// How the nodes program Services.
        #[arg(long, value_enum, default_value_t)]
        proxy_mode: Mode,
        /// Stay in the foreground; SIGINT and SIGTERM end the lab.
        #[arg(long)]
        foreground: bool,
    },
    /// End a lab; nothing of it stays.
    Down {
        #[command(flatten)]
        lab: Lab,
    },
    /// Show a lab.
    Status {
        #[command(flatten)]
        lab: Lab,
        /// Print JSON or YAML.
        #[arg(short, long, value_parser = ["json", "yaml"])]
        output: Option<String>,
    },
    /// Run a command in a pod's container, or with --node on a node.
    Exec {
        #[command(flatten)]
        lab: Lab,
        /// The pod's namespace.
        #[arg(short, long, default_value = "default")]
        namespace: String,
        /// The container [default: the pod's first].
        #[arg(short, long)]
        container: Option<String>,
        /// Run it on this node (n1 …), or in the network of `outside` or `fabric`.
        #[arg(long, conflicts_with_all = ["container", "namespace"])]
        node: Option<String>,
        /// The pod.
        #[arg(required_unless_present = "node")]
        pod: Option<String>,
        /// The command.
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
    /// Print the log of a pod's container.
    Logs {
        #[command(flatten)]
        lab: Lab,
        /// The pod's namespace.
        #[arg(short, long, default_value = "default")]
        namespace: String,
        /// The container [default: the pod's first].
        #[arg(short, long)]
        container: Option<String>,
        /// Go on until the container ends.
        #[arg(short, long)]
        follow: bool,
        /// The container's previous run.
        #[arg(short, long)]
        previous: bool,
        /// The pod.
        pod: String,
    },
    /// Run a command outside the cluster, at 203.0.113.2.
    Outside {
        #[command(flatten)]
        lab: Lab,
        /// The command.
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
    /// The lab's own processes start with these.
    #[command(flatten)]
    Inner(inner::Command),
}

/// Runs the command until it is done.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if !matches!(args.command, Command::Inner(_)) {
        portolan_kernel::process::end_with_broken_pipe();
    }
    match args.command {
        Command::Up {
            lab,
            nodes,
            filename,
            api_port,
            proxy_mode,
            foreground,
        } => outer::up(&outer::Up {
            name: lab.name,
            nodes,
            manifests: filename,
            api_port,
            proxy_mode,
            foreground,
        }),
        Command::Down { lab } => outer::down(&lab.name),
        Command::Status { lab, output } => outer::status(&lab.name, output.as_deref()),
        Command::Exec {
            lab,
            node: Some(node),
            pod,
            argv,
            ..
        } => {
            anyhow::ensure!(pod.is_none(), "a pod or --node, not both");
            outer::run_at(&lab.name, &node, argv)
        }
        Command::Exec {
            lab,
            namespace,
            container,
            pod,
            argv,
            ..
        } => outer::exec(
            &lab.name,
            &namespace,
            &pod.unwrap_or_default(),
            container.as_deref(),
            argv,
        ),
        Command::Logs {
            lab,
            namespace,
            container,
            follow,
            previous,
            pod,
        } => outer::logs(
            &lab.name,
            &outer::Logs {
                namespace,
                pod,
                container,
                follow,
                previous,
            },
        ),
        Command::Outside { lab, argv } => outer::run_at(&lab.name, "outside", argv),
        Command::Inner(command) => inner::run(command),
    }
}
