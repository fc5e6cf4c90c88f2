//! Running a program in another place of the lab (a node, the outside, a pod) with the caller's own terminal or pipes:
//! the caller sends the request and its three standard files over a unix socket, and gets back how the program ended.
//! When the caller goes away, the program and its process group are killed.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use nix::sys::signal::Signal;
use portolan_kernel::fdpass;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::{Error, Result};
use crate::reaper::Reaper;

/// What to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Program {
    /// The command and its arguments.
    pub argv: Vec<String>,
    /// Variables on top of those of the place.
    pub env: Vec<(String, String)>,
    /// Where it starts; the place's own directory if not given.
    pub cwd: Option<PathBuf>,
    /// Whether standard input is a terminal that the program shall control.
    pub tty: bool,
    /// After this time it is killed.
    pub limit_ms: Option<u64>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// With this exit code (128 + n after signal n).
    Exited(i32),
    /// It took longer than it was allowed to, and was killed.
    TimedOut,
    /// It could not be started.
    Failed(String),
}

/// Sends one message over a socket.
pub fn send(stream: &mut UnixStream, message: &impl Serialize, fds: &[i32]) -> io::Result<()> {
    fdpass::send(stream, &serde_json::to_vec(message)?, fds)
}

/// Receives one message; an end of the conversation is an error.
pub fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<(T, Vec<OwnedFd>)> {
    let (bytes, fds) = fdpass::receive(stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((serde_json::from_slice(&bytes)?, fds))
}

/// Asks one question at a socket and returns the answer.
pub fn ask<T: DeserializeOwned>(
    socket: &Path,
    question: &impl Serialize,
    fds: &[i32],
) -> Result<T> {
    let talk = || -> io::Result<T> {
        let mut stream = UnixStream::connect(socket)?;
        send(&mut stream, question, fds)?;
        Ok(receive(&mut stream)?.0)
    };
    talk().map_err(|e| Error::conversation(format!("ask {}", socket.display()), e))
}

/// Asks for a program to be run with the caller's own standard files.
pub fn ask_with_stdio(socket: &Path, question: &impl Serialize) -> Result<Outcome> {
    let fds = [
        io::stdin().as_raw_fd(),
        io::stdout().as_raw_fd(),
        io::stderr().as_raw_fd(),
    ];
    ask(socket, question, &fds)
}

/// Runs `command` with the caller's files, tells the caller how it ended, and kills it when the caller goes away.
pub fn serve(
    reaper: &Arc<Reaper>,
    mut stream: UnixStream,
    mut command: Command,
    files: Vec<OwnedFd>,
    limit: Option<Duration>,
) {
    let outcome = match start(reaper, &mut command, files) {
        Ok(pid) => {
            // Our copies of the caller's files go with the command.
            drop(command);
            let too_long = Arc::new(AtomicBool::new(false));
            if let Ok(caller) = stream.try_clone() {
                let (reaper, too_long) = (reaper.clone(), too_long.clone());
                std::thread::spawn(move || guard(&reaper, caller, pid, limit, &too_long));
            }
            let end = reaper.wait(pid);
            if too_long.load(Relaxed) {
                Outcome::TimedOut
            } else {
                Outcome::Exited(end.code())
            }
        }
        Err(error) => Outcome::Failed(error.to_string()),
    };
    // The caller may be gone; then there is nobody to tell.
    let _ = send(&mut stream, &outcome, &[]);
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

/// Kills the program's process group when the caller goes away or the time is over.
fn guard(
    reaper: &Reaper,
    mut caller: UnixStream,
    pid: u32,
    limit: Option<Duration>,
    too_long: &AtomicBool,
) {
    let _ = caller.set_read_timeout(limit);
    let gone = fdpass::receive(&mut caller);
    too_long.store(
        gone.is_err_and(|e| {
            matches!(
                e.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            )
        }),
        Relaxed,
    );
    reaper.signal(pid, Signal::SIGKILL, true);
}

fn start(reaper: &Reaper, command: &mut Command, files: Vec<OwnedFd>) -> io::Result<u32> {
    let [stdin, stdout, stderr] = <[OwnedFd; 3]>::try_from(files).map_err(|files| {
        io::Error::other(format!(
            "3 files must come with the request, not {}",
            files.len()
        ))
    })?;
    command
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr));
    reaper.spawn(command)
}
