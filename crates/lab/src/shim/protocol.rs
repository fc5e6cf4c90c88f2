//! What an agent asks a pod's shim, and what the shim answers, over the pod's unix socket.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::exec::Program;

/// How a pod's shim is to be set up, kept in the pod directory's `shim.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSpec {
    /// The host name inside the pod; none for a pod that shares its node's.
    pub hostname: Option<String>,
}

/// A question to the shim.
#[derive(Debug, Serialize, Deserialize)]
pub enum Question {
    /// How are the containers? Answer: [`PodState`].
    State,
    /// The same now and after every change, until the asker closes.
    Watch,
    /// Start a container. Answer: [`Answer`].
    Start(ContainerSpec),
    /// Send a signal to a container's main process; SIGKILL goes to its whole process group. Answer: [`Answer`].
    Signal {
        /// The container.
        container: String,
        /// The signal's number.
        signal: i32,
    },
    /// Run a program inside a container; its three files come with the question. Answer: [`crate::exec::Outcome`].
    Run {
        /// The container.
        container: String,
        /// The program; its variables come on top of the container's.
        program: Program,
    },
    /// End the pod: kill everything and go.
    End,
}

/// Whether a question was obeyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Yes.
    Done,
    /// No, and why.
    Failed(String),
}

/// One run of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The container's name in the pod.
    pub name: String,
    /// 0 for the first run, one more for each restart.
    pub attempt: u32,
    /// The command and its arguments, with all variables expanded.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Where it starts.
    pub cwd: PathBuf,
    /// What is to be seen in the container's file system, in this order.
    pub mounts: Vec<Mount>,
}

/// A file or directory of the machine at a path inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// On the machine.
    pub source: PathBuf,
    /// In the container.
    pub target: PathBuf,
    /// Whether it can't be written.
    pub read_only: bool,
}

/// All that the shim knows of its containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodState {
    /// For each container its runs, oldest first; only the last two are kept.
    pub containers: std::collections::BTreeMap<String, Vec<Run>>,
}

/// One run of a container, running or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its number, from 0.
    pub attempt: u32,
    /// When it was started.
    pub started_at: Timestamp,
    /// How and when it ended; none while it runs.
    pub ended: Option<Ended>,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// 128 + n after signal n.
    pub exit_code: i32,
    /// The signal, if one ended it.
    pub signal: Option<i32>,
    /// When.
    pub finished_at: Timestamp,
    /// Why it could not be started, if it could not.
    pub start_error: Option<String>,
}

impl PodState {
    /// The newest run of a container.
    pub fn last_run(&self, container: &str) -> Option<&Run> {
        self.containers.get(container)?.last()
    }

    /// The run before the newest one.
    pub fn previous_run(&self, container: &str) -> Option<&Run> {
        self.containers.get(container)?.iter().rev().nth(1)
    }
}

impl Run {
    /// Whether it has not ended.
    pub fn is_running(&self) -> bool {
        self.ended.is_none()
    }
}
