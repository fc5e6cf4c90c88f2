//! What the runs stand on: `portolan apiserver` and `portolan dns` as processes, in the network namespace of this one.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use portolan_testkit::program::{Api, Process};

use crate::Result;

/// Where names are answered.
pub const DNS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 53);
/// A query without an answer for so long is lost.
pub const LOST_AFTER: Duration = Duration::from_secs(2);

/// kubeadm's, without a server for other names, which there are none of, and with a page of its own for each process.
const COREFILE: &str = ".:53 {
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus 127.0.0.1:PAGE
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    reload
    loadbalance
}
";

/// Starts an answerer, which ends when it is dropped; several of them share one port.
pub fn answerer(api: &Api, number: usize) -> Result<Process> {
    let conf = api.folder().join(format!("Corefile-{number}"));
    let text = COREFILE.replace("PAGE", &(9153 + number).to_string());
    std::fs::write(&conf, text).map_err(|e| e.to_string())?;
    let mut command = Command::new(&api.portolan);
    command.args(["dns", "--conf"]).arg(conf);
    command.arg("--kubeconfig").arg(api.kubeconfig());
    let log = api.folder().join(format!("dns-{number}.log"));
    Process::start(&mut command, &log)
}

/// A socket that asks [`DNS`].
pub fn socket() -> Result<UdpSocket> {
    let open = || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(DNS)?;
        socket.set_read_timeout(Some(LOST_AFTER))?;
        Ok(socket)
    };
    open().map_err(|e: std::io::Error| format!("cannot open a socket: {e}"))
}
