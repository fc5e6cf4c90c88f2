//! Who answers: `portolan dns` and CoreDNS, which read the API, and servers that read files with the same records.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use portolan_kernel::topology::Host;

use super::cluster::{self, ELSEWHERE, Kind};
use crate::contender::find;
use crate::lane;

/// A program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Portolan,
    CoreDns,
    Knot,
    Nsd,
    Unbound,
    Dnsmasq,
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
    /// Address of the server of other names, at [`UPSTREAM_PORT`].
    pub upstream: std::net::Ipv4Addr,
    pub core: usize,
}

/// The port of the server of other names.
pub const UPSTREAM_PORT: u16 = 1053;

/// kubeadm's, with the way to the API and the other server in their places; CoreDNS gets the same.
const COREFILE: &str = ".:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       kubeconfig KUBECONFIG
       startup_timeout 60s
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . UPSTREAM {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
";

impl Program {
    const PEERS: [Program; 5] = [
        Program::CoreDns,
        Program::Knot,
        Program::Nsd,
        Program::Unbound,
        Program::Dnsmasq,
    ];

    /// What it is called, the command that prints its version, and how to get it.
    fn facts(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Program::Portolan => ("portolan", "portolan", "--version", ""),
            Program::CoreDns => (
                "CoreDNS",
                "coredns",
                "-version",
                "PEER_COREDNS=path names it",
            ),
            Program::Knot => ("knot", "knotd", "-V", "apt-get install knot"),
            Program::Nsd => ("nsd", "nsd", "-v", "apt-get install nsd"),
            Program::Unbound => ("unbound", "unbound", "-V", "apt-get install unbound"),
            Program::Dnsmasq => (
                "dnsmasq",
                "dnsmasq",
                "--version",
                "apt-get install dnsmasq-base",
            ),
        }
    }
}

/// The peers that are here, and words about those that are not.
pub fn peers() -> Result<(Vec<Server>, Vec<String>), String> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for program in Program::PEERS {
        let (name, command, version, how) = program.facts();
        let named = match program {
            Program::CoreDns => std::env::var_os("PEER_COREDNS").map(PathBuf::from),
            _ => None,
        };
        let Some(path) = named.or_else(|| find(command)) else {
            missing.push(format!("The peer {name} was absent: {how}."));
            continue;
        };
        let version = lane::version(&path, version)?;
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
        let (name, ..) = self.program.facts();
        (self.program != Program::Portolan).then(|| format!("{name} {}", self.version))
    }

    /// Whether it can be asked for this. Servers of zones have no cache; dnsmasq looks for SRV in a list from its begin,
    /// and is not made for thousands of them.
    pub fn knows(&self, kind: Kind) -> bool {
        match self.program {
            Program::Knot | Program::Nsd => kind != Kind::Cached,
            Program::Dnsmasq => kind != Kind::Srv,
            _ => true,
        }
    }

    /// Whether it has its names from the API.
    pub fn watches(&self) -> bool {
        matches!(self.program, Program::Portolan | Program::CoreDns)
    }

    /// Starts it on its core; it stays in the foreground.
    pub fn start(&self, place: &Place<'_>) -> Result<Child, String> {
        let mut command = lane::pinned(place.core, &self.path);
        let config = place.folder.join("config");
        let text = match self.program {
            Program::Portolan => {
                command.args(["dns", "--conf"]).arg(&config);
                corefile(place)
            }
            Program::CoreDns => {
                command.arg("-conf").arg(&config);
                corefile(place)
            }
            Program::Knot => {
                command.arg("-c").arg(&config);
                knot(place)?
            }
            Program::Nsd => {
                command.args(["-d", "-c"]).arg(&config);
                nsd(place)?
            }
            Program::Unbound => {
                command.args(["-d", "-c"]).arg(&config);
                unbound(place)?
            }
            Program::Dnsmasq => {
                command.arg("--keep-in-foreground");
                command.arg(format!("--conf-file={}", config.display()));
                dnsmasq(place)?
            }
        };
        std::fs::write(&config, text).map_err(|e| e.to_string())?;
        lane::spawn(&mut command, place.host, &place.folder.join("log"))
    }
}

/// Starts the server of other names, which has one for every name below [`ELSEWHERE`].
pub fn start_upstream(portolan: &Path, host: &Host, folder: &Path) -> Result<Child, String> {
    let config = folder.join("elsewhere");
    let text = format!(
        ".:{UPSTREAM_PORT} {{\n template IN A {ELSEWHERE} {{\n answer \"{{{{ .Name }}}} 3600 IN A 203.0.113.9\"\n }}\n}}\n"
    );
    std::fs::write(&config, text).map_err(|e| e.to_string())?;
    let mut command = Command::new(portolan);
    command.args(["dns", "--conf"]).arg(config);
    lane::spawn(&mut command, host, &folder.join("elsewhere.log"))
}

fn corefile(place: &Place<'_>) -> String {
    COREFILE
        .replace("KUBECONFIG", &place.kubeconfig.display().to_string())
        .replace("UPSTREAM", &format!("{}:{UPSTREAM_PORT}", place.upstream))
}

fn knot(place: &Place<'_>) -> Result<String, String> {
    let folder = place.folder.display();
    cluster::write_zone(&place.folder.join("zone"))?;
    Ok(format!(
        "server:\n  rundir: \"{folder}\"\n  listen: 0.0.0.0@53\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
         log:\n  - target: stderr\n    any: warning\n\
         database:\n  storage: \"{folder}\"\n\
         template:\n  - id: default\n    storage: \"{folder}\"\n    zonefile-sync: -1\n    journal-content: none\n\
         zone:\n  - domain: cluster.local\n    file: zone\n"
    ))
}

fn nsd(place: &Place<'_>) -> Result<String, String> {
    let folder = place.folder.display();
    cluster::write_zone(&place.folder.join("zone"))?;
    // Its limit of answers to one client would hide what it can do.
    Ok(format!(
        "server:\n  server-count: 1\n  ip-address: 0.0.0.0\n  username: \"\"\n  chroot: \"\"\n  zonesdir: \"{folder}\"\n  \
         database: \"\"\n  pidfile: \"{folder}/pid\"\n  xfrdfile: \"{folder}/xfrd\"\n  zonelistfile: \"{folder}/zones\"\n  \
         rrl-ratelimit: 0\n  rrl-whitelist-ratelimit: 0\n\
         remote-control:\n  control-enable: no\n\
         zone:\n  name: cluster.local\n  zonefile: zone\n"
    ))
}

fn unbound(place: &Place<'_>) -> Result<String, String> {
    let folder = place.folder.display();
    cluster::write_local_data(&place.folder.join("records"))?;
    Ok(format!(
        "server:\n  num-threads: 1\n  interface: 0.0.0.0\n  do-ip6: no\n  username: \"\"\n  chroot: \"\"\n  directory: \"{folder}\"\n  \
         pidfile: \"{folder}/pid\"\n  access-control: 0.0.0.0/0 allow\n  use-syslog: no\n  do-daemonize: no\n  module-config: \"iterator\"\n\
         include: \"{folder}/records\"\n\
         remote-control:\n  control-enable: no\n\
         forward-zone:\n  name: \".\"\n  forward-addr: {}@{UPSTREAM_PORT}\n",
        place.upstream
    ))
}

fn dnsmasq(place: &Place<'_>) -> Result<String, String> {
    let folder = place.folder.display();
    cluster::write_hosts(&place.folder.join("hosts"))?;
    Ok(format!(
        "port=53\nuser=root\npid-file={folder}/pid\nno-resolv\nno-hosts\naddn-hosts={folder}/hosts\nlocal-ttl=30\n\
         local=/cluster.local/\ncache-size=10000\nserver={}#{UPSTREAM_PORT}\n",
        place.upstream
    ))
}
