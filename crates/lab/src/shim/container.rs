//! The first moments of a container, in a process of its own with one thread: `portolan lab container` reads what it
//! shall become from standard input, builds its file system, and becomes it. Whatever fails before that is written to
//! descriptor [`ERROR_FD`], which closes without a word when the command runs.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::protocol::ContainerSpec;
use super::root;

/// Where a failed start is told.
pub const ERROR_FD: i32 = 10;

/// What `portolan lab container` is to become.
#[derive(Debug, Serialize, Deserialize)]
pub enum Task {
    /// The main process of a container.
    Start {
        /// The container.
        spec: ContainerSpec,
        /// An empty directory to mount on.
        scratch: PathBuf,
        /// Our own program, which the command word `portolan` means.
        portolan: PathBuf,
    },
}

/// Becomes the container. Returns only if that is impossible.
pub fn run(error_fd: OwnedFd) -> String {
    let why = match become_it() {
        Ok(never) => match never {},
        Err(why) => why,
    };
    // If the shim does not listen, its container simply ends.
    let _ = File::from(error_fd).write_all(why.as_bytes());
    why
}

fn become_it() -> Result<std::convert::Infallible, String> {
    let text = io::read_to_string(io::stdin()).map_err(|e| e.to_string())?;
    let Task::Start {
        spec,
        scratch,
        portolan,
    } = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| format!("create a mount namespace: {e}"))?;
    root::enter(&scratch, &spec.mounts)?;
    let mut command = command(&spec.argv, &portolan, &spec.env)?;
    std::env::set_current_dir(&spec.cwd)
        .map_err(|e| format!("chdir to {}: {e}", spec.cwd.display()))?;
    let null = File::open("/dev/null").map_err(|e| format!("open /dev/null: {e}"))?;
    Err(explain(&spec.argv[0], &command.stdin(null).exec()))
}

/// The command of a container or of a program in it. `portolan` is our own program; others are searched in the
/// container's PATH.
pub fn command(
    argv: &[String],
    portolan: &Path,
    env: &[(String, String)],
) -> Result<Command, String> {
    let (first, arguments) = argv.split_first().ok_or("no command was given")?;
    let program = match first.as_str() {
        "portolan" => portolan.as_os_str().to_os_string(),
        _ => OsString::from(first),
    };
    let mut command = Command::new(program);
    command
        .arg0(first)
        .args(arguments)
        .env_clear()
        .envs(env.iter().cloned());
    Ok(command)
}

/// runc's words, which people search for.
fn explain(program: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound if !program.contains('/') => {
            format!("exec: {program:?}: executable file not found in $PATH")
        }
        io::ErrorKind::NotFound => {
            format!("exec: {program:?}: stat {program}: no such file or directory")
        }
        io::ErrorKind::PermissionDenied => format!("exec: {program:?}: permission denied"),
        _ => format!("exec: {program:?}: {error}"),
    }
}
