//! The network of one proxy under measurement, in namespaces that are gone when it is dropped.
//!
//! ```text
//!   client (a pod of n1) 10.1.0.2 ──▶ n1 192.168.0.11, with the proxy's rules ──▶ server 192.168.0.12
//!                                                        every endpoint's address is one of the server's
//! ```

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::link::Route;
use portolan_kernel::sysctl;
use portolan_kernel::topology::Host;
use portolan_model::Family;
use portolan_testkit::{wait, world};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::objects::{ENDPOINT_PORT, ENDPOINT_RANGES, SERVICE_PORT, cluster_ip};

/// Connections that may wait for the server to take them.
const BACKLOG_MAX: i32 = 4096;
/// Whoever asks again and again whether a Service answers yet waits no longer for one answer.
const ANSWER_LIMIT: Duration = Duration::from_millis(50);
/// A connection that is measured may be late, since the machine may stand still for a moment. One that is not there
/// after this time never will be.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Addresses of the client and of its gateway.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

/// The three hosts.
pub struct Bed {
    /// The node under measurement.
    pub node: Host,
    /// Who opens connections.
    pub client: Host,
    /// Who answers them, under the address of every endpoint.
    pub server: Host,
}

impl Bed {
    /// Builds the network and starts the server's threads, which end with this process.
    pub fn build() -> Result<Self, String> {
        let bed = connect().map_err(|e| e.to_string())?;
        for range in ENDPOINT_RANGES {
            // "Any IP": every address of the range is an address of the server.
            bed.server_command(&["route", "add", "local", range, "dev", "lo"])?;
        }
        bed.wait_for_links()?;
        let listener = bed.server.run(listen).map_err(|e| e.to_string())??;
        std::thread::spawn(move || answer(&listener));
        Ok(bed)
    }

    fn server_command(&self, arguments: &[&str]) -> Result<(), String> {
        let mut command = Command::new("ip");
        command
            .args(arguments)
            .in_netns(&self.server.netns)
            .map_err(|e| e.to_string())?;
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("ip {}: {status}", arguments.join(" "))),
            Err(error) => Err(format!("ip: {error}")),
        }
    }

    fn wait_for_links(&self) -> Result<(), String> {
        for host in [&self.node, &self.client, &self.server] {
            let mut links = host.links().map_err(|e| e.to_string())?;
            if !wait::until(Duration::from_secs(5), || {
                links.are_ready().unwrap_or(false)
            }) {
                return Err("a link does not come up".into());
            }
        }
        Ok(())
    }
}

fn connect() -> portolan_kernel::Result<Bed> {
    let bed = Bed {
        node: Host::router()?,
        client: Host::new()?,
        server: Host::new()?,
    };
    let (n1, n2) = (
        world::node_address(Family::V4, 1),
        world::node_address(Family::V4, 2),
    );
    let linked = |address: IpAddr| [IpNet::new_assert(address, 24)];
    bed.node
        .join("fabric", &linked(n1), &bed.server, "eth0", &linked(n2))?;
    bed.node.join(
        "pod0",
        &linked(GATEWAY.into()),
        &bed.client,
        "eth0",
        &linked(CLIENT.into()),
    )?;
    let everything = IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0);
    bed.client
        .links()?
        .set_route(&Route::via(everything, GATEWAY.into()))?;
    bed.server.links()?.set_route(&Route::via(everything, n1))?;
    for range in ENDPOINT_RANGES {
        let range: IpNet = range
            .parse()
            .expect("invariant: ranges in the code are well formed");
        bed.node.route(range, n2)?;
    }
    // Clients ask before the rules stand, and must be told at once each time that there is nobody.
    sysctl::set(
        &bed.node.netns,
        &[
            ("ipv4/icmp_ratelimit", "0"),
            ("ipv4/icmp_msgs_per_sec", "100000"),
        ],
    )
    .or_else(|_| sysctl::set(&bed.node.netns, &[("ipv4/icmp_ratelimit", "0")]))?;
    Ok(bed)
}

fn listen() -> Result<TcpListener, String> {
    let open = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SockAddr::from(SocketAddr::from((
            Ipv4Addr::UNSPECIFIED,
            ENDPOINT_PORT,
        ))))?;
        socket.listen(BACKLOG_MAX)?;
        Ok(TcpListener::from(socket))
    };
    open().map_err(|e: std::io::Error| format!("cannot listen on the server: {e}"))
}

/// Tells every client which endpoint it has reached.
fn answer(listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        if let Ok(SocketAddr::V4(address)) = stream.local_addr() {
            // A client that is gone already is no news.
            let _ = stream.write_all(&address.ip().octets());
        }
    }
}

/// Opens a connection from the calling thread's namespace; how long that took, and the connection.
pub fn dial(to: SocketAddr) -> std::io::Result<(Duration, TcpStream)> {
    dial_within(to, CONNECT_LIMIT)
}

fn dial_within(to: SocketAddr, limit: Duration) -> std::io::Result<(Duration, TcpStream)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // No TIME_WAIT: the next connection may have the same port.
    socket.set_linger(Some(Duration::ZERO))?;
    let begun = Instant::now();
    socket.connect_timeout(&SockAddr::from(to), limit)?;
    Ok((begun.elapsed(), socket.into()))
}

/// Whether a Service takes connections by now, asked from the calling thread's namespace.
pub fn is_open(service: u32) -> bool {
    dial_within(virtual_address(service), ANSWER_LIMIT).is_ok()
}

/// Which endpoint answers at a Service, asked from the calling thread's namespace.
pub fn who_answers(service: u32) -> std::io::Result<Ipv4Addr> {
    let (_, mut stream) = dial_within(virtual_address(service), ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let mut address = [0; 4];
    stream.read_exact(&mut address)?;
    Ok(address.into())
}

/// Where a Service answers.
pub fn virtual_address(service: u32) -> SocketAddr {
    (cluster_ip(service), SERVICE_PORT).into()
}
