//! The control socket: what the commands `portolan lab status`, `exec --node` and `outside` ask the supervisor.

use std::collections::BTreeMap;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use portolan_kernel::command::CommandNamespaces;
use serde::{Deserialize, Serialize};

use super::Lab;
use crate::exec::{self, Outcome, Program};

/// A question to the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum Question {
    /// What do the daemons do? Answer: [`Status`].
    Status,
    /// Run a program in the network of a place (a node, `outside`, `fabric`); its three files come with the question.
    /// Answer: [`Outcome`].
    Run {
        /// The place's name.
        place: String,
        /// The program.
        program: Program,
    },
}

/// What the supervisor knows of its daemons.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// By name: `apiserver`, `n1` …
    pub daemons: BTreeMap<String, DaemonStatus>,
}

/// One daemon.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Its process number inside the lab, if it runs.
    pub pid: Option<u32>,
    /// How often it was started.
    pub starts: u32,
}

/// Answers for ever.
pub(super) fn serve(lab: &Arc<Lab>, listener: &UnixListener) {
    for stream in listener.incoming().flatten() {
        let lab = lab.clone();
        let spawned = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || answer(&lab, stream));
        if let Err(error) = spawned {
            tracing::error!(%error, "can't answer on the control socket");
        }
    }
}

fn answer(lab: &Lab, mut stream: UnixStream) {
    let (question, files) = match exec::receive(&mut stream) {
        Ok(received) => received,
        Err(error) => return tracing::debug!(%error, "unreadable question"),
    };
    match question {
        Question::Status => {
            let status = Status {
                daemons: lab.keeper.status(),
            };
            let _ = exec::send(&mut stream, &status, &[]);
        }
        Question::Run { place, program } => match command(lab, &place, &program) {
            Ok(command) => {
                let limit = program.limit_ms.map(Duration::from_millis);
                exec::serve(&lab.reaper, stream, command, files, limit);
            }
            Err(why) => drop(exec::send(&mut stream, &Outcome::Failed(why), &[])),
        },
    }
}

fn command(lab: &Lab, place: &str, program: &Program) -> Result<Command, String> {
    let names = || {
        lab.fabric
            .nodes
            .iter()
            .map(|(node, _)| node.name())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let host = lab
        .fabric
        .place(place)
        .ok_or_else(|| format!("{place:?} is none of {}, outside, fabric", names()))?;
    let (first, arguments) = program.argv.split_first().ok_or("no command was given")?;
    let mut command = Command::new(if first == "portolan" {
        lab.program.as_os_str()
    } else {
        first.as_ref()
    });
    command.args(arguments).envs(program.env.iter().cloned());
    if let Some(cwd) = &program.cwd {
        command.current_dir(cwd);
    }
    command.in_netns(&host.netns).map_err(|e| e.to_string())?;
    match program.tty {
        true => command.own_terminal(),
        false => command.own_session(),
    };
    Ok(command)
}
