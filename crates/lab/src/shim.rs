//! The shim: one process per pod, PID 1 of the pod's PID namespace. It holds the pod's namespaces, is the parent of the
//! containers, writes their logs and remembers how they ended. It decides nothing: the agent says what to start and
//! what to stop, and may be killed and replaced at any time without the pod noticing.
//! When the shim ends, the kernel ends everything in the pod.

pub mod container;
mod containers;
pub mod log;
pub mod protocol;
mod root;

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portolan_kernel::namespace::{Kinds, enter_new};
use portolan_kernel::process::{self, Forked};
use portolan_kernel::{Netns, mount};

use crate::dir::read_json;
use crate::error::{Error, Result};
use crate::exec::{self, Outcome};
use crate::reaper::Reaper;
use containers::Containers;
use protocol::{Answer, PodSpec, Question};

/// The file in a pod's directory that has the shim's process id, for an agent that gets no answer.
pub const PID_FILE: &str = "shim.pid";

/// Starts a pod's shim and returns when its socket accepts questions. Must be called by a process with one thread.
/// `netns` is the pod's network namespace, or none for a pod in its node's. In the shim itself this returns at its end.
pub fn run(pod: &Path, netns: Option<OwnedFd>) -> Result<()> {
    let spec: PodSpec = read_json(&pod.join("shim.json"))?;
    if let Some(fd) = netns {
        Netns::from_fd(fd).enter()?;
    }
    let socket = pod.join("shim.sock");
    let listener = UnixListener::bind(&socket).map_err(|e| Error::file("listen on", &socket, e))?;
    let mut kinds = Kinds::CLONE_NEWPID | Kinds::CLONE_NEWNS | Kinds::CLONE_NEWIPC;
    if spec.hostname.is_some() {
        kinds |= Kinds::CLONE_NEWUTS;
    }
    enter_new(kinds)?;
    match process::fork_single()? {
        Forked::Parent(pid) => {
            let path = pod.join(PID_FILE);
            std::fs::write(&path, pid.to_string()).map_err(|e| Error::file("write", &path, e))
        }
        Forked::Child => serve(pod, &spec, &listener),
    }
}

fn serve(pod: &Path, spec: &PodSpec, listener: &UnixListener) -> Result<()> {
    // The shim must outlive whatever terminal or session started it.
    let _ = nix::unistd::setsid();
    mount::make_private()?;
    if let Err(error) = mount::proc() {
        tracing::debug!(%error, "keeping the lab's /proc");
    }
    if let Some(hostname) = &spec.hostname {
        nix::unistd::sethostname(hostname)
            .map_err(|e| Error::conversation("set the pod's host name", e))?;
    }
    let program =
        std::env::current_exe().map_err(|e| Error::conversation("find our own program", e))?;
    let reaper = Arc::new(Reaper::new().map_err(|e| Error::conversation("block signals", e))?);
    let containers = Arc::new(Containers::new(pod.to_path_buf(), program, reaper.clone()));
    let listener = listener
        .try_clone()
        .map_err(|e| Error::conversation("duplicate a socket", e))?;
    let waiting = reaper.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (containers, reaper) = (containers.clone(), reaper.clone());
            let spawned =
                std::thread::Builder::new().spawn(move || answer(&containers, &reaper, stream));
            if let Err(error) = spawned {
                tracing::error!(%error, "can't answer");
            }
        }
    });
    waiting
        .run()
        .map_err(|e| Error::conversation("wait for signals", e))
}

fn answer(containers: &Arc<Containers>, reaper: &Arc<Reaper>, mut stream: UnixStream) {
    let Ok((question, files)) = exec::receive(&mut stream) else {
        return;
    };
    let done = |result: Result<(), String>| match result {
        Ok(()) => Answer::Done,
        Err(why) => Answer::Failed(why),
    };
    // An asker that has gone away needs no answer.
    let _ = match question {
        Question::State => exec::send(&mut stream, &containers.state(), &[]),
        Question::Watch => watch(containers, &mut stream),
        Question::Start(spec) => exec::send(&mut stream, &done(containers.start(spec)), &[]),
        Question::Signal { container, signal } => exec::send(
            &mut stream,
            &done(containers.signal(&container, signal)),
            &[],
        ),
        Question::Run { container, program } => match containers.command(&container, &program) {
            Ok(command) => {
                let limit = program.limit_ms.map(Duration::from_millis);
                exec::serve(reaper, stream, command, files, limit);
                Ok(())
            }
            Err(why) => exec::send(&mut stream, &Outcome::Failed(why), &[]),
        },
        Question::End => {
            let _ = exec::send(&mut stream, &Answer::Done, &[]);
            // As PID 1 we take everything in the pod with us.
            end()
        }
    };
}

fn watch(containers: &Containers, stream: &mut UnixStream) -> std::io::Result<()> {
    // Nothing is ever received on a watch: it can only become readable by being closed, which sending then notices.
    exec::send(stream, &containers.state(), &[])?;
    let mut version = 0;
    loop {
        let (newer, state) = containers.changed_since(version);
        version = newer;
        exec::send(stream, &state, &[])?;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the end of PID 1 is what ends the pod"
)]
fn end() -> ! {
    std::process::exit(0)
}

/// Whether something listens on a socket: a shim's life sign.
pub fn is_alive(pod: &Path) -> bool {
    UnixStream::connect(pod.join("shim.sock")).is_ok_and(|stream| stream.as_raw_fd() >= 0)
}
