//! Tests that need another kernel than this machine's: a test program runs itself in a small machine of QEMU
//! (scripts/machine.sh), as it runs itself in namespaces ([`crate::isolate`]).

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::command::CommandNamespaces;
use crate::error::{Error, Result};

/// What scripts/machine.sh exits with when it has not what it needs.
const MISSING: i32 = 77;

/// How a program ended in the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit status.
    Status(i32),
    /// It never began: scripts/setup.sh has not been run.
    Missing,
}

/// What goes along with a program.
#[derive(Clone, Debug, Default)]
pub struct Luggage {
    /// Files and whole folders, at the same paths there.
    pub files: Vec<PathBuf>,
    /// Other programs, by their names or paths, with the libraries that they need.
    pub programs: Vec<String>,
}

/// Runs this very program with other arguments in the machine, and tells each line that it prints.
pub fn run(arguments: &[String], luggage: &Luggage, mut tell: impl FnMut(&str)) -> Result<Ended> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/machine.sh");
    let own = std::env::current_exe().map_err(|e| Error::call("find the test program", e))?;
    let files: Vec<String> = luggage
        .files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    let mut command = Command::new(&script);
    command
        .arg(own)
        .args(arguments)
        .env("MACHINE_FILES", files.join(" "))
        .env("MACHINE_PROGRAMS", luggage.programs.join(" "))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command.die_with_parent(Signal::SIGTERM);
    let mut child = command
        .spawn()
        .map_err(|e| Error::call("run scripts/machine.sh", e))?;
    let output = child.stdout.take();
    for line in output
        .into_iter()
        .flat_map(|out| BufReader::new(out).split(b'\n'))
    {
        let line = line.map_err(|e| Error::call("read what the machine says", e))?;
        tell(String::from_utf8_lossy(&line).trim_end());
    }
    let status = child
        .wait()
        .map_err(|e| Error::call("wait for the machine", e))?;
    Ok(match status.code() {
        Some(MISSING) => Ended::Missing,
        code => Ended::Status(code.unwrap_or(-1)),
    })
}
