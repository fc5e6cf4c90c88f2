//! A server alone on the first core, and whoever asks it on the last one, on hosts of their own with a link between them:
//! what the parts `dns` and `gateway` share.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ipnet::IpNet;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::topology::Host;

/// A figure: whose (`None` is ours), of what, how much, in what unit.
pub struct Figure {
    pub peer: Option<String>,
    pub what: String,
    pub value: f64,
    pub unit: &'static str,
}

/// The first and the last core that this process may use.
pub fn cores() -> Result<[usize; 2], String> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).map_err(|e| e.to_string())?;
    let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false));
    match (cores.next(), cores.next_back()) {
        (Some(first), Some(last)) => Ok([first, last]),
        _ => Err("a server and its client need a core each, and there is only one".into()),
    }
}

/// The addresses of the `index`th server and of the client on the link to it.
pub fn addresses(index: usize) -> [Ipv4Addr; 2] {
    let subnet = index as u8 + 1;
    [2, 1].map(|last| Ipv4Addr::new(192, 168, subnet, last))
}

/// A host for a server, joined with the client.
pub fn host(client: &Host, index: usize) -> Result<Host, String> {
    let made = || -> portolan_kernel::Result<Host> {
        let host = Host::new()?;
        let [own, theirs] = addresses(index).map(|address| [IpNet::new_assert(address.into(), 24)]);
        client.join(&format!("server{index}"), &theirs, &host, "eth0", &own)?;
        Ok(host)
    };
    made().map_err(|e| e.to_string())
}

/// A command that runs a program on a core.
pub fn pinned(core: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &core.to_string()]).arg(program);
    command
}

/// Starts a server on a host; what it says goes into a file.
pub fn spawn(command: &mut Command, host: &Host, log: &Path) -> Result<Child, String> {
    let log = File::create(log).map_err(|e| e.to_string())?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(|e| e.to_string())?)
        .stderr(log)
        .in_netns(&host.netns)
        .map_err(|e| e.to_string())?
        .die_with_parent(Signal::SIGKILL);
    command
        .spawn()
        .map_err(|e| format!("cannot start {command:?}: {e}"))
}

/// What a program says of its version: the first numbers with dots between them.
pub fn version(program: &Path, flag: &str) -> Result<String, String> {
    let output = Command::new(program).arg(flag).output();
    let output = output.map_err(|e| format!("{}: {e}", program.display()))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    version_in(&text).ok_or_else(|| format!("{} says {text:?} and no version", program.display()))
}

fn version_in(text: &str) -> Option<String> {
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    let mut words = text
        .split(|c: char| !is_part(c))
        .map(|word| word.trim_matches('.'));
    words.find(|word| word.contains('.')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_understood() {
        for (text, version) in [
            ("CoreDNS-1.13.2\nlinux/amd64, go1.25.5, abc", "1.13.2"),
            ("knotd (Knot DNS), version 3.2.6\n", "3.2.6"),
            ("NSD version 4.6.1\nWritten by NLnet Labs.", "4.6.1"),
            ("Version 1.17.1\n\nConfigure line: --build=x86_64", "1.17.1"),
            ("Dnsmasq version 2.90  Copyright (c) 2000-2024", "2.90"),
            ("nginx version: nginx/1.22.1", "1.22.1"),
            ("HAProxy version 2.6.12-1+deb12u3 2025/10/03", "2.6.12"),
        ] {
            assert_eq!(version_in(text).as_deref(), Some(version), "{text}");
        }
        assert_eq!(version_in("none of them."), None);
    }
}
