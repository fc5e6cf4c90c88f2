//! The agent's side of a pod's shim: questions, and the state that follows every change.
//!
//! The shim lives without us; this only holds a connection. The protocol is blocking, so each talk has a thread.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use portolan_kernel::Netns;
use portolan_kernel::command::CommandNamespaces;
use tokio::sync::watch;

use crate::dir::{private_dir, write_json};
use crate::error::{Error, Result};
use crate::exec::{self, Outcome, Program};
use crate::shim::PID_FILE;
use crate::shim::protocol::{Answer, ContainerSpec, PodSpec, PodState, Question, Run};

/// The descriptor under which a new shim finds the pod's network namespace.
pub const NETNS_FD: i32 = 10;
/// What a program says beyond this many bytes is not kept (the kubelet's limit for probes).
const OUTPUT_BYTES_MAX: u64 = 10 * 1024;
/// A shim that does not answer a question for this long is given up.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A connection to a pod's shim.
#[derive(Debug, Clone)]
pub struct Shim {
    socket: PathBuf,
    state: watch::Receiver<Option<PodState>>,
    _watching: Arc<Watching>,
}

/// Ends the thread that watches when the last handle goes.
#[derive(Debug)]
struct Watching(UnixStream);

impl Drop for Watching {
    fn drop(&mut self) {
        // The thread may have ended already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// How a program inside a container went.
#[derive(Debug)]
pub enum Ran {
    /// It ended with this code and said this.
    Ended(i32, String),
    /// It was killed because it took too long.
    TimedOut,
    /// It could not be run.
    Failed(String),
}

impl Shim {
    /// Starts a shim for the pod directory `pod` and connects. `program` is our own.
    pub async fn launch(
        program: PathBuf,
        pod: PathBuf,
        spec: PodSpec,
        netns: Option<Netns>,
    ) -> Result<Shim> {
        let dir = pod.clone();
        blocking(move || launch(&program, &dir, &spec, netns)).await?;
        let gone = || Error::Refused(format!("the shim in {} does not answer", pod.display()));
        Shim::connect(&pod).await.ok_or_else(gone)
    }

    /// Connects to the shim of a pod directory, if it lives.
    pub async fn connect(pod: &Path) -> Option<Shim> {
        let socket = pod.join("shim.sock");
        let path = socket.clone();
        let connected = blocking(move || watch_state(&path)).await;
        let (state, stream) = connected.ok()?;
        Some(Shim {
            socket,
            state,
            _watching: Arc::new(Watching(stream)),
        })
    }

    /// What the shim said last; none when it is gone.
    pub fn state(&self) -> Option<PodState> {
        self.state.borrow().clone()
    }

    /// Waits for the next change.
    pub async fn changed(&mut self) {
        // An error means that the watching thread has ended, which it announced by `None`.
        if self.state.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits until something holds for the state.
    pub async fn wait(&self, until: impl FnMut(&Option<PodState>) -> bool) {
        let _ = self.state.clone().wait_for(until).await;
    }

    /// Waits until a run of a container has ended.
    pub async fn wait_end(&self, container: &str, attempt: u32) {
        let over = |state: &Option<PodState>| {
            let run = state.as_ref().and_then(|state| state.last_run(container));
            run.is_none_or(|run| run.attempt != attempt || !run.is_running())
        };
        self.wait(over).await;
    }

    /// Starts a container and waits until the state shows it.
    pub async fn start(&self, spec: ContainerSpec) -> Result<(), String> {
        let (name, attempt) = (spec.name.clone(), spec.attempt);
        let answer = self.ask(Question::Start(spec)).await;
        let shown = |state: &Option<PodState>| {
            let run = state.as_ref().map(|state| state.last_run(&name));
            run.is_none_or(|run: Option<&Run>| run.is_some_and(|run| run.attempt >= attempt))
        };
        // The watch is another connection; a shim that is stuck must not hold up the worker.
        let _ = tokio::time::timeout(ANSWER_MAX, self.wait(shown)).await;
        answer
    }

    /// Sends a signal to a container.
    pub async fn signal(&self, container: &str, signal: i32) -> Result<(), String> {
        let container = container.to_string();
        self.ask(Question::Signal { container, signal }).await
    }

    /// Ends the pod and waits until it is gone.
    pub async fn end(&self) -> Result<(), String> {
        if self.ask(Question::End).await.is_err() {
            self.kill();
        }
        let gone = self.wait(Option::is_none);
        let waited = tokio::time::timeout(ANSWER_MAX, gone).await;
        waited.map_err(|_| "the shim did not end".to_string())
    }

    /// Kills the shim, which ends the pod: for one that does not do what it is told.
    pub fn kill(&self) {
        if let Some(pod) = self.socket.parent() {
            kill(pod);
        }
    }

    /// Runs a program in a container for at most `limit`.
    pub async fn run(&self, container: &str, argv: Vec<String>, limit: Duration) -> Ran {
        let program = Program {
            argv,
            env: Vec::new(),
            cwd: None,
            tty: false,
            limit_ms: u64::try_from(limit.as_millis()).ok(),
        };
        let question = Question::Run {
            container: container.to_string(),
            program,
        };
        let socket = self.socket.clone();
        let ran = tokio::task::spawn_blocking(move || run(&socket, &question, limit)).await;
        match ran.map_err(std::io::Error::other) {
            Ok(Ok(ran)) => ran,
            Ok(Err(e)) | Err(e) => match e.kind() {
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => Ran::TimedOut,
                _ => Ran::Failed(e.to_string()),
            },
        }
    }

    async fn ask(&self, question: Question) -> Result<(), String> {
        let socket = self.socket.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let mut stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(ANSWER_MAX))?;
            exec::send(&mut stream, &question, &[])?;
            exec::receive::<Answer>(&mut stream)
        });
        let answer = asked.await.map_err(std::io::Error::other).and_then(|it| it);
        match answer.map_err(|e| format!("the pod's shim: {e}"))?.0 {
            Answer::Done => Ok(()),
            Answer::Failed(why) => Err(why),
        }
    }
}

/// Kills the shim of a pod directory, if there is one. A process that has got its number meanwhile is left alone.
pub fn kill(pod: &Path) {
    let text = std::fs::read_to_string(pod.join(PID_FILE)).unwrap_or_default();
    let Ok(pid) = text.trim().parse::<i32>() else {
        return;
    };
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_ours = words
        .split(|byte| *byte == 0)
        .any(|word| word == pod.as_os_str().as_bytes());
    if is_ours {
        tracing::warn!(pod = %pod.display(), "killing a shim that does not answer");
        // It may have ended this very moment.
        let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::conversation("work on a thread", std::io::Error::other(e)))?
}

fn launch(program: &Path, pod: &Path, spec: &PodSpec, netns: Option<Netns>) -> Result<()> {
    private_dir(pod)?;
    let scratch = pod.join("scratch");
    std::fs::create_dir_all(&scratch).map_err(|e| Error::file("create", &scratch, e))?;
    write_json(&pod.join("shim.json"), spec)?;
    // One that did not answer, or that was under way when the agent before us died, must not live on unseen.
    kill(pod);
    let socket = pod.join("shim.sock");
    if socket.exists() {
        std::fs::remove_file(&socket).map_err(|e| Error::file("remove", &socket, e))?;
    }
    let log = pod.join("shim.log");
    let output = File::create(&log).map_err(|e| Error::file("create", &log, e))?;
    let errors = output
        .try_clone()
        .map_err(|e| Error::file("open", &log, e))?;
    let wrong = |e| Error::conversation("start a pod's shim", e);
    let mut command = Command::new(program);
    command.args(["lab", "shim", "--dir"]).arg(pod);
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    if let Some(netns) = netns {
        command.arg("--own-netns");
        command.pass_fd(netns.as_fd().try_clone_to_owned().map_err(wrong)?, NETNS_FD);
    }
    let status = command.status().map_err(wrong)?;
    if status.success() {
        return Ok(());
    }
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    Err(Error::Refused(format!(
        "the pod's shim ended: {}",
        said.trim()
    )))
}

fn watch_state(socket: &Path) -> Result<(watch::Receiver<Option<PodState>>, UnixStream)> {
    let wrong = |e| Error::conversation(format!("watch {}", socket.display()), e);
    let mut stream = UnixStream::connect(socket).map_err(wrong)?;
    stream.set_read_timeout(Some(ANSWER_MAX)).map_err(wrong)?;
    exec::send(&mut stream, &Question::Watch, &[]).map_err(wrong)?;
    let (first, _) = exec::receive::<PodState>(&mut stream).map_err(wrong)?;
    stream.set_read_timeout(None).map_err(wrong)?;
    let handle = stream.try_clone().map_err(wrong)?;
    let (sender, receiver) = watch::channel(Some(first));
    let listen = move || {
        while let Ok((state, _)) = exec::receive::<PodState>(&mut stream) {
            sender.send_replace(Some(state));
        }
        sender.send_replace(None);
    };
    let spawned = std::thread::Builder::new()
        .name("shim".into())
        .spawn(listen);
    spawned.map_err(wrong)?;
    Ok((receiver, handle))
}

fn run(socket: &Path, question: &Question, limit: Duration) -> std::io::Result<Ran> {
    let mut output = tempfile::tempfile()?;
    let null = File::open("/dev/null")?;
    let mut stream = UnixStream::connect(socket)?;
    // The shim keeps the limit; this is for a shim that hangs.
    stream.set_read_timeout(Some(limit.saturating_add(ANSWER_MAX)))?;
    let fds = [null.as_raw_fd(), output.as_raw_fd(), output.as_raw_fd()];
    exec::send(&mut stream, question, &fds)?;
    // When this fails the connection closes, and the shim kills the program.
    let (outcome, _) = exec::receive::<Outcome>(&mut stream)?;
    let code = match outcome {
        Outcome::Exited(code) => code,
        Outcome::TimedOut => return Ok(Ran::TimedOut),
        Outcome::Failed(why) => return Ok(Ran::Failed(why)),
    };
    output.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    output.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Ran::Ended(
        code,
        String::from_utf8_lossy(&bytes).into_owned(),
    ))
}
