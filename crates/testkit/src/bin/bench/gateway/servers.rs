//! Who serves: `portolan gateway`, which reads the API, and nginx and haproxy, which read files with the same routes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portolan_kernel::topology::Host;

use super::site::{Identity, Site};
use crate::contender::find;
use crate::lane;

/// A program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Portolan,
    Nginx,
    Haproxy,
}

/// A server that can be measured.
#[derive(Clone, Debug)]
pub struct Server {
    pub program: Program,
    path: PathBuf,
    version: String,
}

/// Where a server finds what it needs.
pub struct Place<'a> {
    pub host: &'a Host,
    pub folder: &'a Path,
    pub kubeconfig: &'a Path,
    pub identity: &'a Identity,
    pub site: Site,
    pub core: usize,
}

impl Program {
    const PEERS: [Program; 2] = [Program::Nginx, Program::Haproxy];

    /// What it is called, and the variable that names another one than the installed one.
    fn facts(self) -> (&'static str, &'static str) {
        match self {
            Program::Portolan => ("portolan", "PORTOLAN"),
            Program::Nginx => ("nginx", "PEER_NGINX"),
            Program::Haproxy => ("haproxy", "PEER_HAPROXY"),
        }
    }
}

/// The peers that are here, and words about those that are not.
pub fn peers() -> Result<(Vec<Server>, Vec<String>), String> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for program in Program::PEERS {
        let (name, variable) = program.facts();
        let named = std::env::var_os(variable).map(PathBuf::from);
        let Some(path) = named.or_else(|| find(name)) else {
            missing.push(format!(
                "The peer {name} was absent: {variable} was not set, and none is installed (apt-get install {name})."
            ));
            continue;
        };
        let version = lane::version(&path, "-v")?;
        found.push(Server {
            program,
            path,
            version,
        });
    }
    Ok((found, missing))
}

impl Server {
    /// Our own.
    pub fn ours(path: &Path) -> Server {
        Server {
            program: Program::Portolan,
            path: path.to_owned(),
            version: String::new(),
        }
    }

    /// Who it is, for reports; `None` is us.
    pub fn peer(&self) -> Option<String> {
        let (name, _) = self.program.facts();
        (self.program != Program::Portolan).then(|| format!("{name} {}", self.version))
    }

    /// Starts it on its core; it stays in the foreground.
    pub fn start(&self, place: &Place<'_>) -> Result<Child, String> {
        let mut command = lane::pinned(place.core, &self.path);
        let identity = place.identity;
        let both = [&*identity.certificate, &*identity.key].concat();
        write(place.folder, "certificate.pem", &both)?;
        match self.program {
            Program::Portolan => {
                command.args(["gateway", "--threads", "1", "--watch-ingress-without-class"]);
                command.args(["--http", "0.0.0.0:80", "--https", "0.0.0.0:443"]);
                command.arg("--kubeconfig").arg(place.kubeconfig);
            }
            Program::Nginx => {
                write(place.folder, "nginx.conf", &place.site.nginx(0))?;
                command.arg("-p").arg(place.folder);
                command.arg("-e").arg(place.folder.join("error.log"));
                command.arg("-c").arg(place.folder.join("nginx.conf"));
            }
            Program::Haproxy => {
                write(place.folder, "haproxy.cfg", &Site::haproxy(place.folder))?;
                write(place.folder, "map", &place.site.map())?;
                command
                    .args(["-db", "-f"])
                    .arg(place.folder.join("haproxy.cfg"));
            }
        }
        lane::spawn(&mut command, place.host, &place.folder.join("log"))
    }

    /// Makes a peer have so many more paths at the first host, in the fastest way that it has: nginx reads its files
    /// anew, haproxy is told over its socket.
    pub fn change(&self, folder: &Path, pid: u32, site: Site, changes: u32) -> Result<(), String> {
        match self.program {
            Program::Portolan => Err("it reads the API".into()),
            Program::Nginx => {
                write(folder, "nginx.conf", &site.nginx(changes))?;
                kill(Pid::from_raw(pid as i32), Signal::SIGHUP).map_err(|e| e.to_string())
            }
            Program::Haproxy => {
                let (host, path) = (Site::host(0), Site::changed(changes - 1));
                let to = crate::objects::name(0);
                let map = folder.join("map");
                let line = format!("add map {} {host}{path}/ {to}\n", map.display());
                let tell = || -> std::io::Result<String> {
                    let mut socket = UnixStream::connect(folder.join("socket"))?;
                    socket.write_all(line.as_bytes())?;
                    let mut said = String::new();
                    socket.read_to_string(&mut said)?;
                    Ok(said)
                };
                match tell().map_err(|e| format!("haproxy's socket: {e}"))?.trim() {
                    "" => Ok(()),
                    said => Err(format!("haproxy says {said:?}")),
                }
            }
        }
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), String> {
    let file = folder.join(name);
    std::fs::write(&file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))
}
