//! From the command line to PID 1 of a new lab.
//!
//! `portolan lab up` starts `portolan lab supervise` in the background. That process, while it has one thread and is
//! still in the machine's network namespace, opens the API's socket on the loopback address; then it makes the lab's
//! namespaces (inside a user namespace where it has no privileges) and forks the supervisor into them. It stays as the
//! supervisor's parent, only to remove the lab's directory at the end, also after a crash.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};

use nix::sys::signal::{SigSet, Signal};
use portolan_kernel::namespace::{Kinds, enter_new};
use portolan_kernel::process::{self, Forked, PidFd};

use crate::dir::{LabConfig, LabDir, private_dir, write_json};
use crate::error::{Error, Result};

/// What a lab shall be.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name.
    pub name: String,
    /// How many nodes.
    pub nodes: u8,
    /// The API's port on 127.0.0.1; 0 for a free one.
    pub api_port: u16,
    /// The data plane of its nodes.
    pub proxy_mode: String,
}

/// Starts the lab and returns when it has ended and its directory is removed. SIGINT and SIGTERM end it.
/// `claim` is the lock of the directory; it is held until then. Must be called by a process with one thread.
/// The supervisor itself never returns from here but ends its process.
pub fn start(dir: LabDir, options: &Options, claim: File) -> Result<()> {
    for part in ["log", "api", "kubelet"] {
        private_dir(&dir.path(part))?;
    }
    let address = (Ipv4Addr::LOCALHOST, options.api_port);
    let local = TcpListener::bind(address)
        .and_then(|socket| Ok((socket.local_addr()?.port(), socket)))
        .map_err(|e| Error::conversation(format!("listen on 127.0.0.1:{}", options.api_port), e))?;
    let (api_port, local) = local;
    enter_new(
        Kinds::CLONE_NEWPID
            | Kinds::CLONE_NEWNS
            | Kinds::CLONE_NEWNET
            | Kinds::CLONE_NEWUTS
            | Kinds::CLONE_NEWIPC,
    )?;
    let (mut go, wait) = std::io::pipe()
        .map(|(read, write)| (write, read))
        .map_err(|e| Error::conversation("pipe", e))?;
    match process::fork_single()? {
        Forked::Parent(supervisor_pid) => {
            let config = LabConfig {
                name: options.name.clone(),
                nodes: options.nodes,
                api_port,
                proxy_mode: options.proxy_mode.clone(),
                supervisor_pid,
            };
            write_json(&dir.path("lab.json"), &config)?;
            drop((local, wait));
            go.write_all(b"go")
                .map_err(|e| Error::conversation("release the supervisor", e))?;
            drop(go);
            stay(supervisor_pid)?;
            // Whether it was ended or has crashed: by now the kernel has ended everything in it.
            let removed = std::fs::remove_dir_all(dir.root());
            drop(claim);
            removed.map_err(|e| Error::file("remove", dir.root(), e))
        }
        Forked::Child => {
            drop(go);
            // An empty pipe means that the parent could not write lab.json and is gone.
            let released = std::io::read_to_string(wait).is_ok_and(|text| text == "go");
            let code = match released.then(|| super::supervise(dir, options.nodes, local)) {
                Some(Ok(())) => 0,
                Some(Err(error)) => {
                    tracing::error!(%error, "the lab can't start");
                    1
                }
                None => 1,
            };
            drop(claim);
            end(code)
        }
    }
}

/// Ends PID 1, and so the lab.
#[expect(
    clippy::disallowed_methods,
    reason = "the forked supervisor must not return into its parent's call stack"
)]
fn end(code: i32) -> ! {
    std::process::exit(code)
}

/// Waits for the supervisor's end; hands SIGINT and SIGTERM on to it.
fn stay(supervisor_pid: u32) -> Result<()> {
    let supervisor = PidFd::open(supervisor_pid)?;
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD]);
    let wrong = |e: nix::Error| Error::conversation("wait for the lab", e);
    signals.thread_block().map_err(wrong)?;
    while supervisor.is_running() {
        if signals.wait().map_err(wrong)? != Signal::SIGCHLD {
            supervisor.kill(Signal::SIGTERM)?;
        }
    }
    process::wait(supervisor_pid)?;
    Ok(())
}
