//! The containers of one pod as the shim keeps them: started, watched, their ends remembered.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::process::{End, PidFd};

use super::container::{self, ERROR_FD, Task};
use super::log::{Log, pump};
use super::protocol::{ContainerSpec, Ended, PodState, Run};
use crate::exec::Program;
use crate::reaper::Reaper;

/// The containers and their ends.
pub struct Containers {
    pod: PathBuf,
    portolan: PathBuf,
    reaper: Arc<Reaper>,
    table: Mutex<Table>,
    change: Condvar,
}

#[derive(Default)]
struct Table {
    state: PodState,
    /// Grows with each change, so that a watcher knows whether it has seen the newest.
    version: u64,
    main: HashMap<String, Main>,
}

/// What is needed to reach a running container.
struct Main {
    pid: u32,
    spec: ContainerSpec,
}

impl Containers {
    /// None yet.
    pub fn new(pod: PathBuf, portolan: PathBuf, reaper: Arc<Reaper>) -> Containers {
        Containers {
            pod,
            portolan,
            reaper,
            table: Mutex::default(),
            change: Condvar::new(),
        }
    }

    /// How the containers are.
    pub fn state(&self) -> PodState {
        self.lock().state.clone()
    }

    /// Waits until something has changed since `version`; the new version and state.
    pub fn changed_since(&self, version: u64) -> (u64, PodState) {
        let mut table = self.lock();
        while table.version == version {
            table = self
                .change
                .wait(table)
                .unwrap_or_else(PoisonError::into_inner);
        }
        (table.version, table.state.clone())
    }

    /// Starts a run. An agent that asks twice for the same run (it died before it had the answer) gets the first one.
    /// A command that can't be started counts as a run that has ended with code 128, as in containerd.
    pub fn start(self: &Arc<Self>, spec: ContainerSpec) -> Result<(), String> {
        let known = self
            .lock()
            .state
            .last_run(&spec.name)
            .map(|run| (run.attempt, run.is_running()));
        match known {
            Some((attempt, _)) if attempt >= spec.attempt => return Ok(()),
            Some((_, true)) => return Err(format!("container {} still runs", spec.name)),
            _ => {}
        }
        let log = Log::create(&self.pod, &spec.name, spec.attempt)
            .map_err(|e| format!("open the log: {e}"))?;
        let log = Arc::new(Mutex::new(log));
        let started = self.spawn(&spec, &log);
        let run = |ended| Run {
            attempt: spec.attempt,
            started_at: Timestamp::now(),
            ended,
        };
        match started {
            Ok(pid) => {
                self.record(
                    &spec.name,
                    run(None),
                    Some(Main {
                        pid,
                        spec: spec.clone(),
                    }),
                );
                let containers = self.clone();
                spawn_thread(move || containers.attend(&spec.name, pid))
            }
            Err(why) => {
                let ended = Ended {
                    exit_code: 128,
                    signal: None,
                    finished_at: Timestamp::now(),
                    start_error: Some(why.clone()),
                };
                self.record(&spec.name, run(Some(ended)), None);
                Err(why)
            }
        }
    }

    fn spawn(&self, spec: &ContainerSpec, log: &Arc<Mutex<Log>>) -> Result<u32, String> {
        let text = |e: std::io::Error| e.to_string();
        let (mut failure, tell) = std::io::pipe().map_err(text)?;
        let (input, mut task) = std::io::pipe().map_err(text)?;
        let (out, stdout) = std::io::pipe().map_err(text)?;
        let (err, stderr) = std::io::pipe().map_err(text)?;
        let mut command = Command::new(&self.portolan);
        command
            .args(["lab", "container"])
            .stdin(input)
            .stdout(stdout)
            .stderr(stderr);
        command.own_session().pass_fd(OwnedFd::from(tell), ERROR_FD);
        let pid = self.reaper.spawn(&mut command).map_err(text)?;
        // Our copies of the container's ends of the pipes go with the command.
        drop(command);
        for (output, name) in [(out, "stdout"), (err, "stderr")] {
            let log = log.clone();
            spawn_thread(move || pump(output, name, &log))?;
        }
        let scratch = self.pod.join("scratch");
        let order = Task::Start {
            spec: spec.clone(),
            scratch,
            portolan: self.portolan.clone(),
        };
        let sent = serde_json::to_vec(&order)
            .map_err(text_of)
            .and_then(|bytes| task.write_all(&bytes).map_err(text));
        drop(task);
        let mut why = String::new();
        failure.read_to_string(&mut why).map_err(text)?;
        if why.is_empty() && sent.is_ok() {
            return Ok(pid);
        }
        self.reaper.wait(pid);
        Err(if why.is_empty() {
            sent.err().unwrap_or_default()
        } else {
            why
        })
    }

    /// Waits for a container's end and remembers it. What it leaves running in its process group is killed.
    fn attend(&self, name: &str, pid: u32) {
        let end = self.reaper.wait(pid);
        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid as i32), Signal::SIGKILL);
        let mut table = self.lock();
        table.main.remove(name);
        if let Some(run) = table
            .state
            .containers
            .get_mut(name)
            .and_then(|runs| runs.last_mut())
        {
            let signal = if let End::Signaled(number) = end {
                Some(number)
            } else {
                None
            };
            run.ended = Some(Ended {
                exit_code: end.code(),
                signal,
                finished_at: Timestamp::now(),
                start_error: None,
            });
        }
        table.version += 1;
        self.change.notify_all();
    }

    /// Sends a signal to a container's main process, SIGKILL to its process group.
    pub fn signal(&self, name: &str, number: i32) -> Result<(), String> {
        let signal = Signal::try_from(number).map_err(|e| e.to_string())?;
        if let Some(main) = self.lock().main.get(name) {
            self.reaper
                .signal(main.pid, signal, signal == Signal::SIGKILL);
        }
        Ok(())
    }

    /// The command that runs a program inside a running container.
    pub fn command(&self, name: &str, program: &Program) -> Result<Command, String> {
        let table = self.lock();
        let main = table
            .main
            .get(name)
            .ok_or_else(|| format!("container {name} is not running"))?;
        let process = PidFd::open(main.pid).map_err(|e| e.to_string())?;
        let env: Vec<_> = main.spec.env.iter().chain(&program.env).cloned().collect();
        let mut command = container::command(&program.argv, &self.portolan, &env)?;
        command.in_mounts_of(process, program.cwd.as_ref().unwrap_or(&main.spec.cwd));
        match program.tty {
            true => command.own_terminal(),
            false => command.own_session(),
        };
        Ok(command)
    }

    fn record(&self, name: &str, run: Run, main: Option<Main>) {
        let mut table = self.lock();
        let runs = table.state.containers.entry(name.to_string()).or_default();
        runs.push(run);
        // Only the last two runs are ever shown (state and lastState).
        while runs.len() > 2 {
            runs.remove(0);
        }
        if let Some(main) = main {
            table.main.insert(name.to_string(), main);
        }
        table.version += 1;
        self.change.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn text_of(error: serde_json::Error) -> String {
    error.to_string()
}

fn spawn_thread(work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    std::thread::Builder::new()
        .spawn(work)
        .map(drop)
        .map_err(|e| format!("start a thread: {e}"))
}
