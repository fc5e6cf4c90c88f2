//! The supervisor: PID 1 of the lab's own PID namespace. It builds the network, starts the API server and the agents,
//! starts them again when they die, the answerers of names and the gateway too, waits for orphans (the pods' shims), and answers on the control socket.
//! When it ends, however it ends, the kernel ends every process of the lab, and with them all namespaces.

mod control;
mod keep;
mod start;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::{mount, process};

pub use control::{DaemonStatus, Question, Status};
pub use start::{Options, start};

use crate::agent;
use crate::dir::LabDir;
use crate::error::{Error, Result};
use crate::fabric::Fabric;
use crate::gateway;
use crate::names;
use crate::plan::{API_PORT, NodePlan};
use crate::reaper::Reaper;
use keep::Keeper;

/// How often it is looked whether somebody has written the files that a daemon needs, as long as the lab lives.
const FILES_POLL: Duration = Duration::from_millis(20);

/// Everything that the supervisor's threads share.
pub(crate) struct Lab {
    dir: LabDir,
    program: PathBuf,
    fabric: Fabric,
    reaper: Arc<Reaper>,
    keeper: Keeper,
}

/// Runs the lab until SIGTERM. The caller is the first process of new PID, mount and network namespaces
/// and has one thread; `local` is the API server's socket in the machine's own network namespace.
fn supervise(dir: LabDir, nodes: u8, local: TcpListener) -> Result<()> {
    mount::make_private()?;
    if let Err(error) = mount::proc() {
        // Containers without privileges often may not; the lab works, but `ps` inside shows the machine's view.
        tracing::warn!(%error, "keeping the machine's /proc");
    }
    names::write_outside(&dir)?;
    if let Err(error) = mount::bind(&names::resolv_conf(&dir), Path::new("/etc/resolv.conf")) {
        // The answerers forward to whom it names; then nobody answers, which takes longer to say the same.
        tracing::warn!(%error, "keeping the machine's /etc/resolv.conf");
    }
    process::adopt_orphans()?;
    let reaper = Arc::new(Reaper::new().map_err(|e| Error::conversation("block signals", e))?);
    let fabric = Fabric::build(nodes)?;
    let inside = fabric
        .fabric
        .run(|| TcpListener::bind(("192.168.0.1", API_PORT)))?;
    let inside = inside.map_err(|e| Error::conversation("listen for the API in the fabric", e))?;
    let program =
        std::env::current_exe().map_err(|e| Error::conversation("find our own program", e))?;
    let socket = dir.path("control.sock");
    let control = UnixListener::bind(&socket).map_err(|e| Error::file("listen on", &socket, e))?;
    let keeper = Keeper::new(dir.path("log"), reaper.clone());
    let lab = Arc::new(Lab {
        dir,
        program,
        fabric,
        reaper,
        keeper,
    });
    lab.keep_api_server(local.into(), inside.into())?;
    lab.keep_outside_names()?;
    lab.keep_gateway()?;
    for (node, _) in &lab.fabric.nodes {
        lab.keep_agent(*node)?;
        lab.keep_names(*node)?;
    }
    let serving = lab.clone();
    std::thread::spawn(move || control::serve(&serving, &control));
    tracing::info!(nodes, "the lab is up");
    lab.reaper
        .run()
        .map_err(|e| Error::conversation("wait for signals", e))?;
    tracing::info!("the lab ends");
    Ok(())
}

impl Lab {
    fn keep_api_server(self: &Arc<Self>, local: OwnedFd, inside: OwnedFd) -> Result<()> {
        let lab = self.clone();
        let build = move || -> Result<Command> {
            let mut command = Command::new(&lab.program);
            command.arg("apiserver");
            command.arg("--data-dir").arg(lab.dir.path("api"));
            command
                .arg("--kubeconfig-out")
                .arg(lab.dir.path("kubeconfig"));
            command.arg("--kubelet-dir").arg(lab.dir.path("kubelet"));
            command.args(["--listen-fd", "10", "--listen-fd", "11"]);
            command
                .in_netns(&lab.fabric.fabric.netns)?
                .die_with_parent(Signal::SIGKILL);
            for (socket, number) in [(&local, 10), (&inside, 11)] {
                let socket = socket
                    .try_clone()
                    .map_err(|e| Error::conversation("duplicate a socket", e))?;
                command.pass_fd(socket, number);
            }
            Ok(command)
        };
        self.keeper.keep("apiserver", build)
    }

    fn keep_agent(self: &Arc<Self>, node: NodePlan) -> Result<()> {
        let lab = self.clone();
        let name = format!("agent-{}", node.name());
        let build = move || -> Result<Command> {
            let mut command = Command::new(&lab.program);
            command
                .args(["lab", "agent", "--node", &node.name(), "--dir"])
                .arg(lab.dir.root());
            let host = lab
                .fabric
                .place(&node.name())
                .ok_or_else(|| Error::Refused("no such node".into()))?;
            command.in_netns(&host.netns)?;
            Ok(command)
        };
        self.keeper.keep(&name, build)
    }

    /// The answerer of a node. It begins when the node's agent has written what it needs.
    fn keep_names(self: &Arc<Self>, node: NodePlan) -> Result<()> {
        let lab = self.clone();
        let build = move || -> Result<Command> {
            let config = names::config_dir(&lab.dir, node);
            let corefile = config.join("Corefile");
            let kubeconfig = agent::kubeconfig(&lab.dir, node);
            while !(corefile.exists() && kubeconfig.exists()) {
                std::thread::park_timeout(FILES_POLL);
            }
            let mut command = Command::new(&lab.program);
            command.args(["dns", "--conf"]).arg(corefile);
            command.arg("--kubeconfig").arg(kubeconfig);
            let host = lab
                .fabric
                .place(&node.name())
                .ok_or_else(|| Error::Refused("no such node".into()))?;
            command.current_dir(config).in_netns(&host.netns)?;
            Ok(command)
        };
        self.keeper.keep(&format!("dns-{}", node.name()), build)
    }

    /// The answerer for the world outside, at the fabric's gateway.
    fn keep_outside_names(self: &Arc<Self>) -> Result<()> {
        let lab = self.clone();
        let build = move || -> Result<Command> {
            let mut command = Command::new(&lab.program);
            command.args(["dns", "--conf"]);
            command.arg(names::outside_corefile(&lab.dir));
            command.in_netns(&lab.fabric.fabric.netns)?;
            Ok(command)
        };
        self.keeper.keep("dns-outside", build)
    }

    /// The front door, which begins when the API server has written how to reach it.
    fn keep_gateway(self: &Arc<Self>) -> Result<()> {
        let lab = self.clone();
        let build = move || -> Result<Command> {
            while !lab.dir.path("kubeconfig").exists() {
                std::thread::park_timeout(FILES_POLL);
            }
            let mut command = Command::new(&lab.program);
            command.args(gateway::arguments(&lab.dir));
            command.in_netns(&lab.fabric.fabric.netns)?;
            Ok(command)
        };
        self.keeper.keep("gateway", build)
    }
}
