//! What people type: `portolan lab up`, `down`, `status`, `exec`, `logs`, `outside`.
#![expect(
    clippy::print_stdout,
    reason = "these commands answer on standard output"
)]

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use portolan_kernel::command::CommandNamespaces;
use portolan_lab::client;
use portolan_lab::dir::{LabDir, private_dir};
use portolan_lab::exec::{Outcome, Program, ask_with_stdio};
use portolan_lab::{shim, supervisor};
use serde::Serialize;

use super::inner::LOCK_FD;
use crate::cmd::proxy::Mode;

/// How often to look whether the supervisor has begun.
const START_POLL: Duration = Duration::from_millis(5);

/// What `lab up` was asked for.
pub struct Up {
    pub name: String,
    pub nodes: u8,
    pub manifests: Vec<PathBuf>,
    pub api_port: u16,
    pub proxy_mode: Mode,
    pub foreground: bool,
}

/// Starts a lab, waits until it is ready, and says how to use it.
pub fn up(wanted: &Up) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let dir = LabDir::named(&wanted.name)?;
    if wanted.proxy_mode == Mode::Ebpf {
        bail!(
            "a lab has no eBPF mode yet: its nodes have no cgroups of their own, so that the programs of each would see the sockets of all"
        );
    }
    if wanted.proxy_mode == Mode::Loopback {
        bail!("a lab has no loopback mode: its pods reach Services at their own addresses");
    }
    for path in &wanted.manifests {
        // Before anything is started: a wrong path is the most common mistake.
        portolan_lab::apply::read(path)?;
    }
    let Some(claim) = dir.claim()? else {
        bail!(
            "the lab {:?} is already up; `portolan lab status --name {}` shows it",
            wanted.name,
            wanted.name
        );
    };
    println!(
        "starting the lab {:?} with {} nodes",
        wanted.name, wanted.nodes
    );
    let mut supervisor = start(&dir, wanted, claim)?;
    // What goes wrong with a manifest can be tried again on the lab that runs.
    runtime()?.block_on(client::bring_up(&dir, &wanted.manifests, |text| {
        println!("{:>6.1} s  {text}", began.elapsed().as_secs_f64());
    }))?;
    say_how_to_use_it(&dir, &wanted.name);
    if wanted.foreground {
        supervisor.wait()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts the supervisor and returns when it has begun.
fn start(dir: &LabDir, wanted: &Up, claim: File) -> anyhow::Result<Child> {
    private_dir(&dir.path("log"))?;
    let log = dir.path("log/supervisor.log");
    let output = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .context("open the supervisor's log")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([
        "lab",
        "supervise",
        "--name",
        &wanted.name,
        "--nodes",
        &wanted.nodes.to_string(),
    ]);
    command
        .args(["--api-port", &wanted.api_port.to_string()])
        .args(["--proxy-mode", wanted.proxy_mode.name(), "--dir"])
        .arg(dir.root());
    command.pass_fd(claim.as_fd().try_clone_to_owned()?, LOCK_FD);
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    if !wanted.foreground {
        command.own_session();
    }
    let mut supervisor = command.spawn().context("start the supervisor")?;
    // From here on only the supervisor holds the lock: when it dies, the lab is seen as dead.
    drop((command, claim));
    while !dir.path("lab.json").exists() {
        if supervisor.try_wait()?.is_some() {
            let text = client::log_end(&log);
            dir.remove_if_stale()?;
            bail!("the lab did not start:\n{text}");
        }
        std::thread::park_timeout(START_POLL);
    }
    Ok(supervisor)
}

fn say_how_to_use_it(dir: &LabDir, name: &str) {
    let option = if name == "default" {
        String::new()
    } else {
        format!(" --name {name}")
    };
    println!("\nThe lab is up. Use it with kubectl:\n");
    println!("  export KUBECONFIG={}", dir.path("kubeconfig").display());
    println!("  kubectl get nodes\n");
    println!("  portolan lab status{option}             what runs, and where the logs are");
    println!("  portolan lab exec{option} POD -- CMD     in a pod; --node n1 for a node");
    println!("  portolan lab outside{option} -- CMD      a client outside the cluster");
    println!("  portolan lab outside{option} -- curl http://NAME.apps.example");
    println!("                                 through the gateway at 203.0.113.1, by Ingress");
    println!("  portolan lab down{option}               end it; nothing stays");
}

/// Ends a lab.
pub fn down(name: &str) -> anyhow::Result<ExitCode> {
    match client::down(&LabDir::named(name)?)? {
        true => println!("the lab {name:?} is down"),
        false => println!("the lab {name:?} was not up"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows a lab; fails when it is not up.
pub fn status(name: &str, output: Option<&str>) -> anyhow::Result<ExitCode> {
    let Some(status) = client::status(&LabDir::named(name)?)? else {
        eprintln!("the lab {name:?} is not up");
        return Ok(ExitCode::FAILURE);
    };
    match output {
        Some("json") => println!("{}", serde_json::to_string_pretty(&status)?),
        Some(_) => print!("{}", serde_norway::to_string(&status)?),
        None => {
            println!(
                "lab {:?}: {} nodes, {} mode, {}",
                status.name, status.nodes, status.proxy_mode, status.server
            );
            println!("KUBECONFIG={}", status.kubeconfig.display());
            println!("files and logs: {}\n", status.directory.display());
            println!("{:<16}{:>8}{:>8}", "PROCESS", "PID", "STARTS");
            println!("{:<16}{:>8}{:>8}", "supervisor", status.supervisor, 1);
            for process in status.processes {
                let pid = process.pid.map_or("-".to_string(), |pid| pid.to_string());
                println!("{:<16}{pid:>8}{:>8}", process.name, process.starts);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a command in a container.
pub fn exec(
    name: &str,
    namespace: &str,
    pod: &str,
    container: Option<&str>,
    argv: Vec<String>,
) -> anyhow::Result<ExitCode> {
    let dir = running(name)?;
    let found = runtime()?.block_on(client::find_pod(&dir, namespace, pod, container))?;
    let program = Program {
        argv,
        env: Vec::new(),
        cwd: None,
        tty: false,
        limit_ms: None,
    };
    run_program(
        &found.socket,
        &shim::protocol::Question::Run {
            container: found.container,
            program,
        },
    )
}

/// Runs a command in the network of a node, of the outside or of the fabric, with the caller's environment.
pub fn run_at(name: &str, place: &str, argv: Vec<String>) -> anyhow::Result<ExitCode> {
    let dir = running(name)?;
    let text = |value: std::ffi::OsString| value.into_string().ok();
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((text(name)?, text(value)?)))
        .collect();
    let program = Program {
        argv,
        env,
        cwd: std::env::current_dir().ok(),
        tty: false,
        limit_ms: None,
    };
    run_program(
        &dir.path("control.sock"),
        &supervisor::Question::Run {
            place: place.to_string(),
            program,
        },
    )
}

fn run_program(socket: &std::path::Path, question: &impl Serialize) -> anyhow::Result<ExitCode> {
    match ask_with_stdio(socket, question)? {
        Outcome::Exited(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
        Outcome::TimedOut => bail!("the command took too long"),
        Outcome::Failed(why) => bail!("{why}"),
    }
}

/// What `lab logs` was asked for.
pub struct Logs {
    pub namespace: String,
    pub pod: String,
    pub container: Option<String>,
    pub follow: bool,
    pub previous: bool,
}

/// Prints a container's log.
pub fn logs(name: &str, wanted: &Logs) -> anyhow::Result<ExitCode> {
    let dir = running(name)?;
    runtime()?.block_on(async {
        let api: Api<Pod> = Api::namespaced(client::api(&dir).await?, &wanted.namespace);
        let params = LogParams {
            container: wanted.container.clone(),
            follow: wanted.follow,
            previous: wanted.previous,
            ..LogParams::default()
        };
        let mut lines = api.log_stream(&wanted.pod, &params).await?.lines();
        while let Some(line) = lines.try_next().await? {
            println!("{line}");
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn running(name: &str) -> anyhow::Result<LabDir> {
    let dir = LabDir::named(name)?;
    if !dir.is_running()? {
        dir.remove_if_stale()?;
        bail!("the lab {name:?} is not up");
    }
    Ok(dir)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}
