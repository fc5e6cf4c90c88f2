//! haproxy as the peer of userspace mode: one process that forwards the TCP ports of the Services of `traffic` to
//! their endpoints. The Services' addresses are made the node's own for it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::topology::Host;

use crate::contender::{Contender, find as find_program};
use crate::objects::cluster_ip;
use crate::traffic;

/// haproxy without and with splice; nothing when there is none.
pub fn find() -> Result<Vec<Contender>, String> {
    let named = std::env::var_os("PEER_HAPROXY").map(PathBuf::from);
    let Some(program) = named.or_else(|| find_program("haproxy")) else {
        return Ok(Vec::new());
    };
    let output = Command::new(&program)
        .arg("-v")
        .output()
        .map_err(|e| format!("PEER_HAPROXY={}: {e}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = version(&text).ok_or_else(|| {
        let path = program.display();
        format!("PEER_HAPROXY={path} says {text:?} and no version")
    })?;
    Ok([false, true]
        .map(|splice| Contender::Haproxy {
            program: program.clone(),
            version: version.clone(),
            splice,
        })
        .into())
}

/// `HAProxy version 2.6.12-1+deb12u3 2025/…` is 2.6.12.
fn version(text: &str) -> Option<String> {
    let mut words = text
        .split_whitespace()
        .skip_while(|word| *word != "version");
    let version = words.nth(1)?;
    let numbers = version.split(['-', '+']).next()?;
    (!numbers.is_empty()).then(|| numbers.to_owned())
}

/// The command that serves on the node, and stays in the foreground.
pub fn command(
    program: &Path,
    splice: bool,
    node: &Host,
    folder: &Path,
) -> Result<Command, String> {
    traffic::services().try_for_each(|service| own(service, node))?;
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, config(splice))
        .map_err(|e| format!("cannot write {}: {e}", file.display()))?;
    let mut command = Command::new(program);
    command.args(["-db", "-f"]).arg(file);
    Ok(command)
}

/// Makes the address of a Service one of the node's.
fn own(service: u32, node: &Host) -> Result<(), String> {
    let address = cluster_ip(service).to_string();
    let mut route = Command::new("ip");
    route
        .args(["route", "replace", "local", &address, "dev", "lo"])
        .stdin(Stdio::null())
        .in_netns(&node.netns)
        .map_err(|e| e.to_string())?;
    match route.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("ip route replace local {address} dev lo: {status}")),
        Err(error) => Err(format!("ip: {error}")),
    }
}

fn config(splice: bool) -> String {
    let mut text = String::from(
        "global\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n",
    );
    if splice {
        text.push_str("  option splice-auto\n");
    }
    for service in traffic::services() {
        let (vip, endpoint) = (cluster_ip(service), traffic::endpoint(service));
        for (port, target) in traffic::TCP {
            let _ = write!(
                text,
                "listen s{service}-{port}\n  bind {vip}:{port}\n  server one {endpoint}:{target}\n"
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_understood() {
        let text = "HAProxy version 2.6.12-1+deb12u3 2025/10/03 - https://haproxy.org/\n";
        assert_eq!(version(text).as_deref(), Some("2.6.12"));
        assert_eq!(version("something else"), None);
    }

    #[test]
    fn splice_is_an_option() {
        assert!(config(true).contains("option splice-auto"));
        assert!(!config(false).contains("splice"));
        assert_eq!(config(false).matches("listen s").count(), 30);
    }
}
