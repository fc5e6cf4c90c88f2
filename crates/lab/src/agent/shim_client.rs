//! The agent's side of a pod's shim: starting it, asking it, and hearing of changes.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use portolan_kernel::Netns;
use portolan_kernel::command::CommandNamespaces;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::dir::write_json;
use crate::error::{Error, Result};
use crate::exec;
use crate::shim::protocol::{Answer, ContainerSpec, PodSpec, PodState, Question};

/// The descriptor number of the pod's network namespace in the shim.
pub const NETNS_FD: i32 = 10;

/// A pod's shim.
#[derive(Clone)]
pub struct Shim {
    socket: PathBuf,
    /// Changes with each change in the pod, and for the last time (to `None`) when the shim has ended.
    pub news: watch::Receiver<Option<u64>>,
}

impl Shim {
    /// Starts the shim of a pod. Blocks until it answers.
    pub fn start(program: &Path, pod: &Path, spec: &PodSpec, netns: Option<&Netns>) -> Result<()> {
        write_json(&pod.join("shim.json"), spec)?;
        let socket = pod.join("shim.sock");
        if socket.exists() {
            std::fs::remove_file(&socket).map_err(|e| Error::file("remove", &socket, e))?;
        }
        let mut command = Command::new(program);
        command
            .args(["lab", "shim", "--dir"])
            .arg(pod)
            .stdin(Stdio::null());
        if let Some(netns) = netns {
            let fd = netns.try_clone()?.into();
            command.arg("--own-netns").pass_fd(fd, NETNS_FD);
        }
        // It returns when it has forked the shim.
        let status = command
            .status()
            .map_err(|e| Error::conversation("start a pod's shim", e))?;
        match status.success() {
            true => Ok(()),
            false => Err(Error::Refused(format!(
                "a pod's shim did not start: {status}"
            ))),
        }
    }

    /// Connects to a running shim.
    pub fn connect(pod: &Path) -> Result<Shim> {
        let socket = pod.join("shim.sock");
        let wrong = |e| Error::conversation("watch a pod's shim", e);
        let mut stream = UnixStream::connect(&socket).map_err(wrong)?;
        exec::send(&mut stream, &Question::Watch, &[]).map_err(wrong)?;
        let (tell, news) = watch::channel(Some(0));
        std::thread::Builder::new()
            .name("shim-watch".into())
            .spawn(move || {
                let mut count = 0;
                while exec::receive::<PodState>(&mut stream).is_ok() && !tell.is_closed() {
                    count += 1;
                    tell.send_replace(Some(count));
                }
                tell.send_replace(None);
            })
            .map_err(wrong)?;
        Ok(Shim { socket, news })
    }

    /// How the containers are.
    pub async fn state(&self) -> Result<PodState> {
        self.ask(Question::State).await
    }

    /// Starts a container. The text says why it could not be.
    pub async fn start_container(&self, spec: ContainerSpec) -> Result<(), String> {
        match self.ask(Question::Start(spec)).await {
            Ok(Answer::Done) => Ok(()),
            Ok(Answer::Failed(why)) => Err(why),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Sends a signal to a container.
    pub async fn signal(&self, container: &str, signal: i32) {
        let question = Question::Signal {
            container: container.to_string(),
            signal,
        };
        if let Err(error) = self.ask::<Answer>(question).await {
            // The shim is gone, and its containers with it.
            tracing::debug!(%error, "a signal is lost");
        }
    }

    /// Ends the pod and waits until it is over.
    pub async fn end(&mut self) {
        let _ = self.ask::<Answer>(Question::End).await;
        let _ = self.news.wait_for(Option::is_none).await;
    }

    async fn ask<T: DeserializeOwned + Send + 'static>(
        &self,
        question: impl Serialize + Send + 'static,
    ) -> Result<T> {
        let socket = self.socket.clone();
        let work = tokio::task::spawn_blocking(move || exec::ask(&socket, &question, &[]));
        work.await
            .map_err(|e| Error::conversation("ask a pod's shim", std::io::Error::other(e)))?
    }
}
